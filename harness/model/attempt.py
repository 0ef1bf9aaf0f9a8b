"""Attempt: one start of a case. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# How an attempt ended. "lost" is written by nobody: it is what a reader concludes from a start without
# an end, because whoever would have written the end died.
COMPLETED = "completed"  # every rank finished all its steps and said so
FAILED = "failed"  # the program ended badly
NODE_LOST = "node_lost"  # the machine took a node, or the whole job, away
INTERRUPTED = "interrupted"  # a signal: requeue, preemption, time limit, scancel
LOST = "lost"
# Of a case alone: how it ends, or ended, is not known (yet); no rule judges it.
UNSETTLED = "unsettled"
OUTCOMES = (COMPLETED, FAILED, NODE_LOST, INTERRUPTED, LOST)


@dataclass(frozen=True)
class StreamEnd:
    """What a node's sample stream must hold when an attempt has ended; None where the node could not say."""

    node: str
    path: str  # relative to the run folder
    bytes: int | None
    records: int | None
    problem: str = ""  # why not all of it could be shipped, where the node could say that


@dataclass(frozen=True)
class Attempt:
    """One start of a case. Times are nanoseconds: ``wall`` since the epoch, ``mono`` by the batch host's clock."""

    case_id: str
    index: int  # 0, 1, 2 ... over all jobs and restarts
    job_key: str
    slurm_job_id: str  # "12" or "12_3"; "" on a site without Slurm
    restart: (
        int  # starts of its job before this one: SLURM_RESTART_COUNT, counted on over rounds of submission
    )
    epoch: int  # starts of this case inside this restart
    nodes: tuple[str, ...]
    step_ids: tuple[str, ...]  # Slurm step ids that held its ranks
    rank_nodes: tuple[str, ...]  # host name of each rank, by rank
    start_wall_ns: int
    start_mono_ns: int
    end_wall_ns: int = 0
    end_mono_ns: int = 0
    outcome: str = ""
    reason: str = ""
    first_step: int = 0
    last_step: int = -1  # highest step that every rank is known to have finished
    restored_step: int = -1  # the checkpoint it began from, or -1
    streams: tuple[StreamEnd, ...] = ()
    failure: str = ""  # class of the failure (harness.failures) where those who were there could tell
    policy: str = ""  # how it was begun: "first", or the recovery policy
    last_begun: int = -1  # highest step that any rank is known to have begun
    blamed_step: int = -1  # the step that who ended it had begun: a rank, or a lost node's; -1: nobody
    fell_silent: bool = False  # whether the rank that took the others with it ended without a word
    first_step_wall_ns: int = 0  # when a step was first seen to be finished
    moments: Mapping[str, int] = field(
        default_factory=dict
    )  # how many of each the case has had, this one included
    saved_step: int = 0  # the newest checkpoint on shared storage when it ended: so many steps were finished

    @property
    def folder(self) -> str:
        """Name of the attempt's folder: restart count and epoch, so an old rank can never write in a new one."""
        return f"attempt-{self.restart}.{self.epoch}"

    def to_json(self) -> dict[str, Any]:
        """The attempt as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attempt:
        """Rebuild an attempt from ``to_json``'s data."""
        values = dict(data)
        for name in ("nodes", "step_ids", "rank_nodes"):
            values[name] = tuple(values[name])
        values["streams"] = tuple(StreamEnd(**s) for s in values["streams"])
        return cls(**values)
