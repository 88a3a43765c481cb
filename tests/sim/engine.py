"""The inspection engine's command socket, as Suricata 8.0.8 behaves, in a thread.

What was seen of the real one and is imitated: two commands in one read end the connection; a reload reads rules and
digest lists again but no datasets, and says "done" whatever comes of it; a new dataset needs a restart; removing what
is not there is an error, adding what is there is not.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DATASET = re.compile(r"dataset:\s*isset,\s*([a-z0-9-]+)")
_CANARY = re.compile(r'content:"([0-9a-f]{32})\.invalid"')
_DIGESTS = re.compile(r"filesha256:\s*([a-z0-9.-]+)")
BUILT_IN_RULES = 2


class SimulatedEngine:
    """An engine that loads ``<feed>/engine`` at its start. Faults are attributes; set them between calls."""

    def __init__(self, socket_path: Path, feed: Path) -> None:
        self.path = socket_path
        self.feed = feed
        self.generation = 0
        self.commands: list[str] = []
        self.datasets: dict[str, set[bytes]] = {}
        self.loaded = 0
        self.failed: list[str] = []
        self.reload_time = 0
        self.reload_s = 0.0
        self.answer: Callable[[str], bytes | None] = lambda _command: None  # overrides an answer
        self.before_reload: Callable[[], None] = lambda: None
        self.comes_back = True
        self.sees_packets = True
        self._canaries: list[str] = []
        self.on_start: Callable[[], None] = lambda: None
        self._started_s = 0.0
        self._server: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()

    def identify(self, _connection: socket.socket) -> int:
        """What SO_PEERCRED tells of the real one."""
        return self.generation

    def start(self) -> None:
        """Load everything, then listen."""
        self.generation += 1
        self.on_start()
        self._started_s = time.monotonic()
        self.datasets = self._read_datasets()
        self._load_rules()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._server = server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(self.path))
        server.listen()
        self._spawn(self._accept, server)

    def stop(self) -> None:
        """Die."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self.path.unlink(missing_ok=True)
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._connections.clear()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5)
        self._threads.clear()

    def restart(self) -> None:
        self.stop()
        self.start()

    def has(self, name: str, value: str) -> bool:
        return value.encode() in self.datasets[name]

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def see_question(self, packet: bytes) -> None:
        """A DNS question of the box crosses the queue: what the rule about the canary does with it."""
        for secret in self._canaries:
            if secret.encode() in packet and self.sees_packets:
                self.datasets.setdefault("omamori-canary", set()).add(f"{secret}.invalid".encode())

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _address = server.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        greeted = False
        with connection:
            while True:
                try:
                    data = connection.recv(4096)
                except OSError:
                    return
                if not data.endswith(b"\n") or data.count(b"\n") != 1:
                    return
                request = json.loads(data)
                if not greeted:
                    greeted = request == {"version": "0.2"}
                    answer = b'{"return":"OK"}\n' if greeted else b'{"return":"NOK"}\n'
                else:
                    answer = self._answer(request["command"], request.get("arguments", {}))
                try:
                    connection.sendall(answer)
                except OSError:
                    return
                if greeted and request.get("command") == "shutdown":
                    threading.Thread(target=self._shutdown, daemon=True).start()
                    return

    def _shutdown(self) -> None:
        self.stop()
        if self.comes_back:
            self.start()

    def _answer(self, command: str, arguments: dict[str, str]) -> bytes:
        self.commands.append(command)
        override = self.answer(command)
        if override is not None:
            return override
        ok, message = self._do(command, arguments)
        return json.dumps({"message": message, "return": "OK" if ok else "NOK"}).encode() + b"\n"

    def _do(self, command: str, arguments: dict[str, str]) -> tuple[bool, Any]:
        match command:
            case "version":
                return True, "8.0.8 RELEASE"
            case "uptime":
                return True, int(time.monotonic() - self._started_s)
            case "ruleset-stats":
                counts = {"rules_loaded": self.loaded, "rules_failed": len(self.failed), "rules_skipped": 0}
                return True, [{"id": 0, **counts}]
            case "ruleset-failed-rules":
                return True, [
                    {"tenant_id": 0, "rule": rule, "filename": "all.rules", "line": 1} for rule in self.failed
                ]
            case "ruleset-reload-time":
                return True, [{"id": 0, "last_reload": f"2026-11-22T04:12:18.{self.reload_time:06d}+0000"}]
            case "ruleset-reload-nonblocking":
                return self._reload()
            case "dataset-add" | "dataset-remove" | "dataset-lookup":
                return self._dataset(command, arguments)
            case "reopen-log-files" | "shutdown":
                return True, "done"
            case _:
                return False, "Unknown command"

    def _reload(self) -> tuple[bool, str]:
        def work() -> None:
            time.sleep(self.reload_s)
            self.before_reload()
            self._load_rules()
            self.reload_time += 1

        self._spawn(work)
        return True, "done"

    def _dataset(self, command: str, arguments: dict[str, str]) -> tuple[bool, str]:
        entries = self.datasets.get(arguments["setname"])
        if entries is None or arguments["settype"] != "string":
            return False, "set not found or wrong type"
        value = base64.b64decode(arguments["datavalue"], validate=True)
        known = value in entries
        match command:
            case "dataset-add":
                entries.add(value)
                return True, "data already in set" if known else "data added"
            case "dataset-remove":
                entries.discard(value)
                return known, "data removed" if known else "failed to remove data"
            case _:
                return known, "item found in set" if known else "item not found in set"

    def _read_datasets(self) -> dict[str, set[bytes]]:
        text = (self.feed / "engine/datasets.yaml").read_text()
        names = re.findall(r"^  ([a-z0-9-]+):$", text, flags=re.MULTILINE)
        found = {}
        for name in names:
            lines = (self.feed / f"engine/{name}.lst").read_bytes().splitlines()
            found[name] = {base64.b64decode(line, validate=True) for line in lines}
        return found

    def _load_rules(self) -> None:
        try:
            lines = (self.feed / "engine/all.rules").read_text().splitlines()
        except OSError:
            lines = []
        self._canaries = _CANARY.findall("\n".join(lines))
        rules = [line for line in lines if line.strip() and not line.startswith("#") and "omamori-canary" not in line]
        self.failed = [rule for rule in rules if not self._is_loadable(rule)]
        self.loaded = BUILT_IN_RULES + len(rules) - len(self.failed)

    def _is_loadable(self, rule: str) -> bool:
        digests = [self.feed / "engine" / name for name in _DIGESTS.findall(rule)]
        return (
            "broken" not in rule
            and all(name in self.datasets for name in _DATASET.findall(rule))
            and all(path.is_file() and path.stat().st_size for path in digests)
        )
