"""The three directions, over the geometries, by one worker and by two."""

from __future__ import annotations

from .common import GEOMETRIES, call, warm


class Directions:
    """A call as a user makes it, with weights that are not packed yet."""

    params = [list(GEOMETRIES), [1, 2]]
    param_names = ["geometry", "workers"]
    direction = ""

    def setup(self, geometry: str, workers: int) -> None:
        self.call = warm(GEOMETRIES[geometry], self.direction, workers=workers)


class Forward(Directions):
    direction = "forward"

    def time_forward(self, geometry: str, workers: int) -> None:
        self.call()


class Adjoint(Directions):
    direction = "adjoint"

    def time_adjoint(self, geometry: str, workers: int) -> None:
        self.call()


class WeightAdjoint(Directions):
    direction = "weights"

    def time_weight_adjoint(self, geometry: str, workers: int) -> None:
        self.call()


class Memory:
    """The most that a process takes: the interpreter and the arrays of `setup` (80 MB and more) with it."""

    params = [[name for name in GEOMETRIES if name != "article"]]
    param_names = ["geometry"]

    def setup(self, geometry: str) -> None:
        directions = ("forward", "adjoint", "weights")
        self.calls = {direction: call(GEOMETRIES[geometry], direction, workers=1) for direction in directions}

    def peakmem_forward(self, geometry: str) -> None:
        self.calls["forward"]()

    def peakmem_adjoint(self, geometry: str) -> None:
        self.calls["adjoint"]()

    def peakmem_weight_adjoint(self, geometry: str) -> None:
        self.calls["weights"]()
