"""
Factor once, solve often
========================

An iterative solver needs the operator alone.  A direct one needs the entries, and repays them when there are many
right-hand sides: the factors of the normal equations are computed once, and each solution then takes two triangular
solves.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import eye_array
from scipy.sparse.linalg import LinearOperator, cg, splu

from cytconv import ConvTranspose, conv_transpose_matrix

# %%
# A strided deconvolution
# -----------------------
#
# Sources on a coarse grid are seen through a kernel on a fine one, ``y = conv_transpose(x, w, stride=2)``.  The kernels
# of neighbours overlap.  We want the sources back, for many noisy views.

rng = np.random.default_rng(0)
shape, views = (48, 48), 200
distance = np.arange(-3, 4)
kernel = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.2**2))
geometry = {"stride": 2, "padding": 3}

M = conv_transpose_matrix(kernel, shape, **geometry)
sources = np.zeros((views, *shape))
sources[np.arange(views)[:, None], rng.integers(48, size=(views, 120)), rng.integers(48, size=(views, 120))] = 1
seen = sources.reshape(views, -1) @ M.T
seen += 0.02 * rng.standard_normal(seen.shape)

# %%
# Normal equations, with a little of Tikhonov
# -------------------------------------------
#
# ``(M.T M + a) x = M.T y`` is symmetric, positive definite and sparse: a source meets those whose kernels overlap
# with its own.

regularisation = 1e-2
N = (M.T @ M + regularisation * eye_array(M.shape[1])).tocsc()

start = time.perf_counter()
factors = splu(N, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
factored = time.perf_counter()
solutions = factors.solve(M.T @ seen.T).T
solved = time.perf_counter()

right = M.T @ seen.T
residual = N @ solutions.T - right
assert np.abs(residual).max() < 1e-10 * np.abs(right).max()

# %%
# The operator and conjugate gradients give the same, one right-hand side after the other:

A = ConvTranspose(kernel, shape, **geometry)
equations = LinearOperator(N.shape, matvec=lambda x: A.H @ (A @ x) + regularisation * x, dtype=float)
begin = time.perf_counter()
for y, solution in zip(seen[:10], solutions, strict=False):
    x, info = cg(equations, A.H @ y, rtol=1e-10)
    assert info == 0
    np.testing.assert_allclose(x, solution, rtol=0, atol=1e-6)
iterated = (time.perf_counter() - begin) / 10

print(f"factors             {1e3 * (factored - start):8.2f} ms, once; {factors.L.nnz} entries in L, {N.nnz} in N")
print(f"direct solve        {1e3 * (solved - factored) / views:8.2f} ms for each of {views}")
print(f"conjugate gradients {1e3 * iterated:8.2f} ms for each")

# %%
# One of the views: where the kernels ran into one another, the sources are apart again.

error = np.sqrt(np.mean((solutions - sources.reshape(views, -1)) ** 2))
assert error < 0.5 * np.sqrt(np.mean(sources**2))

figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
pictures = {
    "sources": sources[0],
    "seen": seen[0].reshape(A.dimsd),
    "solved": solutions[0].reshape(shape),
}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture, cmap="magma", vmin=0, vmax=1 if title != "seen" else None)
    ax.set_title(f"{title}, {picture.shape[0]} x {picture.shape[1]}")
    ax.set(xticks=[], yticks=[])
plt.show()
