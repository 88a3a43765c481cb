"""TLS directories for services: ``tls.key``, ``tls.crt``, ``ca.pem`` and, for servers, ``clients.pem``.

`ca.pem` is what this side trusts in a server. `clients.pem` holds the CAs of everybody who may connect as a client
(boxes and services): a broker's `cafile`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from . import certificates
from .certificates import SERVICE_LIFETIME
from .clock import Clock
from .files import PRIVATE_DIRECTORY, PRIVATE_FILE, new_directory, write_atomic
from .keys import DEVICE_CA, SERVICE_CA, KeyDirectory

KEY_FILE = "tls.key"
CERTIFICATE_FILE = "tls.crt"
CA_FILE = "ca.pem"
CLIENTS_FILE = "clients.pem"


def issue_server(
    keys: KeyDirectory,
    out: Path,
    names: list[str],
    clock: Clock,
    *,
    lifetime: timedelta = SERVICE_LIFETIME,
    replace: bool = False,
) -> None:
    """Make the TLS directory of a server known by `names`.

    Raises:
        SetupError: `out` is occupied and `replace` is not set.
        RejectedError: A name is no host name or address, or the lifetime is too long.
    """
    authority, authority_key = keys.authority(SERVICE_CA)
    key = certificates.new_service_key()
    certificate = certificates.server_certificate(names, key.public_key(), authority, authority_key, clock(), lifetime)
    service_ca = certificates.certificate_pem(authority)
    device_ca = certificates.certificate_pem(keys.authority_certificate(DEVICE_CA))
    _write(
        out,
        {
            KEY_FILE: certificates.private_pem(key),
            CERTIFICATE_FILE: certificates.certificate_pem(certificate),
            CA_FILE: service_ca,
            CLIENTS_FILE: device_ca + service_ca,
        },
        replace=replace,
    )


def issue_client(
    keys: KeyDirectory,
    out: Path,
    name: str,
    clock: Clock,
    *,
    lifetime: timedelta = SERVICE_LIFETIME,
    replace: bool = False,
) -> None:
    """Make the TLS directory of a service that connects as `name`.

    Raises:
        SetupError: `out` is occupied and `replace` is not set.
        RejectedError: The name could be a box's, or the lifetime is too long.
    """
    authority, authority_key = keys.authority(SERVICE_CA)
    key = certificates.new_service_key()
    certificate = certificates.client_certificate(name, key.public_key(), authority, authority_key, clock(), lifetime)
    _write(
        out,
        {
            KEY_FILE: certificates.private_pem(key),
            CERTIFICATE_FILE: certificates.certificate_pem(certificate),
            CA_FILE: certificates.certificate_pem(authority),
        },
        replace=replace,
    )


def _write(out: Path, files: dict[str, bytes], *, replace: bool) -> None:
    with new_directory(out, mode=PRIVATE_DIRECTORY, replace=replace) as work:
        for name, data in files.items():
            write_atomic(work / name, data, mode=PRIVATE_FILE if name == KEY_FILE else 0o644)
