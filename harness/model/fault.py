"""Faults: every kind there is, and one declared fault of a case. Standard library only, because jobs read these.

Nothing here does a fault: a kind says who does it, what it needs and what it hits; ``harness.faults`` and
``harness.runtime.rank_faults`` do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# Who does it.
RANK = "rank"  # the rank itself at a named moment, or its agent by a signal
JOB = "job"  # the supervisor, from outside the ranks

# What it needs.
OWN = "own"  # only processes and files of the job itself: allowed everywhere
SLURM = "slurm"  # Slurm's commands on the job itself: wherever Slurm is
POWER = "power"  # the site's power command, on a site that is emulated or staging
EMULATED = "emulated"  # reaches outside the job: only an emulated cluster, known by its cookie

# What must come of it.
RECOVERED, FAILED, UNHARMED, CAUGHT = "recovered", "failed", "unharmed", "caught"
EXPECTATIONS = (RECOVERED, FAILED, UNHARMED, CAUGHT)

# Moments of a rank at which a fault can strike, in the order in which they come.
MOMENTS = (
    "restore.begin",  # before a checkpoint is looked for
    "checkpoint.begin",  # nothing of it is written yet
    "checkpoint.written",  # this rank's files are written, nothing is committed
    "checkpoint.committed",
)
RECOVERY = "recovery.begin"  # of the supervisor: a new attempt is about to be made
# Negative controls of a restore, without their "control.".
CONTROLS = ("random_state", "position", "stale_optimizer")
ROLES = ("batch_host", "checkpoint_writer")


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    where: str
    needs: str
    hits: str  # "rank", "node", "nodes", "job", "checkpoint", "controller"
    help: str
    lasts: bool = False  # it ends by itself after `for_s`
    harmless: bool = False  # a decoy: no detector may call it a fault
    signal: str = ""  # what an agent sends to do it at any time, without the rank's help
    params: Mapping[str, Any] = field(default_factory=dict)  # name -> default; a tuple: one of these


def _rank(
    help_: str,
    *,
    lasts: bool = False,
    harmless: bool = False,
    signal: str = "",
    params: Any = MappingProxyType({}),
) -> Kind:
    return Kind(RANK, OWN, "rank", help_, lasts, harmless, signal, params)


def _damage(help_: str) -> Kind:
    return Kind(JOB, OWN, "checkpoint", help_, params={"which": ("newest", "all"), "seed": 0})


KINDS: dict[str, Kind] = {
    "rank.kill": _rank("SIGKILL to one rank", signal="SIGKILL"),
    "rank.terminate": _rank("SIGTERM to one rank", signal="SIGTERM"),
    "rank.abort": _rank("one rank aborts (SIGABRT)", signal="SIGABRT"),
    "rank.segfault": _rank("one rank makes a segmentation fault (SIGSEGV)", signal="SIGSEGV"),
    "rank.freeze": _rank("one rank is stopped (SIGSTOP), for good unless for_s", lasts=True, signal="SIGSTOP"),
    "rank.raise": _rank("one rank raises an exception"),
    "rank.hang": _rank("one rank never enters its next collective", params={"where": ("collective", "step")}),
    "rank.livelock": _rank("one rank retries for ever, busily, and finishes no step"),
    "rank.skip_collective": _rank("one rank leaves out one collective"),
    "rank.reorder_collective": _rank("one rank calls two collectives in the wrong order"),
    "rank.out_of_memory": _rank("one rank needs more memory than its limit allows", params={"mb": 256}),
    "rank.pause": _rank("one rank is stopped for a moment", lasts=True, harmless=True, signal="SIGSTOP"),
    "rank.slow_step": _rank("one step takes longer on one rank, and is healthy", lasts=True, harmless=True),
    "storage.slow": _rank("saving a checkpoint is slow on one rank", lasts=True, harmless=True),
    "storage.full": _rank(
        "one rank can write no more while it saves (a limit on the size of its files)", params={"bytes": 1 << 18}
    ),
    "control.random_state": _rank("negative control: a restored rank has another random state"),
    "control.position": _rank("negative control: a restored rank is one batch off"),
    "control.stale_optimizer": _rank("negative control: a restored rank has an optimiser that forgot"),
    "node.power_off": Kind(JOB, POWER, "node", "the site's power command switches a node off"),
    "node.kill_processes": Kind(JOB, OWN, "node", "SIGKILL to every process of the job on a node"),
    "node.stop_slurmd": Kind(JOB, EMULATED, "node", "slurmd is stopped, its tasks live", True),
    "node.link_down": Kind(JOB, EMULATED, "node", "a node's network link is down", True),
    "node.partition": Kind(
        JOB, EMULATED, "nodes", "nodes are cut off by packet filters", True,
        params={"from_rest": False, "one_way": False},
    ),
    "node.drain": Kind(JOB, EMULATED, "node", "a node is drained while the job runs on it", True),
    "node.fail": Kind(JOB, EMULATED, "node", "a node is marked as failing while the job runs on it", True),
    "controller.away": Kind(
        JOB, EMULATED, "controller", "slurmctld is frozen, or killed and started again", True,
        params={"mode": ("freeze", "kill")},
    ),
    "storage.away": Kind(JOB, EMULATED, "node", "the shared folder is away on a node", True),
    "job.preempt": Kind(JOB, EMULATED, "job", "a job of higher priority takes the nodes", True),
    "job.requeue": Kind(JOB, SLURM, "job", "scontrol requeue"),
    "job.time_limit": Kind(
        JOB, SLURM, "job", "the job's time limit is lowered until it strikes", params={"minutes": 1}
    ),
    "job.cancel": Kind(JOB, SLURM, "job", "scancel"),
    "checkpoint.flip_bit": _damage("one bit of the newest checkpoint is another"),
    "checkpoint.zero_block": _damage("a block of the newest checkpoint is zeros"),
    "checkpoint.truncate": _damage("a file of the newest checkpoint is cut short"),
    "checkpoint.missing_shard": _damage("a file of the newest checkpoint is gone"),
    "checkpoint.stale_shard": _damage("a shard of the checkpoint before, with its manifest"),
    "checkpoint.torn_manifest": _damage("the newest checkpoint's manifest is torn"),
}  # fmt: skip

# What no rank survives: nobody can expect it to go unnoticed.
DEADLY = (
    "rank.kill", "rank.terminate", "rank.abort", "rank.segfault", "rank.raise", "rank.hang", "rank.livelock",
    "rank.out_of_memory", "node.power_off", "node.kill_processes",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One declared fault of a case; exactly one target and one trigger are set.

    ``kind`` is what will be done on this site; ``requested_kind`` is what the campaign asked for. They
    differ only where the campaign allowed a substitute (``instead:``) and the site lacks the means.
    """

    fault_id: str
    kind: str
    requested_kind: str
    expect: str  # one of EXPECTATIONS
    because: str = ""  # failed: what the reason must hold
    rank: int = -1  # target: a rank of the world,
    node: int = -1  # or an index into the attempt's nodes (0 is the batch host),
    nodes: tuple[int, ...] = ()  # or several of these,
    role: str = ""  # or one of ROLES
    at_step: int = -1  # trigger: rank kinds when the rank begins it, others when every rank has begun it,
    at_s: float = -1.0  # or so many seconds after the case's first step,
    at_event: str = ""  # or a moment, RECOVERY included,
    at_count: int = 1  # at its n-th time
    duration_s: float = 0.0  # 0: it does not end by itself
    series: str = ""  # faults of one declaration with `count` have the same
    after: tuple[str, ...] = ()  # ids of faults that must have struck in an earlier attempt
    params: Mapping[str, Any] = field(default_factory=dict)
    may_miss: bool = False  # of a random process in time: the case may end before it strikes

    @property
    def target(self) -> str:
        """What it hits, in words."""
        if self.role:
            return self.role.replace("_", " ")
        if self.nodes:
            return "nodes " + ", ".join(map(str, self.nodes))
        return f"rank {self.rank}" if self.rank >= 0 else f"node {self.node}" if self.node >= 0 else "the job"

    @property
    def trigger(self) -> str:
        """When it strikes, in words."""
        if self.at_event:
            return f"{self.at_event}, time {self.at_count}"
        return f"step {self.at_step}" if self.at_step >= 0 else f"{self.at_s:g} s after the first step"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fault:
        """Rebuild a fault from its fields as JSON."""
        values = dict(data)
        if "target_node" in values:  # of runs planned before there were other targets
            values["node"] = values.pop("target_node")
        return cls(**{**values, **{name: tuple(values.get(name, ())) for name in ("nodes", "after")}})
