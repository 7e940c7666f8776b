from typing import Any

def fill(
    factors: Any,
    phases: Any,
    repeated: Any,
    tasks: Any,
    scratch: Any,
    w: Any,
    block: int,
    rows: Any,
    coordinates: bool,
    columns: Any,
    data: Any,
    workers: int,
) -> None: ...
def multiply(ends: Any, columns: Any, data: Any, parts: int, x: Any, y: Any, together: int, workers: int) -> None: ...
def multiply_adjoint(
    ends: Any,
    columns: Any,
    data: Any,
    parts: int,
    shares: Any,
    x: Any,
    y: Any,
    workers: int,
) -> None: ...
def copyto(to: Any, source: Any, together: int, workers: int) -> None: ...
