"""Asks the real engine about a feed: does it load, and what does it say to recorded traffic.

The engine runs as an ordinary program on files, without network and without root: either one on this machine, or one
inside an unpacked Debian root, started through that root's own loader. The configuration made here is a small one
with the box's variables; the box tests every feed again with its own.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omamori_protocol.feed_manifest import FeedManifest, ListKind

from .errors import EngineError
from .run import run

_TIMEOUT_S = 300.0
_MAX_REASONS = 20
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
  - eve-log: {enabled: yes, filetype: regular, filename: eve.json, types: [{alert: {metadata: yes}}]}
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
        """Let the engine inspect a capture as if it stood in the wire; return its alerts.

        Raises:
            EngineError: It refused the feed or the capture, or could not be started.
        """
        with self._workspace(manifest, files) as (directory, command):
            arguments = ["-r", str(capture.absolute()), "--simulate-ips", "-k", "none", "--runmode", "single"]
            status, output = run([*command, *arguments], timeout_s=_TIMEOUT_S, directory=directory)
            _expect_success(status, output)
            return [json.loads(line) for line in (directory / "eve.json").read_text().splitlines()]

    @contextmanager
    def _workspace(self, manifest: FeedManifest, files: Mapping[str, bytes]) -> Iterator[tuple[Path, list[str]]]:
        with tempfile.TemporaryDirectory(prefix="omamori-engine-") as name:
            directory = Path(name)
            _write_engine_files(directory, manifest, files)
            configuration = directory / "engine.yaml"
            configuration.write_text(_CONFIGURATION.replace("DIRECTORY", name))
            yield directory, [*self.command, "-c", str(configuration), "-l", name]


def _expect_success(status: int, output: str) -> None:
    lines = [line.strip() for line in output.splitlines()]
    complaints = [line for line in lines if line.startswith(("E:", "Error:", "Warning: detect", "W: detect"))]
    if status != 0 or complaints:
        reasons = tuple(line[:300] for line in (complaints or lines)[:_MAX_REASONS])
        raise EngineError(f"the engine refuses this feed (status {status})", reasons=reasons)


def _write_engine_files(directory: Path, manifest: FeedManifest, files: Mapping[str, bytes]) -> None:
    datasets = []
    for item in manifest.lists:
        entries = files[item.path].decode().split()
        if item.kind is ListKind.DOMAIN:
            lines = [base64.b64encode(entry.encode()).decode() + "\n" for entry in entries]
            (directory / f"{item.name}.lst").write_text("".join(lines))
            datasets.append(f"  {item.name}: {{type: string, load: {item.name}.lst}}\n")
        elif item.kind is ListKind.SHA256:
            (directory / f"{item.name}.sha256").write_bytes(files[item.path])
    declared = "datasets:\n" + "".join(datasets) if datasets else "datasets: {}\n"
    (directory / "datasets.yaml").write_text(f"%YAML 1.1\n---\n{declared}")
    (directory / "all.rules").write_bytes(b"".join(files[item.path] for item in manifest.rules))
    for name in ("classification.config", "reference.config", "threshold.config"):
        (directory / name).touch()
