"""The command line: ``python -m cytconv demo`` and ``python -m cytconv info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, show_config
from ._demo import DemoError, demo

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
    commands.add_parser("info", help="print what runs here: kernels, threads, versions")

    options = parser.parse_args(argv)
    if options.command == "info":
        show_config()
        return 0
    try:
        demo(options.image, options.factor, options.output)
    except DemoError as error:
        print(f"python -m cytconv demo: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
