"""Method "fft" beside scipy: transforms of samples with zeros between them, whole or by overlap-add.

Milliseconds, medians of interleaved rounds.  Every result is compared with that of method "direct" before it counts;
a time of "direct" itself is of that one call.  Scipy gets the zeros inserted for free where its reading needs them.

    python benchmarks/fft.py --sizes 1d 2d --strides 1 2 4
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from machine import describe
from scipy.signal import fftconvolve, oaconvolve

from cytconv import conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

Array = np.ndarray[Any, Any]

CASES = {  # shape, taps along every axis
    "1d": [((10**5,), 1001), ((2**20,), 1001)],
    "2d": [((n, n), k) for k in (31, 63, 127) for n in (512, 1024)],
    "3d": [((96, 96, 96), 15)],
}
READINGS = ("forward", "adjoint", "weights")


def problem(
    reading: str, shape: tuple[int, ...], k: int, stride: int, dtype: str, workers: int
) -> tuple[Callable[[str], Array], list[Callable[[], Array]]]:
    """What computes a reading by one of our methods, and the ways of scipy."""
    rng = np.random.default_rng(0)
    taps = (k,) * len(shape)
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal(taps).astype(dtype)
    y = rng.standard_normal([(n - 1) * stride + k for n in shape]).astype(dtype)
    every = (slice(None, None, stride),) * len(shape)
    spread = np.zeros([(n - 1) * stride + 1 for n in shape], dtype)
    spread[every] = x
    flipped = (slice(None, None, -1),) * len(shape)

    def ours(method: str) -> Array:
        run: dict[str, Any] = {"stride": stride, "method": method, "workers": workers}
        if reading == "forward":
            return conv_transpose(x, w, **run)
        if reading == "adjoint":
            return conv_transpose_adjoint(y, w, **run)
        return conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **run)

    def scipys(convolve: Callable[..., Array]) -> Callable[[], Array]:
        def run() -> Array:
            with scipy.fft.set_workers(workers):
                if reading == "forward":
                    return convolve(spread, w, "full")
                if reading == "adjoint":
                    return convolve(y, w[flipped], "valid")[every]
                return convolve(y, spread[flipped], "valid")

        return run

    return ours, [scipys(fftconvolve), scipys(oaconvolve)]


def row(arguments: tuple[Any, ...], rounds: int, budget: float) -> list[float]:
    ours, peers = problem(*arguments)
    start = time.perf_counter()
    expected = ours("direct")
    direct = time.perf_counter() - start
    calls = [lambda: ours("fft"), *peers]
    tolerance = 1e3 * np.finfo(expected.dtype).eps * float(np.abs(expected).max())
    for call in calls:  # a first run of each, too
        np.testing.assert_allclose(call(), expected, rtol=0, atol=tolerance)
    times: list[list[float]] = [[] for _ in calls]
    begun = time.perf_counter()
    for _ in range(rounds):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        if time.perf_counter() - begun > budget:
            break
    fft, *others = (statistics.median(seconds) for seconds in times)
    return [fft * 1e3, min(others) * 1e3, min(others) / fft, direct * 1e3]


def main() -> None:
    parser = argparse.ArgumentParser(description='Method "fft" beside scipy.signal.')
    parser.add_argument("--sizes", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--strides", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--readings", nargs="+", choices=READINGS, default=list(READINGS))
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--taps", nargs="+", type=int, help="only kernels of these sizes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds after which no new round of a row begins")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    print(f"\n| {options.dtype} | reading | stride | fft | scipy's best | times faster | direct |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in options.sizes:
        for shape, k in CASES[size]:
            if options.taps and k not in options.taps:
                continue
            name = f"{' x '.join(map(str, shape))}, k={k}"
            for stride in options.strides:
                for reading in options.readings:
                    arguments = (reading, shape, k, stride, options.dtype, options.workers)
                    fft, peer, ratio, direct = row(arguments, options.rounds, options.budget)
                    print(f"| {name} | {reading} | {stride} | {fft:.4g} | {peer:.4g} | {ratio:.2f} | {direct:.4g} |")


if __name__ == "__main__":
    main()
