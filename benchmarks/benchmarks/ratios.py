"""Ratios of two things measured in the same run: they survive a noisy machine, where a time does not."""

from __future__ import annotations

import statistics
from typing import Any

from libraries import LIBRARIES
from workloads import DIRECTIONS, Workload, plain

from .common import GEOMETRIES, Call, call

try:
    from machine import copy_bandwidth, fma_peak, kernels
    from scaling import medians
except ImportError as error:  # the first commit has no kernels, and nothing to compare them with
    MISSING = str(error)
else:
    MISSING = ""

ROUNDS = 7


class Limits:
    """Percent of what the machine can do, by one worker.

    More than a hundred percent of the FMA peak is possible: operations are counted by the definition, and method
    "auto" does fewer.
    """

    unit = "%"
    number = 1

    def prepare(self, geometry: str) -> tuple[Workload, Call]:
        if MISSING:
            raise NotImplementedError(MISSING)
        workload = GEOMETRIES[geometry]
        return workload, call(workload, "forward", workers=1)


class Multiplications(Limits):
    params = [["U-Net", "DCGAN", "FSRCNN", "vocoder 1-D", "3-D"]]
    param_names = ["geometry"]

    def setup(self, geometry: str) -> None:
        self.workload, self.call = self.prepare(geometry)
        if not hasattr(kernels(self.workload.arrays()[0].dtype), "fused_multiply_add"):
            raise NotImplementedError("this commit has no loop that measures the FMA peak")

    def track_percent_of_fma_peak(self, geometry: str) -> float:
        """Operations per second of the forward direction, in percent of fused multiply-adds between registers."""
        before = fma_peak(self.workload.dtype, 1)
        (seconds,) = medians([self.call], ROUNDS)
        peak = statistics.mean([before, fma_peak(self.workload.dtype, 1)])
        return round(100 * self.workload.flops / seconds / peak, 1)


class Traffic(Limits):
    params = [["depthwise", "one channel float64", "4-D"]]
    param_names = ["geometry"]

    def setup(self, geometry: str) -> None:
        self.workload, self.call = self.prepare(geometry)

    def track_percent_of_copy_bandwidth(self, geometry: str) -> float:
        """Bytes that must be read or written, per second, in percent of a copy far beyond the caches."""
        before = copy_bandwidth(1)
        (seconds,) = medians([self.call], ROUNDS)
        bandwidth = statistics.mean([before, copy_bandwidth(1)])
        return round(100 * self.workload.traffic / seconds / bandwidth, 1)


class Scipy:
    """The time relative to the best of scipy's: fftconvolve, oaconvolve, and upfirdn where there is one axis.

    Below 1 is faster than scipy; so less is better, as asv supposes of every number.
    """

    workloads = {
        "1-D k64 s4": plain("2^17; k64 s4", (2**17,), 64, "float64", stride=4),
        "2-D k3 s1": plain("512x512; k3 s1", (512, 512), 3, "float64"),
        "2-D k4 s2": plain("512x512; k4 s2 p1", (512, 512), 4, "float64", stride=2, padding=1),
        "2-D k31 s1": plain("256x256; k31 s1", (256, 256), 31, "float64"),
        "3-D k5 s1": plain("48^3; k5 s1", (48,) * 3, 5, "float64"),
    }
    params = [list(workloads), list(DIRECTIONS)]
    param_names = ["geometry", "direction"]
    unit = "of scipy's time"

    def setup(self, geometry: str, direction: str) -> None:
        if MISSING:
            raise NotImplementedError(MISSING)
        workload = self.workloads[geometry]
        x, w, y = workload.arrays()
        self.calls: list[Call] = [call(workload, direction, workers=1)]
        for name in ("scipy-fft", "scipy-oa", "scipy-upfirdn"):
            library: Any = LIBRARIES[name](1)
            if library.supports(workload) and direction in library.directions:
                arrays = (library.array(a, workload) for a in (x, w, y))
                self.calls.append(library.call(workload, direction, *arrays))

    def track_ratio_to_scipy(self, geometry: str, direction: str) -> float:
        """Medians of calls that take turns."""
        ours, *theirs = medians(self.calls, ROUNDS)
        return round(ours / min(theirs), 4)
