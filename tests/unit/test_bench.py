"""The parts of the bench that decide what a figure is: what is counted, what is measured again, what is printed."""

from __future__ import annotations

import pytest

from tests.bench import scheduler_calls
from tests.bench.bench_cluster import BenchError
from tests.bench.rounds import fits, in_rounds
from tests.bench.scheduler_calls import Calls
from tests.bench.table import spread

SDIAG = """\
*******************************************************
sdiag output at Sun Nov 22 06:07:43 2026 (1795327663)
Data since      Sun Nov 22 06:07:31 2026 (1795327651)
*******************************************************
Jobs submitted: 21

Remote Procedure Call statistics by message type
\tREQUEST_HET_JOB_ALLOC_INFO              ( 4027) count:21     ave_time:335    total_time:7039
\tREQUEST_JOB_STEP_CREATE                 ( 5001) count:21     ave_time:868    total_time:18246
\tREQUEST_STEP_COMPLETE                   ( 5016) count:21     ave_time:778    total_time:16350
\tREQUEST_SUBMIT_BATCH_JOB                ( 4003) count:2      ave_time:1664   total_time:1664
\tREQUEST_FED_INFO                        ( 2049) count:1      ave_time:386    total_time:386

Remote Procedure Call statistics by user
\talice           (   61000) count:47     ave_time:626    total_time:26949
\troot            (       0) count:23     ave_time:771    total_time:17751

Pending RPC statistics
\tNo pending RPCs
"""
STATS = """\
Remote Procedure Call statistics by message type
\tDBD_FINI                 ( 1401) count:8      ave_time:908    total_time:7266
\tDBD_GET_JOBS_COND        ( 1444) count:6      ave_time:1269   total_time:7614

Remote Procedure Call statistics by user
\talice               (     61000) count:18     ave_time:926    total_time:16681
"""


class _Daemons:
    """Answers as the cluster's administrator gets them."""

    def __init__(self, sdiag: str) -> None:
        self.sdiag = sdiag

    def as_root(self, argv: list[str]) -> str:
        return self.sdiag if argv == ["sdiag"] else STATS


def test_calls_of_the_login_node_are_told_apart_from_those_of_the_jobs() -> None:
    since = "Sun Nov 22 06:07:31 2026 (1795327651)"
    counted = scheduler_calls.count(_Daemons(SDIAG), since)  # type: ignore[arg-type]
    assert (counted.submissions, counted.questions, counted.accounts, counted.of_jobs) == (2, 3, 6, 42)
    assert counted.of_login == 11
    assert isinstance(counted, Calls) and counted.by_type["REQUEST_STEP_COMPLETE"] == 21


def test_counters_that_began_anew_are_no_figure() -> None:
    with pytest.raises(BenchError, match="began to count anew"):
        scheduler_calls.count(_Daemons(SDIAG), "Sat Nov 21 00:00:00 2026")  # type: ignore[arg-type]


def test_what_is_slow_is_repeated_only_when_what_is_quick_still_fits() -> None:
    wall_s, left = {"quick": 10.0, "slow": 100.0}, {"quick": 3, "slow": 4}
    assert [fits(wall_s, left, "slow", remaining_s) for remaining_s in (129.0, 130.0)] == [False, True]
    assert [fits(wall_s, left, "quick", remaining_s) for remaining_s in (9.0, 10.0)] == [False, True]


def test_rounds_begin_with_another_one_each_and_stay_within_the_budget() -> None:
    now = 0.0
    order: list[tuple[str, int]] = []

    def measure(key: str, number: int) -> str:
        nonlocal now
        now += {"quick": 1.0, "slow": 10.0, "broken": 1.0}[key]
        order.append((key, number))
        if key == "broken":
            raise BenchError("it broke\nin detail")
        return f"{key}{number}"

    found = in_rounds(
        ["quick", "slow", "broken", "absent"],
        measure,
        repeats=3,
        budget_s=24.0,
        impossible={"absent": "not installed"},
        clock=lambda: now,
    )
    assert order == [("quick", 0), ("slow", 0), ("broken", 0), ("slow", 1), ("quick", 1), ("quick", 2)]
    assert found.values == {
        "quick": ["quick0", "quick1", "quick2"],
        "slow": ["slow0", "slow1"],
        "broken": [],
        "absent": [],
    }
    assert (found.why_not, found.short) == ({"absent": "not installed", "broken": "it broke"}, True)


def test_a_spread_is_shown_where_there_is_one() -> None:
    assert [spread([3.0, 1.0, 2.0], 1), spread([4, 4, 4], 0), spread([])] == [
        "2.0 (1.0 to 3.0)",
        "4",
        "not measured",
    ]
