"""What `cytconv.compare_methods` returns: rows of numbers, as a table that fits a terminal and as a picture."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["YARDSTICK", "Comparison", "MethodCost"]

Shape = tuple[int, ...]

YARDSTICK = "direct"  # what all others are compared with
APPLICATIONS = (1, 10, 100, 1000)  # how often an operator is applied, in what is said about the fastest


@dataclass(frozen=True, slots=True)
class MethodCost:
    """What one method costs on one geometry; None wherever it was not measured.

    Attributes
    ----------
    name : str
        The method, or the peer and its function.
    peer : bool
        Whether it is another library's way.
    setup, forward, adjoint : float or None
        Seconds to make the operator ready for its forward product, for one such product, and for one adjoint.
    kept, peak : int or None
        Bytes that the operator keeps, and the most that one forward product needs on top, its result included.
        Arrays of numpy alone are counted: None for a library with memory of its own.
    difference : float or None
        The largest difference of either product from method "direct", relative to the largest number.
    break_even : int or None
        From how many forward products on, set-up included, it is faster than "direct"; None if it never is.
    reason : str
        Why it was not measured; empty if it was.

    Examples
    --------
    >>> from cytconv import MethodCost
    >>> matrix = MethodCost("sparse", setup=3.0, forward=0.5)
    >>> matrix.total(10)
    8.0
    """

    name: str
    peer: bool = False
    setup: float | None = None
    forward: float | None = None
    adjoint: float | None = None
    kept: int | None = None
    peak: int | None = None
    difference: float | None = None
    break_even: int | None = None
    reason: str = ""

    def total(self, applications: int) -> float:
        """Seconds for the set-up and so many forward products.

        Parameters
        ----------
        applications : int
            How many products.

        Returns
        -------
        float
            Infinite if they were not measured.
        """
        if self.setup is None or self.forward is None:
            return math.inf
        return self.setup + applications * self.forward


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare_methods` measured: the geometry, and one `MethodCost` for each row.

    Attributes
    ----------
    input_shape, kernel_shape, output_shape, stride, dilation : tuple of int
        One entry per axis, without batch and channels.
    padding : tuple of (int, int)
        ``(low, high)`` per axis.
    channels_in, channels_out : int or None
        None for plain arrays.
    groups, workers, repeat : int
        As they were used.
    dtype : str
        Name of the type of the numbers.
    rows : tuple of MethodCost
        The methods, "direct" first, then the peers.

    Examples
    --------
    >>> from cytconv import compare_methods
    >>> comparison = compare_methods((32, 32), 3, methods=["sparse"], peers=False, repeat=1)
    >>> comparison.output_shape, [row.name for row in comparison.rows]
    ((34, 34), ['direct', 'sparse'])
    >>> comparison["sparse"].kept > comparison["direct"].kept
    True
    """

    input_shape: Shape
    kernel_shape: Shape
    output_shape: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape
    channels_in: int | None
    channels_out: int | None
    groups: int
    dtype: str
    workers: int
    repeat: int
    rows: tuple[MethodCost, ...]

    def __getitem__(self, name: str) -> MethodCost:
        """The row of that name; KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(row.name == name for row in self.rows)

    def __iter__(self) -> Iterator[MethodCost]:
        return iter(self.rows)

    def fastest(self, applications: int) -> str:
        """The method or peer that takes the least time for its set-up and so many forward products.

        Parameters
        ----------
        applications : int
            How many products.

        Returns
        -------
        str
            Its name.
        """
        return min(self.rows, key=lambda row: row.total(applications)).name

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain dicts, tuples, numbers and strings."""
        return asdict(self)

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def title(self) -> str:
        """The geometry in one line."""
        channels = "" if self.channels_in is None else f", channels {self.channels_in} -> {self.channels_out}"
        words = [
            f"input {_by(self.input_shape)} -> output {_by(self.output_shape)}{channels}",
            f"kernel {_by(self.kernel_shape)}",
            f"stride {_by(self.stride)}",
        ]
        if any(low or high for low, high in self.padding):
            words.append("padding " + " x ".join(str(p[0]) if p[0] == p[1] else f"{p[0]}:{p[1]}" for p in self.padding))
        if set(self.dilation) != {1}:
            words.append(f"dilation {_by(self.dilation)}")
        if self.groups > 1:
            words.append(f"groups {self.groups}")
        return ", ".join(words)

    def table(self) -> str:
        """All rows as text of at most 100 columns, with what is fastest for how many products below."""
        lines = [
            *_wrapped(self.title()),
            f"{self.dtype}, up to {self.workers} thread{'s' * (self.workers > 1)}, medians of {self.repeat}",
            "",
            f"{'':<18}{'set-up':>10}{'forward':>10}{'adjoint':>10}{'kept':>11}{'peak':>11}{'difference':>12}"
            f"{'break-even':>12}",
        ]
        for row in self.rows:
            if row.reason:
                first, *more = _wrapped(row.reason, 80)
                lines += [f"{row.name:<18}  {first}", *(f"{'':<20}{line}" for line in more)]
                continue
            difference = "-" if row.name == YARDSTICK else f"{row.difference:.1e}" if row.difference else "0"
            lines.append(
                f"{row.name:<18}{_seconds(row.setup):>10}{_seconds(row.forward):>10}{_seconds(row.adjoint):>10}"
                f"{_bytes(row.kept):>11}{_bytes(row.peak):>11}{difference:>12}{_break_even(row):>12}"
            )
        counts: dict[str, list[str]] = {}
        for n in APPLICATIONS:
            counts.setdefault(self.fastest(n), []).append(str(n))
        fastest = "; ".join(f"{name} for {', '.join(numbers)}" for name, numbers in counts.items())
        return "\n".join([*lines, "", *_wrapped(f"fastest in all, by number of forward products: {fastest}")])

    __str__ = table

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw bars of set-up, forward and adjoint, and beside them the time of many products.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw the bars, without what is beside them.  By default a new figure has both.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install matplotlib") from error
        if ax is not None:
            self._plot_bars(ax)
            return ax.get_figure(root=True) or Figure()
        figure = Figure(figsize=(13, 2.2 + 0.55 * len(self.rows)), layout="constrained")
        bars, lines = figure.subplots(1, 2, width_ratios=[1.25, 1])
        figure.suptitle(f"{self.title()}\n{self.dtype}, up to {self.workers} threads", fontsize=11)
        self._plot_bars(bars)
        self._plot_totals(lines)
        return figure

    def _plot_bars(self, ax: Axes) -> None:
        kinds = {"setup": ("set-up", "0.7"), "forward": ("forward", "tab:blue"), "adjoint": ("adjoint", "tab:orange")}
        known = [value for row in self.rows for kind in kinds if (value := getattr(row, kind))]
        left, right = 10.0 ** math.floor(math.log10(min(known)) - 0.3), max(known)
        for y, row in enumerate(self.rows):
            if row.reason:
                ax.text(
                    left * 1.1,
                    y,
                    textwrap.shorten(row.reason, 64, placeholder=" ..."),
                    va="center",
                    fontsize=8,
                    color="0.4",
                    style="italic",
                )
            for offset, (kind, (label, colour)) in zip((-0.27, 0, 0.27), kinds.items(), strict=True):
                seconds = getattr(row, kind)
                if seconds is None:
                    continue
                if seconds > left:
                    ax.barh(y + offset, seconds - left, 0.26, left=left, color=colour, label=label if y == 0 else "")
                ax.text(max(seconds, left) * 1.08, y + offset, _seconds(seconds), va="center", fontsize=7.5)
        ax.set_xscale("log")
        ax.set(xlim=(left, right * 4), ylim=(len(self.rows) - 0.5, -0.5), yticks=range(len(self.rows)))
        ax.set_yticklabels([f"{row.name}\n{_pays(row)}" for row in self.rows], fontsize=8.5)
        ax.xaxis.set_major_formatter(lambda value, _: _seconds(value, 1))
        ax.set_title("one set-up, one product", fontsize=10)
        ax.grid(axis="x", alpha=0.25)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        handles = [_patch(colour, label) for label, colour in kinds.values()]
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, fontsize=8, frameon=False)

    def _plot_totals(self, ax: Axes) -> None:
        counts = np.unique(np.geomspace(1, 10 ** self._decades(), 200).round().astype(int))
        for number, row in enumerate(row for row in self.rows if not row.reason):
            style = {"linestyle": "--" if row.peer else "-", "linewidth": 2.4 if row.name == YARDSTICK else 1.6}
            colour = "black" if row.name == YARDSTICK else f"C{number + 1}"
            totals = [row.total(int(n)) for n in counts]
            ax.plot(counts, totals, color=colour, label=row.name, **style)  # type: ignore[arg-type]  # of each style
            if row.break_even is not None and 1 < row.break_even <= counts[-1]:
                at = (row.break_even, row.total(row.break_even))
                ax.plot(*at, "o", color=colour, markersize=7, markeredgecolor="white", zorder=3)
                ax.annotate(
                    f"{row.break_even}", at, xytext=(4, -11), textcoords="offset points", fontsize=8, color=colour
                )
        ax.set(xscale="log", yscale="log", xlabel="forward products", xlim=(1, counts[-1]))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.yaxis.set_major_formatter(lambda value, _: _seconds(value, 1))
        ax.set_title("set-up and that many products; dots where a method overtakes direct", fontsize=10)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=8, framealpha=0.9)

    def _decades(self) -> int:
        """Powers of ten of applications that show every break-even, within reason."""
        last = max((row.break_even or 1 for row in self.rows), default=1)
        return min(max(3, math.ceil(math.log10(last) + 0.3)), 6)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _by(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _wrapped(text: str, width: int = 100) -> list[str]:
    return textwrap.wrap(text, width)


def _seconds(value: float | None, digits: int = 3) -> str:
    """A time to some significant digits, with its unit."""
    if not value:
        return "-" if value is None else "0"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= 0.9995 * scale:
            return f"{_digits(value / scale, digits)} {unit}"
    return f"{_digits(value * 1e6, digits)} us"


def _digits(value: float, digits: int) -> str:
    """A number without exponent, to so many significant digits; whole digits are all kept."""
    decimals = digits - 1 - math.floor(math.log10(float(f"{value:.{digits - 1}e}")))  # of the rounded number
    return f"{value:.{max(0, min(decimals, digits - 1))}f}"


def _bytes(value: int | None) -> str:
    if value is None:
        return "-"
    size, units = float(value), iter(("B", "KiB", "MiB"))
    for unit in units:
        if size < 1000:
            return f"{size:.{0 if unit == 'B' else 1}f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _break_even(row: MethodCost) -> str:
    return "-" if row.name == YARDSTICK else "never" if row.break_even is None else str(row.break_even)


def _pays(row: MethodCost) -> str:
    """The break-even in words."""
    if row.reason or row.name == YARDSTICK:
        return ""
    if row.break_even is None:
        return "never beats direct"
    return "beats direct at once" if row.break_even == 1 else f"beats direct from {row.break_even}"
