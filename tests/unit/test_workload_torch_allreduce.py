"""The torch world, and torch.allreduce: right sums are found right, and wrong ones are found."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import ROOT, FakeContext, Plan, Report, fork_ranks  # noqa: E402

from harness.runtime import digest  # noqa: E402
from harness.workloads.torch_allreduce import EXACT, POSITIONS, WEIGHTS, TorchAllReduce  # noqa: E402

SIZES = [4, 1024, 65536]
STEPS = 4


def plan(world: int, **changes: Any) -> Plan:
    return replace(Plan("torch.allreduce", {"message_bytes": SIZES}, STEPS, world), **changes)


def name(size: int) -> str:
    return f"all-reduce of {size} bytes: wrong elements"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_right_sums_pass_and_all_ranks_hold_the_same_bits(world: int, tmp_path: Path) -> None:
    reports = fork_ranks(plan(world), tmp_path)
    assert [""] * world == [r.error for r in reports]
    for report in reports:
        assert report.checks == {
            name(size): {"passed": True, "expected": 0, "observed": 0,
                         "detail": f"{STEPS} steps of {size // 4} elements compared"}
            for size in SIZES
        }  # fmt: skip
        rows = report.tables["collectives"]
        coordinates = [(row["step"], row["message_bytes"]) for row in rows]
        assert [(step, size) for step in range(STEPS) for size in SIZES] == coordinates
        assert all(set(row) == set(TorchAllReduce.tables["collectives"]) for row in rows)
        assert all(row["elapsed_ns"] > 0 for row in rows)
    assert [f"digest_{size}" for size in SIZES] == list(reports[0].results)
    assert all(r.results == reports[0].results for r in reports)
    again = fork_ranks(plan(world), tmp_path / "again")
    assert again[0].results == reports[0].results
    other = fork_ranks(plan(world, seed=8), tmp_path / "other")
    assert other[0].results["digest_65536"] != reports[0].results["digest_65536"]


def leave_rank_out(real: Callable[..., Any], buffer: Any) -> None:
    if dist.get_rank() == 1:
        real(torch.zeros_like(buffer))
    else:
        real(buffer)


def count_rank_twice(real: Callable[..., Any], buffer: Any) -> None:
    real(buffer.mul_(2) if dist.get_rank() == 1 else buffer)


def lose_last_part(real: Callable[..., Any], buffer: Any) -> None:
    own = buffer[-1].clone()
    real(buffer)
    buffer[-1] = own


def swap_parts(real: Callable[..., Any], buffer: Any) -> None:
    real(buffer)
    half = buffer.numel() // 2
    buffer[:] = torch.cat((buffer[half:], buffer[:half]))


def repeat_rank_0(real: Callable[..., Any], buffer: Any) -> None:
    """Rank 1 sends what rank 0 should have sent."""
    source = buffer.clone()
    dist.broadcast(source, src=0)
    if dist.get_rank() == 1:
        buffer.copy_(source)
    real(buffer)


def not_a_number(real: Callable[..., Any], buffer: Any) -> None:
    real(buffer)
    buffer[3] = float("nan")


STALE: dict[int, Any] = {}


def result_of_the_step_before(real: Callable[..., Any], buffer: Any) -> None:
    real(buffer)
    STALE[buffer.numel()], before = buffer.clone(), STALE.get(buffer.numel(), buffer)
    buffer.copy_(before)


WRONG = {leave_rank_out: 0, count_rank_twice: 0, lose_last_part: 0, swap_parts: 0, repeat_rank_0: 0,
         not_a_number: 0, result_of_the_step_before: 1}  # fault -> first wrong step  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_result_fails_its_check_and_names_the_first_step(
    fault: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dist.all_reduce
    monkeypatch.setattr(dist, "all_reduce", lambda buffer: fault(real, buffer))
    reports = fork_ranks(plan(2, params={"message_bytes": [1024]}), tmp_path)
    assert [r.error for r in reports] == ["", ""]
    for report in reports:
        check = report.checks[name(1024)]
        assert (check["passed"], check["expected"], check["observed"] > 0) == (False, 0, True)
        assert check["detail"].startswith(f"first at step {WRONG[fault]}, element ")
        assert check["detail"].endswith("; 4 steps of 256 elements compared")
    if fault is lose_last_part:
        assert reports[0].checks[name(1024)]["observed"] == STEPS
        assert "element 255: " in reports[0].checks[name(1024)]["detail"]
    if fault is not_a_number:
        assert "element 3: expected " in reports[0].checks[name(1024)]["detail"]
        assert ", got nan; " in reports[0].checks[name(1024)]["detail"]


def test_no_step_gives_no_check_and_no_digest(tmp_path: Path) -> None:
    (report,) = fork_ranks(plan(1, steps=0), tmp_path)
    assert (report.error, report.checks, report.results) == ("", {}, {})


@pytest.mark.parametrize("size", [0, 6, -4])
def test_a_size_that_is_no_whole_number_of_elements_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"message_bytes\[1\] = {size} is not a "):
        TorchAllReduce().setup(FakeContext(0, 1, {"message_bytes": (4, size)}, 1))


def test_a_world_whose_sum_float32_cannot_hold_is_refused() -> None:
    most = (EXACT - 1) // (WEIGHTS * POSITIONS)
    with pytest.raises(ValueError, match=f"above {most} the sum is no longer exact"):
        TorchAllReduce().setup(FakeContext(0, most + 1, {"message_bytes": (4,)}, 1))


def test_neighbouring_ranks_differ_in_weight_and_positions_in_pattern() -> None:
    workload = TorchAllReduce()
    workload.context, workload.device = FakeContext(0, 300, {}, 1), torch.device("cpu")
    workload.hashes = {4096: torch.arange(1024, dtype=torch.int32) % POSITIONS}
    for step in range(50):
        pattern, weights = workload.pattern(step, 4096)
        assert set(range(1, POSITIONS + 1)) == set(pattern.tolist())
        assert all(len(set(weights[at : at + WEIGHTS])) == WEIGHTS for at in range(300 - WEIGHTS))


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
    def exchange(workload: TorchAllReduce) -> None:
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
        import harness.workloads.torch_allreduce, harness.workloads.torch_train, torch
        print(len(os.listdir("/proc/self/task")), torch.cuda.is_initialized())
        import sys
        print("torch._dynamo" in sys.modules)"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy's BLAS starts threads otherwise
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\nTrue\n"


def test_the_state_is_empty(tmp_path: Path) -> None:
    workload = TorchAllReduce()
    assert digest.of(None) == workload.state_digest()
