"""How method "direct" plans: every way to do the work is forced, and none of it keeps or takes too much."""

import gc
import math
import sys
import threading
import tracemalloc
from collections import deque

import numpy as np
import pytest
import reference
import scipy.fft  # noqa: F401  # which else would load where memory is counted
from reference import assert_exact, integers, uniform

from cytconv import (
    ConvTranspose,
    _boxes,
    _correlation,
    _direct,
    _layout,
    _lines,
    _memory,
    _runtime,
    _stencil,
    _taps,
    _ways,
    _weight_lines,
    _weights,
    _winograd,
    conv,
    conv_transpose,
    conv_transpose_adjoint,
    conv_transpose_weight_adjoint,
)
from cytconv._geometry import Axis
from cytconv._phases import split_axis
from cytconv._problem import Problem
from cytconv.kernels import recall, tables
from cytconv.kernels.tables import run_times

CACHES = [
    _correlation.correlation,
    _layout.layout,
    _layout.price,
    _stencil.stencil,
    _lines._rows,
    _weight_lines.weight_lines,
    _weights.weight_adjoint,
    _taps.products,
]

CASES = [
    # x, w, keywords
    ((70,), (5,), {"stride": 2, "padding": 1}),
    ((50,), (2,), {"stride": 5, "padding": ((-3, 2),)}),
    ((19, 33), (4, 4), {"stride": 2, "padding": 1}),
    ((9, 33), (3, 2), {"stride": (2, 3), "dilation": (3, 2), "padding": ((2, -1), (0, 3))}),
    ((2, 5, 7, 30), (5, 3, 3, 3), {"channels": "first", "stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 7, 30, 6), (6, 4, 3, 2), {"channels": "last", "stride": 2, "groups": 2}),
    ((2, 5, 19, 11), (11, 9, 3, 4), {"channels": "last", "padding": 1}),  # by vectors of channels
    ((1, 3, 18, 37), (37, 18, 2, 3), {"channels": "last", "stride": 2}),
    ((4, 3, 17), (2, 3), {"axes": (2, 0), "stride": (3, 1)}),
    ((1, 6, 1, 1), (6, 5, 4, 4), {"channels": "first"}),
]


@pytest.fixture
def fresh_plans():
    """Plans made with settings that a test changes, and none of them kept."""

    def forget():
        recall.forget()
        for cache in CACHES:
            cache.cache_clear()

    forget()
    yield forget
    forget()


@pytest.fixture
def tables_made(monkeypatch, fresh_plans):
    """The tables of every plan that goes by boxes or lines."""
    made = []

    def noted(make):
        def plan(*arguments, **tables):
            made.append(tables)
            return make(*arguments, **tables)

        return plan

    for module in {_runtime.kernels(np.dtype(real)) for real in "fd"}:
        for name in ("Correlation", "Stencil"):
            monkeypatch.setattr(module, name, noted(getattr(module, name)))
    return made


def past_caches(monkeypatch, least):
    """Write results of so many bytes past the caches."""
    for name in ("STREAM_BYTES", "ROOM_BYTES"):
        monkeypatch.setattr(_correlation, name, least)


def problem_of(module, axes, source_shape, result_shape):
    """A forward one, of contiguous arrays ``(*batch, groups, channels, *spatial, parts)``."""
    strides = [tuple(math.prod(shape[a + 1 :]) for a in range(len(shape))) for shape in (source_shape, result_shape)]
    (*batch, groups, sources), results = source_shape[: -len(axes) - 1], result_shape[-len(axes) - 2]
    parts = source_shape[-1]
    return Problem(module, "forward", axes, tuple(batch), groups, sources * parts, results * parts, parts, *strides)


def check(rng, x_shape, w_shape, kwargs, dtype, scale=1):
    """All readings against the definition, with integers, so that every way of summing gives the same."""
    x, w = integers(rng, x_shape, dtype), scale * integers(rng, w_shape, dtype)
    y = reference.conv_transpose(x, w, **kwargs)
    out = np.full(y.shape, np.nan, dtype)
    assert_exact(conv_transpose(x, w, out=out, **kwargs), y, dtype)  # weights are packed before
    assert_exact(conv_transpose(x, w, **kwargs), y, dtype)
    strided = np.full((*y.shape, 2), np.nan, dtype)
    assert_exact(conv_transpose(x, w, out=strided[..., 1], **kwargs), y, dtype)
    y = y.astype(dtype, order="C")
    n = x_shape[1:-1] if kwargs.get("channels") == "last" else x_shape[-(len(w_shape) - 2) :]
    n = n if "channels" in kwargs else [x_shape[a] for a in kwargs.get("axes", range(len(x_shape)))]
    adjoint = reference.conv_transpose_adjoint(y, w, input_shape=n, **kwargs)
    assert_exact(conv_transpose_adjoint(y, w, input_shape=n, **kwargs), adjoint, dtype)
    taps = w_shape[2:] if "channels" in kwargs else w_shape
    weights = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs)
    assert_exact(conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs), weights, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), CASES, ids=str)
class TestEveryWay:
    @pytest.fixture(autouse=True)
    def boxes(self, monkeypatch):
        """In boxes, what would go by lines as well."""
        monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
        monkeypatch.setattr(_direct, "weight_lines", lambda *_: None)

    def test_past_the_caches(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, tables_made):
        past_caches(monkeypatch, -1)
        monkeypatch.setattr(_correlation, "STREAM_LINE", 0)
        check(rng, x_shape, w_shape, kwargs, dtype)
        groups = kwargs.get("groups", 1)  # of channels that come last, each has a part of every line
        assert any(tables["past_caches"] for tables in tables_made) == (groups == 1)

    def test_small_boxes(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, tables_made):
        for module in (_boxes, _weights):
            monkeypatch.setattr(module, "SOURCE_BYTES", 1)
        monkeypatch.setattr(_boxes, "ENOUGH", 1)
        monkeypatch.setattr(_weights, "STRIP_BYTES", 1)
        monkeypatch.setattr(_ways, "ROWS", 3)
        monkeypatch.setattr(_layout, "STRIP_BYTES", 1)
        monkeypatch.setattr(_layout, "STRIPS", True)
        check(rng, x_shape, w_shape, kwargs, dtype)
        several = any(len(tables["group_row"]) > 2 or max(tables["counts"]) > 1 for tables in tables_made)
        assert several or math.prod(x_shape[-2:]) <= 70  # else a tile is wider

    @pytest.mark.parametrize("fetches", [False, True])
    def test_on_other_cpus(self, rng, x_shape, w_shape, kwargs, dtype, fetches, monkeypatch, fresh_plans):
        """That fetch what comes next by themselves or do not, and copy strips for the fewest panels or never."""
        monkeypatch.setattr(_boxes, "FETCHES", fetches)
        for module in (_correlation, _weights):
            monkeypatch.setattr(module, "PER_CYCLE", 1 + fetches)
        monkeypatch.setattr(_correlation, "COPIED", int(fetches))
        check(rng, x_shape, w_shape, kwargs, dtype)

    def test_folded(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, tables_made):
        monkeypatch.setattr(_ways, "LITTLE", -1)
        monkeypatch.setattr(_ways, "FOLD", 5)
        monkeypatch.setattr(_direct, "is_wasteful", lambda *_: False)
        monkeypatch.setattr(_ways, "GAIN", 100)
        kwargs = {name: value for name, value in kwargs.items() if name not in ("stride", "dilation", "output_padding")}
        check(rng, x_shape, w_shape, kwargs, dtype)
        parts, groups = (2 if np.dtype(dtype).kind == "c" else 1), kwargs.get("groups", 1)
        many = "channels" in kwargs and parts * min(w_shape[0] // groups, w_shape[1]) >= _ways.FOLD
        assert any(tables["check"] for tables in tables_made) or many

    @pytest.mark.parametrize("way", range(4))
    def test_fewer_multiplications(self, rng, x_shape, w_shape, kwargs, dtype, way, monkeypatch, fresh_plans):
        """Weights are multiples of four, so that halves and quarters of their sums are exact."""
        chosen = []

        def one_way(splits, block):
            ways = _winograd.mixtures(splits, block)[way % 2 :: 2] if block == _winograd.BLOCKS[way // 2] else []
            chosen.extend(ways)
            return ways

        for module in (_ways, _weights):
            monkeypatch.setattr(module, "mixtures", one_way)
            monkeypatch.setattr(module, "MIXED", 0)
            monkeypatch.setattr(module, "MIXED_LEAST", 0)
        for module in (_ways, _correlation, _weights):
            monkeypatch.setattr(module, "MIXED_GAIN", np.inf)
        monkeypatch.setattr(_winograd, "SHORT", 0)
        monkeypatch.setattr(_winograd, "LINE", 0)
        monkeypatch.setattr(_direct, "is_better_swapped", lambda *_: False)
        check(rng, x_shape, w_shape, kwargs, dtype, scale=4)
        several = len(w_shape) - 2 * ("channels" in kwargs) > 1
        assert chosen or not several or min(x_shape[-2:]) == 1

    def test_many_tasks(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, tables_made):
        for module in (_ways, _correlation):
            monkeypatch.setattr(module, "workers_for", lambda _: 64)
        check(rng, x_shape, w_shape, kwargs, dtype)
        assert tables_made
        assert all(math.prod(tables["counts"]) * (len(tables["group_row"]) - 1) >= 20 for tables in tables_made)

    def test_order_of_axes(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, tables_made):
        """Batch axes within others, wherever they can be."""
        monkeypatch.setattr(_boxes, "SMALL", np.inf)
        monkeypatch.setattr(_boxes, "ARRANGED", np.inf)
        changed = []

        def noted(dims, box_of):
            order, *others = _boxes.arranged(dims, box_of)
            changed.append(order != dims)
            return (order, *others)

        for module in (_correlation, _weights):
            monkeypatch.setattr(module, "arranged", noted)
        check(rng, x_shape, w_shape, kwargs, dtype)
        images = x_shape[0] if "channels" in kwargs else 1
        assert any(changed) or images == 1 or len(w_shape) - 2 < 2 or kwargs.get("channels") == "last"

    def test_short_runs(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, tables_made):
        """A line each; some leave out taps, as `test_small_images` does."""
        monkeypatch.setattr(_correlation, "RUN", -1e9)
        check(rng, x_shape, w_shape, kwargs, dtype)
        assert all(tables["flat"] == len(tables["extent"]) - 1 for tables in tables_made)

    def test_by_the_definition(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, fresh_plans):
        monkeypatch.setattr(_direct, "is_wasteful", lambda *_: True)
        check(rng, x_shape, w_shape, kwargs, dtype)


# ---- small images in a batch --------------------------------------------------------------------------------

SMALL_IMAGES = [
    ((20, 6, 4, 5), (6, 5, 4, 4), {"channels": "first", "stride": 2, "padding": 1}),
    ((9, 2, 5, 3, 4), (2, 3, 3, 2, 3), {"channels": "first", "dilation": (2, 1, 1), "padding": (2, 0, 1)}),
    ((12, 4, 4, 6), (6, 4, 3, 3), {"channels": "last", "groups": 2, "padding": 2, "stride": (1, 3)}),
    ((5, 3, 3, 2, 4, 3), (3, 4, 2, 3, 2, 3), {"channels": "first", "padding": (1, 1, 0, 1)}),
]


@pytest.mark.parametrize("run", [-1e9, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), SMALL_IMAGES, ids=str)
def test_small_images(rng, x_shape, w_shape, kwargs, dtype, run, monkeypatch, tables_made):
    """In any order of the axes; runs leave out what reads only zeros."""
    orders = []

    def in_turn(dims, box_of):
        count = sum(dim.axis >= 0 for dim in dims)
        a = len(orders) % count + 1  # as many axes of the kernel come before those of the batch
        order = sorted(dims, key=lambda dim: a - 0.5 if dim.axis < 0 else dim.axis)
        orders.append([dim.axis for dim in order])
        return (order, *box_of(order)[1:])

    for module in (_correlation, _weights):
        monkeypatch.setattr(module, "arranged", in_turn)
    monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
    monkeypatch.setattr(_direct, "weight_lines", lambda *_: None)
    monkeypatch.setattr(_correlation, "RUN", run)
    check(rng, x_shape, w_shape, kwargs, dtype)
    assert any(order != sorted(order) for order in orders)
    assert any(tables["segment_range"].size for tables in tables_made) or run > 0


def dims_like(*axes):
    """Axes of positions, with (number of the axis of the kernel, positions, halo) for each."""
    split = split_axis(Axis(4, 1, 4), "adjoint")
    return [_boxes.Dim(split._replace(positions=n, halo=halo), axis, 1, 1) for axis, n, halo in axes]


def test_times_of_runs():
    """Of a box of 2 x 3 x 8 positions, with a halo of 1 along the middle axis and 2 along the last."""
    vectors = [-(-(40 + 20 + 8) // 16), 2 * -(-(20 + 8) // 16), 6 * 1]  # lines of 10 numbers, slices of 4 lines
    assert run_times([2, 3, 8], [0, 1, 2], 16, [1.0, 1.0, 1.0], 0, 0) == vectors
    half = run_times([2, 3, 8], [0, 1, 2], 16, [0.5, 1.0, 1.0], 0.25, 0.125)
    assert half == [vectors[0] + 0.25, 2 * (2 * 0.5 + 0.25 + 0.125), 6 * (0.5 + 0.25 + 2 * 0.125)]


def test_order_that_takes_least_time():
    """If that is a tenth less than in the order of memory; of large images, always that."""
    batch, first, last = dims = dims_like((-1, 8, 0), (0, 4, 2), (1, 4, 2))
    order = [first, batch, last]

    def box_of(time):
        return lambda dims: (time if dims == order else 1.0, [4, 4, 4], 0)

    assert _boxes.arranged(dims, box_of(0.8))[0] == order
    assert _boxes.arranged(dims, box_of(0.95))[0] == dims
    batch, first, last = dims = dims_like((-1, 8, 0), (0, 400, 2), (1, 400, 2))
    order = [first, batch, last]
    assert _boxes.arranged(dims, box_of(0.8))[0] == dims


# ---- tasks that pack their weights ------------------------------------------------------------------------

FEW_POSITIONS = [
    ((2, 20, 3), (20, 24, 5), {"channels": "first", "stride": 2}),
    ((2, 17, 4, 3), (17, 20, 4, 4), {"channels": "first", "stride": 2, "padding": 1}),
    ((2, 4, 5, 12), (12, 16, 3, 2), {"channels": "last", "stride": (3, 1), "padding": (1, 0)}),
    ((3, 24, 3, 4), (24, 15, 3, 3), {"channels": "first", "groups": 2, "dilation": (1, 2)}),
    ((2, 16, 2, 3, 2), (16, 14, 2, 2, 3), {"channels": "first", "stride": (4, 1, 2), "output_padding": (2, 0, 1)}),
    ((1, 9, 2, 2, 2, 3), (9, 13, 2, 2, 2, 2), {"channels": "first", "stride": 2}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), FEW_POSITIONS, ids=str)
class TestTasksThatPack:
    @pytest.fixture(autouse=True)
    def tasks(self, monkeypatch, tables_made):
        """As many as there can be; method "direct" goes by boxes."""
        monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
        monkeypatch.setattr(_ways, "FEW_POSITIONS", 2**40)
        monkeypatch.setattr(_ways, "MANY_WEIGHTS", 0)
        monkeypatch.setattr(_ways, "MORE_WEIGHTS", 0)
        monkeypatch.setattr(_ways, "TASKS", 2**20)
        yield
        assert any(tables["by_rows"] for tables in tables_made)

    def test_one_box(self, rng, x_shape, w_shape, kwargs, dtype):
        check(rng, x_shape, w_shape, kwargs, dtype)

    def test_boxes(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, tables_made):
        monkeypatch.setattr(_boxes, "SOURCE_BYTES", 1)
        monkeypatch.setattr(_boxes, "ENOUGH", 1)
        check(rng, (60, *x_shape[1:]), w_shape, kwargs, dtype)
        assert any(tables["by_rows"] and math.prod(tables["counts"]) > 1 for tables in tables_made)

    def test_both_directions(self, rng, x_shape, w_shape, kwargs, dtype, tables_made):
        """Pack as they go, but for weights that are kept."""
        x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
        y = conv_transpose(x, w, **kwargs)
        conv_transpose_adjoint(
            y, w, input_shape=x_shape[1:-1] if kwargs["channels"] == "last" else x_shape[2:], **kwargs
        )
        assert [tables["by_rows"] for tables in tables_made] == [True, True]
        names = ("channels", "stride", "dilation", "padding", "output_padding", "groups")
        operator = ConvTranspose(w, x_shape, **{name: kwargs[name] for name in names if name in kwargs})
        assert np.array_equal(operator(x), y)
        assert not tables_made[-1]["by_rows"]

    def test_workers(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch):
        monkeypatch.setattr(_runtime, "WORK_PER_THREAD", 1)
        x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
        y, *others = (conv_transpose(x, w, workers=workers, **kwargs) for workers in (1, 2, 3, 7))
        assert all(np.array_equal(other, y) for other in others)

    @pytest.mark.parametrize("value", [np.inf, np.nan])
    def test_weights_that_are_not_finite(self, rng, x_shape, w_shape, kwargs, dtype, value):
        """They spread to what they reach, and not to what zeros around the samples would have them reach."""
        x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
        w[(-1,) * w.ndim] = value
        with np.errstate(invalid="ignore"):
            assert_exact(conv_transpose(x, w, **kwargs), reference.conv_transpose(x, w, **kwargs), dtype)


# ---- phases without a tap, rows of zeros among the others -------------------------------------------------

GAPS = [
    ((6, 70), (3, 2), {"stride": (4, 3), "padding": 1, "output_padding": (2, 1)}),
    ((2, 4, 9, 40), (4, 3, 3, 2), {"channels": "first", "stride": (4, 3), "padding": ((1, 0), (0, 1))}),
    ((2, 9, 20, 4), (4, 3, 2, 3), {"channels": "last", "stride": (3, 4), "output_padding": 2}),
    ((13, 7, 21), (3, 2, 3), {"stride": (1, 3, 4), "padding": (0, 1, 2), "output_padding": (0, 1, 3)}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), GAPS, ids=str)
class TestGaps:
    @pytest.mark.parametrize("stream_bytes", [-1, 2**40])
    @pytest.mark.parametrize("gain", [0, 100])
    @pytest.mark.parametrize("rows", [3, 200])
    def test_boxes(self, rng, x_shape, w_shape, kwargs, dtype, stream_bytes, gain, rows, monkeypatch, fresh_plans):
        """Small ones, with the rows of a group apart from those of others; folded, too."""
        monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
        past_caches(monkeypatch, stream_bytes)
        monkeypatch.setattr(_correlation, "STREAM_LINE", 0)
        monkeypatch.setattr(_ways, "LITTLE", -1)
        monkeypatch.setattr(_direct, "is_wasteful", lambda *_: False)
        monkeypatch.setattr(_ways, "GAIN", gain)
        monkeypatch.setattr(_ways, "ROWS", rows)
        monkeypatch.setattr(_boxes, "SOURCE_BYTES", rows)
        check(rng, x_shape, w_shape, kwargs, dtype)

    def test_bias(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, fresh_plans):
        monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
        x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
        bias = integers(rng, w_shape[1] if "channels" in kwargs else (), dtype)
        expected = reference.conv_transpose(x, w, bias=bias, **kwargs)
        out = amid_nan(expected.astype(dtype))
        conv_transpose(x, w, bias=bias, out=out, **kwargs)
        assert_exact(out, expected, dtype)
        assert_amid_nan(out)

    def test_lines(self, rng, x_shape, w_shape, kwargs, dtype, lines):
        check(rng, x_shape, w_shape, kwargs, dtype)
        assert lines[0] or dtype == np.complex64 or "channels" in kwargs


# ---- lines that are read in place -------------------------------------------------------------------------

LINES = [
    # x, w, keywords: streams of the source and of the result, forward
    ((200,), (4,), {}),  # 1, 1
    ((3, 70), (3, 3), {"padding": 1}),
    ((5, 9), (2, 3), {"dilation": (2, 5)}),
    ((7, 150), (4, 4), {"stride": 2, "padding": 1}),  # 1, 2
    ((6, 33), (3, 3), {"stride": 2, "padding": ((1, 0), (0, 1)), "output_padding": 1}),
    ((4, 70), (2, 5), {"stride": 2, "padding": ((0, 1), (2, 2))}),
    ((130,), (3,), {"stride": 3}),  # 1, 3
    ((2, 3, 41), (3, 2, 7), {"stride": (1, 2, 3), "padding": ((1, 1), 0, (4, 2))}),
    ((5, 67), (6, 8), {"stride": 4, "padding": 2}),  # 1, 4
    ((3, 66), (9, 16), {"stride": 8, "padding": (1, 4)}),  # 1, 8
    ((2, 4, 3, 40), (4, 2, 3, 3), {"channels": "first", "groups": 2, "stride": 2, "padding": 1}),
    ((2, 3, 4, 5, 20), (3, 1, 2, 2, 2), {"channels": "first", "groups": 3, "stride": (1, 3, 2)}),
    ((3, 4, 35), (3, 2), {"axes": (1, 0), "stride": (2, 1)}),  # no tap along the lines
    ((2, 6, 34, 2), (2, 2, 3, 3), {"channels": "last"}),  # 2, 2
    ((1, 6, 34, 2), (2, 2, 3, 4), {"channels": "last", "stride": 2, "padding": ((0, 1), (1, 2))}),  # 2, 4
    ((1, 34, 3), (3, 1, 5), {"channels": "last"}),  # 3, 1
]


@pytest.fixture
def lines(monkeypatch, fresh_plans):
    """All sums by lines; a list of the plans that were made."""
    plans, plan = [], _stencil.stencil

    def noted(*problem, exact):
        plans.append(plan(*problem, exact=exact))
        return plans[-1]

    monkeypatch.setattr(_stencil, "_pays", lambda *_: True)
    monkeypatch.setattr(_direct, "stencil", noted)
    monkeypatch.setattr(_direct, "is_better_swapped", lambda *_: False)
    return plans


@pytest.fixture
def weight_lines(monkeypatch, lines):
    """The same of the adjoint in the weights, which may not fall back to the definition: nothing is infinite."""
    plans, plan = [], _weight_lines.weight_lines

    def noted(*problem):
        plans.append(plan(*problem))
        return plans[-1]

    def never(*_):
        raise AssertionError("the weights were not finite")

    monkeypatch.setattr(_weight_lines, "_pays", lambda *_: True)
    monkeypatch.setattr(_direct, "weight_lines", noted)
    monkeypatch.setattr(_direct._taps, "weight_adjoint", never)
    return plans


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("x_shape", "w_shape", "kwargs"), LINES, ids=str)
class TestLines:
    def test_readings(self, rng, x_shape, w_shape, kwargs, dtype, lines, weight_lines):
        check(rng, x_shape, w_shape, kwargs, dtype)
        y = conv_transpose(np.ones(x_shape, dtype), np.ones(w_shape, dtype), **kwargs)
        conv(y, np.ones(w_shape, dtype), **{name: n for name, n in kwargs.items() if name != "output_padding"})
        assert lines[-2]
        assert lines[-1]
        taps = w_shape[2:] if "channels" in kwargs else w_shape
        conv_transpose_weight_adjoint(np.ones(x_shape, dtype), y, kernel_shape=taps, **kwargs)
        assert weight_lines[-1]

    def test_past_the_caches(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, lines, weight_lines):
        """A step at a time, each a task."""
        for name in ("STREAM_BYTES", "PIECE_BYTES", "TASK"):
            monkeypatch.setattr(_stencil, name, -1)
        for name in ("TASK_BYTES", "BAND_BYTES", "BAND_LINES"):
            monkeypatch.setattr(_weight_lines, name, -1)
        check(rng, x_shape, w_shape, kwargs, dtype)

    def test_fetched_ahead(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, lines, weight_lines):
        for module in (_lines, _weight_lines):
            monkeypatch.setattr(module, "FETCHES", True)
        monkeypatch.setattr(_stencil, "AHEAD_BYTES", 10**7)
        check(rng, x_shape, w_shape, kwargs, dtype)

    @pytest.mark.parametrize("stream_bytes", [-1, 2**40])
    def test_nothing_leaks(self, rng, x_shape, w_shape, kwargs, dtype, stream_bytes, monkeypatch, lines, weight_lines):
        """Whatever lies around the arrays is neither read nor written."""
        monkeypatch.setattr(_stencil, "STREAM_BYTES", stream_bytes)
        x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
        y = reference.conv_transpose(x, w, **kwargs).astype(dtype)
        out = amid_nan(y)
        conv_transpose(amid_nan(x), w, out=out, **kwargs)
        assert_exact(out, y, dtype)
        assert_amid_nan(out)
        back = {name: value for name, value in kwargs.items() if name != "output_padding"}
        out = amid_nan(conv(np.ascontiguousarray(y), w, **back))
        expected = out.copy()
        conv(amid_nan(y), w, out=out, **back)
        assert_exact(out, expected, dtype)
        assert_amid_nan(out)
        assert all(lines[-3:])
        taps = w_shape[2:] if "channels" in kwargs else w_shape
        weights = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs)
        assert_exact(
            conv_transpose_weight_adjoint(amid_nan(x), amid_nan(y), kernel_shape=taps, **kwargs),
            weights,
            dtype,
        )
        assert all(weight_lines)

    def test_some_positions_a_task(self, rng, x_shape, w_shape, kwargs, dtype, monkeypatch, lines, weight_lines):
        """As many as leave fewer for the last one."""
        for task in (2 * x_shape[-1], 300):
            monkeypatch.setattr(_stencil, "TASK", task)
            for name in ("TASK_BYTES", "BAND_BYTES"):
                monkeypatch.setattr(_weight_lines, name, 24 * task)
            monkeypatch.setattr(_weight_lines, "BAND_LINES", 1)
            _stencil.stencil.cache_clear()
            _weight_lines.weight_lines.cache_clear()
            recall.forget()
            check(rng, x_shape, w_shape, kwargs, dtype)

    def test_infinity(self, rng, x_shape, w_shape, kwargs, dtype, lines):
        """Reaches what its taps reach, and no more."""
        x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
        x[..., x_shape[-1] // 2] = np.inf
        with np.errstate(invalid="ignore"):
            expected = reference.conv_transpose(x, w, **kwargs)
        np.testing.assert_array_equal(conv_transpose(x, w, **kwargs), expected.astype(dtype))


def amid_nan(a):
    """A copy of `a` in an array that is NaN before and after it."""
    memory = np.full(a.size + 200, np.nan, a.dtype)
    memory[100:-100] = a.ravel()
    return memory[100:-100].reshape(a.shape)


def assert_amid_nan(a):
    assert np.isnan(a.base[:100]).all()
    assert np.isnan(a.base[-100:]).all()


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_lines_of_every_length(rng, stride, lines, weight_lines):
    """The last step may be whole or in part by a single number."""
    w = integers(rng, (2, 4), np.float64)
    for n in range(1, 140):
        x = integers(rng, (2, n), np.float64)
        y = reference.conv_transpose(x, w, stride=stride, padding=1)
        for samples, result in ((x, amid_nan(y)), (amid_nan(x), y.copy())):
            conv_transpose(samples, w, stride=stride, padding=1, out=result)
            assert_exact(result, y, np.float64)
        out, adjoint = (
            amid_nan(x),
            reference.conv_transpose_adjoint(y, w, input_shape=x.shape, stride=stride, padding=1),
        )
        conv_transpose_adjoint(amid_nan(y), w, input_shape=x.shape, stride=stride, padding=1, out=out)
        assert_exact(out, adjoint, np.float64)
        assert_amid_nan(out)
        kwargs = {"kernel_shape": w.shape, "stride": stride, "padding": 1}
        weights = conv_transpose_weight_adjoint(amid_nan(x), amid_nan(y), **kwargs)
        assert_exact(weights, reference.conv_transpose_weight_adjoint(x, y, **kwargs), np.float64)
    assert all(lines[30:])  # with a single sample, each tap is a phase
    assert all(weight_lines[10:])


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("n", [3, 4, 8, 13, 16])
@pytest.mark.parametrize(("taps", "stride", "padding"), [(2, 2, 0), (4, 2, 1), (3, 1, 1), (3, 1, 0)])
def test_several_short_lines_at_once(rng, taps, stride, padding, n, dtype, lines, tables_made):
    """As many as have all lines and masks, or fewer in parts of an image; those before and after them by themselves."""
    for height, task in ((1, 2**13), (3, 2**13), (75, 2**13), (75, 20 * n)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_stencil, "TASK", task)
            x, w = integers(rng, (2, 3, height, n), dtype), integers(rng, (3, 1, taps, taps), dtype)
            kwargs = {"channels": "first", "groups": 3, "stride": stride, "padding": padding}
            y = reference.conv_transpose(x, w, **kwargs).astype(dtype)
            bias = integers(rng, 3, dtype)
            out = amid_nan(y)
            conv_transpose(amid_nan(x), w, bias=bias, out=out, **kwargs)
            assert_exact(out, y + bias[:, None, None], dtype)
            assert_amid_nan(out)
            out = amid_nan(x)
            conv_transpose_adjoint(amid_nan(y), w, input_shape=x.shape[2:], out=out, **kwargs)
            expected = reference.conv_transpose_adjoint(y, w, input_shape=x.shape[2:], **kwargs)
            assert_exact(out, expected, dtype)
            assert_amid_nan(out)
    assert all(lines)
    at_once = {tables["lines_at_once"] for tables in tables_made}
    assert max(at_once) > 1 or dtype == np.complex128  # with which lines may be longer


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("stride", [1, 2])
def test_lines_of_complex_numbers(rng, stride, dtype, lines, weight_lines):
    kwargs = {"channels": "first", "stride": stride, "padding": 1}
    check(rng, (2, 3, 5, 40), (3, 2, 3, 3), kwargs, dtype)
    assert any(lines)
    x, w = integers(rng, (2, 3, 5, 40), dtype), integers(rng, (3, 2, 3, 3), dtype)
    y = conv_transpose(x, w, **kwargs)
    weights = conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 3), **kwargs)
    assert_exact(weights, reference.conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 3), **kwargs), dtype)
    assert weight_lines[-1]


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("channels", ["first", "last"])
def test_lines_add_the_bias(rng, channels, dtype, lines):
    groups = 2 if channels == "first" else 1
    x, w = integers(rng, (2, 2 * groups, 3, 40), dtype), integers(rng, (2 * groups, 2, 1, 3), dtype)
    if channels == "last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    bias = integers(rng, 2 * groups, dtype)
    kwargs = {"channels": channels, "groups": groups, "stride": (2, 1)}  # every other line has no tap
    y = conv_transpose(x, w, bias=bias, **kwargs)
    expected = reference.conv_transpose(x, w, **kwargs) + (bias if channels == "last" else bias[:, None, None])
    assert_exact(y, expected, dtype)
    assert any(lines) or (channels, dtype) == ("last", np.complex128)  # which are four streams and four


@pytest.fixture
def bands(monkeypatch):
    """How many taps were in a band of each plan."""
    noted, band = [], _weight_lines._band

    def note(*problem):
        noted.append(band(*problem))
        return noted[-1]

    monkeypatch.setattr(_weight_lines, "_band", note)
    return noted


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("taps", "dilation", "band"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 4), (5, 1, 3), (9, 1, 3), (4, 2, 4), (3, 5, 1)],
)
@pytest.mark.parametrize("positions", [1, 3, 7, 40])
def test_bands_of_taps(rng, taps, dilation, band, positions, dtype, monkeypatch, lines, weight_lines, bands):
    """Which meet a line of x in several rows of y, if these are in one task; in either order."""
    x, w = integers(rng, (2, 23, 37), dtype), integers(rng, (taps, 5), dtype)
    for name in ("TASK_BYTES", "BAND_BYTES"):
        monkeypatch.setattr(_weight_lines, name, positions * 37 * 2 * x.itemsize)
    monkeypatch.setattr(_weight_lines, "BAND_LINES", min(positions, 3))
    window = {"axes": (1, 2), "dilation": (dilation, 1)}
    for order in (1, -1):
        x = np.ascontiguousarray(x[:, ::order])[:, ::order]
        y = reference.conv_transpose(x, w, **window).astype(dtype, order="C")
        expected = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=w.shape, **window)
        assert_exact(conv_transpose_weight_adjoint(x, y, kernel_shape=w.shape, **window), expected, dtype)
        assert weight_lines[-1]
    assert bands == [band, band]


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "kwargs", "band"),
    [
        ((6, 9000), (3, 3), {}, 3),  # lines longer than a task
        ((20, 5, 90), (4, 3), {"axes": (0, 2)}, 1),  # others between
        ((60, 40), (4, 1), {"axes": (1, 0)}, 1),  # along the other axis
        ((3, 30, 40), (3, 1, 3, 5), {"channels": "first"}, 3),
        ((30, 40), (6, 4), {"stride": 2}, 1),  # more streams than one
        ((9, 30, 40), (2, 5, 3), {"stride": (1, 2, 1)}, 3),
    ],
    ids=str,
)
def test_where_there_are_bands_of_taps(rng, x_shape, w_shape, kwargs, band, lines, weight_lines, bands):
    check(rng, x_shape, w_shape, kwargs, np.float32)
    assert weight_lines[-1]
    assert bands == [band]


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_weights_of_infinite_lines(rng, dtype, lines, monkeypatch):
    """Samples that no tap meets do not count, whatever they are; others do."""
    monkeypatch.setattr(_weight_lines, "_pays", lambda *_: True)
    kwargs = {"stride": 2, "padding": ((0, 1), (2, 0))}
    x, w = integers(rng, (3, 70), dtype), integers(rng, (3, 2), dtype)
    y = conv_transpose(x, w, **kwargs)
    for at in (0, 1, 35, 69):
        samples = x.copy()
        samples[1, at] = np.inf  # at 0, whose outputs are all cropped, it meets none
        with np.errstate(invalid="ignore"):
            expected = reference.conv_transpose_weight_adjoint(samples, y, kernel_shape=w.shape, **kwargs)
        weights = conv_transpose_weight_adjoint(samples, y, kernel_shape=w.shape, **kwargs)
        np.testing.assert_array_equal(weights, expected.astype(dtype))
        assert np.isfinite(weights).all() == (at == 0)


def test_lines_of_either_kind_of_channels(rng, lines):
    """Arrays whose channels lie outside and inside of the lines: each with its own order of weights."""
    w, x = integers(rng, (2, 2, 3, 3), np.float64), integers(rng, (2, 5, 30), np.float64)
    inside = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    y = reference.conv_transpose(x, w, channels="first")
    for samples in (x, inside):
        out = conv_transpose(samples, w, channels="first", out=np.moveaxis(np.empty((7, 32, 2)), -1, 0))
        assert_exact(out, y, np.float64)
    assert any(lines)


KINDS = {  # of lines, by streams of the source and of the result: channels at the end, stride, taps
    (1, 1): (0, 1, 4),
    (1, 2): (0, 2, 5),
    (1, 3): (0, 3, 7),
    (1, 4): (0, 4, 9),
    (1, 8): (0, 8, 9),
    (2, 2): (2, 1, 3),
    (2, 4): (2, 2, 5),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("streams", KINDS)
def test_bands(rng, dtype, streams, monkeypatch, lines):
    """Of every kind: neighbours, phases and channels of the result, in steps of every width, in both directions."""
    channels, stride, taps = KINDS[streams]
    module, tables = _runtime.kernels(np.dtype(dtype)), _stencil.tables_of
    known, used = dict(module.bands), set()
    assert set(known) == {*KINDS, *(streams[::-1] for streams in KINDS)}

    def noted(lines, vectors, *others, **more):
        used.add((lines.streams, lines.rows.band, vectors))
        return tables(lines, vectors, *others, **more)

    monkeypatch.setattr(_stencil, "tables_of", noted)
    monkeypatch.setattr(_lines, "ENOUGH", 10**6)
    wanted = {(of, b, n) for of in (streams, streams[::-1]) for b, widths in known[of].items() for n in widths}
    for of, b, n in wanted:
        monkeypatch.setattr(module, "bands", {**known, of: {1: known[of][1], b: [n]}})
        _stencil.stencil.cache_clear()
        recall.forget()
        for vertical in ({"stride": (1, stride)}, {"stride": (2, stride)}, {"stride": (1, stride), "dilation": (2, 1)}):
            kwargs = {"padding": ((0, 1), (1, 0)), "channels": "last" if channels else "first", **vertical}
            if channels:
                check(rng, (2, 6, 70, channels), (channels, channels, 3, taps), kwargs, dtype)
            else:
                check(rng, (2, 6, 40), (2, 3, 3, taps), kwargs, dtype)
        if not channels:  # steps that are whole
            check(rng, (7, 150), (4, taps), {"stride": (1, stride), "padding": 1}, dtype)
    assert used >= wanted


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
class TestPixels:
    """Lines of pixels: small ones, of which a vector holds several, and large ones, which take several vectors."""

    TAPS = {1: 3, 2: 4, 3: 5, 4: 6, 8: 9}

    @staticmethod
    def sizes(dtype):
        lanes = _runtime.kernels(np.dtype(dtype)).lanes
        return sorted({2, 3, max(2, lanes - 1), lanes, lanes + 1, 2 * lanes + 3})

    def test_of_channels(self, rng, stride, dtype, lines, weight_lines):
        for size in self.sizes(dtype):
            kwargs = {"channels": "last", "groups": size, "stride": (1, stride), "padding": ((0, 1), (2, 1))}
            check(rng, (2, 3, 21, size), (size, 1, 2, self.TAPS[stride]), kwargs, dtype)
            forward, _, adjoint = lines[-3:]  # the second fills an array that is no line of pixels
            assert forward and adjoint and weight_lines[-1]
            assert forward.lane_groups.shape[1] > 1

    def test_of_a_batch(self, rng, stride, dtype, lines, weight_lines):
        for size in self.sizes(dtype):
            kwargs = {"axes": (0, 1), "stride": (2, stride), "dilation": (1, 1 + stride % 2), "padding": 1}
            check(rng, (3, 21, size), (2, self.TAPS[stride]), kwargs, dtype)
            forward, _, adjoint = lines[-3:]
            assert forward and adjoint and weight_lines[-1]

    def test_bands(self, rng, stride, dtype, monkeypatch, lines):
        """Of every kind, in steps of every width: pixels amid NaN, and results, too."""
        module, tables, used = _runtime.kernels(np.dtype(dtype)), _stencil.tables_of, set()
        known = dict(module.pixel_bands)

        def noted(lines, vectors, *others, **more):
            used.add((lines.streams, lines.rows.band, vectors))
            return tables(lines, vectors, *others, **more)

        monkeypatch.setattr(_stencil, "tables_of", noted)
        monkeypatch.setattr(_lines, "ENOUGH", 10**6)
        wanted = {(of, b, n) for of in {(1, stride), (stride, 1)} for b, widths in known[of].items() for n in widths}
        for of, b, n in wanted:
            monkeypatch.setattr(module, "pixel_bands", {**known, of: {1: known[of][1], b: [n]}})
            _stencil.stencil.cache_clear()
            recall.forget()
            for size in (3, module.lanes + 1):
                kwargs = {"channels": "last", "groups": size, "stride": (1, stride), "padding": ((0, 1), (2, 1))}
                x = amid_nan(integers(rng, (5, 40, size), dtype))
                w, bias = integers(rng, (size, 1, 2, self.TAPS[stride]), dtype), integers(rng, size, dtype)
                y = reference.conv_transpose(x, w, bias=bias, **kwargs)
                out = amid_nan(np.zeros(y.shape, dtype))
                assert_exact(conv_transpose(x, w, bias=bias, out=out, **kwargs), y, dtype)
                assert_amid_nan(out)
                y, out = amid_nan(y.astype(dtype)), amid_nan(np.zeros(x.shape, dtype))
                adjoint = reference.conv_transpose_adjoint(y, w, input_shape=(5, 40), **kwargs)
                conv_transpose_adjoint(y, w, input_shape=(5, 40), out=out, **kwargs)
                assert_exact(out, adjoint, dtype)
                assert_amid_nan(out)
        assert used >= wanted

    def test_past_the_caches(self, rng, stride, dtype, monkeypatch, lines):
        monkeypatch.setattr(_stencil, "STREAM_BYTES", -1)
        for size in self.sizes(dtype):
            kwargs = {"channels": "last", "groups": size, "stride": (1, stride)}
            check(rng, (1, 4, 150, size), (size, 1, 1, self.TAPS[stride]), kwargs, dtype)
            assert lines[-3]


def test_pixels_keep_infinity_to_themselves(lines):
    """Lanes that hold no numbers are never stored, nor what follows a line."""
    x = np.ones((9, 30, 3), np.float32)
    x[4, 7, 1] = np.inf
    y = conv_transpose(x, np.ones((3, 1, 3, 4), np.float32), channels="last", groups=3, stride=2)
    assert np.isinf(y).any(axis=(0, 1)).tolist() == [False, True, False]
    assert np.argwhere(np.isinf(y[..., 1])).min(axis=0).tolist() == [8, 14]
    assert np.argwhere(np.isinf(y[..., 1])).max(axis=0).tolist() == [10, 17]
    assert len(lines) == 1


def test_a_batch_axis_inside_of_a_line():
    """Short, it makes pixels; where these meet one read after the other, longer lines; long, lines of its own."""
    module = _runtime.kernels(np.dtype("f4"))

    def found(size, stride):
        axes = (Axis(20, 3, 40, stride=stride, low=1),)
        steps = (1, 20 * size, 20 * size, size, 1)
        return _lines.lines_of(Problem(module, "forward", axes, (size,), 1, 1, 1, 1, steps, steps), bands=True)

    assert found(5, 2).pixels.size == 5
    assert (found(5, 1).pixels.size, found(5, 1).pixels.flat, found(5, 1).extent) == (0, 5, [5 * 40])
    assert (found(1000, 2).pixels.size, found(1000, 2).extent[-1]) == (0, 1000)


def test_a_band_has_lines_in_common():
    """Neighbours whose taps are too far apart have none; phases, and channels of the result, always do."""
    near, far = (_lines.split_axis(Axis(50, 3, 60, dilation=d), "forward").pattern for d in (1, 4))
    phases = _lines.split_axis(Axis(50, 4, 102, stride=2), "forward").pattern
    assert _lines._band((1, 2, 4), 1, near) == (4, 4)
    assert _lines._band((1, 2, 4), 1, far) == (1, 1)
    assert _lines._band((1, 2), 3, near) == (2, 2)
    assert _lines._band((1, 2), 1, phases) == (2, 1)
    assert _lines._band((1, 2), 2, far) == (2, 1)
    assert _lines._band((1, 2), 2, None) == (2, 1)
    assert _lines._band((1, 2), 3, None) == (1, 1)


def test_rows_that_do_not_exist_are_not_checked(lines):
    """An infinite sample that reaches no output is met by a row of a band beyond the last one."""
    y, w = np.ones((9, 61), np.float32), np.ones((3, 3), np.float32)
    y[7, 30] = np.inf
    x = conv_transpose_adjoint(y, w, input_shape=(5, 30), stride=(1, 2))
    np.testing.assert_array_equal(x, np.full((5, 30), 9, np.float32))
    assert len(lines) == 1  # no second plan, of exact sums


def test_few_positions_make_narrow_bands():
    module = _runtime.kernels(np.dtype("f4"))
    for n in (1, 2, 3, 40):
        axes = (Axis(n + 2, 3, n, low=2), Axis(30, 3, 30, low=1))
        found = _lines.lines_of(problem_of(module, axes, (1, 1, n + 2, 30, 1), (1, 1, n, 30, 1)), bands=True)
        assert found.rows.band == max(b for b in module.bands[1, 1] if b <= n)


def test_lines_are_fetched_once():
    """Three taps without a stride: of three lines the last is new; with stride 2, four taps of y: two of four."""
    axes = (Axis(50, 3, 50, low=1), Axis(60, 3, 60, low=1))
    module = _runtime.kernels(np.dtype("f4"))

    def fresh(direction, axes, bands=(1,)):
        patterns = tuple(_lines.split_axis(axis, direction, aligned=direction == "forward").pattern for axis in axes)
        rows = _lines._rows(direction, patterns, 0, 1, (1, 1), (1, 1), bands)
        return rows.fresh.sum(), rows.fresh_lines, np.unique(rows.line_step[rows.fresh][:, 0]).tolist(), rows.steps[0]

    assert 2 in module.bands[1, 1]
    assert fresh("forward", axes)[:2] == (1, 1)
    assert fresh("forward", axes)[3][1][fresh("forward", axes)[2]].tolist() == [2]
    assert fresh("forward", axes, (1, 4))[:2] == (4, 4)  # of the six that four neighbours read
    axes = (Axis(50, 4, 100, stride=2, low=1), Axis(60, 4, 120, stride=2, low=1))
    assert fresh("adjoint", axes)[:2] == (2, 2)


def test_lines_of_weights_have_the_fewest_reads():
    """Four taps with stride 2: two for each phase, of the same two samples if outputs are counted in time."""
    axis = Axis(100, 4, 200, stride=2, low=1)
    problem = problem_of(_runtime.kernels(np.dtype("f4")), (axis,), (1, 1, 100, 1), (1, 1, 200, 1))
    aligned, fewest = (_lines.lines_of(problem, bands=each).rows.reads for each in (True, False))
    assert (len(aligned), len(fewest)) == (3, 2)


def test_far_taps_go_by_boxes():
    """Each step of such a line would need masks of its own: more memory than the line."""
    before = _stencil.stencil.cache_info().currsize
    plan = _direct.plan_of
    axes = (Axis(10**6, 8, 10**6 + 7 * 10**5, dilation=10**5),)
    x, y = (np.lib.stride_tricks.as_strided(np.zeros(1), (1, 1, n), (0, 0, 8)) for n in (axes[0].n, axes[0].m))
    assert isinstance(plan("forward", axes, x, y, "padded"), _correlation.Correlation)
    assert _stencil.stencil.cache_info().currsize <= before + 1


def test_large_kernels_are_declined_in_time():
    """Before anything grows with the square of the taps."""
    axis = Axis(30_000, 20_000, 49_999)
    pattern = _lines.split_axis(axis, "forward", aligned=True).pattern
    tracemalloc.start()
    assert _lines._rows("forward", (pattern,), -1, 0, (1, 1), (1, 1), (1,)) is None
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_other_threads_run_meanwhile(rng, lines):
    """A call lets go of the interpreter, which would not change hands by itself here."""
    x, w = np.ones((3000, 3000)), np.ones((3, 3))
    conv_transpose(x, w, workers=1)
    begin, ran = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: begin.wait() and ran.set())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        begin.set()
        conv_transpose(x, w, workers=1)
        meanwhile = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert meanwhile


def test_workers_agree_on_lines(rng, lines, weight_lines):
    x, w = rng.standard_normal((300, 400)), rng.standard_normal((4, 4))
    results = [conv_transpose(x, w, stride=2, padding=1, workers=workers) for workers in (1, 2, 3, 7)]
    adjoints = [conv(results[0], w, stride=2, padding=1, workers=workers) for workers in (1, 2, 3, 7)]
    for result, adjoint in zip(results, adjoints, strict=True):
        np.testing.assert_array_equal(result, results[0])
        np.testing.assert_array_equal(adjoint, adjoints[0])
        np.testing.assert_array_equal(
            conv_transpose_weight_adjoint(x, results[0], kernel_shape=w.shape, stride=2, padding=1, workers=7),
            conv_transpose_weight_adjoint(x, results[0], kernel_shape=w.shape, stride=2, padding=1, workers=1),
        )
    assert all(plan.tasks > 7 for plan in lines + weight_lines)


# ---- work follows the samples and taps -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "kwargs"),
    [
        ((256, 4), (256, 1, 2), {"channels": "first", "dilation": 10**6}),  # taps far apart
        ((3, 100_000), (3, 2, 2), {"channels": "first", "dilation": 10**6}),
        ((8, 8), (400, 400), {}),  # a kernel far larger than the image
        ((3,), (1,), {"stride": 10**6}),  # phases without taps
        ((2, 2), (2, 1), {"stride": 900}),
        ((1, 1), (600, 700), {}),  # one sample
    ],
    ids=str,
)
def test_nothing_is_wasted(x_shape, w_shape, kwargs, fresh_plans):
    x, w = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32)
    gc.collect()
    tracemalloc.start()
    try:
        y = conv_transpose(x, w, workers=1, **kwargs)
        _memory.forget()  # what is kept for other calls is bounded
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert y.sum(dtype=np.float64) == x.sum(dtype=np.float64) * w.sum(dtype=np.float64) / (
        w.shape[0] if "channels" in kwargs else 1
    )
    assert current < y.nbytes + 2**21
    assert peak < 4 * (x.nbytes + w.nbytes + y.nbytes) + 2**22


@pytest.mark.parametrize(
    ("n", "taps", "dilation"),
    [((4, 4), (3, 3), 1000), ((3, 3), (1000, 1000), 1), ((5,), (2,), 10**6), ((2, 3), (300, 400), 7)],
    ids=str,
)
def test_nothing_is_wasted_on_weights(n, taps, dilation, fresh_plans):
    m = tuple(i + (k - 1) * dilation for i, k in zip(n, taps, strict=True))
    x, y = np.ones(n, np.float32), np.ones(m, np.float32)
    gc.collect()
    tracemalloc.start()
    try:
        w = conv_transpose_weight_adjoint(x, y, kernel_shape=taps, axes=range(len(n)), dilation=dilation, workers=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (w == x.size).all()
    assert peak < 4 * (w.nbytes + y.nbytes) + 2**26


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "kwargs"),
    [
        ((2, 9, 32, 32), (9, 7, 4, 4), {"stride": 2, "padding": 1}),
        ((9, 12, 16), (9, 5, 2, 2), {"stride": 2}),
        ((16, 4, 16), (16, 3, 3, 3), {"groups": 2}),
        ((7, 64), (7, 8, 9), {"stride": 3, "dilation": 2}),
    ],
    ids=str,
)
def test_samples_of_whole_vectors_are_read_in_place(
    rng, x_shape, w_shape, kwargs, dtype, small, monkeypatch, fresh_plans
):
    """None is copied, and nothing around them is read."""
    plans = []

    def planned(*arguments):
        plans.append(_weights.weight_adjoint(*arguments))
        return plans[-1]

    monkeypatch.setattr(_direct, "weight_lines", lambda *_: None)
    monkeypatch.setattr(_direct, "weight_adjoint", planned)
    if small:
        monkeypatch.setattr(_weights, "STRIP_BYTES", 4096)
    around = np.full(math.prod(x_shape) + 40, np.nan, dtype)
    for begin in (7, 16):
        x = around[begin : begin + math.prod(x_shape)].reshape(x_shape)
        x[...] = integers(rng, x_shape, dtype)
        y = conv_transpose(x, integers(rng, w_shape, dtype), channels="first", **kwargs)
        expected = reference.conv_transpose_weight_adjoint(x, y, kernel_shape=w_shape[2:], channels="first", **kwargs)
        result = conv_transpose_weight_adjoint(x, y, kernel_shape=w_shape[2:], channels="first", **kwargs)
        assert_exact(result, expected, dtype)
        x[...] = np.nan
    assert plans[0].kernel.x_in_place


def test_steps_times_strides_past_the_address_space():
    """The step from one sample to the next is far outside of the array, but no sample is."""
    long, kwargs = 2**22, {"stride": (2**41, 1)}
    x = np.zeros((2, long), np.float32)
    x[0] = np.arange(long) % 7
    w = np.full((1, 1), 2, np.float32)
    y = conv_transpose(x, w, output_shape=(1, long), **kwargs)
    assert np.array_equal(y, 2 * x[:1])
    assert np.array_equal(conv_transpose_adjoint(y, w, input_shape=(2, long), **kwargs), 4 * x)
    product = conv_transpose_weight_adjoint(x, x[:1], kernel_shape=(1, 1), **kwargs)
    assert product[0, 0] == pytest.approx(float((x[0].astype(float) ** 2).sum()), rel=1e-6)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride", "dtype", "mixed"),
    [
        ((2, 400, 9, 11), (400, 9, 3, 3), 2, "f4", False),
        ((1, 200, 90), (200, 1, 32), 8, "f4", False),
        ((1, 300, 2, 2), (300, 70, 2, 2), 2, "f4", False),
        ((1, 300, 40), (300, 3, 5), 1, "c16", False),
        ((3, 64, 20, 33), (64, 32, 3, 3), 1, "f4", True),
        ((1, 96, 2**13), (96, 4, 3), 1, "f4", False),
    ],
)
def test_machines_with_more_cpus_get_more_tasks_and_the_same_bits(
    rng, x_shape, w_shape, stride, dtype, mixed, monkeypatch, fresh_plans
):
    for module in (_ways, _weights):
        monkeypatch.setattr(module, "MIXED_LEAST", 0 if mixed else np.inf)
    x, w = uniform(rng, x_shape, dtype), uniform(rng, w_shape, dtype)
    keywords = {"stride": stride, "channels": "first", "method": "auto" if mixed else "direct"}
    y = conv_transpose(x, w, **keywords)
    monkeypatch.setattr(_runtime, "WORK_PER_THREAD", 1)  # however little there is to do
    monkeypatch.setattr(_direct, "weight_lines", lambda *_: None)
    made, plan = [], _direct.weight_adjoint
    monkeypatch.setattr(_direct, "weight_adjoint", lambda *arguments: made.append(plan(*arguments)) or made[-1])
    results = set()
    for cpus in (1, 2, 16):
        fresh_plans()
        monkeypatch.setattr(_runtime, "available_cpus", lambda cpus=cpus: cpus)
        results.add(
            (
                conv_transpose(x, w, **keywords).tobytes(),
                conv_transpose_adjoint(y, w, input_shape=x_shape[2:], **keywords).tobytes(),
                conv_transpose_weight_adjoint(x, y, kernel_shape=w_shape[2:], **keywords).tobytes(),
            )
        )
    assert len(results) == 1
    few, two, many = (each.tasks for each in made)
    assert few == two
    assert few < many or few >= 16


@pytest.mark.parametrize(("channels", "taps", "more"), [(12, 3, 4), (6, 2, 5)])
def test_what_is_not_copied_is_no_waste(rng, channels, taps, more):
    """Channels of x that are read where they lie, and far apart."""
    x = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1, channels, 2**20), (0, 0, 2**22, 4))
    axes = (Axis(2**20, taps, 2**20, low=taps // 2),)
    y = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1, more, 2**20), (0, 0, 2**22, 4))
    plan = _weights.weight_adjoint(Problem.of("adjoint", axes, y, x), "plain")
    assert plan.kernel.x_in_place


@pytest.mark.parametrize("shape", [(1, 512, 52, 52), (1, 1, 2048, 2048), (4, 64, 64, 64), (1, 1000, 300)], ids=str)
def test_scratch_is_bounded(shape):
    """By the caches, and by two tiles of positions with their halo where there are very many channels."""
    axes = tuple(Axis(n, 3, 2 * n + 1, 2, 1, 0) for n in shape[2:])
    x = np.ones((shape[0], 1, *shape[1:]), np.float32)
    y = np.ones((shape[0], 1, 8, *(axis.m for axis in axes)), np.float32)
    module = _runtime.kernels(x.dtype)
    plan = _correlation.correlation(Problem.of("forward", axes, x, y), "mixed")
    positions = 2 * max(module.widths.values()) * module.lanes
    with_halo = positions + 2 * (positions + 1)  # at most a row more on either axis, and the slack of a tile
    assert plan.kernel.scratch_size * 4 < 2 * _boxes.L2_BYTES + 4 * shape[1] * with_halo
    assert plan.kernel.scratch_size * 4 < 2**24


def test_an_operator_keeps_one_copy_of_its_weights():
    """Not one for every time that the cache of plans has forgotten it."""
    operator = ConvTranspose(np.ones((4, 4, 3, 3)), (4, 8, 8), channels="first")
    v = np.ones(operator.shape[1])
    for _ in range(3):
        operator @ v
        for cache in CACHES:
            cache.cache_clear()
    (method,) = operator._prepared.values()
    assert len(method._packed) == 1


# ---- tiles that write to the result --------------------------------------------------------------------


def between_nans(before, shape, dtype):
    """An array that begins so many numbers after a cache line, and all memory around it."""
    around = np.full(before + math.prod(shape) + 64, np.nan, dtype)
    first = -around.ctypes.data % 64 // around.itemsize + before
    return around[first : first + math.prod(shape)].reshape(shape), around


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("length", [64, 96, 130, 165])  # whole vectors, cache lines, and not
@pytest.mark.parametrize(("taps", "stride"), [(2, 2), (3, 1), (5, 2)])
def test_tiles_write_to_the_result(rng, taps, stride, length, past, small, dtype, monkeypatch, tables_made):
    past_caches(monkeypatch, -1 if past else 2**40)
    monkeypatch.setattr(_correlation, "STREAM_LINE", 0)
    monkeypatch.setattr(_correlation, "STORE", 2**40)  # of no use for so many taps, but for the test
    if small:
        monkeypatch.setattr(_boxes, "SOURCE_BYTES", 1)
        monkeypatch.setattr(_boxes, "ENOUGH", 1)
    x, w = integers(rng, (2, 12, 3, length), dtype), integers(rng, (12, 2, taps, taps), dtype)
    window = {"channels": "first", "stride": stride, "padding": taps // 3}
    y = reference.conv_transpose(x, w, **window).astype(dtype)
    expected = reference.conv_transpose_adjoint(y, w, input_shape=x.shape[2:], **window)
    for before in (0, 1, 16):
        out, around = between_nans(before, x.shape, dtype)
        assert_exact(conv_transpose_adjoint(y, w, input_shape=x.shape[2:], out=out, **window), expected, dtype)
        assert np.isnan(around).sum() == around.size - out.size
    module = _runtime.kernels(np.dtype(dtype))
    whole = module.past_caches and length % (64 // np.dtype(dtype).itemsize) == 0
    assert {tables["panel_results"].size > 0 for tables in tables_made} == {whole or not past}


@pytest.fixture
def only_boxes(monkeypatch):
    """Whatever another way would cost."""
    monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
    monkeypatch.setattr(_direct, "weight_lines", lambda *_: None)
    monkeypatch.setattr(_direct, "is_better_swapped", lambda *_: False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "window"),
    [
        ((1, 2, 1, 2), (2, 4, 2, 2), {"stride": (1, 4), "dilation": (1, 2), "padding": (0, 2)}),
        ((1, 4, 2, 2), (4, 4, 4, 4), {"stride": (4, 2), "padding": (0, 1)}),
        (
            (2, 4, 1, 1, 2),
            (4, 4, 2, 1, 4),
            {"stride": (2, 1, 3), "dilation": (1, 1, 3), "padding": (0, 0, 2), "output_padding": (1, 0, 1)},
        ),
        ((1, 17, 2, 3, 4), (17, 1, 3, 3, 2), {"stride": (5, 3, 4), "dilation": (1, 1, 2), "padding": (1, 0, 6)}),
    ],
    ids=str,
)
def test_lines_as_short_as_a_step(rng, x_shape, w_shape, window, dtype, only_boxes, tables_made):
    """The last phase of one line and the first of the next are neighbours in memory, but not in a line."""
    check(rng, x_shape, w_shape, {"channels": "first", **window}, dtype)
    assert tables_made


def test_many_short_lines(rng, only_boxes):
    for _ in range(400):
        ndim, channels = int(rng.integers(2, 4)), [int(n) for n in rng.choice([1, 4, 6], 2)]
        n, stride, dilation = (tuple(rng.integers(1, most, ndim).tolist()) for most in (4, 6, 4))
        taps = tuple(rng.integers(2, 5, ndim).tolist())
        reach = [(i - 1) * s + (k - 1) * d for i, s, k, d in zip(n, stride, taps, dilation, strict=True)]
        padding = [(int(rng.integers(0, r // 2 + 1)),) * 2 for r in reach[:-1]]
        padding.append((reach[-1] // 2, max(0, reach[-1] // 2 - stride[-1])))  # lines of about as many outputs
        window = {"channels": "first", "stride": stride, "dilation": dilation, "padding": padding}
        check(rng, (1, channels[0], *n), (*channels, *taps), window, np.float64)


def test_blocks_end_with_the_line():
    """Rows of the result that are neighbours in memory: those of a second line begin at a later position."""
    place = np.arange(5)
    within = np.array(
        [[[0, 2], [0, 2]], [[0, 2], [0, 2]], [[0, 2], [0, 1]], [[0, 2], [1, 2]], [[0, 2], [0, 2]]], np.intp
    )
    first, shared, ragged, *_ = tables.blocks(place, within, np.array([0, 5]))
    assert first.tolist() == [0, 3, 5]
    assert shared[:, 1].tolist() == [[0, 1], [1, 2]]
    assert ragged.tolist() == [1, 1]


@pytest.mark.parametrize("n", [(6, 14), (8, 20), (16, 62), (12, 64), (3, 5, 48)])
@pytest.mark.parametrize("gap", range(5))
def test_tiles_write_nothing_between_the_lines_of_a_view(rng, gap, n, monkeypatch, tables_made):
    """Where the halo of a box is as wide as the gap, its lines lie as those of the view do."""
    monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
    taps = (3,) * len(n)
    x, w = integers(rng, (2, 12, *n), np.float32), integers(rng, (12, 12, *taps), np.float32)
    for window in ({"channels": "first", "padding": 1}, {"channels": "first"}):
        y = reference.conv_transpose(x, w, **window).astype(np.float32)
        adjoint = reference.conv_transpose_adjoint(y, w, **window)
        for expected, compute, source in ((y, conv_transpose, x), (adjoint, conv_transpose_adjoint, y)):
            for axis in range(-len(n), 0):
                shape = list(expected.shape)
                shape[axis] += gap
                around = np.full(shape, np.nan, np.float32)
                out, between = np.split(around, [expected.shape[axis]], axis=axis)
                compute(source, w, out=out, **window)
                assert_exact(out, expected, np.float32)
                assert np.isnan(between).all()
    assert any(tables["panel_results"].size for tables in tables_made) or n[-1] < 48  # with fewer, tiles do not fit


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "kwargs", "order"),
    [
        ((1, 4, 64, 2), (4, 12, 1, 3), {"stride": (2, 1), "padding": (0, 1)}, (0, 1, 2, 3)),
        ((1, 4, 40, 2), (4, 2, 3, 3), {"padding": 1}, (0, 2, 1, 3)),  # lines of two channels by turns
    ],
)
def test_tiles_write_nothing_to_other_lines(rng, x_shape, w_shape, kwargs, order, tables_made):
    """Where the next line of a run is as far away as if the halo of a box lay between the two."""
    x, w = integers(rng, x_shape, np.float32), integers(rng, w_shape, np.float32)
    y = reference.conv_transpose(x, w, channels="first", **kwargs)
    out = np.full([y.shape[a] for a in order], np.nan, np.float32).transpose(order)
    assert_exact(conv_transpose(x, w, out=out, channels="first", **kwargs), y, np.float32)
    assert tables_made


@pytest.mark.parametrize(
    ("outputs", "taps", "window"),
    [
        (840, (2, 2), {}),  # several groups of rows
        (12, (3, 3), {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0)}),  # two classes of them
    ],
)
def test_tiles_of_every_group_and_class_write_to_the_result(rng, outputs, taps, window, monkeypatch, tables_made):
    past_caches(monkeypatch, 2**40)
    monkeypatch.setattr(_correlation, "STORE", 2**40)
    x, w = integers(rng, (2, 12, 4, 95), np.float32), integers(rng, (12, outputs, *taps), np.float32)
    y = reference.conv_transpose(x, w, channels="first", **window)
    out, around = between_nans(0, y.shape, np.float32)
    assert_exact(conv_transpose(x, w, out=out, channels="first", **window), y, np.float32)
    assert np.isnan(around).sum() == around.size - out.size
    assert all(tables["panel_results"].size for tables in tables_made)


def test_what_is_added_to_or_left_out_is_not_written_by_tiles(rng, tables_made):
    """A bias; channels whose number is none of a tile; windows that some positions do not reach."""
    x, w = integers(rng, (1, 12, 6, 62), np.float32), integers(rng, (12, 12, 3, 3), np.float32)
    for bias in (None, np.arange(12, dtype=np.float32)):
        y = reference.conv_transpose(x, w, bias=bias, channels="first")
        assert_exact(conv_transpose(x, w, bias=bias, channels="first"), y, np.float32)
    assert tables_made[0]["panel_results"].size > 0
    y = reference.conv_transpose(x, w[:, :11], channels="first")
    assert_exact(conv_transpose(x, w[:, :11], channels="first"), y, np.float32)
    w = integers(rng, (12, 12, 4, 3), np.float32)
    y = reference.conv_transpose(x, w, channels="first", stride=(3, 1))
    assert_exact(conv_transpose(x, w, channels="first", stride=(3, 1)), y, np.float32)
    assert [tables["panel_results"].size > 0 for tables in tables_made] == [True, False, False]


# ---- memory of large results ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (3, 2), (4, 0)])
@pytest.mark.parametrize("by", ["boxes", "lines"])
def test_what_goes_past_the_caches_begins_anywhere(rng, by, stride, padding, dtype, monkeypatch, tables_made):
    past_caches(monkeypatch, -1)
    for module, name in [(_correlation, "STREAM_LINE"), (_stencil, "STREAM_BYTES")]:
        monkeypatch.setattr(module, name, -1)
    monkeypatch.setattr(_stencil, "_pays", lambda *_: by == "lines")
    x, w = integers(rng, (2, 5, 37), dtype), integers(rng, (3, 6), dtype)
    window = {"stride": (1, stride), "padding": (0, padding)}
    expected = reference.conv_transpose(x, w, **window)
    for before in range(17):
        around = np.full(expected.size + before + 17, np.nan, dtype)
        out = around[before : before + expected.size].reshape(expected.shape)
        assert_exact(conv_transpose(x, w, out=out, **window), expected, dtype)
        assert np.isnan(around).sum() == before + 17
    assert tables_made
    assert all(tables["piece" if by == "lines" else "past_caches"] > 0 for tables in tables_made)


def test_memory_of_a_large_result_is_used_again(monkeypatch, fresh_plans):
    monkeypatch.setattr(_memory, "LEAST", 1000)
    monkeypatch.setattr(_memory, "_spare", deque())
    x, w = np.arange(500.0), np.array([1.0, 2.0])
    y = conv_transpose(x, w)
    expected = y.copy()
    where, view = y.ctypes.data, y[::2]
    del y
    other = conv_transpose(x, -w)  # while a view of the first is in use
    assert not np.shares_memory(view, other)
    assert np.array_equal(view, expected[::2])
    assert np.array_equal(other, -expected)
    del view
    again = conv_transpose(x, w)
    assert again.ctypes.data == where
    assert np.array_equal(again, expected)
    assert type(again) is np.ndarray
    assert again.flags.writeable
    assert where % 64 == 0


def test_memory_of_other_sizes_is_kept_within_bounds(monkeypatch, fresh_plans):
    monkeypatch.setattr(_memory, "LEAST", 1000)
    monkeypatch.setattr(_memory, "MOST", 45_000)
    monkeypatch.setattr(_memory, "_spare", deque())
    for n in (500, 5000, 200, 300, 126, 1000, 130, 6000, 130):
        y = conv_transpose(np.arange(float(n)), np.ones(2))
        assert np.array_equal(y[1:-1], 2 * np.arange(1.0, n) - 1)
        del y
        assert len(_memory._spare) <= _memory.PIECES
        assert sum(memory.nbytes for memory in _memory._spare) <= _memory.MOST


def test_memory_of_results_that_take_turns_is_used_again(monkeypatch, fresh_plans):
    monkeypatch.setattr(_memory, "LEAST", 1000)
    monkeypatch.setattr(_memory, "_spare", deque())
    where = {n: set() for n in (200, 900)}
    for _ in range(3):
        for n, places in where.items():
            y = conv_transpose(np.arange(float(n)), np.ones(2))
            assert np.array_equal(y[1:-1], 2 * np.arange(1.0, n) - 1)
            places.add(y.ctypes.data)
            del y
    assert [len(places) for places in where.values()] == [1, 1]


# ---- numpy's own pitfalls ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_weights_of_any_strides(rng, dtype):
    """numpy 2.4's negative is wrong for some pairs of strides, of which the real form of complex weights has many."""
    x = integers(rng, (1, 6), dtype)
    for outputs in (3, 13):
        for step in range(1, 10):
            w = integers(rng, (1, outputs, step), dtype)[:, :, :1]
            assert_exact(
                conv_transpose(x, w, channels="first"), reference.conv_transpose(x, w, channels="first"), dtype
            )
    w = np.asfortranarray(integers(rng, (2, 13, 1), dtype))
    x = integers(rng, (2, 6), dtype)
    assert_exact(conv_transpose(x, w, channels="first"), reference.conv_transpose(x, w, channels="first"), dtype)


def test_floating_point_errors_are_not_raised_half_way():
    """As the kernels, whatever numpy is told to do with overflow and invalid operations."""
    with np.errstate(all="raise"):
        out = np.full(6, 7, np.float16)
        conv_transpose(np.full(5, 1e-4, np.float16), np.full(2, 1e-4, np.float16), out=out)
        assert not out.any()
        y = conv_transpose(np.ones(5), np.array([np.inf, -np.inf]))
        assert y[0] == np.inf
        assert np.isnan(y[1:-1]).all()
        assert conv(np.ones(2), np.array([np.inf]), bias=1).tolist() == [np.inf, np.inf]


def test_many_axes():
    x = np.ones((1,) * 54 + (4,))
    assert np.array_equal(conv_transpose(x, np.ones(2)).ravel(), [1, 2, 2, 2, 1])
    assert np.isnan(conv_transpose(x, np.array([np.nan, 1])).ravel()).tolist() == [True, True, True, True, False]
    with pytest.raises(ValueError, match="must have at most 59 axes"):
        conv_transpose(np.ones((1,) * 61), np.ones(1))


# ---- rows of an axis as rows of a tile -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_folded_kernels_spread_nothing(rng, dtype, value, monkeypatch, fresh_plans):
    """A padded kernel multiplies samples by zeros: infinity and NaN must not notice."""
    monkeypatch.setattr(_ways, "LITTLE", -1)
    monkeypatch.setattr(_ways, "GAIN", 100)
    x, w = integers(rng, (19, 23), dtype), integers(rng, (6, 5), dtype)
    axes, parts = (Axis(19, 6, 24), Axis(23, 5, 27)), x.itemsize // x.real.itemsize
    problem = problem_of(_runtime.kernels(x.dtype), axes, (1, 1, 19, 23, parts), (1, 1, 24, 27, parts))
    assert _ways.best_way(problem, "padded").layout.combines_taps
    x[7, 9] = value
    with np.errstate(invalid="ignore"):
        y = reference.conv_transpose(x, w)
        assert_exact(conv_transpose(x, w), y, dtype)
        y = np.where(np.isfinite(y), y, 1).astype(dtype)
        y[3, 4] = value
        assert_exact(conv_transpose_adjoint(y, w), reference.conv_transpose_adjoint(y, w), dtype)


# ---- fewer multiplications -------------------------------------------------------------------------------

LAYER = {"channels": "first", "stride": 2, "padding": 1}


@pytest.fixture
def layer(rng, monkeypatch, fresh_plans):
    """Samples and weights for which method "auto" saves multiplications in every reading."""
    for module in (_ways, _weights):
        monkeypatch.setattr(module, "MIXED_LEAST", 0)
    for module in (_ways, _correlation, _weights):
        monkeypatch.setattr(module, "MIXED_GAIN", np.inf)
    return rng.standard_normal((2, 48, 40, 40), np.float32), rng.standard_normal((48, 40, 4, 4), np.float32)


def readings(x, w, y, method):
    yield conv_transpose(x, w, method=method, **LAYER)
    yield conv_transpose_adjoint(y, w, method=method, **LAYER)
    yield conv_transpose_weight_adjoint(x, y, kernel_shape=w.shape[2:], method=method, **LAYER)


def test_little_precision_is_lost(rng, layer):
    x, w = layer
    y = rng.standard_normal((2, 40, 80, 80), np.float32)
    exact = readings(*(a.astype(np.float64) for a in (x, w, y)), "direct")
    for direct, auto, expected in zip(readings(x, w, y, "direct"), readings(x, w, y, "auto"), exact, strict=True):
        assert not np.array_equal(direct, auto)  # or there would be nothing to test
        assert abs(auto - expected).max() < 4 * abs(direct - expected).max()
        assert abs(auto - expected).max() < 1e-5 * abs(expected).max()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_mixed_samples_spread_nothing(rng, layer, value):
    """Sums of samples spread infinity and NaN, and can overflow: then they are not to be used."""
    x, w = layer
    w = np.abs(w)  # one sign, lest infinities meet in the definition too
    y = np.abs(rng.standard_normal((2, 40, 80, 80), np.float32))
    x[1, 7, 20, 21] = y[1, 7, 20, 21] = value
    for direct, auto in zip(readings(x, w, y, "direct"), readings(x, w, y, "auto"), strict=True):
        assert np.array_equal(np.isnan(direct), np.isnan(auto))
        assert np.array_equal(np.isinf(direct), np.isinf(auto))
        finite = np.isfinite(direct)
        tolerance = 1e-5 * abs(direct[finite]).max()
        np.testing.assert_allclose(auto[finite], direct[finite], rtol=1e-4, atol=tolerance if value == 3e38 else 1e-3)


def test_taps_that_reach_nothing(layer):
    """The last rows of the kernel meet no sample of a window that is cropped this much: their weights are zero."""
    x, _ = layer
    y = np.ones((2, 40, 2, 43), np.float32)
    kwargs = {"kernel_shape": (3, 4), "channels": "first", "padding": ((0, 40), 0)}
    w = conv_transpose_weight_adjoint(x, y, **kwargs)
    assert not w[:, :, 2].any()
    np.testing.assert_allclose(
        w, conv_transpose_weight_adjoint(x, y, method="direct", **kwargs), rtol=0, atol=1e-5 * abs(w).max()
    )


def test_workers_agree_on_sums(layer):
    x, w = layer
    one, *more = (conv_transpose(x, w, workers=workers, **LAYER) for workers in (1, 2, 3))
    for other in more:
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("extent", "halo", "most"),
    [
        ([100], [3], 30),
        ([40, 56], [1, 2], 200),
        ([9, 7, 12], [0, 1, 1], 50),
        ([5, 3], [4, 4], 1000),
        ([6, 0], [1, 1], 9),
    ],
)
def test_boxes_cover_all_positions(extent, halo, most):
    box = tables.best_box(extent, halo, most, 8, 100, 1000, 4, 8)
    assert len(box) == len(extent)
    assert math.prod(box) <= most
    assert all(0 < part <= size or part == size == 0 for part, size in zip(box, extent, strict=True))


def test_boxes_share_the_work():
    """Five boxes for two workers take as long as six."""
    box = tables.best_box([960], [0], 200, 8, 1000, 10, 1, 1, pieces=1, workers=2)
    assert -(-960 // box[0]) % 2 == 0


def test_boxes_follow_memory():
    """Whole lines, which have no halo between them, rather than parts of them; but in no more than there may be."""
    assert tables.best_box([64, 64], [1, 1], 640, 8, 10, 1000, 1, 4)[1] == 64
    assert tables.best_box([64, 64], [1, 1], 32, 8, 10, 1000, 1, 4)[1] == 32


def test_boxes_are_narrow_where_lines_meet_again():
    """Lines that meet the taps of several rows stay in the nearest cache between two of these."""
    wide, narrow = (
        tables.best_box([1024, 1024], [8, 8], 2**15, 8, 81, 2000, 1, 1, taps=[taps, taps], near=4096) for taps in (1, 9)
    )
    assert narrow[1] < 512 <= wide[1]


@pytest.mark.parametrize(
    ("kwargs", "taps"), [({"dilation": 32}, 4), ({"stride": 2}, 2)], ids=["far from each other", "of two phases"]
)
def test_boxes_count_taps(kwargs, taps, monkeypatch, fresh_plans):
    """Those that a plane meets: neither what lies between them, nor those of other phases."""
    counted = []

    def best_box(*args):
        counted.append(args[-2])
        return tables.best_box(*args)

    monkeypatch.setattr(_correlation, "best_box", best_box)
    monkeypatch.setattr(_direct, "stencil", lambda *_, exact: None)
    y = conv_transpose(np.ones((50, 60)), np.ones((4, 4)), method="direct", **kwargs)
    conv_transpose_adjoint(y, np.ones((4, 4)), method="direct", **kwargs)
    assert counted == [[taps, taps]] * 2


def test_boxes_have_full_vectors():
    """Two of six vectors and one of four rather than three of six, the last of which are filled in part."""
    assert tables.best_box([256], [0], 96, 16, 10_000, 10, 1, 1) == [96]
    assert tables.best_box([28], [0], 20, 16, 10_000, 10, 1, 1) == [14]


def test_many_axes_are_planned_in_time():
    """However many boxes there are to choose from."""
    box = tables.best_box([2] * 40, [1] * 40, 2**20, 8, 100, 1000, 4, 8)
    assert math.prod(box) <= 2**20


@pytest.mark.parametrize(("taps", "copied"), [(9, True), (3000, False)])
def test_strips_are_copied_for_many_rows(rng, taps, copied, monkeypatch, fresh_plans):
    """And are as right as those that are not, of a kernel too long for it."""
    problems = []
    plan = _correlation.correlation
    monkeypatch.setattr(_direct, "correlation", lambda *problem: problems.append(problem) or plan(*problem))
    monkeypatch.setattr(_correlation, "COPIED", 12)
    x, w = rng.standard_normal((2, 20, 50)), rng.standard_normal((20, 80, taps))
    result = conv_transpose(x, w, channels="first", method="direct")
    for c in (0, 79):
        expected = sum(np.convolve(x[1, i], w[i, c]) for i in range(20))
        np.testing.assert_allclose(result[1, c], expected, rtol=1e-10, atol=1e-10)
    scratch = plan(*problems[-1]).kernel.scratch_size
    monkeypatch.setattr(_correlation, "COPIED", 0)
    plan.cache_clear()
    assert (plan(*problems[-1]).kernel.scratch_size < scratch) == copied


def test_scratch_grows_by_the_halo_alone(monkeypatch, fresh_plans):
    """With a long kernel and many rows, of whose strips no copy is made."""
    monkeypatch.setattr(_correlation, "COPIED", 12)

    def scratch(taps):
        shapes = (2, 1, 20, 50, 1), (2, 1, 80, 49 + taps, 1)
        axes = (Axis(50, taps, 49 + taps, 1, 1, 0),)
        problem = problem_of(_runtime.kernels(np.dtype(float)), axes, *shapes)
        return _correlation.correlation(problem, "plain").kernel.scratch_size

    assert scratch(6000) - scratch(3000) < 1.2 * 20 * 3000
