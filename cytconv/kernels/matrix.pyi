from typing import Any

ABREAST: int

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
def multiply(ends: Any, columns: Any, data: Any, x: Any, y: Any, scratch: Any, together: int, workers: int) -> None: ...
def multiply_adjoint(
    ends: Any, columns: Any, data: Any, shares: Any, x: Any, y: Any, sums: Any, together: int, workers: int
) -> None: ...
