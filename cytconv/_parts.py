"""Products in which entries are added to results: by parts of a matrix, each with results of its own.

A product reads a matrix in the order of memory.  Where this order leads from one result to the next, workers take some
results each.  Where it comes back to each result again and again, workers take some of the entries, add them up by
themselves, and their sums are added in the end::

    entries     | part 0 | part 1 | part 2 |          How many parts there are depends on the matrix, but not on the
    results       sums 0 + sums 1 + sums 2            number of workers, and so do the bits of the results.

That takes a table of results for each part; so it is for results that have many entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._memory import LINE, scratch

__all__ = ["ENTRY", "add_up", "apart", "parts_of"]

Array = NDArray[Any]

ENTRY = 16  # multiplications of method "direct" in the time that an entry takes to read and multiply, or a row to begin
SMALL = 2**16  # entries, each by a number of one vector, that one thread multiplies as fast as two
EACH = 8  # entries of a part for each number of its results, at least: to clear and add it up takes as long as an entry
PIECE = 2**15  # entries of a part, each by a number of one vector: of fewer, threads would wait for the others' results
LEAST, MOST = 4, 16  # parts, of entries enough


def parts_of(entries: int, results: int, vectors: int) -> int:
    """Into how many parts a product of so many vectors is cut; 1 if workers better take some results each."""
    if entries * vectors < SMALL:
        return 1
    count = min(entries // (EACH * max(results, 1) * vectors), MOST)
    return min(count, max(entries * vectors // PIECE, 2)) if count >= LEAST else 1


def add_up(parts: int, results: Array, product: Callable[[Array], None]) -> None:
    """Fill `results` with the sum of those of all parts, which `product` makes one below the other."""
    rows, width = results.shape
    with scratch() as memory, np.errstate(all="ignore"):  # infinity minus infinity is no news here
        sums = memory.take("sums", (parts, apart(rows), width), results.dtype)
        product(sums.reshape(-1, width))
        np.add.reduce(sums[:, :rows], axis=0, out=results)


def apart(results: int) -> int:
    """How far the results of a part are from those of the next: no two write to one line of the cache."""
    return (results // LINE + 2) * LINE
