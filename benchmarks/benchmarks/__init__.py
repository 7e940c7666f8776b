"""Benchmarks that asv runs on every commit; see ../README.md.

asv imports this before all else, so threads are limited before any library counts them, whoever starts the run.
"""

import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # where cytconv uses more, `workers` says so

# The modules that describe workloads, measure the machine and call other libraries are those of peers.py.
sys.path.insert(0, str(Path(__file__).parents[1]))
