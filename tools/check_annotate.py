"""Check on Cython's annotation that no line of a nogil kernel touches the Python C API.

    python tools/check_annotate.py

The annotated HTML shows the C code behind each line.  In nogil functions and ``with nogil`` blocks that code may
name nothing of the C API but integer types: a slip there (a check for exceptions, a reference count) costs a lock
in the innermost loop and shows in no result.  Cython's own score of a line is not enough, since it leaves out the
check for exceptions.  The stubs of the other instruction sets include the same source, so the baseline's tell all.
"""

from __future__ import annotations

import contextlib
import html
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "cytconv" / "kernels"
MODULES = ["matrix", "baseline_float32", "baseline_float64"]
HARMLESS = {"Py_ssize_t", "Py_hash_t", "Py_uintptr_t"}

HEADER = re.compile(r"\s*(cdef|cpdef|def|with)\b")
LINE = re.compile(
    r"""<pre class="cython line [^>]*>.*?<span class="">(\d+)</span>.*?</pre>\n"""
    r"""(?:<pre class='cython code [^>]*>(.*?)</pre>)?""",
    re.DOTALL,
)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
C_API = re.compile(r"\b_*P[yY](?!x_c_)\w*")  # but Cython's arithmetic of complex numbers


def nogil_lines(source: str) -> Iterator[int]:
    """Numbers, from 1, of the lines of nogil functions and inside nogil blocks."""
    lines = source.splitlines()
    for end, line in enumerate(lines):
        if not re.search(r"\bnogil:\s*(#.*)?$", line):
            continue
        start = end
        while not HEADER.match(lines[start]):  # a signature may take several lines
            start -= 1
        if not lines[start].lstrip().startswith("with"):  # which itself gives the GIL away, and takes it back
            yield from range(start + 1, end + 2)
        for number in range(end + 1, len(lines)):
            if lines[number].strip() and indent(lines[number]) <= indent(lines[start]):
                break
            yield number + 1


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def annotate(module: str) -> dict[str, dict[int, str]]:
    """The C code behind each line of each file of the module, by the file's name without its suffix."""
    from Cython.Build import cythonize
    from setuptools import Extension

    sys.path.insert(0, str(ROOT))
    from setup import DIRECTIVES

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(ROOT):  # paths below the folder mirror those here
        extension = Extension(f"cytconv.kernels.{module}", [f"cytconv/kernels/{module}.pyx"])
        cythonize(extension, build_dir=folder, compiler_directives=DIRECTIVES, annotate=True, force=True, quiet=True)
        pages = {page.stem: page.read_text(encoding="utf-8") for page in Path(folder).rglob("*.html")}
    return {name: {int(number): c_code(code) for number, code in LINE.findall(page)} for name, page in pages.items()}


def c_code(page: str) -> str:
    return COMMENT.sub("", html.unescape(re.sub(r"<[^>]*>", "", page)))


def check() -> tuple[int, list[str]]:
    """How many lines with C code were checked, and those that touch the C API."""
    checked, faults = 0, []
    for module in MODULES:
        pages = annotate(module)
        for source in sorted(
            path for path in KERNELS.iterdir() if path.stem in pages and path.suffix in (".pxi", ".pyx")
        ):
            text = source.read_text(encoding="utf-8")
            for number in sorted(set(nogil_lines(text))):
                code = pages[source.stem].get(number, "")
                names = sorted(set(C_API.findall(code)) - HARMLESS)
                checked += bool(code)
                if names:
                    line = text.splitlines()[number - 1].strip()
                    faults.append(f"{source.relative_to(ROOT)}:{number}: {', '.join(names)} in {module}: {line}")
    return checked, faults


def main() -> int:
    checked, faults = check()
    print("\n".join([*faults, f"{checked} nogil lines checked, {len(faults)} touch the Python C API"]))
    return 1 if faults or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
