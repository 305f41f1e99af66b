"""What the machine's processor calls itself."""

from __future__ import annotations

import platform
from pathlib import Path

INFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Such as "AMD EPYC 9575F"; where nothing tells, the architecture: "x86_64", "aarch64"."""
    names = INFO.read_text().partition("model name")[2] if INFO.exists() else ""
    return names.partition("\n")[0].strip("\t :") or platform.processor() or platform.machine()


def is_x86() -> bool:
    """Whether it is a 64-bit one of Intel's or AMD's."""
    return platform.machine() in ("x86_64", "AMD64")
