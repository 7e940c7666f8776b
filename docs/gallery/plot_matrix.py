"""
The transposed convolution matrix
=================================

A transposed convolution is linear in its samples, so it is a matrix.  Drawn, it shows what stride, dilation and
channels do, why "transposed" is the right word and "deconvolution" the wrong one, and what it costs to keep the matrix
instead of computing with the kernel.
"""

# %%
# One axis
# --------
#
# Column ``i`` of the matrix is what sample ``i`` becomes: the kernel, placed at ``i*stride``.  Let the taps have the
# values 1, 2, 3, ... and a colour each, and the structure can be seen: along a diagonal that falls by ``stride`` rows
# with each column, there is always the same tap.  With stride 1 that is a Toeplitz matrix.

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.signal
from matplotlib.colors import BoundaryNorm, ListedColormap
from scipy.sparse.linalg import lsqr

import cytconv

COLOURS = np.array(plt.get_cmap("tab10").colors)


def draw(ax, matrix, title, taps, blocks=None):
    """The entries of a matrix, a colour for each tap; lines between blocks of so many rows and columns."""
    cmap = ListedColormap([(1, 1, 1), *(COLOURS[k % 10] for k in range(taps))])
    ax.imshow(np.abs(matrix), cmap=cmap, norm=BoundaryNorm(np.arange(-0.5, taps + 1), cmap.N), interpolation="nearest")
    rows, columns = blocks or matrix.shape
    for at in range(rows, matrix.shape[0], rows):
        ax.axhline(at - 0.5, color="0.6", linewidth=0.8)
    for at in range(columns, matrix.shape[1], columns):
        ax.axvline(at - 0.5, color="0.6", linewidth=0.8)
    ax.set_title(f"{title}\n{matrix.shape[0]} x {matrix.shape[1]}", fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])


w = np.array([1.0, 2.0, 3.0])
cases = {
    "stride 1": {},
    "stride 2": {"stride": 2},
    "stride 3\n= taps": {"stride": 3},
    "stride 4:\nholes": {"stride": 4},
    "dilation 2": {"dilation": 2},
    "stride 2,\npadding 1": {"stride": 2, "padding": 1},
}
fig, axes = plt.subplots(1, len(cases), figsize=(9, 4.4), layout="constrained")
fig.supxlabel("one column for each of six samples; the colours are taps: blue 1, orange 2, green 3", fontsize=10)
for ax, (title, geometry) in zip(axes, cases.items(), strict=True):
    matrix = cytconv.conv_transpose_matrix(w, 6, **geometry).toarray()
    draw(ax, matrix, title, taps=3)

    x = np.arange(1.0, 7.0)
    assert np.allclose(matrix @ x, cytconv.conv_transpose(x, w, **geometry))

# %%
# With as many taps as the stride the columns do not overlap; with fewer, some rows are empty: these are the holes that
# only a bias fills.  ``padding`` crops rows off both ends.
#
# Two axes
# --------
#
# Flatten an image row by row, and the matrix becomes *block* Toeplitz: the blocks are placed as the taps of the first
# axis, and within each block the numbers are placed as the taps of the second.  With a kernel that is an outer product
# it is the Kronecker product of two matrices of one axis.

w = np.arange(1.0, 10.0).reshape(3, 3)
n = (4, 4)
fig, axes = plt.subplots(1, 3, figsize=(8, 6.4), layout="constrained", width_ratios=[1, 1, 1])
for ax, (title, geometry) in zip(
    axes,
    {"stride 1": {}, "stride 2": {"stride": 2}, "stride 1, dilation 2": {"dilation": 2}}.items(),
    strict=True,
):
    matrix = cytconv.conv_transpose_matrix(w, n, **geometry).toarray()
    m = cytconv.conv_transpose(np.zeros(n), w, **geometry).shape
    draw(ax, matrix, f"3 x 3 taps, {title}", taps=9, blocks=(m[1], n[1]))
fig.supxlabel("a block for each row of the 4 x 4 image (across) and of the result (down)", fontsize=10)

a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0, -1.0])
one_axis = [cytconv.conv_transpose_matrix(k, 4, stride=2).toarray() for k in (a, b)]
both = cytconv.conv_transpose_matrix(np.outer(a, b), (4, 4), stride=2).toarray()
assert np.array_equal(both, np.kron(*one_axis))

# %%
# Channels
# --------
#
# With channels there is such a matrix for each pair of an input and an output channel, so all is blocks of blocks.
# Groups leave some of the pairs out.  Where the channels come last, the same entries are dealt out otherwise: rows and
# columns are permuted, and each entry becomes a small block from channels to channels.

x_shape = {"first": (4, 5), "last": (5, 4)}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.9), layout="constrained")
for ax, (title, channels, groups) in zip(
    axes,
    [("channels first", "first", 1), ("channels first, 2 groups", "first", 2), ("channels last", "last", 1)],
    strict=True,
):
    w = np.broadcast_to(np.array([1.0, 2.0, 3.0]), (4, 2 // groups, 3))
    matrix = cytconv.conv_transpose_matrix(w, x_shape[channels], stride=2, channels=channels, groups=groups).toarray()
    blocks = (11, 5) if channels == "first" else (2, 4)
    draw(ax, matrix, f"4 -> 2, {title}", taps=3, blocks=blocks)

# %%
# The transpose, not an inverse
# -----------------------------
#
# Call the matrix, :func:`cytconv.conv_transpose_matrix`, ``M``.  :func:`cytconv.conv`, deep learning's strided
# convolution with the same kernel, is ``M.T``, entry by entry: that is where the name comes from.

w = np.array([0.5, 1.0, 0.5])  # linear interpolation
n, stride = 8, 2
M = cytconv.conv_transpose_matrix(w, n, stride=stride)
C = cytconv.conv_matrix(w, n, stride=stride)  # n samples on the side of its result
assert np.array_equal(C.toarray(), M.T.toarray())

# %%
# To convolve and then to convolve transposed brings back the *size*, not the numbers.  ``M.T @ M`` is the correlation
# of the kernel with itself, sampled at multiples of the stride; only if all of that but the middle one vanishes is it a
# multiple of the identity: for kernels that are no longer than the stride, or whose shifts by the stride are orthogonal
# (wavelets).  What undoes ``M`` is its pseudo-inverse, which for this kernel has not one entry that is zero.

M = M.toarray()
overlap = scipy.signal.correlate(w, w)[len(w) - 1 :: stride]  # 1.5, 0.25
gram = M.T @ M
assert np.allclose(np.diag(gram), overlap[0])
assert np.allclose(np.diag(gram, 1), overlap[1])

inverse = np.linalg.pinv(M)
assert np.allclose(inverse @ M, np.eye(n))
assert np.abs(inverse).min() > 1e-8
assert not np.allclose(gram / gram[0, 0], np.eye(n))

fig, axes = plt.subplots(1, 4, figsize=(9, 3), layout="constrained")
for ax, matrix, title in zip(
    axes,
    [M.T, gram, inverse, inverse @ M],
    ["M.T: a convolution", "M.T @ M: not the identity", "pinv(M)", "pinv(M) @ M"],
    strict=True,
):
    ax.imshow(matrix, cmap="RdBu_r", vmin=-1.5, vmax=1.5)
    ax.set_title(title, fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])
colours = fig.colorbar(axes[0].images[0], ax=axes, shrink=0.7)

# %%
# On samples, too: what the transpose gives back is blurred, what the pseudo-inverse gives back is exact.  No
# pseudo-inverse need be built for that: :class:`cytconv.ConvTranspose` is a
# :class:`scipy.sparse.linalg.LinearOperator`, and :func:`scipy.sparse.linalg.lsqr` applies it with the kernel alone.

x = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 2.0, 0.0])
A = cytconv.ConvTranspose(w, n, stride=stride)
y = A @ x
back = A.H @ y / gram[0, 0]
solved = lsqr(A, y, atol=1e-12, btol=1e-12)[0]
assert np.allclose(solved, x)

fig, ax = plt.subplots(figsize=(9, 3), layout="constrained")
ax.plot(x, "o", color="k", markersize=10, fillstyle="none", label="x")
ax.plot(back, ".-", label="M.T @ y, scaled")
ax.plot(solved, "x", label="lsqr(A, y)")
ax.set_xlabel("sample")
ax.legend()
ax.grid(alpha=0.3)

# %%
# Sparse against direct
# ---------------------
#
# The matrix has an entry for each product of a sample and a tap, of eight bytes in float32 (a number and its column),
# although there are no more than ``w.size`` different numbers among them.  It pays where it is used as a matrix: to be
# factored, to be added to others, or looked at.  To apply it is to read all entries from memory.
#
# Below, ``x`` is a square image in float32, ``w`` has 4 x 4 taps and the stride is 2.  The times were taken when this
# page was built, on whatever machine built it and whatever else it was doing: look at the ratios.  ``M @ x`` is scipy's
# product, on one thread; ``ConvTranspose(..., method="sparse")`` multiplies by the same matrix on all of them.


def seconds(call, repeats=20):
    """The least of some times, once threads and caches are warm."""
    times, begin = [], time.perf_counter()
    while time.perf_counter() < begin + 0.02:
        call()
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


rng = np.random.default_rng(0)
w = rng.random((4, 4), np.float32)
sides, rows = [16, 32, 64, 128, 256, 512], []
print("   side        nnz   matrix MB  kernel B   build ms    M @ x ms   sparse ms   direct ms")
for side in sides:
    x = rng.random((side, side), np.float32)
    build = seconds(lambda x=x: cytconv.conv_transpose_matrix(w, x.shape, stride=2), repeats=2)
    M = cytconv.conv_transpose_matrix(w, x.shape, stride=2)
    size = M.data.nbytes + M.indices.nbytes + M.indptr.nbytes
    flat = x.ravel()
    assert np.allclose((M @ flat).reshape(2 * side + 2, -1), cytconv.conv_transpose(x, w, stride=2), atol=1e-5)
    multiply = seconds(lambda M=M, flat=flat: M @ flat)
    operator = cytconv.ConvTranspose(w, x.shape, stride=2, method="sparse")
    sparse = seconds(lambda operator=operator, flat=flat: operator @ flat)
    direct = seconds(lambda x=x: cytconv.conv_transpose(x, w, stride=2))
    rows.append((build, multiply, sparse, direct))
    print(f"{side:>7}{M.nnz:>11}{size / 1e6:>12.2f}{w.nbytes:>10}", *(f"{1e3 * t:>10.3f} " for t in rows[-1]))

# %%
# There are exactly ``x.size * w.size`` entries, since nothing is cropped.

assert M.nnz == x.size * w.size

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for label, times in zip(
    ["build the matrix", "M @ x", "method sparse", "conv_transpose"], np.transpose(rows) * 1e3, strict=True
):
    ax.loglog(np.square(sides), times, "o-", label=label)
ax.set_xlabel("samples")
ax.set_ylabel("milliseconds, on the machine that built this page")
ax.legend()
ax.grid(alpha=0.3)
