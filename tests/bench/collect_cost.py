"""What `harness collect` costs: 10 million samples of 256 streams, beside `cp` of the same files.

    python -m tests.bench.collect_cost

Every row is a process of its own, start of Python included, in rounds; files are in the page cache. `collect` reads
and checks every record, compresses, writes with checksums, syncs, reads all of it again to verify, and renames; `cp`
copies, and does not sync. The columns of a stream are step, start and duration of a step, as of `mpi.halo`.

COLLECT_SAMPLES (10000000), COLLECT_STREAMS (256), BENCH_REPEATS (5).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from harness.rundir import RunDir
from harness.store import Results
from tests.bench import big_run
from tests.bench.processes import Cost, cost, python
from tests.bench.rounds import Found, in_rounds
from tests.bench.settings import REPEATS
from tests.bench.table import print_table, spread, write_json

SAMPLES = int(os.environ.get("COLLECT_SAMPLES", "10000000"))
STREAMS = int(os.environ.get("COLLECT_STREAMS", "256"))
NODES = 4
BUDGET_S = 600.0
ROWS = {
    "collect": "harness collect",
    "again": "harness collect, again",
    "cp": "cp -r of the streams",
    "cp_sync": "cp -r, then sync of them",
}
_COLLECT = """
import sys
from harness.collect import collect
from harness.rundir import RunDir
collect(RunDir(sys.argv[1]))
"""


def measure(run: RunDir) -> Found[Cost]:
    """Each row in rounds."""
    copy = run.path.with_name("copy")

    def one(key: str, _: int) -> Cost:
        if key == "collect":
            run.results.unlink(missing_ok=True)
        if key in ("collect", "again"):
            return cost(python(_COLLECT, str(run.path)))
        shutil.rmtree(copy, ignore_errors=True)
        command = f"cp -r '{run.work}' '{copy}'"
        if key == "cp_sync":
            command += f" && find '{copy}' -type f -print0 | xargs -0 sync"
        return cost(["sh", "-c", command])

    return in_rounds(tuple(ROWS), one, repeats=REPEATS, budget_s=BUDGET_S, impossible={})


def main() -> None:
    """Make the run folder, measure, print."""
    with tempfile.TemporaryDirectory(prefix="collect-cost-") as folder:
        run = big_run.make(Path(folder, "run"), STREAMS // NODES, NODES, SAMPLES // STREAMS)
        megabytes = sum(p.stat().st_size for p in run.work.rglob("*.stream")) / 1e6
        found = measure(run)
        with Results(run.results) as results:
            samples = results.length("mpi.halo", "steps")
            bad = [row for row in results.rows("streams") if row["status"] != "complete"]
        size_mb = run.results.stat().st_size / 1e6
    rows = [
        [
            words,
            spread([c.wall_s for c in found.values[key]]),
            spread([c.processor_s for c in found.values[key]]),
            spread([megabytes / c.wall_s for c in found.values[key]], 0),
            spread([c.peak_mb for c in found.values[key]], 0),
        ]
        for key, words in ROWS.items()
    ]
    title = (
        f"{samples:,} samples, {STREAMS} streams, {megabytes:.0f} MB, to {size_mb:.0f} MB; "
        f"{len(bad)} streams not complete"
    )
    print_table(title, ("", "s", "processor s", "MB/s of streams", "peak MB"), rows)
    write_json(
        "collect",
        {
            "samples": samples,
            "streams": STREAMS,
            "stream_mb": megabytes,
            "results_mb": size_mb,
            "rows": {key: [vars(c) for c in costs] for key, costs in found.values.items()},
        },
    )


if __name__ == "__main__":
    main()
