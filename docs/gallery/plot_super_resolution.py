"""
Super-resolution with solvers
=============================

A camera blurs an image and keeps every other pixel.  That is a strided convolution, ``conv(y, w, stride=2)``: the
transpose of :class:`cytconv.ConvTranspose`.  To undo it is a sparse least-squares problem with more unknowns than
data, solved here three ways, each with the operator and with its matrix.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import cbook
from PIL import Image
from scipy.sparse import eye_array
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, lsqr

from cytconv import ConvTranspose

# %%
# The photograph, and what the camera sees of it
# ----------------------------------------------

with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
    original = np.asarray(photograph.convert("L"), float)[40:232, 162:354] / 255

tap = np.exp(-0.5 * (np.arange(-3, 4) / 1.2) ** 2)
blur = np.outer(tap, tap) / tap.sum() ** 2
A = ConvTranspose(blur, (96, 96), stride=2, padding=3, output_shape=original.shape).T  # large to small
M = A.tosparse()

noise = 0.002 * np.random.default_rng(0).standard_normal(A.dimsd)
seen = A(original) + noise
np.testing.assert_allclose(M @ original.ravel(), A(original).ravel(), rtol=0, atol=1e-13)

# %%
# Least squares, a little damped
# ------------------------------
#
# All minimise ``|A x - seen|**2 + damp**2 |x|**2``.  ``lsqr`` works on `A` itself, ``cg`` on the normal equations
# ``(A.H A + damp**2) x = A.H seen``.  With the matrix, these can be multiplied out.

damp, steps = 0.1, {"atol": 1e-8, "btol": 1e-8, "iter_lim": 500}
N = M.T @ M + damp**2 * eye_array(M.shape[1])


def normal(x):
    """The normal equations by the operator: no matrix, no product of matrices."""
    return A.H @ (A @ x) + damp**2 * x


def conjugate_gradients(equations, right):
    solution, info = cg(equations, right, rtol=1e-7)
    assert info == 0
    return solution


ways = {
    "lsqr, operator": lambda: lsqr(A, seen.ravel(), damp=damp, **steps)[0],
    "lsqr, matrix": lambda: lsqr(M, seen.ravel(), damp=damp, **steps)[0],
    "cg, operator": lambda: conjugate_gradients(
        LinearOperator(N.shape, matvec=normal, dtype=float), A.H @ seen.ravel()
    ),
    "cg, matrix": lambda: conjugate_gradients(N, M.T @ seen.ravel()),
}

# %%
# PyLops takes the operator as it is, and the matrix wrapped:

try:
    import pylops
except ImportError:
    print("PyLops is not installed: left out")
else:

    def pylops_cgls(operator):
        start = np.zeros(operator.shape[1])
        return pylops.optimization.basic.cgls(operator, seen.ravel(), x0=start, niter=500, damp=damp, tol=1e-14)[0]

    ways["PyLops cgls, operator"] = lambda: pylops_cgls(pylops.aslinearoperator(A))
    ways["PyLops cgls, matrix"] = lambda: pylops_cgls(pylops.aslinearoperator(aslinearoperator(M)))

solutions = {}
# One call each, on whatever machine built this page.  The matrices are multiplied by scipy, on one thread, and the one
# of the normal equations has many more entries than the other.
for name, solve in ways.items():
    start = time.perf_counter()
    solutions[name] = solve()
    print(f"{name:<22}{1e3 * (time.perf_counter() - start):8.1f} ms")

# %%
# The same answer
# ---------------
#
# All agree, up to the tolerance at which each of them stops.

answer = solutions["lsqr, operator"]
for name, solution in solutions.items():
    np.testing.assert_allclose(solution, answer, rtol=0, atol=1e-4, err_msg=name)

# %%
# It is closer to the photograph than pixels that are merely repeated:

repeated = np.kron(seen, np.ones((2, 2)))
solved = answer.reshape(original.shape)


def error(image):
    return np.sqrt(np.mean((image - original)[8:-8, 8:-8] ** 2))


assert error(solved) < 0.8 * error(repeated)

figure, axes = plt.subplots(1, 3, figsize=(11, 4.7), layout="constrained")
images = {
    "the photograph": original,
    f"seen, pixels repeated\nerror {error(repeated):.3f}": repeated,
    f"least squares\nerror {error(solved):.3f}": solved,
}
for ax, (title, image) in zip(axes, images.items(), strict=True):
    ax.imshow(image[64:192, 28:156], cmap="gray", vmin=0, vmax=1)
    ax.set_title(title)
    ax.set(xticks=[], yticks=[])
plt.show()
