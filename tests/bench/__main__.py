"""``python -m tests.bench``: the comparisons that need the emulated cluster, all on one. Each runs alone too."""

import time

from tests.bench import advance_cost, compare_planning, compare_submission, recovery
from tests.bench.bench_cluster import BenchCluster, alone
from tests.bench.settings import SETTINGS

PLANNING_SHARE = (
    0.15  # of the time; the rest, less what `advance` takes, is for the comparison of submissions
)


def _all(cluster: BenchCluster) -> None:
    begin, budget_s = time.monotonic(), 60 * SETTINGS.minutes
    compare_planning.main(cluster, PLANNING_SHARE * budget_s)
    advance_cost.main(cluster)
    compare_submission.main(cluster, budget_s - (time.monotonic() - begin))
    recovery.main(cluster, recovery.Options())  # has a time of its own


if __name__ == "__main__":
    alone(_all)
