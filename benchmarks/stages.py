"""Where the time of a call goes, for docs/how_it_works.md: stages by Linux's perf, and what each mechanism brings.

    python benchmarks/stages.py stages    # shares of packing, tile, store ... of one worker; needs `perf` (linux-perf)
    python benchmarks/stages.py compare   # methods, workers, instruction sets: medians of interleaved rounds

Each measurement runs in a process of its own, which this script starts as ``stages.py run LAYER READING SECONDS``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from statistics import median

import numpy as np

LAYERS = {  # name: shapes of x and w, keywords, dtype
    "U-Net, 256->128, 100x100; k2 s2": (
        (1, 256, 100, 100),
        (256, 128, 2, 2),
        {"stride": 2, "channels": "first"},
        "f4",
    ),
    "4, 64->64, 64x64; k3 s1 p1": ((4, 64, 64, 64), (64, 64, 3, 3), {"padding": 1, "channels": "first"}, "f4"),
    "64 depthwise, 128x128; k4 s2 p1": (
        (1, 64, 128, 128),
        (64, 1, 4, 4),
        {"stride": 2, "padding": 1, "groups": 64, "channels": "first"},
        "f4",
    ),
    "one channel float64, 1024x1024; k4 s2 p1": ((1024, 1024), (4, 4), {"stride": 2, "padding": 1}, "f8"),
}
READINGS = ("forward", "adjoint", "weights")

# Functions of the kernels by stage; what the compiler has made part of others is counted with these.
STAGES = {
    "pack": ("Planes", "fetch_ahead", "copy_line", "deal_", "clear_rows", "memset", "memmove", "memcpy"),
    "tile": (
        "multiply_panels",
        "Correlation_multiply",
        "dot_tiles",
        "WeightAdjoint_task",
        "WeightAdjoint_multiply",
        "tencil",
        "sum_lines",
        "sum_pixels",
        "WeightLines",
        "products_",
    ),
    "store": ("Correlation_store", "store_block", "zip_", "store_line"),
    "sums": ("Sums",),
    "weights": ("Weights", "pack_panel", "all_finite"),
}

# Rounds of each are interleaved: (environment, method, workers).
VARIANTS = {
    "auto, 2 workers": ({}, "auto", 2),
    "auto, 1 worker": ({}, "auto", 1),
    "direct, 2 workers": ({}, "direct", 2),
    "auto, 1 worker, AVX2": ({"CYTCONV_ISA": "avx2"}, "auto", 1),
    "auto, 1 worker, baseline": ({"CYTCONV_ISA": "baseline"}, "auto", 1),
}


def calls(layer: str, method: str, workers: int) -> dict:
    """The three readings of a layer, as functions."""
    import cytconv

    x_shape, w_shape, geometry, dtype = LAYERS[layer]
    geometry = geometry | {"method": method, "workers": workers}
    rng = np.random.default_rng(0)
    x, w = rng.random(x_shape).astype(dtype), rng.random(w_shape).astype(dtype)
    y = cytconv.conv_transpose(x, w, **geometry)
    taps = w_shape[-2:]
    return {
        "forward": lambda: cytconv.conv_transpose(x, w, **geometry),
        "adjoint": lambda: cytconv.conv_transpose_adjoint(y, w, **geometry),
        "weights": lambda: cytconv.conv_transpose_weight_adjoint(
            x, y, **geometry, kernel_shape=taps, **({"axes": (0, 1)} if len(w_shape) == 2 else {})
        ),
    }


def repeat(call, seconds: float) -> list[float]:
    """Times of calls, for so many seconds."""
    call()
    times, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - begin)
    return times


def stage_of(symbol: str) -> str:
    """The stage that a function of the kernels belongs to."""
    for stage, names in STAGES.items():
        if any(name in symbol for name in names):
            return stage
    return "other"


def stages() -> None:
    """A table of shares, by sampling; the first second, in which all is imported, is left out."""
    print("| layer | reading |", " | ".join([*STAGES, "other"]), "|")
    print("|---|---|" + "---:|" * (len(STAGES) + 1))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.NamedTemporaryFile(suffix=".data") as data:
        for layer in LAYERS:
            for reading in READINGS:
                run = [sys.executable, __file__, "run", layer, reading, "2.5"]
                record = ["perf", "record", "-q", "-D", "1200", "-F", "3000", "-o", data.name, *run]
                subprocess.run(record, env=environment, check=True, capture_output=True)
                report = ["perf", "report", "-i", data.name, "--stdio", "-q", "--sort", "symbol", "-F", "sample,symbol"]
                lines = subprocess.run(report, check=True, capture_output=True, text=True).stdout.splitlines()
                samples: Counter[str] = Counter()
                for count, symbol in (line.split(None, 1) for line in lines if line.strip()):
                    samples[stage_of(symbol)] += int(count)
                shares = [100 * samples[stage] / samples.total() for stage in [*STAGES, "other"]]
                print(f"| {layer} | {reading} |", " | ".join(f"{share:.0f}" for share in shares), "|", flush=True)


def compare(rounds: int = 3) -> None:
    """A table of milliseconds of the first variant, and how many times as long the others take."""
    times: dict[str, list[dict]] = {variant: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant, (environment, method, workers) in VARIANTS.items():
            run = [sys.executable, __file__, "times", method, str(workers)]
            found = subprocess.run(run, env=os.environ | environment, check=True, capture_output=True, text=True)
            times[variant].append(json.loads(found.stdout))
    first, *others = VARIANTS
    print(f"| layer | reading | {first}, ms |", " | ".join(others), "|")
    print("|---|---|" + "---:|" * len(VARIANTS))
    for layer in LAYERS:
        for reading in READINGS:
            medians = [median(r[layer][reading] for r in times[variant]) for variant in VARIANTS]
            ratios = " | ".join(f"{m / medians[0]:.2f}" for m in medians[1:])
            print(f"| {layer} | {reading} | {medians[0] * 1e3:.2f} | {ratios} |")


def main(what: str, *arguments: str) -> None:
    if what == "run":
        layer, reading, seconds = arguments
        repeat(calls(layer, "auto", 1)[reading], float(seconds))
    elif what == "times":
        method, workers = arguments
        found = {
            layer: {reading: median(repeat(call, 0.05)) for reading, call in calls(layer, method, int(workers)).items()}
            for layer in LAYERS
        }
        print(json.dumps(found))
    else:
        {"stages": stages, "compare": compare}[what]()


if __name__ == "__main__":
    main(*sys.argv[1:])
