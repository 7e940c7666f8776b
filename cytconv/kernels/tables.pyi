from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]

def even_part(n: int, size: int, line: int, lanes: int) -> int: ...
def places(phases: Index, sides: Sequence[tuple[int, int, Index, int, int, int]]) -> tuple[Index, Index]: ...
def blocks(place: Index, within: Index, groups: Index) -> tuple[Index, Index, Index, Index, int]: ...
