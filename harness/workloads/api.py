"""What a workload is, and what it is given. Standard library only; heavy imports belong in the workloads.

A workload computes on one rank and knows nothing of faults, Slurm or files other than those it is
asked to save and restore. The loop around it (``harness.runtime.rank``) counts the steps, times
them, records them, takes checkpoints and tells the agent how far it has come.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

Param = str | int | float | bool | tuple[Any, ...]


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

    def record(self, table: str, values: Mapping[str, int | float]) -> None:
        """Append one raw sample to ``table``; the column names are in ``Workload.tables``."""

    def check(self, name: str, passed: bool, expected: object, observed: object, detail: str = "") -> None:
        """Record one check of an answer. A failed check fails the case; it does not stop the run."""

    def result(self, name: str, value: object) -> None:
        """Record a final answer (a digest, a residual): compared with the twin's by name and rank."""


class Workload(Protocol):
    """A workload on one rank. ``step`` may return columns for the ``steps`` table of that step."""

    tables: Mapping[str, tuple[str, ...]]
    """Tables it records and their columns, metrics of ``harness.model.metrics``; ``steps``: what ``step`` returns."""

    def setup(self, context: RankContext) -> None:
        """Join the world, allocate, seed. Raises WrongWorldSize when the world has another size."""

    def step(self, step: int) -> Mapping[str, int | float]:
        """Do step ``step`` and return the values of ``tables["steps"]``."""

    def save(self, folder: Path) -> list[Path]:
        """Write this rank's part of a checkpoint into ``folder``; return the files it wrote, flushed."""

    def restore(self, folder: Path) -> None:
        """Load this rank's part of a checkpoint that was verified."""

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
