"""Run every benchmark of asv once, with all of its parameters, in one process; asv itself starts one for each.

    python benchmarks/once.py

Ends with 1 if any fails.  What it prints are no measurements.
"""

from __future__ import annotations

import sys
import traceback
from itertools import product
from pathlib import Path

from asv_runner.benchmarks.time import TimeBenchmark
from asv_runner.discovery import disc_benchmarks


def main() -> int:
    ran = skipped = failed = 0
    for benchmark in disc_benchmarks(str(Path(__file__).with_name("benchmarks"))):
        for i, values in enumerate(product(*benchmark.params)):
            if benchmark.params:
                benchmark.set_param_idx(i)
            try:
                if benchmark.do_setup():
                    skipped += 1
                    continue
                if type(benchmark) is TimeBenchmark:
                    benchmark.func(*values)
                else:
                    benchmark.do_run()
                ran += 1
            except Exception:
                failed += 1
                print(f"{benchmark.name}{values} failed:\n{traceback.format_exc()}", file=sys.stderr)
            finally:
                benchmark.do_teardown()
    print(f"asv: {ran} benchmarks ran once, {skipped} were skipped, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
