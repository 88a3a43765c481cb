"""Takes a box off: revokes its certificates, publishes the list, ends its connection.

Broker and enrolment server refuse a revoked box for two reasons of their own: the enrolment server looks into the
register at each request, the broker has the list. A broker reads a new list when it is told to (mosquitto: SIGHUP) and
then refuses new connections; those that exist go on. So the last step connects in the box's name, by which MQTT makes
the broker end the box's connection. docs/adr/0050-one-key-for-a-claim.md

There are lists of both authorities whose certificates open the broker, because an authority without a list, and a list
that has expired, shut out everybody. Each list is later than the one before by a second at least: mosquitto
keeps the older ones until it restarts, and of two of the same second it believes the older.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from .boxes import IssuedCertificate, RevocationReason
from .clock import Clock
from .errors import RejectedError, SetupError, TransientError
from .files import PUBLIC_FILE, exclusive, read_bounded, write_atomic
from .keys import DEVICE_CA, SERVICE_CA, KeyDirectory
from .registry import Registry
from .run import run

LIST_LIFETIME = timedelta(days=14)
LIST_RENEWAL = timedelta(days=1)
MAX_REVOKED = 20_000
# A broker whose clock runs a little behind must accept a list that was made a moment ago.
_BACKDATED = timedelta(hours=1)
_MAX_PID_BYTES, _MAX_PID_DIGITS = 32, 9
_BROKER = "mosquitto"
_REHASH_S = 30.0
_CARRY_S = 120.0  # a handful of machines, one of which may not answer


def revoke(registry: Registry, serial: str, reason: RevocationReason, clock: Clock) -> int:
    """Revoke a box; doing it again is allowed and changes nothing.

    Returns:
        How many certificates of it were good until now.

    Raises:
        RejectedError: The register does not know the box.
        TransientError: The register is busy.
    """
    with registry.changing() as change:
        if change.find(serial) is None:
            raise RejectedError(f"{serial} is not registered")
        return change.revoke(serial, reason, clock())


def make_lists(keys: KeyDirectory, registry: Registry, clock: Clock) -> dict[str, bytes]:
    """Return new revocation lists (PEM) of device CA and service CA, good for `LIST_LIFETIME`.

    Raises:
        SetupError: More than `MAX_REVOKED` certificates that have not expired are revoked.
        TransientError: The register is busy, or lists were made faster than one a second for an hour.
    """
    now = clock()
    with registry.changing() as change:
        revoked = change.revoked_certificates(now, MAX_REVOKED + 1)
        if len(revoked) > MAX_REVOKED:
            raise SetupError(
                f"more than {MAX_REVOKED} certificates are revoked", hint="replace the device CA: omamori-ota keys init"
            )
        number, time_s = change.next_list(now - _BACKDATED)
    made = datetime.fromtimestamp(time_s, UTC)
    if made > now:
        raise TransientError("too many revocation lists in an hour", hint="wait a minute")
    return {
        name: _sign(*keys.authority(name), entries, number=number, made=made).public_bytes(Encoding.PEM)
        for name, entries in ((DEVICE_CA, revoked), (SERVICE_CA, []))
    }


def publish_lists(keys: KeyDirectory, registry: Registry, clock: Clock, out: Path) -> None:
    """Write new revocation lists to the file `out`, whole or not at all (mosquitto); raises as `make_lists`."""
    with _publishing(registry):
        write_atomic(out, b"".join(make_lists(keys, registry, clock).values()), mode=PUBLIC_FILE)


def publish_directory(keys: KeyDirectory, registry: Registry, clock: Clock, out: Path) -> None:
    """Write new revocation lists into the directory `out`, one file each, with the names that OpenSSL looks for.

    RabbitMQ reads them at each connection.

    Raises:
        SetupError: As `make_lists`; or openssl is not installed.
        ProgramError: openssl failed.
        TransientError: As `make_lists`.
    """
    if not out.is_dir():
        raise SetupError(f"{out} is not a directory", hint="make it first")
    with _publishing(registry):
        for name, pem in make_lists(keys, registry, clock).items():
            write_atomic(out / f"{name}.pem", pem, mode=PUBLIC_FILE)
        run(["openssl", "rehash", out], timeout_s=_REHASH_S)


def _publishing(registry: Registry) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of those who publish: a list made before a revocation must not be written after it."""
    return exclusive(registry.path.with_name(registry.path.name + "-lists.lock"))


def tell_broker(pid_file: Path) -> None:
    """Make the broker on this machine read its files again.

    Args:
        pid_file: What mosquitto's setting ``pid_file`` names.

    Raises:
        SetupError: There is no such process, or it may not be told.
    """
    text = read_bounded(pid_file, _MAX_PID_BYTES).strip()
    if not text.isdigit() or len(text) > _MAX_PID_DIGITS:
        raise SetupError(f"{pid_file} does not hold the number of a process")
    number = int(text)
    try:
        # The signal ends most other programs: a number that is no longer the broker's must do no harm.
        if Path(f"/proc/{number}/comm").read_text().strip() != _BROKER:
            raise SetupError(f"{pid_file}: process {number} is not {_BROKER}")
        os.kill(number, signal.SIGHUP)
    except OSError as err:
        raise SetupError(f"cannot tell the broker (process {number}): {err.strerror}") from err


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListPlaces:
    """Where brokers look for revocation lists.

    Attributes:
        file: mosquitto's `crlfile`.
        directory: RabbitMQ's directory.
        broker_pid: mosquitto's `pid_file`, to tell it.
        carry: Program of the operator that takes the file and the directory, which are its arguments, to brokers on
            other machines. It fails unless all of them have them.
    """

    file: Path | None = None
    directory: Path | None = None
    broker_pid: Path | None = None
    carry: Path | None = None

    def publish(self, keys: KeyDirectory, registry: Registry, clock: Clock) -> None:
        """Write the lists anew, carry them, tell the broker; raises as the functions of this module.

        Raises:
            ProgramError: The lists are written, but were not carried everywhere; again does no harm.
        """
        if self.file is not None:
            publish_lists(keys, registry, clock, self.file)
        if self.directory is not None:
            publish_directory(keys, registry, clock, self.directory)
        places = [place for place in (self.file, self.directory) if place is not None]
        if self.carry is not None and places:
            run([self.carry, *places], timeout_s=_CARRY_S)
        if self.broker_pid is not None:
            tell_broker(self.broker_pid)

    def is_due(self, clock: Clock) -> bool:
        """Tell whether lists are missing or older than `LIST_RENEWAL`."""
        files = [self.file] if self.file is not None else []
        files += [self.directory / f"{DEVICE_CA}.pem"] if self.directory is not None else []
        latest = clock().timestamp() - LIST_RENEWAL.total_seconds()
        return any(not path.exists() or path.stat().st_mtime <= latest for path in files)


def _sign(
    authority: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: list[IssuedCertificate],
    *,
    number: int,
    made: datetime,
) -> x509.CertificateRevocationList:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(made)
        .next_update(made + LIST_LIFETIME)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    for item in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(item.number)
        if item.revoked_at is not None:
            entry = entry.revocation_date(item.revoked_at)
        if item.reason is not None:
            entry = entry.add_extension(x509.CRLReason(item.reason.flag), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, hashes.SHA256())
