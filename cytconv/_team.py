"""Threads for what numpy and scipy compute: each takes the next of one queue."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ._runtime import available_cpus

__all__ = ["Team", "quietly"]


def quietly(f: Callable[..., Any]) -> Callable[..., Any]:
    """The same without warnings of numbers that overflow; each thread has a state of its own."""

    @wraps(f)
    def quiet(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*arguments)

    return quiet


class Team(NamedTuple):
    """The threads that a task may use: inside of a transform, or side by side."""

    threads: int = 1

    def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """Results in order.  The thread that asks works too: others beside it find cores of their own sooner."""
        if self.threads == 1:
            yield from map(f, items)
            return

        @quietly
        def work(queue: deque[tuple[int, Any]], results: list[Any]) -> None:
            while queue:
                try:
                    i, item = queue.popleft()
                except IndexError:  # another thread was faster
                    return
                results[i] = f(item)

        for first in range(0, len(items), 2 * self.threads):  # no more results than that wait at any time
            some = items[first : first + 2 * self.threads]
            queue, results = deque(enumerate(some)), [None] * len(some)  # every thread takes the next of one queue
            others = [_Pool.submit(work, queue, results) for _ in range(self.threads - 1)]
            work(queue, results)
            for other in others:
                if not other.cancel():  # it has begun
                    other.result()
            yield from results


class _Pool:
    """Threads that wait for work: to start one takes as long as a small transform."""

    threads: ClassVar[ThreadPoolExecutor | None] = None

    @classmethod
    def submit(cls, *work: Any) -> Future[Any]:
        pool = cls.threads
        if pool is None:  # two threads may both make one at first: no harm
            pool = cls.threads = ThreadPoolExecutor(max(available_cpus() - 1, 1), "cytconv")
        return pool.submit(*work)

    @classmethod
    def forget(cls) -> None:
        """A child that was forked has none of its parent's threads."""
        cls.threads = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Pool.forget)
