"""What steps free is kept for the next ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from engine.model.allocator import keep_freed_memory

PROGRAM = """
    import resource, torch
    from engine.model.allocator import keep_freed_memory
    {first}
    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(8 << 20)  # 32 MiB
    before = faults()
    for _ in range(40):
        torch.ones(8 << 20)
    print(faults() - before)
"""


def page_faults(first: str) -> int:
    """Of forty tensors one after the other, in a process of its own; the first find no room yet."""
    program = textwrap.dedent(PROGRAM.format(first=first))
    run = [sys.executable, "-c", program]
    return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a C library that is told otherwise")
def test_memory_that_was_freed_is_there_for_the_next_tensor() -> None:
    assert 3 * page_faults("keep_freed_memory()") < page_faults("pass")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delattr("ctypes.CDLL")
    keep_freed_memory()
