"""The virtual machine's arguments, and its control channel against a real socket."""

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware.architecture import AARCH64
from omamori_firmware.errors import MachineError, SetupError
from omamori_firmware.qemu import MAX_PORTS, Machine, MachineConfig, PortFd, arguments, prepare
from omamori_firmware.qmp import QMP
from omamori_firmware.tools import ToolsTree


def config(tmp_path: Path, ports: int = 2) -> MachineConfig:
    made = [PortFd(100 + number, f"52:54:00:00:00:{number:02x}") for number in range(ports)]
    return MachineConfig(disk=tmp_path / "a,b.raw", vars=tmp_path / "vars.fd", workdir=tmp_path, ports=made)


def test_wan_comes_first_on_the_bus(tmp_path: Path) -> None:
    devices = [word for word in arguments(config(tmp_path, 3)) if word.startswith("virtio-net-pci")]
    assert [word.rsplit("addr=", 1)[1] for word in devices] == ["0x10", "0x11", "0x12"]
    assert "netdev=port0,mac=52:54:00:00:00:00" in devices[0]
    assert "tap,id=port2,fd=102" in arguments(config(tmp_path, 3))


def test_a_comma_in_a_path_does_not_become_an_option(tmp_path: Path) -> None:
    assert any(word.endswith("a,,b.raw") for word in arguments(config(tmp_path)))


def test_a_supervisor_is_on_the_third_serial_port_and_only_where_there_is_one(tmp_path: Path) -> None:
    assert not any("isa-serial" in word for word in arguments(config(tmp_path)))
    line = arguments(dataclasses.replace(config(tmp_path), supervisor=tmp_path / "line"))
    end = line.index(f"socket,id=supervisor,path={tmp_path / 'line'},reconnect=1")
    assert line[end + 1 : end + 3] == ["-device", "isa-serial,chardev=supervisor,index=2,iobase=0x3e8,irq=5"]


def test_a_tpm_is_soldered_on_only_where_the_kernel_has_a_driver_of_it(tmp_path: Path) -> None:
    assert "-tpmdev" not in arguments(config(tmp_path))
    wanted = dataclasses.replace(config(tmp_path), tpm=tmp_path / "con,trol")
    line = arguments(wanted)
    end = line.index(f"socket,id=tpm-control,path={tmp_path}/con,,trol")
    assert line[end + 1 :][:4] == ["-tpmdev", "emulator,id=tpm,chardev=tpm-control", "-device", "tpm-tis,tpmdev=tpm"]
    with pytest.raises(SetupError, match="TPM"):
        dataclasses.replace(wanted, model=AARCH64.model)


def test_the_identity_follows_the_first_port(tmp_path: Path) -> None:
    def identity(made: MachineConfig) -> str:
        line = arguments(made)
        return line[line.index("-uuid") + 1]

    assert identity(config(tmp_path)) == identity(config(tmp_path, 4))
    assert identity(config(tmp_path)) != identity(config(tmp_path, 0))


def test_more_ports_than_the_bus_has_room_for(tmp_path: Path) -> None:
    config(tmp_path, MAX_PORTS)
    with pytest.raises(SetupError):
        config(tmp_path, MAX_PORTS + 1)


def test_a_machine_that_is_off_says_so(tmp_path: Path) -> None:
    machine = Machine(config(tmp_path), ToolsTree(tmp_path, "key", ()))
    assert not machine.is_on
    with pytest.raises(MachineError, match="off"):
        machine.qmp("query-status")
    with pytest.raises(MachineError):
        _ = machine.console
    machine.kill()
    machine.stop()


def test_copies_for_a_machine_do_not_touch_the_artifacts(tmp_path: Path) -> None:
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "disk.raw").write_bytes(b"disk")
    (tmp_path / "art" / "vars.fd").write_bytes(b"vars")
    disk, variables = prepare(tmp_path / "art", tmp_path / "work")
    disk.write_bytes(b"changed")
    assert (tmp_path / "art" / "disk.raw").read_bytes() == b"disk"
    assert variables.read_bytes() == b"vars"


Answer = Callable[[dict[str, Any]], list[bytes]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[Answer], Path]]:
    """A control channel that greets, accepts the negotiation and then answers as told."""
    listeners: list[socket.socket] = []

    def start(answer: Answer) -> Path:
        path = tmp_path / "qmp"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
                connection.sendall(b'{"QMP": {}}\r\n')
                for line in reader:
                    request = json.loads(line)
                    replies = [b'{"return": {}}\n'] if request["execute"] == "qmp_capabilities" else answer(request)
                    for reply in replies:
                        connection.sendall(reply)
                    if not replies:
                        return

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield start
    for listener in listeners:
        listener.close()


def test_events_before_an_answer_are_kept(server: Callable[[Answer], Path]) -> None:
    qmp = QMP(server(lambda _: [b'{"event": "STOP"}\n{"ret', b'urn": {"status": "paused"}}\n']))
    assert qmp.command("query-status") == {"status": "paused"}
    assert [event["event"] for event in qmp.events] == ["STOP"]
    qmp.close()


def test_a_refused_command(server: Callable[[Answer], Path]) -> None:
    qmp = QMP(server(lambda request: [json.dumps({"error": {"desc": f"no {request['execute']}"}}).encode() + b"\n"]))
    with pytest.raises(MachineError, match="no fly"):
        qmp.command("fly")
    qmp.close()


def test_arguments_get_dashes(server: Callable[[Answer], Path]) -> None:
    qmp = QMP(server(lambda request: [json.dumps({"return": request["arguments"]}).encode() + b"\n"]))
    assert qmp.command("x", hold_time=5) == {"hold-time": 5}
    qmp.close()


def test_a_machine_that_dies_in_the_middle(server: Callable[[Answer], Path]) -> None:
    qmp = QMP(server(lambda _: []))
    with pytest.raises(MachineError, match="broke"):
        qmp.command("query-status")
    qmp.close()


def test_an_answer_without_end(server: Callable[[Answer], Path]) -> None:
    qmp = QMP(server(lambda _: [b"x" * (1 << 20)] * 6))
    with pytest.raises(MachineError, match="too long"):
        qmp.command("query-status")
    qmp.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="does not answer"):
        QMP(tmp_path / "none")
