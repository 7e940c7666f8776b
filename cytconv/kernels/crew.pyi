from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

class Crew:
    def __init__(self, pool: Executor) -> None: ...
    def map(self, f: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]: ...
