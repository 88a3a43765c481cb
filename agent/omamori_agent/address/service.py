"""The settings service: makes the network what the agent's file says, as root and with nothing else to its name.

Started by systemd when the file changes and once at boot, before the network is set up. It reads one file, writes one
drop-in below /run, asks the service manager to reload networkd if that changed, and says what it did. Whatever it finds
wrong with the file leaves the drop-in as it is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from omamori_agent.files import read_foreign
from omamori_agent.run import CommandError, run
from omamori_protocol.durable import write_atomic
from omamori_protocol.errors import MalformedError

from .drop_in import drop_in
from .settings import MAX_BYTES, AddressFile, parse

FILE = Path("var/lib/omamori/address/settings.json")
ANSWER = Path("run/omamori/address/state.json")
DROP_IN = Path("run/systemd/network/20-management.network.d/50-omamori.conf")
BOOT_ID = Path("proc/sys/kernel/random/boot_id")
_RELOAD = ("systemctl", "--no-block", "try-reload-or-restart", "systemd-networkd.service")
_TIMEOUT_S = 20.0


def reload_network() -> None:
    """Ask for networkd to read its files again; it does so when this service has ended.

    Raises:
        CommandError: The service manager could not be asked.
    """
    result = run(_RELOAD, timeout_s=_TIMEOUT_S)
    if result.exit_code != 0:
        raise CommandError(_RELOAD[0], f"exit code {result.exit_code}")


def settle(root: Path, *, reload: Callable[[], None] = reload_network) -> str | None:
    """Do the service's work once.

    Args:
        root: The root directory.
        reload: Makes networkd look.

    Returns:
        What went wrong, or None.
    """
    try:
        data = read_foreign(root / FILE, MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as err:
        return f"the address file cannot be read: {err.strerror or err}"
    error = _apply(root, data, reload)
    answer = {"sha256": hashlib.sha256(data).hexdigest(), "error": error}
    try:
        write_atomic(root / ANSWER, (json.dumps(answer) + "\n").encode())
    except OSError as err:
        return error or f"the answer cannot be written: {err.strerror or err}"
    return error


def _apply(root: Path, data: bytes, reload: Callable[[], None]) -> str | None:
    try:
        file = parse(data)
        if _write(root, file):
            reload()
    except (MalformedError, CommandError) as err:
        return str(err)[:200]
    except OSError as err:
        return f"the network's settings cannot be written: {err.strerror or err}"
    return None


def _write(root: Path, file: AddressFile) -> bool:
    """Write or remove the drop-in; returns whether that changed anything."""
    path = root / DROP_IN
    boot_id = (root / BOOT_ID).read_text(encoding="ascii").strip()
    text = drop_in(file.effective(boot_id))
    before = path.read_text(encoding="ascii", errors="replace") if path.is_file() else None
    if text == before:
        return False
    if text is None:
        path.unlink()
    else:
        write_atomic(path, text.encode("ascii"))
    return True


def main() -> int:
    """Run the service; returns the exit code."""
    error = settle(Path("/"))
    if error is not None:
        sys.stderr.write(f"omamori-settings: {error}\n")
    return 0 if error is None else 1
