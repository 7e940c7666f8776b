"""Which method is the fastest: a model of the cost of each, with constants measured on this machine.

The time of a call is taken to be a sum of amounts, each at a price of its own::

    "direct"   a call, bytes multiplied, packed, of results and of weights
    "fft"      a call, bytes of butterflies and of results
    "sparse"   a call, bytes of entries and results where the matrix is kept by diagonals, or by rows

where the amounts come from the plans of the methods themselves, and those that threads share are divided by their
number.  `calibrate` measures some calls of each method and finds the prices, non-negative, that fit them best in
proportion.  They are kept in a file in the user's cache directory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import __version__, _taps
from ._api import coerce, conv_transpose
from ._auto import DEFINITION
from ._direct import is_better_swapped, plan_of, swapped
from ._geometry import Channels, Geometry, Ints, Padding
from ._matrix import entries_of
from ._methods import METHODS
from ._problem import parts_in
from ._runtime import ISA, available_cpus, resolve_workers, team
from ._sparse import has_diagonals
from ._tiles import plan_of as fft_plan

__all__ = ["cache_file", "calibrate", "choose_method"]

Array = NDArray[Any]
Prices = dict[str, list[float]]  # seconds of each amount of a method

ROUNDS = 3  # of a measurement, after one that does not count
SHARED = 0.4  # power of the number of threads by which transforms gain from them: they share one interpreter


# ---- the public function -----------------------------------------------------------------------------


def choose_method(
    x: ArrayLike,
    w: ArrayLike,
    *,
    measure: bool = False,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_shape: Ints | None = None,
    dilation: Ints = 1,
    groups: SupportsIndex = 1,
    channels: Channels = None,
    axes: Ints | None = None,
    workers: SupportsIndex | None = None,
) -> Any:
    """Which of the three methods is the fastest for one call of `conv_transpose`.

    Without `measure` it is predicted by a model of the cost of each method.  Its constants are measured on this machine
    when they are needed first, which takes up to some ten seconds, and kept in the user's cache directory
    (``CYTCONV_CACHE`` names another).  ``python -m cytconv calibrate`` measures them anew.

    Parameters
    ----------
    x, w : array_like
        As in `conv_transpose`; only their shapes and types matter.
    measure : bool, optional
        Time each method on these arrays instead.
    stride, padding, output_padding, output_shape, dilation, groups, channels, axes, workers : optional
        As in `conv_transpose`.

    Returns
    -------
    method : {"direct", "fft", "sparse"}
        The fastest of the three.  The default, "auto", takes "direct" or "fft" by sizes alone, where this knows the
        machine; and as "direct" it may save multiplications at the cost of some precision.
    times : dict of str to float
        Only with `measure`: median seconds of each method, infinity for a matrix that does not fit in memory.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As `conv_transpose`.

    See Also
    --------
    compare_methods : all costs of each method, set-up and memory too.

    Notes
    -----
    The model follows ``scipy.signal.choose_conv_method``, for any stride and any number of axes and channels.  The
    matrix is taken to be made for the one call; `ConvTranspose` keeps it.

    Examples
    --------
    >>> import numpy as np
    >>> from cytconv import choose_method
    >>> x, w = np.ones((20, 20)), np.ones((2, 2))
    >>> method, times = choose_method(x, w, stride=2, measure=True)
    >>> sorted(times), method == min(times, key=times.get)
    (['direct', 'fft', 'sparse'], True)
    """
    (x, w), _, dtype = coerce(x=x, w=w)
    threads = resolve_workers(workers)
    keywords: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "output_shape": output_shape,
        "dilation": dilation,
        "groups": groups,
        "channels": channels,
        "axes": axes,
    }
    # They are read more than once, which an iterator could not be.
    keywords = {name: tuple(each) if isinstance(each, Iterator) else each for name, each in keywords.items()}
    geometry = Geometry.forward(x.shape, w.shape, **keywords)
    if measure:
        times = measured(x, w, METHODS, {**keywords, "workers": workers})
    else:
        times = predict(geometry, dtype, threads, prices())
    method = min(times, key=times.__getitem__)
    return (method, times) if measure else method


# ---- the model ---------------------------------------------------------------------------------------


def predict(geometry: Geometry, dtype: np.dtype[Any], workers: int, prices: Prices) -> dict[str, float]:
    """Seconds of each method, infinity where it would leave the call to another."""
    return {
        name: sum(price * amount for price, amount in zip(prices[name], amounts, strict=True)) if amounts else math.inf
        for name, amounts in amounts_of(geometry, dtype, workers).items()
    }


def amounts_of(geometry: Geometry, dtype: np.dtype[Any], workers: int) -> dict[str, list[float]]:
    """What the prices of each method are for; nothing where it would leave the call to another."""
    axes, real = geometry.axes, parts_in(dtype)
    x = geometry.split_x(_phantom(geometry.x_shape, dtype))
    w = geometry.split_w(_phantom(geometry.w_shape, dtype))
    y = geometry.split_y(_phantom(geometry.y_shape, dtype))
    products = _taps.products(axes) * math.prod(x.shape[: -len(axes)]) * w.shape[2] if x.size and y.size else 0
    threads = team(workers, workers, products * real**2)

    along, samples, weights, outputs = axes, x, w, y
    if is_better_swapped("forward", axes, x, w):
        along, samples, weights, outputs = swapped(axes, x, w, y)
    plan = plan_of("forward", along, samples, outputs, "padded") if products else None
    work, packed = (plan.work, plan.packed) if plan else (DEFINITION * products * real**2, 0)
    size = dtype.itemsize // real
    shared = [work * size, packed * size, y.nbytes, w.nbytes]
    direct = [1.0, *(amount / threads for amount in shared)]

    transforms = fft_plan("forward", axes, x.shape, w.shape) if products else None
    if transforms:
        gain = transforms.threads(workers, math.prod(geometry.batch)) ** SHARED
        fft = [1.0, transforms.steps * dtype.itemsize / gain, y.nbytes / gain]
    else:
        fft = []
    rows, entries = math.prod(geometry.y_shape), entries_of(geometry)
    by_diagonals_or_rows = (1, 0) if has_diagonals(axes, w.shape) else (0, 1)
    return {
        "direct": direct,
        "fft": fft,
        "sparse": [1.0, *(kept * (entries + rows) * dtype.itemsize / threads for kept in by_diagonals_or_rows)],
    }


def _phantom(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array for plans, which look at shapes and strides only: it has no memory behind it."""
    strides = [dtype.itemsize * math.prod(shape[a + 1 :]) for a in range(len(shape))]
    return np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, strides)


# ---- its prices --------------------------------------------------------------------------------------

# (input_shape, w_shape, stride): both sides of the border between "direct" and "fft", small and large, of any kind.
SAMPLES: list[tuple[tuple[int, ...], tuple[int, ...], int]] = [
    *(((n,) * axes, (1,) * axes, s) for n, axes, s in [(40000, 1, 5), (150, 2, 8), (20, 3, 4), (8, 4, 6)]),
    *(((n,), (k,), s) for n, k, s in [(300, 5, 1), (4000, 33, 2), (20000, 129, 1), (100000, 65, 4), (200000, 9, 2)]),
    *(((60, 50), (k, k), s) for k, s in [(3, 1), (9, 2), (25, 1), (49, 4)]),
    *(((250, 200), (k, k), s) for k, s in [(3, 2), (7, 1), (17, 1), (21, 2), (33, 4), (45, 1), (65, 2)]),
    *(((600, 500), (k, k), s) for k, s in [(3, 1), (15, 2), (31, 1)]),
    *(((30, 30, 30), (k, k, k), s) for k, s in [(3, 1), (5, 2), (9, 1), (13, 2)]),
    *(((9, 9, 9, 9), (k, k, k, k), s) for k, s in [(3, 1), (5, 1)]),
    *(((8, n, n), (8, 8, k, k), s) for n, k, s in [(20, 3, 1), (60, 9, 2), (60, 25, 1), (120, 5, 2)]),
]
MATRIX = 3 * 10**6  # entries that are made to be measured, at most


def calibrate(progress: Callable[[int, int, str], object] | None = None) -> Prices:
    """Measure the prices on this machine, which takes some seconds, and keep them in `cache_file`."""
    from scipy.optimize import nnls  # takes long to import

    workers = resolve_workers(None)
    rows: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    rng = np.random.default_rng(0)
    cases = [(*sample, dtype) for sample in SAMPLES for dtype in (np.float32, np.float64)]
    for done, (shape, w_shape, stride, dtype) in enumerate(cases):
        if progress is not None:
            progress(done, len(cases), "x".join(map(str, shape)))
        x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
        keywords: dict[str, Any] = {"stride": stride, "channels": "first" if len(w_shape) > len(shape) else None}
        geometry = Geometry.forward(x.shape, w.shape, **keywords)
        few = entries_of(geometry) <= MATRIX
        amounts = amounts_of(geometry, x.dtype, workers)
        names = [name for name in METHODS if amounts[name] and (name != "sparse" or few)]
        times = measured(x, w, names, keywords)
        for name, seconds in times.items():
            rows[name].append([amount / seconds for amount in amounts[name]])  # errors in proportion to the time
    if progress is not None:
        progress(len(cases), len(cases), "")
    prices = {name: nnls(np.array(a), np.ones(len(a)))[0].tolist() for name, a in rows.items()}
    _known[_key()] = prices
    _write(prices)
    return prices


def is_kept() -> bool:
    """Whether the file has the prices that this process knows."""
    return _read() == _known.get(_key())


def measured(x: Array, w: Array, names: Iterable[str], keywords: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a call by each method, which take turns; infinity for a matrix that is too large."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS + 1):
        for name, seconds in times.items():
            if math.inf in seconds:
                continue
            start = time.perf_counter()
            try:
                conv_transpose(x, w, **keywords, method=name)
                elapsed = time.perf_counter() - start
            except MemoryError:
                elapsed = math.inf
            if turn or elapsed == math.inf:  # the first call makes plans
                seconds.append(elapsed)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def prices() -> Prices:
    """Those of this machine: known, kept in the file, or measured now."""
    if _key() not in _known:
        kept = _read()
        if kept is None:
            return calibrate()
        _known[_key()] = kept
    return _known[_key()]


_known: dict[str, Prices] = {}


def _key() -> str:
    """What the prices depend on."""
    return f"{__version__} {platform.machine()} {ISA} {available_cpus()} CPUs {resolve_workers(None)} workers"


def cache_file() -> Path:
    """Where the prices are kept: ``CYTCONV_CACHE``, or a directory below that of the user's caches."""
    if folder := os.environ.get("CYTCONV_CACHE"):
        return Path(folder, "prices.json")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "cytconv", "prices.json")


def _read() -> Prices | None:
    """What the file has for this machine, if it is there and sound."""
    try:
        prices = json.loads(cache_file().read_text())[_key()]
        prices = {name: [float(price) for price in each] for name, each in prices.items()}
        sizes = {name: len(each) for name, each in prices.items() if all(0 <= price < math.inf for price in each)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError):
        return None
    return prices if sizes == {"direct": 5, "fft": 3, "sparse": 3} else None


def _write(prices: Prices) -> None:
    """Put the prices into the file, whole or not at all; without one where none can be written."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no home
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            known = json.loads(path.read_text())
            known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            known = {}
        known[_key()] = prices
        # Another process that does the same at this time replaces the file, too: one of the two is kept.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder, path.name)
            whole.write_text(json.dumps(known, indent=1))
            whole.replace(path)
