"""
Shapes without tears
====================

How large is the output, what does `padding` take away, and why are there both `output_padding` and `output_shape`?
All of it follows from one picture, drawn here along one axis; axes do not know of each other.
"""

import numpy as np
from drawing import CROPPED, FIRST, LAST, Grid, canvas, text, tint

from cytconv import conv, conv_transpose

# %%
# The full result
# ---------------
#
# Sample i spreads over the outputs from ``i*stride`` to ``i*stride + dilation*(k - 1)``, one for each of the k taps.
# So n samples reach ``(n - 1)*stride + dilation*(k - 1) + 1`` outputs: the steps from the first sample to the last, and
# the extent of the kernel.  Here are 4 samples, 3 taps and a stride of 2.

n, k, stride = 4, 3, 2
full = (n - 1) * stride + (k - 1) + 1
assert conv_transpose(np.ones(n), np.ones(k), stride=stride).shape == (full,) == (9,)

colours = [tint(f"C{i}", 0.45) for i in range(n)]
taps = [f"w[{tap}]" for tap in range(k)]
ax = canvas(13, 8)
Grid(ax, (1, n), 4, 0.6, "x, 4 samples", [range(n)], [colours])
for i in range(n):
    row = Grid(ax, (1, k), 2 + i * stride, 2 + i, values=[taps], colours=[[colours[i]] * k])
    text(ax, row.x - 0.2, row.y + 0.5, f"x[{i}] *", "right")
Grid(ax, (1, full), 2, 6.8, "their sum y, 9 outputs", [range(full)])

# %%
# Padding is a crop
# -----------------
#
# `padding` takes outputs away, at both ends of the axis: as many as zeros were padded to the larger array on the way
# down, of which this is the way back up.  A pair ``(low, high)`` crops the two ends differently, negative numbers
# extend the output by zeros.

x, w = np.random.default_rng(0).integers(-9, 10, n) / 4, np.array([1.0, 2.0, 3.0])  # sums without rounding
y = conv_transpose(x, w, stride=stride)
assert np.array_equal(conv_transpose(x, w, stride=stride, padding=1), y[1:-1])
assert np.array_equal(conv_transpose(x, w, stride=stride, padding=[(0, 2)]), y[:-2])
assert np.array_equal(conv_transpose(x, w, stride=stride, padding=-1), np.pad(y, 1))


def windows(calls):
    """One row for each call: the outputs that it returns in blue, outlined; what was cropped in grey."""
    ax = canvas(17, 1.4 * len(calls) + 0.2)
    for i, given in enumerate(calls):
        result = conv_transpose(x, w, stride=stride, **given)
        low = np.broadcast_to(given.get("padding", 0), (1, 2))[0, 0]
        cells = range(min(low, 0), max(full, low + result.size))
        values, colours = [], []
        for o in cells:
            known, kept = 0 <= o < full, low <= o < low + result.size
            values += [y[o] if known else 0.0] if kept else []
            colours.append(CROPPED if not kept else tint(FIRST) if known else tint(LAST))
        assert np.array_equal(result, values)

        grid = Grid(ax, (1, len(cells)), 6.5 + cells[0], 0.3 + 1.4 * i, values=[cells], colours=[colours])
        grid.outline(0, low - cells[0], 1, result.size)
        words = ", ".join(f"{name}={value}" for name, value in given.items())
        text(ax, 5.2, grid.y + 0.5, words or "no padding", "right")
        text(ax, 17, grid.y + 0.5, f"{result.size}", "right")


windows([{}, {"padding": 1}, {"padding": [(0, 2)]}, {"padding": -1}])

# %%
# Blue is what the call returns, with the number of outputs on the right; grey is what `padding` cropped; orange lies
# beyond the full result, where all is zero.  Cells are numbered as in the picture before.
#
# output_padding and output_shape
# -------------------------------
#
# On the way down several sizes lead to the same one: with a stride of 2 the last window may leave a sample over.

assert conv(np.ones(7), w, stride=2, padding=1).shape == conv(np.ones(8), w, stride=2, padding=1).shape == (4,)

# %%
# So on the way up there is a choice.  `output_padding` makes it by what is added at the high end.  It adds no zeros if
# there is something to return: it takes back a part of the crop.  `output_shape` says the size outright, which is what
# one knows in practice: the shape of the array that went down.  The high side of `padding` then plays no part.

up = conv_transpose(x, w, stride=2, padding=1, output_padding=1)
assert np.array_equal(up, conv_transpose(x, w, stride=2, padding=1, output_shape=8))
assert np.array_equal(up, y[1:])

windows(
    [
        {"padding": 1},
        {"padding": 1, "output_padding": 1},
        {"padding": 1, "output_shape": 8},
        {"output_padding": 1},
        {"padding": 1, "output_shape": 3},
    ]
)

# %%
# `output_padding` must be smaller than the stride or the dilation: a larger one would be the size of another n.

try:
    conv_transpose(x, w, stride=2, padding=1, output_padding=2)
except ValueError as error:
    print(error)

# %%
# Exactly s times as large
# ------------------------
#
# For an output of exactly ``n*stride`` crop ``k - stride``, half of it at either end.  Where that is odd, crop one more
# and take it back, by a pair or by ``output_padding=1``; with a stride of 1 only the pair will do.

for stride in range(1, 9):
    for k in range(stride, 17):
        odd = (k - stride) % 2
        padding = (k - stride + odd) // 2
        pair = conv_transpose(x, np.ones(k), stride=stride, padding=[(padding, padding - odd)])
        assert pair.size == x.size * stride
        if stride > 1:
            added = conv_transpose(x, np.ones(k), stride=stride, padding=padding, output_padding=odd)
            assert np.array_equal(pair, added)

# %%
# Sizes to look up
# ----------------
#
# The number of outputs for n samples, for layers that are often met.  Every number of the table is compared with the
# function.

table = """
kernel stride dilation padding output_padding   n=1   n=4   n=7   n=8  n=32  n=64
     2      2        1       0              0     2     8    14    16    64   128  twice: U-Net
     4      2        1       1              0     2     8    14    16    64   128  twice: DCGAN
     3      2        1       1              1     2     8    14    16    64   128  twice
     3      2        1       1              0     1     7    13    15    63   127  one less than twice
     3      2        1       0              0     3     9    15    17    65   129  one more than twice
     3      1        1       1              0     1     4     7     8    32    64  the same
     3      1        2       2              0     1     4     7     8    32    64  the same, dilated
     3      1        1       0              0     3     6     9    10    34    66  n + 2
     4      1        1       0              0     4     7    10    11    35    67  n + 3: DCGAN's first layer
     9      3        1       4              2     3    12    21    24    96   192  three times: FSRCNN
    16      8        1       4              0     8    32    56    64   256   512  eight times: FCN-8s, a vocoder
     2      3        1       0              1     3    12    21    24    96   192  three times, with holes
"""
header, *lines = table.strip().splitlines()
names, sizes = header.split()[:5], [int(word.removeprefix("n=")) for word in header.split()[5:]]
for line in lines:
    kernel, *values = (int(word) for word in line.split()[:5])
    for n, size in zip(sizes, line.split()[5:], strict=False):
        y = conv_transpose(np.ones(n), np.ones(kernel), **dict(zip(names[1:], values, strict=True)))
        assert y.shape == (int(size),), (line, n, y.shape)
print(f"{len(lines) * len(sizes)} sizes are right")
