"""mpi.collectives: right results are found right on real ranks, and wrong ones are found."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mpi4py")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import Plan, Report, start_ranks

from harness.workloads import OPERATIONS

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec (the extra `mpi`); `make setup` installs it"),
]
STEPS = 3
SIZES = [48, 1536, 65568]
BARRIER = "barrier: left before the last rank had come"


def run(world: int, operation: str, out: Path, change: str = "", **params: Any) -> list[Report]:
    assert MPIEXEC is not None
    given = {"operation": operation, "message_bytes": SIZES, "dtype": "float32", "peers": "ring", **params}
    plan = Plan("mpi.collectives", given, STEPS, world, change=change)
    return start_ranks(plan, out, (MPIEXEC, "-n", str(world)))


@pytest.mark.parametrize(
    ("operation", "dtype"),
    [(o, ("float32", "float64", "int32")[n % 3]) for n, o in enumerate(OPERATIONS) if o != "barrier"],
)
def test_right_results_pass_on_three_ranks(operation: str, dtype: str, tmp_path: Path) -> None:
    reports = run(3, operation, tmp_path, dtype=dtype)
    assert [""] * 3 == [r.error for r in reports]
    for rank, report in enumerate(reports):
        checked = rank == 0 or operation not in ("reduce", "gather")
        assert list(report.checks) == [f"{operation} of {s} bytes: wrong elements" for s in SIZES if checked]
        assert all(c["passed"] for c in report.checks.values())
        rows = [(row["step"], row["message_bytes"]) for row in report.tables["collectives"]]
        assert rows == [(step, size) for step in range(STEPS) for size in SIZES]
        assert all(row["elapsed_ns"] > 0 for row in report.tables["collectives"])


@pytest.mark.parametrize(
    ("operation", "fault", "first"),
    [
        ("all-reduce", "one_rank_sends_anothers_part", 0),
        ("all-gather", "parts_swapped", 0),
        ("reduce-scatter", "one_rank_sends_anothers_part", 0),
        ("all-to-all", "parts_swapped", 0),
        ("broadcast", "one_rank_sends_anothers_part", 0),
        ("reduce", "last_part_dropped", 0),
        ("gather", "left_out", 0),
        ("scatter", "parts_swapped", 0),
        ("send-receive", "result_of_the_call_before", 0),
    ],
)
def test_a_wrong_result_fails_its_check(operation: str, fault: str, first: int, tmp_path: Path) -> None:
    reports = run(2, operation, tmp_path, fault, message_bytes=[1024])
    assert [r.error for r in reports] == ["", ""]
    failed = [c for r in reports for c in r.checks.values() if not c["passed"]]
    assert failed and all(c["detail"].startswith(f"first at step {first}, element ") for c in failed)


@pytest.mark.parametrize(("change", "passed"), [("", True), ("barrier_waits_for_nobody", False)])
def test_a_barrier_is_proved_by_one_that_comes_late(change: str, passed: bool, tmp_path: Path) -> None:
    reports = run(2, "barrier", tmp_path, change)
    assert passed == all(r.checks[BARRIER]["passed"] for r in reports if r.checks)


def test_pairs_exchange_across_half_the_world(tmp_path: Path) -> None:
    reports = run(4, "send-receive", tmp_path, peers="pairs")
    assert {c["passed"] for r in reports for c in r.checks.values()} == {True}


def test_a_rank_alone_has_what_it_sent(tmp_path: Path) -> None:
    (report,) = run(1, "all-to-all", tmp_path)
    assert (report.error, {c["passed"] for c in report.checks.values()}) == ("", {True})
