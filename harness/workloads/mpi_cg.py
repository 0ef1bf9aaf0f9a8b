"""mpi.cg: conjugate gradients on Poisson's equation, rows split over ranks; the answer is known beforehand.

One step is one iteration: a halo exchange, two sums over all ranks. The mathematics, and why all bits are the same on
any number of ranks, is in ``cg_block``. At the end rank 0 compares with a run on one rank, from the seed; that is
capped as in ``mpi_halo``. Each solution found is compared with the true one, and the unfinished last one with
what the theory promises after so many iterations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from harness.runtime import digest
from harness.workloads import REGISTRY, cg_block, timesplit
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.cg_block import Grid, Problem, Solved
from harness.workloads.mpi_halo import DIGEST_BYTES, SERIAL_CELLS, SERIAL_UPDATES, row_digests, split
from harness.workloads.mpi_world import MpiWorld


class MpiCg(MpiWorld):
    """The workload on one rank: its rows, one halo row above and one below."""

    tables = REGISTRY["mpi.cg"].tables
    reshapes = True  # any number of ranks can go on from what another number saved
    controls = ("position",)  # it has neither random state nor optimiser

    def setup(self, context: RankContext) -> None:
        """Refuse grids that cannot be split; join; allocate."""
        params = cast(Mapping[str, Any], context.params)
        sizes = (int(params["rows"]), int(params["columns"]), int(params["planes"]))
        self.problem = Problem(context.seed, *sizes, float(params["tolerance"]))
        if sizes[0] < context.world:
            raise ValueError(f"rows = {sizes[0]}: {context.world} ranks need a row each")
        self.join(context)
        self.parts = [split(sizes[0], context.world, rank) for rank in range(context.world)]
        first_row, rows = self.parts[context.rank]
        nobody = self.MPI.PROC_NULL
        self.above = context.rank - 1 if context.rank else nobody
        self.below = context.rank + 1 if context.rank + 1 < context.world else nobody
        self.block = cg_block.Block(self.problem, first_row, rows, self._exchange, self._total)
        self.spent_ns = 0  # in calls that block on others, in this step
        self.iterations = self.steps = 0  # done on this grid; that the loop has asked for
        self.residuals: list[float] = []  # of all steps, on rank 0
        self.solved: list[Solved] = []

    def step(self, step: int) -> Mapping[str, int | float]:
        """One iteration."""
        start, self.spent_ns = time.monotonic_ns(), 0
        solved = self.block.step()
        if solved is not None:
            self.solved.append(solved)
        self.iterations += 1
        self.steps = step + 1
        if self.context.rank == 0:
            self.residuals.append(self.block.relative)
        before, spent = time.monotonic_ns(), self.spent_ns
        least = self.context.collective(lambda: self.least(spent))
        end = time.monotonic_ns()
        return {
            "relative_residual": self.block.relative,
            "solve": self.block.solve,
            **timesplit.parts(end - start, spent, spent if least is None else least, end - before),
            "cell_updates": self.block.x.size,
        }

    def _blocking(self, call: Callable[[], object]) -> None:
        start = time.monotonic_ns()
        self.context.collective(call)
        self.spent_ns += time.monotonic_ns() - start

    def _exchange(self, framed: Grid) -> None:
        self._blocking(lambda: self.exchange(framed))

    def exchange(self, framed: Grid) -> None:
        """Send the outermost own rows to the neighbours, receive theirs as halos."""
        self.comm.Sendrecv(framed[1], self.above, 0, framed[-1], self.below, 0)
        self.comm.Sendrecv(framed[-2], self.below, 1, framed[0], self.above, 1)

    def _total(self, own: Grid) -> float:
        sums = np.empty(self.problem.rows)
        self._blocking(lambda: self.comm.Allgatherv(own, [sums, [rows for _, rows in self.parts]]))
        return math.fsum(sums.tolist())

    # --- state ----------------------------------------------------------------------------------------------

    def _rows(self) -> Grid:
        """x, r and p of own rows: (rows, 3, ...)."""
        return np.stack((self.block.x, self.block.r, cg_block.inner(self.block.p)), axis=1)

    def _scalars(self) -> dict[str, Any]:
        block = self.block
        found = [list(vars(one).values()) for one in self.solved]
        return {"rr": block.rr, "bb": block.bb, "solve": block.solve, "iteration": block.iteration,
                "iterations": self.iterations, "solved": found}  # fmt: skip

    def save(self, writer: CheckpointWriter) -> None:
        """Own rows, then the scalars, all solutions found and, on rank 0, all residuals, in ``rank-N.npy``.

        Raises:
            ValueError: another engine than its own was asked for.
        """
        if writer.engine != "own":
            raise ValueError(f"checkpoint engine {writer.engine!r}: mpi.cg has only its own; say engine: own")
        block = self.block
        arrays = (
            self._rows(),
            np.array([block.rr, block.bb]),
            np.array([block.solve, block.iteration, self.iterations]),
            np.array([list(vars(one).values()) for one in self.solved]).reshape(-1, 4),
            np.array(self.residuals),
        )
        with writer.open(f"rank-{self.context.rank}.npy") as stream:
            for array in arrays:
                np.save(stream, array, allow_pickle=False)

    def sources(self, saved_world: int) -> list[int]:
        """Ranks that saved rows of this rank's; on rank 0 also rank 0, which saved the residuals."""
        first_row, rows = self.parts[self.context.rank]
        found = []
        for rank in range(saved_world):
            first, count = split(self.problem.rows, saved_world, rank)
            if (first < first_row + rows and first_row < first + count) or self.context.rank == rank == 0:
                found.append(rank)
        return found

    def restore(self, reader: CheckpointReader) -> None:
        """Load this rank's rows, from as many ranks' files as hold some of them.

        Raises:
            ValueError: the files hold another grid, or parts of different iterations.
        """
        first_row, own = self.parts[self.context.rank]
        block, counts = self.block, set()
        for rank in self.sources(reader.world):
            with reader.open(f"rank-{rank}.npy") as stream:
                rows, squares, numbers, solved, residuals = (
                    np.load(stream, allow_pickle=False) for _ in range(5)
                )
            first, height = split(self.problem.rows, reader.world, rank)
            expected = (height, 3, *self.problem.lengths[1:])
            if rows.shape != expected:
                raise ValueError(
                    f"{reader.folder}: rank {rank} saved cells of shape {rows.shape}, and of this grid it would be "
                    f"{expected}: restore on the same grid as it was saved with"
                )
            begin, end = max(first, first_row), min(first + height, first_row + own)
            to, of = slice(begin - first_row, end - first_row), slice(begin - first, end - first)
            block.x[to], block.r[to] = rows[of, 0], rows[of, 1]
            cg_block.inner(block.p)[to] = rows[of, 2]
            counts.add((*numbers.tolist(), *squares.tolist()))
            self.solved = [Solved(int(one[0]), *one[1:]) for one in solved.tolist()]
            if rank == 0 and self.context.rank == 0:
                self.residuals = residuals.tolist()
        if len(counts) != 1:
            raise ValueError(f"{reader.folder}: its parts are of different iterations")
        ((block.solve, block.iteration, self.iterations, block.rr, block.bb),) = counts
        self.steps = self.iterations

    def whole_digest(self) -> str:
        """Digest of all cells, the scalars and the residuals: the same on any number of ranks."""
        whole = {"rows": self._joined_row_digests(), "residuals": self.residuals, **self._scalars()}
        return str(self.broadcast(digest.of(whole) if self.context.rank == 0 else None))

    def _joined_row_digests(self) -> bytes:
        """Of all ranks' rows, on rank 0; nothing elsewhere."""
        own = np.frombuffer(row_digests(self._rows()), dtype=np.uint8)
        if self.context.rank:
            self.comm.Gatherv(own, None)
            return b""
        joined = np.empty(self.problem.rows * DIGEST_BYTES, dtype=np.uint8)
        self.comm.Gatherv(own, [joined, [DIGEST_BYTES * rows for _, rows in self.parts]])
        return joined.tobytes()

    def sabotage(self, what: str) -> None:
        """See ``Workload.sabotage``; position: this rank's x is a step along p ahead of its count."""
        if what != "position":
            raise ValueError(f"{what!r} is no control of mpi.cg, allowed: {', '.join(self.controls)}")
        self.block.x += cg_block.inner(self.block.p)

    def state_digest(self) -> str:
        """Digest of own rows, the scalars and, on rank 0, all residuals. Halos are exchanged anew in each step."""
        return digest.of({"rows": self._rows(), "residuals": self.residuals, **self._scalars()})

    # --- the answer -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Rank 0 compares with the theory and with a run on one rank, and records the answer; then leave."""
        unfinished = self.block.relative > self.problem.tolerance
        last = self.block.look() if self.iterations and unfinished else None
        joined = self._joined_row_digests()
        if self.context.rank == 0:
            self._judge_solutions(last)
            self._judge_bits(digest.of(joined))
        self.leave()

    def _judge_solutions(self, last: Solved | None) -> None:
        looked_at = [(one, True) for one in self.solved] + ([(last, False)] if last else [])
        if not looked_at:
            return
        wrong = [f"solve {n}: {why}" for n, (one, finished) in enumerate(looked_at)
                 if (why := cg_block.wrong_with(self.problem, one, finished))]  # fmt: skip
        worst = max(one.error for one, _ in looked_at[: len(self.solved) or 1])
        self.context.check(
            "solutions agree with the true ones as theory says",
            not wrong,
            "nothing contradicts",
            wrong[0] if wrong else "nothing contradicts",
            f"{len(self.solved)} solved to {self.problem.tolerance:.3g}, {'one' if last else 'none'} unfinished; "
            f"largest |x - x*| / |x*| {worst:.3g}, condition number {self.problem.condition:.6g}",
        )

    def _judge_bits(self, cells_digest: str) -> None:
        if self.residuals:
            self.context.result("relative_residual", repr(self.residuals[-1]))
        self.context.result("cells_digest", cells_digest)
        cells = self.problem.cells
        steps = 0 if cells > SERIAL_CELLS else min(self.steps, SERIAL_UPDATES // cells)
        if not steps:
            return  # nothing was computed, or it is too much to compute again: no evidence, no check
        expected, whole = cg_block.alone(self.problem, steps)
        observed = self.residuals[:steps]
        detail = f"{steps} of {self.steps} steps compared, {self.iterations} iterations done"
        pairs = enumerate(zip(expected, observed, strict=False))
        differs = next((f"step {n}: expected {a!r}, got {b!r}" for n, (a, b) in pairs if a != b), None)
        self.context.check(
            "residual equals a single-rank run's",
            expected == observed and self.iterations == self.steps == len(self.residuals),
            repr(expected[-1]),
            repr(observed[-1]) if observed else "none",
            f"{detail}; first difference at {differs}" if differs else detail,
        )
        if steps == self.steps:
            alone = digest.of(row_digests(np.stack((whole.x, whole.r, cg_block.inner(whole.p)), axis=1)))
            name = "cells equal a single-rank run's"
            self.context.check(name, alone == cells_digest, alone, cells_digest, detail)


WORKLOAD = MpiCg
