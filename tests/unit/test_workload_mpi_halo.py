"""The MPI world, and mpi.halo: the same bits on any number of ranks, and a wrong exchange is found."""

import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mpi4py")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import FakeContext, Plan, Report, start_ranks

from harness.workloads import TIME_SPLIT, mpi_halo

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
needs_mpi = [
    pytest.mark.mpi,
    pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec (the extra `mpi`); `make setup` installs it"),
]
ROWS, COLUMNS, STEPS, SAVED = 37, 53, 8, 5
PLAN = Plan("mpi.halo", {"rows": ROWS, "columns": COLUMNS}, STEPS, 1)
RESIDUAL, GRID = "residual equals a single-rank run's", "grid equals a single-rank run's"


def start(plan: Plan, out: Path) -> list[Report]:
    assert MPIEXEC is not None
    return start_ranks(plan, out, (MPIEXEC, "-n", str(plan.world)))


def alone() -> dict[str, str]:
    """The results of a run on one rank, without MPI."""
    residuals, grid = mpi_halo.serial(PLAN.seed, ROWS, COLUMNS, STEPS)
    digest = mpi_halo.digest.of(mpi_halo.row_digests(grid[1:-1]))
    return {"residual": repr(residuals[-1]), "grid_digest": digest}


@pytest.mark.parametrize("world", [pytest.param(n, marks=needs_mpi) for n in (1, 2, 3, 4)])
def test_residual_and_grid_have_the_same_bits_on_any_number_of_ranks(world: int, tmp_path: Path) -> None:
    reports = start(replace(PLAN, world=world), tmp_path)
    assert [""] * world == [r.error for r in reports]
    assert [alone()] + [{}] * (world - 1) == [r.results for r in reports]
    assert {name: c["passed"] for name, c in reports[0].checks.items()} == {RESIDUAL: True, GRID: True}
    assert f"{STEPS} of {STEPS} steps compared, {STEPS} sweeps done" == reports[0].checks[RESIDUAL]["detail"]
    assert all(not r.checks for r in reports[1:])
    residuals = [[row["residual"] for row in r.tables["steps"]] for r in reports]
    assert [mpi_halo.serial(PLAN.seed, ROWS, COLUMNS, STEPS)[0]] * world == residuals
    for rows in zip(*(r.tables["steps"] for r in reports), strict=True):
        assert sum(row["cell_updates"] for row in rows) == ROWS * COLUMNS
        assert all(row["compute_ns"] > 0 and row["communication_ns"] > 0 for row in rows)
        assert min(row["waiting_ns"] for row in rows) == 0
        told = [row["compute_ns"] + row["communication_ns"] + row["waiting_ns"] for row in rows]
        assert all(0 <= row["step_time_ns"] - t for row, t in zip(rows, told, strict=True))


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
def test_who_computes_longer_does_not_wait_and_the_other_does(world: int, tmp_path: Path) -> None:
    """Rank 1 sweeps 30 ms longer in each step."""
    reports = start(replace(PLAN, world=world, change="slow_on_rank_1"), tmp_path)
    first, second = (
        {c: statistics.median(row[c] for row in r.tables["steps"]) for c in TIME_SPLIT} for r in reports
    )
    assert (first["waiting_ns"] > 15_000_000, second["waiting_ns"]) == (True, 0)
    assert second["compute_ns"] > 30_000_000 and 0 < first["communication_ns"] < 15_000_000


@pytest.mark.parametrize("world", [pytest.param(3, marks=needs_mpi)])
def test_a_restored_run_equals_an_uninterrupted_one_bit_for_bit(world: int, tmp_path: Path) -> None:
    plan = replace(PLAN, world=world, folder=str(tmp_path / "checkpoints"))
    whole = start(replace(plan, save_at=SAVED), tmp_path / "whole")
    restored = start(replace(plan, first=SAVED), tmp_path / "restored")
    assert [""] * 2 * world == [r.error for r in (*whole, *restored)]
    assert [["manifest.json"] + [f"rank-{n}.npy" for n in range(world)]] * world == [r.files for r in whole]
    for w, r in zip(whole, restored, strict=True):
        later = [str(n) for n in range(SAVED, STEPS + 1)]
        assert [w.digests[n] for n in later] == [r.digests[n] for n in later]
        assert (w.results, w.checks) == (r.results, r.checks)
    behind = start(replace(plan, first=SAVED, change="lose_a_sweep"), tmp_path / "behind")
    assert not behind[0].checks[RESIDUAL]["passed"]


@pytest.mark.parametrize(
    ("saved", "world"), [pytest.param(*n, marks=needs_mpi) for n in ((3, 2), (2, 4), (4, 1))]
)
def test_another_number_of_ranks_goes_on_with_the_same_bits(saved: int, world: int, tmp_path: Path) -> None:
    plan = replace(PLAN, folder=str(tmp_path / "checkpoints"))
    whole = start(replace(plan, world=saved, save_at=SAVED), tmp_path / "whole")
    restored = start(replace(plan, world=world, first=SAVED), tmp_path / "restored")
    assert [""] * (saved + world) == [r.error for r in (*whole, *restored)]
    assert [(saved, True)] * world == [
        (r.restored["world"], r.restored["digest"] == r.restored["committed_digest"]) for r in restored
    ]
    assert (whole[0].results, whole[0].checks[GRID]) == (restored[0].results, restored[0].checks[GRID])
    assert restored[0].checks[RESIDUAL]["passed"]
    residuals = [[row["residual"] for row in r.tables["steps"]] for r in restored]
    assert [mpi_halo.serial(PLAN.seed, ROWS, COLUMNS, STEPS)[0][SAVED:]] * world == residuals


@pytest.mark.parametrize("world", [pytest.param(1, marks=needs_mpi)])
def test_another_engine_than_its_own_is_refused(world: int, tmp_path: Path) -> None:
    (report,) = start(replace(PLAN, folder=str(tmp_path / "c"), save_at=SAVED, engine="dcp"), tmp_path)
    assert report.error == "ValueError: checkpoint engine 'dcp': mpi.halo has only its own; say engine: own"


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
def test_a_grid_that_is_one_sweep_off_after_a_restore_shows_in_state_and_answer(
    world: int, tmp_path: Path
) -> None:
    """The negative control: only the grid is off, its count is right."""
    plan = replace(PLAN, world=world, folder=str(tmp_path / "checkpoints"))
    whole = start(replace(plan, save_at=SAVED), tmp_path / "whole")
    restored = start(replace(plan, first=SAVED, change="sabotage_position"), tmp_path / "restored")
    assert [r.error for r in (*whole, *restored)] == [""] * 2 * world
    for w, r in zip(whole, restored, strict=True):
        assert [n for n in range(SAVED, STEPS + 1) if w.digests[str(n)] == r.digests[str(n)]] == []
    assert {name: c["passed"] for name, c in restored[0].checks.items()} == {RESIDUAL: False, GRID: False}
    assert f"{STEPS} of {STEPS} steps compared, {STEPS} sweeps done" in restored[0].checks[RESIDUAL]["detail"]


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
def test_halos_that_are_not_exchanged_fail_both_checks(world: int, tmp_path: Path) -> None:
    reports = start(replace(PLAN, world=world, change="skip_exchange"), tmp_path)
    assert {name: c["passed"] for name, c in reports[0].checks.items()} == {RESIDUAL: False, GRID: False}
    assert "; first difference at step 1: expected " in reports[0].checks[RESIDUAL]["detail"]


@pytest.mark.parametrize("started", [pytest.param(2, marks=needs_mpi)])
def test_ranks_that_are_each_alone_in_a_world_are_refused(started: int, tmp_path: Path) -> None:
    """What ``srun`` does with a plug-in that the MPI library does not speak: N singletons."""
    reports = start_ranks(replace(PLAN, world=started), tmp_path)
    for rank in range(started):
        assert reports[rank].error.startswith(
            f"WrongWorldSize: {started} ranks were started, but MPI made {started} worlds of one of them: "
            "check the --mpi= plug-in of srun (`srun --mpi=list` names them) and the MPI library ("
        )


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
def test_a_rank_that_raises_ends_and_does_not_wait_for_the_others(world: int, tmp_path: Path) -> None:
    started_s = time.monotonic()
    reports = start(replace(PLAN, world=world, change="fail_on_rank_1"), tmp_path)
    assert reports[1].error == "RuntimeError: rank 1 fails on purpose"
    assert time.monotonic() - started_s < 20


def test_one_sweep_is_the_mean_of_four_neighbours() -> None:
    """Against the formula, cell by cell in plain Python."""
    old = mpi_halo.noise(3, 0, 6, 7)
    new = old.copy()
    sums = mpi_halo.sweep(old, new)
    expected = old.copy()
    for i in range(1, 5):
        for j in range(1, 6):
            expected[i, j] = ((old[i - 1, j] + old[i + 1, j]) + (old[i, j - 1] + old[i, j + 1])) * 0.25
    assert np.array_equal(expected, new)
    np.testing.assert_allclose(((expected - old) ** 2).sum(axis=1)[1:-1], sums, rtol=1e-15)


def test_sweeps_approach_the_solution_of_laplaces_equation() -> None:
    """x*x - y*y is harmonic, and the five-point formula is exact for it."""
    y, x = np.mgrid[0:9, 0:9].astype(np.float64)
    exact = x * x - y * y
    old = exact.copy()
    old[1:-1, 1:-1] = 0
    new = old.copy()
    for _ in range(600):
        last = mpi_halo.residual(mpi_halo.sweep(old, new))
        old, new = new, old
    assert last < 1e-12
    np.testing.assert_allclose(exact, old, atol=1e-11)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 3), (64, 9000), (200, 513), (9, 20000)])
def test_a_rows_sum_has_the_same_bits_in_any_block_of_rows(rows: int, columns: int) -> None:
    old = mpi_halo.noise(5, 0, rows + 2, columns + 2)
    whole = mpi_halo.sweep(old, old.copy())
    for world in {1, 2, 3, rows // 2 or 1, rows}:
        parts = []
        for rank in range(min(world, rows)):
            first, count = mpi_halo.split(rows, min(world, rows), rank)
            block = old[first : first + count + 2].copy()
            parts.append(mpi_halo.sweep(block, block.copy()))
        assert np.array_equal(whole, np.concatenate(parts))


def test_rows_are_split_without_gap_or_overlap() -> None:
    for rows in range(1, 40):
        for world in range(1, rows + 1):
            parts = [mpi_halo.split(rows, world, rank) for rank in range(world)]
            covered = [row for first, count in parts for row in range(first, first + count)]
            assert list(range(rows)) == covered
            assert max(c for _, c in parts) - min(c for _, c in parts) <= 1


def test_noise_is_the_same_wherever_a_row_is_made_and_fills_the_unit_interval() -> None:
    whole = mpi_halo.noise(7, 0, 100, 80)
    assert np.array_equal(whole[37:61], mpi_halo.noise(7, 37, 24, 80))
    assert not np.array_equal(whole, mpi_halo.noise(8, 0, 100, 80))
    assert (whole >= 0).all() and (whole < 1).all()
    assert len(np.unique(whole)) == whole.size
    assert abs(whole.mean() - 0.5) < 0.02 and abs(whole.var() - 1 / 12) < 0.005


def test_a_serial_run_that_costs_too_much_is_cut_short_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge() -> FakeContext:
        context = FakeContext(0, 1, PLAN.params, STEPS)
        workload = mpi_halo.MpiHalo()
        workload.context, workload.rows, workload.columns = context, ROWS, COLUMNS
        workload.residuals = mpi_halo.serial(PLAN.seed, ROWS, COLUMNS, STEPS)[0]
        workload.sweeps = workload.steps = STEPS
        workload._judge("digest of the grid")
        return context

    monkeypatch.setattr(mpi_halo, "SERIAL_UPDATES", 3 * ROWS * COLUMNS)
    checks = judge().checks
    assert {RESIDUAL} == set(checks)
    assert (True, f"3 of {STEPS} steps compared, {STEPS} sweeps done") == (
        checks[RESIDUAL]["passed"], checks[RESIDUAL]["detail"])  # fmt: skip
    monkeypatch.setattr(mpi_halo, "SERIAL_CELLS", 10)
    assert judge().checks == {}


def test_a_grid_with_fewer_rows_than_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="rows = 1, columns = 9: 2 ranks need a row each"):
        mpi_halo.MpiHalo().setup(FakeContext(0, 2, {"rows": 1, "columns": 9}, 1))


def test_importing_the_workload_does_not_start_mpi() -> None:
    code = "import sys, harness.workloads.mpi_halo; print('mpi4py' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
