"""The methods side by side: which is best at how many taps."""

from __future__ import annotations

from workloads import Workload, plain

from .common import DIRECTIONS, METHODS, Call, Memory, call, skip_absent_method, warm


def square(taps: int) -> Workload:
    return plain(f"64x64; k{taps} s1", (64, 64), taps, "float64")


class Methods:
    """One channel, float64, 64 x 64; "sparse" builds its matrix in every call."""

    params = [list(METHODS), [3, 9, 31]]
    param_names = ["method", "taps"]

    def setup(self, method: str, taps: int) -> None:
        skip_absent_method(method)
        self.calls = {d: warm(square(taps), d, method=method, workers=1) for d in DIRECTIONS}

    def time_forward(self, method: str, taps: int) -> None:
        self.calls["forward"]()

    def time_adjoint(self, method: str, taps: int) -> None:
        self.calls["adjoint"]()

    def time_weight_adjoint(self, method: str, taps: int) -> None:
        self.calls["weights"]()


class MethodMemory(Memory):
    params = [list(METHODS), [31]]
    param_names = ["method", "taps"]

    def call(self, direction: str, method: str, taps: int) -> Call:
        skip_absent_method(method)
        return call(square(taps), direction, method=method, workers=1)
