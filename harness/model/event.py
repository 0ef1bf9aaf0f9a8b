"""Events: what happened, once. Standard library only.

A fault's three facts are events of their own kind; none of them is inferred from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# The life of a job and its attempts
JOB_STARTED = "job.started"
JOB_ENDED = "job.ended"
JOB_SIGNALLED = "job.signalled"  # data: signal; by Slurm on requeue, preemption, scancel, time limit
JOB_REQUEUE_ASKED = "job.requeue_asked"  # the supervisor asked; that it was done shows at the restart
JOB_AGAIN = "job.again"  # by the driver: jobs are submitted once more; data: why, case by case
SUBMISSION_DEFERRED = "submission.deferred"  # by the driver: sbatch said "not now"
GROUP_JUDGED = "group.judged"  # by the driver: others need this group
LOT_PLANNED = "lot.planned"  # by the driver: harness.model.design.Lot as JSON
COMPARISON_PLANNED = "comparison.planned"  # by the driver: harness.model.design.Comparison as JSON
REPEATS_WEIGHED = "repeats.weighed"  # by the driver: whether a lot's next wave is needed; data: answer, why
TWIN_CACHED = "twin.cached"  # an earlier run made its records; data: which, and how old they are
NODE_SUSPECTED = "node.suspected"  # by the driver: no further job of the run gets this node
CONTROLLER_AWAY = "controller.away"  # a step could not be made, and is tried again; data: said
AGENT_CONNECTED = "agent.connected"
NODE_FACTS = "node.facts"  # data: what kind of machine this node is
NODE_SILENT = "node.silent"  # no beat from its agent for a lease
ATTEMPT_STARTED = "attempt.started"
ATTEMPT_ENDED = "attempt.ended"
RANK_STARTED = "rank.started"
RANK_EXITED = "rank.exited"
RANK_RAISED = "rank.raised"
WORLD_WRONG = "world.wrong_size"
PROGRAM_STARTED = "program.started"  # a user's own; data: its arguments
PROGRAM_ENDED = "program.ended"
FIRST_STEP = "rank.first_step"  # the first step an attempt finished, on one rank
RANK_RUNNING = "rank.running"  # t5: a new process is in its world; state is not loaded yet
DETECTED = "detected"  # t2, and t3 if it is the right one; data: what, rank, node, step, evidence
ATTEMPT_LEFT = "attempt.left"  # t4: the last survivor has left the broken step
RECOVERY_BEGUN = "recovery.begun"  # data: policy, why, nodes
SUPERVISOR_SUCCEEDED = "supervisor.succeeded"  # a surviving node took over; data: from, generation
STATE_DIGEST = "state.digest"  # by rank; data: step (steps finished), digest of the live state
# Faults, and the three facts each leaves
FAULT_REQUESTED = "fault.requested"  # t0
FAULT_INJECTED = "fault.injected"  # t1: the call returned
FAULT_OBSERVED = "fault.observed"  # t1v: the effect is verified
FAULT_HEALED = "fault.healed"
FAULT_REFUSED = "fault.refused"  # it could not be done
FAULT_UNHEALED = "fault.unhealed"  # healing was tried, and could not be verified
# Checkpoints
CHECKPOINT_COMMITTED = "checkpoint.committed"
CHECKPOINT_FAILED = (
    "checkpoint.failed"  # it could not be written or committed; the run goes on; data: step, why
)
CHECKPOINT_REFUSED = "checkpoint.refused"  # did not verify; an older one is tried
CHECKPOINT_RESTORED = "checkpoint.restored"
# Answers
CHECK = "check"  # data: name, passed, expected, observed, detail
RESULT = "result"  # data: name, value (a digest, a residual ...)
TELEMETRY_ABSENT = "telemetry.absent"


@dataclass(frozen=True)
class Event:
    """One thing that happened; ``rank`` is -1 and ``case_id`` is "" where they do not apply."""

    kind: str
    wall_ns: int
    mono_ns: int
    host: str
    source: str  # "supervisor", "agent", "rank", "driver"
    case_id: str = ""
    attempt: int = -1
    rank: int = -1
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The event as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Event:
        """Rebuild an event from ``to_json``'s data."""
        return cls(**data)
