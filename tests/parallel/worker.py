"""A worker that follows one leader through several models: starting one takes seconds.

What a model's folder is called comes before it, as the numbers of a message.
"""

from __future__ import annotations

from dataclasses import replace
from socket import socket
from unittest import mock

import torch

from engine.config import EngineConfig
from engine.parallel import worker
from engine.parallel.wire import receive


def work(config: EngineConfig, rank: int, device: torch.device, connection: socket) -> None:
    """As the worker's own, again and again."""
    torch.set_num_threads(1)
    while (message := receive(connection)) is not None:
        folder = bytes(message[1].tolist()).decode()
        one_model(replace(config, model=folder), rank, device, connection)


one_model = worker.work

if __name__ == "__main__":
    with mock.patch.object(worker, "work", work):
        worker.main()
