"""What the factory does for a box: a serial into the register, a claim and the endpoints into ``provision.json``.

The claim exists in clear text only in that file. A serial is registered once; giving it a new claim (a repaired box,
a lost file) must be asked for.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

from omamori_protocol.device import check_device_id
from omamori_protocol.errors import ProtocolError
from omamori_protocol.provision import MAX_BYTES, parse_provision

from .boxes import new_claim
from .clock import Clock
from .errors import RejectedError, SetupError
from .files import PRIVATE_FILE, read_bounded, write_atomic
from .registry import Registry

MAX_BATCH = 10_000
_COUNTED = re.compile(r"(.*?)([0-9]{1,18})")


class ProvisionTemplate:
    """What is the same for all boxes of a batch: ``provision.json`` without serial and claim.

    Args:
        path: The template.

    Raises:
        SetupError: It cannot be read.
        RejectedError: A box would refuse what comes of it.
    """

    def __init__(self, path: Path) -> None:
        data = read_bounded(path, MAX_BYTES)
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as err:
            raise RejectedError(f"{path} is not JSON: {str(err)[:80]}") from err
        if not isinstance(body, dict) or {"serial", "claim"} & set(body):
            raise RejectedError(f"{path} must be an object without serial and claim")
        self._body = body
        self._path = path
        self.fill("ZA35-000000", new_claim())

    def fill(self, serial: str, claim: str) -> bytes:
        """Return the file for one box; raises `RejectedError` as the constructor does."""
        body = {**self._body, "serial": serial, "claim": claim}
        try:
            return parse_provision(json.dumps(body).encode()).to_json()
        except ProtocolError as err:
            raise RejectedError(f"{self._path}: {err}", hint=err.hint) from err


def batch_serials(first: str, count: int) -> list[str]:
    """Return `count` serials from `first` on, counting its last digits.

    Raises:
        RejectedError: The serial does not end in digits, they run out, or the batch is too large.
    """
    match = _COUNTED.fullmatch(check_device_id(first))
    if not 1 <= count <= MAX_BATCH:
        raise RejectedError(f"a batch of {count} is not allowed", hint=f"1 to {MAX_BATCH}")
    if count == 1:
        return [first]
    if match is None:
        raise RejectedError(f"{first} does not end in a number to count from")
    prefix, digits = match.groups()
    last = int(digits) + count - 1
    if len(str(last)) > len(digits):
        raise RejectedError(f"{first} and {count - 1} more do not fit into {len(digits)} digits")
    return [f"{prefix}{number:0{len(digits)}}" for number in range(int(digits), last + 1)]


def provision(
    registry: Registry,
    template: ProvisionTemplate,
    serial: str,
    out: Path,
    clock: Clock,
    *,
    replace: bool = False,
    lifetime: timedelta | None = None,
    is_held: bool = False,
) -> None:
    """Register a box and write its ``provision.json``.

    Args:
        registry: The register.
        template: The endpoints.
        serial: The box.
        out: File to write, readable by the owner only.
        clock: Time of registration.
        replace: Give a registered box a new claim (its enrolment is forgotten, its certificates and key are revoked),
            and overwrite `out`.
        lifetime: How long the claim may wait for its first use; None for ever.
        is_held: Whether somebody must approve the box before it gets a certificate.

    Raises:
        SetupError: The serial is registered, or `out` exists, and `replace` is not set; nothing was changed.
    """
    check_device_id(serial)
    claim = new_claim()
    if out.exists() and not replace:
        raise SetupError(f"{out} exists already", hint="choose another file, or give --replace")
    with registry.changing() as change:
        box = change.find(serial)
        if box is not None and not replace:
            raise SetupError(
                f"{serial} is registered already (claim {box.state})",
                hint="--replace gives it a new claim; the box must then enrol again",
            )
        change.add(serial, claim, clock(), lifetime=lifetime, is_held=is_held)
        # Inside the transaction: a cut in between leaves a file that enrols nobody, never a claim that nobody has.
        write_atomic(out, template.fill(serial, claim), mode=PRIVATE_FILE)
