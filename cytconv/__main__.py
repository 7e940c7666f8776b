"""The command line: ``python -m cytconv demo``, ``compare``, ``calibrate`` and ``info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import __version__, show_config
from ._demo import DemoError, demo, replacing

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m cytconv", description="Transposed convolution in N dimensions.")
    parser.add_argument("--version", action="version", version=f"cytconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "demo",
        help="take a photograph down and up again, check the numbers and draw them",
        description="Halve an image, bring it back up, upsample it, check every number and draw the result.",
    )
    run.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="image to use (default: a sample photograph)")
    run.add_argument(
        "--factor", type=int, default=4, metavar="N", help="upsample by N, with an N x N kernel (default: 4)"
    )
    run.add_argument(
        "--output",
        type=Path,
        default=Path("cytconv_demo.png"),
        metavar="PNG",
        help="where to save the figure (default: cytconv_demo.png)",
    )
    _add_compare(
        commands.add_parser(
            "compare",
            help="measure the methods on one geometry, beside scipy and PyTorch",
            description="Measure set-up, forward, adjoint, memory and difference of every method on one geometry. "
            "Several sizes are separated by commas; one alone holds for every axis of --shape.",
        )
    )
    commands.add_parser(
        "calibrate",
        help="measure what choose_method predicts with",
        description="Measure the constants of the cost model of choose_method on this machine, and keep them.",
    )
    commands.add_parser("info", help="print what runs here: kernels, threads, versions")

    options = parser.parse_args(argv)
    if options.command == "info":
        show_config()
        return 0
    if options.command == "calibrate":
        return _calibrate()
    try:
        if options.command == "compare":
            _compare(options)
        else:
            demo(options.image, options.factor, options.output)
    except DemoError as error:
        return _fail(options.command, error)
    return 0


def _fail(command: str, error: object) -> int:
    print(f"python -m cytconv {command}: error: {error}", file=sys.stderr)
    return 2


def _calibrate() -> int:
    """Measure the constants of the cost model, and tell where they are."""
    from ._choice import cache_file, calibrate, is_kept
    from ._compare import progress_bar

    calibrate(progress_bar(sys.stderr) if sys.stderr.isatty() else None)
    try:
        path = str(cache_file())
    except RuntimeError:  # no home
        path = "the user's cache directory"
    print(f"kept in {path}" if is_kept() else f"{path} cannot be written: each process will measure anew")
    return 0


# ---- compare -------------------------------------------------------------------------------------------


def _add_compare(flags: argparse.ArgumentParser) -> None:
    """The flags of compare."""
    sizes: dict[str, Any] = {"type": _sizes, "metavar": "N,..."}
    flags.add_argument("--shape", required=True, help="sizes of the input, without channels", **sizes)
    flags.add_argument("--kernel", required=True, help="sizes of the kernel", **sizes)
    flags.add_argument("--stride", default=1, help="default: 1", **sizes)
    flags.add_argument(
        "--padding", type=_padding, default=0, metavar="P,...", help="crop of the output, or low:high (default: 0)"
    )
    flags.add_argument("--dilation", default=1, help="default: 1", **sizes)
    flags.add_argument("--channels-in", type=int, metavar="N", help="channels of the input (default: plain arrays)")
    flags.add_argument("--channels-out", type=int, metavar="N", help="of the output; one alone stands for both")
    flags.add_argument("--groups", type=int, default=1, metavar="N", help="default: 1")
    flags.add_argument(
        "--dtype", default="float64", choices=("float32", "float64", "complex64", "complex128"), help="default: float64"
    )
    flags.add_argument("--workers", type=int, metavar="N", help="threads (default: what OpenMP would use)")
    flags.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds to take medians of (default: 5)")
    flags.add_argument(
        "--methods", type=_names, metavar="NAME,...", help="which methods, beside direct (default: all, and auto)"
    )
    flags.add_argument("--no-peers", action="store_true", help="leave out scipy and PyTorch")
    flags.add_argument("--json", metavar="FILE", help="save the numbers; - prints them in place of the table")
    flags.add_argument("--plot", type=Path, metavar="FILE", help="save a figure: png, svg, pdf, ...")


def _compare(options: argparse.Namespace) -> None:
    """Compare the methods; files are opened before anything is measured, and appear when all is done."""
    from ._compare import compare_methods, progress_bar

    with ExitStack() as files:
        if options.plot is not None:
            _check_figure(options.plot)
            plot = files.enter_context(replacing(options.plot, "plot"))
        if options.json not in (None, "-"):
            numbers = files.enter_context(replacing(Path(options.json), "json"))
        try:
            comparison = compare_methods(
                options.shape,
                options.kernel,
                stride=options.stride,
                padding=options.padding,
                dilation=options.dilation,
                channels_in=options.channels_in,
                channels_out=options.channels_out,
                groups=options.groups,
                dtype=options.dtype,
                workers=options.workers,
                repeat=options.repeat,
                methods=options.methods,
                peers=not options.no_peers,
                progress=progress_bar(sys.stderr) if sys.stderr.isatty() else None,
            )
        except (ValueError, TypeError, MemoryError) as error:
            raise DemoError(str(error) or "not enough memory") from error
        if options.plot is not None:
            comparison.plot().savefig(plot, format=options.plot.suffix[1:].lower(), dpi=110)
        if options.json not in (None, "-"):
            numbers.write_text(comparison.to_json() + "\n", encoding="utf-8")
    print(comparison.to_json() if options.json == "-" else comparison.table())


def _check_figure(path: Path) -> None:
    """Raise unless matplotlib can draw into a file of that name."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise DemoError("--plot needs matplotlib: pip install matplotlib") from error
    suffixes = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in suffixes:
        raise DemoError(f"plot={str(path)!r} must end in one of {', '.join(f'.{suffix}' for suffix in suffixes)}")


def _sizes(text: str) -> int | tuple[int, ...]:
    """One whole number, or several between commas."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers between commas") from None
    return sizes if len(sizes) > 1 else sizes[0]


def _padding(text: str) -> int | tuple[int | tuple[int, ...], ...]:
    """The same, with ``low:high`` for a number wherever the two ends differ."""
    try:
        ends: list[tuple[int, ...]] = [tuple(int(end) for end in part.split(":")) for part in text.split(",")]
    except ValueError:
        ends = [()]
    if any(len(part) not in (1, 2) for part in ends):
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, or low:high, between commas")
    if len(ends) == 1 and len(ends[0]) == 1:
        return ends[0][0]
    return tuple(part if len(part) == 2 else part[0] for part in ends)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
