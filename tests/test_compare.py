"""`compare_methods` and ``python -m cytconv compare``."""

import io
import json
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from cytconv import _compare, _comparison, compare_methods
from cytconv.__main__ import main
from cytconv._comparison import MethodCost
from cytconv._methods import METHODS

GEOMETRIES = {
    "1d": ((20, 5), {"stride": 3, "dilation": 2}),
    "cropped": (((6, 7), (3, 4)), {"stride": 2, "padding": ((1, 2), 1)}),
    "extended": (((6, 7), 3), {"stride": (1, 4), "padding": ((-2, 1), (3, -5))}),
    "beyond the full result": ((2, 3), {"padding": ((20, -25),)}),
    "complex": (((5, 6), 2), {"stride": 2, "dtype": np.complex128}),
    "channels": (((5, 6), 3), {"channels_in": 4, "channels_out": 6, "groups": 2, "padding": 1, "dtype": "float32"}),
    "3d": (((3, 4, 5), 2), {"stride": (2, 1, 3), "channels_in": 2}),
    "4d": (((3, 2, 3, 2), 2), {"stride": 2}),
}


def quick(*args, **keywords):
    return compare_methods(*args, **{"repeat": 1, **keywords})


@pytest.mark.parametrize(("shapes", "keywords"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_everyone_agrees(shapes, keywords):
    comparison = quick(*shapes, **keywords)
    rows = {row.name: row for row in comparison.rows}
    assert list(rows)[0] == "direct"
    assert {"auto", *METHODS, "scipy.sparse"} <= set(rows)
    eps = np.finfo(comparison.dtype).eps
    for name, row in rows.items():
        assert row.peer == (name not in {"auto", *METHODS})
        if row.reason:
            assert row.peer
            assert row.setup is row.forward is row.adjoint is row.difference is None
        else:
            assert row.difference < 50 * eps
            assert row.setup >= 0
            assert row.forward > 0
            assert row.adjoint > 0
    plain = "channels_in" not in keywords
    assert (not rows["scipy fftconvolve"].reason) == (not rows["scipy oaconvolve"].reason) == plain


def test_torch_where_it_can():
    pytest.importorskip("torch")
    for key, able in {"channels": True, "3d": True, "cropped": False, "complex": False, "4d": False}.items():
        shapes, keywords = GEOMETRIES[key]
        row = quick(*shapes, methods=[], **keywords)["torch"]
        assert (not row.reason) == able
        assert row.kept is row.peak is None


def test_geometry_is_told():
    comparison = quick((6, 7), 3, stride=(2, 1), padding=((1, 0), -1), dilation=(1, 2), methods=[], peers=False)
    assert comparison.input_shape == (6, 7)
    assert comparison.kernel_shape == (3, 3)
    assert comparison.output_shape == (12, 13)
    assert comparison.padding == ((1, 0), (-1, -1))
    assert comparison.channels_in is None
    text = comparison.table()
    assert "input 6 x 7 -> output 12 x 13, kernel 3 x 3, stride 2 x 1, padding 1:0 x -1, dilation 1 x 2" in text
    grouped = quick(8, 3, channels_in=4, groups=2, methods=[], peers=False)
    assert (grouped.channels_in, grouped.channels_out) == (4, 4)
    assert "channels 4 -> 4, kernel 3, stride 1, groups 2" in grouped.table()


def test_memory_is_what_arrays_take():
    comparison = quick((100, 90), 4, stride=2, methods=["sparse"])
    result = 8 * math.prod(comparison.output_shape)
    entries, rows = 16 * 9000, math.prod(comparison.output_shape)
    for name, matrix in (("sparse", 8 * entries), ("scipy.sparse", (8 + 4) * entries + 4 * (rows + 1))):
        assert matrix <= comparison[name].kept < 1.05 * matrix + 20_000
    assert result <= comparison["direct"].peak < 1.05 * result + 20_000
    assert comparison["scipy fftconvolve"].peak > 2 * result
    assert not tracemalloc.is_tracing()


def test_tracing_goes_on_if_it_was_on():
    tracemalloc.start()
    try:
        quick(8, 3, methods=[], peers=False)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


DIRECT = METHODS["direct"]


class Broken:
    """A method that cannot, or is wrong."""

    abreast = False

    def __init__(self, axes, w):
        self._direct = DIRECT(axes, w)

    def forward(self, x, bias, y, workers):
        raise MemoryError("the matrix takes 123 TiB")

    def adjoint(self, y, bias, x, workers):
        self._direct.adjoint(y, bias, x, workers)

    def repeat_packed(self, *_):
        return None


class Wrong(Broken):
    def forward(self, x, bias, y, workers):
        self._direct.forward(x, bias, y, workers)
        y[..., 0] *= 1.001


class Infinite(Broken):
    def forward(self, x, bias, y, workers):
        y[...] = np.nan


def test_who_refuses_or_is_wrong_is_not_timed(monkeypatch):
    for name, method in {"broken": Broken, "wrong": Wrong, "infinite": Infinite}.items():
        monkeypatch.setitem(METHODS, name, method)
    comparison = quick(50, 4, methods=["broken", "wrong", "infinite"], peers=False)
    assert comparison["broken"].reason == "the matrix takes 123 TiB"
    assert comparison["wrong"].reason.startswith("differs from direct by")
    assert comparison["infinite"].reason.startswith("differs from direct by")
    for row in comparison.rows[1:]:
        assert row.forward is row.break_even is None
    assert comparison.fastest(1) == "direct"
    assert "the matrix takes 123 TiB" in comparison.table()
    json.loads(comparison.to_json())


def test_without_the_yardstick_there_is_no_comparison(monkeypatch):
    monkeypatch.setitem(METHODS, "direct", Broken)
    with pytest.raises(MemoryError, match="123 TiB"):
        quick(50, 4)


@pytest.mark.parametrize(
    ("setup", "forward", "expected"),
    [
        (1.0, 2.0, None),  # as direct, and so never faster
        (0.0, 3.0, None),
        (0.5, 1.0, 1),
        (1.0, 1.0, 1),
        (3.5, 1.0, 3),
        (3.0, 1.0, 3),  # level at 2
        (11.0, 1.5, 21),
    ],
)
def test_break_even(setup, forward, expected):
    direct = MethodCost("direct", setup=1.0, forward=2.0)
    other = MethodCost("other", setup=setup, forward=forward)
    assert _compare._overtakes(other, direct) == expected
    if expected is not None:
        assert other.total(expected) < direct.total(expected)
        assert expected == 1 or other.total(expected - 1) >= direct.total(expected - 1)


def test_progress():
    steps = []
    quick(9, 3, repeat=2, methods=["sparse"], peers=False, progress=lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == list(range(7))
    assert {total for _, total, _ in steps} == {6}
    assert [name for _, _, name in steps] == ["direct", "sparse"] * 3 + [""]


def test_progress_bar():
    stream = io.StringIO()
    show = _compare.progress_bar(stream, width=4)
    show(1, 4, "sparse")
    assert stream.getvalue().endswith("[#...] 1/4 sparse")
    show(4, 4, "")
    assert stream.getvalue().endswith("\r\033[K")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (1.234e-7, "0.12 us"),
        (1.2345e-6, "1.23 us"),
        (99.99e-6, "100 us"),
        (1e-3, "1.00 ms"),
        (0.01234, "12.3 ms"),
        (0.5, "500 ms"),
        (123.4, "123 s"),
        (12345.0, "12345 s"),
    ],
)
def test_seconds(value, text):
    assert _comparison._seconds(value) == text


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"kernel_shape": (3, 3)}, ValueError, r"kernel_shape=\(3, 3\)"),
        ({"padding": 50}, ValueError, "padding="),
        ({"padding": 5}, ValueError, "nothing to compare"),
        ({"dtype": "int32"}, TypeError, "dtype='int32'"),
        ({"repeat": 0}, ValueError, "repeat=0"),
        ({"channels_in": 0}, ValueError, "channels_in=0"),
        ({"channels_in": 4, "groups": 3}, ValueError, "groups=3"),
        ({"groups": 2}, ValueError, "groups"),
        ({"methods": ["nothing"]}, ValueError, r"methods=\['nothing'\]"),
        ({"methods": "direct"}, TypeError, "methods='direct'"),
        ({"methods": 5}, TypeError, "methods=5"),
        ({"dtype": "nothing"}, TypeError, "dtype='nothing'"),
        ({"kernel_shape": 0}, ValueError, r"kernel_shape=\(0,\)"),
        ({"kernel_shape": -1}, ValueError, r"kernel_shape=\(-1,\)"),
        ({"input_shape": ()}, ValueError, r"input_shape=\(\)"),
        ({"groups": "a"}, TypeError, "groups='a' must be an integer$"),
        ({"progress": 5}, TypeError, "progress=5"),
        ({"workers": 0}, ValueError, "workers=0"),
        ({"repeat": 1.5}, TypeError, "repeat"),
    ],
)
def test_errors(keywords, error, match):
    with pytest.raises(error, match=match):
        compare_methods(**{"input_shape": 8, "kernel_shape": 3, "peers": False, **keywords})


def test_rows_by_name():
    comparison = compare_methods(8, 3, methods=["sparse"], peers=False, repeat=1)
    assert "sparse" in comparison
    assert "fft" not in comparison
    assert [row.name for row in comparison] == ["direct", "sparse"]
    assert comparison["sparse"] is comparison.rows[1]
    with pytest.raises(KeyError, match="fft"):
        comparison["fft"]


# ---- text and pictures -----------------------------------------------------------------------------------


def test_table_fits(monkeypatch):
    monkeypatch.setitem(METHODS, "broken", Broken)
    text = quick((9, 8, 7), 3, stride=2, padding=((1, 0),) * 3, channels_in=16, groups=4, dtype="float32").table()
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
    for name in ("direct", "sparse", "broken", "auto", "scipy.sparse"):
        assert f"\n{name} " in text


def test_plot(monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    monkeypatch.setitem(METHODS, "broken", Broken)
    comparison = quick((16, 16), 3, stride=2, methods=["sparse", "broken"])
    figure = comparison.plot()
    bars, lines = figure.axes
    assert [label.get_text().splitlines()[0] for label in bars.get_yticklabels()] == [r.name for r in comparison.rows]
    measured = [row.name for row in comparison.rows if not row.reason]
    assert [text.get_text() for text in lines.get_legend().get_texts()] == measured
    ax = Figure().add_subplot()
    assert comparison.plot(ax) is ax.figure
    assert len(ax.patches) >= 2 * len(measured)


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        quick(8, 3, methods=[], peers=False).plot()


# ---- the command ---------------------------------------------------------------------------------------


def compare(*arguments):
    return main(["compare", "--repeat", "1", "--no-peers", *map(str, arguments)])


def test_command(tmp_path, capsys):
    numbers = tmp_path / "c.json"
    flags = ["--stride", 2, "--padding", "1:0,1", "--dilation", "1,2", "--channels-in", 2, "--channels-out", 4]
    assert compare("--shape", "6,7", "--kernel", 3, *flags, "--groups", 2, "--dtype", "float32", "--json", numbers) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "channels 2 -> 4, kernel 3 x 3, stride 2 x 2, padding 1:0 x 1, dilation 1 x 2, groups 2" in text
    saved = json.loads(numbers.read_text())
    assert saved["padding"] == [[1, 0], [1, 1]]
    assert [row["name"] for row in saved["rows"]] == ["direct", *(m for m in METHODS if m != "direct"), "auto"]
    assert list(tmp_path.iterdir()) == [numbers]


def test_json_to_stdout(capsys):
    assert compare("--shape", 6, "--kernel", 3, "--methods", "sparse", "--json", "-") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["direct", "sparse"]


@pytest.mark.parametrize("suffix", ["png", "SVG", "pdf"])
def test_plot_file(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"c.{suffix}"
    assert compare("--shape", 6, "--kernel", 3, "--plot", path) == 0
    assert {"png": b"\x89PNG", "SVG": b"<?xml", "pdf": b"%PDF"}[suffix] == path.read_bytes()[: 4 + (suffix == "SVG")]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kernel", "3", "--plot", "c.txt"], "plot='c.txt' must end in one of"),
        (["--kernel", "3", "--plot", "c"], "plot='c' must end in one of"),
        (["--kernel", "3", "--json", "missing/c.json"], "cannot be written"),
        (["--kernel", "3,3"], "kernel_shape=(3, 3)"),
        (["--kernel", "3", "--padding", "9"], "padding="),
        (["--kernel", "3", "--methods", "direct,none"], "methods=['direct', 'none']"),
        (["--kernel", "3", "--repeat", "0"], "repeat=0"),
        (["--kernel", "3", "--workers", "0"], "workers=0"),
    ],
)
def test_bad_flags(tmp_path, monkeypatch, capsys, arguments, message):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert compare("--shape", 4, "--json", "c.json", *arguments) == 2
    text = capsys.readouterr()
    assert text.err.startswith("python -m cytconv compare: error: ")
    assert message in text.err
    assert text.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [["--shape", "4,x"], ["--padding", "1:2:3"], ["--dtype", "int8"], ["--stride", ""]])
def test_unreadable_flags(capsys, flags):
    with pytest.raises(SystemExit) as exit:
        compare("--shape", 4, "--kernel", 3, *flags)
    assert exit.value.code == 2
    assert f"argument {flags[0]}:" in capsys.readouterr().err


def test_import_stays_cheap():
    ours = "'cytconv._compare', 'cytconv._comparison', 'cytconv._operator'"
    late = f"{ours}, 'scipy.sparse.linalg', 'scipy.signal', 'torch', 'matplotlib'"
    code = f"import sys, cytconv; assert not {{{late}}} & set(sys.modules); cytconv.compare_methods"
    subprocess.run([sys.executable, "-c", code], check=True)
