"""The protocol of a key ceremony: who did what, when, with which keys. Printed, signed by hand, kept; no secrets in it.

A ceremony is one of the commands that make or replace keys, run with witnesses. This module describes the public result
of it, so that everybody present can compare fingerprints and anybody can do so again years later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from omamori_ota.errors import RejectedError
from omamori_ota.keys import KeyDirectory
from omamori_ota.roles import DELEGATED, ROLES

from .bundle_keys import TRUST
from .signing import key_id

MAX_PEOPLE = 16
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
_CERTIFICATES = ("secureboot/PK.crt", "secureboot/KEK.crt", "secureboot/db.crt", "pki/device-ca.crt",
                 "pki/service-ca.crt", "pki/bundle-ca.crt", "bundle/bundle.crt")  # fmt: skip


def render_protocol(keys: KeyDirectory, people: Sequence[str], occasion: str, now: datetime, version: str) -> str:
    """Return the protocol as text.

    Args:
        keys: The keys that exist now.
        people: Who was there; the first one worked the machine.
        occasion: What was done.
        now: When.
        version: Version of this program.

    Raises:
        RejectedError: Fewer than two people, or a name that cannot be printed.
        SetupError: The key directory is damaged.
    """
    if not 2 <= len(people) <= MAX_PEOPLE or len(set(people)) != len(people):
        raise RejectedError("a ceremony has at least two different people", hint="--person NAME --person NAME")
    for text in (*people, occasion):
        if not _NAME.fullmatch(text):
            raise RejectedError(f"cannot be printed: {text[:20]!r}")
    root = keys.trusted_root()
    lines = [
        "OMAMORI KEY CEREMONY",
        "",
        f"occasion   {occasion}",
        f"time       {now:%Y-%m-%d %H:%M:%S} UTC",
        f"program    omamori-ota {version}",
        f"root       version {root.signed.version}, until {root.signed.expires:%Y-%m-%d %H:%M:%S} UTC",
        f"           SHA-256 {_grouped(hashlib.sha256((keys.path / 'trust/root.json').read_bytes()).hexdigest())}",
        "",
        "ROLES",
    ]
    for name, policy in ROLES.items():
        place = "online" if policy.is_online else "offline"
        named = "by targets" if name in DELEGATED else "by root"
        lines.append(f"{name:<10} {policy.threshold} of {len(policy.keys)} keys, {place}, named {named}")
        for key in policy.keys:
            lines.append(f"  {key:<12} {_grouped(keys.current_key(key).keyid)}")  # noqa: PERF401 - reads better
    lines += ["", "CERTIFICATES (SHA-256 of the public key, of the certificate; end)"]
    for name in _CERTIFICATES:
        for certificate in x509.load_pem_x509_certificates((keys.path / name).read_bytes()):
            lines += _certificate(name, certificate)
    trusted = x509.load_pem_x509_certificates((keys.path / TRUST).read_bytes())
    lines += ["", f"AUTHORITIES FOR BUNDLES IN IMAGES: {len(trusted)}"]
    lines += [f"  {_grouped(key_id(certificate))}" for certificate in trusted]
    lines += [
        "",
        "I was there, compared the fingerprints, and saw no copy of a key leave but as agreed.",
        "",
    ]
    for person in people:
        lines += ["", f"{person:<40} ____________________  date ____________"]
    return "\n".join(lines) + "\n"


def _certificate(name: str, certificate: x509.Certificate) -> list[str]:
    return [
        f"{name}, {certificate.subject.rfc4514_string()}, until {certificate.not_valid_after_utc:%Y-%m-%d}",
        f"  key  {_grouped(key_id(certificate))}",
        f"  cert {_grouped(certificate.fingerprint(hashes.SHA256()).hex())}",
    ]


def _grouped(digest: str) -> str:
    """Return a fingerprint in groups that people can read to each other."""
    return " ".join(digest[at : at + 4] for at in range(0, len(digest), 4))
