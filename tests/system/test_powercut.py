"""The power fails at every flush of the disk and every write to the firmware's variables (`make test-powercut`).

An update is recorded once and judged at every moment without starting the box; at some moments it is started, and an
update that follows has to succeed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from omamori_lab.power_cut.rehearsal import await_end, choose, rehearse

from .power_cuts import judge_of, want

if TYPE_CHECKING:
    from .conftest import Office

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(7200),
]
FOLLOWED = 2  # so many of the starts are given another update


def test_update_survives_every_power_cut(
    office: Office,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    subsets, boots = (int(request.config.getoption(name, default)) for name, default in (("subsets", 1), ("boots", 6)))
    update = office.recorded_update()
    with judge_of(update, tmp_path_factory) as judge:
        report = judge.run(range(judge.timeline.boundaries + 1), range(subsets))
        first = judge.timeline.boundary_at(update.begin)
    with capsys.disabled():
        print(f"\n{report}", flush=True)
    assert not report.faults
    assert {f"slot {letter} {version}" for letter, version in update.update.versions.items()} == {
        outcome.partition(",")[0] for outcome in report.outcomes
    }
    moments = choose(report, boots, first)
    lab, next_version = office.lab, ""
    with judge_of(update, tmp_path_factory) as judge:
        for number, moment in enumerate(moments):
            end = rehearse(lab, update, judge, moment)
            if number >= len(moments) - FOLLOWED:
                if not next_version:
                    next_version = lab.surroundings.firmware.publish_next().version
                    want(lab, next_version)
                assert await_end(lab, next_version) == "committed", moment
            with capsys.disabled():
                print(f"started at {moment}: {end}{f', then {next_version}' if next_version else ''}", flush=True)
            lab.box.cut_power()
