"""One measurement each: bulk TCP, web objects, a flood of small packets, request-response, ping.

Everything runs between two namespaces of a lane, `office` and `internet`; the servers that a measurement needs are
started and ended by it, except the web server (`web_server`), which stays. Results are plain values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omamori_lab.bench_bulk import parse_iperf3
from omamori_lab.errors import LabError
from omamori_lab.namespace import Namespace
from omamori_lab.run import Process, end, run, spawn
from omamori_lab.waiting import wait_for

BULK_PORT = 5201
FLOOD_PORT = 7100
REQUEST_PORT = 7200
_LISTENING = "0A"  # state of a listening socket in /proc/net/tcp
_GRACE_S = 30
_PING = re.compile(r"time=([0-9.]+) ms")
_MAX_SAMPLES = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ends:
    """Who talks to whom.

    Attributes:
        office: Namespace of the clients.
        internet: Namespace of the servers.
        server: Address of the servers.
        first_client: First of the clients' addresses; the others follow it.
        clients: How many there are.
        programs: Directory of the load programs.
        directory: For logs.
    """

    office: Namespace
    internet: Namespace
    server: str
    first_client: str
    clients: int
    programs: Path
    directory: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delay:
    """Delays of many exchanges, in microseconds."""

    count: int
    p50_us: float
    p99_us: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebLoad:
    """What clients of the web got. Delays are of one request, the first of a connection with its set-up."""

    connections: int
    requests: int
    failures: int
    size_bytes: int
    seconds: float
    delay: Delay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flood:
    """What was sent as fast as it goes, and what of it arrived, in packets."""

    sent: int
    received: int
    seconds: float

    @property
    def rate(self) -> float:
        """Packets that arrived per second."""
        return self.received / self.seconds if self.seconds > 0 else 0.0


def bulk(ends: Ends, *, seconds: int, options: Sequence[str] = ()) -> tuple[float, int]:
    """Return bit/s and bytes of one run of iperf3.

    Args:
        ends: Between whom.
        seconds: How long.
        options: What iperf3 is told besides, for example ``--reverse`` for a download.

    Raises:
        LabError: It failed.
    """
    with _server(ends, ["iperf3", "--server", "--one-off"], BULK_PORT):
        line = ["iperf3", "--client", ends.server, "--json", "--time", str(seconds), *options]
        return parse_iperf3(run(ends.office.command(line), timeout_s=seconds + _GRACE_S).output)


def web(
    ends: Ends,
    *,
    scheme: str,
    path: str,
    at_once: int,
    requests: int,
    seconds: int,
    clients: int | None = None,
) -> WebLoad:
    """Return what clients got from the web server in a time.

    Args:
        ends: Between whom.
        scheme: http or https.
        path: Of the object.
        at_once: Connections at a time.
        requests: Requests per connection.
        seconds: How long.
        clients: From how many addresses; all of them if None.

    Raises:
        LabError: Nothing was served.
    """
    port = "443" if scheme == "https" else "80"
    line = ["web", ends.server, port, scheme, path, str(at_once), str(requests), str(seconds), ends.first_client]
    return parse_web(_output(ends, [*line, str(clients or ends.clients)], seconds))


def parse_web(output: str) -> WebLoad:
    """Read the report of the program `web`.

    Raises:
        LabError: It is none, or nothing was served.
    """
    body = _json(output, ("connections", "requests", "failures", "bytes", "seconds", "p50_us", "p99_us"))
    if body["requests"] < 1:
        raise LabError(f"nothing was served: {output.strip()[-200:]}")
    return WebLoad(
        connections=int(body["connections"]),
        requests=int(body["requests"]),
        failures=int(body["failures"]),
        size_bytes=int(body["bytes"]),
        seconds=float(body["seconds"]),
        delay=Delay(count=int(body["requests"]), p50_us=float(body["p50_us"]), p99_us=float(body["p99_us"])),
    )


def flood(ends: Ends, *, size: int, seconds: int) -> Flood:
    """Send UDP packets with `size` bytes of data as fast as it goes; return what arrived.

    Raises:
        LabError: A program failed, or nothing arrived.
    """
    log = ends.directory / "flood.json"
    log.unlink(missing_ok=True)
    line: list[str | Path] = [ends.programs / "flood", "receive", str(FLOOD_PORT), str(seconds + _GRACE_S)]
    with log.open("wb") as stream:
        receiver = spawn(ends.internet.command(line), log=stream)
    try:
        wait_for(lambda: ends.internet.call(lambda: is_open("udp", FLOOD_PORT)), "receiver", timeout_s=10, every_s=0.02)
        words = ["flood", "send", ends.server, str(FLOOD_PORT), str(size), str(seconds), ends.first_client]
        sent = _json(_output(ends, [*words, str(ends.clients)], seconds), ("sent",))
    finally:
        end(receiver)
    got = _json(log.read_text(), ("received", "seconds"))
    if got["received"] < 1:
        raise LabError("no packet of the flood arrived")
    return Flood(sent=int(sent["sent"]), received=int(got["received"]), seconds=float(got["seconds"]))


def requests(ends: Ends, *, seconds: int) -> Delay:
    """Send one byte over a TCP connection and wait for the answer, again and again; return the delays.

    Raises:
        LabError: It failed.
    """
    with _server(ends, [ends.programs / "flood", "serve", str(REQUEST_PORT)], REQUEST_PORT):
        words = ["flood", "ask", ends.server, str(REQUEST_PORT), str(seconds)]
        body = _json(_output(ends, words, seconds), ("count", "p50_us", "p99_us"))
    return Delay(count=int(body["count"]), p50_us=float(body["p50_us"]), p99_us=float(body["p99_us"]))


def ping(ends: Ends, *, seconds: int) -> Delay:
    """Ping every two milliseconds; return the delays.

    Raises:
        LabError: It failed, or an answer is missing.
    """
    line = ["ping", "-n", "-i", "0.002", "-c", str(500 * seconds), ends.server]
    return parse_ping(run(ends.office.command(line), timeout_s=seconds + _GRACE_S, check=False).output)


def parse_ping(output: str) -> Delay:
    """Read the delays that ping printed.

    Raises:
        LabError: There is none.
    """
    taken = sorted(float(found[1]) * 1000 for found in _PING.finditer(output))[:_MAX_SAMPLES]
    if not taken:
        raise LabError(f"ping got no answer: {output.strip()[-200:]}")
    return Delay(count=len(taken), p50_us=round(_quantile(taken, 0.5), 1), p99_us=round(_quantile(taken, 0.99), 1))


def _quantile(taken: Sequence[float], part: float) -> float:
    return taken[min(int(len(taken) * part), len(taken) - 1)]


@contextlib.contextmanager
def _server(ends: Ends, argv: Sequence[str | Path], port: int) -> Iterator[Process]:
    with (ends.directory / "server.log").open("ab") as stream:
        process = spawn(ends.internet.command(argv), log=stream)
    try:
        wait_for(
            lambda: ends.internet.call(lambda: is_open("tcp", port)),
            f"a server on port {port}",
            timeout_s=10,
            every_s=0.02,
        )
        yield process
    finally:
        end(process)


def _output(ends: Ends, words: Sequence[str], seconds: int) -> str:
    line: list[str | Path] = [ends.programs / words[0], *words[1:]]
    return run(ends.office.command(line), timeout_s=seconds + _GRACE_S).output


def is_open(kind: str, port: int) -> bool:
    """Whether a port is bound (udp) or listened on (tcp) in the namespace of the calling thread."""
    for table in (kind, f"{kind}6"):
        for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and (kind == "udp" or fields[3] == _LISTENING):
                return True
    return False


def _json(text: str, names: Sequence[str]) -> dict[str, Any]:
    try:
        body = json.loads(text)
        return {name: float(body[name]) for name in names}
    except (ValueError, KeyError, TypeError) as err:
        raise LabError(f"a load program gave no result: {text.strip()[-200:]}") from err
