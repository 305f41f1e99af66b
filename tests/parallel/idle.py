"""A worker that joins nobody: it lives until its leader is gone; no torch, to start at once."""

from __future__ import annotations

import socket
import sys


def main() -> None:
    """Wait for the end of the connection."""
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        while connection.recv(1):
            pass


if __name__ == "__main__":
    main()
