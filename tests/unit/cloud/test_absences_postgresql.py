"""What absences need of the database, on the other engine."""

from __future__ import annotations

from omamori_cloud.liveness import OutageReason
from omamori_protocol.vocabulary import Leaving, RunEnd

from .makers import BOX, OTHER_BOX, Bench
from .watched import Watched

ENGINES = ("postgresql",)


def test_absences_begin_end_and_are_told(bench: Bench) -> None:
    watched = Watched(bench)
    session = watched.birth(boot=1)
    watched.birth(OTHER_BOX, boot=1)
    watched.will(session, boot=1, leaving=Leaving.UPDATE, quiet_s=300)
    watched.wait(400)
    assert watched.reasons(BOX) == [OutageReason.OVERDUE]
    assert watched.reasons(OTHER_BOX) == [OutageReason.UNKNOWN]
    watched.birth(boot=2, uptime_s=60, last_end=RunEnd.ORDERLY)
    watched.beat(OTHER_BOX)
    watched.look()
    assert watched.reasons(BOX) == [OutageReason.MAINTENANCE]
    assert watched.reasons(OTHER_BOX) == [OutageReason.LINE]
    assert all(row.end_ms for row in watched.outages(None))
    watched.status.set("the broker cannot be reached")
    watched.wait(60)
    watched.status.set("")
    watched.wait(60)
    assert [bool(row.end_ms) for row in watched.service()] == [True]
    for boot in range(3, 55):
        watched.birth(boot=boot, uptime_s=1, last_end=RunEnd.ABRUPT)
        watched.look()
    assert len(watched.outages(BOX)) == 50
