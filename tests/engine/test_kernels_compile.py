"""The kernels compile for a GPU that is not here: the interpreter accepts more than Triton."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from engine.kernels.commit import _copy_slots
from engine.kernels.tree_attention import TILE_FIELDS, attend_parts, join_parts

FLOATS = {"acc_ptr", "total_ptr", "top_ptr", "sinks_ptr"}
MODEL = {"query_ptr", "key_ptr", "value_ptr", "out_ptr"}

def compiled(kernel, **constants):
    def kind(name):
        if name in constants:
            return "constexpr"
        if name in FLOATS:
            return "*fp32"
        if name in MODEL:
            return "*bf16"
        if name.endswith("_ptr"):
            return "*i64"
        return "fp32" if name == "scaling" else "i32"

    signature = {name: kind(name) for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_stages": 2})

sizes = dict(KEY_DIM=96, VALUE_DIM=96, KEY_PAD=128, VALUE_PAD=128, BLOCK_SIZE=16, COLUMNS=32)
for rows, window, chunk, softcap in ((16, 0, 0, 0.0), (64, 1000, 512, 30.0)):
    compiled(
        attend_parts, **sizes, SOFTCAP=softcap, SHARE=4, ROWS=rows, WINDOW=window, CHUNK=chunk,
        TILE_WIDTH=TILE_FIELDS,
    )
for sinks in (False, True):
    compiled(join_parts, VALUE_DIM=96, VALUE_PAD=128, OUTPUTS=4, SINKS=sinks)
compiled(_copy_slots, KEY=1024, VALUE=768, WIDTH=1024)
"""


@pytest.mark.slow
def test_the_kernels_compile_for_hopper(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """In a process of its own, since in this one kernels are interpreted."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
