"""Conjugate gradients on a block of rows of Poisson's equation; no MPI here, so that one rank can do the same alone.

The matrix A is that of the 5-point formula in two dimensions (``planes`` = 1) and the 7-point formula in three, with
zeros outside of the grid; it is applied and never stored. The true solution x* is noise of each cell in
[-0.5, 0.5), a function of (seed, solve, cell), and the right-hand side is b = A x*. One iteration (Hestenes and
Stiefel 1952): q = A p; a = r.r / p.q; x += a p; r -= a q; p = r + (r.r new / r.r old) p. When |r| <= tolerance |b| the
solution is looked at, and the next iteration begins with another right-hand side: each iteration does the same work.

All has the same bits on any number of ranks: a row is never split, what is done to a cell and the sum over a row
are computed alike wherever it lies, and the rows' sums are added by ``math.fsum``, which rounds the exact sum once.

What must hold of a solution, with the condition number k of A, which is known: |x - x*| / |x*| <= k |b - A x| / |b|;
and after i iterations the error's energy norm is at most 2 ((sqrt k - 1) / (sqrt k + 1))^i of the first (in exact
arithmetic; Saad, Iterative Methods for Sparse Linear Systems, 6.11.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.runtime import digest
from harness.workloads.mpi_halo import noise

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Which equation, on which grid."""

    seed: int
    rows: int
    columns: int
    planes: int  # 1: two dimensions
    tolerance: float

    @property
    def cells(self) -> int:
        """Unknowns."""
        return self.rows * self.columns * self.planes

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the dimensions."""
        return (self.rows, self.columns) + ((self.planes,) if self.planes > 1 else ())

    @property
    def condition(self) -> float:
        """The largest eigenvalue of A over the smallest: 2 - 2 cos(i pi / (n + 1)), summed over dimensions."""
        low = sum(2 - 2 * math.cos(math.pi / (n + 1)) for n in self.lengths)
        return sum(2 - 2 * math.cos(n * math.pi / (n + 1)) for n in self.lengths) / low

    def truth(self, solve: int, first_row: int, rows: int) -> Grid:
        """x* of some rows, with a frame of one cell: the neighbouring rows, and zeros outside of the grid."""
        framed = np.zeros((rows + 2, *(n + 2 for n in self.lengths[1:])))
        begin, end = max(first_row - 1, 0), min(first_row + rows + 1, self.rows)
        seed = digest.number(self.seed, "cg", solve)
        cells = noise(seed, begin, end - begin, self.cells // self.rows) - 0.5
        inner(framed, rows=False)[begin - first_row + 1 : end - first_row + 1] = cells.reshape(
            end - begin, *self.lengths[1:]
        )
        return framed


def inner(framed: Grid, rows: bool = True) -> Grid:
    """A view without the frame; with ``rows`` false the first and last row stay."""
    return framed[(slice(1, -1) if rows else slice(None), *[slice(1, -1)] * (framed.ndim - 1))]


def applied(framed: Grid) -> Grid:
    """A times the rows within the frame."""
    answer: Grid = inner(framed) * (2.0 * framed.ndim)
    for axis in range(framed.ndim):
        for shifted in (slice(None, -2), slice(2, None)):
            place = [slice(1, -1)] * framed.ndim
            place[axis] = shifted
            answer -= framed[tuple(place)]
    return answer


def row_sums(a: Grid, b: Grid) -> Grid:
    """Each row's part of the dot product, the same bits in any block of rows."""
    sums: Grid = np.ascontiguousarray(a * b).reshape(len(a), -1).sum(axis=1)
    return sums


@dataclass(frozen=True)
class Solved:
    """What became of one right-hand side."""

    iterations: int
    residual: float  # |b - A x| / |b|, computed anew
    error: float  # |x - x*| / |x*|
    energy: float  # energy norm of x - x* over that of x*


class Block:
    """Some rows of the grid and all that belongs to them.

    Args:
        problem: which.
        first_row: of this block.
        rows: how many.
        exchange: writes the neighbours' outermost rows into the first and last row of what it is given.
        total: the sum over all rows of all blocks, of this block's row sums.
    """

    def __init__(
        self,
        problem: Problem,
        first_row: int,
        rows: int,
        exchange: Callable[[Grid], object],
        total: Callable[[Grid], float],
    ) -> None:
        self.problem, self.first_row, self.rows = problem, first_row, rows
        self._exchange, self._total = exchange, total
        shape = (rows, *problem.lengths[1:])
        self.x, self.r = np.zeros(shape), np.zeros(shape)
        self.p = np.zeros((rows + 2, *(n + 2 for n in problem.lengths[1:])))
        self.solve, self.iteration = -1, 0
        self.rr = self.bb = 0.0  # squares of |r| and |b|

    @property
    def relative(self) -> float:
        """|r| / |b|, r by recurrence."""
        return math.sqrt(self.rr / self.bb) if self.bb else 0.0

    def step(self) -> Solved | None:
        """One iteration; what became of the right-hand side, when that was its last."""
        if self.solve < 0 or self.relative <= self.problem.tolerance:
            self._begin()
        self._exchange(self.p)
        q = applied(self.p)
        p = inner(self.p)
        a = self.rr / self._total(row_sums(p, q))
        self.x += a * p
        self.r -= a * q
        before, self.rr = self.rr, self._total(row_sums(self.r, self.r))
        p *= self.rr / before
        p += self.r
        self.iteration += 1
        return self.look() if self.relative <= self.problem.tolerance else None

    def _begin(self) -> None:
        self.solve, self.iteration = self.solve + 1, 0
        self.x[:] = 0
        self.r[:] = applied(self.problem.truth(self.solve, self.first_row, self.rows))
        self.p[:] = 0
        inner(self.p)[:] = self.r
        self.rr = self.bb = self._total(row_sums(self.r, self.r))

    def look(self) -> Solved:
        """How good x is now; asks all blocks."""
        truth = self.problem.truth(self.solve, self.first_row, self.rows)
        b = applied(truth)
        framed = np.zeros_like(self.p)
        inner(framed)[:] = self.x
        self._exchange(framed)
        left = b - applied(framed)  # A times the error
        error = inner(truth) - self.x
        squares = {
            "left": row_sums(left, left),
            "error": row_sums(error, error),
            "truth": row_sums(inner(truth), inner(truth)),
            "energy": row_sums(error, left),
            "all_energy": row_sums(inner(truth), b),
        }
        total = {name: max(0.0, self._total(sums)) for name, sums in squares.items()}
        return Solved(
            self.iteration,
            math.sqrt(total["left"] / self.bb),
            math.sqrt(total["error"] / total["truth"]),
            math.sqrt(total["energy"] / total["all_energy"]),
        )


def wrong_with(problem: Problem, found: Solved, finished: bool) -> str:
    """What contradicts the theory, but for rounding; "" when nothing does."""
    k = problem.condition
    rounding = 64 * float(np.finfo(np.float64).eps)
    if finished and found.residual > 2 * problem.tolerance + k * rounding:
        return f"|b - A x| / |b| = {found.residual:.3g}, above 2 x tolerance {problem.tolerance:.3g}"
    if found.error > k * (found.residual * (1 + 1e-6) + rounding):
        return f"|x - x*| / |x*| = {found.error:.3g}, above {k * found.residual:.3g} = condition number x residual"
    bound = 2 * ((math.sqrt(k) - 1) / (math.sqrt(k) + 1)) ** found.iterations
    if found.energy > bound * (1 + 1e-6) + 1e-12:
        return f"energy norm of the error {found.energy:.3g}, above {bound:.3g} after {found.iterations} iterations"
    return ""


def alone(problem: Problem, steps: int) -> tuple[list[float], Block]:
    """What one rank would compute: the relative residual after each step, and all rows after the last."""
    block = Block(problem, 0, problem.rows, lambda framed: None, lambda sums: math.fsum(sums.tolist()))
    residuals = []
    for _ in range(steps):
        block.step()
        residuals.append(block.relative)
    return residuals, block
