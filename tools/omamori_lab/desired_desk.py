"""The operator's desk for boxes in the lab: signs how a box shall be, and sends it through the broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omamori_protocol.durable import write_atomic

from . import addresses
from .namespace import Namespace
from .products import program
from .run import run
from .settings import SERIAL, LabSettings

_TIMEOUT_S = 60.0


class DesiredDesk:
    """Signs and sends desired state.

    Args:
        settings: Of the lab.
        outside: Namespace from which the broker is reachable.
        resolver: Its resolv.conf.
        tls: TLS directory of the client that publishes.
    """

    def __init__(self, settings: LabSettings, outside: Namespace, resolver: Path, tls: Path) -> None:
        self._keys = settings.keys
        self._run = settings.run
        self._outside = outside
        self._resolver = resolver
        self._tls = tls

    def publish(self, **sections: Any) -> int:
        """Sign and send a document with these sections (see `omamori_ota.settings_file`); return its version."""
        file = self._run / "desired.json"
        write_atomic(file, json.dumps(sections).encode(), mode=0o600)
        try:
            return int(self._send("desired", "publish", "--file", file)["version"])
        finally:
            file.unlink()

    def bypass(self, minutes: int) -> str:
        """Sign and send the command to let everything pass, 0 minutes to end that; return the command's number."""
        return str(self._send("command", "bypass", "--minutes", str(minutes), "--asked-by", "lab")["command"])

    def order(self, *words: str) -> str:
        """Sign and send a command in the words of `omamori-ota command`; return its number."""
        return str(self._send("command", *words, "--asked-by", "lab")["command"])

    def _send(self, group: str, command: str, *options: str | Path) -> dict[str, Any]:
        broker = f"mqtts://{addresses.SERVICES.domains[0]}:{addresses.BROKER_PORT}"
        words: list[str | Path] = [program("omamori-ota"), group, command, self._keys, "--device", SERIAL, *options]
        words += ["--broker", broker, "--tls-dir", self._tls, "--json"]
        finished = run(self._outside.command(words, resolver=self._resolver), timeout_s=_TIMEOUT_S)
        return dict(json.loads(finished.output))
