"""mpi.collectives: right results are found right on real ranks, and wrong ones are found."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mpi4py")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import Plan, Report, start_each

from harness.workloads import OPERATIONS

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec (the extra `mpi`); `make setup` installs it"),
]
STEPS = 3
SIZES = [48, 1536, 65568]
BARRIER = "barrier: left before the last rank had come"


RIGHT = [(o, ("float32", "float64", "int32")[n % 3]) for n, o in enumerate(OPERATIONS) if o != "barrier"]
WRONG = [
    ("all-reduce", "one_rank_sends_anothers_part", 0),
    ("all-gather", "parts_swapped", 0),
    ("reduce-scatter", "one_rank_sends_anothers_part", 0),
    ("all-to-all", "parts_swapped", 0),
    ("broadcast", "one_rank_sends_anothers_part", 0),
    ("reduce", "last_part_dropped", 0),
    ("gather", "left_out", 0),
    ("scatter", "parts_swapped", 0),
    ("send-receive", "result_of_the_call_before", 0),
]


def plan(world: int, operation: str, change: str = "", **params: Any) -> Plan:
    given = {"operation": operation, "message_bytes": SIZES, "dtype": "float32", "peers": "ring", **params}
    return Plan("mpi.collectives", given, STEPS, world, change=change)


def run(out: Path, *plans: Plan) -> list[list[Report]]:
    """The reports of each plan's ranks, all in one start of MPI."""
    assert MPIEXEC is not None
    return start_each(plans, out, (MPIEXEC, "-n", str(plans[0].world)))


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Report]]:
    plans = [plan(3, operation, dtype=dtype) for operation, dtype in RIGHT]
    reports = run(tmp_path_factory.mktemp("right"), *plans)
    return dict(zip([operation for operation, _ in RIGHT], reports, strict=True))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Report]]:
    plans = [plan(2, operation, fault, message_bytes=[1024]) for operation, fault, _ in WRONG]
    reports = run(tmp_path_factory.mktemp("wrong"), *plans)
    return dict(zip([operation for operation, *_ in WRONG], reports, strict=True))


@pytest.mark.parametrize(("operation", "dtype"), RIGHT)
def test_right_results_pass_on_three_ranks(
    operation: str, dtype: str, right: dict[str, list[Report]]
) -> None:
    reports = right[operation]
    assert [""] * 3 == [r.error for r in reports]
    for rank, report in enumerate(reports):
        checked = rank == 0 or operation not in ("reduce", "gather")
        assert list(report.checks) == [f"{operation} of {s} bytes: wrong elements" for s in SIZES if checked]
        assert all(c["passed"] for c in report.checks.values())
        rows = [(row["step"], row["message_bytes"]) for row in report.tables["collectives"]]
        assert rows == [(step, size) for step in range(STEPS) for size in SIZES]
        assert all(row["elapsed_ns"] > 0 for row in report.tables["collectives"])


@pytest.mark.parametrize(("operation", "fault", "first"), WRONG)
def test_a_wrong_result_fails_its_check(
    operation: str, fault: str, first: int, wrong: dict[str, list[Report]]
) -> None:
    reports = wrong[operation]
    assert [r.error for r in reports] == ["", ""]
    failed = [c for r in reports for c in r.checks.values() if not c["passed"]]
    assert failed and all(c["detail"].startswith(f"first at step {first}, element ") for c in failed)


@pytest.mark.parametrize(("change", "passed"), [("", True), ("barrier_waits_for_nobody", False)])
def test_a_barrier_is_proved_by_one_that_comes_late(change: str, passed: bool, tmp_path: Path) -> None:
    (reports,) = run(tmp_path, plan(2, "barrier", change))
    assert passed == all(r.checks[BARRIER]["passed"] for r in reports if r.checks)


def test_pairs_exchange_across_half_the_world(tmp_path: Path) -> None:
    (reports,) = run(tmp_path, plan(4, "send-receive", peers="pairs"))
    assert {c["passed"] for r in reports for c in r.checks.values()} == {True}


def test_a_rank_alone_has_what_it_sent(tmp_path: Path) -> None:
    ((report,),) = run(tmp_path, plan(1, "all-to-all"))
    assert (report.error, {c["passed"] for c in report.checks.values()}) == ("", {True})
