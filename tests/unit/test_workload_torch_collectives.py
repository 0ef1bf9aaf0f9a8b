"""The torch world, and torch.collectives: right results are found right, and wrong ones are found."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from collective_faults import FAULTS  # noqa: E402
from workload_driver import ROOT, FakeContext, Plan, Report, fork_ranks  # noqa: E402

from harness.runtime import digest  # noqa: E402
from harness.workloads import OPERATIONS  # noqa: E402
from harness.workloads.collectives import LATE_S  # noqa: E402
from harness.workloads.exchange import TYPES, Shape  # noqa: E402
from harness.workloads.torch_collectives import TorchCollectives  # noqa: E402

SIZES = [48, 1536, 65568]  # each of them divides by 2 and 3 ranks times 8 bytes
STEPS = 3
MOVING = [name for name in OPERATIONS if name != "barrier"]
ROOTED = ("reduce", "gather")
BARRIER = "barrier: left before the last rank had come"


def plan(world: int, operation: str = "all-reduce", **changes: Any) -> Plan:
    params = {"operation": operation, "message_bytes": SIZES, "dtype": "float32", "peers": "ring"}
    return Plan(
        "torch.collectives",
        {**params, **changes.pop("params", {})},
        changes.pop("steps", STEPS),
        world,
        **changes,
    )


def name(operation: str, size: int) -> str:
    return f"{operation} of {size} bytes: wrong elements"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("operation", MOVING)
def test_right_results_pass_on_three_ranks(operation: str, dtype: str, tmp_path: Path) -> None:
    reports = fork_ranks(plan(3, operation, params={"dtype": dtype}), tmp_path)
    assert [""] * 3 == [r.error for r in reports]
    for rank, report in enumerate(reports):
        checked = rank == 0 or operation not in ROOTED
        blocks = 3 if operation in ("reduce-scatter", "scatter") else 1
        assert report.checks == {
            name(operation, size): {"passed": True, "expected": 0, "observed": 0, "detail":
                    f"{STEPS} steps of {size // TYPES[dtype].item_bytes // blocks} elements compared"}
            for size in SIZES if checked
        }  # fmt: skip
        rows = report.tables["collectives"]
        coordinates = [(row["step"], row["message_bytes"]) for row in rows]
        assert [(step, size) for step in range(STEPS) for size in SIZES] == coordinates
        assert all(set(row) == set(TorchCollectives.tables["collectives"]) for row in rows)
        assert all(row["elapsed_ns"] > 0 for row in rows)
        assert [f"digest_{size}" for size in SIZES if checked] == list(report.results)


@pytest.mark.parametrize("operation", [o for o in MOVING if o != "send-receive"])
def test_a_rank_alone_has_what_it_sent(operation: str, tmp_path: Path) -> None:
    (report,) = fork_ranks(plan(1, operation), tmp_path)
    assert (report.error, {c["passed"] for c in report.checks.values()}) == ("", {True})


def test_all_ranks_hold_the_same_sum_and_a_seed_makes_it_again(tmp_path: Path) -> None:
    reports = fork_ranks(plan(3), tmp_path)
    assert all(r.results == reports[0].results for r in reports)
    assert fork_ranks(plan(3), tmp_path / "again")[0].results == reports[0].results
    other = fork_ranks(plan(3, seed=8), tmp_path / "other")[0].results
    assert all(other[key] != value for key, value in reports[0].results.items())


def test_pairs_exchange_across_half_the_world(tmp_path: Path) -> None:
    reports = fork_ranks(plan(4, "send-receive", params={"peers": "pairs"}), tmp_path)
    assert [""] * 4 == [r.error for r in reports]
    assert {c["passed"] for r in reports for c in r.checks.values()} == {True}
    ring = fork_ranks(plan(4, "send-receive"), tmp_path / "ring")
    assert [r.results["digest_48"] for r in ring] != [r.results["digest_48"] for r in reports]


WRONG = {
    "last_part_dropped": 0,
    "parts_swapped": 0,
    "one_rank_sends_anothers_part": 0,
    "left_out": 0,
    "result_of_the_call_before": 0,
    "not_a_number": 0,
}  # fault -> first wrong step


@pytest.mark.parametrize("operation", MOVING)
@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_result_fails_its_check_and_names_the_first_step(
    fault: str, operation: str, tmp_path: Path
) -> None:
    change = FAULTS[fault]
    reports = fork_ranks(plan(2, operation, params={"message_bytes": [1024]}), tmp_path, change)
    assert [r.error for r in reports] == ["", ""]
    failed = [c for r in reports for c in r.checks.values() if not c["passed"]]
    assert failed, "the fault went unseen"
    for check in failed:
        assert (check["expected"], check["observed"] > 0) == (0, True)
        assert check["detail"].startswith(f"first at step {WRONG[fault]}, element ")
        assert f"; {STEPS} steps of " in check["detail"]
    if fault == "last_part_dropped":
        assert {c["observed"] for c in failed} == {STEPS}
        assert ", got 0; " in failed[0]["detail"]
    if fault == "not_a_number":
        assert "element 3: expected " in failed[0]["detail"]
        assert ", got nan; " in failed[0]["detail"]
    if fault == "left_out" and operation != "broadcast":
        several = [r.checks for r in reports if r.checks]
        assert len(failed) == len(several)


def test_a_barrier_that_waits_is_found_right(tmp_path: Path) -> None:
    reports = fork_ranks(plan(3, "barrier", steps=6), tmp_path)
    assert [""] * 3 == [r.error for r in reports]
    details = [r.checks[BARRIER]["detail"] for r in reports]
    assert sum(int(d.split()[0]) for d in details) == 2 * 6
    assert all(d.endswith(f" barriers with a rank that came {LATE_S} s late") for d in details)
    assert {r.checks[BARRIER]["passed"] for r in reports} == {True}
    assert [(row["step"], row["message_bytes"]) for row in reports[0].tables["collectives"]] == [
        (step, 0) for step in range(6)
    ]


def test_a_barrier_that_waits_for_nobody_is_found_wrong(tmp_path: Path) -> None:
    reports = fork_ranks(plan(2, "barrier", steps=6), tmp_path, FAULTS["barrier_waits_for_nobody"])
    failed = [c for r in reports for c in r.checks.values() if not c["passed"]]
    assert failed  # a rank may be held up elsewhere for as long, when the machine is busy
    assert ", without rank " in failed[0]["detail"]


def test_what_the_back_end_lacks_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_: Any) -> None:
        raise RuntimeError("ProcessGroupGloo does not support alltoall")

    monkeypatch.setattr(dist, "all_to_all_single", lacks)
    (report,) = fork_ranks(plan(1, "all-to-all"), tmp_path)
    assert report.error == (
        "ValueError: operation = all-to-all, dtype = float32: the back end gloo of torch "
        f"{torch.__version__} does not do it (ProcessGroupGloo does not support alltoall); "
        "choose another operation, dtype or back end"
    )
    assert report.tables == {}


def test_no_step_gives_no_check_and_no_digest(tmp_path: Path) -> None:
    (report,) = fork_ranks(plan(1, steps=0), tmp_path)
    assert (report.error, report.checks, report.results) == ("", {}, {})


@pytest.mark.parametrize(
    ("operation", "size", "why"),
    [
        ("all-reduce", 0, r"is not a multiple of 4 \(4 bytes of float32\); 4 is"),
        ("all-reduce", 6, r"is not a multiple of 4 \(4 bytes of float32\); 4 is"),
        ("all-gather", 64, r"is not a multiple of 12 \(3 ranks x 4 bytes of float32\); 60 is"),
    ],
)
def test_a_size_that_is_no_whole_number_of_elements_is_refused(operation: str, size: int, why: str) -> None:
    params = {**plan(3, operation).params, "message_bytes": (48, size)}
    with pytest.raises(ValueError, match=rf"message_bytes\[1\] = {size} {why}"):
        TorchCollectives().setup(FakeContext(0, 3, params, 1))


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 17), ("float16", 136), ("float32", 1118481)])
def test_a_world_whose_sum_the_type_cannot_hold_is_refused(dtype: str, most: int) -> None:
    Shape("all-reduce", dtype, most)
    Shape("all-gather", dtype, most + 1)
    with pytest.raises(ValueError, match=f"above {most} ranks the sum is no longer exact; choose another"):
        Shape("all-reduce", dtype, most + 1)


@pytest.mark.parametrize(
    ("world", "peers", "why"), [(1, "ring", "needs two ranks"), (3, "pairs", "needs an even number of ranks")]
)
def test_send_and_receive_needs_somebody(world: int, peers: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Shape("send-receive", "float32", world, peers)


def test_a_world_of_another_size_is_refused(tmp_path: Path) -> None:
    """A rank of two is told WORLD_SIZE=1, as when each is started alone."""
    report = fork_ranks(plan(2), tmp_path, world_size=1)[0]
    assert report.error == (
        "WrongWorldSize: rank 0 of 2 was started, but torch.distributed says rank 0 of 1: "
        "check RANK and WORLD_SIZE in the environment (torch reads no SLURM_* variable)"
    )


def test_an_all_gather_that_misses_a_rank_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_rank_0(out: list[Any], own: Any) -> None:
        out[0].copy_(own)

    monkeypatch.setattr(dist, "all_gather", only_rank_0)
    report = fork_ranks(plan(2), tmp_path)[0]
    assert report.error == "WrongWorldSize: an all-gather of ranks in a world of 2 gave [0, -1]"


def test_gather_and_broadcast_carry_values_of_any_length(tmp_path: Path) -> None:
    def exchange(workload: TorchCollectives) -> None:
        rank = workload.context.rank
        value = {"rank": rank, "text": "é" * 1000 * rank, "none": None, "list": [1.5] * rank}
        workload.context.result("gathered", workload.gather(value))
        workload.context.result("broadcast", workload.broadcast({"text": "ü"} if rank == 0 else None))

    reports: list[Report] = fork_ranks(plan(3, steps=0), tmp_path, exchange)
    assert [r.error for r in reports] == [""] * 3
    expected = [{"rank": r, "text": "é" * 1000 * r, "none": None, "list": [1.5] * r} for r in range(3)]
    assert [expected, None, None] == [r.results["gathered"] for r in reports]
    assert [r.results["broadcast"] for r in reports] == [{"text": "ü"}] * 3


def test_importing_the_workloads_starts_no_thread_and_no_cuda() -> None:
    """A fork server imports them before it forks."""
    code = """if True:
        import os
        import harness.workloads.torch_collectives, harness.workloads.torch_train, torch
        print(len(os.listdir("/proc/self/task")), torch.cuda.is_initialized())
        import sys
        print("torch._dynamo" in sys.modules)"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy's BLAS starts threads otherwise
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\nTrue\n"


def test_the_state_is_empty() -> None:
    assert digest.of(None) == TorchCollectives().state_digest()
    with pytest.raises(ValueError, match="which have no state"):
        TorchCollectives().sabotage("position")
