"""What a report costs: seconds, memory and size of the page, of 10 million samples and 2,000 cases.

    python -m tests.bench.report_cost [--cases 2000] [--samples 10000000] [--file results.h5] [--json]

The file is generated (``big_results``); each part is timed by itself, in a process of its own, so that the memory is
that of the report alone. Limits, on an otherwise idle machine: 10 s and 1 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

LIMIT_S, LIMIT_MB = 10.0, 1000.0

_CHILD = """
import json, resource, sys, time
begin = time.perf_counter()
from analysis import page, report
from analysis.results import load
from analysis.verdict import judge
parts = {"import": time.perf_counter() - begin}
def timed(name, function, *arguments):
    at = time.perf_counter()
    found = function(*arguments)
    parts[name] = parts.get(name, 0.0) + time.perf_counter() - at
    return found
contents = page.contents
def watched(*arguments):
    return timed("contents", contents, *arguments)
page.contents = watched
report.judge = lambda results: timed("judge", judge, results)
report.load = lambda path: timed("load", load, path)
paths = report.write(sys.argv[1], sys.argv[2])
parts["everything"] = time.perf_counter() - begin
parts["processor"] = time.process_time()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": parts, "memory_mb": memory, "page_mb": paths.report_html.stat().st_size / 1e6}))
"""


def measure(results: Path, out: Path) -> dict[str, object]:
    """Write the report of a results file in a fresh process, and say what it cost."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(results), str(out)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a limit is passed."""
    options = argparse.ArgumentParser(prog="python -m tests.bench.report_cost", description=__doc__)
    options.add_argument("--cases", type=int, default=2000)
    options.add_argument("--samples", type=int, default=10_000_000)
    options.add_argument("--file", type=Path, help="a results file that is there")
    options.add_argument("--json", action="store_true")
    given = options.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="report-cost-") as folder:
        path = given.file or Path(folder) / "results.h5"
        if given.file is None:
            from tests.bench import big_results

            big_results.make(path, given.cases, given.samples)
        found = measure(path, Path(folder) / "out")
    if given.json:
        print(json.dumps(found))
    else:
        print(f"report of {given.file or f'{given.samples:,} samples, {given.cases:,} cases'}")
        seconds = found["seconds"]
        assert isinstance(seconds, dict)
        for name, value in seconds.items():
            print(
                f"  {name:<12}{value:8.2f} s" + (f"   limit {LIMIT_S:.0f} s" if name == "everything" else "")
            )
        print(f"  {'memory':<12}{found['memory_mb']:8.0f} MB  limit {LIMIT_MB:.0f} MB")
        print(f"  {'page':<12}{found['page_mb']:8.1f} MB")
    everything, memory = found["seconds"]["everything"], found["memory_mb"]  # type: ignore[index]
    return 0 if everything <= LIMIT_S and memory <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
