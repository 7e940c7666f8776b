"""Threads for what numpy and scipy compute."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from ._runtime import available_cpus
from .kernels.crew import Crew

Item = TypeVar("Item")
Result = TypeVar("Result")

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

    def map(self, f: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results in order."""
        if self.threads == 1 or len(items) == 1:
            return [f(item) for item in items]
        return _Pool.crew().map(quietly(f), items, min(self.threads, available_cpus()))


class _Pool:
    """The threads, which are started when they are needed first."""

    _crew: ClassVar[Crew | None] = None

    @classmethod
    def crew(cls) -> Crew:
        crew = cls._crew
        if crew is None:  # two threads may both make one at first: no harm
            crew = cls._crew = Crew(ThreadPoolExecutor(max(available_cpus() - 1, 1), "cytconv"))
        return crew

    @classmethod
    def forget(cls) -> None:
        """A child that was forked has none of its parent's threads."""
        cls._crew = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Pool.forget)
