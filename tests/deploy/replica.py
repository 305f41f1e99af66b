"""A server that answers as a test wants, to stand behind nginx."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.served import free_port

CHUNKS = (b"data: first\n\n", b"data: last\n\n")


class Replica(ThreadingHTTPServer):
    """Counts what it is asked in `asked`.

    /stream: two chunks, the last once `release` is set. /cut: the first, then the connection ends.
    Anything else: `status` with Retry-After where it is no 200, and the request's headers in ours.
    """

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", port: int | None = None) -> None:
        super().__init__((host, free_port() if port is None else port), _Handler)
        self.release = threading.Event()
        self.asked: list[str] = []
        self.status = 200

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return "{}:{}".format(*self.server_address[:2])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replica

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(self.path)
        if self.path in ("/stream", "/cut"):
            self._stream()
        else:
            self.send_response(self.server.status)
            self.send_header("content-length", "0")
            if self.server.status != 200:
                self.send_header("retry-after", "7")
            for name, value in self.headers.items():
                self.send_header(f"asked-{name}", value)
            self.end_headers()

    def do_GET(self) -> None:
        self.do_POST()

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._chunk(CHUNKS[0])
        if self.path == "/cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        assert self.server.release.wait(60)
        self._chunk(CHUNKS[1])
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving(*replicas: Replica) -> Iterator[None]:
    """Have them answer, and end with the block."""
    for replica in replicas:
        threading.Thread(target=replica.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield
    finally:
        for replica in replicas:
            stop(replica)


def stop(replica: Replica) -> None:
    """End it, as one that was killed: nobody listens any more."""
    replica.release.set()
    replica.shutdown()
    replica.server_close()
