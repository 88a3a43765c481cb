"""The box's address: on trial until the broker was reached by it, back to the one before otherwise."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from omamori_agent.address import service
from omamori_agent.address.drop_in import drop_in
from omamori_agent.address.part import AddressPart
from omamori_agent.address.settings import DHCP, MAX_BYTES, AddressFile, Refused, Trial, parse, to_bytes
from omamori_agent.desired.errors import PendingError
from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.run import CommandError
from omamori_protocol.desired import AddressMode, AddressSettings
from omamori_protocol.errors import MalformedError

STATIC = AddressSettings(
    mode=AddressMode.STATIC, ipv4="192.168.10.5/24", gateway="192.168.10.1", dns=("192.168.10.1", "2001:db8::53")
)
OTHER = dataclasses.replace(STATIC, ipv4="192.168.10.6/24")
DROP_IN = """\
# Made by omamori-settings from the box's desired state; not by hand.
[Network]
DHCP=no
Address=192.168.10.5/24
Gateway=192.168.10.1
DNS=192.168.10.1
DNS=2001:db8::53
"""


class Box:
    """The part, the service as systemd would start it, a network and a broker that may be out of reach.

    Attributes:
        local: Address that connections leave by when the drop-in says DHCP.
        reachable: Addresses from which the broker answers.
        is_service_there: Whether systemd starts the service.
        lag: Connections that still leave by the old address after a change.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for path in (root / service.FILE, root / service.ANSWER, root / service.DROP_IN, root / service.BOOT_ID):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.now_s = 1000.0
        self.version = 1
        self.local = "192.168.10.77"
        self.reachable = {"192.168.10.77", "192.168.10.5", "192.168.10.6"}
        self.is_service_there = True
        self.lag = 0
        self.reloads = 0
        self.reload_error: str | None = None
        self.count = 1
        self.live: tuple[int, str] | None = (1, self.local)
        self._seen: bytes | None = None
        self.boot("b-1")

    def boot(self, boot_id: str) -> None:
        """Start the box: the run directory is empty, the service has its first turn."""
        (self.root / service.BOOT_ID).write_text(boot_id + "\n")
        (self.root / service.DROP_IN).unlink(missing_ok=True)
        (self.root / service.ANSWER).unlink(missing_ok=True)
        self._seen = None
        self.boot_id = boot_id
        self.restart()
        self.serve()

    def restart(self) -> None:
        """Start the agent anew."""
        self.part = AddressPart(
            self.root / service.FILE,
            self.root / service.ANSWER,
            self,
            boot_id=self.boot_id,
            boottime_s=lambda: self.now_s,
            version=lambda: self.version,
            trial_s=180,
            settle_s=20,
        )

    # The network.

    @property
    def address(self) -> str:
        """Address that the box really has."""
        path = self.root / service.DROP_IN
        if not path.exists():
            return self.local
        line = next(line for line in path.read_text().splitlines() if line.startswith("Address="))
        return line.removeprefix("Address=").partition("/")[0]

    def serve(self) -> None:
        path = self.root / service.FILE
        data = path.read_bytes() if path.exists() else None
        if self.is_service_there and data is not None and data != self._seen:
            self._seen = data
            service.settle(self.root, reload=self.reload)

    def reload(self) -> None:
        if self.reload_error is not None:
            raise CommandError("systemctl", self.reload_error)
        self.reloads += 1

    # The link.

    def reconnect(self) -> None:
        self.live = None

    def connection(self) -> tuple[int, str] | None:
        if self.live is None and self.address in self.reachable:
            self.count += 1
            address = self.address
            if self.lag:
                self.lag -= 1
                address = self.local
            self.live = (self.count, address)
        return self.live

    # What a test asks.

    def ask(self, settings: AddressSettings | None) -> str:
        """Apply once; return what became of it."""
        try:
            self.part.apply(settings)
        except PendingError:
            return "pending"
        except RejectedError as err:
            return f"refused: {err}"
        finally:
            self.serve()
        return "applied"

    def settle(self, settings: AddressSettings | None, seconds: int = 200) -> str:
        """Apply once a second until it is decided."""
        for _ in range(seconds):
            said = self.ask(settings)
            if said != "pending":
                return said
            self.now_s += 1
        return "pending"

    @property
    def file(self) -> AddressFile:
        return parse((self.root / service.FILE).read_bytes())


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_the_default_needs_no_file(box: Box) -> None:
    assert box.ask(None) == "applied"
    assert box.ask(DHCP) == "applied"
    assert not (box.root / service.FILE).exists()


def test_static_address_that_works(box: Box) -> None:
    assert box.ask(STATIC) == "pending"
    assert box.address == "192.168.10.5"
    assert box.settle(STATIC) == "applied"
    assert box.now_s < 1010
    assert (box.root / service.DROP_IN).read_text() == DROP_IN
    assert box.file == AddressFile(STATIC)
    assert box.live is not None
    assert box.live[1] == "192.168.10.5"
    assert box.reloads == 1  # ending the trial changes nothing in the network
    assert box.ask(STATIC) == "applied"


def test_address_that_does_not_reach_the_broker_goes_back(box: Box) -> None:
    box.reachable = {"192.168.10.77"}
    said = box.settle(STATIC)
    assert said == "refused: no connection to the broker within 180 s; the previous address is back"
    assert 1179 <= box.now_s <= 1182
    assert box.address == "192.168.10.77"
    assert not (box.root / service.DROP_IN).exists()
    assert box.connection() is not None
    for _ in range(3):
        assert box.ask(STATIC) == said
    box.restart()
    assert box.ask(STATIC) == said
    box.boot("b-2")
    assert box.ask(STATIC) == said
    assert box.address == "192.168.10.77"


def test_another_version_may_try_again(box: Box) -> None:
    box.reachable = {"192.168.10.77"}
    box.settle(STATIC)
    box.reachable.add("192.168.10.5")
    box.version = 2
    assert box.settle(STATIC) == "applied"


def test_goes_back_to_the_static_address_before(box: Box) -> None:
    assert box.settle(STATIC) == "applied"
    box.reachable = {"192.168.10.5"}
    assert "the previous address is back" in box.settle(OTHER)
    assert box.address == "192.168.10.5"


def test_old_connection_proves_nothing(box: Box) -> None:
    box.lag = 3  # networkd has not read the file yet
    assert box.settle(STATIC) == "applied"
    assert box.live is not None
    assert box.live[1] == "192.168.10.5"
    assert box.now_s >= 1010
    box.reachable = {"192.168.10.5", "192.168.10.77"}
    box.lag = 1000
    assert "the previous address is back" in box.settle(OTHER)


def test_back_to_dhcp_with_the_same_lease(box: Box) -> None:
    box.settle(STATIC)
    box.local = "192.168.10.5"
    began_s = box.now_s
    assert box.settle(None) == "applied"
    assert box.now_s - began_s >= 10  # told from the old connection by time
    assert box.address == box.local
    assert box.file == AddressFile(DHCP)


def test_broker_reached_by_ipv6(box: Box) -> None:
    box.local = "2001:db8::7"
    box.reachable = {"2001:db8::7", "192.168.10.5"}
    box.lag = 1000
    assert box.settle(STATIC) == "applied"
    assert box.now_s >= 1010


def test_service_that_does_not_answer(box: Box) -> None:
    box.is_service_there = False
    assert box.settle(STATIC) == ("refused: the box's settings service did not answer; the previous address is back")
    assert box.now_s < 1025


def test_service_that_fails(box: Box) -> None:
    box.reload_error = "exit code 1"
    assert box.settle(STATIC) == "refused: systemctl: exit code 1; the previous address is back"


def test_change_of_mind_during_a_trial(box: Box) -> None:
    assert box.ask(STATIC) == "pending"
    assert box.ask(None) == "applied"
    assert box.address == box.local
    assert box.ask(STATIC) == "pending"
    assert box.settle(OTHER) == "applied"
    assert box.address == "192.168.10.6"


def test_restart_of_the_agent_goes_on_with_the_trial(box: Box) -> None:
    box.reachable = {"192.168.10.77"}
    assert box.settle(STATIC, 100) == "pending"
    box.restart()
    assert "the previous address is back" in box.settle(STATIC)
    assert box.now_s <= 1182


def test_restart_of_the_box_during_a_trial_comes_up_with_what_works(box: Box) -> None:
    assert box.settle(STATIC) == "applied"
    box.reachable = {"192.168.10.5"}
    assert box.settle(OTHER, 10) == "pending"
    box.boot("b-2")
    assert box.address == "192.168.10.5"
    assert box.settle(OTHER, 10) == "pending"  # a trial of its own
    assert box.address == "192.168.10.6"


def test_static_address_at_boot_without_the_agent(box: Box) -> None:
    box.settle(STATIC)
    reloads = box.reloads
    box.boot("b-2")
    assert box.address == "192.168.10.5"
    assert box.reloads == reloads + 1  # before networkd runs: the service manager ignores it


def test_damaged_file_counts_as_none(box: Box) -> None:
    box.settle(STATIC)
    (box.root / service.FILE).write_bytes(b"{")
    box.boot("b-2")
    assert box.settle(STATIC) == "applied"
    assert box.file == AddressFile(STATIC)


def test_disk_that_is_full(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omamori_agent.address.part.write_atomic", full)
    with pytest.raises(TransientError, match="No space"):
        box.part.apply(STATIC)
    monkeypatch.undo()
    assert box.settle(STATIC) == "applied"


# The service alone.


@pytest.mark.parametrize("file", [AddressFile(), AddressFile(STATIC), AddressFile(DHCP, Trial(STATIC, "b", 1.5))])
def test_file_there_and_back(file: AddressFile) -> None:
    assert parse(to_bytes(file)) == file
    refused = dataclasses.replace(file, refused=Refused(OTHER, 7, "why"))
    assert parse(to_bytes(refused)) == refused
    assert len(to_bytes(refused)) < MAX_BYTES


def bad(**changes: object) -> bytes:
    body = json.loads(to_bytes(AddressFile(STATIC, Trial(OTHER, "b", 1.0))))
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = body
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 3000,
        b"\xff\xff",
        bytes(MAX_BYTES + 1),
        bad(format=2),
        bad(more=1),
        bad(proved=None),
        bad(proved__mode="magic"),
        bad(proved__mode=2),
        bad(proved__ipv4="192.168.10.5/24\nExecStart=/bin/sh"),
        bad(proved__ipv4="192.168.10.5"),
        bad(proved__ipv4=5),
        bad(proved__gateway="192.168.99.1"),
        bad(proved__dns="192.168.10.1"),
        bad(proved__dns=["192.168.10.1\n[Link]"]),
        bad(proved__dns=["192.168.10.1"] * 4),
        bad(proved__more=1),
        bad(trial__boot_id="../x"),
        bad(trial__boot_id=1),
        bad(trial__until_s=-1),
        bad(trial__until_s=True),
        bad(trial__settings=None),
        bad(refused={"settings": None}),
        bad(refused=7),
    ],
)
def test_file_that_is_none_leaves_the_network_as_it_is(box: Box, data: bytes) -> None:
    box.settle(STATIC)
    with pytest.raises(MalformedError):
        parse(data)
    (box.root / service.FILE).write_bytes(data)
    reloads = box.reloads
    assert service.settle(box.root, reload=box.reload) is not None
    assert (box.root / service.DROP_IN).read_text() == DROP_IN
    assert box.reloads == reloads
    answer = json.loads((box.root / service.ANSWER).read_text())
    assert answer["error"]
    expected = data[: MAX_BYTES + 1]
    assert answer["sha256"] == hashlib.sha256(expected).hexdigest()


def test_links_are_not_followed(box: Box) -> None:
    secret = box.root / "secret"
    secret.write_bytes(to_bytes(AddressFile(STATIC)))
    (box.root / service.FILE).symlink_to(secret)
    assert "cannot be read" in (service.settle(box.root, reload=box.reload) or "")
    assert not (box.root / service.DROP_IN).exists()


def test_pipe_does_not_block_the_boot(box: Box) -> None:
    os.mkfifo(box.root / service.FILE)
    assert "cannot be read" in (service.settle(box.root, reload=box.reload) or "")


def test_without_a_file_there_is_nothing_to_do(box: Box) -> None:
    assert service.settle(box.root, reload=box.reload) is None
    assert not (box.root / service.ANSWER).exists()


def test_drop_in_words() -> None:
    assert drop_in(DHCP) is None
    assert drop_in(STATIC) == DROP_IN
