"""A library in a process of its own: the parent's end, and the loop at the other."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from libraries import LIBRARIES, Call, Library, operands
from workloads import DIRECTIONS, Workload

__all__ = ["Process", "limit_threads"]

WARM = 0.01  # seconds of calls ahead of those that are timed: threads that woke up on the same CPU move apart at a tick
LOOP = 0.002  # seconds: shorter calls are repeated for so long
STEP = 0.012  # seconds from one look at the threads to the next: Linux counts those that run at its ticks, 4 or 10 ms
PATIENCE = 1.0  # seconds after which they may spin on

# Calls that wake up a library, before the first one that counts.
TINY = (
    Workload("tiny", (1, 1, 5), (1, 1, 3), plain=True),
    Workload("tiny", (1, 2, 5, 4), (2, 2, 3, 3), stride=2, padding=1),
)


def limit_threads(threads: int) -> None:
    """Give so many threads, on the same CPUs, to every process that is started from now on."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if hasattr(os, "sched_setaffinity"):  # the only limit that some libraries know
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Process:
    """The parent's end.  RuntimeError says what the library has to complain of, EOFError that its process is gone."""

    def __init__(self, name: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        context.Process(target=serve, args=(name, threads, theirs), daemon=True).start()
        theirs.close()  # it would keep the pipe open here after the end of the process

    def receive(self) -> Any:
        """The answer to the last request; the first answer is the version."""
        fine, answer = self.connection.recv()
        if not fine:
            raise RuntimeError(answer)
        return answer

    def ask(self, *request: Any) -> Any:
        self.connection.send(request)
        return self.receive()


def serve(name: str, threads: int, connection: Connection) -> None:
    """Import the library, make tiny calls, then answer until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is who is interrupted, and ends this process
    gc.disable()  # as timeit does
    try:
        library = LIBRARIES[name](threads)
    except ImportError as error:
        connection.send((False, f"not installed ({error})"))
        return
    for workload in TINY:
        for direction in DIRECTIONS:
            if library.supports(workload) and direction in library.directions:
                library.call(workload, direction, *(library.array(a, workload) for a in workload.arrays()))()
    server = Server(library)
    connection.send((True, library.version))
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, getattr(server, method)(*arguments)))
        except Exception as error:  # a library that fails in a row is left out of it, not the whole run
            connection.send((False, f"{type(error).__name__}: {error}"))


class Server:
    """What can be asked for: to `prepare` a cell, then `turn` after turn."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.call: Call = lambda: None

    def prepare(self, workload: Workload, direction: str, path: str) -> float | None:
        """Seconds from arrays to the first result, which is left in a file; None if the library cannot do it.

        They include whatever the library makes for the shape: a compiled function, a session, packed weights.
        """
        library, self.call = self.library, lambda: None
        gc.collect()
        if not library.supports(workload) or direction not in library.directions:
            return None
        x, w, y = (library.array(a, workload) for a in operands(workload, direction, library.conjugates))
        start = time.perf_counter()
        self.call = library.call(workload, direction, x, w, y)
        result = self.call()
        first = time.perf_counter() - start
        np.save(path, library.numpy(result))
        quiet()
        return first

    def turn(self) -> float:
        """Seconds of one call after another."""
        self.mean(WARM)
        seconds = self.mean(LOOP)
        quiet()
        return seconds

    def mean(self, enough: float) -> float:
        """Seconds of a call that is repeated until that took seconds enough."""
        count, start = 0, time.perf_counter()
        while True:
            self.call()
            count, elapsed = count + 1, time.perf_counter() - start
            if elapsed >= enough:
                return elapsed / count


def quiet() -> None:
    """Sleep until the threads of this process sleep too: they spin for a while in hope of more work."""
    give_up = time.perf_counter() + PATIENCE
    while True:
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(STEP)
        slept, worked = time.perf_counter() - wall, time.process_time() - cpu
        if worked < 0.1 * slept or time.perf_counter() > give_up:
            return
