"""Fetching and unpacking over bad networks: what is fetched twice, what is believed, how much memory it takes."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from omamori_agent import run as process
from omamori_agent.firmware import apply
from omamori_agent.firmware.answer import INDEX_NAME, PACKED_PREFIX, parse_answer
from omamori_agent.firmware.errors import UpdateInterruptedError, UpdateRefusedError, UpdateWaitsError
from omamori_agent.firmware.fetch import BundleFetcher, DeltaUnusableError
from omamori_agent.firmware.release import PayloadTarget
from omamori_agent.firmware.store import FirmwareStore
from omamori_agent.firmware.stream import HTTPSStream, RateCap, make_fetcher, waiter
from omamori_protocol.firmware_release import Payload, PayloadKind
from omamori_protocol.hash_tree import hash_tree
from omamori_protocol.segments import MIB, Reference, ReferenceSource, Segment, SegmentIndex, TreePart
from omamori_protocol.vocabulary import FirmwareReason, Slot
from sim.box import box_config
from sim.firmware_box import IMPATIENT, LIMITS, NEVER, apply_here
from sim.firmware_release import ReleaseSource, noise
from sim.repository import FileServer, answer, answer_range, drip, endless, status

PATH = "targets/payload"
BUNDLE = noise("bundle", 900_000)
SOURCE = ReleaseSource(version="1.1.0", bundle=BUNDLE)
INDEX, PACKED = SOURCE.payload(delta=False)
LONGEST = max(segment.packed for segment in INDEX.segments)
FULL = Payload(kind=PayloadKind.FULL, base="", path="firmware/x/1.1.0/full.index", length=1)
NO_CAP = RateCap(0, lambda _seconds: None)


class Fetching:
    """A store, a server with one payload, and what fetches it."""

    def __init__(self, directory: Path) -> None:
        self.paths = box_config(directory / "box").paths
        self.devices = self.paths.slot_devices(Slot.B)
        (directory / "server").mkdir()
        self.server = FileServer({PATH: PACKED}, directory / "server")
        self.limits = LIMITS
        self.index, self.run = INDEX, apply_here
        self.restart()

    def restart(self) -> None:
        """The agent starts anew."""
        self.store = FirmwareStore(self.paths.firmware, reserve_bytes=0)
        self.store.load()
        self.fetcher = BundleFetcher(self.store, self.devices, self.limits, run=self.run)
        self.stream = HTTPSStream(make_fetcher(self.server.ca_file, self.store.download, self.limits), self.limits)

    def obtain(self, *, cap: RateCap = NO_CAP, stop: threading.Event = NEVER, payload: Payload = FULL) -> None:
        url = f"{self.server.url}/{PATH}"
        target = PayloadTarget(url, self.index, self.index.encode(), self.index.payload_length)
        self.fetcher.obtain(target, payload, self.stream, cap, stop)

    def try_often(self, times: int, *, restarts: bool = False) -> list[FirmwareReason]:
        """Try until it is whole, at most so often; return what it waited for."""
        reasons = []
        for _ in range(times):
            try:
                self.obtain()
            except UpdateWaitsError as err:
                reasons.append(err.reason)
            else:
                break
            if restarts:
                self.restart()
        return reasons

    def behave(self, behaviour: Callable[[BaseHTTPRequestHandler], None] | None) -> None:
        if behaviour is None:
            self.server.behaviours.pop(PATH, None)
        else:
            self.server.behaviours[PATH] = behaviour

    @property
    def sent(self) -> int:
        return self.server.sent.get(PATH, 0)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Fetching]:
    made = Fetching(tmp_path)
    with made.server:
        yield made


def cuts(length: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a server whose every connection breaks after so many bytes."""
    return lambda handler: answer_range(handler, PACKED, cut_after=length)


@pytest.mark.parametrize("length", [1, 7_777, 65_536, 100_000])
def test_cut_at_every_so_many_bytes(net: Fetching, length: int) -> None:
    net.behave(cuts(length))
    reasons = net.try_often(20 if length == 1 else len(PACKED) // length + 20)
    assert set(reasons) == {FirmwareReason.UNREACHABLE}
    if length == 1:  # it would take a million connections; twenty bytes it is, each asked for once
        assert sorted(net.server.ranges) == sorted({*net.server.ranges})
        net.behave(None)
        net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE
    assert net.sent == len(PACKED)  # not one byte twice


def test_cut_with_a_new_start_of_the_agent_each_time(net: Fetching) -> None:
    net.behave(cuts(50_000))
    net.try_often(40, restarts=True)
    assert net.store.bundle.read_bytes() == BUNDLE
    assert net.sent == len(PACKED)


class PowerCut(BaseException):
    """The lights went out."""


@pytest.mark.parametrize("nth", [2, 3, 5])
@pytest.mark.parametrize("lost", [0, 1, 4096, 200_000])
def test_power_cut_while_a_batch_is_unpacked(net: Fetching, nth: int, lost: int) -> None:
    calls: list[str] = []

    def run(line: Sequence[str], stop: threading.Event) -> process.CommandResult:
        calls.append(line[-1])
        before = net.store.bundle.stat().st_size if net.store.bundle.exists() else 0
        result = apply_here(line, stop)
        if calls.count("unpack") == nth:
            with net.store.bundle.open("r+b") as file:  # the end did not reach the disk
                size = net.store.bundle.stat().st_size
                file.seek(max(before, size - lost))
                file.write(bytes(size - file.tell()))
            raise PowerCut
        return result

    net.run = run
    net.restart()
    with pytest.raises(PowerCut):
        net.obtain()
    net.run = apply_here
    net.restart()
    net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE
    assert net.sent == len(PACKED)


def test_disk_that_forgets_what_it_was_told_to_keep(net: Fetching) -> None:
    net.behave(cuts(100_000))
    net.try_often(4)
    with net.store.bundle.open("r+b") as file:
        file.write(bytes(4096))
    net.behave(None)
    net.restart()
    net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE


@pytest.mark.parametrize(
    "lies",
    [
        {"Content-Range": f"bytes 0-{len(PACKED)}/{len(PACKED) + 1}"},
        {"Content-Range": "bytes 5-10/20"},
        {"Content-Range": "nonsense"},
        {"Content-Range": ""},
    ],
)
def test_server_that_answers_another_range(net: Fetching, lies: dict[str, str]) -> None:
    net.behave(lambda handler: answer_range(handler, PACKED, **lies))
    with pytest.raises(UpdateWaitsError, match="another range"):
        net.obtain()
    assert not net.store.bundle.stat().st_size


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        (status(302, Location="https://localhost:1/elsewhere"), "HTTP status 302"),
        (status(404), "HTTP status 404"),
        (status(416), "HTTP status 416"),
        (status(500, b"x" * 10_000), "HTTP status 500"),
        (status(200, b"short"), f"5 bytes, {len(PACKED)} are signed"),
        (status(206, b"no range at all"), "another range"),
        (drip(length=len(PACKED), pause_s=0.02), "too slow|does not|cut"),
        (drip(headers_too=True, pause_s=0.02), "too slow"),
    ],
)
def test_server_that_misbehaves(net: Fetching, behaviour: Any, text: str) -> None:
    net.behave(behaviour)
    net.limits = IMPATIENT if "slow" in text else LIMITS
    net.restart()
    with pytest.raises(UpdateWaitsError, match=text):
        net.obtain()
    net.behave(None)
    net.limits = LIMITS
    net.restart()
    net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE


def test_server_that_stalls(net: Fetching) -> None:
    def stall(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(206)
        handler.send_header("Content-Range", handler.headers["Range"].replace("=", " ") + f"/{len(PACKED)}")
        handler.send_header("Content-Length", str(len(PACKED)))
        handler.end_headers()
        handler.wfile.write(PACKED[:1000])
        handler.wfile.flush()
        handler.server.owner.stopping.wait(30)  # type: ignore[attr-defined]

    net.behave(stall)
    net.limits = dataclasses.replace(IMPATIENT, read_timeout_s=3.0, request_s=3.0)  # those 1000 bytes do arrive
    net.restart()
    with pytest.raises(UpdateWaitsError, match="too slow"):
        net.obtain()
    net.behave(None)
    net.limits = LIMITS
    net.restart()
    net.obtain()
    assert net.server.ranges[0].startswith("bytes=1000-")
    assert net.store.bundle.read_bytes() == BUNDLE


def test_server_that_never_stops_is_read_no_further_than_asked(net: Fetching) -> None:
    net.behave(endless(code=206))
    net.try_often(3)
    assert sum(path.stat().st_size for path in net.store.download.iterdir()) < len(PACKED) + len(INDEX.encode())


def test_server_without_range_is_good_for_the_beginning_only(net: Fetching) -> None:
    net.behave(lambda handler: answer(handler, 200, PACKED))
    with pytest.raises(UpdateWaitsError, match="ignores Range"):
        net.obtain()
    have = net.store.bundle.stat().st_size
    assert have > 0  # one batch from the beginning
    net.limits = dataclasses.replace(LIMITS, batch_bytes=len(PACKED))
    net.store.discard()
    net.restart()
    net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE


def test_segment_that_arrives_changed_is_fetched_again(net: Fetching) -> None:
    spoilt = bytearray(PACKED)
    spoilt[len(PACKED) // 2] ^= 1
    seen: list[int] = []

    def once(handler: BaseHTTPRequestHandler) -> None:
        seen.append(1)
        answer_range(handler, bytes(spoilt) if len(seen) < 3 else PACKED)

    net.behave(once)
    net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE
    assert net.sent <= len(PACKED) + 2 * LONGEST


@pytest.mark.parametrize("kind", list(PayloadKind))
def test_payload_that_is_always_wrong(net: Fetching, kind: PayloadKind) -> None:
    net.server.files[PATH] = bytes(len(PACKED))
    expected = UpdateRefusedError if kind is PayloadKind.FULL else DeltaUnusableError
    with pytest.raises(expected):
        net.obtain(payload=dataclasses.replace(FULL, kind=kind))
    assert not net.store.bundle.exists()
    assert list(net.store.download.iterdir()) == []
    assert net.sent <= LIMITS.batch_bytes + LIMITS.segment_tries * LONGEST


def test_index_whose_segments_do_not_make_the_bundle(net: Fetching) -> None:
    net.index = dataclasses.replace(INDEX, bundle_sha256=bytes(32))
    with pytest.raises(UpdateRefusedError, match="do not make up"):
        net.obtain()
    assert not net.store.bundle.exists()


def test_another_release_begins_anew(net: Fetching) -> None:
    net.behave(cuts(100_000))
    net.try_often(4)
    other = ReleaseSource(version="1.2.0", bundle=noise("other", 100_000))
    net.index, packed = other.payload(delta=False)
    net.behave(None)
    net.server.files[PATH] = packed
    net.obtain()
    assert net.store.bundle.read_bytes() == other.bundle


def test_stop_and_another_wish_end_it_between_two_pieces(net: Fetching) -> None:
    stop, changed = threading.Event(), threading.Event()
    changed.set()
    with pytest.raises(UpdateInterruptedError):
        net.obtain(cap=RateCap(0, waiter(stop, changed)))
    changed.clear()
    net.obtain(cap=RateCap(0, waiter(stop, changed)))
    begins = [int(item.removeprefix("bytes=").partition("-")[0]) for item in net.server.ranges]
    assert 0 == begins[0] < begins[1] <= 32 * 1024
    assert net.store.bundle.read_bytes() == BUNDLE


def test_cap_holds_a_download_back() -> None:
    now, slept = [100.0], []

    def wait(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    cap = RateCap(1000, wait, lambda: now[0])
    for _ in range(50):
        now[0] += 0.01  # what the network took
        cap.spend(100)
    assert 4.9 < now[0] - 100.0 < 5.1
    now[0] += 60.0  # nothing came for a minute: that is not made up for
    cap.spend(3000)
    assert slept[-1] == pytest.approx(2.0)


def test_full_disk(net: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdatasync", full)
    with pytest.raises(UpdateWaitsError) as caught:
        net.obtain()
    assert caught.value.reason is FirmwareReason.NO_SPACE
    monkeypatch.undo()
    net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE


# The process itself.


def command(net: Fetching, *words: str) -> list[str]:
    line = [sys.executable, "-IOO", "-m", "omamori_agent.firmware.apply", str(net.store.directory)]
    return [*line, *map(str, net.devices), *words]


def test_whole_way_with_the_process(net: Fetching) -> None:
    net.run = None  # type: ignore[assignment]
    net.restart()
    net.obtain()
    assert net.store.bundle.read_bytes() == BUNDLE
    assert net.fetcher.is_whole(SOURCE.sha256, len(BUNDLE), NEVER)
    assert not net.fetcher.is_whole("0" * 64, len(BUNDLE), NEVER)
    assert not net.fetcher.is_whole(SOURCE.sha256, len(BUNDLE) - 1, NEVER)


def test_largest_segment_stays_below_96_mib(net: Fetching) -> None:
    """32 MiB of references and 16 MiB that come out: the most that an index may ask for."""
    root, boot = noise("root", 24 * MIB), noise("boot", 8 * MIB)
    net.devices[0].parent.mkdir(parents=True)
    net.devices[0].write_bytes(root)
    net.devices[1].write_bytes(boot)
    piece = root[5 * MIB : 13 * MIB] + boot
    references = (
        Reference(source=ReferenceSource.ROOT, offset=0, length=24 * MIB),
        Reference(source=ReferenceSource.BOOT, offset=0, length=8 * MIB),
    )
    options = {
        int(zstd.CompressionParameter.compression_level): 1,
        int(zstd.CompressionParameter.window_log): 26,
        int(zstd.CompressionParameter.enable_long_distance_matching): 1,
    }
    prefix = zstd.ZstdDict(root + boot, is_raw=True).as_prefix
    packed = zstd.ZstdCompressor(options=options, zstd_dict=prefix).compress(piece, zstd.ZstdCompressor.FLUSH_FRAME)
    digest = hashlib.sha256(piece).digest()
    index = SegmentIndex(
        bundle_length=len(piece),
        bundle_sha256=digest,
        payload_length=len(packed),
        segments=(Segment(length=len(piece), sha256=digest, packed=len(packed), references=references),),
        base="1.0.0",
        base_roothash=bytes(32),
    )
    (net.store.download / INDEX_NAME).write_bytes(index.encode())
    (net.store.download / f"{PACKED_PREFIX}0").write_bytes(packed)
    code = f"import sys; from omamori_agent.firmware import apply; apply.main({command(net, 'unpack')[4:]!r}); "
    code += "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"
    lines = process.run([sys.executable, "-IOO", "-c", code], timeout_s=120).output.split("\n")
    answer_ = parse_answer(lines[0])
    assert answer_.is_whole, answer_.error
    assert net.store.bundle.read_bytes() == piece
    assert int(lines[1]) < 96 * 1024


def tree_index(data: bytes, hole: int, tree: bytes, packed: list[bytes], after: bytes) -> SegmentIndex:
    """Return the index of a bundle that is data, the tree over it and a hole, and something after it."""
    whole = data + tree + after
    parts = (TreePart(length=len(data), offset=0), TreePart(length=hole))
    segments = (
        Segment(length=len(data), sha256=hashlib.sha256(data).digest(), packed=len(packed[0])),
        Segment(
            length=len(tree), sha256=hashlib.sha256(tree).digest(), packed=0, tree_parts=parts, tree_salt=bytes(32)
        ),
        Segment(length=len(after), sha256=hashlib.sha256(after).digest(), packed=len(packed[1])),
    )
    return SegmentIndex(
        bundle_length=len(whole),
        bundle_sha256=hashlib.sha256(whole).digest(),
        payload_length=sum(len(frame) for frame in packed),
        segments=segments,
    )


@pytest.mark.parametrize("cut", [0, 1000, 300_000])
def test_hash_tree_is_computed_and_does_not_travel(net: Fetching, cut: int) -> None:
    data, after, hole = noise("data", 4096 * 150), noise("after", 5000), 8192
    tree = hash_tree([data, bytes(hole)], bytes(32)).data
    frames = [zstd.compress(data), zstd.compress(after)]
    net.index = tree_index(data, hole, tree, frames, after)
    net.server.files[PATH] = b"".join(frames)
    if cut:
        net.behave(lambda handler: answer_range(handler, b"".join(frames), cut_after=cut))
        net.try_often(2)
        net.behave(None)
    net.obtain()
    assert net.store.bundle.read_bytes() == data + tree + after
    assert net.sent == net.index.payload_length


def test_hash_tree_that_does_not_come_out(net: Fetching) -> None:
    data, after = noise("data", 4096 * 150), noise("after", 5000)
    tree = bytes(len(hash_tree([data, bytes(4096)], bytes(32)).data))
    frames = [zstd.compress(data), zstd.compress(after)]
    net.index = tree_index(data, 4096, tree, frames, after)
    net.server.files[PATH] = b"".join(frames)
    with pytest.raises(UpdateRefusedError, match="segment 1"):
        net.obtain()
    assert net.sent <= net.index.payload_length


def test_frame_that_becomes_too_long(net: Fetching) -> None:
    bomb = zstd.compress(bytes(64 * MIB))
    index = SegmentIndex(
        bundle_length=1000,
        bundle_sha256=bytes(32),
        payload_length=len(bomb),
        segments=(Segment(length=1000, sha256=bytes(32), packed=len(bomb)),),
    )
    (net.store.download / INDEX_NAME).write_bytes(index.encode())
    (net.store.download / f"{PACKED_PREFIX}0").write_bytes(bomb)
    answer_ = apply.unpack(net.store.directory, {})
    assert answer_.bad == 0
    assert net.store.bundle.stat().st_size == 0


@pytest.mark.parametrize("packed", [b"", b"not zstd at all", bytes(100)], ids=["nothing", "noise", "zeros"])
def test_frame_that_is_none(net: Fetching, packed: bytes) -> None:
    whole = PACKED[: INDEX.segments[0].packed]
    (net.store.download / INDEX_NAME).write_bytes(INDEX.encode())
    (net.store.download / f"{PACKED_PREFIX}0").write_bytes(packed + whole[len(packed) :])
    answer_ = apply.unpack(net.store.directory, {})
    assert (answer_.bad is None) == (packed == b"")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"have":1}', "null"])
def test_answer_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_answer(text)


def test_usage_and_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main([str(tmp_path), "r", "b", "erase"]) == 2
    assert apply.main([str(tmp_path), "r", "b", "unpack"]) == 0
    assert "No such file" in parse_answer(capsys.readouterr().out).error
    assert apply.main([str(tmp_path), "r", "b", "verify", "0" * 64, "5"]) == 0
    assert not parse_answer(capsys.readouterr().out).is_whole


def test_process_imports_little() -> None:
    code = "import sys, omamori_agent.firmware.apply; print(sorted({'tuf', 'urllib3', 'paho'} & set(sys.modules)))"
    assert process.run([sys.executable, "-IOO", "-c", code], timeout_s=60).output.strip() == "[]"
