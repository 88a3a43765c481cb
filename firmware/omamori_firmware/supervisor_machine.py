"""The supervisor in a virtual machine: a Cortex-M3 with its expander, thermometer and supply monitor.

What a person or a wire does to the real board goes through QEMU's object properties: the button, the plug, the rail.
What the board does to the world (relay, reset line, lamp) is read from there. The serial link to the box is a socket.

Rules:
- The console is a pseudo-terminal that is open before the first instruction runs, and a log beside it.
- With `exact_time`, time inside goes by instructions (64 ns each, about what the real chip needs), not by how busy the
  host is: what the firmware measures about itself is then the firmware's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from omamori_firmware.emulator import Emulator
from omamori_firmware.tools import ToolsTree

_EXPANDER = "/machine/peripheral/pins"
_MONITOR = "/machine/peripheral/supply"
_THERMOMETER = "/machine/peripheral/thermometer"
RELAY, RESET, BUTTON, PLUG_OUT = "led0", "led1", "led12", "led13"
COLOURS = {"green": "led4", "amber": "led5", "red": "led6"}


@dataclass(frozen=True)
class SupervisorConfig:
    """What the machine consists of.

    Attributes:
        elf: The firmware.
        workdir: Directory for sockets and logs; made if absent.
        link: Unix socket of the serial link; the machine listens there.
        exact_time: Count time by instructions.
    """

    elf: Path
    workdir: Path
    link: Path
    exact_time: bool = False


def arguments(config: SupervisorConfig) -> list[str]:
    """Return QEMU's arguments for a supervisor."""
    work = config.workdir
    line = ["qemu-system-arm", "-machine", "mps2-an385", "-nodefaults", "-no-user-config", "-display", "none"]
    line += ["-kernel", _plain(config.elf)]
    if config.exact_time:
        line += ["-icount", "shift=6"]
    line += ["-chardev", f"pty,id=console,logappend=on,logfile={_plain(work / 'console.log')}"]
    line += ["-serial", "chardev:console"]
    line += ["-chardev", f"socket,id=link,path={_plain(config.link)},server=on,wait=off", "-serial", "chardev:link"]
    line += ["-device", "pca9552,address=0x60,id=pins", "-device", "tmp105,address=0x48,id=thermometer"]
    return [*line, "-device", "max34451,address=0x5e,id=supply"]


class SupervisorMachine:
    """One virtual supervisor; usable as a context manager that ends it."""

    def __init__(self, config: SupervisorConfig, tools: ToolsTree) -> None:
        """Remember what to start; nothing runs yet."""
        self.config = config
        self._emulator = Emulator("the supervisor", config.workdir, tools)

    def __enter__(self) -> Self:
        """Switch it on, with its supply and rail as they should be; the program waits for `go`."""
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        """End it."""
        self.stop()

    def start(self) -> None:
        """Switch the machine on, halted before its first instruction.

        Raises:
            MachineError: QEMU did not start; its own words are in the message.
        """
        config = self.config
        if not self.is_on:
            config.link.unlink(missing_ok=True)
        binds = (config.elf.parent, config.link.parent)
        self._emulator.start(arguments(config), binds=binds, consoles=("console",))
        try:
            self.rail(3300)
        except BaseException:
            self.stop()
            raise

    def go(self) -> None:
        """Let the program run."""
        self.qmp("cont")

    @property
    def console(self) -> str:
        """Path of the console."""
        return self._emulator.console("console")

    @property
    def console_log(self) -> Path:
        """File with everything the console ever showed."""
        return self.config.workdir / "console.log"

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._emulator.pid

    @property
    def is_on(self) -> bool:
        """Say whether QEMU runs."""
        return self._emulator.is_on

    def through(self) -> bool:
        """Say whether the relay leads the wire through the box."""
        return self._pin(RELAY)

    def pulls_reset(self) -> bool:
        """Say whether the box's reset line is pulled."""
        return self._pin(RESET)

    def lamp(self) -> str:
        """Return the colour that is lit, or an empty text."""
        return "+".join(name for name, pin in COLOURS.items() if self._pin(pin))

    def button(self, *, pressed: bool) -> None:
        """Press the button, or let it go."""
        self._set(_EXPANDER, BUTTON, "on" if pressed else "off")

    def plug(self, *, present: bool) -> None:
        """Give the box its supply, or take it away; the supervisor lives on its own reserve."""
        self._set(_EXPANDER, PLUG_OUT, "off" if present else "on")

    def rail(self, millivolts: int) -> None:
        """Set the voltage of the box's main rail."""
        self._set(_MONITOR, "vout[0]", millivolts)

    def temperature(self, celsius: int) -> None:
        """Set the temperature of the board."""
        self._set(_THERMOMETER, "temperature", celsius * 1000)

    def qmp(self, name: str, **values: Any) -> Any:
        """Send a QMP command and return its result.

        Raises:
            MachineError: The machine is off, or QEMU refused.
        """
        return self._emulator.command(name, **values)

    def stop(self) -> None:
        """End QEMU."""
        self._emulator.stop()

    def _pin(self, name: str) -> bool:
        return bool(self.qmp("qom-get", path=_EXPANDER, property=name) == "on")

    def _set(self, path: str, name: str, value: object) -> None:
        self.qmp("qom-set", path=path, property=name, value=value)


def _plain(path: Path) -> str:
    return str(path.resolve()).replace(",", ",,")
