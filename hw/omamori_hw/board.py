"""Board descriptions: one TOML file per board, parsed and validated once.

A board says what the image needs to know about a machine (architecture, consoles, ports, modules, sizes). It
does not say what the software does with it, and this module never looks at the machine it runs on.

Rules:
- An unknown key, a missing key or a wrong type is an error that names the file and the key.
- Names of modules, interfaces and consoles are checked, because they end up in scripts and command lines.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from omamori_hw.errors import BoardError

FORMAT = 1
MAX_BOARD_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_MODEL = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}")
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_CONSOLE = re.compile(r"tty[A-Z]{1,4}[0-9]{1,3}(,[0-9]{4,7})?")
_SERIAL = re.compile(r"/dev/tty[A-Za-z]{1,8}[0-9]{1,3}")
_INTERFACE = re.compile(r"[a-z][a-z0-9]{0,14}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,63}")
_ARGUMENT = re.compile(r"[A-Za-z0-9_.-]+(=[A-Za-z0-9_.,:/-]*)?")


@dataclass(frozen=True)
class Platform:
    """Processor, boot firmware, consoles and kernel."""

    arch: str
    firmware: str
    console: str
    shell_console: str
    kernel_package: str
    kernel_arguments: tuple[str, ...]

    @property
    def shell_device(self) -> str:
        """Name of the root console's device, without its speed."""
        return self.shell_console.partition(",")[0]


@dataclass(frozen=True)
class Ports:
    """Network ports in the order of their PCI addresses."""

    minimum: int
    maximum: int
    roles: tuple[str, ...]

    def name(self, position: int) -> str:
        """Return the interface name of the port at a position.

        Args:
            position: Place in PCI order, counted from zero.
        """
        return self.roles[0] if position == 0 else f"{self.roles[1]}{position}"

    def role(self, position: int) -> str:
        """Return the role, `wan` or `lan`, of the port at a position counted from zero."""
        return self.roles[0] if position == 0 else self.roles[1]


@dataclass(frozen=True)
class Radio:
    """The Wi-Fi radio. `presence` is ``never``, or ``detect`` where some machines of the board have one."""

    presence: str
    interface: str

    @property
    def expected(self) -> str | None:
        """Interface that a radio of this board has; None when there never is one."""
        return self.interface if self.presence == "detect" else None


@dataclass(frozen=True)
class Button:
    """The button with which somebody on the spot lets everything pass, and back.

    Attributes:
        kind: ``acpi`` for the power button of a PC, ``none`` where there is no button.
        device: Name of the input device, as the kernel calls it.
        hold_ms: How long it has to be held; 0 where the hardware tells only that it was pressed.
        modules: Kernel modules that make it an input device.
    """

    kind: str
    device: str
    hold_ms: int
    modules: tuple[str, ...]

    @property
    def expected(self) -> str | None:
        """Name of its input device; None where there is no button."""
        return self.device if self.kind != "none" else None


@dataclass(frozen=True)
class WatchdogTimer:
    """The hardware watchdog and how long it waits (seconds)."""

    device: str
    runtime_s: int
    reboot_s: int


@dataclass(frozen=True)
class SupervisorChip:
    """The microcontroller that holds the wire, on boards that have one.

    Attributes:
        presence: ``always``, or ``detect`` where some machines of the board have one.
        device: Its serial line.
        lease_ms: How long one report of the box counts before the wire goes past it.
        boot_s: How long the box may take to forward after a start.
        silence_s: How long it may be silent before it is reset.
        resets: How many resets are tried before the box is left alone.
    """

    presence: str
    device: str
    lease_ms: int
    boot_s: int
    silence_s: int
    resets: int


@dataclass(frozen=True)
class Limits:
    """What the machine must offer at least (MiB)."""

    memory_minimum_mib: int
    memory_recommended_mib: int
    disk_minimum_mib: int


@dataclass(frozen=True)
class Disk:
    """Partition sizes (MiB)."""

    slot_mib: int
    root_mib: int
    verity_mib: int
    data_mib: int

    @property
    def total_mib(self) -> int:
        """Size of the whole disk, with one MiB at each end for the partition tables."""
        return 2 + 2 * (self.slot_mib + self.root_mib + self.verity_mib) + self.data_mib


@dataclass(frozen=True)
class Modules:
    """Kernel modules, by where they are needed. Their dependencies follow by themselves."""

    initrd: tuple[str, ...]
    initrd_load: tuple[str, ...]
    root: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """One validated board description."""

    name: str
    model: str
    description: str
    platform: Platform
    ports: Ports
    radio: Radio
    button: Button
    watchdog: WatchdogTimer
    limits: Limits
    disk: Disk
    modules: Modules
    supervisor: SupervisorChip | None = None


def load_board(directory: Path) -> Board:
    """Read the description of one board.

    Args:
        directory: `hw/boards/<board>`; its name must be the board's name.

    Raises:
        BoardError: The file is absent, too large, not TOML, or its content is not acceptable.
    """
    path = directory / "board.toml"
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BOARD_BYTES + 1)
    except OSError as err:
        raise BoardError(str(path), f"cannot be read ({err.strerror})") from err
    if len(raw) > MAX_BOARD_BYTES:
        raise BoardError(str(path), f"larger than {MAX_BOARD_BYTES} bytes")
    board = parse_board(raw, where=path.name)
    if board.name != directory.name:
        raise BoardError(str(path), f"describes {board.name!r} but lies in {directory.name!r}")
    return board


def list_boards(boards: Path) -> list[str]:
    """Return the names of the boards described under a directory."""
    return sorted(path.parent.name for path in boards.glob("*/board.toml"))


def parse_board(raw: bytes, *, where: str = "board.toml") -> Board:
    """Turn the bytes of a board description into a `Board`.

    Raises:
        BoardError: Not UTF-8 TOML, an unknown or missing key, a wrong type, or a value out of its range.
    """
    try:
        document = tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise BoardError(where, f"not a TOML file ({err})") from err
    if document.pop("format", None) != FORMAT:
        raise BoardError(f"{where}: format", f"must be {FORMAT}")
    sections = {
        "platform": Platform,
        "ports": Ports,
        "radio": Radio,
        "button": Button,
        "watchdog": WatchdogTimer,
        "limits": Limits,
        "disk": Disk,
        "modules": Modules,
    }
    parts: dict[str, Any] = {}
    for key, kind in sections.items():
        section = document.pop(key, None)
        if not isinstance(section, dict):
            raise BoardError(f"{where}: [{key}]", "is missing")
        parts[key] = _section(kind, section, f"{where}: {key}")
    if "supervisor" in document:
        section = document.pop("supervisor")
        if not isinstance(section, dict):
            raise BoardError(f"{where}: [supervisor]", "must be a table")
        parts["supervisor"] = _section(SupervisorChip, section, f"{where}: supervisor")
    for key in ("name", "model", "description"):
        value = document.pop(key, None)
        if not isinstance(value, str) or not value:
            raise BoardError(f"{where}: {key}", "must be a text")
        parts[key] = value
    if document:
        raise BoardError(where, f"unknown key {min(document)!r}")
    board = Board(**parts)
    _validate(board, where)
    return board


def _section(kind: Any, values: dict[str, Any], where: str) -> Any:
    known = {field.name: field.type for field in fields(kind)}
    for key in values:
        if key not in known:
            raise BoardError(f"{where}.{key}", "unknown key")
    converted: dict[str, Any] = {}
    for key, wanted in known.items():
        if key not in values:
            raise BoardError(f"{where}.{key}", "is missing")
        converted[key] = _value(wanted, values[key], f"{where}.{key}")
    return kind(**converted)


def _value(wanted: Any, value: Any, where: str) -> Any:
    if get_origin(wanted) is tuple:
        item = get_args(wanted)[0]
        if not isinstance(value, list) or any(type(entry) is not item for entry in value):
            raise BoardError(where, f"must be a list of {item.__name__}")
        return tuple(value)
    if type(value) is not wanted:
        raise BoardError(where, f"must be of type {wanted.__name__}")
    return value


def _validate(board: Board, where: str) -> None:
    _match(_NAME, [board.name], f"{where}: name")
    _match(_MODEL, [board.model], f"{where}: model")
    if board.platform.arch not in {"x86_64", "aarch64"}:
        raise BoardError(f"{where}: platform.arch", f"unknown architecture {board.platform.arch!r}")
    if board.platform.firmware != "uefi":
        raise BoardError(f"{where}: platform.firmware", f"unknown boot firmware {board.platform.firmware!r}")
    _match(_CONSOLE, [board.platform.console, board.platform.shell_console], f"{where}: platform.console")
    _match(_PACKAGE, [board.platform.kernel_package], f"{where}: platform.kernel_package")
    _match(_ARGUMENT, board.platform.kernel_arguments, f"{where}: platform.kernel_arguments")
    _match(_NAME, board.ports.roles, f"{where}: ports.roles")
    _match(_INTERFACE, [board.radio.interface], f"{where}: radio.interface")
    if board.radio.presence not in {"never", "detect"}:
        raise BoardError(f"{where}: radio.presence", "must be never or detect")
    if len(board.ports.roles) != 2 or not 2 <= board.ports.minimum <= board.ports.maximum <= 32:
        raise BoardError(f"{where}: ports", "needs two roles and 2 <= minimum <= maximum <= 32")
    _validate_button(board, f"{where}: button")
    for key in ("initrd", "initrd_load", "root"):
        names = getattr(board.modules, key)
        _match(_MODULE, names, f"{where}: modules.{key}")
        if len(set(names)) != len(names):
            raise BoardError(f"{where}: modules.{key}", "names a module twice")
    missing = set(board.modules.initrd_load) - set(board.modules.initrd)
    if missing:
        raise BoardError(f"{where}: modules.initrd_load", f"{min(missing)!r} is not in modules.initrd")
    if not board.watchdog.device.startswith("/dev/") or board.watchdog.runtime_s < 10 or board.watchdog.reboot_s < 10:
        raise BoardError(f"{where}: watchdog", "needs a device under /dev and times of at least 10 s")
    _validate_supervisor(board.supervisor, f"{where}: supervisor")
    sizes = [getattr(board.disk, field.name) for field in fields(board.disk)]
    sizes += [getattr(board.limits, field.name) for field in fields(board.limits)]
    if any(not 1 <= size <= 1 << 20 for size in sizes):
        raise BoardError(f"{where}: disk", "sizes are MiB between 1 and 1048576")
    # Verity needs 32 bytes of hash for each 4096-byte block, plus the levels above: 1/127 of the data.
    if board.disk.verity_mib * 127 < board.disk.root_mib:
        raise BoardError(f"{where}: disk.verity_mib", "too small for the hash tree of root_mib")
    if board.disk.total_mib > board.limits.disk_minimum_mib:
        raise BoardError(f"{where}: disk", f"needs {board.disk.total_mib} MiB, more than limits.disk_minimum_mib")


def _validate_button(board: Board, where: str) -> None:
    button = board.button
    if button.kind not in {"acpi", "none"} or not 0 <= button.hold_ms <= 60_000:
        raise BoardError(where, "must be of kind acpi or none, and held for at most a minute")
    if button.expected is not None:
        _match(_DEVICE, [button.device], f"{where}.device")
    absent = set(button.modules) - set(board.modules.root)
    if absent:
        raise BoardError(f"{where}.modules", f"{min(absent)!r} is not in modules.root")


def _validate_supervisor(chip: SupervisorChip | None, where: str) -> None:
    if chip is None:
        return
    if chip.presence not in {"always", "detect"}:
        raise BoardError(f"{where}.presence", "must be always or detect")
    if not _SERIAL.fullmatch(chip.device):
        raise BoardError(f"{where}.device", "must be a serial line under /dev")
    # The ranges of the link's own messages (docs/supervisor.md).
    for key, low, high in (("lease_ms", 50, 2000), ("boot_s", 30, 1800), ("silence_s", 5, 600), ("resets", 1, 9)):
        if not low <= getattr(chip, key) <= high:
            raise BoardError(f"{where}.{key}", f"must be between {low} and {high}")


def _match(pattern: re.Pattern[str], values: Sequence[str], where: str) -> None:
    for value in values:
        if not pattern.fullmatch(value):
            raise BoardError(where, f"{value!r} is not an acceptable name")
