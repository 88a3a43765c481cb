"""What the Wi-Fi station runs, inside the box's virtual machine: fetch a URL, ask a name. Standard library only.

The lab sends this file's text to the guest, so it imports nothing of ours. One JSON line comes back.

    get HOST PORT PATH ADDRESS SECONDS    {"status": 200, "size": 12, "sha256": "…", "seconds": 0.1}
    resolve NAME SERVER SECONDS           {"addresses": ["192.0.2.1"]}, or null when no answer came
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import socket
import struct
import sys
import time
from typing import Any

_CHUNK_BYTES = 65536


def fetch(host: str, port: int, path: str, address: str, limit_s: float) -> dict[str, Any]:
    """Fetch a path of a host at an address; status 0 means that no answer came, or only a part of it."""
    begin = time.monotonic()
    digest, size, status = hashlib.sha256(), 0, 0
    connection = http.client.HTTPConnection(address, port, timeout=limit_s)
    try:
        connection.request("GET", path, headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        expected = int(answer.getheader("Content-Length", "0"))
        while chunk := answer.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            if time.monotonic() - begin > limit_s:
                break
        status = answer.status if size == expected else 0
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    seconds = time.monotonic() - begin
    return {"status": status, "size": size, "sha256": digest.hexdigest(), "seconds": seconds}


def resolve(name: str, server: str, limit_s: float) -> dict[str, list[str]] | None:
    """Ask a DNS server once for the IPv4 addresses of a name."""
    number = secrets.token_bytes(2)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = number + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(limit_s)
        try:
            asker.sendto(question, (server, 53))
            answer = asker.recv(4096)
        except OSError:
            return None
    count = struct.unpack_from(">H", answer, 6)[0]
    position, found = len(question), []
    for _ in range(count):
        position = skip_name(answer, position)
        kind, _class, _ttl, length = struct.unpack_from(">2HIH", answer, position)
        position += 10
        if kind == 1:
            found.append(socket.inet_ntoa(answer[position : position + 4]))
        position += length
    return {"addresses": found}


def skip_name(message: bytes, position: int) -> int:
    """Return the position after a name in a DNS message."""
    while message[position] not in (0, *range(0xC0, 0x100)):
        position += 1 + message[position]
    return position + (1 if message[position] == 0 else 2)


def main(words: list[str]) -> int:
    """Do one thing and print what came of it."""
    result: Any
    if words[0] == "get":
        result = fetch(words[1], int(words[2]), words[3], words[4], float(words[5]))
    else:
        result = resolve(words[1], words[2], float(words[3]))
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
