"""What runs: which compiled kernels, on how many threads."""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import platform
from types import ModuleType
from typing import Any, SupportsIndex

import numpy as np
import scipy

from .kernels import cpu

__all__ = [
    "ISA",
    "available_cpus",
    "available_isas",
    "kernels",
    "resolve_workers",
    "show_config",
    "team",
    "workers_for",
]

# Multiplications for each thread, some tens of microseconds: with fewer, waking threads and waiting for them costs more
# than they save, and far more on a CPU that has other work, where the one that waits can lose a slice of the scheduler.
WORK_PER_THREAD = 500_000


# ---- which kernels -------------------------------------------------------------------------------------


def available_isas() -> list[str]:
    """Instruction sets that this build has kernels for and this CPU can run, best first."""
    return [isa for isa in cpu.supported() if importlib.util.find_spec(f"cytconv.kernels.{isa}_float32")]


def _choose_isa() -> str:
    isas = available_isas()
    wanted = os.environ.get("CYTCONV_ISA") or isas[0]
    if wanted not in isas:
        raise ImportError(f"CYTCONV_ISA={wanted!r} must be one that this build and CPU have: {', '.join(isas)}")
    return wanted


ISA = _choose_isa()
_KERNELS = {
    np.dtype(name): importlib.import_module(f"cytconv.kernels.{ISA}_{real}")
    for real, names in (("float32", ("f4", "c8")), ("float64", ("f8", "c16")))
    for name in names
}


def kernels(dtype: np.dtype[Any]) -> ModuleType:
    """The compiled module for arrays of `dtype`; complex numbers are pairs of real ones."""
    return _KERNELS[dtype]


# ---- how many threads ----------------------------------------------------------------------------------


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_workers(workers: SupportsIndex | None) -> int:
    """Threads to use at most, by the rules of `scipy.fft`: None is OpenMP's own choice, -1 is every CPU."""
    if workers is None:
        return _threads() or 1
    try:
        count = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers={workers!r} must be an integer or None") from None
    cpus = available_cpus()
    if count == 0 or count < -cpus:
        raise ValueError(f"workers={count} must not be 0, nor below -{cpus}, minus the number of CPUs")
    return count if count > 0 else cpus + 1 + count


def _threads() -> int | None:
    threads: int | None = _KERNELS[np.dtype("f4")].openmp_threads()
    return threads


class _Fork:
    """GNU's OpenMP hangs in a child that was forked after its parent ran in parallel: such a child stays serial."""

    parallel = False
    serial = False


def _after_fork() -> None:
    _Fork.serial = _Fork.parallel


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def workers_for(work: int) -> int:
    """Threads that so many multiplications keep busy on this machine."""
    return max(1, min(available_cpus(), work // WORK_PER_THREAD))


def team(workers: int, tasks: int, work: int) -> int:
    """Threads for so many tasks, of `work` multiplications together: no more than they keep busy."""
    size = max(1, min(workers, tasks, work // WORK_PER_THREAD))
    if size == 1 or _Fork.serial or _threads() is None:
        return 1
    _Fork.parallel = True
    return size


# ---- what it says about itself ---------------------------------------------------------------------------


def show_config() -> None:
    """Print what cytconv runs on: instruction set, OpenMP, workers and versions.

    Examples
    --------
    >>> import cytconv
    >>> cytconv.show_config()  # doctest: +SKIP
    """
    for name, value in config().items():
        print(f"{name:<22}{value}")


def config() -> dict[str, str]:
    """What `show_config` prints."""
    from . import __version__

    threads = _threads()
    return {
        "cytconv": __version__,
        "instruction set": f"{ISA} (available: {', '.join(available_isas())}; CYTCONV_ISA forces one)",
        "OpenMP": "no: this build is serial" if threads is None else f"yes, {threads} threads by default",
        "CPUs": f"{available_cpus()} available of {os.cpu_count()}",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
