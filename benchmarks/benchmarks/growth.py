"""How the cost grows with the samples, the channels and the taps; the graphs have that number as an axis."""

from __future__ import annotations

from abc import ABC, abstractmethod

from workloads import Workload, layer, plain

from .common import Call, Memory, call, warm


class Growth(ABC):
    @abstractmethod
    def workload(self, size: int) -> Workload:
        """Every law has its own."""

    def setup(self, size: int) -> None:
        self.forward, self.adjoint = (warm(self.workload(size), d, workers=1) for d in ("forward", "adjoint"))

    def time_forward(self, size: int) -> None:
        self.forward()

    def time_adjoint(self, size: int) -> None:
        self.adjoint()


class Samples(Growth):
    """One channel, float64, 4 x 4 taps, stride 2: four times the time for twice the side."""

    params = [[128, 255, 256, 257, 512, 1024, 2048]]
    param_names = ["side"]

    def workload(self, size: int) -> Workload:
        return plain(f"side {size}", (size, size), 4, "float64", stride=2, padding=1)


class Channels(Growth):
    """As many channels on both sides, 32 x 32, float32, 3 x 3 taps: four times the time for twice the channels."""

    params = [[8, 16, 32, 64, 128, 256]]
    param_names = ["channels"]

    def workload(self, size: int) -> Workload:
        return layer(f"{size} channels", 1, size, size, (32, 32), 3, padding=1)


class Taps(Growth):
    """One channel, float64, 256 x 256, stride 1: the square of the taps until a better method takes over."""

    params = [[1, 2, 3, 5, 9, 17, 31]]
    param_names = ["taps"]

    def workload(self, size: int) -> Workload:
        return plain(f"{size} taps", (256, 256), size, "float64")


class SampleMemory(Memory):
    params = [[512, 1024, 2048]]
    param_names = ["side"]

    def call(self, direction: str, size: int) -> Call:
        return call(Samples().workload(size), direction, workers=1)


class ChannelMemory(Memory):
    params = [[64, 128, 256]]
    param_names = ["channels"]

    def call(self, direction: str, size: int) -> Call:
        return call(Channels().workload(size), direction, workers=1)


class TapMemory(Memory):
    params = [[9, 17, 31]]
    param_names = ["taps"]

    def call(self, direction: str, size: int) -> Call:
        return call(Taps().workload(size), direction, workers=1)
