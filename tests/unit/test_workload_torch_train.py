"""torch.train: a restored run equals an uninterrupted one bit for bit, and what is not restored shows."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import FakeContext, Plan, Report, fork_ranks, start_ranks  # noqa: E402

from harness.workloads import TIME_SPLIT  # noqa: E402
from harness.workloads.torch_train import TorchTrain  # noqa: E402

PARAMS = {
    "layers": 1,
    "width": 32,
    "heads": 2,
    "sequence": 16,
    "batch": 4,
    "vocabulary": 32,
    "learning_rate": 0.003,
    "batch_of": "rank",
    "data": "tokens",
    "image_pixels": 12,
    "patch_pixels": 4,
    "classes": 5,
}
IMAGES = {**PARAMS, "data": "images"}
STEPS, SAVED = 6, 3


def plan(folder: Path, world: int) -> Plan:
    return Plan("torch.train", PARAMS, STEPS, world, folder=str(folder / "checkpoints"))


def losses(report: Report) -> list[float]:
    return [row["loss"] for row in report.tables["steps"]]


def continues(whole: list[Report], restored: list[Report]) -> list[list[bool]]:
    """For each rank and each number of finished steps from SAVED: is the state the same?"""
    return [
        [w.digests[str(n)] == r.digests[str(n)] for n in range(SAVED, STEPS + 1)]
        for w, r in zip(whole, restored, strict=True)
    ]


FILES = {
    "own": ["manifest.json", "rank-0.pt", "rank-1.pt", "rank-2.pt", "shared.pt"],
    "torch.save": ["manifest.json", "rank-0.pt", "rank-1.pt", "shared.pt"],
    "dcp": [".metadata", "__0_0.distcp", "__1_0.distcp", "__2_0.distcp", "manifest.json"],
}


@pytest.mark.parametrize(
    ("world", "run", "engine", "params"),
    [
        (3, fork_ranks, "own", PARAMS),
        (2, start_ranks, "torch.save", PARAMS),
        (3, fork_ranks, "dcp", PARAMS),
        (3, fork_ranks, "own", IMAGES),
    ],
    ids=["forked", "fresh", "dcp", "images"],
)
def test_a_restored_run_equals_an_uninterrupted_one_bit_for_bit(
    world: int, run: Callable[..., list[Report]], engine: str, params: dict[str, Any], tmp_path: Path
) -> None:
    """Two ranks add a + b, whatever the order; three and more show whether the order is the same."""
    base = replace(plan(tmp_path, world), engine=engine, params=params)
    whole = fork_ranks(base, tmp_path / "whole")
    broken = fork_ranks(replace(base, save_at=SAVED, stop_at=SAVED), tmp_path / "broken")
    restored = run(replace(base, first=SAVED), tmp_path / "restored")
    assert [""] * 3 * world == [r.error for r in (*whole, *broken, *restored)]
    assert [FILES[engine]] * world == [r.files for r in broken]
    assert [r.digests[str(SAVED)] for r in broken] == [r.restored["digest"] for r in restored]
    assert [[True] * (STEPS - SAVED + 1)] * world == continues(whole, restored)
    for before, after, both in zip(broken, restored, whole, strict=True):
        assert losses(before) + losses(after) == losses(both)
        assert both.results == after.results
        assert set(both.results) == {"params_digest", "final_loss"}
        assert all(check["passed"] for check in (*both.checks.values(), *after.checks.values()))
        detail = f"{STEPS - SAVED} batches consumed by this process, from position {SAVED}"
        assert detail == after.checks["every batch once"]["detail"]
    assert len({r.results["params_digest"] for r in whole}) == 1
    assert (
        len({r.digests[str(STEPS)] for r in whole}) == world
    )  # random state and position are each rank's own


@pytest.fixture(scope="module")
def broken_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, list[Report]]:
    """An uninterrupted run of two ranks that left checkpoints of SAVED - 1 and SAVED steps behind."""
    folder = tmp_path_factory.mktemp("train")
    base = plan(folder, 2)
    whole = fork_ranks(replace(base, save_at=SAVED), folder / "whole")
    fork_ranks(replace(base, save_at=SAVED - 1, stop_at=SAVED - 1), folder / "before")
    assert [r.error for r in whole] == ["", ""]
    return base, whole


def random_state_not_restored(workload: TorchTrain) -> None:
    torch.manual_seed(1)


def stale_optimizer(workload: TorchTrain) -> None:
    """The optimizer of the checkpoint before."""
    model = Path(FOLDER[0], f"step-{SAVED - 1:08d}.0.0", "shared.pt")
    workload.optimizer.load_state_dict(torch.load(model, weights_only=True)["optimizer"])


def stale_parameters(workload: TorchTrain) -> None:
    model = Path(FOLDER[0], f"step-{SAVED - 1:08d}.0.0", "shared.pt")
    workload.model.load_state_dict(torch.load(model, weights_only=True)["model"])


def data_position_off_by_one(workload: TorchTrain) -> None:
    workload.position += 1


FOLDER: list[str] = []


@pytest.mark.parametrize(
    "control", [None, random_state_not_restored, stale_optimizer, stale_parameters, data_position_off_by_one]
)
def test_what_is_not_restored_shows_in_every_later_digest(
    control: Callable[[Any], None] | None, broken_run: tuple[Plan, list[Report]], tmp_path: Path
) -> None:
    """A negative control; without one (None) everything agrees."""
    base, whole = broken_run
    FOLDER[:] = [base.folder]
    restored = fork_ranks(replace(base, first=SAVED), tmp_path, control)
    assert [r.error for r in restored] == ["", ""]
    assert [[control is None] * (STEPS - SAVED + 1)] * 2 == continues(whole, restored)
    for w, r in zip(whole, restored, strict=True):
        assert (control is None) == (w.results["params_digest"] == r.results["params_digest"])
        expected = {"every batch once": control is not data_position_off_by_one}
        assert expected["every batch once"] == r.checks["every batch once"]["passed"]
        if control is data_position_off_by_one:
            assert f"step {SAVED} consumed batch {SAVED + 1}" == r.checks["every batch once"]["observed"]


def test_without_the_rehearsal_three_ranks_do_not_repeat_their_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why there is one: if torch no longer arranges buckets anew, this fails and the rehearsal can go."""
    monkeypatch.setattr(TorchTrain, "rehearse", lambda self: None)
    base = plan(tmp_path, 3)
    whole = fork_ranks(replace(base, save_at=SAVED), tmp_path / "whole")
    restored = fork_ranks(replace(base, first=SAVED), tmp_path / "restored")
    assert continues(whole, restored) == [[True] + [False] * (STEPS - SAVED)] * 3


def test_parameters_that_drift_apart_fail_their_check(tmp_path: Path) -> None:
    def drift(workload: TorchTrain) -> None:
        if workload.context.rank == 1:
            with torch.no_grad():
                next(workload.model.parameters()).view(-1)[0] += 1e-6

    reports = fork_ranks(plan(tmp_path, 2), tmp_path / "out", drift)
    check = reports[0].checks["parameters equal on all ranks"]
    assert (check["passed"], check["detail"]) == (False, "ranks that differ from rank 0: [1]")
    assert [r.results["params_digest"] for r in reports] == [check["expected"], check["observed"]]
    assert "parameters equal on all ranks" not in reports[1].checks


@pytest.mark.parametrize(("params", "tokens", "images"), [(PARAMS, 4 * 16, 0), (IMAGES, 4 * 9, 4)])
def test_the_loss_is_a_mean_over_ranks_and_falls(
    params: dict[str, Any], tokens: int, images: int, tmp_path: Path
) -> None:
    reports = fork_ranks(replace(plan(tmp_path, 2), steps=60, params=params), tmp_path / "out")
    curve = losses(reports[0])
    assert curve == losses(reports[1])
    assert repr(curve[-1]) == reports[0].results["final_loss"]
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])
    rows = [row for report in reports for row in report.tables["steps"]]
    assert {(tokens, images)} == {(row["tokens"], row["images"]) for row in rows}


def test_a_steps_time_is_told_apart_and_who_comes_late_does_not_wait(tmp_path: Path) -> None:
    """Rank 1 computes 50 ms longer in each step, so rank 0 waits for it. In the median: the machine is shared."""

    def slow(workload: TorchTrain) -> None:
        def late(batch: Any) -> Any:
            time.sleep(0.05 * workload.context.rank)
            return real(batch)

        real, workload.loss_of = workload.loss_of, late

    reports = fork_ranks(replace(plan(tmp_path, 2), steps=15), tmp_path / "out", slow)
    assert [r.error for r in reports] == ["", ""]
    rows = [row for r in reports for row in r.tables["steps"]]
    told = [row["compute_ns"] + row["communication_ns"] + row["waiting_ns"] for row in rows]
    assert all(0 <= row["step_time_ns"] - sum_ns for row, sum_ns in zip(rows, told, strict=True))
    assert statistics.median(s / row["step_time_ns"] for row, s in zip(rows, told, strict=True)) > 0.95
    median = [
        {c: statistics.median(row[c] for row in r.tables["steps"]) for c in TIME_SPLIT} for r in reports
    ]
    assert median[0]["waiting_ns"] > 20_000_000 and median[1]["waiting_ns"] == 0
    assert median[1]["compute_ns"] > 50_000_000
    assert all(0 < m["communication_ns"] < 20_000_000 for m in median)


def test_a_checkpoint_is_not_read_by_another_world(
    broken_run: tuple[Plan, list[Report]], tmp_path: Path
) -> None:
    base, _ = broken_run
    (alone,) = fork_ranks(replace(base, world=1, first=SAVED), tmp_path / "alone")
    assert (
        "saved by 2 ranks, this world has 1, and this workload's state cannot be divided anew: restore as many"
        in alone.error
    )


def test_a_checkpoint_holds_only_tensors_and_plain_values(broken_run: tuple[Plan, list[Report]]) -> None:
    folder = Path(broken_run[0].folder, f"step-{SAVED:08d}.0.0")
    own = torch.load(folder / "rank-1.pt", weights_only=True)
    assert {k: own[k] for k in ("rank", "world", "position")} == {"rank": 1, "world": 2, "position": SAVED}
    assert {"model", "optimizer"} == set(torch.load(folder / "shared.pt", weights_only=True))


@pytest.mark.parametrize(
    ("of_images", "shapes"), [(False, [(4, 17)]), (True, [(4, 3, 12, 12), (4,)])], ids=["tokens", "images"]
)
def test_a_batch_depends_on_seed_rank_and_position_alone(of_images: bool, shapes: Any) -> None:
    def batch(seed: int, rank: int, position: int) -> list[Any]:
        workload = TorchTrain()
        workload.context = FakeContext(rank, 4, PARAMS, 1, seed=seed)
        workload.batch, workload.sequence, workload.vocabulary = 4, 16, 32
        workload.pixels, workload.classes, workload.of_images = 12, 5, of_images
        workload.device = torch.device("cpu")
        content = workload.batch_at(position)
        assert [tuple(part.shape) for part in content] == shapes
        return [part.tolist() for part in content]

    places = [(7, 0, 0), (7, 1, 0), (7, 0, 1), (8, 0, 0)]
    first = [batch(*place) for place in places]
    torch.manual_seed(0)  # the global random state plays no part
    assert first == [batch(*place) for place in places]
    assert all(first[a] != first[b] for a in range(4) for b in range(a))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width = 32 is not a multiple of heads = 3"):
        TorchTrain().setup(FakeContext(0, 1, {**PARAMS, "heads": 3}, 1))


def test_a_batch_of_the_world_is_shared_out(tmp_path: Path) -> None:
    params = {**PARAMS, "batch": 6, "batch_of": "world"}
    reports = fork_ranks(replace(plan(tmp_path, 3), params=params, steps=2), tmp_path / "out")
    assert [[row["tokens"] for row in r.tables["steps"]] for r in reports] == [[2 * 16] * 2] * 3
    with pytest.raises(
        ValueError, match="batch = 6 of the world is no multiple of 4 ranks; change it, or say"
    ):
        TorchTrain().setup(FakeContext(0, 4, params, 1))


def test_patches_that_do_not_divide_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="image_pixels = 12 is not a multiple of patch_pixels = 5"):
        TorchTrain().setup(FakeContext(0, 1, {**IMAGES, "patch_pixels": 5}, 1))


@pytest.mark.parametrize("what", TorchTrain.controls)
def test_a_negative_control_shows_in_the_answer(
    what: str, broken_run: tuple[Plan, list[Report]], tmp_path: Path
) -> None:
    base, whole = broken_run
    restored = fork_ranks(replace(base, first=SAVED), tmp_path, lambda workload: workload.sabotage(what))
    assert [r.error for r in restored] == ["", ""]
    assert [[False] * (STEPS - SAVED + 1)] * 2 == continues(whole, restored)
    assert [
        w.results["params_digest"] == r.results["params_digest"] for w, r in zip(whole, restored, strict=True)
    ] == [
        False,
        False,
    ]


def test_a_batch_has_a_number_of_its_content_on_each_rank_and_at_each_step(
    broken_run: tuple[Plan, list[Report]], tmp_path: Path
) -> None:
    """Also when its position is off: what counts is what was consumed."""
    base, whole = broken_run
    numbers = [[row["batch_id"] for row in r.tables["steps"]] for r in whole]
    assert len({n for column in numbers for n in column}) == 2 * STEPS
    assert all(0 <= n < 1 << 63 for column in numbers for n in column)
    ahead = fork_ranks(replace(base, first=SAVED), tmp_path, lambda workload: workload.sabotage("position"))
    shifted = [[row["batch_id"] for row in r.tables["steps"]] for r in ahead]
    assert [column[:-1] for column in shifted] == [column[SAVED + 1 :] for column in numbers]
