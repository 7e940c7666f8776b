"""Let a checkout whose kernels are not compiled step aside for the installed package.

``pip install .`` compiles into site-packages, not into the checkout.  But ``python -m cytconv``, typed in the checkout,
finds this directory first, since Python puts the current directory at the head of its path.  So before `cytconv`
imports anything else of its own it asks `compiled` where its modules are: here, if the kernels are compiled here
(installed, or built in place), otherwise wherever they are installed.  All modules but this one and ``__init__`` come
from there: what was changed in the checkout since takes effect with the next ``pip install .``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

__all__ = ["compiled"]


def compiled(path: Sequence[str]) -> list[str]:
    """The ``__path__`` for a package that was found at `path`: the first on ``sys.path`` with compiled kernels."""
    if _has_kernels(path):
        return list(path)
    here = Path(path[0]).resolve().parent
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != here]
    spec = PathFinder.find_spec("cytconv", elsewhere)
    if spec is None or not _has_kernels(spec.submodule_search_locations or ()):
        raise ImportError(
            f"the kernels of cytconv are not compiled in {path[0]}, and no other cytconv is installed: "
            f"run `pip install {here}`"
        )
    return list(spec.submodule_search_locations or ())


def _has_kernels(path: Sequence[str]) -> bool:
    return PathFinder.find_spec("cpu", [str(Path(entry, "kernels")) for entry in path]) is not None
