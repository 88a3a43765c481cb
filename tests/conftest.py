"""Order and honesty of the test run.

Cheap tests come first, the ones that boot the image last. A test that cannot run for want of a tool is skipped on a
developer's machine and fails in continuous integration: a green run there has run everything.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from sim.postgres import Postgres

ROOT = Path(__file__).resolve().parents[1]
IN_CI = bool(os.environ.get("CI"))
# pytest-timeout stops its clock when a test fails. What is started anew here goes on until the cleanup has ended.
CLEANUP_S = float(os.environ.get("OMAMORI_CLEANUP_S", "300"))
CLEANUP_AGAIN_S = 60.0
TIERS = ("contract", "unit", "sim", "integration", "fuzz", "rig", "system")


def _tier(item: pytest.Item) -> int:
    folder = item.path.relative_to(ROOT / "tests").parts[0]
    late = any(item.get_closest_marker(name) for name in ("image", "system"))
    return (TIERS.index(folder) if folder in TIERS else 0) + (len(TIERS) if late else 0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run cheap tiers first; the sort is stable, so files keep their own order."""
    items.sort(key=_tier)
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root") or item.get_closest_marker("system"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure when everything has to run."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in continuous integration: {call.excinfo and call.excinfo.value}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Bound the cleanup of a failed test, too: what hangs there would hold up the whole run for ever."""
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        return (yield)

    def expired(_signum: int, _frame: object) -> None:
        faulthandler.dump_traceback(all_threads=True)
        pytest.fail(f"the cleanup did not end within {CLEANUP_S:.0f} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, CLEANUP_S, CLEANUP_AGAIN_S)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the tests' own, started when the first test asks for it."""
    server = Postgres()
    yield server
    server.close()
