"""What the machine's processor calls itself, and what it can do."""

from __future__ import annotations

import platform
from pathlib import Path

INFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Such as "AMD EPYC 9575F"; where nothing tells, the architecture: "x86_64", "aarch64"."""
    return _told("model name") or platform.processor() or platform.machine()


def instructions() -> frozenset[str]:
    """Extensions as Linux names them, such as "avx2"; empty where nothing tells."""
    return frozenset(_told("flags").split())


def is_x86() -> bool:
    """Whether it is a 64-bit one of Intel's or AMD's."""
    return platform.machine() in ("x86_64", "AMD64")


def _told(key: str) -> str:
    """What the first line of a key says."""
    text = INFO.read_text().partition(f"\n{key}")[2] if INFO.exists() else ""
    return text.partition("\n")[0].strip("\t :")
