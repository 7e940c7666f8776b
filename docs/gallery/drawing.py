"""Arrays drawn as grids of cells, with windows outlined and arrows between them, for the examples beside this file."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle

FIRST, LAST, PLAIN, CROPPED = "tab:blue", "tab:orange", "#f2f2f2", "#d0d0d0"


def canvas(width, height):
    """An empty drawing, so many cells wide and high; y points down, as rows of arrays do."""
    fig, ax = plt.subplots(figsize=(0.62 * width, 0.62 * height), layout="constrained")
    ax.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1), aspect="equal")
    ax.axis("off")
    return ax


def tint(colour, strength=0.25):
    """`colour` mixed with white."""
    return tuple(strength * np.array(to_rgb(colour)) + (1 - strength))


class Grid:
    """The cells of a two-dimensional array, its upper left corner at `x`, `y`; 1-D arrays are one row."""

    def __init__(self, ax, shape, x=0, y=0, title=None, values=None, colours=None, fontsize=9):
        self.ax, self.x, self.y = ax, x, y
        self.rows, self.columns = shape
        for i, j in np.ndindex(self.rows, self.columns):
            colour = PLAIN if colours is None else colours[i][j]
            ax.add_patch(Rectangle((x + j, y + i), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
            if values is not None:
                ax.text(x + j + 0.5, y + i + 0.5, values[i][j], ha="center", va="center", fontsize=fontsize)
        if title:
            ax.text(x + self.columns / 2, y - 0.18, title, ha="center", va="bottom", fontsize=11)

    def outline(self, i, j, high=1, wide=1, colour=FIRST):
        """A frame around the window of `high` x `wide` cells from cell (i, j) on."""
        corner = (self.x + j + 0.05, self.y + i + 0.05)
        self.ax.add_patch(
            Rectangle(corner, wide - 0.1, high - 0.1, fill=False, edgecolor=colour, linewidth=2.5, zorder=3)
        )

    def at(self, i, j):
        """The point at row i, column j: whole numbers are corners of cells, halves their centres."""
        return self.x + j, self.y + i


def arrow(ax, start, end, colour="0.3", bend=0.0):
    """An arrow from one point to another; `bend` curves it, to its left if negative."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=14,
            color=colour,
            linewidth=1.6,
            shrinkA=1,
            shrinkB=2,
            zorder=4,
        )
    )


def text(ax, x, y, words, align="center"):
    """Words beside the grids."""
    ax.text(x, y, words, ha=align, va="center", fontsize=11)
