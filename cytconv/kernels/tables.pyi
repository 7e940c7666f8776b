from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]

def best_box(
    extent: Sequence[int],
    halo: Sequence[int],
    most: int,
    lanes: int,
    work: float,
    begin: float,
    planes: float,
    rows: float,
    pieces: int = 1,
    workers: int = 1,
    taps: Sequence[int] | None = None,
    near: float = ...,
) -> list[int]: ...
def run_times(
    box: Sequence[int], halo: Sequence[int], lanes: int, met: Sequence[float], again: float, look_up: float
) -> list[float]: ...
def products(n: int, taps: int, m: int, stride: int, dilation: int, low: int) -> int: ...
def places(phases: Index, sides: Sequence[tuple[int, int, Index, int, int, int]]) -> tuple[Index, Index]: ...
def blocks(place: Index, within: Index, groups: Index) -> tuple[Index, Index, Index, Index, int]: ...
