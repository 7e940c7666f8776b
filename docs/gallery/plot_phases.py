"""
The sub-pixel idea
==================

How a transposed convolution becomes a matrix product without a zero being inserted anywhere: the way that the compiled
kernels take, drawn, and done in numpy.  :doc:`/how_it_works` tells how the kernels do the same.
"""

# %%
# Phases
# ------
#
# With stride 2, a tap with an even number reaches even outputs only, and one with an odd number odd ones.  Outputs with
# the same remainder are a *phase*.  Between the samples and the outputs of one phase there is no stride left: each
# phase is an ordinary correlation of the samples with its own taps, and the outputs are the phases interleaved.  In the
# picture, ``b0+a2`` is sample b times tap 0 plus sample a times tap 2.

from itertools import product

import matplotlib.pyplot as plt
import numpy as np

from cytconv import conv_transpose

PHASES = ["tab:blue", "tab:orange", "tab:green", "tab:red"]


def cell(ax, x, y, text="", colour="white", size=0.9):
    """A square with a text."""
    ax.add_patch(plt.Rectangle((x - size / 2, y - size / 2), size, size, facecolor=colour, edgecolor="0.3", alpha=0.85))
    ax.text(x, y, text, ha="center", va="center", fontsize=8)


def arrow(ax, begin, end, colour):
    ax.annotate("", end, begin, arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 12, "shrinkB": 12})


def clean(ax, title, x, y):
    ax.set(xlim=x, ylim=y, aspect="equal", title=title)
    ax.set_axis_off()


x, w, stride = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.0, 10.0, 100.0]), 2
y = conv_transpose(x, w, stride=stride)

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
for i, name in enumerate("abcd"):
    cell(left, 2 * i + 1, 3, name)
    for k in range(3):
        arrow(left, (2 * i + 1, 3), (2 * i + k, 0), PHASES[k % stride])
for o in range(y.size):
    cell(left, o, 0, f"y{o}", PHASES[o % stride])
clean(left, "every sample reaches three outputs", (-0.7, 8.7), (-0.8, 3.8))

padded = np.pad(x, 1)
phases = [padded[1:] * w[0] + padded[:-1] * w[2], padded[1:-1] * w[1]]
texts = [["a0", "b0+a2", "c0+b2", "d0+c2", "d2"], ["a1", "b1", "c1", "d1"]]
for r, (phase, row) in enumerate(zip(phases, texts, strict=True)):
    for q, text in enumerate(row):
        cell(right, 2 * q + r, 3 - 1.1 * r, "", PHASES[r])
        right.text(2 * q + r, 3 - 1.1 * r, text, ha="center", va="center", fontsize=6)
        arrow(right, (2 * q + r, 3 - 1.1 * r), (2 * q + r, 0), PHASES[r])
    assert np.array_equal(y[r::stride], phase)
for o in range(y.size):
    cell(right, o, 0, f"y{o}", PHASES[o % stride])
clean(right, "the same by phases", (-0.7, 9.2), (-0.8, 3.8))

# %%
# Two axes
# --------
#
# On two axes there are as many phases as the product of the strides.  A kernel of 4 x 4 taps with stride 2 falls apart
# into four kernels of 2 x 2 taps, one for each colour; a kernel of 3 x 3 into four of different sizes, and no
# multiplication is made for the taps that a phase does not have.

fig, axes = plt.subplots(1, 3, figsize=(8, 3.1), layout="constrained")
for ax, taps in zip(axes, (4, 3), strict=False):
    for k in product(range(taps), repeat=2):
        cell(ax, k[1], -k[0], f"{k[0]},{k[1]}", PHASES[k[0] % 2 * 2 + k[1] % 2])
    clean(ax, f"{taps} x {taps} taps by phases", (-0.7, taps - 0.3), (-taps + 0.3, 0.7))
for o in product(range(6), repeat=2):
    cell(axes[2], o[1], -o[0], "", PHASES[o[0] % 2 * 2 + o[1] % 2])
clean(axes[2], "outputs by phases", (-0.7, 5.7), (-5.7, 0.7))

# %%
# Flat planes
# -----------
#
# Copy the samples with a margin of zeros, and let the copy be *flat*, one row after the other.  Then one row up, or one
# column to the left, is a fixed distance in memory for all positions.  A tap, which reads the samples somewhat earlier
# than the position of its result, is one number: the offset at which a long run of numbers begins.  Where rows meet,
# the run goes over junk, which is not stored.  That there were two axes is forgotten, and it might have been five.

n, margin = (3, 4), 1
plane = np.pad(np.arange(1.0, 13.0).reshape(n), margin)
pitch = plane.shape[1]
positions = (n[0] + margin - 1) * pitch + n[1] + margin  # of a phase: one more than samples along each axis
shifts = list(product(range(2), repeat=2))
offsets = [(margin - i) * pitch + margin - j for i, j in shifts]

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.5), layout="constrained", width_ratios=[1, 3.4])
for (i, j), value in np.ndenumerate(plane):
    cell(left, j, -i, f"{value:.0f}", "0.9" if value else "white")
clean(left, "samples with a margin", (-0.7, pitch - 0.3), (-plane.shape[0] + 0.3, 0.7))
for i, value in enumerate(plane.ravel()):
    cell(right, i, 0, f"{value:.0f}", "0.9" if value else "white")
for row, ((i, j), offset) in enumerate(zip(shifts, offsets, strict=True)):
    right.add_patch(plt.Rectangle((offset - 0.45, -1.6 - 1.1 * row), positions - 0.1, 0.8, color=PHASES[0], alpha=0.6))
    right.text(
        offset + positions / 2,
        -1.2 - 1.1 * row,
        f"{i} up, {j} left: offset {offset}",
        ha="center",
        va="center",
        fontsize=8,
    )
clean(right, "the same, flat; what the four taps of a phase read", (-1, plane.size), (-5.4, 0.9))

# %%
# A matrix product
# ----------------
#
# What is left is rows of results (a row for each output channel and phase) times a sum over input channels and taps,
# for all positions at once.  In numpy, for kernels as long as a multiple of the stride:


def by_phases(x, w, s):
    """``conv_transpose(x, w, stride=s, channels="first")`` for images, as one product of matrices."""
    (inputs, *n), outputs = x.shape, w.shape[1]
    taps = w.shape[2] // s  # of each phase, along an axis
    margin = taps - 1

    # Pack: a plane for each channel, and a row for each channel and tap.
    planes = np.pad(x, [(0, 0), (margin, margin), (margin, margin)])
    pitch = planes.shape[2]
    length = (n[0] + margin - 1) * pitch + n[1] + margin
    flat = planes.reshape(inputs, -1)
    offsets = [(margin - i) * pitch + margin - j for i, j in product(range(taps), repeat=2)]
    rows = np.stack([flat[:, o : o + length] for o in offsets], axis=1).reshape(-1, length)

    # Pack the weights: c, d, (i, r), (j, t) -> rows (d, r, t), columns (c, i, j); then multiply.
    weights = w.reshape(inputs, outputs, taps, s, taps, s).transpose(1, 3, 5, 0, 2, 4)
    results = weights.reshape(outputs * s * s, -1) @ rows

    # Store: drop the junk between rows, and interleave the phases.
    m = n[0] + margin, n[1] + margin
    results = np.pad(results, [(0, 0), (0, m[0] * pitch - length)]).reshape(outputs, s, s, m[0], pitch)
    return results[..., : m[1]].transpose(0, 3, 1, 4, 2).reshape(outputs, m[0] * s, m[1] * s)


rng = np.random.default_rng(0)
for s, k in [(1, 3), (2, 2), (2, 4), (3, 6)]:
    x, w = rng.random((5, 6, 7)), rng.random((5, 3, k, k))
    assert np.allclose(by_phases(x, w, s), conv_transpose(x, w, stride=s, channels="first"))

# %%
# The compiled kernels do not make ``rows``: they read the planes at the offsets.  And they do it for a box of
# positions at a time, which fits a cache.
