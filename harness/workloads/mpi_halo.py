"""mpi.halo: Jacobi sweeps for Laplace's equation on a 2-D grid, rows split over ranks, halos exchanged.

One step is one sweep over ``rows`` x ``columns`` cells inside a fixed boundary:
    new[i,j] = ((old[i-1,j] + old[i+1,j]) + (old[i,j-1] + old[i,j+1])) / 4
    residual = sqrt(sum over all cells of (new - old)^2)
Boundary and first values are noise in [0, 1), a function of (seed, row, column) alone (splitmix64:
Steele, Lea, Flood, OOPSLA 2014), so each rank makes its own rows and every cell matters from step 0.

How long each rank's halos and sums took travels in one small reduction more; how computing, communication and
waiting are told apart by it is in ``timesplit``.

The residual has the same bits on any number of ranks: a row is never split, the sum over one row
is computed alike wherever it lies, and the rows' sums are added by ``math.fsum``, whose result is the
exact sum rounded once (Shewchuk 1997), whatever the order. So the answer can be compared bit for bit with
a run on one rank, which rank 0 does at the end, from the seed. That costs as much as all ranks'
sweeps together and two copies of the grid, so it is capped: above SERIAL_UPDATES cell updates only
the first steps are recomputed, and above SERIAL_CELLS none; the check's detail, or its absence, says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from harness.runtime import digest
from harness.workloads import REGISTRY, timesplit
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.mpi_world import MpiWorld

SERIAL_UPDATES = 5 * 10**8  # one to five seconds
SERIAL_CELLS = 2**26  # 1 GiB for two copies of the grid
DIGEST_BYTES = digest.HEX_DIGITS // 2
TILE_CELLS = 2**14  # temporaries of 128 KiB stay in the cache of a core

Grid = NDArray[np.float64]


def noise(seed: int, first_row: int, rows: int, width: int) -> Grid:
    """Rows of noise in [0, 1): splitmix64 of each cell's number in a grid of that width."""
    start = np.uint64(digest.number(seed, "halo"))
    cell = np.arange(first_row * width, (first_row + rows) * width, dtype=np.uint64).reshape(rows, width)
    z = (cell + start) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split(rows: int, world: int, rank: int) -> tuple[int, int]:
    """First row and number of rows of ``rank``; the first ``rows % world`` ranks hold one more."""
    each, more = divmod(rows, world)
    return rank * each + min(rank, more), each + (rank < more)


def sweep(old: Grid, new: Grid) -> Grid:
    """One Jacobi sweep over all cells but the outermost; return each row's sum of squared changes."""
    rows, columns = old.shape[0] - 2, old.shape[1] - 2
    sums = np.empty(rows)
    tile = max(1, TILE_CELLS // columns)
    for top in range(1, rows + 1, tile):
        end = min(top + tile, rows + 1)
        cells = old[top - 1 : end - 1, 1:-1] + old[top + 1 : end + 1, 1:-1]
        cells += old[top:end, :-2] + old[top:end, 2:]
        cells *= 0.25
        new[top:end, 1:-1] = cells
        cells -= old[top:end, 1:-1]
        np.square(cells, out=cells)
        sums[top - 1 : end - 1] = cells.sum(axis=1)
    return sums


def residual(row_sums: Grid) -> float:
    """2-norm from the rows' sums of squares; the same bits in any order."""
    return math.sqrt(math.fsum(row_sums.tolist()))


def serial(seed: int, rows: int, columns: int, steps: int) -> tuple[list[float], Grid]:
    """What one rank would compute: the residual of each step, and the grid after the last."""
    old = noise(seed, 0, rows + 2, columns + 2)
    new = old.copy()
    residuals = []
    for _ in range(steps):
        residuals.append(residual(sweep(old, new)))
        old, new = new, old
    return residuals, old


def row_digests(rows: Grid) -> bytes:
    """The digests of rows, joined: those of neighbouring blocks, joined, are those of both together."""
    return b"".join(bytes.fromhex(digest.of(row)) for row in rows)


class MpiHalo(MpiWorld):
    """The workload on one rank: its rows, one halo row above and one below."""

    tables = REGISTRY["mpi.halo"].tables
    reshapes = True  # any number of ranks can go on from what another number saved
    controls = ("position",)  # it has neither random state nor optimiser

    def setup(self, context: RankContext) -> None:
        """Refuse grids that cannot be split; join; fill this rank's rows."""
        self.rows, self.columns = cast(int, context.params["rows"]), cast(int, context.params["columns"])
        if self.rows < context.world or self.columns < 1:
            raise ValueError(
                f"rows = {self.rows}, columns = {self.columns}: {context.world} ranks need a row each"
            )
        self.join(context)
        self.first_row, self.own_rows = split(self.rows, context.world, context.rank)
        self.old = noise(context.seed, self.first_row, self.own_rows + 2, self.columns + 2)
        self.new = self.old.copy()
        self.counts = [split(self.rows, context.world, rank)[1] for rank in range(context.world)]
        nobody = self.MPI.PROC_NULL
        self.above = context.rank - 1 if context.rank else nobody
        self.below = context.rank + 1 if context.rank + 1 < context.world else nobody
        self.sweeps = 0  # done on this grid
        self.steps = 0  # that the loop has asked for: the same number, unless a restore went wrong
        self.residuals: list[float] = []  # of all sweeps, on rank 0

    def step(self, step: int) -> Mapping[str, int | float]:
        """Exchange halos, sweep, and form the residual on every rank."""
        start = time.monotonic_ns()
        self.context.collective(self.exchange)
        exchanged = time.monotonic_ns()
        own_sums = sweep(self.old, self.new)
        swept = time.monotonic_ns()
        sums = np.empty(self.rows)
        self.context.collective(lambda: self.comm.Allgatherv(own_sums, [sums, self.counts]))
        gathered = time.monotonic_ns()
        self.old, self.new = self.new, self.old
        self.sweeps += 1
        self.steps = step + 1
        norm = residual(sums)
        if self.context.rank == 0:
            self.residuals.append(norm)
        spent = exchanged - start + gathered - swept
        before = time.monotonic_ns()
        least = self.context.collective(lambda: self.least(spent))
        end = time.monotonic_ns()
        return {
            "residual": norm,
            **timesplit.parts(end - start, spent, spent if least is None else least, end - before),
            "cell_updates": self.own_rows * self.columns,
        }

    def exchange(self) -> None:
        """Send the outermost own rows to the neighbours, receive theirs as halos; boundary rows stay."""
        self.comm.Sendrecv(self.old[1], self.above, 0, self.old[-1], self.below, 0)
        self.comm.Sendrecv(self.old[-2], self.below, 1, self.old[0], self.above, 1)

    def save(self, writer: CheckpointWriter) -> None:
        """Own rows, number of sweeps and, on rank 0, all residuals so far, one behind the other in ``rank-N.npy``.

        Raises:
            ValueError: another engine than its own was asked for.
        """
        if writer.engine != "own":
            raise ValueError(
                f"checkpoint engine {writer.engine!r}: mpi.halo has only its own; say engine: own"
            )
        arrays = (self.old[1:-1], np.array(self.sweeps), np.array(self.residuals))
        with writer.open(f"rank-{self.context.rank}.npy") as stream:
            for array in arrays:
                np.save(stream, array, allow_pickle=False)

    def sources(self, saved_world: int) -> list[int]:
        """Ranks that saved rows of this rank's; on rank 0 also rank 0, which saved the residuals."""
        last_row = self.first_row + self.own_rows
        found = []
        for rank in range(saved_world):
            first, count = split(self.rows, saved_world, rank)
            if (first < last_row and self.first_row < first + count) or self.context.rank == rank == 0:
                found.append(rank)
        return found

    def restore(self, reader: CheckpointReader) -> None:
        """Load this rank's rows, from as many ranks' files as hold some of them.

        Raises:
            ValueError: the files hold another grid, or parts of different sweeps.
        """
        sweeps = set()
        for rank in self.sources(reader.world):
            with reader.open(f"rank-{rank}.npy") as stream:
                rows, count, residuals = (np.load(stream, allow_pickle=False) for _ in range(3))
            first, height = split(self.rows, reader.world, rank)
            if rows.shape != (height, self.columns + 2):
                raise ValueError(
                    f"{reader.folder}: rank {rank} saved rows x columns of {rows.shape}, and of this grid it would "
                    f"be {(height, self.columns + 2)}: restore on the same grid as it was saved with"
                )
            begin, end = max(first, self.first_row), min(first + height, self.first_row + self.own_rows)
            self.old[1 + begin - self.first_row : 1 + end - self.first_row] = rows[
                begin - first : end - first
            ]
            sweeps.add(int(count))
            if rank == 0 and self.context.rank == 0:
                self.residuals = residuals.tolist()
        if len(sweeps) != 1:
            raise ValueError(f"{reader.folder}: its parts are of {sorted(sweeps)} sweeps")
        (self.sweeps,) = sweeps
        self.steps = self.sweeps

    def whole_digest(self) -> str:
        """Digest of the grid, the sweeps and the residuals: the same on any number of ranks."""
        rows = self._joined_row_digests()
        whole = {"rows": rows, "sweeps": self.sweeps, "residuals": self.residuals}
        return str(self.broadcast(digest.of(whole) if self.context.rank == 0 else None))

    def _joined_row_digests(self) -> bytes:
        """Of all ranks' rows, on rank 0; nothing elsewhere."""
        own = np.frombuffer(row_digests(self.old[1:-1]), dtype=np.uint8)
        if self.context.rank:
            self.comm.Gatherv(own, None)
            return b""
        joined = np.empty(self.rows * DIGEST_BYTES, dtype=np.uint8)
        self.comm.Gatherv(own, [joined, [DIGEST_BYTES * n for n in self.counts]])
        return joined.tobytes()

    def sabotage(self, what: str) -> None:
        """See ``Workload.sabotage``; position: this rank's rows are one sweep ahead of their count."""
        if what != "position":
            raise ValueError(f"{what!r} is no control of mpi.halo, allowed: {', '.join(self.controls)}")
        sweep(self.old, self.new)
        self.old, self.new = self.new, self.old

    def state_digest(self) -> str:
        """Digest of own rows, number of sweeps, residuals so far. Halos are exchanged anew in each step."""
        return digest.of({"rows": self.old[1:-1], "sweeps": self.sweeps, "residuals": self.residuals})

    def close(self) -> None:
        """Rank 0 compares with a run on one rank and records the answer; then leave."""
        joined = self._joined_row_digests()
        if self.context.rank == 0:
            self._judge(digest.of(joined))
        self.leave()

    def _judge(self, grid_digest: str) -> None:
        if self.residuals:
            self.context.result("residual", repr(self.residuals[-1]))
        self.context.result("grid_digest", grid_digest)
        cells = self.rows * self.columns
        steps = 0 if cells > SERIAL_CELLS else min(self.steps, SERIAL_UPDATES // cells)
        if not steps:
            return  # nothing was computed, or it is too much to compute again: no evidence, no check
        expected, grid = serial(self.context.seed, self.rows, self.columns, steps)
        observed = self.residuals[:steps]
        detail = f"{steps} of {self.steps} steps compared, {self.sweeps} sweeps done"
        pairs = enumerate(zip(expected, observed, strict=False))
        differs = next((f"step {n}: expected {a!r}, got {b!r}" for n, (a, b) in pairs if a != b), None)
        if differs:
            detail += f"; first difference at {differs}"
        self.context.check(
            "residual equals a single-rank run's",
            expected == observed and self.sweeps == self.steps == len(self.residuals),
            repr(expected[-1]),
            repr(observed[-1]) if observed else "none",
            detail,
        )
        if steps == self.steps:
            alone = digest.of(row_digests(grid[1:-1]))
            name = "grid equals a single-rank run's"
            self.context.check(name, alone == grid_digest, alone, grid_digest, detail)


WORKLOAD = MpiHalo
