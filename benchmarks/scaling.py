"""How the cost grows: with the size of the image, the taps of the kernel, the number of workers, and with new shapes.

    python benchmarks/scaling.py [--rounds 9] [--workers 2]

Each table is timed round by round, one call of each row in turn, and reports medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from machine import describe, fma_peak

from cytconv import conv_transpose, conv_transpose_adjoint

Call = Callable[[], object]


def medians(calls: Sequence[Call], rounds: int) -> list[float]:
    """Seconds of each call, which take turns; two calls before each that is timed wake threads and warm caches."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, mine in zip(calls, seconds, strict=True):
            call()
            call()
            start = time.perf_counter()
            call()
            mine.append(time.perf_counter() - start)
    return [statistics.median(mine) for mine in seconds]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}\n")
    print("| " + " | ".join(columns) + " |")
    print("| " + " | ".join("---" for _ in columns) + " |")
    for row in rows:
        print("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


def plain(n: int, taps: int, dtype: str, workers: int, stride: int = 1, padding: int = 0) -> tuple[Call, Call, int]:
    """Forward and adjoint of one channel, and how many outputs the forward one has."""
    x, w = np.ones((n, n), dtype), np.ones((taps, taps), dtype)
    keywords = {"stride": stride, "padding": padding, "workers": workers}
    y = conv_transpose(x, w, **keywords)
    forward, adjoint = (
        lambda: conv_transpose(x, w, **keywords),
        lambda: conv_transpose_adjoint(y, w, input_shape=x.shape, **keywords),
    )
    return forward, adjoint, y.size


def layer(n: int, channels: int, taps: int, workers: int, stride: int = 1, padding: int = 0) -> tuple[Call, int]:
    """As many channels on both sides, single precision; and its multiplications."""
    x = np.ones((1, channels, n, n), np.float32)
    w = np.ones((channels, channels, taps, taps), np.float32)
    keywords = {"stride": stride, "padding": padding, "workers": workers, "channels": "first"}
    return lambda: conv_transpose(x, w, **keywords), x.size * channels * taps * taps


def sizes(rounds: int, workers: int) -> None:
    cases = [(n, *plain(n, 4, "float64", workers, 2, 1)) for n in (1000, 1023, 1024, 1025, 2048)]
    times = medians([call for _, forward, adjoint, _ in cases for call in (forward, adjoint)], rounds)
    table(
        "Nanoseconds for each output, one channel, float64, 4 x 4 taps, stride 2",
        ["side", "forward", "data adjoint"],
        [[n, a / m * 1e9, b / m * 1e9] for (n, _, _, m), a, b in zip(cases, times[::2], times[1::2], strict=True)],
    )
    layers = [(n, *layer(n, 64, 3, workers, 1, 1)) for n in (100, 127, 128, 129, 256)]
    times = medians([call for _, call, _ in layers], rounds)
    table(
        "Multiplications in a nanosecond, 64 -> 64 channels, float32, 3 x 3 taps",
        ["side", "forward"],
        [[n, work / t * 1e-9] for (n, _, work), t in zip(layers, times, strict=True)],
    )


def taps(rounds: int, workers: int) -> None:
    cases = [(k, *plain(512, k, "float64", workers)) for k in (1, 3, 5, 9, 17, 31)]
    times = medians([forward for _, forward, _, _ in cases], rounds)
    table(
        "One channel, float64, 512 x 512, stride 1: milliseconds, and products in a nanosecond",
        ["taps", "time", "products"],
        [[f"{k} x {k}", t * 1e3, 512**2 * k * k / t * 1e-9] for (k, *_), t in zip(cases, times, strict=True)],
    )


def threads(rounds: int, workers: int) -> None:
    layers = {"128 -> 128, 64 x 64, k2 s2": (64, 128, 2, 2, 0), "64 -> 64, 128 x 128, k3 s1": (128, 64, 3, 1, 1)}
    rows: list[list[object]] = []
    for name, (n, channels, k, stride, padding) in layers.items():
        calls = [layer(n, channels, k, count, stride, padding)[0] for count in (1, workers)]
        one, many = medians(calls, rounds)
        rows.append([name, one * 1e3, many * 1e3, one / many])
    for name, arguments in {"one channel float64, 9 x 9": (9, 1), "one channel float64, k31 s4": (31, 4)}.items():
        k, stride = arguments
        calls = [plain(512, k, "float64", count, stride)[0] for count in (1, workers)]
        one, many = medians(calls, rounds)
        rows.append([name, one * 1e3, many * 1e3, one / many])
    rows.append(["multiply-adds between registers", "", "", fma_peak("float32", workers) / fma_peak("float32", 1)])
    table("Workers: milliseconds, and how many times faster", ["", "one worker", f"{workers} workers", "gain"], rows)


def shapes(rounds: int, workers: int) -> None:
    """The first call with a new length, beside the third one."""
    rng = np.random.default_rng(0)
    rows: list[list[object]] = []
    for name, channels, shape, k, stride in (
        ("5 x 7, k4 s2", 1, (5, 7), 4, 2),
        ("8 -> 8, 9 x 9, k3 s1", 8, (9, 9), 3, 1),
        ("1026 -> 1, 40, k1024 s256", 1026, (40,), 1024, 256),
    ):
        w = rng.standard_normal((channels, 1 if channels > 8 else channels, *(k,) * len(shape)), np.float32)
        first, third = [], []
        for i in range(5 * rounds):
            x = rng.standard_normal((channels, *shape[:-1], shape[-1] + i), np.float32)
            for seconds in (first, [], third):
                start = time.perf_counter()
                conv_transpose(x, w, stride=stride, channels="first", workers=workers)
                seconds.append(time.perf_counter() - start)
        rows.append([name, statistics.median(first[1:]) * 1e6, statistics.median(third[1:]) * 1e6])
    table("Microseconds of the first call with a new shape, and of the third", ["", "first", "third"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="How the cost grows.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    for part in (sizes, taps, threads, shapes):
        part(options.rounds, options.workers)


if __name__ == "__main__":
    main()
