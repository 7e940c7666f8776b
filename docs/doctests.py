"""Run the examples in the docstrings of all public names, and the Python blocks of README.md and of docs/*.md.

    python docs/doctests.py

Every public name must have an example.  The blocks of a page run one after the other in one namespace; a block that
needs a library which is not installed is counted as skipped.
"""

import doctest
import re
import sys
import traceback
from pathlib import Path

import cytconv

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def docstrings():
    """How many examples ran, and what went wrong."""
    ran, faults = 0, []
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name in cytconv.__all__:
        tests = [test for test in finder.find(getattr(cytconv, name), name) if test.examples]
        if not tests:
            faults.append(f"cytconv.{name}: no example in its docstring")
        for test in tests:
            result = runner.run(test)
            ran += result.attempted
            if result.failed:
                faults.append(f"cytconv.{test.name}: {result.failed} of {result.attempted} examples")
    return ran, faults


def blocks(page):
    """How many blocks of a page ran and were skipped, and what went wrong."""
    ran, skipped, faults, namespace = 0, 0, [], {}
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start(1))
        try:
            exec(compile("\n" * line + match[1], page, "exec"), namespace)  # so that a traceback tells the line
            ran += 1
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] == "cytconv":
                raise
            skipped += 1
        except Exception:
            traceback.print_exc()
            faults.append(f"{page.relative_to(ROOT)}, block at line {line}")
    return ran, skipped, faults


def main():
    examples, faults = docstrings()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    counts = [blocks(page) for page in pages]
    faults += [fault for *_, of_page in counts for fault in of_page]
    ran, skipped = (sum(count[i] for count in counts) for i in (0, 1))
    print("\n".join(["", *faults, f"cytconv of {Path(cytconv.__path__[0])}"]))
    print(f"{examples} examples of {len(cytconv.__all__)} public names, {ran} blocks of pages ran, {skipped} skipped")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
