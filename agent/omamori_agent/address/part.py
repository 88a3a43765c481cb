"""The address part: a new address is on trial until the box has reached the broker with it.

The agent may not touch the network: it writes a file, the settings service makes it so (`service`). What proves an
address is a fresh connection to the broker from it; a connection from before, or one that still left by the old
address, proves nothing. Without a proof in time the previous address comes back and the new one is refused, with the
reason, until another version of the desired state asks again. A restart of the box in between ends the trial, too.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from omamori_agent.desired.errors import PendingError
from omamori_agent.errors import RejectedError, SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.text import clean_text
from omamori_protocol.desired import AddressMode, AddressSettings
from omamori_protocol.errors import MalformedError
from omamori_protocol.reported import PartName

from .settings import DHCP, MAX_BYTES, AddressFile, Refused, Trial, parse, to_bytes

logger = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 1024
_SETTLE_S = 10.0  # until a connection that cannot be told from an old one is asked for
_AGAIN_S = 5.0  # between two fresh connections during a trial


class ReachPort(Protocol):
    """What the link knows about reaching the broker."""

    def reconnect(self) -> None:
        """Give up the present connection and make a new one."""

    def connection(self) -> tuple[int, str] | None:
        """Return number and local address of the present connection, or None without one."""


class AddressPart:
    """`desired.part.Part` of the address.

    Args:
        path: The file for the settings service.
        answer_path: Where the service says what it has done.
        reach: The link.
        boot_id: The kernel's name of this boot.
        boottime_s: Returns seconds since power-on.
        version: Returns the version of the document in force.
        trial_s: How long a trial lasts.
        settle_s: How long the service may take.
    """

    name = PartName.ADDRESS

    def __init__(
        self,
        path: Path,
        answer_path: Path,
        reach: ReachPort,
        *,
        boot_id: str,
        boottime_s: Callable[[], float],
        version: Callable[[], int],
        trial_s: float,
        settle_s: float,
    ) -> None:
        self._path = path
        self._answer_path = answer_path
        self._reach = reach
        self._boot_id = boot_id
        self._boottime_s = boottime_s
        self._version = version
        self._trial_s = trial_s
        self._settle_s = settle_s
        self._file: AddressFile | None = None
        self._answered_s: float | None = None
        self._asked_s = float("-inf")
        self._before = 0
        self._is_settled = False

    def apply(self, settings: AddressSettings | None) -> None:
        """Give the box this address, or DHCP.

        Raises:
            RejectedError: It was tried and the broker was not reached.
            PendingError: It is on trial.
            TransientError: The file cannot be written.
        """
        wanted = settings or DHCP
        file = self._load()
        refused = file.refused
        if refused is not None and refused.settings == wanted and refused.version == self._version():
            raise RejectedError(refused.reason)
        trial = file.trial if file.trial is not None and file.trial.boot_id == self._boot_id else None
        if wanted == file.proved:
            if file.trial is not None or refused is not None:
                self._save(AddressFile(wanted))
                if trial is not None:
                    self._reach.reconnect()
            return
        if trial is None or trial.settings != wanted:
            self._begin(file, wanted)
        else:
            self._judge(file, trial)

    def _begin(self, file: AddressFile, wanted: AddressSettings) -> None:
        until_s = self._boottime_s() + self._trial_s
        connection = self._reach.connection()
        self._before = connection[0] if connection is not None else 0
        self._answered_s = None
        self._asked_s = float("-inf")
        self._is_settled = False
        self._save(AddressFile(file.proved, Trial(wanted, self._boot_id, until_s)))
        logger.warning("address: %s is on trial for %.0f s", _word(wanted), self._trial_s)
        raise PendingError(f"on trial: {_word(wanted)}")

    def _judge(self, file: AddressFile, trial: Trial) -> None:
        now_s = self._boottime_s()
        if self._answered_s is None:
            self._look_for_answer(file, trial, now_s)
        if self._answered_s is not None and self._is_proved(trial, now_s):
            self._save(AddressFile(trial.settings))
            logger.warning("address: %s works", _word(trial.settings))
            return
        if now_s >= trial.until_s:
            self._go_back(file, trial, f"no connection to the broker within {self._trial_s:.0f} s")
        raise PendingError(f"on trial: {_word(trial.settings)}")

    def _look_for_answer(self, file: AddressFile, trial: Trial, now_s: float) -> None:
        answer = self._answer()
        if answer is not None and answer.get("sha256") == hashlib.sha256(to_bytes(file)).hexdigest():
            if answer.get("error") is not None:
                self._go_back(file, trial, str(answer["error"]))
            self._answered_s = now_s
        elif now_s >= trial.until_s - self._trial_s + self._settle_s:
            self._go_back(file, trial, "the box's settings service did not answer")

    def _is_proved(self, trial: Trial, now_s: float) -> bool:
        """Tell whether there is a fresh connection that leaves by the new address; ask for one if not."""
        connection = self._reach.connection()
        if connection is not None and connection[0] > self._before and connection[1]:
            local, new = ipaddress.ip_address(connection[1]), _ip(trial.settings)
            # By IPv6, or by a lease that may be the old address: only time tells it from the old one.
            if local == new or (self._is_settled and (local.version == 6 or new is None)):
                return True
        if now_s - self._asked_s >= _AGAIN_S:
            self._asked_s = now_s
            self._is_settled = self._answered_s is not None and now_s - self._answered_s >= _SETTLE_S
            if connection is not None:
                self._before = connection[0]
            self._reach.reconnect()
        return False

    def _go_back(self, file: AddressFile, trial: Trial, reason: str) -> None:
        reason = f"{reason}; the previous address is back"
        self._save(AddressFile(file.proved, None, Refused(trial.settings, self._version(), reason)))
        self._reach.reconnect()
        raise RejectedError(reason)

    def _load(self) -> AddressFile:
        if self._file is None:
            try:
                self._file = parse(read_bounded(self._path, MAX_BYTES))
            except FileNotFoundError:
                self._file = AddressFile()
            except (SetupError, MalformedError) as err:
                logger.warning("%s: %s; starting from DHCP", self._path, err)
                self._file = AddressFile()
        return self._file

    def _save(self, file: AddressFile) -> None:
        try:
            write_atomic(self._path, to_bytes(file))
        except OSError as err:
            raise TransientError(f"address settings cannot be written: {err.strerror or err}") from err
        self._file = file

    def _answer(self) -> dict[str, Any] | None:
        try:
            body = json.loads(read_bounded(self._answer_path, _MAX_ANSWER_BYTES))
        except (FileNotFoundError, SetupError, ValueError, RecursionError) as err:
            logger.debug("no answer of the settings service: %s", err)
            return None
        return body if isinstance(body, dict) else None


def _ip(settings: AddressSettings) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Interface(settings.ipv4).ip if settings.ipv4 is not None else None


def _word(settings: AddressSettings) -> str:
    return "DHCP" if settings.mode is AddressMode.DHCP else clean_text(str(settings.ipv4), 20)
