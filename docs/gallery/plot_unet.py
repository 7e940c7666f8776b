"""
U-Net's way up
==============

A U-Net (Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597) halves an image four times on its way down, and
doubles it four times on its way up: each time by a transposed convolution with a 2 x 2 kernel and a stride of 2 that
also halves the number of channels, from 1024 to 64.  Here are those four "up-convolutions" with their true channels, on
features of a photograph, and the time that each takes.
"""

# sphinx_gallery_thumbnail_number = 2

import statistics
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import cbook
from PIL import Image

from cytconv import ConvTranspose, conv, conv_transpose, show_config

# %%
# Features of a photograph
# ------------------------
#
# At its lowest the network of the paper has 1024 channels of 28 x 28 samples.  The weights of a trained network would
# be a download, so these features are made by hand: at every place the 16 x 16 pixels below it, projected by random
# vectors.  That is one strided convolution, with a stride of 16.

with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
    square = photograph.convert("L").crop((32, 0, 480, 448))
grey = np.asarray(square, np.float32)[None] / 255
assert grey.shape == (1, 448, 448)

rng = np.random.default_rng(0)
patterns = rng.standard_normal((1024, 1, 16, 16), np.float32) / 16
features = conv(grey, patterns, stride=16, channels="first")
assert features.shape == (1024, 28, 28)

# %%
# Up, four times
# --------------
#
# Between its up-convolutions a real U-Net joins the features of the way down and convolves twice; all that is left out
# here, so that a level takes what the one before it returned.  The paper's convolutions have no padding, which is why
# its sizes are 28, 52, 100 and 196 instead of the powers of two below.

channels = [1024, 512, 256, 128, 64]
levels = []
x = features
print(f"{'in':>17}{'weights':>20}{'out':>17}{'multiplications':>18}")
for before, after in zip(channels, channels[1:], strict=False):
    w = rng.standard_normal((before, after, 2, 2), np.float32) / before**0.5
    y = conv_transpose(x, w, stride=2, channels="first")
    assert y.shape == (after, 2 * x.shape[1], 2 * x.shape[2])
    assert np.allclose(y[0, 2:4, 4:6], np.tensordot(x[:, 1, 2], w[:, 0], 1), atol=1e-4)  # one region, from all channels
    print(f"{x.shape!s:>17}{w.shape!s:>20}{y.shape!s:>17}{x.size * w[0].size / 1e6:>16.0f} M")
    levels.append((x, w, y))
    x = y

# %%
# Each level has four times the samples of the one before, half the channels in and half the channels out: so all four
# take the same number of multiplications.

assert {x.size * w[0].size for x, w, _ in levels} == {4 * 1024 * 512 * 28 * 28}

# %%
# One channel of each level.  The projections are random, so what they make of the photograph is, too; but its shapes
# stay where they were.

fig, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
for ax, level in zip(axes, [features, *(y for *_, y in levels)], strict=True):
    ax.imshow(level[0], cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{level.shape[0]} channels,\n{level.shape[1]} x {level.shape[2]}", fontsize=10)

# %%
# Time per level
# --------------
#
# Measured when this page was built, on the machine described here, which may have had other things to do.

show_config()

# %%
# :func:`~cytconv.conv_transpose` packs the weights in each call, :class:`~cytconv.ConvTranspose` once, beforehand.
# PyTorch, where it is installed, computes the same levels on its own number of threads, in both of its layouts; the
# results are compared first.  All of them take turns, and what is printed are medians of 9 rounds.


def candidates(x, w, y):
    """What computes this level, by name."""
    operator = ConvTranspose(w, x.shape, stride=2, channels="first")
    calls = {
        "conv_transpose": lambda: conv_transpose(x, w, stride=2, channels="first"),
        "ConvTranspose": lambda: operator(x),
    }
    try:
        import torch
    except ImportError:
        return calls
    for layout in torch.contiguous_format, torch.channels_last:
        tx, tw = (torch.tensor(a).contiguous(memory_format=layout) for a in (x[None], w))

        def call(tx=tx, tw=tw):
            with torch.inference_mode():
                return torch.nn.functional.conv_transpose2d(tx, tw, stride=2)

        assert np.allclose(call()[0].numpy(), y, rtol=1e-3, atol=1e-3)
        calls["PyTorch" if layout is torch.contiguous_format else "PyTorch, channels last"] = call
    return calls


def medians(calls, rounds=9):
    """Milliseconds of each call."""
    times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:  # the first round is to warm up
                times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}


measured = [medians(candidates(*level)) for level in levels]
labels = [f"{w.shape[0]} -> {w.shape[1]}" for _, w, _ in levels]
print(f"{'milliseconds':<24}" + "".join(f"{label:>14}" for label in labels))
for name in measured[0]:
    print(f"{name:<24}" + "".join(f"{level[name]:>14.1f}" for level in measured))

# %%

fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
width = 0.8 / len(measured[0])
for i, name in enumerate(measured[0]):
    colour = {"conv_transpose": "tab:blue", "ConvTranspose": "tab:cyan", "PyTorch": "tab:orange"}.get(name, "tab:red")
    ax.bar(np.arange(4) + (i + 0.5) * width - 0.4, [level[name] for level in measured], width, label=name, color=colour)
ax.set(xticks=range(4), xticklabels=labels, xlabel="channels", ylabel="milliseconds, less is better")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=9)
plt.show()

# %%
# The times of one build say little about another machine; `Performance <../performance.html>`__ has the ratios to all
# peers, measured with care.
