"""cytconv beside PyTorch, ONNX Runtime, OpenVINO, JAX, numpy and scipy: times, ratios and shares of the roofline.

    pip install -r benchmarks/requirements-peers.txt
    python benchmarks/peers.py [--threads 2] [--rounds 11] [--rows REGEX] [--peers torch,jax] [--plot peers.png]

A peer that is not installed is left out.  How it measures:

- Every library lives in a process of its own, so that no pool of threads disturbs another.  All have the same number of
  threads and, where the system allows it, the same CPUs.
- They take turns, round by round, in an order that rotates.  A turn is a call that wakes the threads and warms the
  caches, then a call that is timed, then a wait until the threads of the library sleep again, so that the next one
  finds a quiet machine.  Short calls are repeated, for 10 milliseconds at first and for 2 to be timed.
- A result counts only if it agrees with one in double precision; a wrong one of cytconv fails the run.
- The time of a cell is the median over the rounds; a peer more than ten times slower than the fastest has three rounds.
- The share of the roofline is the larger of two: the operations relative to the FMA peak, and the bytes of both inputs
  and the result relative to the bandwidth of a copy.  Both rates are measured before and after the table.
- Peers are given whatever helps them beforehand: weights compiled in (ONNX Runtime, OpenVINO), converted layouts,
  conjugates.  cytconv is timed in three forms: as a function, which the ratio is about, as ConvTranspose, which keeps
  its weights packed, and as a function of arrays whose channels come last.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from libraries import LIBRARIES, Array, reference
from processes import Process, limit_threads
from report import FORMS, OWN, Cell, Run, markdown, ms, picture, times
from workloads import DIRECTIONS, NETWORKS, WORKLOADS, Workload, random_layers

FEW = 3  # rounds for a peer that is far behind
FAR = 10  # times the fastest


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Benchmark:
    """The processes of the libraries, and the rounds in which they take turns."""

    def __init__(self, names: list[str], threads: int, rounds: int, directory: Path) -> None:
        limit_threads(threads)
        self.threads, self.rounds, self.result = threads, rounds, directory / "result.npy"
        self.versions: dict[str, str] = {}
        self.failures: list[str] = []  # of cytconv
        self.processes = {name: Process(name, threads) for name in names}  # they import side by side
        absent: dict[str, str] = {}
        for name, process in list(self.processes.items()):
            library = name.partition("-")[0]
            try:
                self.versions[library] = process.receive()
            except (RuntimeError, EOFError) as error:
                absent[library] = str(error) or "its process ended"
                del self.processes[name]
        for library, why in absent.items():
            say(f"{library} is left out: {why}")

    def cell(self, workload: Workload, direction: str) -> Cell:
        cell = Cell(workload.name, direction, workload.dtype, workload.flops, workload.traffic)
        self.prepare(cell, workload, direction)
        turns: dict[str, list[float]] = {name: [] for name in cell.first}
        for number in range(self.rounds):
            names = list(turns)
            shift = number % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                if number >= FEW and name not in FORMS and far_behind(turns, name):
                    continue
                if seconds := self.ask(cell, name, "turn"):
                    turns[name].append(seconds)
                else:
                    del turns[name]
        cell.seconds = {name: statistics.median(values) for name, values in turns.items()}
        return cell

    def prepare(self, cell: Cell, workload: Workload, direction: str) -> None:
        """Note the time of the first call of every library that can compute the cell, and does so correctly."""
        expected = reference(workload, direction)
        # What rounding explains: in a sum of so many products it grows with their root.
        terms = max(64, workload.products / expected.size)
        tolerance = 4 * np.finfo(workload.dtype).eps * terms**0.5 * np.abs(expected).max()
        for name in self.processes:
            if first := self.ask(cell, name, "prepare", workload, direction, str(self.result)):
                error = difference(np.load(self.result), expected)
                if error <= tolerance:
                    cell.first[name] = first
                else:
                    self.fault(cell, name, f"wrong by {error:.1e} where {tolerance:.1e} is rounding")

    def ask(self, cell: Cell, name: str, *request: Any) -> Any:
        """The answer, or None if there is none."""
        try:
            return self.processes[name].ask(*request)
        except RuntimeError as error:
            self.fault(cell, name, str(error).partition("\n")[0])
        except (EOFError, OSError):
            self.fault(cell, name, "its process ended")
            self.processes[name] = Process(name, self.threads)
            self.processes[name].receive()
        return None

    def fault(self, cell: Cell, name: str, what: str) -> None:
        say(f"{name} is left out of {cell.workload}, {cell.direction}: {what}")
        if name in FORMS:
            self.failures.append(f"{name} failed on {cell.workload}, {cell.direction}: {what}")


def far_behind(turns: dict[str, list[float]], name: str) -> bool:
    return statistics.median(turns[name]) > FAR * min(map(statistics.median, turns.values()))


def difference(result: Array, expected: Array) -> float:
    """The largest one between two elements; plain arrays lack the axes of batch and channels."""
    return float(np.abs(result.reshape(expected.shape) - expected).max()) if result.size == expected.size else np.inf


def measured(options: argparse.Namespace, rows: list[Workload], directory: Path) -> tuple[Run, list[str]]:
    """The run, and what cytconv failed on."""
    names = [name for name in LIBRARIES if name in (*FORMS, *options.peers)]
    benchmark = Benchmark(names, options.threads, options.rounds, directory)
    if OWN not in benchmark.processes:
        sys.exit("there is nothing to compare with")
    import machine  # not above: what this module imports, the processes of all libraries import, and this is cytconv

    if machine.load() > 0.5:
        say(f"the machine has other work (load {machine.load():.1f}): whatever waits for its threads takes longer")
    before = machine.measure(options.threads)
    about = {**machine.describe(), "threads": options.threads, "rounds": options.rounds}
    run = Run({**about, "versions": benchmark.versions, **before})
    cells = [(row, direction) for row in rows for direction in options.directions]
    for number, (row, direction) in enumerate(cells, 1):
        cell = benchmark.cell(row, direction)
        run.cells.append(cell)
        best = f"{cell.best or 'no peer'} {ms(cell.seconds.get(cell.best))}"
        say(f"[{number}/{len(cells)}] {row.name}, {direction}: {ms(cell.own)} ms, {best} ms, {times(cell.ratio())}")
        if options.json:
            run.save(options.json)  # so that a run that is interrupted is not lost
    run.machine |= {name: max(before[name], rate) for name, rate in machine.measure(options.threads).items()}
    return run, benchmark.failures


def some_of(known: list[str]) -> Callable[[str], list[str]]:
    """What a list on the command line names: in full, or by the first part ("torch" is both of its layouts)."""

    def parse(text: str) -> list[str]:
        for part in (parts := text.split(",")):
            if part not in {name.partition("-")[0] for name in known}.union(known):
                raise argparse.ArgumentTypeError(f"{part!r}: choose from {', '.join(known)}")
        return [name for name in known if name in parts or name.partition("-")[0] in parts]

    return parse


def arguments() -> argparse.Namespace:
    peers = [name for name in LIBRARIES if name not in FORMS]
    directions = list(DIRECTIONS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--rows", type=re.compile, default="", metavar="REGEX", help="workloads to time")
    parser.add_argument(
        "--directions", type=some_of(directions), default=directions, metavar="LIST", help=",".join(directions)
    )
    parser.add_argument("--peers", type=some_of(peers), default=peers, metavar="LIST", help=",".join(peers))
    parser.add_argument("--quick", action="store_true", help="a few small workloads, two rounds")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--networks", action="store_true", help="layers of well-known networks instead")
    instead.add_argument("--random", type=int, metavar="N", help="so many layers drawn at random instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all-peers", action="store_true", help="also tables of the times of every library")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the tables, which are printed anyway")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="bars of ratios and a roofline plot")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="report on a stored run, time nothing")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    failures: list[str] = []
    if options.from_json:
        run = Run.load(options.from_json)
    else:
        known = NETWORKS if options.networks else WORKLOADS
        if options.random is not None:
            known = random_layers(options.random, options.seed)
        rows = [row for row in known if re.search(options.rows, row.name) and (row.quick or not options.quick)]
        options.rounds = 2 if options.quick else options.rounds
        with tempfile.TemporaryDirectory() as directory:
            run, failures = measured(options, rows, Path(directory))
        if options.json:
            run.save(options.json)
    text = markdown(run, options.all_peers)
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)
    if options.plot:
        picture(run, options.plot)
    for failure in failures:
        say(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
