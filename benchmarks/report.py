"""A run as data, as Markdown tables and as a picture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["FORMS", "OWN", "Cell", "Run", "markdown", "ms", "picture", "times"]

FORMS = OWN, OPERATOR, CHANNELS_LAST = "cytconv", "cytconv-operator", "cytconv-channels-last"
GOAL = 1.2  # times the best peer
TITLES = {"forward": "Forward", "adjoint": "Data adjoint", "weights": "Weight adjoint"}


@dataclass
class Cell:
    """One direction of one workload, with the seconds of every library whose result was right."""

    workload: str
    direction: str
    dtype: str
    flops: int
    traffic: int
    seconds: dict[str, float] = field(default_factory=dict)  # the median over the rounds
    first: dict[str, float] = field(default_factory=dict)  # from arrays of a new shape to the first result

    @property
    def own(self) -> float | None:
        return self.seconds.get(OWN)

    @property
    def best(self) -> str:
        """The fastest peer, "" without any."""
        peers = self.seconds.keys() - set(FORMS)
        return min(peers, key=lambda name: self.seconds[name], default="")

    def ratio(self, form: str = OWN) -> float | None:
        """How many times faster than the best peer."""
        return self.seconds[self.best] / self.seconds[form] if self.best and form in self.seconds else None

    @property
    def precision(self) -> str:
        """The real numbers behind the dtype."""
        return "float32" if self.dtype in ("float32", "complex64") else "float64"

    def roofline(self, machine: dict[str, Any]) -> float | None:
        """Share that cytconv reached of what the machine allows, by its operations or by its bytes."""
        limit = max(self.flops / machine[self.precision], self.traffic / machine["bandwidth"])
        return limit / self.own if self.own else None


@dataclass
class Run:
    """Everything that was measured."""

    machine: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        data = json.loads(path.read_text())
        return cls(data["machine"], [Cell(**cell) for cell in data["cells"]])

    def directions(self) -> list[str]:
        return [name for name in TITLES if self.of(name)]

    def of(self, direction: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.direction == direction]


# ---- Markdown --------------------------------------------------------------------------------------------


def markdown(run: Run, all_peers: bool = False) -> str:
    parts = [heading(run.machine)]
    for direction in run.directions():
        parts.append(f"## {TITLES[direction]}\n\n{comparison(run.of(direction), run.machine)}")
        if all_peers:
            parts.append(f"### {TITLES[direction]}, every library\n\n{every_library(run.of(direction))}")
    return "\n\n".join([*parts, f"## Summary\n\n{summary(run)}", f"The worst cells:\n\n{worst(run)}"]) + "\n"


def heading(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"""\
{machine["cpu"]}, {machine["cpus"]} CPUs, {machine["isa"]}; {machine["threads"]} threads, medians of \
{machine["rounds"]} rounds.  {rates(machine)}.
{versions}; Python {machine["python"]}, {machine["platform"]}.

Times in milliseconds.  `function` is conv_transpose or an adjoint of it, `operator` is ConvTranspose, made beforehand,
and `last` is the function of arrays whose channels come last.  The ratio says how many times faster than the best peer
the function is, in brackets the operator.  The roofline is the share of what the machine allows that the function
reached.  `first` is from arrays of a new shape to a first result."""


def rates(machine: dict[str, Any]) -> str:
    peaks = f"{machine['float32'] / 1e9:.0f} GFLOP/s float32 and {machine['float64'] / 1e9:.0f} float64"
    return f"FMA peak {peaks}, copy {machine['bandwidth'] / 1e9:.0f} GB/s"


def comparison(cells: list[Cell], machine: dict[str, Any]) -> str:
    """cytconv and the best peer."""
    forms, peer = ["function", "operator", "last"], ["best peer", "its time"]
    head = ["workload", *forms, *peer, "ratio", "roofline", "first", "its first"]
    rows = []
    for cell in cells:
        ratio, share = times(cell.ratio()), cell.roofline(machine)
        if OPERATOR in cell.seconds:
            ratio += f" ({times(cell.ratio(OPERATOR))})"
        forms = [ms(cell.seconds.get(form)) for form in FORMS]
        peer = [cell.best or "–", ms(cell.seconds.get(cell.best))]
        firsts = [ms(cell.first.get(OWN)), ms(cell.first.get(cell.best))]
        rows.append([cell.workload, *forms, *peer, ratio, f"{share:.0%}" if share else "–", *firsts])
    return table(head, rows)


def every_library(cells: list[Cell]) -> str:
    names = sorted({name for cell in cells for name in cell.seconds})
    return table(["workload", *names], [[c.workload, *(ms(c.seconds.get(name)) for name in names)] for c in cells])


def summary(run: Run) -> str:
    """How many cells are ahead, and by how much."""
    rows = []
    for title, cells in [*((TITLES[name], run.of(name)) for name in run.directions()), ("All", run.cells)]:
        ratios = [ratio for cell in cells if (ratio := cell.ratio())]
        counts = (len(cells), sum(ratio >= 1 for ratio in ratios), sum(ratio >= GOAL for ratio in ratios))
        mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else None
        rows.append([title, *map(str, counts), times(mean)])
    return table(["direction", "cells", "ahead", f"ratio {GOAL} or more", "geometric mean of the ratios"], rows)


def worst(run: Run) -> str:
    """The ten cells with the smallest ratios."""
    ranked = sorted((ratio, place) for place, cell in enumerate(run.cells) if (ratio := cell.ratio()))
    lines = []
    for rank, (ratio, place) in enumerate(ranked[:10], 1):
        cell = run.cells[place]
        pair = f"{ms(cell.own)} ms, {cell.best} {ms(cell.seconds[cell.best])} ms"
        lines.append(f"{rank}. {times(ratio)}: {cell.workload}, {TITLES[cell.direction].lower()}: {pair}")
    return "\n".join(lines)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown whose source is aligned, too: words to the left, numbers to the right."""
    columns = []
    for title, *texts in zip(head, *rows, strict=True):
        width, words = max(3, *map(len, (title, *texts))), title in ("workload", "direction", "best peer")
        cells = [title, "-" * width if words else "-" * (width - 1) + ":", *texts]
        columns.append([text.ljust(width) if words else text.rjust(width) for text in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def ms(seconds: float | None) -> str:
    return three_digits(seconds * 1e3) if seconds else "–"


def times(ratio: float | None) -> str:
    return "–" if not ratio else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def three_digits(value: float) -> str:
    """Significant ones, without an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


# ---- picture ---------------------------------------------------------------------------------------------

COLOURS = {"forward": "#0072b2", "adjoint": "#e69f00", "weights": "#009e73"}  # told apart by colour-blind readers too
MARKERS = {"float32": ("o", "-"), "float64": ("s", "--")}  # of cells, and the line of the roof


def picture(run: Run, path: Path) -> None:
    """Ratios to the best peer as bars, and every cell under the roofs of the machine."""
    from matplotlib.figure import Figure

    workloads = list(dict.fromkeys(cell.workload for cell in run.cells))
    figure = Figure(figsize=(16, 3 + 0.23 * len(workloads)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    draw_ratios(left, run, workloads)
    draw_roofline(right, run)
    figure.suptitle(f"{run.machine['cpu']}, {run.machine['threads']} threads: {rates(run.machine)}")
    figure.savefig(path, dpi=110)


def draw_ratios(axes: Any, run: Run, workloads: list[str]) -> None:
    """Bars to the right of 1 are cells ahead of every peer."""
    directions = run.directions()
    height = 0.78 / max(1, len(directions))
    for number, direction in enumerate(directions):
        cells = [cell for cell in run.of(direction) if cell.ratio()]
        offset = (number - (len(directions) - 1) / 2) * height
        places = [workloads.index(cell.workload) + offset for cell in cells]
        lengths = [(cell.ratio() or 1) - 1 for cell in cells]  # on a log scale only 1 can be where bars begin
        axes.barh(places, lengths, height, left=1, color=COLOURS[direction], label=TITLES[direction])
    for value, style in ((1, "-"), (GOAL, "--")):
        axes.axvline(value, color="black", linewidth=1, linestyle=style)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks([mark for mark in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= mark <= high])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(workloads)), workloads)
    axes.set_ylim(len(workloads) - 0.4, -0.6)
    finish(
        axes,
        f"Times faster than the best peer (dashed: {GOAL})",
        "x",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.03),
        ncols=3,
    )


def draw_roofline(axes: Any, run: Run) -> None:
    """A cell on a roof cannot be made faster."""
    # A handful of operations takes the time of a call, which is far below all roofs.
    machine, cells = run.machine, [cell for cell in run.cells if cell.own and cell.flops > 1e5]
    intensities = [cell.flops / cell.traffic for cell in cells] or [1.0]
    corners = [machine[name] / machine["bandwidth"] for name in MARKERS]
    x = sorted([min(intensities) / 2, *corners, 2 * max(*corners, *intensities)])
    for name, (marker, style) in MARKERS.items():
        roof = [min(machine[name], value * machine["bandwidth"]) / 1e9 for value in x]
        axes.plot(x, roof, style, color="black", linewidth=1.2, label=f"roof, {name}")
        for direction in run.directions():
            shown = [cell for cell in cells if (cell.direction, cell.precision) == (direction, name)]
            axes.scatter(
                [cell.flops / cell.traffic for cell in shown],
                [cell.flops / cell.own / 1e9 for cell in shown if cell.own],
                s=40,
                marker=marker,
                color=COLOURS[direction],
                edgecolor="white",
                linewidth=0.5,
                label=f"{TITLES[direction]}, {name}" if shown else None,
            )
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_formatter("{x:g}")
    axes.set_xlabel("operations for each byte that must be read or written")
    axes.set_ylabel("GFLOP/s")
    finish(axes, "What cytconv reached under the roofs of the machine", "both", loc="lower right")


def finish(axes: Any, title: str, grid: str, **legend: Any) -> None:
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_title(title)
    axes.legend(**legend)
