"""The file by which the agent tells the settings service which address the box shall have.

The agent writes it, without privileges; the service, as root, reads it and trusts nothing in it: it is bounded, parsed
strictly, and holds nothing but an address that has passed the protocol's own check. It has two settings: the one that
is proved to work, and one on trial. A trial belongs to one boot of the box: after a restart, the proved one counts.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from omamori_protocol.desired import AddressMode, AddressSettings
from omamori_protocol.errors import MalformedError, ProtocolError

FORMAT = 1
MAX_BYTES = 4096
_BOOT_ID = re.compile(r"[0-9a-f-]{1,64}")
DHCP = AddressSettings(mode=AddressMode.DHCP)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Settings that still have to prove themselves.

    Attributes:
        settings: What is tried.
        boot_id: The boot in which it was begun.
        until_s: Seconds since power-on at which the proved settings come back.
    """

    settings: AddressSettings
    boot_id: str
    until_s: float


@dataclasses.dataclass(frozen=True)
class Refused:
    """Settings that did not prove themselves, as version `version` of the desired state asked for them."""

    settings: AddressSettings
    version: int
    reason: str


@dataclasses.dataclass(frozen=True)
class AddressFile:
    """Content of the file.

    Attributes:
        proved: Settings that work, or the product's default.
        trial: Settings on trial.
        refused: For the agent's own use: what need not be tried again.
    """

    proved: AddressSettings = DHCP
    trial: Trial | None = None
    refused: Refused | None = None

    def effective(self, boot_id: str) -> AddressSettings:
        """Return what shall be in force during this boot."""
        if self.trial is not None and self.trial.boot_id == boot_id:
            return self.trial.settings
        return self.proved


def to_bytes(file: AddressFile) -> bytes:
    """Return the file's bytes."""
    body: dict[str, Any] = {"format": FORMAT, "proved": _plain(file.proved), "trial": None, "refused": None}
    if file.trial is not None:
        trial = file.trial
        body["trial"] = {"settings": _plain(trial.settings), "boot_id": trial.boot_id, "until_s": trial.until_s}
    if file.refused is not None:
        refused = file.refused
        body["refused"] = {
            "settings": _plain(refused.settings),
            "version": refused.version,
            "reason": refused.reason,
        }
    return (json.dumps(body, sort_keys=True, indent=1) + "\n").encode()


def parse(data: bytes) -> AddressFile:
    """Read the file.

    Raises:
        MalformedError: It is not such a file; nothing of it may be used.
    """
    if len(data) > MAX_BYTES:
        raise MalformedError(f"address file of {len(data)} bytes, allowed {MAX_BYTES}")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise MalformedError("address file: not JSON") from err
    expected = {"format", "proved", "trial", "refused"}
    if not isinstance(body, dict) or set(body) != expected or body["format"] != FORMAT:
        raise MalformedError("address file: unknown format")
    return AddressFile(_settings(body["proved"]), _trial(body["trial"]), _refused(body["refused"]))


def _plain(settings: AddressSettings) -> dict[str, Any]:
    return {
        "mode": settings.mode.word,
        "ipv4": settings.ipv4,
        "gateway": settings.gateway,
        "dns": list(settings.dns),
    }


def _settings(body: Any) -> AddressSettings:
    if not isinstance(body, dict) or set(body) != {"mode", "ipv4", "gateway", "dns"}:
        raise MalformedError("address file: not an address")
    if not isinstance(body["dns"], list) or not isinstance(body["mode"], str):
        raise MalformedError("address file: not an address")
    try:
        mode = AddressMode(AddressMode.from_word(body["mode"]))
        settings = AddressSettings(mode=mode, ipv4=body["ipv4"], gateway=body["gateway"], dns=tuple(body["dns"]))
        settings.to_body()  # checks every rule
    except (ValueError, TypeError, ProtocolError) as err:
        raise MalformedError(f"address file: {str(err)[:120]}") from err
    return settings


def _trial(body: Any) -> Trial | None:
    if body is None:
        return None
    if not isinstance(body, dict) or set(body) != {"settings", "boot_id", "until_s"}:
        raise MalformedError("address file: not a trial")
    boot_id, until_s = body["boot_id"], body["until_s"]
    if not isinstance(boot_id, str) or not _BOOT_ID.fullmatch(boot_id):
        raise MalformedError("address file: not a boot's name")
    if type(until_s) not in {int, float} or not 0 <= until_s < 2**40:
        raise MalformedError("address file: not a time")
    return Trial(_settings(body["settings"]), boot_id, float(until_s))


def _refused(body: Any) -> Refused | None:
    if body is None:
        return None
    if not isinstance(body, dict) or set(body) != {"settings", "version", "reason"}:
        raise MalformedError("address file: not a refusal")
    version, reason = body["version"], body["reason"]
    if type(version) is not int or not 0 <= version < 2**32 or not isinstance(reason, str) or len(reason) > 300:
        raise MalformedError("address file: not a refusal")
    return Refused(_settings(body["settings"]), version, reason)
