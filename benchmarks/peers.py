"""cytconv beside PyTorch, interleaved in one run, as a share of what the machine can do.

    python benchmarks/peers.py [--threads 2] [--rounds 21]

Both libraries take turns, round by round.  A turn is a call that wakes the threads and warms the caches, a call that is
timed, and a pause in which the threads fall asleep again.  Results are compared before they count.  Each row gives the
median time of either, their ratio, and the share of the roofline that cytconv reached: the larger of its floating-point
operations relative to the FMA peak and of the bytes that it must at least read and write relative to the bandwidth of a
copy, both measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import cytconv
from cytconv._runtime import ISA, kernels

PAUSE = 0.02  # seconds: OpenMP's threads spin for some milliseconds after their work


@dataclass(frozen=True)
class Row:
    """One workload: shapes as PyTorch has them, (N, C_in, *n) and (C_in, C_out // groups, *K)."""

    name: str
    dtype: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    keywords: dict[str, int] = field(default_factory=dict)

    def arrays(self) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        return tuple(rng.standard_normal(shape).astype(self.dtype) for shape in (self.x, self.w))

    def flops(self) -> float:
        return 2.0 * np.prod(self.x) * np.prod(self.w[1:])


ROWS = [
    Row("256->128, 100x100; k2 s2", "float32", (1, 256, 100, 100), (256, 128, 2, 2), {"stride": 2}),
    Row("56->1, 128x128; k9 s3 p4", "float32", (1, 56, 128, 128), (56, 1, 9, 9), {"stride": 3, "padding": 4}),
    Row("1->1, 1024x1024; k2 s2", "float64", (1, 1, 1024, 1024), (1, 1, 2, 2), {"stride": 2}),
    Row(
        "4 x 64->64, 64x64; k3 s2 p1 op1",
        "float64",
        (4, 64, 64, 64),
        (64, 64, 3, 3),
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
]


def fma_peak(dtype: str, threads: int) -> float:
    """Operations per second of fused multiply-adds between registers."""
    module = kernels(np.dtype(dtype))
    return best(lambda: module.fused_multiply_add(5_000_000, threads), repeats=15)


def copy_bandwidth(threads: int) -> float:
    """Bytes read plus bytes written per second, far beyond the caches."""
    source, target = np.ones(2**27, np.uint8), np.ones(2**27, np.uint8)
    parts = list(zip(np.split(source, threads), np.split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> int:
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
            return source.nbytes + target.nbytes

        return best(copy)


def best(work: Callable[[], int], repeats: int = 7) -> float:
    """The highest rate of several runs of `work`, which returns how much it did."""
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        amount = work()
        rates.append(amount / (time.perf_counter() - start))
    return max(rates)


def turn(call: Callable[[], Any]) -> float:
    """Seconds of one call after another."""
    call()
    start = time.perf_counter()
    call()
    elapsed = time.perf_counter() - start
    time.sleep(PAUSE)
    return elapsed


def compare(row: Row, threads: int, rounds: int) -> dict[str, float]:
    """Median seconds of each way to compute the row."""
    import torch

    x, w = row.arrays()
    tensors = torch.from_numpy(x), torch.from_numpy(w)
    transposed = getattr(torch.nn.functional, f"conv_transpose{x.ndim - 2}d")
    layer = {**row.keywords, "channels": "first", "workers": threads}
    out = cytconv.conv_transpose(x, w, **layer)
    scale = np.abs(out).max()
    assert np.abs(out - transposed(*tensors, **row.keywords).numpy()).max() < 100 * np.finfo(out.dtype).eps * scale
    calls = {
        "cytconv": lambda: cytconv.conv_transpose(x, w, **layer),
        "PyTorch": lambda: transposed(*tensors, **row.keywords),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(turn(call))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return {**seconds, "bytes": float(x.nbytes + w.nbytes + out.nbytes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    peak = {dtype: fma_peak(dtype, options.threads) for dtype in ("float32", "float64")}
    bandwidth = copy_bandwidth(options.threads)
    print(f"cytconv {cytconv.__version__} ({ISA}), PyTorch {torch.__version__}, {options.threads} threads, medians of")
    print(f"{options.rounds} rounds; FMA peak {peak['float32'] / 1e9:.0f} GFLOP/s float32, {peak['float64'] / 1e9:.0f}")
    print(f"float64; copy {bandwidth / 1e9:.1f} GB/s.  Times in ms; ratios say how many times faster than PyTorch.\n")
    print("| workload | dtype | cytconv | PyTorch | ratio | roofline |")
    print("|---|---|---|---|---|---|")
    for row in ROWS:
        t = compare(row, options.threads, options.rounds)
        limit = max(row.flops() / peak[row.dtype], t["bytes"] / bandwidth)
        own, peer = t["cytconv"], t["PyTorch"]
        times = f"{own * 1e3:.2f} | {peer * 1e3:.2f} | {peer / own:.1f} | {limit / own:.0%}"
        print(f"| {row.name} | {row.dtype} | {times} |", flush=True)


if __name__ == "__main__":
    main()
