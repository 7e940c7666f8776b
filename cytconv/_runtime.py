"""What runs: how many workers, and which compiled kernels."""

from __future__ import annotations

import operator
import os
from typing import SupportsIndex

__all__ = ["available_cpus", "resolve_workers"]


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_workers(workers: SupportsIndex | None) -> int:
    """Threads to use at most, by the rules of ``scipy.fft``: None is OpenMP's own choice, -1 is every CPU."""
    if workers is None:
        return 1
    try:
        count = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers={workers!r} must be an integer or None") from None
    cpus = available_cpus()
    if count < 0:
        if count < -cpus:
            raise ValueError(f"workers={count} must not be below -{cpus}, the number of CPUs")
        return cpus + 1 + count
    if count == 0:
        raise ValueError("workers=0 must not be zero")
    return count
