"""The enrolment server as a process: everything wired together, until a signal ends it."""

from __future__ import annotations

import dataclasses
import logging
import re
import signal
import ssl
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from .attempts import AttemptLog
from .clock import Clock
from .enrolment import Enrolment
from .enrolment_server import EnrolmentServer, ServerLimits
from .errors import OtaError, RejectedError, SetupError
from .keys import DEVICE_CA, KeyDirectory
from .pki import CERTIFICATE_FILE, KEY_FILE
from .registry import Registry
from .revocation import ListPlaces

logger = logging.getLogger(__name__)

_LIST_RETRY = timedelta(minutes=10)
_LISTEN = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[^:\[\]]+)):(?P<port>\d{1,5})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What the command line gives.

    Attributes:
        keys: Key directory with the device CA.
        registry: Register of boxes.
        listen: Address and port.
        tls_directory: From ``omamori-ota pki server``.
        limits: Bounds of the server.
        lists: Where revocation lists are renewed once a day, if anywhere.
    """

    keys: Path
    registry: Path
    listen: tuple[str, int]
    tls_directory: Path
    limits: ServerLimits
    lists: ListPlaces = dataclasses.field(default_factory=ListPlaces)


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``ADDR:PORT`` or ``[ADDR]:PORT``; port 0 takes any.

    Raises:
        RejectedError: It is neither.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise RejectedError(f"not an address to listen on: {text[:60]!r}", hint="127.0.0.1:8443 or [::]:8443")
    return match["six"] or match["four"], int(match["port"])


def make_server(config: ServiceConfig, clock: Clock) -> EnrolmentServer:
    """Wire the server; it listens when this returns.

    Raises:
        SetupError: A directory is not what it should be, or the address cannot be listened on.
    """
    authority, authority_key = KeyDirectory(config.keys).authority(DEVICE_CA)
    enrolment = Enrolment(Registry(config.registry, authority), authority, authority_key, clock)
    attempts = AttemptLog(config.registry)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.num_tickets = 0  # one request for each connection, and each shows its certificate
    tls.verify_mode = ssl.CERT_OPTIONAL  # a box that renews has one, a new box has not
    tls.load_verify_locations(cadata=authority.public_bytes(Encoding.DER))
    try:
        tls.load_cert_chain(config.tls_directory / CERTIFICATE_FILE, config.tls_directory / KEY_FILE)
    except OSError as err:  # TLS errors are its children
        raise SetupError(
            f"{config.tls_directory} is not a usable TLS directory: {err}",
            hint="omamori-ota pki server KEYS DIR --name HOST",
        ) from err
    try:
        return EnrolmentServer(config.listen, enrolment, tls, attempts, config.limits)
    except OSError as err:
        raise SetupError(f"cannot listen on {config.listen[0]}:{config.listen[1]}: {err.strerror}") from err


class ListKeeper:
    """Renews revocation lists in time: a list that has expired shuts out every box.

    Args:
        config: The places.
        clock: The present.
    """

    def __init__(self, config: ServiceConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._not_before: datetime | None = None

    def step(self) -> None:
        """Do what is due; what fails is logged, and tried again some minutes later."""
        now = self._clock()
        if self._not_before is None:
            if not self._config.lists.is_due(self._clock):
                return
        elif now < self._not_before:  # afterwards in any case: lists may be new and not yet on all machines
            return
        try:
            keys = KeyDirectory(self._config.keys)
            registry = Registry(self._config.registry, keys.authority_certificate(DEVICE_CA))
            self._config.lists.publish(keys, registry, self._clock)
        except (OtaError, OSError) as err:
            self._not_before = now + _LIST_RETRY
            logger.error("revocation lists cannot be renewed: %s", err)  # noqa: TRY400 - a fact for the operator
        else:
            self._not_before = None
            logger.info("revocation lists renewed")


def serve(config: ServiceConfig, clock: Clock) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are finished.

    Raises:
        SetupError: As `make_server`; also when the server ended by itself.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s enrolment: %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with make_server(config, clock) as server:
        worker = threading.Thread(target=server.serve_forever, name="enrolment", daemon=True)
        worker.start()
        host, port = server.server_address[:2]
        print(f"enrolment: listening on {host!s}:{port}", flush=True)  # noqa: T201 - the line that scripts wait for
        lists = ListKeeper(config, clock)
        while worker.is_alive() and not ended.wait(1.0):
            lists.step()
        if not ended.is_set():
            raise SetupError("the enrolment server ended by itself")
        server.shutdown()
        worker.join()
