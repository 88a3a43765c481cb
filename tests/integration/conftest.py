"""Shared by the integration tests that run the agent against a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.box import CLAIM, DEVICE
from sim.enrolment import SimulatedEnrolment, enrolment_server
from sim.mosquitto import Mosquitto
from sim.pki import Authority

from .agent_site import Cloud, Site


@pytest.fixture
def authorities() -> tuple[Authority, Authority]:
    return Authority("Service CA"), Authority("Device CA")


@pytest.fixture
def broker(tmp_path: Path, authorities: tuple[Authority, Authority]) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path / "broker", *authorities)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def enrolment(tmp_path: Path, authorities: tuple[Authority, Authority]) -> Iterator[SimulatedEnrolment]:
    simulated = SimulatedEnrolment(authorities[1], {DEVICE: CLAIM})
    with enrolment_server(simulated, authorities[0], tmp_path):
        yield simulated


@pytest.fixture
def site(
    tmp_path: Path, authorities: tuple[Authority, Authority], broker: Mosquitto, enrolment: SimulatedEnrolment
) -> Iterator[Site]:
    one = Site(tmp_path, *authorities, broker, enrolment.url)
    yield one
    one.close()


@pytest.fixture
def cloud(tmp_path: Path, broker: Mosquitto, authorities: tuple[Authority, Authority]) -> Iterator[Cloud]:
    one = Cloud(broker.port, tmp_path, authorities[0])
    yield one
    one.close()
