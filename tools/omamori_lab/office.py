"""Clients in the office and on the internet: what a person or an attacker at one address can do, and what they saw.

Every action is a real program (curl, dig, ping) or a socket inside the client's namespace, bounded in time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import LabError
from .namespace import Namespace
from .run import Process, end, run, spawn

_WRITE_OUT = "%{http_code} %{size_download} %{exitcode} %{time_total}"
_SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
_ANSWER = re.compile(r"icmp_seq=(\d+) ttl=")


@dataclasses.dataclass(frozen=True)
class Download:
    """What a client got: `status` 0 means no answer at all; `exit_code` is curl's."""

    exit_code: int
    status: int
    size: int
    sha256: str
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether the whole answer arrived and it was a good one."""
        return self.exit_code == 0 and 200 <= self.status < 300

    def __str__(self) -> str:
        return f"status {self.status}, {self.size} bytes, curl {self.exit_code}, {self.seconds:.1f} s"


@dataclasses.dataclass(frozen=True)
class PingSummary:
    """How many echo requests went out and how many answers came."""

    sent: int
    received: int

    def __str__(self) -> str:
        return f"{self.received} of {self.sent} answered"


def parse_ping(output: str) -> PingSummary:
    """Read the summary that ping prints.

    Raises:
        LabError: There is none.
    """
    found = _SUMMARY.search(output)
    if found is None:
        raise LabError(f"ping printed no summary: {output.strip()[-200:]!r}")
    return PingSummary(int(found[1]), int(found[2]))


def parse_ping_loop(output: str) -> PingSummary:
    """Read what a ping printed, line by line, that was ended at some moment.

    Its last request does not count while it has no answer: nobody waited for that one.

    Raises:
        LabError: There is no summary.
    """
    summary = parse_ping(output)
    answered = {int(number) for number in _ANSWER.findall(output)}
    is_on_its_way = summary.sent > 0 and summary.sent not in answered
    return PingSummary(summary.sent - is_on_its_way, summary.received)


class Client:
    """Somebody at one address of a namespace.

    Args:
        namespace: Where it is.
        ipv4: Its address; also the source of what it sends.
        scratch: Directory for downloads, which are deleted at once.
        resolver: Its resolv.conf.
        ca: Certificate authority it trusts.
        binds: Whether the source address must be chosen (several addresses in one namespace).
    """

    def __init__(
        self, namespace: Namespace, ipv4: str, *, scratch: Path, resolver: Path, ca: Path, binds: bool = False
    ) -> None:
        self._namespace = namespace
        self.ipv4 = ipv4
        self._scratch = scratch
        self._resolver = resolver
        self._ca = ca
        self._binds = binds

    def get(
        self, url: str, *, timeout_s: float = 20.0, address: str | None = None, options: Sequence[str] = ()
    ) -> Download:
        """Fetch a URL with curl.

        Args:
            url: The URL.
            timeout_s: Limit of the whole transfer.
            address: Connect to this address instead of asking the DNS.
            options: More options of curl.
        """
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="download.") as target:
            words = ["curl", "--silent", "--output", target.name, "--write-out", _WRITE_OUT]
            words += ["--max-time", f"{timeout_s:g}", "--connect-timeout", f"{timeout_s:g}", "--cacert", str(self._ca)]
            words += ["--path-as-is", "--globoff", *self._curl_source(url)]
            if address is not None:
                words += ["--connect-to", f"::{f'[{address}]' if ':' in address else address}:"]
            command = self._namespace.command([*words, *options, url], resolver=self._resolver)
            finished = run(command, timeout_s=timeout_s + 10, check=False)
            fields = finished.output.split()
            if len(fields) != 4:
                raise LabError(f"curl did not run: {finished.errors.strip()[-200:] or finished.exit_code}")
            with Path(target.name).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Download(int(fields[2]), int(fields[0]), int(fields[1]), digest, float(fields[3]))

    def resolve(self, name: str, *, server: str, kind: str = "A", timeout_s: int = 2) -> list[str] | None:
        """Ask a DNS server once; None means that no answer came."""
        words = ["dig", f"@{server}", "+short", "+tries=1", f"+time={timeout_s}", name, kind]
        finished = run(self._namespace.command(words), timeout_s=timeout_s + 10, check=False)
        return finished.output.split() if finished.ok else None

    def ping(self, address: str, *, count: int, interval_s: float = 0.2, ttl: int | None = None) -> PingSummary:
        """Send echo requests and count the answers."""
        words = ["ping", "-n", "-q", "-c", str(count), "-i", f"{interval_s:g}", "-W", "2"]
        words += ["-t", str(ttl)] if ttl is not None else []
        finished = run(self._namespace.command([*words, address]), timeout_s=count * interval_s + 20, check=False)
        return parse_ping(finished.output)

    @contextlib.contextmanager
    def pinging(self, address: str, *, interval_s: float = 0.2) -> Iterator[PingLoop]:
        """Ping in the background as long as the context lasts."""
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="ping.") as output:
            words = ["ping", "-n", "-i", f"{interval_s:g}", "-W", "2", address]
            loop = PingLoop(spawn(self._namespace.command(words), log=output.file), Path(output.name))
            try:
                yield loop
            finally:
                loop.stop()

    def exchange_udp(self, address: str, port: int, data: bytes, *, timeout_s: float = 1.0) -> bytes | None:
        """Send a datagram and return what comes back; None if nothing does."""
        with self._namespace.bind_udp(self.ipv4 if ":" not in address else "::") as sender:
            sender.settimeout(timeout_s)
            try:
                sender.sendto(data, (address, port))
                return sender.recv(4096)
            except (TimeoutError, ConnectionError):
                return None

    def connect(self, address: str, port: int, *, timeout_s: float = 1.5) -> bool:
        """Whether a TCP connection comes about."""

        def attempt() -> bool:
            try:
                source = (self.ipv4 if ":" not in address else "::", 0)
                socket.create_connection((address, port), timeout=timeout_s, source_address=source).close()
            except OSError:
                return False
            return True

        return self._namespace.call(attempt)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the argument list that runs a program as this client."""
        return self._namespace.command(argv, resolver=self._resolver)

    def _curl_source(self, url: str) -> list[str]:
        return ["--interface", self.ipv4] if self._binds and "[" not in url else []


class PingLoop:
    """A ping that runs until it is stopped; `summary` is complete after `stop`."""

    def __init__(self, process: Process, output: Path) -> None:
        self._process: Process | None = process
        self._output = output
        self._text = ""
        self.started = time.monotonic()

    def stop(self) -> PingSummary:
        """End it and return its summary, without a request whose answer may still be on its way."""
        if self._process is not None:
            process, self._process = self._process, None
            time.sleep(0.1)  # one that has only just been started has to be ready for the signal, or says nothing
            end(process, sig=signal.SIGINT)
            self._text = self._output.read_text(errors="replace")
        return parse_ping_loop(self._text)
