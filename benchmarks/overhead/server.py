"""`bita serve` on one core, with the stubbed engine on another.

python -m benchmarks.overhead.server PORT CORE
"""

from __future__ import annotations

import os
import sys

import engine.connection
from server.cli import main

if __name__ == "__main__":
    port, core = sys.argv[1:]
    engine.connection.ENGINE_MODULE = "benchmarks.overhead.engine"
    os.sched_setaffinity(0, {int(core)})
    sys.exit(main(["serve", "--served-model-name", "m", "--port", port]))
