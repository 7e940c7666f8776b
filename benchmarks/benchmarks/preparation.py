"""What is done once beside what is done again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .common import GEOMETRIES, public

Preparation = tuple[Callable[[], Any], Any]  # what makes the operator or the matrix, and a vector for it


def arguments(geometry: str) -> tuple[Any, Any, dict[str, Any]]:
    """Samples, weights and keywords."""
    workload = GEOMETRIES[geometry]
    x, w, _ = workload.arrays()
    if workload.plain:
        return x[0, 0], w[0, 0], workload.keywords
    return x, w, {**workload.keywords, "channels": "first"}


def operator(geometry: str) -> Preparation:
    make = public("ConvTranspose")
    x, w, keywords = arguments(geometry)
    return lambda: make(w, x.shape, workers=1, **keywords), x.ravel()


def matrix(geometry: str) -> Preparation:
    make = public("conv_transpose_matrix")
    x, w, keywords = arguments(geometry)
    lead = x.ndim - w.ndim + 1 if "channels" in keywords else 0  # axes of batch, which a matrix does not have
    x = x[(0,) * lead]
    return lambda: make(w, x.shape, **keywords), x.ravel()


class Operator:
    """`ConvTranspose` packs its weights when they are first used: so the set-up is timed with the first product."""

    params = [["article", "U-Net", "FSRCNN", "one channel float64"]]
    param_names = ["geometry"]

    def setup(self, geometry: str) -> None:
        self.make, self.x = operator(geometry)
        self.operator = self.make()
        self.y = self.operator @ self.x
        self.adjoint = self.operator.H
        self.adjoint @ self.y

    def time_construct(self, geometry: str) -> None:
        self.make()

    def time_construct_and_apply(self, geometry: str) -> None:
        self.make() @ self.x

    def time_apply(self, geometry: str) -> None:
        self.operator @ self.x

    def time_apply_adjoint(self, geometry: str) -> None:
        self.adjoint @ self.y


class OperatorMemory:
    params = [["U-Net", "one channel float64"]]
    param_names = ["geometry"]

    def setup(self, geometry: str) -> None:
        self.make, self.x = operator(geometry)

    def peakmem_construct_and_apply(self, geometry: str) -> None:
        self.make() @ self.x


class Matrix:
    """`conv_transpose_matrix`, of geometries whose matrix is a reasonable thing to have."""

    params = [["article", "FSRCNN", "one channel float64"]]
    param_names = ["geometry"]

    def setup(self, geometry: str) -> None:
        self.make, self.x = matrix(geometry)
        self.matrix = self.make()
        self.matrix @ self.x

    def time_fill(self, geometry: str) -> None:
        self.make()

    def time_product(self, geometry: str) -> None:
        self.matrix @ self.x

    def track_fill_rate(self, geometry: str) -> float:
        """Millions of stored numbers for each second of filling, the best of three."""
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            self.make()
            seconds.append(time.perf_counter() - start)
        return round(self.matrix.nnz / min(seconds) / 1e6, 3)

    track_fill_rate.unit = "million/s"


class MatrixMemory:
    """One matrix and what filling it takes; `Matrix` holds another."""

    params = [["FSRCNN", "one channel float64"]]
    param_names = ["geometry"]

    def setup(self, geometry: str) -> None:
        self.make, _ = matrix(geometry)

    def peakmem_fill(self, geometry: str) -> None:
        self.make()
