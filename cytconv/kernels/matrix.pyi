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
def copyto(to: Any, source: Any, together: int, workers: int) -> None: ...
