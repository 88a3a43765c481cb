"""What the slots' service found out at this boot: which slot runs, whether on trial, how the last trial ended.

It asks the boot loader's variables as root, before the agent starts, and writes one small file. A box without it (a
development image started by hand, a broken service) has no truth to act on, so no update is begun there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded
from omamori_protocol.vocabulary import Slot

from .machine import AttemptEnd, BootFacts

FORMAT = 1
_MAX_BYTES = 4096


def load_boot_facts(path: Path, *, boot_id: str, version: str) -> BootFacts:
    """Read the slots' service's file.

    Args:
        path: The file.
        boot_id: The kernel's name of this boot.
        version: Version of the running image.

    Raises:
        SetupError: It is not there or cannot be understood.
    """
    try:
        slot, is_trial, attempt = _parse(json.loads(read_bounded(path, _MAX_BYTES)))
    except FileNotFoundError as err:
        raise SetupError(f"{path}: missing", hint="did omamori-slots.service run?") from err
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise SetupError(f"{path}: not understood: {str(err)[:80]}") from err
    return BootFacts(slot=slot, is_trial=is_trial, attempt=attempt, boot_id=boot_id, version=version)


def _parse(body: Any) -> tuple[Slot, bool, AttemptEnd | None]:
    if not isinstance(body, dict) or body.get("format") != FORMAT or type(body["is_trial"]) is not bool:
        raise ValueError("unknown format")
    attempt = body["attempt"]
    return Slot[body["slot"]], body["is_trial"], None if attempt is None else AttemptEnd(attempt["end"])
