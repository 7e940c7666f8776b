"""What is convolved, and how it is called: shared by all benchmarks.

asv runs these files, as they are now, on old commits too.  What a commit does not have raises NotImplementedError in
`setup`, which asv takes for "not available" rather than for a failure.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import DIRECTIONS, Workload, layer, plain

import cytconv

__all__ = ["DIRECTIONS", "GEOMETRIES", "METHODS", "Call", "Memory", "call", "public", "skip_absent_method", "warm"]

Call = Callable[[], Any]

# Names are parameters of benchmarks: a history goes on only under the same name, so never change what one means.
GEOMETRIES = {
    "article": plain("2x3; k2 s2", (2, 3), 2, "float64", stride=2),
    "U-Net": layer("512->256, 52x52; k2 s2", 1, 512, 256, (52, 52), 2, stride=2),
    "DCGAN": layer("16 images, 512->256, 8x8; k4 s2", 16, 512, 256, (8, 8), 4, stride=2, padding=1),
    "FSRCNN": layer("56->1, 128x128; k9 s3", 1, 56, 1, (128, 128), 9, stride=3, padding=4),
    "vocoder 1-D": layer("512->256, 256; k16 s8", 1, 512, 256, (256,), 16, stride=8, padding=4),
    "depthwise": layer("64, 128x128; k4 s2", 1, 64, 1, (128, 128), 4, stride=2, padding=1, groups=64),
    "3-D": layer("64->32, 24^3; k4 s2", 1, 64, 32, (24,) * 3, 4, stride=2, padding=1),
    "one channel float64": plain("1024x1024; k4 s2", (1024, 1024), 4, "float64", stride=2, padding=1),
    "4-D": layer("8->8, 12^4; k2 s2", 1, 8, 8, (12,) * 4, 2, stride=2),
}

METHODS = ("direct", "fft", "sparse")  # every name that a commit may have


arrays = functools.cache(Workload.arrays)  # the same ones for every direction


def call(workload: Workload, direction: str, channels: str = "first", **options: Any) -> Call:
    """What computes one direction, on arrays that are filled by now."""
    x, w, y = arrays(workload)
    keywords = {**workload.keywords, **options}
    if workload.plain:
        x, w, y = x[0, 0], w[0, 0], y[0, 0]
    else:
        keywords["channels"] = channels
        if channels == "last":
            x, y = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, y))
    if direction == "forward":
        return lambda: cytconv.conv_transpose(x, w, **keywords)
    if direction == "adjoint":
        return lambda: cytconv.conv_transpose_adjoint(y, w, **keywords)
    return lambda: cytconv.conv_transpose_weight_adjoint(x, y, kernel_shape=workload.w[2:], **keywords)


@functools.cache
def warm(workload: Workload, direction: str, **options: Any) -> Call:
    """The same, called once: asv runs `setup` anew ahead of each call that it times, which must not start cold."""
    function = call(workload, direction, **options)
    function()
    return function


class Memory(ABC):
    """The most that a process takes in one call: the interpreter (some 50 MB) and `x`, `w` and `y` with it.

    It goes beside the times in a class of its own: their `setup` calls every direction, and a peak includes `setup`.
    """

    @abstractmethod
    def call(self, direction: str, *parameters: Any) -> Call:
        """What is called once."""

    def setup(self, *parameters: Any) -> None:
        self.calls = {direction: self.call(direction, *parameters) for direction in DIRECTIONS}

    def peakmem_forward(self, *parameters: Any) -> None:
        self.calls["forward"]()

    def peakmem_adjoint(self, *parameters: Any) -> None:
        self.calls["adjoint"]()

    def peakmem_weight_adjoint(self, *parameters: Any) -> None:
        self.calls["weights"]()


def public(name: str) -> Any:
    """An object of cytconv, if this commit has it."""
    if not hasattr(cytconv, name):
        raise NotImplementedError(f"this commit has no cytconv.{name}")
    return getattr(cytconv, name)


def skip_absent_method(method: str) -> None:
    try:
        from cytconv._methods import METHODS as present
    except ImportError:
        present = {}
    if method not in present:
        raise NotImplementedError(f"this commit has no method {method!r}")
