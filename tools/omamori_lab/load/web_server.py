"""The web server of a bench: nginx with three objects, over HTTP and HTTPS, in a lane's internet."""

from __future__ import annotations

from pathlib import Path

from omamori_lab.namespace import Namespace
from omamori_lab.run import Process, end, run, spawn
from omamori_lab.waiting import wait_for

OBJECTS = {"/1k": 1_000, "/100k": 100_000, "/10m": 10_000_000}


class WebServer:
    """nginx in a namespace, on ports 80 and 443 of every address.

    Args:
        namespace: Where it runs.
        directory: A directory of ours for its files.
        address: One of its addresses, asked until it answers.
    """

    def __init__(self, namespace: Namespace, directory: Path, address: str) -> None:
        self._namespace = namespace
        self._directory = directory / "web"
        self._address = address
        self._process: Process | None = None

    def start(self) -> None:
        """Make certificate and objects, start it, and wait until it serves."""
        root = self._directory / "root"
        root.mkdir(parents=True)
        for path, size in OBJECTS.items():
            (root / path[1:]).write_bytes(content(size))
        line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        line += ["-days", "2", "-subj", "/CN=bench.example", "-keyout", str(self._directory / "key.pem")]
        run([*line, "-out", str(self._directory / "certificate.pem")], timeout_s=30)
        configuration = self._directory / "nginx.conf"
        configuration.write_text(render(self._directory), encoding="utf-8")
        with (self._directory / "log").open("ab") as log:
            self._process = spawn(
                self._namespace.command(["nginx", "-c", configuration, "-p", self._directory]), log=log
            )
        wait_for(lambda: self._namespace.accepts(self._address, 443), "web server", timeout_s=10, every_s=0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)
            self._process = None


def content(size: int) -> bytes:
    """Return the same text of `size` bytes every time; it compresses badly and means nothing."""
    state, words = 1, bytearray()
    while len(words) < min(size, 100_000):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        words += f"{state:016x}\n".encode()
    return bytes((words * (size // len(words) + 1))[:size])


def render(directory: Path) -> str:
    """Return its configuration."""
    temporary = "\n".join(
        f"  {kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off;
master_process off;
worker_rlimit_nofile 8192;
pid {directory}/pid;
error_log {directory}/errors warn;
events {{ worker_connections 4096; multi_accept on; }}
http {{
{temporary}
  access_log off;
  sendfile on;
  tcp_nodelay on;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  server {{
    listen 80 backlog=4096;
    listen 443 ssl backlog=4096;
    ssl_certificate {directory}/certificate.pem;
    ssl_certificate_key {directory}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    root {directory}/root;
  }}
}}
"""
