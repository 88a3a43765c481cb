"""What the bench of updates measures is the box's own code: its processes, its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_lab.bench_ota_fetch import take
from sim.pki import Authority

from .conftest import BOOT, ROOT, MakeRelease, changed


@pytest.mark.parametrize("cut_after", [None, 10_000])
@pytest.mark.parametrize("is_delta", [True, False])
def test_taken_over_a_line_that_is_cut(
    make: MakeRelease, tmp_path: Path, *, is_delta: bool, cut_after: int | None
) -> None:
    old, new = make("1.1.0"), make("1.2.0", changed(ROOT), changed(BOOT, at=50_000))
    new.add_delta(old, lambda _done, _total: None)
    authority, tls = Authority("service ca"), tmp_path / "tls"
    tls.mkdir()
    authority.issue("localhost", client=False, names=("localhost",)).write(tls / "tls.key", tls / "tls.crt")
    (tls / "ca.pem").write_bytes(authority.pem)
    place = tmp_path / "place"
    place.mkdir()
    taken = take(new.path, old.path, place, tls=tls, ca=tls / "ca.pem", is_delta=is_delta, cut_after=cut_after)
    assert taken.sent_bytes == taken.payload_bytes, "not a byte twice"
    assert taken.cuts == ((taken.payload_bytes - 1) // cut_after if cut_after else 0)
    assert taken.spent
    assert all(1 << 20 < spent.peak_bytes < 96 << 20 for spent in (*taken.spent, *taken.checked))
