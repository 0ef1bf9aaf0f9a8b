"""``python -m tests.bench``: every comparison, one after the other; those that need the emulated cluster share one.

Each also runs alone, ``python -m tests.bench.recovery`` for instance. What fails does not keep the others from running.
"""

import os
import subprocess
import sys
import time

from tests.bench import advance_cost, compare_planning, compare_submission, recovery
from tests.bench.bench_cluster import BenchCluster, alone
from tests.bench.settings import SETTINGS

# Those that need no cluster, each a process of its own, so that one's memory is not the next one's.
WITHOUT_CLUSTER = (
    "recorder_cost", "collect_cost", "read_cost", "compare_cost", "report_cost", "overhead", "truth", "power",
    "checkpoint_cost",
)  # fmt: skip
PLANNING_SHARE = (
    0.15  # of the time; the rest, less what `advance` takes, is for the comparison of submissions
)


def _without_cluster() -> list[str]:
    """Run them; returns those that did not end well."""
    failed = []
    for name in WITHOUT_CLUSTER:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False).returncode:
            failed.append(name)
    return failed


def _with_cluster(cluster: BenchCluster) -> None:
    begin, budget_s = time.monotonic(), 60 * SETTINGS.minutes
    compare_planning.main(cluster, PLANNING_SHARE * budget_s)
    advance_cost.main(cluster)
    compare_submission.main(cluster, budget_s - (time.monotonic() - begin))
    recovery.main(cluster, recovery.Options())  # has a time of its own


if __name__ == "__main__":
    failed = _without_cluster()
    if os.geteuid() == 0:
        alone(_with_cluster)
    else:
        print("\nWhat needs the emulated cluster needs root, and was not run.")
    if failed:
        sys.exit(f"did not end well, or missed a limit of their own: {', '.join(failed)}")
