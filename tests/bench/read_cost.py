"""What reading costs: the median step time of every case, over 1 million rows of 200 cases.

    python -m tests.bench.read_cost

Every row is a process of its own, start of Python and imports included. `bare` is Python with numpy and h5py loaded
and nothing done: nobody who reads this file can be below it. Of ReFrame's results
database the aim cites 50,000 rows in 16 s with 540 MB; that was not measured here.

READ_ROWS (1000000), BENCH_REPEATS (5).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.bench import big_results
from tests.bench.processes import Cost, cost, python
from tests.bench.rounds import in_rounds
from tests.bench.settings import REPEATS
from tests.bench.table import print_table, spread, write_json

READ_ROWS = int(os.environ.get("READ_ROWS", "1000000"))
CASES = 200
_TABLES = "{'mpi.halo': ('steps', 'step_time_ns'), 'torch.collectives': ('collectives', 'elapsed_ns')}"
_OPEN = f"import sys, numpy, analysis; tables = {_TABLES}; r = analysis.load(sys.argv[1])\n"
ROWS = {
    "bare": ("numpy and h5py loaded, nothing read", "import numpy, h5py"),
    "raw": (
        "case_samples(case, table, [column]), median",
        _OPEN
        + "found = {c['case_id']: numpy.median(r.case_samples(c['case_id'], tables[c['workload']][0], "
        + "[tables[c['workload']][1]])[tables[c['workload']][1]]) for c in r.cases}; assert len(found) == 200",
    ),
    "judged": (
        "judged(...): without warm-up and repeated steps",
        _OPEN
        + "found = {c['case_id']: numpy.median(r.judged(c['case_id'], tables[c['workload']][0], "
        + "[tables[c['workload']][1]])[tables[c['workload']][1]]) for c in r.cases}; assert len(found) == 200",
    ),
    "frame": (
        "frame(...).groupby('case_id').median(), pandas",
        _OPEN
        + "found = [r.frame(w, t, [c]).groupby('case_id', observed=True)[c].median() for w, (t, c) in tables.items()]; "
        + "assert sum(map(len, found)) == 200",
    ),
}


def main() -> None:
    """Make the file, measure, print."""
    with tempfile.TemporaryDirectory(prefix="read-cost-") as folder:
        path = Path(folder, "results.h5")
        samples = big_results.make(path, CASES, READ_ROWS)

        def one(key: str, _: int) -> Cost:
            return cost(python(ROWS[key][1], str(path)))

        found = in_rounds(tuple(ROWS), one, repeats=REPEATS, budget_s=300.0, impossible={})
    rows = [
        [
            words,
            *(spread([getattr(c, what) for c in found.values[key]]) for what in ("wall_s", "processor_s")),
            spread([c.peak_mb for c in found.values[key]], 0),
        ]
        for key, (words, _) in ROWS.items()
    ]
    print_table(f"median by case, {samples:,} rows, {CASES} cases", ("", "s", "processor s", "peak MB"), rows)
    write_json(
        "read", {"rows_read": samples, "rows": {k: [vars(c) for c in v] for k, v in found.values.items()}}
    )


if __name__ == "__main__":
    main()
