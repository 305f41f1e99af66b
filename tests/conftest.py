"""Every test runs offline and on one thread a kernel, so that suites may run side by side."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")
