"""Key and certificate on the data partition.

The key is written before anything is asked of the server, so that after a power cut at any step the same key asks
again and gets the same certificate. What cannot be read is set aside (the last one is kept), never deleted silently.
Beside them stands for which claim the certificate was given, as a hash: another claim from the factory means that the
operator wants the box to enrol again. The certificate is used until it has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path

from cryptography import x509

from omamori_agent.errors import RejectedError, SetupError
from omamori_agent.files import read_bounded, sync_directory, write_atomic

from .certificate import dump_chain, dump_key, load_key, make_key, parse_stored, select_chain
from .tpm import DeviceKey, KeyKeeper, TPMKey, TPMUnavailableError, is_tpm_key

logger = logging.getLogger(__name__)

KEY_NAME = "device.key"
CERTIFICATE_NAME = "device.crt"
CLAIM_NAME = "device.claim"
_MAX_KEY_BYTES = 4096
_MAX_CERTIFICATE_BYTES = 65536
_MAX_MARK_BYTES = 256
_BAD_SUFFIX = ".unusable"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """A usable key and certificate; times are Unix seconds."""

    device: str
    key_path: Path
    certificate_path: Path
    begins_s: int
    expires_s: int


class IdentityStore:
    """The files of one box's identity.

    Args:
        directory: Where they live; made when missing.
        device: The box's id.
        claim: The claim that the factory gave it.
        tpm: Where its key is made, if the board has such a place.
    """

    def __init__(self, directory: Path, device: str, claim: str = "", tpm: KeyKeeper | None = None) -> None:
        self._directory = directory
        self._device = device
        self._tpm = tpm
        self._mark = hashlib.sha256(f"omamori-claim-mark-1\0{device}\0{claim}".encode()).hexdigest().encode()
        self._mark_path = directory / CLAIM_NAME
        self.key_path = directory / KEY_NAME
        self.certificate_path = directory / CERTIFICATE_NAME

    def ensure_key(self) -> DeviceKey:
        """Return the box's key; make and store it durably if there is none.

        Raises:
            SetupError: It can be neither read nor stored.
            TransientError: It is in the TPM, which cannot be used now.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                return self._read_key()
            except FileNotFoundError:
                pass
            except RejectedError as err:
                logger.warning("%s: %s; it is set aside", self.key_path, err)
                self._set_aside(self.key_path)
            key = self._make_key()
            write_atomic(self.key_path, key.pem if isinstance(key, TPMKey) else dump_key(key), mode=0o600)
            # A certificate without its key is of no use, and must not be taken for one later.
            self._set_aside(self.certificate_path)
        except OSError as err:
            raise SetupError(f"{self._directory}: {err.strerror or err}", hint="is the data partition full?") from err
        return key

    def replace_key(self) -> DeviceKey:
        """Set key and certificate aside, and return a new key; raises `SetupError` as `ensure_key`."""
        try:
            self._set_aside(self.key_path)
        except OSError as err:
            raise SetupError(f"{self._directory}: {err.strerror or err}") from err
        return self.ensure_key()

    def is_for_another_claim(self) -> bool:
        """Tell whether what is stored was given for a claim before the present one."""
        try:
            return read_bounded(self._mark_path, _MAX_MARK_BYTES) != self._mark
        except (FileNotFoundError, RejectedError, SetupError):
            return False  # of a version that did not write it down, or damaged: the certificate itself decides

    def note_claim(self) -> None:
        """Write down that what is stored belongs to the present claim; raises `SetupError`."""
        try:
            if not self._mark_path.exists() or self.is_for_another_claim():
                write_atomic(self._mark_path, self._mark, mode=0o600)
        except OSError as err:
            raise SetupError(f"{self._mark_path}: {err.strerror or err}") from err

    def load(self, now_s: float) -> Identity:
        """Return the stored identity.

        Args:
            now_s: Unix time in seconds that the certificate must be valid at.

        Raises:
            FileNotFoundError: Key or certificate is not there yet.
            RejectedError: The certificate is not (or no longer) usable with the key.
            TransientError: It is not valid yet.
            SetupError: A file cannot be read.
        """
        key = self._read_key()
        stored = parse_stored(read_bounded(self.certificate_path, _MAX_CERTIFICATE_BYTES))
        return self._identity(select_chain(stored, key, self._device, now_s)[0])

    def save(self, chain: list[x509.Certificate]) -> Identity:
        """Store a checked certificate durably.

        Raises:
            SetupError: It cannot be stored; the previous one is as it was.
        """
        try:
            write_atomic(self.certificate_path, dump_chain(chain))
        except OSError as err:
            hint = "is the data partition full?"
            raise SetupError(f"{self.certificate_path}: {err.strerror or err}", hint=hint) from err
        return self._identity(chain[0])

    def _make_key(self) -> DeviceKey:
        if self._tpm is not None:
            try:
                return self._tpm.make_key()
            except TPMUnavailableError as err:
                # Locked by the firmware, or worn out: a box with a key in a file protects its office all the same.
                logger.warning("%s; the key becomes a file", err)
        return make_key()

    def _read_key(self) -> DeviceKey:
        pem = read_bounded(self.key_path, _MAX_KEY_BYTES)
        if not is_tpm_key(pem):
            return load_key(pem)
        if self._tpm is None:
            raise TPMUnavailableError("the key is in a TPM, and there is none", hint="switched off in the firmware?")
        return self._tpm.load_key(pem)

    def _identity(self, leaf: x509.Certificate) -> Identity:
        return Identity(
            device=self._device,
            key_path=self.key_path,
            certificate_path=self.certificate_path,
            begins_s=int(leaf.not_valid_before_utc.timestamp()),
            expires_s=int(leaf.not_valid_after_utc.timestamp()),
        )

    def _set_aside(self, path: Path) -> None:
        if path.exists():
            path.replace(path.with_name(path.name + _BAD_SUFFIX))
            sync_directory(path.parent)
