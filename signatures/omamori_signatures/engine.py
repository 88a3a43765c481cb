"""Asks the real engine about a feed: does it load, and what does it say to recorded traffic.

The engine runs as an ordinary program on files, without network and without root: either one on this machine, or one
inside an unpacked Debian root, started through that root's own loader. The configuration made here is a small one
with the box's variables; the box tests every feed again with its own.
"""

from __future__ import annotations

import binascii
import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omamori_protocol.feed_manifest import FeedManifest, ListKind

from .errors import EngineError
from .prefilters import Prefilter, parse_prefilter
from .run import run

_TIMEOUT_S = 300.0
_MAX_REASONS = 20
_MAX_COMPLAINTS = 16 * 1024 * 1024
# One rule in the engine's analysis: about five times its text.
_MAX_ANALYSIS_LINE = 1024 * 1024
# What a dataset may take for an entry; the engine's default would end at some hundred thousand.
_ENTRY_BYTES = 512
_BAD_RULE = re.compile(r"detect: error parsing signature .* from file .* at line (\d+)$")
_LOADER = "lib64/ld-linux-x86-64.so.2"
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")

_CONFIGURATION = """\
%YAML 1.1
---
include: [datasets.yaml]
vars:
  address-groups:
    HOME_NET: "[10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,fe80::/10]"
    EXTERNAL_NET: "!$HOME_NET"
    HTTP_SERVERS: "$HOME_NET"
    SMTP_SERVERS: "$HOME_NET"
    SQL_SERVERS: "$HOME_NET"
    DNS_SERVERS: "$HOME_NET"
    TELNET_SERVERS: "$HOME_NET"
    AIM_SERVERS: "$EXTERNAL_NET"
    DC_SERVERS: "$HOME_NET"
    DNP3_SERVER: "$HOME_NET"
    DNP3_CLIENT: "$HOME_NET"
    MODBUS_SERVER: "$HOME_NET"
    MODBUS_CLIENT: "$HOME_NET"
    ENIP_SERVER: "$HOME_NET"
    ENIP_CLIENT: "$HOME_NET"
  port-groups:
    HTTP_PORTS: "80"
    SHELLCODE_PORTS: "!80"
    ORACLE_PORTS: 1521
    SSH_PORTS: 22
    DNP3_PORTS: 20000
    MODBUS_PORTS: 502
    FILE_DATA_PORTS: "[$HTTP_PORTS,110,143]"
    FTP_PORTS: 21
    GENEVE_PORTS: 6081
    VXLAN_PORTS: 4789
    TEREDO_PORTS: 3544
    SIP_PORTS: "[5060, 5061]"
default-rule-path: DIRECTORY/
default-data-dir: DIRECTORY/
default-log-dir: DIRECTORY/
rule-files: [all.rules]
classification-file: DIRECTORY/classification.config
reference-config-file: DIRECTORY/reference.config
threshold-file: DIRECTORY/threshold.config
exception-policy: ignore
stats: {enabled: no}
outputs:
  - eve-log: {enabled: yes, filetype: regular, filename: eve.json, pcap-file: yes, types: [{alert: {metadata: yes}}]}
stream: {checksum-validation: no, inline: auto, reassembly: {depth: 20 MiB}}
app-layer:
  protocols:
    http:
      enabled: yes
      libhtp: {default-config: {personality: IDS, request-body-limit: 20 MiB, response-body-limit: 20 MiB}}
    http2: {enabled: yes}
    tls: {enabled: yes, detection-ports: {dp: 443}}
    quic: {enabled: yes}
    dns: {tcp: {enabled: yes, detection-ports: {dp: 53}}, udp: {enabled: yes, detection-ports: {dp: 53}}}
    smtp: {enabled: yes, mime: {decode-mime: yes, decode-base64: yes, decode-quoted-printable: yes}}
    ftp: {enabled: yes}
    smb: {enabled: yes, detection-ports: {dp: "139, 445"}}
engine-analysis: {rules: yes, rules-fast-pattern: no}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How to start the engine."""

    command: tuple[str, ...]

    @staticmethod
    def on_this_machine(program: Path) -> Engine:
        """Return the engine installed as `program`."""
        return Engine(command=(str(program),))

    @staticmethod
    def in_root(root: Path) -> Engine:
        """Return the engine inside an unpacked Debian root (amd64).

        Raises:
            EngineError: There is none.
        """
        root = root.absolute()
        program = root / "usr/bin/suricata"
        if not program.is_file():
            raise EngineError(f"{root} holds no engine", hint="give the directory that has usr/bin/suricata in it")
        libraries = ":".join(str(root / folder) for folder in _LIBRARIES)
        return Engine(command=(str(root / _LOADER), "--library-path", libraries, str(program)))

    def test(self, manifest: FeedManifest, files: Mapping[str, bytes]) -> None:
        """Let the engine load the feed.

        Raises:
            EngineError: It refused, with its reasons, or could not be started.
        """
        with self._workspace(manifest, files) as (directory, command):
            status, output = run([*command, "-T"], timeout_s=_TIMEOUT_S, directory=directory)
        _expect_success(status, output)

    def replay(self, manifest: FeedManifest, files: Mapping[str, bytes], capture: Path) -> list[dict[str, Any]]:
        """Let the engine inspect a capture, or all of a directory, as if it stood in the wire; return its alerts.

        Raises:
            EngineError: It refused the feed or the capture, or could not be started.
        """
        with self._workspace(manifest, files) as (directory, command):
            arguments = ["-r", str(capture.absolute()), "--simulate-ips", "-k", "none", "--runmode", "single"]
            status, output = run([*command, *arguments], timeout_s=_TIMEOUT_S, directory=directory)
            _expect_success(status, output)
            return [json.loads(line) for line in (directory / "eve.json").read_text().splitlines()]

    def complaints(self, rules: Sequence[str]) -> dict[int, str]:
        """Let the engine read rules by themselves; return the places of those it refuses, with its words.

        Raises:
            EngineError: It could not be started, or failed without naming a rule.
        """
        with tempfile.TemporaryDirectory(prefix="omamori-engine-") as name:
            directory = Path(name)
            _write_configuration(directory, [], "".join(f"{rule}\n" for rule in rules).encode())
            command = [*self.command, "-c", str(directory / "engine.yaml"), "-l", name, "-T"]
            status, output = run(command, timeout_s=_TIMEOUT_S, directory=directory, max_output=_MAX_COMPLAINTS)
        found: dict[int, str] = {}
        reason = ""
        for line in map(str.strip, output.splitlines()):
            if match := _BAD_RULE.search(line):
                found[int(match[1]) - 1] = reason or "no reason given"
                reason = ""
            elif line.startswith(("E:", "Error:")):
                reason = line.partition(":")[2].strip()[:200]
        if status != 0 and not found:
            _expect_success(status, output)
        return {place: reason for place, reason in found.items() if place < len(rules)}

    def prefilters(self, rules: Sequence[str]) -> tuple[Prefilter, ...]:
        """Return what the engine looks for before it reads each of these rules; those that it refuses are left out.

        Raises:
            EngineError: It could not be started, or its answer cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="omamori-engine-") as name:
            directory = Path(name)
            _write_configuration(directory, [], "".join(f"{rule}\n" for rule in rules).encode())
            return self._analysed(directory)

    def pack_prefilters(self, manifest: FeedManifest, files: Mapping[str, bytes]) -> tuple[Prefilter, ...]:
        """Return the same for the rules of a pack.

        Raises:
            EngineError: It could not be started, or its answer cannot be read.
        """
        with self._workspace(manifest, files) as (directory, _command):
            return self._analysed(directory)

    def _analysed(self, directory: Path) -> tuple[Prefilter, ...]:
        command = [*self.command, "-c", str(directory / "engine.yaml"), "-l", str(directory), "--engine-analysis"]
        status, output = run(command, timeout_s=_TIMEOUT_S, directory=directory)
        path = directory / "rules.json"
        if status != 0 or not path.is_file():
            raise EngineError(f"the engine did not analyse its rules (status {status})", reasons=(output[-300:],))
        found = []
        with path.open("rb") as stream:
            while line := stream.readline(_MAX_ANALYSIS_LINE + 1):
                if len(line) > _MAX_ANALYSIS_LINE:
                    raise EngineError(f"a rule's analysis has more than {_MAX_ANALYSIS_LINE} bytes")
                found.append(parse_prefilter(_json(line)))
        return tuple(found)

    @contextmanager
    def _workspace(self, manifest: FeedManifest, files: Mapping[str, bytes]) -> Iterator[tuple[Path, list[str]]]:
        with tempfile.TemporaryDirectory(prefix="omamori-engine-") as name:
            directory = Path(name)
            _write_engine_files(directory, manifest, files)
            yield directory, [*self.command, "-c", str(directory / "engine.yaml"), "-l", name]


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as err:
        raise EngineError("the engine's analysis of its rules is not JSON") from err


def _expect_success(status: int, output: str) -> None:
    lines = [line.strip() for line in output.splitlines()]
    complaints = [line for line in lines if line.startswith(("E:", "Error:", "Warning: detect", "W: detect"))]
    if status != 0 or complaints:
        reasons = tuple(line[:300] for line in (complaints or lines)[:_MAX_REASONS])
        raise EngineError(f"the engine refuses this feed (status {status})", reasons=reasons)


def _write_engine_files(directory: Path, manifest: FeedManifest, files: Mapping[str, bytes]) -> None:
    datasets = []
    for item in manifest.lists:
        if item.kind in {ListKind.DOMAIN, ListKind.TEXT}:
            with (directory / f"{item.name}.lst").open("wb") as target:
                target.writelines(map(binascii.b2a_base64, files[item.path].split()))
            datasets.append(_declaration(item.name, item.count))
        elif item.kind is ListKind.SHA256:
            (directory / f"{item.name}.sha256").write_bytes(files[item.path])
    _write_configuration(directory, datasets, b"".join(files[item.path] for item in manifest.rules))


def _declaration(name: str, count: int) -> str:
    buckets = min(max(1 << max(count - 1, 1).bit_length(), 1024), 65536)
    memory_mib = max(64, count * _ENTRY_BYTES // 2**20 + 1)
    return f"  {name}: {{type: string, load: {name}.lst, memcap: {memory_mib} MiB, hashsize: {buckets}}}\n"


def _write_configuration(directory: Path, datasets: list[str], rules: bytes) -> None:
    (directory / "engine.yaml").write_text(_CONFIGURATION.replace("DIRECTORY", str(directory)))
    declared = "datasets:\n" + "".join(datasets) if datasets else "datasets: {}\n"
    (directory / "datasets.yaml").write_text(f"%YAML 1.1\n---\n{declared}")
    (directory / "all.rules").write_bytes(rules)
    # The box's engine knows the classes that the policy names; here every class that a rule names is known.
    classes = sorted(set(re.findall(rb"classtype:([A-Za-z0-9_-]+);", rules)))
    lines = [f"config classification: {name.decode()},{name.decode()},2\n" for name in classes]
    (directory / "classification.config").write_text("".join(lines))
    for name in ("reference.config", "threshold.config"):
        (directory / name).touch()
