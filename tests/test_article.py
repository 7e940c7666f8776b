"""The examples of the article that introduced the problem: small numbers that a reader can check by hand.

Two readings of the same operation: kernel times element, each product pasted into its own region of the
output, and the outer product of image and kernel with its blocks glued together.
"""

import numpy as np
import pytest
from reference import assert_exact

from cytconv import conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

METHODS = ["direct", "sparse"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_region_is_kernel_times_element(rng, dtype, method):
    """A 2x3 image and a 2x2 kernel, any real numbers: each product stands alone, so nothing is rounded twice."""
    image, kernel = rng.normal(size=(2, 3)).astype(dtype), rng.normal(size=(2, 2)).astype(dtype)
    y = conv_transpose(image, kernel, stride=2, method=method)
    assert y.shape == (4, 6)
    for i in range(2):
        for j in range(3):
            assert_exact(y[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], image[i, j] * kernel, dtype)
    layer = conv_transpose(image[None, None], kernel[None, None], stride=2, channels="first", method=method)
    assert_exact(layer, y[None, None], dtype)


@pytest.mark.parametrize("method", METHODS)
def test_outer_product_glued_together(method):
    """The article's APL example, to four significant digits as it prints its numbers."""
    kernel = np.array([[0.3459, -0.2987], [-0.9396, -0.01321]])
    image = np.array([[0.9064, 0.4639, 0.3109], [0.3791, 0.2148, 0.07558]])
    y = conv_transpose(image, kernel, stride=2, method=method)
    printed = """
         0.3135 -0.2707   0.1605  -0.1386    0.1075  -0.09287
        -0.8517 -0.01197 -0.4359  -0.006128 -0.2921  -0.004107
         0.1311 -0.1132   0.0743  -0.06416   0.02614 -0.02258
        -0.3562 -0.005008 -0.2018 -0.002838 -0.07101 -0.0009984
    """
    assert [[float(f"{v:.4g}") for v in row] for row in y] == [
        [float(v) for v in row.split()] for row in printed.strip().splitlines()
    ]
    glued = np.multiply.outer(image, kernel).transpose(0, 2, 1, 3).reshape(4, 6)
    assert_exact(y, glued, np.float64)
    assert_exact(y, np.kron(image, kernel), np.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_upsampling(rng, factor, ndim, method):
    """A kernel of n ones with a stride of n repeats every sample n times along every axis."""
    image = rng.normal(size=(4, 5, 3)[:ndim])
    up = conv_transpose(image, np.ones([factor] * ndim), stride=factor, method=method)
    assert_exact(up, np.kron(image, np.ones([factor] * ndim)), np.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_down_and_up_again(rng, factor, method):
    """The adjoint of upsampling sums each region, and brings an upsampled image back, times the kernel's square."""
    kernel = rng.integers(1, 5, (factor, factor)).astype(float)
    image = rng.integers(-9, 9, (6, 7)).astype(float)
    up = conv_transpose(image, kernel, stride=factor, method=method)
    down = conv_transpose_adjoint(up, kernel, stride=factor, method=method)
    assert_exact(down, image * (kernel**2).sum(), np.float64)
    weights = conv_transpose_weight_adjoint(image, up, kernel_shape=kernel.shape, stride=factor, method=method)
    assert_exact(weights, kernel * (image**2).sum(), np.float64)
