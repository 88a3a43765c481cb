"""Cases: a folder each, what a pack must say to some traffic and what it must not say.

    cases/<case>/case.toml

    format = 1
    title = "A listed name is stopped however it is asked for"
    capture = "traffic.pcap"            # recorded traffic beside it, or steps:
    [[steps]]
    protocol = "dns"                    # dns, http, tls, tcp, udp, download
    name = "malware.test"               # or: entry = "phishing" takes an entry of that list of the pack
    path = "/x"                         # http
    method = "GET"
    inward = false                      # true: a stranger asks a server of the office
    port = 8080
    data = "13426974"                   # tcp, udp: hexadecimal
    answer = "0300"                     # tcp: what comes back
    file = "eicar"                      # download: the harmless test file, or `ordinary`
    [expected]
    alerts = [{ sid = 1930000 }, { message = "phishing" }]
    blocked = true                      # whether what fired must also have been blocked (absent: either)
    silent = false                      # true: no alert at all

The judgement is on the whole case: every expectation is met by at least one alert, and with `silent` there is none.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from omamori_protocol.feed_manifest import FeedManifest, ListKind

from .engine import Engine
from .errors import SourceError
from .packets import Recording, client_hello, dns_query, http_answer, http_request
from .toml_fields import Fields, read_toml

FILE_NAME = "case.toml"
FORMAT = 1
MAX_CASES = 500
MAX_STEPS = 2000
MAX_CAPTURE_BYTES = 64 * 1024 * 1024
SERVER, OFFICE_SERVER, RESOLVER = "198.51.100.10", "192.168.10.20", "192.168.10.1"

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
_PATH = re.compile(r"/[!-~]{0,1023}")
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")
_HEX = re.compile(r"(?:[0-9a-f]{2}){1,1400}")
_MESSAGE = re.compile(r"[^\x00-\x1f]{1,100}")
_LIST = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# In two parts, so that this file does not set off anybody's virus scanner.
_EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS" + rb"-TEST-FILE!$H+H*"


class Protocol(StrEnum):
    """What a step does."""

    DNS = "dns"
    HTTP = "http"
    TLS = "tls"
    TCP = "tcp"
    UDP = "udp"
    DOWNLOAD = "download"


_DEFAULT_PORTS = {Protocol.DNS: 53, Protocol.HTTP: 80, Protocol.TLS: 443, Protocol.DOWNLOAD: 80}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One piece of traffic."""

    protocol: Protocol
    name: str
    entry: str
    path: str
    port: int
    data: bytes
    answer: bytes
    file: str
    method: str
    is_inward: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expectation:
    """An alert that must be among those raised; `sid` 0 and an empty `message` ask for nothing."""

    sid: int
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One folder."""

    name: str
    title: str
    capture: Path | None
    steps: tuple[Step, ...]
    expected: tuple[Expectation, ...]
    is_silent: bool
    is_blocked: bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a case went: what is wrong, or nothing."""

    case: str
    problems: tuple[str, ...]


def read_cases(directory: Path) -> tuple[Case, ...]:
    """Read all cases below a directory, by name.

    Raises:
        SourceError: One breaks a rule, or there are too many.
    """
    folders = sorted(path.parent for path in directory.glob(f"*/{FILE_NAME}"))
    if len(folders) > MAX_CASES:
        raise SourceError(f"{directory}: more than {MAX_CASES} cases")
    return tuple(_case(folder) for folder in folders)


def _case(folder: Path) -> Case:
    fields = Fields(read_toml(folder / FILE_NAME), f"case {folder.name}")
    fields.number("format", FORMAT, FORMAT)
    title = fields.sentence("title")
    capture = folder / fields.matching("capture", _FILE) if fields.has("capture") else None
    steps = tuple(_step(item, folder.name) for item in fields.tables("steps", MAX_STEPS))
    expected = Fields(fields.table("expected"), f"case {folder.name}: expected")
    fields.finish()
    case = Case(
        name=folder.name,
        title=title,
        capture=capture,
        steps=steps,
        expected=tuple(_expectation(item, folder.name) for item in expected.tables("alerts", 100)),
        is_silent=expected.truth("silent", default=False),
        is_blocked=expected.truth("blocked", default=True) if expected.has("blocked") else None,
    )
    expected.finish()
    if (capture is None) != bool(steps):
        raise SourceError(f"case {case.name}: needs a capture or steps, and not both")
    if case.is_silent == bool(case.expected):
        raise SourceError(f"case {case.name}: expects alerts or silence, and not both")
    if capture is not None and (not capture.is_file() or capture.stat().st_size > MAX_CAPTURE_BYTES):
        raise SourceError(f"case {case.name}: {capture.name} is not there or too large")
    return case


def _step(body: object, case: str) -> Step:
    fields = Fields(body, f"case {case}: step")
    protocol = fields.choice("protocol", Protocol)
    step = Step(
        protocol=protocol,
        name=fields.matching("name", _HOST, "office.example"),
        entry=fields.matching("entry", _LIST) if fields.has("entry") else "",
        path=fields.matching("path", _PATH, "/"),
        port=fields.number("port", 1, 65535, _DEFAULT_PORTS.get(protocol, 9999)),
        data=bytes.fromhex(fields.matching("data", _HEX)) if fields.has("data") else b"",
        answer=bytes.fromhex(fields.matching("answer", _HEX)) if fields.has("answer") else b"",
        method=fields.matching("method", re.compile("GET|POST|HEAD|PUT"), "GET"),
        is_inward=fields.truth("inward", default=False),
        file=fields.matching("file", re.compile("eicar|ordinary"), "ordinary"),
    )
    fields.finish()
    return step


def _expectation(body: object, case: str) -> Expectation:
    fields = Fields(body, f"case {case}: alert")
    found = Expectation(
        sid=fields.number("sid", 1, 2**31 - 1) if fields.has("sid") else 0,
        message=fields.matching("message", _MESSAGE) if fields.has("message") else "",
    )
    fields.finish()
    return found


def play_steps(
    recording: Recording, case: Case, client: str, manifest: FeedManifest, files: Mapping[str, bytes]
) -> None:
    """Add the traffic of a case to a recording; a step that asks for an entry of an empty list is left out."""
    for step in case.steps:
        name = first_entry(manifest, files, step.entry) if step.entry else step.name
        if name is not None:
            add_step(recording, step, client, name)


def add_step(recording: Recording, step: Step, client: str, name: str) -> None:
    """Add the traffic of a step to a recording."""
    # A stranger is one of documentation's addresses, numbered like the client, so that alerts are found by it.
    here, there = (client, SERVER) if not step.is_inward else (client.replace("10.77.", "203.0.", 1), OFFICE_SERVER)
    match step.protocol:
        case Protocol.DNS:
            recording.datagram(client, RESOLVER, step.port, dns_query(name))
        case Protocol.HTTP:
            request = http_request(name, step.path, method=step.method)
            recording.connection(here, there, step.port, request, http_answer())
        case Protocol.TLS:
            recording.connection(here, there, step.port, client_hello(name))
        case Protocol.TCP:
            recording.connection(here, there, step.port, step.data, step.answer)
        case Protocol.UDP:
            recording.datagram(here, there, step.port, step.data)
        case Protocol.DOWNLOAD:
            body = _EICAR if step.file == "eicar" else b"an ordinary file\n" * 200
            answer = http_answer(body, "application/octet-stream")
            recording.connection(here, there, step.port, http_request(name, step.path), answer)


def first_entry(manifest: FeedManifest, files: Mapping[str, bytes], name: str) -> str | None:
    """Return an entry of a list of domains, or None if it is empty or not there."""
    for item in manifest.lists:
        if item.name == name and item.kind is ListKind.DOMAIN and item.count:
            return files[item.path].partition(b"\n")[0].decode()
    return None


def judge(case: Case, alerts: list[dict[str, Any]]) -> Verdict:
    """Hold the alerts of a case against what is expected."""
    raised = [(event["alert"]["signature_id"], event["alert"]["signature"]) for event in alerts]
    problems: list[str] = []
    if case.is_silent and raised:
        problems.append(f"silence was expected, but {_words(raised)}")
    problems += [
        f"no alert {_wanted(wanted)}, but {_words(raised)}"
        for wanted in case.expected
        if not any((not wanted.sid or sid == wanted.sid) and wanted.message in message for sid, message in raised)
    ]
    if case.is_blocked is not None:
        word = "blocked" if case.is_blocked else "allowed"
        other = [event["alert"]["signature"] for event in alerts if event["alert"]["action"] != word]
        problems += [f"not {word}: {signature}" for signature in other[:5]]
    return Verdict(case=case.name, problems=tuple(problems))


def _wanted(wanted: Expectation) -> str:
    return " ".join([f"{wanted.sid}"] * bool(wanted.sid) + [f"{wanted.message!r}"] * bool(wanted.message))


def _words(raised: list[tuple[int, str]]) -> str:
    return ", ".join(f"{sid} {message}" for sid, message in raised[:5]) or "there was none"


def run_cases(
    cases: tuple[Case, ...], engine: Engine, manifest: FeedManifest, files: Mapping[str, bytes], directory: Path
) -> list[Verdict]:
    """Play all cases to the engine, which loads the pack twice: for steps, and for captures.

    Args:
        cases: To be played. Each with steps gets a client of its own, by whose address its alerts are found.
        engine: Loads the pack and reads the captures.
        manifest: Of the pack.
        files: Of the pack.
        directory: For captures; empty.

    Raises:
        EngineError: It refuses the pack or a capture, or could not be started.
    """
    alerts: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    recording = Recording()
    clients = {f"10.77.{number // 250}.{number % 250 + 1}": case for number, case in enumerate(cases) if case.steps}
    for client, case in clients.items():
        play_steps(recording, case, client, manifest, files)
    if clients:
        for event in engine.replay(manifest, files, recording.save(directory / "steps.pcap")):
            ends = {event[end].replace("203.0.", "10.77.", 1) for end in ("src_ip", "dest_ip")}
            for name in {clients[end].name for end in ends & clients.keys()}:
                alerts[name].append(event)
    captures = directory / "captures"
    captures.mkdir()
    for case in cases:
        if case.capture is not None:
            shutil.copyfile(case.capture, captures / f"{case.name}.pcap")
    if any(captures.iterdir()):
        for event in engine.replay(manifest, files, captures):
            alerts[Path(str(event["pcap_filename"])).stem].append(event)
    return [judge(case, alerts[case.name]) for case in cases if case.capture or _has_traffic(case, manifest, files)]


def _has_traffic(case: Case, manifest: FeedManifest, files: Mapping[str, bytes]) -> bool:
    return all(not step.entry or first_entry(manifest, files, step.entry) is not None for step in case.steps)
