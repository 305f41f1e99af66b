"""The GPU benchmark runs where only torch, transformers and Triton are."""

import json
import subprocess
import sys

import pytest

SERVING_ONLY = ("fastapi", "msgpack", "prometheus_client", "pydantic", "rich", "uvicorn")
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys({names!r}))  # importing any of them fails
sys.argv = ["benchmarks.gpu", "--small"]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.slow
def test_the_gpu_benchmark_runs_at_tiny_sizes() -> None:
    pytest.importorskip("triton")
    code = WITHOUT.format(names=SERVING_ONLY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert results["passed"]
    assert results["steps"]["eager"]["comb"]["step_ms"] > 0
