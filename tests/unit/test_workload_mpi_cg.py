"""mpi.cg: it solves, the same bits on any number of ranks, and what is wrong is found."""

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mpi4py")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import FakeContext, Plan, Report, start_ranks

from harness.workloads import cg_block, mpi_cg
from harness.workloads.cg_block import Problem, Solved
from harness.workloads.mpi_halo import split

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
needs_mpi = [
    pytest.mark.mpi,
    pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec (the extra `mpi`); `make setup` installs it"),
]
FLAT = {"rows": 13, "columns": 11, "planes": 1, "tolerance": 1e-6}
DEEP = {"rows": 7, "columns": 6, "planes": 5, "tolerance": 1e-6}
STEPS, SAVED = 60, 25
PLAN = Plan("mpi.cg", FLAT, STEPS, 1)
RESIDUAL, CELLS = "residual equals a single-rank run's", "cells equal a single-rank run's"
SOLUTIONS = "solutions agree with the true ones as theory says"


def start(plan: Plan, out: Path) -> list[Report]:
    assert MPIEXEC is not None
    return start_ranks(plan, out, (MPIEXEC, "-n", str(plan.world)))


def problem(params: dict[str, float]) -> Problem:
    return Problem(PLAN.seed, *(int(params[n]) for n in ("rows", "columns", "planes")), params["tolerance"])


def matrix(lengths: tuple[int, ...]) -> np.ndarray:
    """A, written out: Kronecker sums of the second difference."""
    whole = np.zeros((math.prod(lengths),) * 2)
    for axis in range(len(lengths)):
        one = np.ones((1, 1))
        for other, n in enumerate(lengths):
            line = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1) if other == axis else np.eye(n)
            one = np.kron(one, line)
        whole += one
    return whole


@pytest.mark.parametrize("params", [FLAT, DEEP], ids=["2d", "3d"])
def test_the_formula_is_the_matrix_and_its_condition_number_is_known(params: dict[str, float]) -> None:
    it = problem(params)
    framed = it.truth(0, 0, it.rows)
    written = matrix(it.lengths)
    np.testing.assert_allclose(
        written @ cg_block.inner(framed).ravel(), cg_block.applied(framed).ravel(), atol=1e-12
    )
    assert it.condition == pytest.approx(np.linalg.cond(written), rel=1e-9)


@pytest.mark.parametrize("params", [FLAT, DEEP, {**FLAT, "rows": 1, "columns": 1}], ids=["2d", "3d", "cell"])
def test_it_solves_one_right_hand_side_after_the_other(params: dict[str, float]) -> None:
    it = problem(params)
    residuals, block = cg_block.alone(it, STEPS)
    assert block.solve >= 1
    ends = [n for n, residual in enumerate(residuals) if residual <= it.tolerance]
    block = cg_block.alone(it, ends[0] + 1)[1]
    solution = np.linalg.solve(matrix(it.lengths), cg_block.applied(it.truth(0, 0, it.rows)).ravel())
    np.testing.assert_allclose(solution, block.x.ravel(), atol=1e-4)
    assert cg_block.wrong_with(it, block.look(), finished=True) == ""


def test_a_wrong_solution_contradicts_the_theory() -> None:
    it = problem(FLAT)
    right = Solved(40, 1e-7, 1e-6, 1e-6)
    assert cg_block.wrong_with(it, right, finished=True) == ""
    wrong = [replace(right, residual=3e-6), replace(right, error=1e-3), replace(right, energy=0.5)]
    found = [cg_block.wrong_with(it, one, finished=True) for one in wrong]
    assert [words.split(" = ")[0].split(" 0.")[0] for words in found] == [
        "|b - A x| / |b|", "|x - x*| / |x*|", "energy norm of the error"]  # fmt: skip


@pytest.mark.parametrize(("rows", "columns", "planes"), [(9, 5, 1), (8, 9000, 1), (12, 7, 5), (6, 40, 33)])
def test_truth_and_row_sums_have_the_same_bits_in_any_block_of_rows(
    rows: int, columns: int, planes: int
) -> None:
    it = Problem(3, rows, columns, planes, 1e-6)
    whole = it.truth(2, 0, rows)
    sums = cg_block.row_sums(cg_block.inner(whole), cg_block.applied(whole))
    for world in (2, 3, rows):
        parts = []
        for rank in range(world):
            first, count = split(rows, world, rank)
            block = it.truth(2, first, count)
            assert np.array_equal(whole[first : first + count + 2], block)
            parts.append(cg_block.row_sums(cg_block.inner(block), cg_block.applied(block)))
        assert np.array_equal(sums, np.concatenate(parts))


@pytest.mark.parametrize("params", [FLAT, DEEP], ids=["2d", "3d"])
@pytest.mark.parametrize("world", [pytest.param(n, marks=needs_mpi) for n in (1, 3, 4)])
def test_residual_and_cells_have_the_same_bits_on_any_number_of_ranks(
    world: int, params: dict[str, float], tmp_path: Path
) -> None:
    reports = start(replace(PLAN, world=world, params=params), tmp_path)
    assert [""] * world == [r.error for r in reports]
    assert {SOLUTIONS: True, RESIDUAL: True, CELLS: True} == {
        name: c["passed"] for name, c in reports[0].checks.items()
    }
    expected = cg_block.alone(problem(params), STEPS)[0]
    assert [[row["relative_residual"] for row in r.tables["steps"]] for r in reports] == [expected] * world
    for rows in zip(*(r.tables["steps"] for r in reports), strict=True):
        assert sum(row["cell_updates"] for row in rows) == problem(params).cells
        assert min(row["waiting_ns"] for row in rows) == 0
        assert all(row["compute_ns"] > 0 and row["communication_ns"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("saved", "world"), [pytest.param(*n, marks=needs_mpi) for n in ((3, 3), (3, 2), (2, 4))]
)
def test_a_restored_run_goes_on_with_the_same_bits(saved: int, world: int, tmp_path: Path) -> None:
    plan = replace(PLAN, folder=str(tmp_path / "checkpoints"))
    whole = start(replace(plan, world=saved, save_at=SAVED), tmp_path / "whole")
    restored = start(replace(plan, world=world, first=SAVED), tmp_path / "restored")
    assert [""] * (saved + world) == [r.error for r in (*whole, *restored)]
    assert {r.restored["digest"] == r.restored["committed_digest"] for r in restored} == {True}
    assert (whole[0].results, whole[0].checks) == (restored[0].results, restored[0].checks)
    if saved == world:
        later = [str(n) for n in range(SAVED, STEPS + 1)]
        for w, r in zip(whole, restored, strict=True):
            assert [w.digests[n] for n in later] == [r.digests[n] for n in later]


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
def test_a_control_shows_in_state_and_answer(world: int, tmp_path: Path) -> None:
    plan = replace(PLAN, world=world, folder=str(tmp_path / "checkpoints"))
    whole = start(replace(plan, save_at=SAVED), tmp_path / "whole")
    spoiled = start(replace(plan, first=SAVED, change="sabotage_position"), tmp_path / "spoiled")
    assert whole[0].digests[str(SAVED)] != spoiled[0].digests[str(SAVED)]
    assert not spoiled[0].checks[SOLUTIONS]["passed"]
    assert "|b - A x| / |b| = " in spoiled[0].checks[SOLUTIONS]["observed"]


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
def test_halos_that_are_not_exchanged_fail_every_check(world: int, tmp_path: Path) -> None:
    reports = start(replace(PLAN, world=world, change="skip_exchange"), tmp_path)
    assert {SOLUTIONS: False, RESIDUAL: False, CELLS: False} == {
        name: c["passed"] for name, c in reports[0].checks.items()
    }
    assert "; first difference at step 0: expected " in reports[0].checks[RESIDUAL]["detail"]


def test_a_grid_with_fewer_rows_than_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="rows = 1: 2 ranks need a row each"):
        mpi_cg.MpiCg().setup(FakeContext(0, 2, {**FLAT, "rows": 1}, 1))
