"""The three directions, over the geometries, by one worker and by two."""

from __future__ import annotations

from . import common
from .common import GEOMETRIES, Call, call, warm


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


class Memory(common.Memory):
    params = [[name for name in GEOMETRIES if name != "article"]]
    param_names = ["geometry"]

    def call(self, direction: str, geometry: str) -> Call:
        return call(GEOMETRIES[geometry], direction, workers=1)
