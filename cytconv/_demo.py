"""The demonstration: a photograph down and up again, every number checked, and a figure that shows why.

`demo` is the whole story; what follows it are its steps.  matplotlib and Pillow are imported only inside the steps
that need them, so that the library itself depends on neither.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import conv, conv_matrix, conv_transpose, conv_transpose_adjoint, conv_transpose_matrix
from ._runtime import resolve_workers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["DemoError", "demo"]

Array = NDArray[np.float64]

# 2 x 2 with stride 2.  Its sum of squares is 1, so that down(up(x)) == x, and up(down(x)) is each block's mean.
HALVE = np.full((2, 2), 0.5)

# The worked example, small enough to follow by hand: six samples, one 2 x 2 kernel.
EXAMPLE_X = np.array([[0.9064, 0.4639, 0.3109], [0.3791, 0.2148, 0.07558]])
EXAMPLE_W = np.array([[0.3459, -0.2987], [-0.9396, -0.01321]])

LARGEST = 2**32  # bytes of the upsampled image
RUNS = 15  # of each timing
TOLERANCE = 16 * float(np.finfo(float).eps)  # of four products of numbers below 1; and of inner products, relatively
DETAIL = 24  # pixels along each side of the patch that the figure magnifies


class DemoError(Exception):
    """What the user can put right; the message is one line."""


def demo(image: Path | None, factor: int, output: Path) -> None:
    """Run the demonstration on `image` (None: a sample photograph), print a table, save a figure in `output`."""
    if factor < 1:
        raise DemoError(f"factor={factor} must be at least 1")
    with replacing(output) as unfinished:
        name, x = read(image)
        height, width = x.shape
        if x.nbytes * factor**2 > LARGEST:
            raise DemoError(
                f"factor={factor} makes {height * factor} x {width * factor} pixels of {name}, "
                f"{x.nbytes * factor**2 / 2**30:.1f} GiB: it must stay below {LARGEST / 2**30:.0f} GiB"
            )
        down = conv(x, HALVE, stride=2)
        up = conv_transpose(down, HALVE, stride=2)
        stamp = window(factor)
        upsampled = conv_transpose(x, stamp, stride=factor)

        row("image", f"{name}, {size(x)} pixels, {x.dtype}")
        row("down", f"{size(x)} -> {size(down)}   conv, 2 x 2 kernel, stride 2")
        row("up", f"{size(down)} -> {size(up)}   conv_transpose, the same kernel")
        row(f"upsampled by {factor}", f"{size(x)} -> {size(upsampled)}   conv_transpose, kernel and stride {factor}")
        checks = {
            "regions": check_regions(x, stamp, upsampled),
            "adjoint": check_adjoint(x, down),
            "matrix": compare_with_matrix(x, down),
        }
        wrong = [check for check, right in checks.items() if not right]
        if wrong:
            raise DemoError(f"wrong numbers, see the table: {', '.join(wrong)}")
        draw(name, x, down, up, upsampled, factor).savefig(unfinished, format="png", dpi=110)
    print()
    row("figure", str(output))


# ---- in and out ----------------------------------------------------------------------------------------


def read(path: Path | None) -> tuple[str, Array]:
    """Name and grey values in [0, 1] of an image, with even sizes so that it halves exactly."""
    try:
        from matplotlib import cbook
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DemoError(f'{error.name} is missing: pip install "cytconv[demo]"') from error
    if path is None:
        path = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    try:
        with Image.open(path) as image:
            grey = np.asarray(ImageOps.exif_transpose(image).convert("F"), np.float64)
    except Exception as error:  # decoders of broken files raise whatever they trip over
        raise DemoError(f"image={str(path)!r} cannot be read: {str(error) or type(error).__name__}") from error
    if not np.isfinite(grey).all():
        raise DemoError(f"image={str(path)!r} must hold finite numbers only")
    height, width = (n // 2 * 2 for n in grey.shape)
    if not height or not width:
        raise DemoError(f"image={str(path)!r} is {size(grey)} pixels: it must be at least 2 x 2")
    return path.name, grey[:height, :width] / max(255.0, grey.max())


@contextmanager
def replacing(output: Path, name: str = "output") -> Iterator[Path]:
    """A file beside `output` to write, which takes its place once all is written; on any error nothing is left.

    Errors call it by the `name` of the argument.
    """
    try:
        if output.exists() and not output.is_file():
            raise DemoError(f"{name}={str(output)!r} must be a file")
        unfinished = output.with_name(f".{output.name}.{os.getpid()}.part")
        unfinished.touch(exist_ok=False)  # complain before any work is done
        try:
            yield unfinished
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise DemoError(f"{name}={str(output)!r} cannot be written: {error.strerror or error}") from error


def row(label: str, text: str) -> None:
    print(f"{label:<18}{text}")


def size(a: NDArray[Any]) -> str:
    return " x ".join(map(str, a.shape))


# ---- the checks ------------------------------------------------------------------------------------------


def window(n: int) -> Array:
    """A kernel that shows in the picture: one smooth bump of n x n samples."""
    bump = np.sin(np.pi * (np.arange(n) + 0.5) / n)
    return np.outer(bump, bump)


def check_regions(x: Array, w: Array, y: Array) -> bool:
    """With the stride equal to the kernel, region (i, j) of y is ``w * x[i, j]``, to the last bit."""
    n = len(w)
    regions = y.reshape(x.shape[0], n, x.shape[1], n).swapaxes(1, 2)
    equal = np.ones(x.shape, bool)
    for a, b in np.ndindex(w.shape):
        equal &= regions[..., a, b] == x * w[a, b]
    row("regions", f"{equal.sum()} of {equal.size} regions of {n} x {n} equal the kernel times their pixel, exactly")
    return bool(equal.all())


def check_adjoint(y: Array, like: Array) -> bool:
    """``<A x, y> = <x, A^H y>`` for any x and y: here random numbers and the photograph."""
    x = np.random.default_rng(0).standard_normal(like.shape)
    left = np.vdot(conv_transpose(x, HALVE, stride=2), y)
    right = np.vdot(x, conv_transpose_adjoint(y, HALVE, stride=2))
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    print()
    row("<A x, y>", f"{left:+.15e}")
    difference = float(abs(left - right)) / (scale or 1)
    row("<x, A^H y>", f"{right:+.15e}   they differ by {difference:.1e} of |x| |y|")
    return difference < TOLERANCE


def compare_with_matrix(x: Array, down: Array) -> bool:
    """The sparse matrices give the same numbers; how long either way takes."""
    matrices = {
        "down": conv_matrix(HALVE, down.shape, stride=2),
        "up": conv_transpose_matrix(HALVE, down.shape, stride=2),
    }
    calls: dict[str, tuple[Callable[[], Array], Callable[[], Array]]] = {
        "down": (lambda: conv(x, HALVE, stride=2), lambda: matrices["down"] @ x.ravel()),
        "up": (lambda: conv_transpose(down, HALVE, stride=2), lambda: matrices["up"] @ down.ravel()),
    }
    largest = 0.0
    print()
    row("", f"{'direct':>10}{'M @ x':>12}{'M @ x/direct':>16}{'nonzeros':>12}{'max difference':>17}")
    for name, (direct, sparse) in calls.items():
        difference = float(np.abs(direct().ravel() - sparse()).max())
        largest = max(largest, difference)
        fast, slow = medians(direct, sparse)
        times = f"{fast * 1e3:>7.3f} ms{slow * 1e3:>9.3f} ms{slow / fast:>16.1f}"
        row(name, f"{times}{matrices[name].nnz:>12}{difference:>17.1e}")
    threads = resolve_workers(None)
    row("", f"medians of {RUNS} runs, direct on up to {threads} threads, scipy's M @ x on one")
    return largest < TOLERANCE


def medians(*calls: Callable[[], object]) -> list[float]:
    """Seconds that each call takes, in turns, so that whatever else the machine does strikes all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(RUNS):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


# ---- the figure --------------------------------------------------------------------------------------------


def draw(name: str, x: Array, down: Array, up: Array, upsampled: Array, factor: int) -> Figure:
    """Above, the photograph; below, the same operation on six samples, with one colour for each sample."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(13, 8.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.12, 1])
    photos, example = halves

    photos.suptitle(f"{name}: down by a strided convolution, up by the transposed convolution", fontweight="bold")
    patch, (top, left) = detail(x)
    high, wide = patch.shape
    panels = photos.subplots(1, 4)
    show(panels[0], x, f"original\n{size(x)}")
    panels[0].add_patch(Rectangle((left - 0.5, top - 0.5), wide, high, fill=False, edgecolor="tab:orange", linewidth=2))
    show(panels[1], down, f"down: conv(x, w, stride=2)\n{size(down)}")
    panels[1].set(xlim=panels[0].get_xlim(), ylim=panels[0].get_ylim(), facecolor="0.95")  # at its true size
    show(panels[2], up, f"up: conv_transpose(down, w, stride=2)\n{size(up)}")
    zoom = upsampled[top * factor : (top + high) * factor, left * factor : (left + wide) * factor]
    show(panels[3], zoom, f"detail, upsampled by {factor}\n{size(patch)} -> {size(zoom)}, one kernel per pixel")
    panels[3].spines[:].set(color="tab:orange", linewidth=2)

    example.suptitle("The same by hand, kernel 2 x 2 and stride 2: each sample stamps one copy of the kernel")
    draw_example(example)
    return figure


def detail(x: Array) -> tuple[Array, tuple[int, int]]:
    """The patch with the most contrast (found by strided convolution, what else) and its top left corner."""
    side = min(DETAIL, *x.shape)
    mean = np.full((side, side), 1 / side**2)
    variance = conv(x**2, mean, stride=side) - conv(x, mean, stride=side) ** 2
    top, left = (int(i) * side for i in np.unravel_index(variance.argmax(), variance.shape))
    return x[top : top + side, left : left + side], (top, left)


def show(ax: Axes, image: Array, title: str) -> None:
    ax.imshow(image, cmap="gray", interpolation="none" if image.size < 2**16 else "antialiased")
    ax.set_title(title, fontsize=10)
    ax.tick_params(labelsize=8)


def draw_example(figure: SubFigure) -> None:
    """``x``, ``w`` and ``y`` as tables, and the matrix that maps x to y, with one colour for each sample of x."""
    from matplotlib.patches import Rectangle

    y = conv_transpose(EXAMPLE_X, EXAMPLE_W, stride=2)
    samples = np.arange(EXAMPLE_X.size).reshape(EXAMPLE_X.shape)
    regions = np.kron(samples, np.ones(EXAMPLE_W.shape, int))  # the sample behind each output
    matrix = conv_transpose_matrix(EXAMPLE_W, EXAMPLE_X.shape, stride=2)

    axes = figure.subplots(1, 4, width_ratios=[3, 2, 6, 2.6])
    draw_table(axes[0], EXAMPLE_X, samples, f"x\n{size(EXAMPLE_X)}")
    draw_table(axes[1], EXAMPLE_W, np.full(EXAMPLE_W.shape, -1), f"kernel w\n{size(EXAMPLE_W)}")
    draw_table(axes[2], y, regions, f"y = conv_transpose(x, w, stride=2)\n{size(y)}: region (i, j) is w * x[i, j]")
    for (i, j), sample in np.ndenumerate(samples):
        corner = (2 * j - 0.46, 2 * i - 0.46)
        axes[2].add_patch(Rectangle(corner, 1.92, 1.92, fill=False, edgecolor=f"C{sample}", linewidth=2.5))

    ax = axes[3]
    for sample in samples.flat:
        ax.spy(np.where(np.arange(samples.size) == sample, matrix.toarray(), 0), marker="s", ms=5, color=f"C{sample}")
    ax.set_title(f"y.ravel() = M @ x.ravel()\n{size(matrix)}, {matrix.nnz} nonzeros", fontsize=10)
    ax.set(xlabel="sample of x", ylabel="sample of y", xticks=range(0, 6), yticks=range(0, 24, 4), aspect="auto")
    ax.tick_params(labelsize=8, top=False, labeltop=False, bottom=True, labelbottom=True)
    ax.grid(alpha=0.3)


def draw_table(ax: Axes, values: Array, samples: NDArray[Any], title: str) -> None:
    """Numbers in cells, each cell in the colour of its sample; grey for sample -1."""
    from matplotlib.patches import Rectangle

    for (i, j), value in np.ndenumerate(values):
        colour = "0.4" if samples[i, j] < 0 else f"C{samples[i, j]}"
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, edgecolor="white", alpha=0.25))
        ax.text(j, i, f"{value:.4f}", ha="center", va="center", fontsize=9)
    height, width = values.shape
    ax.set(xlim=(-0.52, width - 0.48), ylim=(height - 0.48, -0.52), aspect=0.8)
    ax.set_title(title, fontsize=10)
    ax.axis("off")
