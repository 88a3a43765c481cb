"""The worker that makes sure the box has a certificate, and renews it in time.

A valid certificate renews itself, at two thirds of its life and a little later, differently for each box and time. One
that has expired on a shelf, that the server does not take, or that belongs to a claim before the present one: the claim
decides, with the same key. A key of which the server says that it was revoked is replaced.

Unreachable server: jittered back-off, or as long as it asks for. Refusal: one clear line on the console and a slow
retry, because only a person at the registry can change it. The rest of the agent works meanwhile; only the link waits.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable

from cryptography import x509

from omamori_agent.backoff import Backoff
from omamori_agent.config import EnrolmentLimits
from omamori_agent.errors import RejectedError, SetupError, TransientError
from omamori_agent.ports import Clock
from omamori_agent.text import clean_text

from .certificate import make_request, select_chain
from .enrolment import Enroller, EnrolmentPendingError, EnrolmentRefusedError, EnrolmentUnreachableError
from .store import Identity, IdentityStore
from .tpm import DeviceKey

logger = logging.getLogger(__name__)

KEY_REVOKED = "key-revoked"  # the server's word


class IdentityHolder:
    """Where the other workers find the identity as soon as there is one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._identity: Identity | None = None

    def get(self) -> Identity | None:
        """Return the identity, or None while the box is not enrolled."""
        with self._changed:
            return self._identity

    def set(self, identity: Identity) -> None:
        """Publish a new identity."""
        with self._changed:
            self._identity = identity
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> Identity | None:
        """Return the identity, waiting for the first one at most `timeout_s` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._identity is not None, timeout_s)
            return self._identity


class IdentityWorker:
    """`ports.Worker` that enrols the box.

    Args:
        device: The box's id.
        store: Its files.
        enroller: Who issues certificates.
        holder: Where the result goes.
        limits: Intervals.
        clock: Time.
        report: Writes one line for the installer.
    """

    name = "identity"

    def __init__(
        self,
        *,
        device: str,
        store: IdentityStore,
        enroller: Enroller,
        holder: IdentityHolder,
        limits: EnrolmentLimits,
        clock: Clock,
        report: Callable[[str], None],
    ) -> None:
        self._device = device
        self._store = store
        self._enroller = enroller
        self._holder = holder
        self._limits = limits
        self._clock = clock
        self._report = report
        self._backoff = Backoff(limits.retry_first_s, limits.retry_cap_s)

    def run(self, stop: threading.Event) -> None:
        """Enrol, then look now and then whether to renew, until `stop`."""
        while not stop.is_set():
            stop.wait(self.step())

    def step(self) -> float:
        """Do what is due once.

        Returns:
            Seconds until the next step.
        """
        identity = self._holder.get() or self._load()
        is_new_claim = self._store.is_for_another_claim()
        if identity is not None:
            if self._holder.get() is None:
                self._accept(identity)
            if not is_new_claim and not self._is_due(identity):
                return self._limits.renewal_check_s
        try:
            self._accept(self._obtain(None if is_new_claim else identity))
        except EnrolmentUnreachableError as err:
            logger.warning("not enrolled: %s", err)
            if identity is None and isinstance(err, EnrolmentPendingError):
                self._report(f"enrolment waiting device={self._device} reason={_reason(err)}")
            # The back-off on top is what keeps boxes that were told the same apart.
            return err.retry_after_s + self._backoff.next_s()
        except TransientError as err:
            logger.warning("not enrolled: %s", err)
            return self._backoff.next_s()
        except EnrolmentRefusedError as err:
            logger.error("%s (%s)", err, err.hint or "ask whoever keeps the registry")  # noqa: TRY400 - expected here
            if identity is None:
                self._report(f"enrolment refused device={self._device} status={err.status} reason={_reason(err)}")
            return self._limits.refused_retry_s
        except (RejectedError, SetupError) as err:
            logger.error("enrolment failed: %s", err)  # noqa: TRY400 - expected here
            if identity is None:
                self._report(f"enrolment failed device={self._device} reason={_reason(err)}")
            return self._limits.refused_retry_s
        self._backoff.reset()
        return self._limits.renewal_check_s

    def _load(self) -> Identity | None:
        try:
            found = self._store.load(self._clock.now())
            if not self._store.is_for_another_claim():
                self._store.note_claim()  # of a version that did not, or the power failed before it did
            return found
        except FileNotFoundError:
            return None
        except (RejectedError, TransientError, SetupError) as err:
            logger.warning("stored identity cannot be used: %s", err)
            return None

    def _obtain(self, identity: Identity | None) -> Identity:
        key = self._store.ensure_key()
        if identity is not None and self._clock.now() < identity.expires_s:
            try:
                return self._keep(self._enroller.renew(make_request(key, self._device), identity), key)
            except EnrolmentRefusedError as err:
                logger.warning("the present certificate does not renew itself, trying the claim: %s", err)
        try:
            answer = self._enroller.enroll(make_request(key, self._device))
        except EnrolmentRefusedError as err:
            if err.cause != KEY_REVOKED:
                raise
            logger.warning("the server says that our key was revoked: making a new one")
            key = self._store.replace_key()
            answer = self._enroller.enroll(make_request(key, self._device))
        made = self._keep(answer, key)
        self._store.note_claim()
        return made

    def _keep(self, answer: list[x509.Certificate], key: DeviceKey) -> Identity:
        return self._store.save(select_chain(answer, key, self._device, self._clock.now()))

    def _accept(self, identity: Identity) -> None:
        before = self._holder.get()
        if before is None:
            self._report(f"enrolled device={self._device}")
        if identity != before:
            logger.info("certificate of %s is valid for %d s", self._device, identity.expires_s - self._clock.now())
            self._holder.set(identity)

    def _is_due(self, identity: Identity) -> bool:
        life_s = identity.expires_s - identity.begins_s
        share = self._limits.renewal_share + self._limits.renewal_spread * _chance(identity)
        return self._clock.now() >= identity.begins_s + life_s * share


def _chance(identity: Identity) -> float:
    """Return a number from 0 to 1 of this box and certificate, the same after a restart."""
    digest = hashlib.sha256(f"{identity.device} {identity.begins_s}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32


def _reason(err: Exception) -> str:
    return clean_text(str(err), 160)
