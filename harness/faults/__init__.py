"""Faults done from outside the ranks: one file each. Declared by a campaign, done here, proved by three facts.

``inject`` does it, ``verify_effect`` looks whether it landed, ``heal`` undoes it, ``verify_healed``
looks whether it is undone. A fault knows nothing of workloads, and the supervisor decides when. What a rank
does to itself is in ``harness.runtime.rank_faults``. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Protocol

from harness.model import fault as model


class FaultError(Exception):
    """The fault, or its healing, could not be done; the message says why."""


@dataclass(frozen=True)
class Hit:
    """What one fault hits; on record before it is done, so that anybody can undo it."""

    kind: str
    nodes: tuple[str, ...] = ()  # host names
    rank: int = -1
    duration_s: float = 0.0
    params: Mapping[str, Any] = field(default_factory=dict)
    lease: str = ""  # name of what it leaves outside the job: the fault's id, unique in its run
    checkpoints: str = ""  # folder of the case's checkpoints
    job_id: str = ""  # id of the job in Slurm, 12 or 12_3 (never the plain id of an array); "" without Slurm
    job_nodes: tuple[str, ...] = ()  # all nodes of the allocation

    @property
    def node(self) -> str:
        """The node, or the first of several; "" for a fault that hits none."""
        return self.nodes[0] if self.nodes else ""

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Hit:
        """Rebuild from ``to_json``'s data."""
        values = {**data, "nodes": tuple(data["nodes"]), "job_nodes": tuple(data.get("job_nodes", ()))}
        return cls(**values)


class Tools(Protocol):
    """What the supervisor, or whoever heals from outside the job, lends a fault."""

    async def power(self, action: str, node: str) -> dict[str, Any]:
        """Run the site's power command: ``off``, ``on`` or ``status``; returns what it said under "said".

        Raises:
            FaultError: this site has none, or it failed.
        """

    async def emulated(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Run ``harness cluster`` with these arguments on the emulated cluster; returns the JSON that it printed.

        Raises:
            FaultError: this is no emulated cluster, or it failed.
        """

    async def slurm(self, command: Sequence[str]) -> str:
        """Run one of Slurm's commands; returns its standard output.

        Raises:
            FaultError: this site has no Slurm, or it failed.
        """

    def tell_agent(self, node: str, message: str) -> None:
        """Send the agent of a node a message without content."""

    def lost(self, node: str) -> str:
        """Why the node counts as lost: "" while its agent beats."""

    async def slurm_state(self, node: str) -> str:
        """The node's state as Slurm says it, such as ``IDLE`` or ``DOWN*``; "" on a site without Slurm."""


class FaultKind(Protocol):
    """One kind of fault. Each method returns its evidence, in words, as JSON-ready data."""

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Do it. Raises FaultError when it could not be done."""

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Evidence that the effect is there now, or None: not yet."""

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Undo it; may be called again."""

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Evidence that it is undone now, or None: not yet."""


def create(kind: str) -> FaultKind:
    """The fault of that kind, one that the supervisor does.

    Raises:
        KeyError: there is no such kind.
    """
    if model.KINDS[kind].where != model.JOB:
        raise KeyError(f"{kind} is done by the rank itself")
    module = import_module(f"harness.faults.{kind.replace('.', '_')}")
    fault: FaultKind = module.FAULT()
    return fault
