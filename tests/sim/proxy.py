"""An office's HTTP proxy on the loopback."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """An HTTP proxy: CONNECT only, and only to the ports it is told.

    `answer` replaces what it says, `leads_to` the port to which it leads.
    """

    def __init__(self, allowed: set[int], answer: bytes | None = None, *, leads_to: int | None = None) -> None:
        self._allowed = allowed
        self._answer = answer
        self._leads_to = leads_to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.requests.append(head)
            port = int(head.split()[1].rpartition(b":")[2])
            if self._answer is not None:
                client.sendall(self._answer)
                return
            if port not in self._allowed:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self._leads_to or port))
            self._open.append(server)
            # In one piece with the first bytes of nothing, and with headers: PySocks loses its way here.
            client.sendall(b"HTTP/1.0 200 Connection established\r\nVia: 1.0 office\r\nX-Empty:\r\n\r\n")
            threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
            self._copy(server, client)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who waits in accept
        for sock in (self._listener, *self._open):
            sock.close()
