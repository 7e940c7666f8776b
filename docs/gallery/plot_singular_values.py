"""
Singular values of upsampling
=============================

How well can upsampling be undone?  Its singular values tell: those near 0 are detail that is lost.  ``svds`` finds
them with the operator or with the matrix, and for a long signal Fourier theory predicts them.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import svds

from cytconv import ConvTranspose, conv_transpose_matrix

# %%
# Both ways
# ---------
#
# Linear interpolation by a factor of 2.

tap, size = np.array([0.5, 1.0, 0.5]), 400
A = ConvTranspose(tap, size, stride=2)
M = conv_transpose_matrix(tap, size, stride=2)

options = {"k": 12, "return_singular_vectors": False, "rng": np.random.default_rng(0)}
by_operator, by_matrix = (np.sort(svds(a, **options))[::-1] for a in (A, M))
np.testing.assert_allclose(by_operator, by_matrix, rtol=1e-9)

# %%
# What they must be
# -----------------
#
# ``A.H A`` sums the kernel against itself, moved by multiples of the stride: it is Toeplitz, with the numbers
# ``r[j] = sum over k of w[k] * w[k + 2*j]`` on its diagonals.  Here ``r[0] = 1.5`` and ``r[1] = 0.25``, all others are
# 0, and the eigenvalues of such a tridiagonal matrix are known in closed form: they are samples of the Fourier symbol
# ``1.5 + 0.5 cos(t)``, which is the mean of the squared spectrum of `w` over the frequencies that the stride folds
# together.

r = np.array([tap @ tap, tap[:-2] @ tap[2:]])
t = np.pi * np.arange(1, size + 1) / (size + 1)
analytic = np.sqrt(r[0] + 2 * r[1] * np.cos(t))
np.testing.assert_allclose(by_operator, analytic[:12], rtol=1e-9)

every = np.linalg.svd(M.toarray(), compute_uv=False)
np.testing.assert_allclose(every, analytic, rtol=1e-12)


def symbol(w, t):
    """The mean of ``|W|**2`` over the two frequencies that stride 2 folds into `t`."""
    k = np.arange(len(w))
    spectra = [np.exp(-1j * np.multiply.outer(t / 2 + shift, k)) @ w for shift in (0, np.pi)]
    return np.mean(np.abs(spectra) ** 2, axis=0)


np.testing.assert_allclose(np.sqrt(symbol(tap, t)), analytic, rtol=1e-12)

# %%
# Other kernels
# -------------
#
# The symbol holds for every kernel, up to what happens at the ends.  In two dimensions with a separable kernel, the
# singular values are the products.

plane = ConvTranspose(np.outer(tap, tap), (30, 30), stride=2)
largest = svds(plane, k=6, return_singular_vectors=False, rng=np.random.default_rng(0))
line = np.sqrt(r[0] + 2 * r[1] * np.cos(np.pi * np.arange(1, 31) / 31))
np.testing.assert_allclose(np.sort(largest), np.sort(np.outer(line, line).ravel())[-6:], rtol=1e-9)

kernels = {
    "nearest, 1 1": np.ones(2),
    "linear, ½ 1 ½": tap,
    "quadratic, ¼ ¾ ¾ ¼": np.array([0.25, 0.75, 0.75, 0.25]),
}
figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for number, (name, w) in enumerate(kernels.items()):
    found = np.linalg.svd(conv_transpose_matrix(w, 60, stride=2).toarray(), compute_uv=False)
    positions = (np.arange(60) + 1) / 61
    predicted = np.sqrt(symbol(w, np.pi * positions))
    np.testing.assert_allclose(found, predicted, rtol=0.02)
    ax.plot(positions, predicted, color=f"C{number}", label=f"{name}: Fourier symbol")
    ax.plot(positions[::3], found[::3], "o", markersize=4, color=f"C{number}", label="singular values, 60 samples")
ax.set(xlabel="frequency / Nyquist", ylabel="singular value", ylim=(0, None), xlim=(0, 1))
ax.set_title("Upsampling by 2: what each frequency of the samples is multiplied by")
ax.legend(ncols=1, fontsize=9)
ax.grid(alpha=0.3)
plt.show()
