"""How the C library hands out memory for the tensors of a step on a CPU."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt(3), and a size that nothing exceeds which it can be told.
_TRIM_THRESHOLD, _MMAP_MAX, _UNLIMITED = -1, -4, (1 << 31) - 1


def keep_freed_memory() -> None:
    """Have what a step frees kept for the next one, in this whole process; glibc only.

    By itself glibc gives large blocks back to the system. Steps that gather megabytes of keys then
    spend most of their time on page faults: 16 sequences of 512 tokens took eight times as long.
    Call it when weights are in place: what is freed before would be kept too.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _UNLIMITED)
