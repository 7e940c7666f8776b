"""
A checkerboard, read off the row sums
=====================================

Transposed convolutions are known to draw checkerboards [1]_.  The cause is visible in the matrix before any
training: a row lists the samples that reach one output, and where rows are of different lengths, so are the sums.

.. [1] A. Odena, V. Dumoulin and C. Olah, "Deconvolution and checkerboard artifacts", Distill, 2016,
   https://doi.org/10.23915/distill.00003
"""

import matplotlib.pyplot as plt
import numpy as np

from cytconv import conv_transpose, conv_transpose_matrix

# %%
# Kernel 3, stride 2
# ------------------
#
# The stride does not divide the kernel: along each axis outputs meet one sample and two in turns.  In two
# dimensions that is 1, 2 or 4.

shape = (10, 10)
odd = conv_transpose_matrix(np.ones((3, 3)), shape, stride=2, padding=1)
counts = np.diff(odd.indptr).reshape(19, 19)
np.testing.assert_array_equal(counts[1:-1, 1:-1], np.outer([2, 1] * 8 + [2], [2, 1] * 8 + [2]))

# %%
# Kernel 4, stride 2
# ------------------
#
# The stride divides the kernel: every output inside meets 2 * 2 samples.

even = conv_transpose_matrix(np.ones((4, 4)), shape, stride=2, padding=1)
flat = np.diff(even.indptr).reshape(20, 20)
np.testing.assert_array_equal(flat[1:-1, 1:-1], 4)

# %%
# With weights, sums take the place of counts
# -------------------------------------------
#
# The row sums are the answer to a constant image, for any weights.  The sums of random kernels 4 x 4 are not level
# either: what the stride makes possible, the weights must still provide.  They do when all phases of the kernel have
# the same sum, as those of linear interpolation have, though its kernel is 3 x 3.

random = np.random.default_rng(0).uniform(0.5, 1.5, (4, 4))
linear = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
sums = {}
for name, w in {"random, 4 x 4": random, "linear, 3 x 3": linear}.items():
    M = conv_transpose_matrix(w, shape, stride=2, padding=1)
    answer = conv_transpose(np.ones(shape), w, stride=2, padding=1)
    np.testing.assert_allclose(M.sum(axis=1), answer.ravel(), rtol=1e-14)
    sums[name] = answer
    phases = [w[p::2, q::2].sum() for p in (0, 1) for q in (0, 1)]
    print(f"{name}: phases sum to {np.round(phases, 3)}")
    assert (np.ptp(answer[1:-1, 1:-1]) < 1e-12) == (np.ptp(phases) < 1e-12)

figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
panels = {
    "overlaps, kernel 3, stride 2": counts,
    "overlaps, kernel 4, stride 2": flat,
    **{f"row sums, {name}": image for name, image in sums.items()},
}
for ax, (title, image) in zip(axes, panels.items(), strict=True):
    drawn = ax.imshow(image, cmap="viridis", vmin=0)
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=ax, shrink=0.8)
plt.show()
