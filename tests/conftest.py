"""Every test runs offline and on two threads a kernel, and keeps nothing in the user's cache."""

import os
import tempfile

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")
if not torch.cuda.is_available():  # Triton decides when a kernel is defined
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Before anything is collected, and for processes that tests start; gone with this one.
CACHE = tempfile.TemporaryDirectory(prefix="bita-tests-")
os.environ["XDG_CACHE_HOME"] = CACHE.name
