"""Whether `choose_method` names the fastest method, and "auto" takes it: random geometries, each method measured.

    python benchmarks/choice.py [--count 300] [--seed 0] [--calibrate]

Geometries have one to four axes, kernels of 1 to 129 taps, strides of 1 to 8, with and without channels, in single and
double precision; none takes a method more than some seconds.  A choice is good if it is the fastest method or one that
takes at most 10 % longer.  The regret is how much longer the method takes that was chosen.  "auto" has the choice
between "direct" and "fft" alone, and no measurements of the machine.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import Any

import numpy as np
from machine import describe
from scaling import table

from cytconv import _choice, choose_method
from cytconv._auto import takes_fft
from cytconv._geometry import Geometry
from cytconv._matrix import entries_of

MOST = 3 * 10**9  # products, of the definition
LARGEST = 2**22  # numbers of x or y
MATRIX = 10**7  # entries; a larger matrix is never the fastest for one call, and is not made


def geometry(rng: np.random.Generator) -> tuple[Any, Any, dict[str, Any], Geometry]:
    """Arrays and keywords of a call that is not too large; sizes are spread by their logarithms."""
    while True:
        axes = int(rng.integers(1, 5))
        most = (129, 129, 33, 9)[axes - 1]
        kernel = np.exp(rng.uniform(0, math.log(most + 0.99), axes)).astype(int).tolist()
        if rng.random() < 0.7:
            kernel = [kernel[0]] * axes
        largest = (2**18, 800, 90, 24)[axes - 1]
        shape = np.exp(rng.uniform(math.log(4), math.log(largest), axes)).astype(int).tolist()
        if rng.random() < 0.7:
            shape = [shape[0]] * axes
        stride = int(rng.integers(1, 9))
        keywords: dict[str, Any] = {"stride": stride, "channels": None}
        w_shape = kernel
        if rng.random() < 0.4:
            c_in, c_out = np.exp(rng.uniform(0, math.log(64), 2)).astype(int).tolist()
            keywords["channels"], shape, w_shape = "first", [c_in, *shape], [c_in, c_out, *kernel]
        fixed = Geometry.forward(tuple(shape), tuple(w_shape), **keywords)
        if entries_of(fixed) <= MOST and max(math.prod(fixed.x_shape), math.prod(fixed.y_shape)) <= LARGEST:
            dtype = np.float32 if rng.random() < 0.5 else np.float64
            return *(rng.standard_normal(size).astype(dtype) for size in (shape, w_shape)), keywords, fixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calibrate", action="store_true", help="measure the constants of the model first")
    options = parser.parse_args()
    if options.calibrate:
        _choice.calibrate()

    rng = np.random.default_rng(options.seed)
    regrets: dict[str, list[float]] = {"choose_method": [], '"auto"': []}
    fastest, misses = dict.fromkeys(("direct", "fft", "sparse"), 0), []
    for _ in range(options.count):
        x, w, keywords, fixed = geometry(rng)
        chosen = choose_method(x, w, **keywords)
        names = {"direct", "fft", chosen} | ({"sparse"} if entries_of(fixed) <= MATRIX else set())
        auto = "fft" if takes_fft("forward", fixed.axes, fixed.split_x(x), fixed.split_w(w)) else "direct"
        times = _choice.measured(x, w, sorted(names), keywords)
        best = min(times, key=times.__getitem__)
        fastest[best] += 1
        for name, took in zip(regrets, (chosen, auto), strict=True):
            regrets[name].append(times[took] / times[best] - 1)
            if regrets[name][-1] > 0.1:
                milliseconds = ", ".join(f"{name} {seconds * 1e3:.3g}" for name, seconds in times.items())
                misses.append([name, x.shape, w.shape, keywords["stride"], x.dtype.name, took, milliseconds])
    machine = describe()
    print(f"{machine['cpu']}, {machine['cpus']} CPUs: {options.count} geometries, of which {fastest} are fastest")
    for name, each in regrets.items():
        good = sum(regret <= 0.1 for regret in each) / len(each)
        print(f"{name}: {good:.1%} good; regret: mean {statistics.mean(each):.1%}, most {max(each):.0%}")
    table("Not good", ["by", "x", "w", "stride", "dtype", "took", "ms"], sorted(misses, key=lambda row: row[0]))


if __name__ == "__main__":
    main()
