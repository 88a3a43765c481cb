"""What the agent is told at start: where files are, who the box is, which image runs, and every limit.

Read and checked once; afterwards only this object is passed down. Nothing in the agent reads an environment variable
or a configuration file later. All paths hang below one root, so that a test can give the agent a directory as its
whole world.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

from omamori_protocol.errors import ProtocolError
from omamori_protocol.provision import MAX_BYTES as MAX_PROVISION_BYTES
from omamori_protocol.provision import Provision, parse_provision
from omamori_protocol.vocabulary import Slot

from .errors import SetupError
from .files import read_bounded

MAX_RELEASE_BYTES = 8192
FLAVOURS = ("release", "dev")


@dataclasses.dataclass(frozen=True)
class Paths:
    """Every path of the box that the agent touches, below `root`."""

    root: Path = Path("/")

    # Read-only, part of the verified image.

    @property
    def image(self) -> Path:
        """Our part of the image."""
        return self.root / "usr/lib/omamori"

    @property
    def release(self) -> Path:
        """What image this is."""
        return self.image / "release.json"

    @property
    def trust_root(self) -> Path:
        """First TUF root metadata."""
        return self.image / "trust/root.json"

    @property
    def service_ca(self) -> Path:
        """CA of the broker, the repository and the enrolment server."""
        return self.image / "trust/service-ca.pem"

    @property
    def desired_keys(self) -> Path:
        """Public keys that may sign desired state and commands."""
        return self.image / "trust/desired.pem"

    @property
    def engine_config(self) -> Path:
        """Base configuration of the engine."""
        return self.image / "engine/suricata.yaml"

    @property
    def regulatory_database(self) -> Path:
        """Which radio channels each country allows, as the kernel reads it."""
        return self.root / "usr/lib/firmware/regulatory.db"

    @property
    def empty_feed(self) -> Path:
        """Unpacked feed of serial 0 that `current` points at on first boot."""
        return self.image / "feed-empty"

    # Persistent, on the data partition.

    @property
    def state(self) -> Path:
        """Everything we keep on the data partition."""
        return self.root / "var/lib/omamori"

    @property
    def provision(self) -> Path:
        """What the factory left for this box."""
        return self.state / "factory/provision.json"

    @property
    def identity(self) -> Path:
        """Directory of key and certificate."""
        return self.state / "identity"

    @property
    def spool(self) -> Path:
        """Directory of the event spool."""
        return self.state / "spool"

    @property
    def feed(self) -> Path:
        """Directory of TUF metadata, unpacked packs and the `current` link."""
        return self.state / "feed"

    @property
    def feed_metadata(self) -> Path:
        """TUF metadata last seen."""
        return self.feed / "metadata"

    @property
    def feed_store(self) -> Path:
        """Unpacked packs, one directory for each serial."""
        return self.feed / "store"

    @property
    def feed_current(self) -> Path:
        """Link to the feed that the engine uses."""
        return self.feed / "current"

    @property
    def desired(self) -> Path:
        """Directory of the desired state in force and of commands done."""
        return self.state / "desired"

    @property
    def firmware(self) -> Path:
        """Directory of the update under way."""
        return self.state / "firmware"

    @property
    def address(self) -> Path:
        """What the settings service shall make of the network; everybody may read it."""
        return self.state / "address/settings.json"

    @property
    def time_known(self) -> Path:
        """The last time known to be right; everybody may read it."""
        return self.state / "time/known"

    @property
    def last_run(self) -> Path:
        """How this run began and the last one ended."""
        return self.state / "run/last-run.json"

    # Volatile and kernel.

    @property
    def run(self) -> Path:
        """Volatile directory."""
        return self.root / "run/omamori"

    @property
    def slot(self) -> Path:
        """Slot letter, written by the initrd."""
        return self.run / "slot"

    @property
    def engine_socket(self) -> Path:
        """Command socket of the engine."""
        return self.run / "engine/suricata.sock"

    @property
    def eve(self) -> Path:
        """EVE output of the engine."""
        return self.run / "eve/eve.json"

    @property
    def wifi_config(self) -> Path:
        """Configuration of hostapd, written by us; memory only."""
        return self.run / "wifi/hostapd.conf"

    @property
    def wifi_kept(self) -> Path:
        """The last configuration of hostapd that worked; holds the same secrets as the signed document beside it."""
        return self.desired / "wifi.conf"

    @property
    def hostapd(self) -> Path:
        """Directory below which hostapd's control sockets lie, one directory for each of its runs."""
        return self.run / "hostapd"

    @property
    def interfaces(self) -> Path:
        """The kernel's list of network interfaces."""
        return self.root / "sys/class/net"

    @property
    def address_answer(self) -> Path:
        """What the settings service has done."""
        return self.run / "address/state.json"

    @property
    def supervisor(self) -> Path:
        """What the supervisor has told; there only on boards that have one."""
        return self.run / "supervisor/state.json"

    @property
    def boot_facts(self) -> Path:
        """What the slots' service found at this boot."""
        return self.run / "firmware/boot.json"

    @property
    def firmware_result(self) -> Path:
        """How the last update ended, for the lamp."""
        return self.run / "firmware/result"

    @property
    def restart_request(self) -> Path:
        """A file that appears here restarts the box in an orderly way."""
        return self.run / "firmware/reboot"

    @property
    def time_wanted(self) -> Path:
        """What the time service shall make of the clocks."""
        return self.run / "time/wanted.json"

    @property
    def trouble(self) -> Path:
        """What is wrong around the box; everybody may read it."""
        return self.run / "agent/trouble.json"

    @property
    def trouble_code(self) -> Path:
        """The code that the lamp shall show, 0 for none; everybody may read it."""
        return self.run / "agent/code"

    @property
    def identify(self) -> Path:
        """Until when the lamp shall say which box this is, in seconds since power-on; everybody may read it."""
        return self.run / "agent/identify"

    @property
    def lamp_wanted(self) -> Path:
        """There as long as the lamp has something to show; what starts the lamp watches it."""
        return self.run / "agent/lamp"

    @property
    def leds(self) -> Path:
        """The kernel's lamps."""
        return self.root / "sys/class/leds"

    @property
    def feed_channel(self) -> Path:
        """The feed channel that the desired state has chosen; there only if it once has."""
        return self.desired / "channel"

    @property
    def watchdogs(self) -> Path:
        """The kernel's view of the hardware watchdogs."""
        return self.root / "sys/class/watchdog"

    @property
    def stick(self) -> Path:
        """Content of a USB stick for updates; empty without one."""
        return self.run / "stick"

    def slot_devices(self, slot: Slot) -> tuple[Path, Path]:
        """Root file system and boot partition of a slot, as devices; the initrd names them."""
        letter = slot.name.lower()
        return self.root / f"dev/omamori/root_{letter}", self.root / f"dev/omamori/slot_{letter}"

    @property
    def boot_id(self) -> Path:
        """The kernel's name of this boot."""
        return self.proc / "sys/kernel/random/boot_id"

    @property
    def bpf(self) -> Path:
        """Directory of the gate's pinned maps."""
        return self.root / "sys/fs/bpf/omamori"

    @property
    def proc(self) -> Path:
        """The kernel's process file system."""
        return self.root / "proc"

    @property
    def bridge(self) -> Path:
        """The kernel's view of the bridge that forwards."""
        return self.root / "sys/class/net/br0"

    @property
    def console(self) -> Path:
        """The console that an installer sees."""
        return self.root / "dev/console"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """Content of ``release.json``; `build_time` is Unix time in seconds.

    A box that has committed an image refuses every one of a lower `security_epoch`. `data_version` is the form of what
    lies on the data partition.

    `radio` is the interface of the board's Wi-Fi radio, or None when the board never has one.
    """

    version: str
    flavour: str
    board: str
    model: str
    build_time: int
    kernel: str
    radio: str | None = None
    security_epoch: int = 0
    data_version: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnrolmentLimits:
    """Bounds and intervals of getting a certificate."""

    timeout_s: float = 10.0  # one network operation
    deadline_s: float = 30.0  # the whole exchange, however slowly the server drips
    max_response_bytes: int = 65536  # a certificate chain is 2-4 KiB
    retry_first_s: float = 2.0
    retry_cap_s: float = 300.0
    refused_retry_s: float = 900.0  # somebody has to act at the registry first
    renewal_check_s: float = 6 * 3600.0
    renewal_share: float = 2 / 3  # of the certificate's life that passes before it is renewed; the server knows it too
    renewal_spread: float = 0.08  # of its life, at most a week: boxes of one batch do not come on one day


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkLimits:
    """Bounds and intervals of the connection to the broker."""

    connect_timeout_s: float = 10.0
    keepalive_s: int = 60
    session_expiry_s: int = 24 * 3600
    will_delay_s: int = 10  # a restart of the agent is not an outage
    receive_maximum: int = 16
    max_packet_bytes: int = 32768  # a desired state with 256 exemptions has 17 KiB
    window: int = 16  # events sent and not yet acknowledged
    reconnect_first_s: float = 1.0
    reconnect_cap_s: float = 60.0
    stable_after_s: float = 30.0  # a connection that lasted this long resets the back-off
    ack_timeout_s: float = 60.0  # unacknowledged for this long: reconnect and send again
    refused_first_s: float = 1.0  # pause after the broker refused an event
    again_first_s: float = 2.0  # until a refused event is tried again
    refused_cap_s: float = 60.0  # bound of both
    goodbye_s: float = 1.0  # to say "offline" on a clean stop
    # What was acknowledged so shortly before a loss is sent again: longer than the keep-alive takes to notice that the
    # broker died, and than the broker takes to write down what it acknowledged.
    doubt_s: float = 180.0
    backlog_share: float = 0.25  # a backlog of an hour is spread over a quarter of an hour,
    backlog_spread_cap_s: float = 600.0  # but not over more than this,
    backlog_jitter: float = 0.5  # give or take this part;
    backlog_at_once: int = 16  # and this many events are no backlog


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpoolLimits:
    """Bounds of the event spool; three stars may exceed them while the disk has `min_free_bytes` left."""

    max_events: int = 50_000
    max_bytes: int = 32 * 1024 * 1024  # encoded events; the file may be about twice as large
    kept_events: int = 2_000  # confirmed ones, for a broker that loses its memory
    kept_bytes: int = 1024 * 1024
    min_free_bytes: int = 64 * 1024 * 1024
    reserve_bytes: int = 1024 * 1024  # of disk, given up when making room needs some itself
    busy_timeout_s: float = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """All that the agent needs to know; made once by `load_config` or by a test."""

    provision: Provision
    release: Release
    slot: Slot
    paths: Paths = Paths()
    enrolment: EnrolmentLimits = EnrolmentLimits()
    link: LinkLimits = LinkLimits()
    spool: SpoolLimits = SpoolLimits()
    heartbeat_s: float = 60.0
    health_s: float = 1.0  # how often the console worker looks whether the box protects
    stop_s: float = 2.5  # all workers together, after SIGTERM

    @property
    def device(self) -> str:
        """The box's id."""
        return self.provision.serial


def _text(body: dict[str, Any], key: str, maximum: int, path: Path) -> str:
    value = body[key]
    if not isinstance(value, str) or not 1 <= len(value) <= maximum or not value.isprintable():
        raise SetupError(f"{path}: {key} is not a text of 1 to {maximum} printable characters")
    return value


def load_release(path: Path) -> Release:
    """Read ``release.json``.

    Raises:
        SetupError: It is missing or not as it must be; the image is broken.
    """
    try:
        body = json.loads(read_bounded(path, MAX_RELEASE_BYTES))
    except FileNotFoundError as err:
        raise SetupError(f"{path}: missing", hint="the image was not built by omamori-image") from err
    except (ValueError, RecursionError) as err:
        raise SetupError(f"{path}: not JSON: {str(err)[:80]}") from err
    expected = {field.name for field in dataclasses.fields(Release)}
    if isinstance(body, dict):
        body = {"security_epoch": 0, "data_version": 0} | body  # the first images had neither
    if not isinstance(body, dict) or set(body) != expected:
        raise SetupError(f"{path}: expected exactly the keys {', '.join(sorted(expected))}")
    if body["flavour"] not in FLAVOURS:
        raise SetupError(f"{path}: flavour is not one of {', '.join(FLAVOURS)}")
    build_time = body["build_time"]
    if type(build_time) is not int or not 0 <= build_time < 2**40:
        raise SetupError(f"{path}: build_time is not a Unix time in seconds")
    for name in ("security_epoch", "data_version"):
        if type(body[name]) is not int or not 0 <= body[name] < 2**31:
            raise SetupError(f"{path}: {name} is not a number from 0 to {2**31 - 1}")
    return Release(
        version=_text(body, "version", 32, path),
        flavour=body["flavour"],
        board=_text(body, "board", 64, path),
        model=_text(body, "model", 32, path),
        build_time=build_time,
        kernel=_text(body, "kernel", 128, path),
        radio=None if body["radio"] is None else _text(body, "radio", 15, path),
        security_epoch=body["security_epoch"],
        data_version=body["data_version"],
    )


def load_provision(path: Path) -> Provision:
    """Read ``provision.json`` and check that nobody but root or ourselves could have written it.

    Raises:
        SetupError: It is missing, writable by others, somebody else's, or not as it must be.
    """
    try:
        data = read_bounded(path, MAX_PROVISION_BYTES + 1)
        status = path.stat()
    except FileNotFoundError as err:
        raise SetupError(f"{path}: missing", hint="omamori-image factory puts it on the data partition") from err
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SetupError(f"{path}: writable by group or others", hint=f"chmod go-w {path}")
    if status.st_uid not in {0, os.geteuid()}:
        raise SetupError(f"{path}: belongs to user {status.st_uid}", hint=f"chown root {path}")
    try:
        return parse_provision(data)
    except ProtocolError as err:
        raise SetupError(f"{path}: {err}", hint=err.hint) from err


def load_slot(path: Path) -> Slot:
    """Read which slot the box runs from.

    Raises:
        SetupError: The file is missing or holds neither A nor B.
    """
    try:
        word = read_bounded(path, 16).strip()
    except FileNotFoundError as err:
        raise SetupError(f"{path}: missing", hint="the initrd writes it") from err
    if word not in {b"A", b"B"}:
        raise SetupError(f"{path}: neither A nor B")
    return Slot[word.decode()]


def load_config(root: Path = Path("/")) -> AgentConfig:
    """Read everything the agent is told at start.

    Raises:
        SetupError: A file is missing or wrong; the message names it.
    """
    paths = Paths(root)
    return AgentConfig(
        release=load_release(paths.release),
        provision=load_provision(paths.provision),
        slot=load_slot(paths.slot),
        paths=paths,
    )
