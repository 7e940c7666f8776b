"""
Adjoints and gradients
======================

A transposed convolution is linear in its samples and linear in its weights, so it has two adjoints.  They are what
solvers, iterative reconstructions and training need, and they are exact here: one identity checks them to rounding.
"""

# %%
# The dot test
# ------------
#
# An operator ``A`` and its adjoint satisfy ``<A x, y> = <x, A* y>`` for all ``x`` and ``y``.  Random ones will do as a
# test: an adjoint with a shifted index or a wrong end does not pass it.  The same holds for the weights, as the result
# is linear in them, too.

import matplotlib.pyplot as plt
import numpy as np

from cytconv import conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint

rng = np.random.default_rng(2)
geometry = {"stride": (3, 2), "padding": [(1, 0), 2], "output_padding": (2, 1), "dilation": (1, 2), "channels": "first"}
x, w = rng.standard_normal((2, 4, 6, 7)), rng.standard_normal((4, 5, 3, 4))

result = conv_transpose(x, w, **geometry)
y = rng.standard_normal(result.shape)
in_x = conv_transpose_adjoint(y, w, **geometry)
in_w = conv_transpose_weight_adjoint(x, y, kernel_shape=w.shape[2:], **geometry)

products = np.vdot(result, y), np.vdot(x, in_x), np.vdot(w, in_w)
print("<A(x, w), y> = {:.12f}\n<x, A*(y)>   = {:.12f}\n<w, A*(y)>   = {:.12f}".format(*products))
assert np.allclose(products, products[0], rtol=1e-12)

# %%
# Complex numbers
# ---------------
#
# ``<a, b>`` is then the sum of ``conj(a) * b``, which :func:`numpy.vdot` computes, and the adjoint conjugates: it is
# the transpose with ``conj(w)``, and in the weights with ``conj(x)``.  :func:`cytconv.conv` is the plain transpose,
# without any conjugate.

x, w, y = (a + 1j * rng.standard_normal(a.shape) for a in (x, w, y))
result = conv_transpose(x, w, **geometry)
in_x = conv_transpose_adjoint(y, w, **geometry)
in_w = conv_transpose_weight_adjoint(x, y, kernel_shape=w.shape[2:], **geometry)

products = np.vdot(y, result), np.vdot(in_x, x), np.vdot(in_w, w)
print("\n".join(f"{p:.12f}" for p in products))
assert np.allclose(products, products[0], rtol=1e-12)

transpose = {name: value for name, value in geometry.items() if name != "output_padding"}
assert np.allclose(conv(y, w.conj(), **transpose), in_x)
assert not np.allclose(conv(y, w, **transpose), in_x)

# %%
# Training with numpy alone
# -------------------------
#
# The gradient of a loss ``|conv_transpose(x, w) - target|**2 / 2`` is the adjoint applied to what is left: in the
# weights :func:`cytconv.conv_transpose_weight_adjoint` of ``x`` and the residual.  That is all that back-propagation
# through this layer is.
#
# Say we have images of half the size, made by averaging 2 x 2 pixels, and want a 4 x 4 kernel that brings them back as
# well as a linear filter can.  Bilinear interpolation is a kernel of that size: the outer product of
# ``[1, 3, 3, 1]/4`` with itself.  First, images that *are* bilinear enlargements, where we know what should come out.

geometry = {"stride": 2, "padding": 1}
bilinear = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16


def fit(small, large, steps):
    """A 4 x 4 kernel by gradient descent with Nesterov's momentum, and the loss of each step."""
    w = v = np.zeros((4, 4))
    # The steepest curvature, by power iteration on the two readings: it bounds the step.
    u = rng.standard_normal(w.shape)
    for _ in range(20):
        u /= np.linalg.norm(u)
        u = conv_transpose_weight_adjoint(small, conv_transpose(small, u, **geometry), kernel_shape=(4, 4), **geometry)
    step = 1 / np.linalg.norm(u)
    losses = []
    for t in range(steps):
        residual = conv_transpose(small, v, **geometry) - large
        losses.append(np.mean(residual**2))
        last, w = w, v - step * conv_transpose_weight_adjoint(small, residual, kernel_shape=(4, 4), **geometry)
        v = w + t / (t + 3) * (w - last)
    return w, losses


small = rng.random((8, 24, 24))  # eight images: axes in front of those of the kernel are a batch
learned, losses = fit(small, conv_transpose(small, bilinear, **geometry), steps=300)
print("largest difference from the bilinear kernel:", np.abs(learned - bilinear).max())
assert np.abs(learned - bilinear).max() < 1e-3

# %%
# Now images that are no enlargements: soft blobs and sharp discs.  No kernel brings back what averaging has taken away;
# the one learned here weighs the centre more and the rim less than the bilinear one, so it is between that and a
# repetition of the samples, and better than either by the measure that it was trained for, on images that it has not
# seen.


def images(count, size=48):
    """Discs of random places, sizes and grey values, some sharp, some soft."""
    row, column = np.mgrid[:size, :size]
    result = np.zeros((count, size, size))
    for image in result:
        for _ in range(12):
            (r, c), radius, soft = rng.random(2) * size, rng.uniform(2, 8), rng.choice([0.3, 2.0])
            image += rng.uniform(-1, 1) / (1 + np.exp((np.hypot(row - r, column - c) - radius) / soft))
    return result


def halved(large):
    return (large[:, ::2, ::2] + large[:, 1::2, ::2] + large[:, ::2, 1::2] + large[:, 1::2, 1::2]) / 4


train, test = images(30), images(10)
sharp, sharp_losses = fit(halved(train), train, steps=300)
errors = {
    name: np.mean((conv_transpose(halved(test), kernel, **geometry) - test) ** 2)
    for name, kernel in {"nearest": np.pad(np.ones((2, 2)), 1), "bilinear": bilinear, "learned": sharp}.items()
}
print({name: f"{error:.2e}" for name, error in errors.items()})
assert errors["learned"] < min(errors["nearest"], errors["bilinear"])
assert (sharp[1:3, 1:3] > bilinear[1:3, 1:3]).all()
assert (sharp[0] < bilinear[0]).all()

fig, axes = plt.subplots(1, 4, figsize=(9, 2.9), layout="constrained", width_ratios=[1.4, 1, 1, 1])
axes[0].semilogy(losses, label="bilinear images")
axes[0].semilogy(sharp_losses, label="discs")
axes[0].set_xlabel("step")
axes[0].set_title("mean squared error", fontsize=10)
axes[0].legend()
kernels = {"bilinear": bilinear, "learned from\nbilinear images": learned, "learned from discs": sharp}
for ax, (title, kernel) in zip(axes[1:], kernels.items(), strict=True):
    ax.imshow(kernel, cmap="RdBu_r", vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(kernel):
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="w" if abs(value) > 0.6 else "k")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()

# %%
# One of the images not seen: what is left to err is at the sharp edges.

up = conv_transpose(halved(test), sharp, **geometry)
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
pictures = {"image": test[0], "halved": halved(test)[0], "brought back": up[0], "difference": up[0] - test[0]}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture, cmap="gray", vmin=-1.5, vmax=1.5)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()

# %%
# Inside PyTorch
# --------------
#
# An ``autograd.Function`` needs the forward operator and the two adjoints, and no more.  PyTorch's own ``gradcheck``
# compares its gradients with finite differences, in float64 and in complex numbers: PyTorch's convention for the
# latter, the adjoint with the conjugate, is the one used here.  ``gradgradcheck`` would need the backward pass to be
# made of such functions, too.

try:
    import torch
except ImportError:
    torch = None

if torch is not None:

    class ConvTranspose(torch.autograd.Function):
        """`conv_transpose` of CPU tensors, with keywords as a dict."""

        @staticmethod
        def forward(ctx, x, w, geometry):
            ctx.save_for_backward(x, w)
            ctx.geometry = geometry
            return torch.from_numpy(conv_transpose(x.numpy(), w.numpy(), **geometry))

        @staticmethod
        def backward(ctx, y):
            x, w = (t.detach().numpy() for t in ctx.saved_tensors)
            y, sizes = y.resolve_conj().numpy(), {"kernel_shape": w.shape[2:]}
            in_x = conv_transpose_adjoint(y, w, input_shape=x.shape[2:], **ctx.geometry)
            in_w = conv_transpose_weight_adjoint(x, y, **sizes, **ctx.geometry)
            return torch.from_numpy(in_x), torch.from_numpy(in_w), None

    geometry = {"stride": 2, "padding": 1, "output_padding": 1, "channels": "first"}
    for dtype in (torch.float64, torch.complex128):
        x = torch.randn(2, 3, 4, 5, dtype=dtype, requires_grad=True)
        w = torch.randn(3, 2, 3, 3, dtype=dtype, requires_grad=True)
        print(dtype, "gradcheck:", torch.autograd.gradcheck(ConvTranspose.apply, (x, w, geometry)))

        theirs = torch.nn.functional.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1)
        assert torch.allclose(ConvTranspose.apply(x, w, geometry), theirs)
else:
    print("PyTorch was not there when this page was built.  With it, these lines print")
    print("torch.float64 gradcheck: True")
    print("torch.complex128 gradcheck: True")
