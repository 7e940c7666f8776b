"""
The article, in code
====================

A strided convolution makes an image smaller.  A transposed convolution goes the other way: it makes an image larger,
with a kernel.  This page follows the article that asked for this library: first down, then up, with numbers small
enough to check by hand; then what happens when the kernel is larger or smaller than its stride.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import numpy as np
from drawing import FIRST, LAST, Grid, arrow, canvas, text, tint

from cytconv import conv, conv_transpose

# %%
# Down: four samples become one
# -----------------------------
#
# Lay a 2 x 2 kernel on the upper left corner of a 4 x 6 image, multiply, add up: that is one sample of the result.
# Move the kernel by a stride of 2 and do it again.  The windows do not overlap, so 4 x 6 samples become 2 x 3.

image = np.arange(24.0).reshape(4, 6)
mean = np.full((2, 2), 0.25)
small = conv(image, mean, stride=2)
assert small.shape == (2, 3)
assert small[0, 0] == image[0:2, 0:2].mean() and small[1, 2] == image[2:4, 4:6].mean()
print(small)

# %%
# Input above, output below; the kernel's first and last windows are outlined.


def cells(array):
    """Numbers to write into cells, to three decimals at most."""
    return [[f"{value:.3f}".rstrip("0").rstrip(".") for value in row] for row in array]


ax = canvas(9, 8.8)
above = Grid(ax, (4, 6), 1.5, 0.6, "image, 4 x 6", cells(image))
below = Grid(ax, (2, 3), 3, 6.1, values=cells(small))
text(ax, 4.5, 8.5, "conv(image, mean, stride=2), 2 x 3")
for (i, j), colour in {(0, 0): FIRST, (1, 2): LAST}.items():
    above.outline(2 * i, 2 * j, 2, 2, colour)
    below.outline(i, j, colour=colour)
arrow(ax, above.at(1, 0), below.at(0.5, 0), FIRST, bend=0.4)
arrow(ax, above.at(4, 5), below.at(1.5, 3), LAST, bend=-0.3)

# %%
# Up: one sample becomes four
# ---------------------------
#
# The reverse takes each sample of the small image, multiplies the *kernel* by it, and puts the product down as a 2 x 2
# region of the result.  Where the windows did not overlap, neither do the regions: every pixel grows into its own.

image = np.array([[0.9064, 0.4639, 0.3109], [0.3791, 0.2148, 0.07558]])
kernel = np.array([[0.3459, -0.2987], [-0.9396, -0.01321]])
large = conv_transpose(image, kernel, stride=2)
assert large.shape == (4, 6)

ax = canvas(9, 8.8)
above = Grid(ax, (2, 3), 3, 0.6, "image, 2 x 3", cells(image), fontsize=8)
below = Grid(ax, (4, 6), 1.5, 4.1, values=cells(large), fontsize=8)
text(ax, 4.5, 8.5, "conv_transpose(image, kernel, stride=2), 4 x 6")
for (i, j), colour in {(0, 0): FIRST, (1, 2): LAST}.items():
    above.outline(i, j, colour=colour)
    below.outline(2 * i, 2 * j, 2, 2, colour)
arrow(ax, above.at(0.5, 0), below.at(0, 1), FIRST, bend=0.4)
arrow(ax, above.at(1.5, 3), below.at(3, 6), LAST, bend=-0.4)

# %%
# One pixel and its region:

i, j = 1, 0
region = large[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
assert np.array_equal(region, kernel * image[i, j])

ax = canvas(13.6, 2.9)
blue = tint(FIRST)
Grid(ax, (1, 1), 0.5, 1.1, f"image[{i}, {j}]", cells(image[i : i + 1, j : j + 1]), [[blue]], 8).outline(0, 0)
text(ax, 2.6, 1.6, "x")
Grid(ax, (2, 2), 3.8, 0.6, "kernel", cells(kernel), fontsize=8)
text(ax, 6.9, 1.6, "=")
Grid(ax, (2, 2), 8, 0.6, "region", cells(region), [[blue] * 2] * 2, 8).outline(0, 0, 2, 2)
text(ax, 10.4, 1.6, f"= large[{2 * i}:{2 * i + 2}, {2 * j}:{2 * j + 2}]", "left")

# %%
# The check with PyTorch, region by region
# ----------------------------------------
#
# The article looks at ``torch.nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False)``, and finds that each 2 x 2 region of
# its output is the kernel times one pixel.  So it is, and here is the same from both libraries.  Where PyTorch is not
# installed, what it printed for the same numbers is shown instead, read from the text below.

stored = """
 0.31352 -0.27074  0.16046 -0.13857  0.10754 -0.09287
-0.85165 -0.01197 -0.43588 -0.00613 -0.29212 -0.00411
 0.13113 -0.11324  0.07430 -0.06416  0.02614 -0.02258
-0.35620 -0.00501 -0.20183 -0.00284 -0.07101 -0.00100
"""
try:
    import torch
except ImportError:
    print("PyTorch is not installed: its output as it was stored, to five decimals")
    theirs, tolerance = np.array([row.split() for row in stored.strip().splitlines()], float), 0.5001e-5
    whose = "PyTorch, to five decimals,"
else:
    layer = torch.nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel))
        theirs, tolerance = layer(torch.tensor(image)[None, None])[0, 0].numpy(), 1e-15
    whose = f"PyTorch {torch.__version__}"
    stored = np.array([row.split() for row in stored.strip().splitlines()], float)
    assert np.abs(theirs - stored).max() < 0.5001e-5  # so what others see in its place is right

for i, j in np.ndindex(image.shape):
    region = np.s_[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
    difference = np.abs(theirs[region] - kernel * image[i, j]).max()
    assert difference <= tolerance and np.array_equal(large[region], kernel * image[i, j])
    print(f"region {i}, {j}: {whose} differs from kernel * image[{i}, {j}] by {difference:.2g}, cytconv by 0")

# %%
# Upsampling by n
# ---------------
#
# A kernel of size n with a stride of n and no padding makes an image n times as large, for any n and any number of
# axes.  With a kernel of ones every sample is repeated.

for n in 1, 2, 3, 5:
    for ndim in 1, 2, 3:
        samples = np.random.default_rng(n).standard_normal((4, 5, 3)[:ndim])
        up = conv_transpose(samples, np.ones([n] * ndim), stride=n)
        assert up.shape == tuple(n * size for size in samples.shape)
        assert np.array_equal(up, np.kron(samples, np.ones([n] * ndim)))

# %%
# An outer product, glued
# -----------------------
#
# The article's APL writes all this in a line: the outer product of image and kernel is an array of products, one 2 x 2
# block for each pixel; glue the blocks of a row side by side, and the rows below one another.  In numpy the glue is a
# transposition and a reshape.

blocks = np.multiply.outer(image, kernel)
assert blocks.shape == (2, 3, 2, 2)
glued = blocks.transpose(0, 2, 1, 3).reshape(4, 6)
assert np.array_equal(glued, large)

for row in glued:
    print("".join(f"{value:>11.4g}" for value in row))

# %%
# These are the numbers that the article prints.

printed = """
 0.3135 -0.2707   0.1605  -0.1386    0.1075  -0.09287
-0.8517 -0.01197 -0.4359  -0.006128 -0.2921  -0.004107
 0.1311 -0.1132   0.0743  -0.06416   0.02614 -0.02258
-0.3562 -0.005008 -0.2018 -0.002838 -0.07101 -0.0009984
"""
assert [[float(f"{value:.4g}") for value in row] for row in large] == [
    [float(value) for value in row.split()] for row in printed.strip().splitlines()
]

# %%
# A kernel larger than the stride: overlap
# ----------------------------------------
#
# Nothing forbids a kernel of 3 with a stride of 2.  The regions then overlap, and where they do, they are added up: the
# outer product is still there, but no glue will do.

kernel_size, stride = 3, 2
y = conv_transpose(np.ones((2, 3)), np.ones((kernel_size, kernel_size)), stride=stride)
print(y.astype(int))

# %%
# With ones everywhere, an output says how many regions meet in it.
#
# A kernel smaller than the stride: holes
# ---------------------------------------
#
# With a kernel of 2 and a stride of 3 there are outputs that no region reaches: they are zero.

holes = conv_transpose(np.ones((2, 3)), np.ones((2, 2)), stride=3)
assert holes.shape == (5, 8) and not holes[2].any() and not holes[:, [2, 5]].any()

ax = canvas(17, 6.3)
greys = {0: "white", 1: tint(FIRST, 0.15), 2: tint(FIRST, 0.4), 4: tint(FIRST, 0.75)}
for x, title, counts, size, step in (0.5, "kernel 3, stride 2", y, 3, 2), (8.5, "kernel 2, stride 3", holes, 2, 3):
    colours = [[greys[int(count)] for count in row] for row in counts]
    grid = Grid(ax, counts.shape, x, 0.6, title, cells(counts), colours)
    grid.outline(0, 0, size, size)
    grid.outline(step, 2 * step, size, size, LAST)

# %%
# The checkerboard
# ----------------
#
# Away from the border the counts of overlaps have the period of the stride.  Where the kernel is a multiple of the
# stride they are all the same; where it is not, they alternate, and an image that should be flat gets the well-known
# checkerboard (Odena et al., *Deconvolution and Checkerboard Artifacts*, 2016,
# https://doi.org/10.23915/distill.00003).  A network can learn weights that make up for it, but it has to.


def overlaps(size, step):
    """How many regions meet in each output, away from the border."""
    counts = conv_transpose(np.ones((12, 12)), np.ones((size, size)), stride=step)
    return counts[size : size + 12, size : size + 12]


cases = [(2, 2), (3, 2), (4, 2), (5, 2), (4, 3), (6, 3)]
fig, axes = plt.subplots(1, 6, figsize=(11, 2.4), layout="constrained")
for ax, (size, step) in zip(axes, cases, strict=True):
    counts = overlaps(size, step)
    assert (np.ptp(counts) == 0) == (size % step == 0)
    drawn = ax.imshow(counts, cmap="Blues", vmin=0, vmax=10)
    ax.set(title=f"kernel {size}, stride {step}", xticks=[], yticks=[], xlabel=f"{counts.min():g} to {counts.max():g}")
fig.colorbar(drawn, ax=axes, label="overlaps", shrink=0.7)
plt.show()
