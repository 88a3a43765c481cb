"""Firmware that must never reach a slot, one after the other on one box: every line ends where it began, and is told.

The operator is careless or bought (`CarelessOperator`), or the box is in trouble: its disk full, its clock at 1970.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.scenes import Title
from omamori_lab.settings import SERIAL
from sim.firmware_release import ReleaseSource, noise

from .careless_operator import CarelessOperator
from .outcome_table import Outcome

_TIMEOUT_S = 120.0
_WINDOW = {"days": 127, "start_min": 0, "length_min": 1440, "zone": "Asia/Tokyo"}
_FIRMWARE = "/var/lib/omamori/firmware"
_FILL = (
    "available=$(df --output=avail -k /var | tail -1); fallocate -l $((available - 24576))k /var/lib/omamori/fill; "
    "df --output=avail -m /var | tail -1"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One firmware that must be refused.

    Attributes:
        name: What is wrong.
        version: Its version.
        prepare: Publishes it; on leaving, undoes what stands in the way of the next case.
        ends: State and reason that the box must tell.
        detail: Regular expression for what it says about it.
    """

    name: str
    version: str
    prepare: Callable[[], contextlib.AbstractContextManager[object]]
    ends: tuple[str, str]
    detail: str


class RefusedFirmwareScene:
    """`Scene`: the box goes through the table and stays what it is.

    Args:
        work: For what the operator makes.
        table: Where the outcomes are noted.
    """

    name = "firmware-never-taken"
    title = Title("入れてはならないファームウェア", "firmware that must never be taken")
    needs_shell = True

    def __init__(self, work: Path, table: list[Outcome]) -> None:
        self._work = work
        self._table = table

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Offer one after the other."""
        before = lab.portal.box(SERIAL)
        state = lab.box.shell("cat /run/omamori/firmware/boot.json; efibootmgr").output
        operator = CarelessOperator(lab.surroundings.feeds.repository, lab.settings.keys, self._work)
        for case in self._cases(lab, operator):
            with case.prepare():
                self._offer(lab, checks, case)
        lab.surroundings.feeds.refresh()
        lab.surroundings.desired.publish()
        after = lab.portal.box(SERIAL)
        running = ("firmware", "slot")
        checks.equal("version and slot", [before[word] for word in running], [after[word] for word in running])
        now = lab.box.shell("cat /run/omamori/firmware/boot.json; efibootmgr").output
        checks.equal("what the machine's own firmware would start", state, now)

    def _cases(self, lab: Lab, operator: CarelessOperator) -> Iterator[Case]:
        def published(
            version: str, bundle: bytes = b"", **options: object
        ) -> Callable[[], contextlib.nullcontext[None]]:
            def prepare() -> contextlib.nullcontext[None]:
                data = bundle or noise(version, 300_000)
                operator.publish(ReleaseSource(version=version, bundle=data), **options)  # type: ignore[arg-type]
                return contextlib.nullcontext()

            return prepare

        signed = operator.bundle("9.0.4")
        yield Case(
            "right keys, but older", "0.0.9", published("0.0.9"), ("failed", "older-version"), r"not newer than 0\.1\."
        )
        yield Case(
            "security epoch too low",
            "9.0.1",
            published("9.0.1", epoch=0),
            ("failed", "epoch-too-low"),
            "epoch 0 is lower than 1",
        )
        yield Case(
            "another board's record",
            "9.0.2",
            published("9.0.2", described_board="other-board"),
            ("failed", "wrong-board"),
            "for board other-board",
        )
        yield Case(
            "another board's bundle",
            "9.0.3",
            published("9.0.3", operator.bundle("9.0.3", board="other-board")),
            ("failed", "bundle-refused"),
            "Compatible mismatch",
        )
        yield Case(
            "bundle cut off before it was signed for",
            "9.0.4",
            published("9.0.4", signed[: len(signed) // 2]),
            ("failed", "bundle-refused"),
            "[Ss]ignature",
        )
        yield Case(
            "bundle signed by a stranger",
            "9.0.5",
            published("9.0.5", operator.bundle("9.0.5", is_strangers=True)),
            ("failed", "bundle-refused"),
            "signature verification failed",
        )
        yield Case(
            "bundle below the image's own version under a high one",
            "9.0.6",
            published("9.0.6", operator.bundle("0.0.8")),
            ("failed", "bundle-refused"),
            "Version mismatch",
        )
        yield Case(
            "payload cut off on the web server",
            "9.0.7",
            published("9.0.7", is_cut=True),
            ("downloading", "unreachable"),
            "another range|cut|416",
        )
        yield Case(
            "data partition full", "9.0.8", self._full(lab, published("9.0.8")), ("downloading", "no-space"), "MiB"
        )
        yield Case(
            "clock at 1970", "9.0.9", self._in_1970(lab, published("9.0.9")), ("idle", "clock-unknown"), "not known"
        )

        def expired() -> contextlib.nullcontext[None]:
            published("9.0.10")()
            operator.expire()
            return contextlib.nullcontext()

        yield Case("expired metadata", "9.0.10", expired, ("idle", "metadata-expired"), "expired")

    @staticmethod
    def _full(lab: Lab, publish: Callable[[], object]) -> Callable[[], contextlib.AbstractContextManager[object]]:
        @contextlib.contextmanager
        def prepare() -> Iterator[None]:
            publish()
            assert int(lab.box.shell(_FILL).output) < 32
            try:
                yield
            finally:
                lab.box.shell("rm /var/lib/omamori/fill")

        return prepare

    @staticmethod
    def _in_1970(lab: Lab, publish: Callable[[], object]) -> Callable[[], contextlib.AbstractContextManager[object]]:
        @contextlib.contextmanager
        def prepare() -> Iterator[None]:
            publish()
            lab.box.shell("date -s @1000")
            # What was connected stays so; a box that starts in 1970 has no connection to go on with.
            lab.surroundings.services["nginx"].stop()
            lab.surroundings.services["nginx"].start()
            try:
                yield
            finally:
                lab.box.shell(f"date -s @{time.time():.0f}")

        return prepare

    def _offer(self, lab: Lab, checks: Checklist, case: Case) -> None:
        slot = lab.portal.box(SERIAL)["slot"]
        mark = lab.box.console.mark()
        lab.surroundings.desired.publish(
            firmware={
                "version": case.version,
                "window": _WINDOW,
                "max_wait_s": 0,
                "metered": "allow",
                "rate_kbps": 0,
                "owner_refuses_scheduled": False,
            }
        )
        state, reason = case.ends
        line = rf"omamori: firmware version={re.escape(case.version)} state={state} slot={slot} reason={reason}"
        lab.box.await_line(line, timeout_s=_TIMEOUT_S, since=mark)

        def reported() -> str:
            """What the box reports about this part of its settings."""
            settings = lab.portal.box(SERIAL)["settings"]
            part = settings["parts"].get("firmware", {"reason": ""}) if settings else {"reason": ""}
            return str(part["reason"])

        box = lab.portal.await_box(
            SERIAL, lambda _box: reason in reported() and re.search(case.detail, reported()), timeout_s=_TIMEOUT_S
        )
        told = box["update"]
        checks.equal(f"{case.name}: version in the portal", case.version, told["version"])
        checks.equal(f"{case.name}: slot in the portal", slot, told["running"]["slot"])
        if reason != "unreachable":  # comes and goes with the network, so it is no event
            checks.equal(f"{case.name}: event in the portal", case.ends, (told["state"], told["reason"]))
        self._table.append(Outcome(case.name, case.version, state, str(slot), f"{reason}: {reported()[:100]}"))
