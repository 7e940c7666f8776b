"""Every row of docs/coming_from.md: both sides give the same numbers, computed by the library itself.

A row of a table there is a test here, named after its section and its first column.  Its two expressions are evaluated
in namespaces that differ in one thing: on the left, arrays are those of the library, on the right those of numpy.  The
Python blocks of a section are run first, on the right.
"""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.signal
from reference import uniform

import cytconv

PAGE = Path(__file__).parents[1] / "docs" / "coming_from.md"
ROW = re.compile(r"^\| ([^|`]+) \| `([^`]+)` \| (?:`([^`]+)`|the same) \|$", re.M)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
SECTIONS = dict(zip(*[iter(re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.M)[1:])] * 2, strict=True))

# More taps than the stride, as many, and fewer; odd and even numbers to crop; dilation; groups.
GEOMETRIES = [
    {"s": 1, "d": 1, "g": 1, "p": 0, "op": 0, "lo": 1, "hi": 0},
    {"s": 2, "d": 1, "g": 2, "p": 1, "op": 1, "lo": 0, "hi": 1},
    {"s": 2, "d": 3, "g": 3, "p": 2, "op": 1, "lo": 3, "hi": 1},
    {"s": 4, "d": 1, "g": 1, "p": 1, "op": 2, "lo": 1, "hi": 2},
    {"s": 3, "d": 2, "g": 6, "p": 0, "op": 0, "lo": 2, "hi": 2},
]


def rows(section):
    """The rows of a section as ``(left, right)``, with their names; "the same" means what the row above has."""
    table, above = [], ""
    for name, left, right in ROW.findall(SECTIONS[section]):
        above = right or above
        table.append(pytest.param(left, above, id=name.strip()))
    return table


def ours(expression, names):
    """The right side of a row, with the functions of cytconv and the helpers of the page."""
    namespace = {"np": np, "math": math, **vars(cytconv)}
    for block in BLOCK.findall(PAGE.read_text()):
        exec(block, namespace)
    return np.asarray(eval(expression, {**namespace, **names}))


def assert_same(actual, expected):
    eps = np.finfo(expected.dtype).eps
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert expected.size > 0
    assert np.abs(actual - expected).max() <= 100 * eps * np.abs(expected).max()


def output_shape(x_sizes, taps, s, d, p=0, op=0):
    return [(n - 1) * s + d * (k - 1) + 1 - 2 * p + op for n, k in zip(x_sizes, taps, strict=True)]


@pytest.mark.parametrize("section", SECTIONS)
def test_no_row_is_left_out(section):
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    assert len(rows(section)) == len(lines) - 2 > 0


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("left", "right"), rows("PyTorch"))
def test_pytorch(rng, left, right, geometry):
    torch = pytest.importorskip("torch")
    s, d, g, p, op = (geometry[name] for name in ("s", "d", "g", "p", "op"))
    ndim = int(re.search(r"[123](?=d)|$", left).group() or 2)
    sizes, taps = (5, 4, 6)[:ndim], (3, 2, 4)[:ndim]
    arrays = {
        "x": uniform(rng, (2, 6, *sizes), np.float64),
        "y": uniform(rng, (2, 2 * g, *output_shape(sizes, taps, s, d, p, op)), np.float64),
        "w": uniform(rng, (6, 2, *taps), np.float64),
        "b": uniform(rng, 2 * g, np.float64),
        "c": uniform(rng, 6, np.float64),
    }
    layer = (
        torch.nn.ConvTranspose2d(6, 2 * g, taps[:2], s, p, op, g, True, d, dtype=torch.float64) if ndim == 2 else None
    )
    tensors = {name: torch.tensor(a, requires_grad=name in "xw") for name, a in arrays.items()}
    names = {"torch": torch, "F": torch.nn.functional, "grad": torch.autograd.grad}
    expected = eval(left, {**names, **tensors, **geometry, "layer": layer}).detach().numpy()
    assert_same(ours(right, {**arrays, **geometry, "layer": layer}), expected)


def jax_arrays(rng, s):
    """Samples and both layouts of weights, channels last; y is as large as it gets without padding or dilation."""
    arrays = {
        "x": uniform(rng, (2, 5, 4, 3), np.float32),
        "w": uniform(rng, (4, 3, 3, 2), np.float32),
        "v": uniform(rng, (4, 3, 2, 3), np.float32),
    }
    return arrays | {"y": uniform(rng, (2, *output_shape((5, 4), (4, 3), s, 3), 2), np.float32)}


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("left", "right"), rows("JAX"))
def test_jax(rng, left, right, geometry):
    lax, jnp = pytest.importorskip("jax.lax"), pytest.importorskip("jax.numpy")
    arrays = jax_arrays(rng, geometry["s"])
    theirs = {name: jnp.asarray(a) for name, a in arrays.items()}
    expected = np.asarray(eval(left, {"lax": lax, **theirs, **geometry}))
    assert_same(ours(right, {**arrays, **geometry}), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("left", "right"), rows("TensorFlow and Keras"))
def test_tensorflow_as_documented(rng, left, right, geometry):
    """Not TensorFlow itself, but what it says that it is: the gradient of the convolution, which JAX computes."""
    jax = pytest.importorskip("jax")

    def conv2d_transpose(x, v, shape, s, padding):
        def conv2d(y):
            return jax.lax.conv_general_dilated(y, v, (s, s), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        (y,) = jax.linear_transpose(conv2d, jax.ShapeDtypeStruct(shape, x.dtype))(x)
        return y

    s = geometry["s"]
    arrays = jax_arrays(rng, s)
    (_, *n, _), k = arrays["x"].shape, arrays["v"].shape[:2]
    shapes = {
        "y_same": (2, *(s * n_ for n_ in n), 2),
        "y_valid": (2, *(s * n_ + max(k_ - s, 0) for n_, k_ in zip(n, k, strict=True)), 2),
        "y_less": (2, *(s * n_ - (s > 1) for n_ in n), 2),
    }
    tf = SimpleNamespace(nn=SimpleNamespace(conv2d_transpose=conv2d_transpose))
    theirs = {name: jax.numpy.asarray(a) for name, a in arrays.items()}
    expected = np.asarray(eval(left, {"tf": tf, **theirs, **shapes, **geometry}))
    assert_same(ours(right, {**arrays, **shapes, **geometry}), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("left", "right"), rows("ONNX"))
def test_onnx(rng, left, right, geometry):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

    def ConvTranspose(x, w, b, **attributes):
        """A model of one node, run."""
        inputs = {"x": x, "w": w, "b": b}
        infos = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in inputs.items()]
        result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("N", "C", "H", "W"))
        node = onnx.helper.make_node("ConvTranspose", [*inputs], ["y"], **attributes)
        graph = onnx.helper.make_graph([node], "one node", infos, [result])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, inputs)[0]

    s, d, g = (geometry[name] for name in ("s", "d", "g"))
    sizes, taps = (5, 4), (3, 4)
    less = [m - 1 for m in output_shape(sizes, taps, s, d)]  # an odd number to crop, and an even one
    arrays = {
        "x": uniform(rng, (2, 6, *sizes), np.float32),
        "y": np.empty((2, 2 * g, less[0], less[1] - 1), np.float32),
        "w": uniform(rng, (6, 2, *taps), np.float32),
        "b": uniform(rng, 2 * g, np.float32),
    }
    expected = eval(left, {"ConvTranspose": ConvTranspose, **arrays, **geometry})
    assert_same(ours(right, {**arrays, **geometry}), expected)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("taps", [(3, 3), (4, 2), (2, 5)], ids=str)
@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize(("left", "right"), rows("scipy"))
def test_scipy(rng, left, right, s, taps, dtype):
    arrays = {
        "x": uniform(rng, (8, 7), dtype),
        "y": uniform(rng, (9, 11), dtype),
        "w": uniform(rng, taps, dtype),
        "h": uniform(rng, taps[0], dtype),
    }
    names = {"signal": scipy.signal, "ndimage": scipy.ndimage, "linalg": scipy.linalg}
    assert_same(ours(right, {**arrays, "s": s}), eval(left, {**names, **arrays, "s": s}))
