"""A name server for tests: whatever name is asked for has the addresses it was told."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Self

_ADDRESS, _INTERNET = 1, 1
_ANSWER, _NAME_ABOVE = 0x8180, 0xC00C
_HEADER_BYTES, _TTL_SECONDS = 12, 1


class NameServer:
    """Answers on the loopback address with `addresses` (RFC 1035, section 4)."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return "{}:{}".format(*self._socket.getsockname())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread up, which ends.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        (identity,) = struct.unpack_from("!H", query)
        end = query.index(b"\0", _HEADER_BYTES) + 5
        question = query[_HEADER_BYTES:end]
        (kind,) = struct.unpack_from("!H", question, len(question) - 4)
        found = self.addresses if kind == _ADDRESS else []
        records = [
            struct.pack("!HHHIH", _NAME_ABOVE, _ADDRESS, _INTERNET, _TTL_SECONDS, 4)
            + socket.inet_aton(address)
            for address in found
        ]
        header = struct.pack("!6H", identity, _ANSWER, 1, len(records), 0, 0)
        return header + question + b"".join(records)
