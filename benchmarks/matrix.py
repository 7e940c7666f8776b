"""The sparse matrices: how fast they are filled, in how much memory, and how fast they multiply.

    python benchmarks/matrix.py [--rounds 7] [--quick] [--random 110] [--seed 0] [--vectors 1 1 3 8]

Filling is compared with a copy of the finished arrays, which is new memory; with the COO triples of all entries in
numpy, turned to CSR by scipy; and, dense, with `scipy.linalg.convolution_matrix`.  A matrix that is built again, with
other weights, is in memory that was used before if it takes 32 to 256 MiB; so filling new memory is timed, too.
Products are compared with scipy's own, by the same matrix; with `--random`, instead of all that, those of so many
random geometries, most of which have short lines, without the rest of a call of `ConvTranspose`.  All take turns, round
by round; times are medians.  Results are compared before they count.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from machine import copy_bandwidth, describe
from scaling import medians, table
from scipy.linalg import convolution_matrix
from scipy.sparse import coo_array, csr_array

import cytconv
from cytconv import _memory
from cytconv._geometry import Geometry
from cytconv._matrix import entries_of, matrix
from cytconv._runtime import resolve_workers
from cytconv._sparse import Sparse

GEOMETRIES = {  # name: shape of x, shape of w, the rest
    "2^18; k9 s2": ((2**18,), (9,), {"stride": 2}),
    "2^16; k101 s4": ((2**16,), (101,), {"stride": 4}),
    "256x256; k9 s2": ((256, 256), (9, 9), {"stride": 2}),
    "512x512; k3 s1": ((512, 512), (3, 3), {}),
    "48^3; k4 s2": ((48, 48, 48), (4, 4, 4), {"stride": 2}),
    "16->16, 64x64; k3 s2": ((16, 64, 64), (16, 16, 3, 3), {"stride": 2, "channels": "first"}),
    "32->16, 40x40; k3 s1": ((32, 40, 40), (32, 16, 3, 3), {"channels": "first"}),
}
QUICK = {"30x31; k3 s2": ((30, 31), (3, 3), {"stride": 2})}


def numpy_coo(w: np.ndarray, shape: tuple[int, ...], *, stride: int = 1, channels: str | None = None) -> csr_array:
    """The same matrix by triples ``(o, i, k)``, all at once: what one would write without this library."""
    spatial, kernel = (shape[1:], w.shape[2:]) if channels else (shape, w.shape)
    weights = w if channels else w[None, None]
    full = [(n - 1) * stride + k for n, k in zip(spatial, kernel, strict=True)]
    sizes = (*weights.shape[:2], *spatial, *kernel)
    c_in, c_out, *rest = np.indices(sizes, np.int32, sparse=True)
    i, k = rest[: len(spatial)], rest[len(spatial) :]
    row, column = c_out, c_in
    for a, n in enumerate(spatial):
        row = row * full[a] + i[a] * stride + k[a]
        column = column * n + i[a]
    row, column = (np.broadcast_to(index, sizes).ravel() for index in (row, column))
    data = np.broadcast_to(weights.reshape(*weights.shape[:2], *(1,) * len(spatial), *kernel), sizes).ravel()
    return coo_array((data, (row, column)), (weights.shape[1] * math.prod(full), math.prod(shape))).tocsr()


def peak(work: Callable[[], Any]) -> int:
    """Bytes that `work` takes at most, its result included."""
    _memory.forget()
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def in_new_memory(work: Callable[[], Any]) -> Any:
    _memory.forget()
    return work()


def fill(rounds: int, geometries: dict[str, Any], bandwidth: float) -> None:
    rows = []
    rng = np.random.default_rng(0)
    for (name, (shape, w_shape, kwargs)), format in product(geometries.items(), ("csr", "csc", "coo", "bsr")):
        w, options = rng.standard_normal(w_shape), {**kwargs, "format": format}
        if format == "bsr":
            if "channels" not in kwargs:
                continue
            shape, options["channels"] = (*shape[1:], shape[0]), "last"
        ours, by_numpy = (
            partial(cytconv.conv_transpose_matrix, w, shape, **options),
            partial(numpy_coo, w, shape, **kwargs),
        )
        if format == "csr":
            assert abs(ours() - by_numpy()).max() == 0
        result = ours()
        arrays = [result.data, *(result.coords if format == "coo" else (result.indices, result.indptr))]
        size, entries = sum(a.nbytes for a in arrays), result.data.size
        copies = partial(lambda arrays: [a.copy() for a in arrays], arrays)
        calls = [ours, partial(in_new_memory, ours), copies, *([by_numpy] if format == "csr" else [])]
        time, new, copied, *others = medians(calls, rounds)
        rates = [f"{size / t / (bandwidth / 2):.0%}" for t in (time, new)]
        ratios = [copied / new, others[0] / time if others else "-", others[0] / new if others else "-"]
        rows.append(
            [name, format, entries, time * 1e3, entries / time / 1e6, *rates, *ratios, f"{peak(ours) / size - 1:.1%}"]
        )
    columns = ["geometry", "format", "entries", "ms", "million entries a second", "written, of what a copy writes"]
    columns += ["in new memory", "a copy to new memory takes so many times longer", "numpy COO to CSR", "in new memory"]
    columns += ["memory beside the result"]
    table(f"Filling; a copy between warm arrays writes {bandwidth / 2e9:.1f} GB/s, and reads as much", columns, rows)


def dense(rounds: int, sizes: list[tuple[int, int]]) -> None:
    """One axis without stride: the matrix that scipy has, which is dense."""
    rows = []
    rng = np.random.default_rng(0)
    for n, taps in sizes:
        w = rng.standard_normal(taps)
        ours, theirs = partial(cytconv.conv_transpose_matrix, w, n), partial(convolution_matrix, w, n)
        np.testing.assert_array_equal(ours().toarray(), theirs())
        time, scipy_time = medians([ours, theirs], rounds)
        rows.append([f"{n}; k{taps}", time * 1e3, scipy_time * 1e3, scipy_time / time])
    table(
        "Beside scipy.linalg.convolution_matrix",
        ["geometry", "CSR, ms", "scipy, dense, ms", "so many times longer"],
        rows,
    )


def products(rounds: int, geometries: dict[str, Any], bandwidth: float) -> None:
    rows = []
    rng = np.random.default_rng(0)
    for name, (shape, w_shape, kwargs) in geometries.items():
        for dtype, count in product((np.float32, np.float64, np.complex128), (1, 8)):
            operator = cytconv.ConvTranspose(
                rng.standard_normal(w_shape).astype(dtype), shape, method="sparse", **kwargs
            )
            matrix = operator.tosparse()
            x, y = (rng.standard_normal((size, count)).astype(dtype).squeeze() for size in matrix.shape[::-1])
            adjoint, by_columns = operator.H, matrix.conj().T  # a CSR array read by columns: no second matrix
            np.testing.assert_allclose(operator @ x, matrix @ x, atol=1e-3)
            np.testing.assert_allclose(adjoint @ y, by_columns @ y, atol=1e-3)
            calls = [
                partial(a.__matmul__, v)
                for v, pair in ((x, (operator, matrix)), (y, (adjoint, by_columns)))
                for a in pair
            ]
            forward, scipy_forward, back, scipy_back = medians(calls, rounds)
            size = matrix.data.nbytes  # all that there is to read where the operator keeps it by diagonals
            times = [
                column
                for ours, scipys in ((forward, scipy_forward), (back, scipy_back))
                for column in (ours * 1e3, scipys / ours, f"{size / ours / bandwidth:.0%}")
            ]
            rows.append([name, np.dtype(dtype).name, count, *times])
    columns = ["geometry", "dtype", "vectors"]
    for direction in ("forward", "adjoint"):
        columns += [f"{direction}, ms", "scipy takes so many times longer", "entries read, of what a copy moves"]
    table("Products", columns, rows)


def random_geometry(rng: np.random.Generator, counts: Sequence[int]) -> tuple[Geometry, np.dtype[Any], int]:
    """One of 20,000 to 8 million entries, a type, and one of these numbers of vectors: not many of both."""
    while True:
        axes = int(rng.integers(1, 5))
        largest, most = ((20000, 130), (200, 30), (40, 9), (9, 5))[axes - 1]
        shape, kernel = (np.exp(rng.uniform(0, math.log(top), axes)).astype(int).tolist() for top in (largest, most))
        stride, dilation = rng.integers(1, 5, axes).tolist(), int(rng.choice([1, 1, 1, 2]))
        channels = np.exp(rng.uniform(0, math.log(40), 2)).astype(int).tolist() if rng.random() < 0.4 else [1, 1]
        geometry = Geometry.forward(
            (channels[0], *shape), (*channels, *kernel), stride=stride, dilation=dilation, channels="first"
        )
        if 2 * 10**4 < entries_of(geometry) < 8 * 10**6:
            dtype = np.dtype(rng.choice([np.float32, np.float64, np.complex64, np.complex128]))
            vectors = int(rng.choice(counts))
            if vectors * entries_of(geometry) < 10**8:
                return geometry, dtype, vectors


def random_products(rounds: int, count: int, seed: int, counts: Sequence[int]) -> None:
    rng, workers = np.random.default_rng(seed), resolve_workers(None)
    ratios: dict[tuple[str, str], list[float]] = {}
    slow = []
    for _ in range(count):
        geometry, dtype, vectors = random_geometry(rng, counts)
        w = rng.standard_normal(geometry.w_shape).astype(dtype)
        kept, csr = Sparse(geometry.axes, geometry.split_w(w)), matrix(geometry, w)
        by_columns = csr.conj().T
        for direction, scipys in (("forward", csr), ("adjoint", by_columns)):
            v = rng.standard_normal((scipys.shape[1], vectors)).astype(dtype)
            result = np.empty((scipys.shape[0], vectors), dtype)
            real = [a.view(w.real.dtype) for a in (v, result)]
            ours = partial(kept.product, *real, direction == "adjoint", workers)
            ours()
            np.testing.assert_allclose(result, scipys @ v, rtol=1e-2, atol=1e-2)
            times = medians([ours, partial(scipys.__matmul__, v)], rounds)
            ratio = times[1] / times[0]
            ratios.setdefault((direction, "one" if vectors == 1 else "several"), []).append(ratio)
            if ratio < 1:
                strides = [axis.stride for axis in geometry.axes]
                what = direction, geometry.x_shape, geometry.w_shape, strides, dtype.name, vectors
                slow.append([*what, times[0] * 1e3, ratio])
    rows = [
        [*key, len(v), statistics.geometric_mean(v), min(v), sum(r < 1.6 for r in v), sum(r < 1 for r in v)]
        for key, v in sorted(ratios.items())
    ]
    columns = ["direction", "vectors", "products", "scipy takes so many times longer", "least", "below 1.6", "below 1"]
    table(f"Products of {count} random geometries", columns, rows)
    table("Where scipy was faster", ["direction", "x", "w", "stride", "dtype", "vectors", "ms", "scipy"], slow)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round of one small geometry")
    parser.add_argument("--random", type=int, default=0, help="products of so many random geometries, instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vectors", type=int, nargs="+", default=[1, 1, 3, 8], help="at random, one of these numbers")
    options = parser.parse_args()
    rounds, geometries = (1, QUICK) if options.quick else (options.rounds, GEOMETRIES)
    machine = describe()
    print(f"{machine['cpu']}, {machine['cpus']} CPUs, {resolve_workers(None)} workers, medians of {rounds} rounds.")
    if options.random:
        random_products(rounds, options.random, options.seed, options.vectors)
        return
    bandwidth = copy_bandwidth(resolve_workers(None))
    fill(rounds, geometries, bandwidth)
    dense(rounds, [(30, 3)] if options.quick else [(200, 9), (2000, 9), (2000, 101), (8000, 101)])
    products(rounds, geometries, bandwidth)


if __name__ == "__main__":
    main()
