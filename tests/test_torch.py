"""Agreement with PyTorch: values, and gradients from its autograd."""

import numpy as np
import pytest
from reference import assert_close, uniform

from cytconv import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

torch = pytest.importorskip("torch")

TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}
CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}

GEOMETRIES = [
    {},
    {"stride": 2},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"dilation": 3, "output_padding": 2},
    {"stride": 3, "dilation": 2, "padding": 1, "output_padding": 2},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_conv_transpose_and_its_gradients(rng, ndim, geometry, groups, dtype):
    sizes, taps = (4, 5, 6)[:ndim], (3, 2, 3)[:ndim]
    x, w = uniform(rng, (2, 6, *sizes), dtype), uniform(rng, (6, 3, *taps), dtype)
    bias = uniform(rng, 3 * groups, dtype)
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    ty = TRANSPOSED[ndim](tx, tw, torch.tensor(bias), groups=groups, **geometry)
    y = uniform(rng, ty.shape, dtype)
    ty.backward(torch.tensor(y))

    kwargs = {"channels": "first", "groups": groups, **geometry}
    terms = 6 * np.prod(taps) + 1
    assert_close(conv_transpose(x, w, bias=bias, **kwargs), ty.detach().numpy(), dtype, terms)
    assert_close(conv_transpose_adjoint(y, w, **kwargs), tx.grad.numpy(), dtype, terms)
    in_w = conv_transpose_weight_adjoint(x, y, kernel_shape=taps, **kwargs)
    assert_close(in_w, tw.grad.numpy(), dtype, terms=2 * np.prod(sizes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if "output_padding" not in g] + [{"padding": 1}], ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_conv_takes_its_weights_as_they_are(rng, ndim, geometry, groups, dtype):
    sizes, taps = (8, 9, 7)[:ndim], (3, 2, 3)[:ndim]
    y, w = uniform(rng, (2, 3 * groups, *sizes), dtype), uniform(rng, (6, 3, *taps), dtype)
    bias = uniform(rng, 6, dtype)
    expected = CONV[ndim](torch.tensor(y), torch.tensor(w), torch.tensor(bias), groups=groups, **geometry).numpy()
    actual = conv(y, w, bias=bias, channels="first", groups=groups, **geometry)
    assert_close(actual, expected, dtype, terms=3 * np.prod(taps) + 1)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "geometry"),
    [
        ((1, 128, 20, 21), (128, 64, 2, 2), {"stride": 2}),
        ((1, 56, 16, 16), (56, 1, 9, 9), {"stride": 3, "padding": 4}),
        ((4, 64, 8, 8), (64, 64, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
        ((2, 100, 1, 1), (100, 128, 4, 4), {}),
    ],
    ids=str,
)
def test_layers_of_real_networks(rng, x_shape, w_shape, geometry):
    x, w = uniform(rng, x_shape, np.float32), uniform(rng, w_shape, np.float32)
    expected = TRANSPOSED[2](torch.tensor(x), torch.tensor(w), **geometry).numpy()
    actual = conv_transpose(x, w, channels="first", **geometry)
    assert_close(actual, expected, np.float32, terms=x_shape[1] * w_shape[2] * w_shape[3])


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_gradients(rng, dtype):
    """PyTorch's gradients follow the same convention: the adjoint, with the conjugate."""
    x, w = uniform(rng, (2, 4, 9), dtype), uniform(rng, (4, 3, 3), dtype)
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    ty = TRANSPOSED[1](tx, tw, stride=2)
    y = uniform(rng, ty.shape, dtype)
    ty.backward(torch.tensor(y))
    kwargs = {"channels": "first", "stride": 2}
    assert_close(conv_transpose(x, w, **kwargs), ty.detach().numpy(), dtype, terms=12)
    assert_close(conv_transpose_adjoint(y, w, **kwargs), tx.grad.numpy(), dtype, terms=9)
    assert_close(conv_transpose_weight_adjoint(x, y, kernel_shape=[3], **kwargs), tw.grad.numpy(), dtype, terms=18)
