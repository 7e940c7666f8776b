"""
Two layers in one
=================

Without anything nonlinear between them, two transposed convolutions are one linear map.  As matrices, their product
says so, and its rows and columns can be read.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_array

from cytconv import conv_transpose, conv_transpose_matrix

# %%
# A product of matrices
# ---------------------
#
# Two layers, as in a decoder: 6 channels to 4, then 4 to 1, each doubling the image.

rng = np.random.default_rng(0)
x = rng.standard_normal((6, 8, 8))
first, second = rng.standard_normal((6, 4, 4, 4)), rng.standard_normal((4, 1, 4, 4))
layer = {"stride": 2, "padding": 1, "channels": "first"}

middle = conv_transpose(x, first, **layer)
y = conv_transpose(middle, second, **layer)

M1 = conv_transpose_matrix(first, x.shape, **layer)
M2 = conv_transpose_matrix(second, middle.shape, **layer)
product = M2 @ M1
np.testing.assert_allclose(product @ x.ravel(), y.ravel(), rtol=0, atol=1e-12 * np.abs(y).max())

# %%
# Which way is cheaper?
# ---------------------
#
# The hidden channels are gone from the product, and so it has fewer entries than the two have together.

print(f"first layer  {M1.shape}, {M1.nnz} entries")
print(f"second layer {M2.shape}, {M2.nnz} entries")
print(f"product      {product.shape}, {product.nnz} entries")
assert product.nnz < M1.nnz + M2.nnz

# %%
# One layer again
# ---------------
#
# Away from the border the product is itself a transposed convolution, of stride 2 * 2 = 4.  Its kernel is a column:
# the image of one sample.  Tap k1 of the first layer moves 2 * k1 on, and so the kernel is the first one with the
# second spread over it: 2*(4 - 1) + 4 = 10 taps along each axis.

kernel = conv_transpose(first, second, stride=2, channels="first")
assert kernel.shape == (6, 1, 10, 10)
once = conv_transpose(x, kernel, stride=4, padding=3, channels="first")
assert once.shape == y.shape
inside = (..., slice(4, -4), slice(4, -4))
np.testing.assert_allclose(once[inside], y[inside], rtol=0, atol=1e-12 * np.abs(y).max())

# %%
# At the border they differ: the first layer's padding cuts off what the second would still have spread.  The matrix
# has that right, as a single kernel cannot.

as_one = conv_transpose_matrix(kernel, x.shape, stride=4, padding=3, channels="first")
difference = csr_array(as_one - product)
difference.data[np.abs(difference.data) < 1e-10] = 0
difference.eliminate_zeros()
rows = np.unique(difference.tocoo().coords[0])
height, width = np.unravel_index(rows, y.shape[1:])
assert np.all((height < 4) | (height >= 28) | (width < 4) | (width >= 28))
assert rows.size > 0

figure, axes = plt.subplots(1, 4, figsize=(13, 4.2), layout="constrained")
at = np.ravel_multi_index((0, 4, 4), x.shape)
image = product[:, [at]].toarray().reshape(y.shape[1:])
matrices = {"second layer": M2, "first layer": M1, "their product": product}
for ax, (title, matrix) in zip(axes, matrices.items(), strict=False):
    ax.spy(matrix, markersize=0.3, color="C0", rasterized=True)
    ax.set_title(f"{title}\n{matrix.shape[0]} x {matrix.shape[1]}, {matrix.nnz} entries", fontsize=10)
    ax.set_aspect("auto")
limit = np.abs(image).max()
axes[3].imshow(image, cmap="RdBu", vmin=-limit, vmax=limit)
axes[3].set_title("one column of the product,\nthe stamp of one sample: 10 x 10", fontsize=10)
plt.show()
