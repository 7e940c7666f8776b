"""Tests of the build and of the package as installed."""

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cytconv
from cytconv import _checkout, _runtime

PACKAGE = Path(cytconv.__path__[0])
CHECK_ANNOTATE = Path(__file__).resolve().parent.parent / "tools" / "check_annotate.py"


def test_version_is_the_distributions():
    assert importlib.metadata.version("cytconv") == cytconv.__version__


def test_all_lists_the_public_names():
    public = {name for name in dir(cytconv) if not name.startswith("_") and callable(getattr(cytconv, name))}
    assert public == set(cytconv.__all__)
    assert len(cytconv.__all__) == len(set(cytconv.__all__))


def test_every_public_name_is_documented():
    for name in cytconv.__all__:
        assert getattr(cytconv, name).__doc__, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_kernels_import(isa, dtype):
    if isa not in _runtime.available_isas():
        pytest.skip(f"this build or CPU has no {isa}")
    assert importlib.import_module(f"cytconv.kernels.{isa}_{dtype}")


def test_every_instruction_set_is_built_for_both_precisions():
    for isa in ["baseline", "avx2", "avx512"]:
        built = [importlib.util.find_spec(f"cytconv.kernels.{isa}_{dtype}") for dtype in ("float32", "float64")]
        assert (built[0] is None) == (built[1] is None)
        assert built[0] is not None or isa != "baseline"


def test_openmp_is_on_unless_it_was_turned_off():
    serial = os.environ.get("CYTCONV_OPENMP") == "0"
    assert _runtime.config()["OpenMP"].startswith("no" if serial else "yes")


def test_types_are_announced():
    assert (PACKAGE / "py.typed").exists()


def test_no_nogil_line_touches_the_python_c_api():
    pytest.importorskip("Cython")
    if not CHECK_ANNOTATE.exists():
        pytest.skip("needs the source tree")
    result = subprocess.run([sys.executable, str(CHECK_ANNOTATE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("variable", "value"), [("CYTCONV_ISAS", "avx2,avx3"), ("CYTCONV_OPENMP", "2")])
def test_builds_refuse_what_they_do_not_know(tmp_path, variable, value):
    pytest.importorskip("setuptools")
    pytest.importorskip("Cython")
    source = CHECK_ANNOTATE.parent.parent
    if not (source / "setup.py").exists():
        pytest.skip("needs the source tree")
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path]
    environment = os.environ | {variable: value}
    result = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert f"{variable}={value!r} must be" in result.stderr


# ---- a checkout that is not compiled steps aside ---------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """The Python files of the package alone."""
    shutil.copytree(PACKAGE, tmp_path / "cytconv", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    return tmp_path / "cytconv"


def test_uncompiled_checkout_steps_aside(checkout):
    code = "import cytconv, cytconv._api; print(cytconv.__file__); print(cytconv._api.__file__)"
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout.parent, env=env, capture_output=True, text=True, check=True
    )
    assert list(map(Path, result.stdout.splitlines())) == [checkout / "__init__.py", PACKAGE / "_api.py"]


def test_compiled_package_is_used_where_it_is():
    assert _checkout.compiled([str(PACKAGE)]) == [str(PACKAGE)]


def test_uncompiled_and_not_installed(checkout, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(checkout.parent)])
    with pytest.raises(ImportError, match=r"kernels of cytconv are not compiled in .*: run `pip install"):
        _checkout.compiled([str(checkout)])


def test_import_leaves_the_solvers_alone():
    """`scipy.sparse.linalg` takes longer to import than all of cytconv: it comes with `ConvTranspose`."""
    code = "import sys, cytconv; assert 'scipy.sparse.linalg' not in sys.modules; cytconv.ConvTranspose; "
    code += "assert 'scipy.sparse.linalg' in sys.modules and 'ConvTranspose' in dir(cytconv)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Conv'"):
        cytconv.Conv  # noqa: B018  (to look it up is the test)
