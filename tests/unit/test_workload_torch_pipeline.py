"""torch.pipeline: the same bits on any number of stages and after a restart, and what is not restored shows."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import FakeContext, Plan, Report, fork_ranks, start_ranks  # noqa: E402

from harness.workloads.torch_pipeline import TorchPipeline, stages_of  # noqa: E402

PARAMS = {
    "layers": 3,
    "width": 32,
    "heads": 2,
    "sequence": 16,
    "batch": 4,
    "micro_batches": 4,  # sums of two have one order
    "vocabulary": 32,
    "learning_rate": 0.003,
}
STEPS, SAVED = 6, 3
PLAN = Plan("torch.pipeline", PARAMS, STEPS, 1)


def column(report: Report, name: str) -> list[Any]:
    return [row[name] for row in report.tables["steps"]]


def continues(whole: list[Report], restored: list[Report]) -> list[list[bool]]:
    """For each stage and each number of finished steps from SAVED: is the state the same?"""
    return [
        [w.digests[str(n)] == r.digests[str(n)] for n in range(SAVED, STEPS + 1)]
        for w, r in zip(whole, restored, strict=True)
    ]


def test_layers_are_split_without_gap_or_overlap() -> None:
    assert stages_of(3, 1) == [["embedding", "block-0", "block-1", "block-2", "head"]]
    assert stages_of(3, 2) == [["embedding", "block-0", "block-1"], ["block-2", "head"]]
    assert stages_of(1, 4) == [["embedding", "block-0"], [], [], ["head"]]
    for blocks in range(9):
        for stages in range(1, 12):
            joined = [name for stage in stages_of(blocks, stages) for name in stage]
            assert joined == ["embedding", *(f"block-{n}" for n in range(blocks)), "head"]


def test_any_number_of_stages_gives_the_bits_of_one(tmp_path: Path) -> None:
    """With five stages two have no block; one has nothing at all."""
    (alone,) = fork_ranks(PLAN, tmp_path / "1")
    assert alone.error == ""
    for stages in (2, 3, 6):
        reports = fork_ranks(replace(PLAN, world=stages), tmp_path / str(stages))
        assert [r.error for r in reports] == [""] * stages
        assert {tuple(column(r, "loss")) for r in reports} == {tuple(column(alone, "loss"))}
        assert {tuple(column(r, "batch_id")) for r in reports} == {tuple(column(alone, "batch_id"))}
        assert reports[0].results["model_digest"] == alone.results["model_digest"]
        assert {"params_digest", "final_loss"} <= set(reports[-1].results)
        tokens = PARAMS["batch"] * PARAMS["sequence"]
        assert [sum(column(r, "tokens")) for r in reports] == [0] * (stages - 1) + [STEPS * tokens]
        assert all(check["passed"] for r in reports for check in r.checks.values())
        assert "stages agree on the batch" in reports[-1].checks
    assert len(set(column(alone, "batch_id"))) == STEPS


def test_the_loss_falls(tmp_path: Path) -> None:
    reports = fork_ranks(replace(PLAN, world=2, steps=40), tmp_path)
    curve = column(reports[0], "loss")
    assert repr(curve[-1]) == reports[0].results["final_loss"]
    assert curve[-1] < 0.8 * curve[0]


@pytest.mark.parametrize(
    ("world", "run", "engine"),
    [(3, fork_ranks, "own"), (2, start_ranks, "own"), (2, fork_ranks, "dcp")],
    ids=["forked", "fresh", "dcp"],
)
def test_a_restored_run_equals_an_uninterrupted_one_bit_for_bit(
    world: int, run: Callable[..., list[Report]], engine: str, tmp_path: Path
) -> None:
    base = replace(PLAN, world=world, folder=str(tmp_path / "checkpoints"), engine=engine)
    whole = fork_ranks(base, tmp_path / "whole")
    broken = fork_ranks(replace(base, save_at=SAVED, stop_at=SAVED), tmp_path / "broken")
    restored = run(replace(base, first=SAVED), tmp_path / "restored")
    assert [""] * 3 * world == [r.error for r in (*whole, *broken, *restored)]
    assert [[True] * (STEPS - SAVED + 1)] * world == continues(whole, restored)
    for before, after, both in zip(broken, restored, whole, strict=True):
        for name in ("loss", "batch_id"):
            assert column(before, name) + column(after, name) == column(both, name)
        assert both.results == after.results
        assert all(check["passed"] for check in (*both.checks.values(), *after.checks.values()))


CONTROLS: dict[str, Callable[[TorchPipeline], None]] = {
    what: (lambda workload, what=what: workload.sabotage(what))  # type: ignore[misc]
    for what in TorchPipeline.controls
}


@pytest.mark.parametrize("control", TorchPipeline.controls)
def test_what_is_not_restored_shows_in_every_later_digest(control: str, tmp_path: Path) -> None:
    base = replace(PLAN, world=2, folder=str(tmp_path / "checkpoints"))
    whole = fork_ranks(replace(base, save_at=SAVED), tmp_path / "whole")
    restored = fork_ranks(replace(base, first=SAVED), tmp_path / "restored", CONTROLS[control])
    assert [r.error for r in (*whole, *restored)] == [""] * 4
    assert [[False] * (STEPS - SAVED + 1)] * 2 == continues(whole, restored)
    assert all(
        w.results["params_digest"] != r.results["params_digest"] for w, r in zip(whole, restored, strict=True)
    )
    assert all(r.checks["every batch once"]["passed"] == (control != "position") for r in restored)


def test_stages_that_work_on_two_batches_at_once_are_found(tmp_path: Path) -> None:
    """Only the last stage is a batch ahead: its targets are not those of the activations that it gets."""

    def ahead(workload: TorchPipeline) -> None:
        if workload.context.rank == 1:
            workload.position += 1

    first, last = fork_ranks(replace(PLAN, world=2), tmp_path, ahead)
    assert not last.checks["stages agree on the batch"]["passed"]
    assert last.checks["stages agree on the batch"]["observed"].startswith("step 0: targets of batch ")
    assert column(last, "batch_id")[:-1] == column(first, "batch_id")[1:]


def test_a_checkpoint_of_another_number_of_stages_is_refused(tmp_path: Path) -> None:
    base = replace(PLAN, folder=str(tmp_path / "checkpoints"))
    fork_ranks(replace(base, world=2, save_at=SAVED), tmp_path / "two")
    (report,) = fork_ranks(replace(base, first=SAVED), tmp_path / "one")
    assert "saved by 2 ranks, this world has 1" in report.error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "width = 32 is not a multiple of heads = 3"),
        ({"micro_batches": 3}, "batch = 4 is not a multiple of micro_batches = 3"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(change: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TorchPipeline().setup(FakeContext(0, 1, {**PARAMS, **change}, 1))


def test_an_unknown_control_is_refused_in_words() -> None:
    with pytest.raises(
        ValueError, match=r"'x' is no control of torch\.pipeline, allowed: random_state, position"
    ):
        TorchPipeline().sabotage("x")


def test_every_send_and_receive_is_counted(tmp_path: Path) -> None:
    """Two stages, four micro-batches: the batch's number, four forward, four backward, and the loss."""
    reports = fork_ranks(replace(PLAN, world=2), tmp_path)
    assert [r.context["collectives"] for r in reports] == [10 * STEPS] * 2
