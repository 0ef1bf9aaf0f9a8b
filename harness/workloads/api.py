"""What a workload is, and what it is given. Standard library only; heavy imports belong in the workloads.

A workload computes on one rank and knows nothing of faults, Slurm or files other than those it is
asked to save and restore. The loop around it (``harness.runtime.rank``) counts the steps, times
them, records them, takes checkpoints and tells the agent how far it has come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from harness.model.fault import CONTROLS as CONTROLS

Param = str | int | float | bool | tuple[Any, ...]
T = TypeVar("T")


class WrongWorldSize(Exception):
    """The communication library's world is not the one that was started; each rank may be alone in its own."""


class RankContext(Protocol):
    """What the loop gives a workload."""

    rank: int
    world: int
    local_rank: int
    nodes: int
    seed: int
    steps: int
    params: Mapping[str, Param]
    deterministic: bool
    device: str  # "cuda" or "cpu"
    backend: str  # torch.distributed backend: "nccl" or "gloo"; "mpi" for MPI workloads
    folders: Mapping[str, Path]  # of this attempt alone: "shared" by all nodes, and "node-local"

    def record(self, table: str, values: Mapping[str, int | float]) -> None:
        """Append one raw sample to ``table``; the column names are in ``Workload.tables``."""

    def check(self, name: str, passed: bool, expected: object, observed: object, detail: str = "") -> None:
        """Record one check of an answer. A failed check fails the case; it does not stop the run."""

    def result(self, name: str, value: object) -> None:
        """Record a final answer (a digest, a residual): compared with the twin's by name and rank."""

    def collective(self, call: Callable[[], T]) -> T:
        """Run one collective, send or receive, counted, so that a hang shows where; faults may skip or reorder it."""


class CheckpointWriter(Protocol):
    """What a rank saves its part of a checkpoint through. The folder is fresh, and committed by others."""

    folder: Path
    engine: str  # "own", "torch.save" or "dcp"
    level: str  # "shared": storage that all nodes see; "memory": the memory of this rank's node
    writes_shared: bool  # this rank writes what all ranks hold alike, for those who look into the same folder

    def open(self, name: str, everyone: bool = False) -> BinaryIO:
        """A new file of this rank's, written from front to back (no seek): hashed on the way, on disk once closed.

        Args:
            name: unique among ranks; it may begin with one folder: ``rank-3/part``.
            everyone: all ranks load it, not this one alone; only where ``writes_shared``.
        """


class CheckpointReader(Protocol):
    """What a rank restores from: a committed checkpoint whose files were verified."""

    folder: Path
    engine: str  # that it was written with
    level: str
    world: int  # number of ranks that wrote it

    def open(self, name: str) -> BinaryIO:
        """A file of it, to read."""


class Reshaping(Protocol):
    """What a workload has besides when any number of ranks can restore what another number saved (``reshapes``)."""

    reshapes: bool

    def sources(self, saved_world: int) -> Sequence[int]:
        """Ranks whose files this rank reads of a checkpoint by ``saved_world`` ranks."""

    def whole_digest(self) -> str:
        """Digest of the state of all ranks together, the same on every rank and for any number of them."""


class Workload(Protocol):
    """A workload on one rank. ``step`` may return columns for the ``steps`` table of that step."""

    tables: Mapping[str, tuple[str, ...]]
    """Tables it records and their columns, metrics of ``harness.model.metrics``; ``steps``: what ``step`` returns."""

    controls: tuple[str, ...]
    """The negative controls that ``sabotage`` can do, of ``CONTROLS``."""

    def setup(self, context: RankContext) -> None:
        """Join the world, allocate, seed. Raises WrongWorldSize when the world has another size."""

    def step(self, step: int) -> Mapping[str, int | float]:
        """Do step ``step`` and return the values of ``tables["steps"]``."""

    def save(self, writer: CheckpointWriter) -> None:
        """Write this rank's part of a checkpoint.

        Raises:
            ValueError: the workload has no such engine.
        """

    def restore(self, reader: CheckpointReader) -> None:
        """Load this rank's part of a checkpoint that was verified."""

    def sabotage(self, what: str) -> None:
        """A negative control, after a restore: leave ``what`` as if it had not been restored; the proof must notice.

        Raises:
            ValueError: it is none of ``controls``.
        """

    def state_digest(self) -> str:
        """Digest of the live state (parameters, optimiser, random state, data position) as hex."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def gather(self, value: Any) -> list[Any] | None:
        """Collect one picklable-free (JSON-ready) value of each rank on rank 0, None elsewhere."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's JSON-ready value on every rank."""

    def close(self) -> None:
        """Record the final results and checks, then leave the world."""
