"""`choose_method`: what it returns, and where its constants are kept.

Whether it is right is for benchmarks/choice.py, as it needs a machine that does nothing else.
"""

import json
import math
import subprocess
import sys
import threading

import numpy as np
import pytest

from cytconv import _choice, choose_method
from cytconv.__main__ import main
from cytconv._geometry import Geometry
from cytconv._methods import METHODS

PRICES = {"direct": [1e-5, 1e-11, 1e-10, 1e-10, 0.0], "fft": [1e-4, 6e-11, 0.0], "sparse": [1e-4, 2e-10, 4e-10]}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own, few and small samples, and nothing known."""
    monkeypatch.setenv("CYTCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_choice, "_known", {})
    monkeypatch.setattr(_choice, "SAMPLES", [((30,), (5,), 1), ((9, 9), (3, 3), 2), ((2, 8), (2, 3, 3), 1)])
    return tmp_path / "cache" / "prices.json"


def keep(cache, content):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text(content)


# ---- the choice --------------------------------------------------------------------------------------


def test_follows_the_prices(monkeypatch):
    x, w = np.ones((40, 40)), np.ones((5, 5))
    for cheap in METHODS:
        prices = {name: [price * (1e-9 if name == cheap else 1) for price in each] for name, each in PRICES.items()}
        monkeypatch.setitem(_choice._known, _choice._key(), prices)
        assert choose_method(x, w) == cheap


def test_sides_of_the_border(monkeypatch):
    """A kernel of few taps and one of thousands, where a wrong choice would cost an order of magnitude."""
    monkeypatch.setitem(_choice._known, _choice._key(), PRICES)
    x = np.ones((300, 300))
    assert choose_method(x, np.ones((2, 2)), stride=2) == "direct"
    assert choose_method(x, np.ones((129, 129))) == "fft"


def test_measured():
    method, times = choose_method(np.ones((12, 12)), np.ones((3, 3)), stride=2, measure=True)
    assert set(times) == set(METHODS)
    assert all(0 < seconds < math.inf for seconds in times.values())
    assert times[method] == min(times.values())


def test_a_matrix_that_does_not_fit_takes_for_ever(monkeypatch):
    monkeypatch.setattr("cytconv._matrix.physical", lambda: 10)
    method, times = choose_method(np.ones(9), np.ones(3), measure=True)
    assert times["sparse"] == math.inf
    assert method != "sparse"


@pytest.mark.parametrize(
    ("shape", "w_shape", "kwargs"),
    [
        ((4, 0, 5), (0, 2, 3), {"channels": "first"}),
        ((5,), (2,), {"padding": 3}),
        ((1,), (3,), {"stride": 2**40, "output_shape": 3}),
        ((2, 3, 4, 6), (6, 2, 3, 2), {"channels": "last", "groups": 2, "dilation": 3}),
        ((3, 5, 4), (2, 3), {"axes": (2, 0)}),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.complex128])
def test_any_geometry(monkeypatch, shape, w_shape, kwargs, dtype):
    monkeypatch.setitem(_choice._known, _choice._key(), PRICES)
    assert choose_method(np.ones(shape, dtype), np.ones(w_shape, dtype), **kwargs) in METHODS


def test_plans_look_at_no_memory():
    """Terabytes are predicted as well."""
    geometry = Geometry.forward((10**6, 10**6), (3, 3), stride=2)
    seconds = _choice.predict(geometry, np.dtype("f8"), 2, PRICES)
    assert seconds["direct"] > 100


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"stride": 0}, ValueError, "stride=0"),
        ({"workers": 0}, ValueError, "workers=0"),
        ({"groups": 2}, ValueError, "groups=2"),
    ],
)
@pytest.mark.parametrize("measure", [False, True])
def test_errors(kwargs, error, match, measure):
    with pytest.raises(error, match=match):
        choose_method(np.ones(4), np.ones(2), measure=measure, **kwargs)


@pytest.mark.parametrize("measure", [False, True])
def test_iterators(measure):
    x, w = np.ones((5, 4)), np.ones((2, 2))
    choose_method(x, w, stride=iter([2, 1]), padding=iter([1, (0, 1)]), axes=iter([0, 1]), measure=measure)


# ---- its constants -----------------------------------------------------------------------------------


def test_calibrated_once(monkeypatch, cache):
    assert choose_method(np.ones(30), np.ones(3)) in METHODS
    kept = json.loads(cache.read_text())[_choice._key()]
    assert {name: len(each) for name, each in kept.items()} == {name: len(each) for name, each in PRICES.items()}
    monkeypatch.setattr(_choice, "_known", {})
    monkeypatch.setattr(_choice, "calibrate", lambda: pytest.fail("measured again"))
    assert choose_method(np.ones(30), np.ones(3)) in METHODS


def test_keeps_what_others_wrote(cache):
    keep(cache, json.dumps({"another machine": PRICES}))
    _choice.calibrate()
    assert set(json.loads(cache.read_text())) == {"another machine", _choice._key()}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "7", '{"KEY": 3}', '{"KEY": {"direct": [1]}}', '{"KEY": {"direct": ["a"], "fft": 1}}', "\x00"]
    + [json.dumps({"KEY": {**PRICES, "fft": [price, 1, 1]}}) for price in (10**400, math.inf, math.nan, -1)],
)
def test_a_spoilt_file_is_measured_anew(cache, content):
    keep(cache, content.replace("KEY", _choice._key()))
    assert choose_method(np.ones(30), np.ones(3)) in METHODS
    assert _choice._read() is not None


def test_without_a_place_to_write(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CYTCONV_CACHE", str(tmp_path / "file" / "below"))  # where even root can make no folder
    assert choose_method(np.ones(30), np.ones(3)) in METHODS
    assert _choice._known


def test_a_folder_in_the_place_of_the_file(cache, capsys):
    cache.mkdir(parents=True)
    assert main(["calibrate"]) == 0
    assert capsys.readouterr().out == f"{cache} cannot be written: each process will measure anew\n"
    assert list(cache.parent.iterdir()) == [cache]


def test_without_a_home(monkeypatch, capsys):
    monkeypatch.delenv("CYTCONV_CACHE")
    monkeypatch.setattr(_choice.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert choose_method(np.ones(30), np.ones(3)) in METHODS
    assert main(["calibrate"]) == 0
    assert "cannot be written" in capsys.readouterr().out


def test_processes_write_at_once(cache):
    """Whoever reads meanwhile finds a whole file."""
    _choice._write(PRICES)
    code = f"from cytconv import _choice\nfor _ in range(30): _choice._write({PRICES})"
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]  # the environment names the cache
    while any(writer.poll() is None for writer in writers):
        assert _choice._read() == PRICES
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]  # nothing is left behind


def test_threads():
    chosen = []
    threads = [threading.Thread(target=lambda: chosen.append(choose_method(np.ones(30), np.ones(3)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(chosen) == 4


def test_command(cache, capsys):
    assert main(["calibrate"]) == 0
    assert capsys.readouterr().out == f"kept in {cache}\n"
    assert _choice._read() is not None
