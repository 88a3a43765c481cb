"""Where a fleet reports to: certificates of the product's kinds, a broker with its configuration, ingest and store.

All of it on the loopback, in a directory of its own, and gone afterwards. The boxes' own directories lie in memory: one
machine's disk would otherwise have to do what ten thousand do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine

from omamori_cloud.broker_files import INGEST, BrokerFiles, Listener, access_list
from omamori_cloud.store.database import open_database
from omamori_ota import certificates

from .errors import SetupError
from .products import program
from .run import Process, end, require, spawn
from .throwaway_postgres import ThrowawayPostgres
from .waiting import wait_for

HOST = "localhost"
ADDRESS = "127.0.0.1"
_MEMORY = Path("/dev/shm")  # noqa: S108 - where memory is a directory; ours is made by mkdtemp
_BYTES_PER_BOX = 300_000  # of the directory in memory
_DESCRIPTORS_PER_BOX = 5  # socket, spool, its log and its index
_SPARE_DESCRIPTORS = 500
_READY_S = 60.0
_REMOVALS = 3  # a program that was killed may leave a file while the others are removed
_END_S = 60.0  # a broker writes down ten thousand sessions when it ends
BOXES_PER_PROCESS = 2_500


def device_name(number: int) -> str:
    """Return the id of box `number`."""
    return f"ZA35-F{number:06d}"


class Broker:
    """A mosquitto with the product's settings; `port` is the boxes', `service_port` the services'."""

    def __init__(self, folder: Path, boxes: Path, services: Path) -> None:
        require("mosquitto")
        self.port, self.service_port = _free_port(), _free_port()
        self._folder = folder
        self._process: Process | None = None
        self._log: IO[bytes] = (folder / "broker.log").open("ab")
        files = BrokerFiles(
            state=folder,
            tls=folder,
            listeners=(
                Listener(port=self.port, address=ADDRESS, clients=boxes),
                Listener(port=self.service_port, address=ADDRESS, clients=services, has_boxes=False),
            ),
            user="root",
        )
        (folder / "mosquitto.conf").write_text(files.settings())
        files.access_list_path.write_text(access_list())
        files.access_list_path.chmod(0o600)

    @property
    def pid(self) -> int:
        """Number of its process; raises `SetupError` when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise SetupError(f"the broker ended; see {self._folder}/broker.log")
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = spawn(["mosquitto", "-c", self._folder / "mosquitto.conf"], log=self._log)
        wait_for(self._answers, "the broker", timeout_s=_READY_S, every_s=0.02)

    def stop(self) -> None:
        """End it in good order: it writes down its sessions."""
        if self._process is not None:
            end(self._process, grace_s=_END_S)
            self._process = None

    def close(self) -> None:
        """End it."""
        self.stop()
        self._log.close()

    def _answers(self) -> bool:
        assert self.pid
        try:
            socket.create_connection((ADDRESS, self.port), 1).close()
        except OSError:
            return False
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetSite:
    """A running place to report to.

    Attributes:
        folder: Its files.
        homes: Directory in memory, for the boxes.
        devices: Ids of the boxes that have certificates, in `folder`/boxes.
        service_ca: Who signed the broker's certificate.
        expires_s: When the certificates expire.
        broker: Running.
        engine: The store, for those who look.
        pids: Processes by part: `ingest`, and `database` where it is a program of its own.
    """

    folder: Path
    homes: Path
    devices: Sequence[str]
    service_ca: Path
    expires_s: int
    broker: Broker
    engine: Engine
    pids: dict[str, int]


@contextlib.contextmanager
def running_site(boxes: int, *, on_postgresql: bool) -> Iterator[FleetSite]:
    """Make everything for so many boxes, and take it away afterwards.

    Raises:
        SetupError: A program is missing, or this machine cannot hold so many boxes.
    """
    _allow_descriptors(boxes)
    with contextlib.ExitStack() as stack:
        folder = _scratch(stack, None)
        homes = _scratch(stack, _MEMORY if _has_room(_MEMORY, boxes * _BYTES_PER_BOX) else None)
        devices = [device_name(number) for number in range(1, boxes + 1)]
        expires_s = _make_certificates(folder, devices)
        broker = Broker(folder, folder / "all.pem", folder / "service-ca.pem")
        stack.callback(broker.close)
        broker.start()
        pids: dict[str, int] = {}
        url, password_file = f"sqlite:///{folder}/cloud.db", None
        if on_postgresql:
            server = stack.enter_context(ThrowawayPostgres())
            url, password_file, pids["database"] = server.url, server.password_file, server.pid
        pids["ingest"] = stack.enter_context(_ingest(folder, broker.service_port, url, password_file, boxes)).pid
        engine = open_database(url, password_file=password_file)
        stack.callback(engine.dispose)
        yield FleetSite(
            folder=folder,
            homes=homes,
            devices=devices,
            service_ca=folder / "service-ca.pem",
            expires_s=expires_s,
            broker=broker,
            engine=engine,
            pids=pids,
        )


def _scratch(stack: contextlib.ExitStack, within: Path | None) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="omamori-fleet-", dir=within))
    stack.callback(_remove, folder)
    return folder


def _remove(folder: Path) -> None:
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _has_room(folder: Path, wanted_bytes: int) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > wanted_bytes


def _allow_descriptors(boxes: int) -> None:
    """Let us and what we start have enough of them."""
    wanted = max(boxes, _DESCRIPTORS_PER_BOX * min(boxes, BOXES_PER_PROCESS)) + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError) as err:
        raise SetupError(f"{boxes} boxes need {wanted} open files, allowed are {hard}", hint="ulimit -n") from err


def _make_certificates(folder: Path, devices: Sequence[str]) -> int:
    """Write keys and certificates as factory, enrolment and operator make them; return when they expire."""
    now = dt.datetime.now(dt.UTC)
    service_key, device_key = certificates.new_service_key(), certificates.new_service_key()
    services = certificates.self_signed_authority("Omamori service CA", service_key, now)
    boxes = certificates.self_signed_authority("Omamori device CA", device_key, now)
    (folder / "service-ca.pem").write_bytes(certificates.certificate_pem(services))
    (folder / "all.pem").write_bytes(certificates.certificate_pem(services) + certificates.certificate_pem(boxes))
    key = certificates.new_service_key()
    _write(folder / "tls", key, certificates.server_certificate([HOST], key.public_key(), services, service_key, now))
    key = certificates.new_service_key()
    own = certificates.client_certificate(INGEST, key.public_key(), services, service_key, now)
    _write(folder / INGEST, key, own)
    (folder / "boxes").mkdir(mode=0o700)
    expires = now
    for device in devices:
        key = certificates.new_service_key()
        certificate = certificates.device_certificate(device, key.public_key(), boxes, device_key, now)
        _write(folder / "boxes" / device, key, certificate)
        expires = certificate.not_valid_after_utc
    return int(expires.timestamp())


def _write(stem: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    secret = stem.with_name(stem.name + ".key")
    with open(secret, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(certificates.private_pem(key))
    stem.with_name(stem.name + ".crt").write_bytes(certificates.certificate_pem(certificate))


@contextlib.contextmanager
def _ingest(folder: Path, port: int, url: str, password_file: Path | None, boxes: int) -> Iterator[Process]:
    password = f'password_file = "{password_file}"\n' if password_file else ""
    config = folder / "cloud.toml"
    config.write_text(
        f'[broker]\nhost = "{HOST}"\nport = {port}\nca = "{folder}/service-ca.pem"\n'
        f'cert = "{folder}/{INGEST}.crt"\nkey = "{folder}/{INGEST}.key"\n'
        f'[database]\nurl = "{url}"\n{password}[limits]\ndevices = {max(boxes, 100)}\n'
    )
    path = folder / "ingest.log"
    with path.open("ab") as log:
        process = spawn([program("omamori-cloud"), "ingest", "--config", config, "--worker", "1"], log=log)
        try:
            wait_for(
                lambda: "messages come in" in path.read_text() or process.poll() is not None,
                "ingest",
                timeout_s=_READY_S,
                detail=path.read_text,
            )
            if process.poll() is not None:
                raise SetupError(f"ingest ended:\n{path.read_text()[-2000:]}")
            yield process
        finally:
            end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])
