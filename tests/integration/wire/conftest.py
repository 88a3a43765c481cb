"""Fixtures of the data plane's tests: compiled gate, engine, three namespaces in a row. Everything ends with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.gate import Gate
from omamori_firmware.errors import ImageError
from omamori_firmware.run import run
from omamori_lab.native_wire import NativeLane, obtain_programs
from sim.gate_bench import Bench, open_bench


@pytest.fixture(scope="session")
def programs() -> tuple[Path, Path]:
    """Directory of gate and loader; Debian tree with the engine."""
    try:
        return obtain_programs()
    except ImageError as err:
        pytest.skip(f"no engine: {err}")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away certificate with its key in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run([*line, "-days", "2", "-subj", "/CN=good.test", "-keyout", path, "-out", f"{path}.crt"], timeout_s=30)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def lane() -> Iterator[NativeLane]:
    """Office, box with a bare bridge, internet."""
    made = NativeLane()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def wired(lane: NativeLane, programs: tuple[Path, Path]) -> NativeLane:
    """The same with gate and queue, without an engine."""
    lane.install_wire(programs[0])
    return lane


@pytest.fixture
def gate(wired: NativeLane) -> Iterator[Gate]:
    """The box's gate as the agent sees it."""
    assert wired.wire is not None
    opened = Gate(wired.wire.pins)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def loaded(programs: tuple[Path, Path]) -> Iterator[Bench]:
    """The gate's programs in the kernel, attached to nothing."""
    with open_bench(programs[0]) as bench:
        yield bench


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """The same with empty maps and everything switched on."""
    loaded.reset()
    return loaded
