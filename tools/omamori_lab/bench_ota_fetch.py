"""What a box's own code does with an update, natively on this machine.

It fetches it over HTTPS, over a line that is cut again and again, and unpacks it in its own process, whose memory is
measured.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

from omamori_agent import run as process
from omamori_agent.firmware.errors import UpdateWaitsError
from omamori_agent.firmware.fetch import BundleFetcher
from omamori_agent.firmware.limits import FirmwareLimits
from omamori_agent.firmware.release import PayloadTarget
from omamori_agent.firmware.store import FirmwareStore
from omamori_agent.firmware.stream import HTTPSStream, RateCap, make_fetcher
from omamori_ota.firmware.release_directory import ReleaseDirectory

from .bench_ota_server import CuttingServer
from .errors import LabError
from .peak_memory import Spent, command, read_spent

_APPLY_TIMEOUT_S = 1800.0


@dataclasses.dataclass(frozen=True)
class Taken:
    """How a box came to a bundle.

    Attributes:
        payload_bytes: Length of the payload.
        sent_bytes: What the server sent of it.
        cuts: How often the line was cut.
        spent: What each process that unpacked took.
        checked: What the processes took that looked at the result.
    """

    payload_bytes: int
    sent_bytes: int
    cuts: int
    spent: tuple[Spent, ...]
    checked: tuple[Spent, ...]


def take(
    new: Path, base: Path, scratch: Path, *, tls: Path, ca: Path, is_delta: bool, cut_after: int | None = None
) -> Taken:
    """Fetch and unpack a release.

    Args:
        new: Directory of the release.
        base: Directory of the release that runs.
        scratch: Directory to fill.
        tls: The server's certificate and key.
        ca: Who signed it.
        is_delta: Take the difference; otherwise the whole firmware.
        cut_after: Bytes after which every connection ends.

    Raises:
        LabError: It did not become the bundle.
    """
    directory = ReleaseDirectory(new)
    release = directory.release
    payload = release.delta_from(ReleaseDirectory(base).release.version) if is_delta else release.full
    if payload is None:
        raise LabError(f"{new} has no difference from {base}")
    index = directory.index(payload)
    limits = FirmwareLimits(reserve_bytes=0)
    store = FirmwareStore(scratch / "firmware", reserve_bytes=0)
    store.directory.mkdir(parents=True)
    store.load()
    devices = (base / "base" / "root.erofs", base / "base" / "boot.vfat")
    notes = {name: scratch / f"{name}.jsonl" for name in ("unpack", "scan", "verify")}

    def run(line: Sequence[str], stop: threading.Event) -> process.CommandResult:
        what = next(word for word in line if word in notes)
        return process.run(command(notes[what], line), timeout_s=_APPLY_TIMEOUT_S, stop=stop)

    fetcher = BundleFetcher(store, devices, limits, run=run)
    server = CuttingServer(directory.payload_file(payload), tls, cut_after)
    never = threading.Event()
    with server.running():
        stream = HTTPSStream(make_fetcher(ca, store.download, limits), limits)
        target = PayloadTarget(server.url, index, index.encode(), index.payload_length)
        for _ in range(2 + (index.payload_length // cut_after if cut_after else 0)):
            try:
                fetcher.obtain(target, payload, stream, RateCap(0, lambda _seconds: None), never)
                break
            except UpdateWaitsError:
                continue  # cut; a box waits before it tries again, which takes nothing
        else:
            raise LabError("the payload was not fetched to the end")
    if not fetcher.is_whole(release.bundle.sha256, release.bundle.length, never):
        raise LabError("what was fetched is not the bundle")
    spent = [tuple(read_spent(notes[name])) for name in ("unpack", "scan", "verify")]
    return Taken(index.payload_length, server.sent, server.cuts, spent[0], spent[1] + spent[2])
