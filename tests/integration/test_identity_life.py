"""A box's identity over its life, agent against enrolment server: renewal, shelf, approval, revocation, new claim."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from omamori_agent.config import EnrolmentLimits
from omamori_agent.identity import EnrolmentClient, Identity, IdentityHolder, IdentityStore, IdentityWorker
from omamori_ota.attempts import Cause
from omamori_ota.boxes import RevocationReason
from omamori_ota.clock import system_clock
from omamori_ota.revocation import revoke
from omamori_protocol.provision import Provision
from sim.clock import ManualClock

from .test_ota_enrolment import SERIAL
from .test_ota_renewal import Site
from .test_ota_renewal import operator as operator  # noqa: PLC0414 - fixtures
from .test_ota_renewal import site as site  # noqa: PLC0414

LIMITS = EnrolmentLimits()


class Box:
    """The agent's identity worker, whose clock goes with the site's."""

    def __init__(self, site: Site, place: Path) -> None:
        self._site, self._place = site, place
        self.lines: list[str] = []
        self.start()

    def start(self) -> None:
        """What a start of the agent does, with the claim that the factory gave last."""
        provision = Provision(
            serial=SERIAL,
            claim=self._site.claim,
            enrolment_url=f"https://127.0.0.1:{self._site.port}",
            broker_host="broker.example",
            broker_port=8883,
            repository_url="https://repo.test",
            channel="demo",
        )
        self.store = IdentityStore(self._place, SERIAL, provision.claim)
        self.clock = ManualClock(now_s=self._site.clock().timestamp())
        self.holder = IdentityHolder()
        service_ca = str(self._site.keys.path / "trust/service-ca.pem")
        self.worker = IdentityWorker(
            device=SERIAL,
            store=self.store,
            enroller=EnrolmentClient(provision, service_ca, LIMITS),
            holder=self.holder,
            limits=LIMITS,
            clock=self.clock,
            report=self.lines.append,
        )

    def wait(self, days: int) -> None:
        self._site.later += timedelta(days=days)
        self.clock.now_s = self._site.clock().timestamp()

    def step(self) -> Identity | None:
        self.worker.step()
        return self.holder.get()


@pytest.fixture
def box(site: Site, tmp_path: Path) -> Box:
    return Box(site, tmp_path / "identity")


def test_box_renews_with_its_certificate(site: Site, box: Box) -> None:
    first = box.step()
    assert first is not None
    key = box.store.key_path.read_bytes()
    box.wait(days=68)
    second = box.step()
    assert second is not None
    assert second.expires_s > first.expires_s
    assert box.store.key_path.read_bytes() == key
    assert set(site.causes()) == {Cause.ENROLLED}


def test_box_enrols_after_a_year_on_a_shelf(site: Site, box: Box) -> None:
    first = box.step()
    assert first is not None
    box.wait(days=365)
    box.start()
    second = box.step()
    assert second is not None
    assert second.expires_s > box.clock.now_s > first.expires_s
    assert set(site.causes()) == {Cause.ENROLLED}


def test_box_whose_clock_forgot_the_year_asks_with_an_expired_certificate_and_then_with_its_claim(
    site: Site, box: Box
) -> None:
    """The server finds the certificate expired, the box does not."""
    assert box.step() is not None
    box.clock.now_s += 70 * 86400  # the box thinks that it is time to renew
    site.later = timedelta(days=365)
    key = box.store.key_path.read_bytes()
    box.step()
    assert Cause.CERTIFICATE_EXPIRED in site.causes()
    assert Cause.ENROLLED in site.causes()
    assert box.store.key_path.read_bytes() == key


def test_revoked_box_is_out_until_it_has_a_new_claim_and_makes_itself_a_new_key(site: Site, box: Box) -> None:
    first = box.step()
    key = box.store.key_path.read_bytes()
    revoke(site.registry, SERIAL, RevocationReason.STOLEN, system_clock)
    box.wait(days=91)
    box.start()
    assert box.step() is None
    assert "status=403" in box.lines[-1]
    site.claim = site.register()
    box.start()
    second = box.step()
    assert second is not None
    assert second != first
    assert box.store.key_path.read_bytes() != key
    assert {Cause.REVOKED, Cause.KEY_REVOKED, Cause.ENROLLED} == set(site.causes())


def test_new_claim_is_noticed_while_the_certificate_is_still_valid(site: Site, box: Box) -> None:
    box.step()
    revoke(site.registry, SERIAL, RevocationReason.STOLEN, system_clock)
    site.claim = site.register()
    key = box.store.key_path.read_bytes()
    box.start()
    assert box.step() is not None
    assert box.store.key_path.read_bytes() != key


def test_held_box_waits_for_a_person(site: Site, box: Box) -> None:
    site.claim = site.register(is_held=True)
    box.start()
    assert box.worker.step() >= 600
    assert box.lines[-1].startswith(f"enrolment waiting device={SERIAL}")
    with site.registry.changing() as change:
        change.hold(SERIAL, is_held=False)
    assert box.step() is not None
