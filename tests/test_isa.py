"""The same numbers from the kernels of every instruction set that this CPU and build have."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cytconv
from cytconv import _runtime

HERE = Path(__file__).parent
SUBSET = [
    "test_definition.py::test_every_length_of_tail",
    "test_definition.py::test_long_kernels",
    "test_definition.py::test_numbers_of_output_channels",
    "test_definition.py::test_blocked_in_channels",
    "test_arrays.py::test_out_of_every_length",
    "test_arrays.py::test_bad_numbers_reach_exactly_their_windows",
    "test_arrays.py::test_one_nan_in_many_channels",
    "test_plans.py::TestEveryWay::test_folded",
    "test_plans.py::TestEveryWay::test_fewer_multiplications",
    "test_plans.py::TestLines::test_readings",
    "test_plans.py::TestPixels",
    "test_plans.py::test_tiles_write_to_the_result",
    "test_plans.py::test_lines_as_short_as_a_step",
    "test_matrix.py::test_products",
    "test_matrix.py::test_products_by_any_number_of_workers",
]
DTYPES = "float32 or complex128"  # both widths of a number, and both real and complex ones


def python(*arguments, isa, timeout=300):
    return subprocess.run(
        [sys.executable, *arguments],
        # In one process each, whatever the suite around them has.
        env={**os.environ, "CYTCONV_ISA": isa, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_one_is_in_use():
    assert "baseline" in _runtime.available_isas()
    assert set(_runtime.available_isas()) <= {"baseline", "avx2", "avx512"}
    assert _runtime.ISA in _runtime.available_isas()


@pytest.mark.parametrize("isa", _runtime.available_isas())
def test_choice(isa):
    done = python("-c", "from cytconv import _runtime; print(_runtime.ISA)", isa=isa)
    assert done.stdout.strip() == isa, done.stderr


@pytest.mark.parametrize("isa", [isa for isa in _runtime.available_isas() if isa != _runtime.ISA])
def test_the_others_compute_the_same(isa):
    """The kernels in use are tested by the rest of the suite; here the others take their turn."""
    pytest_here = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", f"({DTYPES}) and not sparse")
    done = python(*pytest_here, *(str(HERE / test) for test in SUBSET), isa=isa)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("isa", ["sse9", "AVX-2"])
def test_unknown_name(isa):
    done = python("-c", "import cytconv", isa=isa)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert "Error" in message and "CYTCONV_ISA" in message and isa in message
    assert all(name in message for name in _runtime.available_isas())


@pytest.mark.parametrize("isa", [name for name in ("avx2", "avx512") if name not in _runtime.available_isas()])
def test_isa_that_is_not_there(isa):
    done = python("-c", "import cytconv", isa=isa)
    assert done.returncode != 0
    assert "CYTCONV_ISA" in done.stderr and isa in done.stderr


def test_show_config(capsys):
    assert cytconv.show_config() is None
    shown = capsys.readouterr().out
    assert _runtime.ISA in shown
    assert "OpenMP" in shown
    assert cytconv.__version__ in shown
    assert np.__version__ in shown
