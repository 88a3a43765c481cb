"""Firmware variables of a new machine: Secure Boot on, with our keys and nobody else's."""

import uuid
from pathlib import Path

from omamori_firmware.errors import SetupError
from omamori_firmware.tools import ToolsTree

_OWNER = uuid.UUID("6F6D616D-6F72-4900-8000-000000000010")


def enrol_variables(target: Path, trust: Path, empty: Path, tools: ToolsTree) -> None:
    """Write a variable store in which only our certificates are enrolled.

    Args:
        target: File to write.
        trust: Directory with PK.crt, KEK.crt and db.crt.
        empty: A store with nothing enrolled, of the machine's boot firmware.
        tools: Supplies virt-fw-vars.

    Raises:
        SetupError: A certificate is missing.
    """
    for name in ("PK.crt", "KEK.crt", "db.crt"):
        if not (trust / name).is_file():
            raise SetupError(f"{trust / name} is not there", hint="make keys with: omamori-ota keys init DIR")
    line: list[str | Path] = ["virt-fw-vars", "--input", empty, "--output", target]
    line += ["--set-pk", str(_OWNER), trust / "PK.crt", "--add-kek", str(_OWNER), trust / "KEK.crt"]
    line += ["--add-db", str(_OWNER), trust / "db.crt", "--secure-boot"]
    tools.run(line, binds=[target.parent, trust, empty.parent])
