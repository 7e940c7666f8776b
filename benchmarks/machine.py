"""What the machine can do, measured: multiply-adds and copied bytes per second."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cytconv._runtime import ISA, kernels

__all__ = ["describe", "load", "measure"]


def describe() -> dict[str, Any]:
    """The CPU, and the instruction set that cytconv uses on it."""
    system = {"platform": platform.platform(terse=True), "python": platform.python_version()}
    return {"cpu": cpu_model(), "cpus": os.cpu_count(), "isa": ISA, **system}


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def load() -> float:
    """Processes that wanted a CPU in the last minute, 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def measure(threads: int) -> dict[str, float]:
    """FMA peak of both precisions in operations, and the bandwidth of a copy in bytes per second."""
    return {
        "float32": fma_peak("float32", threads),
        "float64": fma_peak("float64", threads),
        "bandwidth": copy_bandwidth(threads),
    }


def fma_peak(dtype: str, threads: int) -> float:
    """Operations per second of fused multiply-adds between registers."""
    module = kernels(np.dtype(dtype))
    return best(lambda: module.fused_multiply_add(5_000_000, threads), repeats=15)


def copy_bandwidth(threads: int) -> float:
    """Bytes read plus bytes written per second, far beyond the caches."""
    source, target = np.ones(2**27, np.uint8), np.ones(2**27, np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> int:
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
            return source.nbytes + target.nbytes

        return best(copy)


def best(work: Callable[[], int], repeats: int = 7) -> float:
    """The highest rate of several runs of `work`, which returns how much it did."""
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        amount = work()
        rates.append(amount / (time.perf_counter() - start))
    return max(rates)
