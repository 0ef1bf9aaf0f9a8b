"""What was found out about a cluster, and which of its nodes a site file is about. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.sites.texts import Limit, Mount, Node, SlurmPartition

CHECK = "check this line"


class NoPartition(Exception):
    """There is nothing to write a file about; the message says why and what there is."""


@dataclass(frozen=True)
class Facts:
    """What was found out. A text that is empty was not told; ``trouble`` says why, by command."""

    config: Mapping[str, str]
    partitions: tuple[SlurmPartition, ...]
    nodes: tuple[Node, ...]
    visible: Mapping[str, int]
    associations: tuple[Limit, ...]
    qualities: Mapping[str, Limit]
    accounts: Mapping[str, Limit]  # those above the associations, by name
    mpi: tuple[str, ...]
    mpi_library: str
    mounts: tuple[Mount, ...]
    accounts_answer: bool
    environment: Mapping[str, str]
    python: str
    machine: str
    gpus_here: str = ""
    trouble: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Slurm's version."""
        return self.config.get("SLURM_VERSION", "")


@dataclass(frozen=True)
class Place:
    """A partition, or its nodes of one architecture."""

    key: str  # its name in the file
    partition: SlurmPartition
    nodes: tuple[Node, ...]  # usable ones, of one architecture
    all_nodes: int
    architecture: str
    constraint: str
    split: str = ""  # what was said of its being one of several


def slug(text: str) -> str:
    """A name as site files have them."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "cluster"


def chosen(facts: Facts, wanted: Sequence[str]) -> list[SlurmPartition]:
    """Partitions that the file is about: those wanted, else the cluster's default.

    Raises:
        NoPartition: one that is wanted is not there.
    """
    known = {p.name: p for p in facts.partitions}
    if wanted:
        missing = [name for name in wanted if name not in known]
        if missing:
            raise NoPartition(
                f"partition {', '.join(missing)}: this cluster has none of that name; there are: "
                f"{', '.join(sorted(facts.visible or known)) or 'none'}"
            )
        return [known[name] for name in dict.fromkeys(wanted)]
    usable = [
        p
        for p in facts.partitions
        if p.up
        and not p.root_only
        and not p.reservation_needed
        and (p.name in facts.visible or not facts.visible)
    ]
    return sorted(usable, key=lambda p: not p.default)[:1]


def places_of(facts: Facts, partition: SlurmPartition) -> list[Place]:
    """The partition's usable nodes, parted by architecture, the commonest first."""
    members = [n for n in facts.nodes if partition.name in n.partitions]
    usable = [n for n in members if n.in_service]
    counts = Counter(n.architecture for n in usable)
    found: list[Place] = []
    for architecture, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        own = tuple(n for n in usable if n.architecture == architecture)
        others = [n for n in usable if n.architecture != architecture]
        total = sum(n.architecture == architecture for n in members)
        constraint = _telling_feature(own, others) if others else ""
        split = ""
        if others:
            split = (
                f"its nodes are of {len(counts)} architectures; the feature {constraint} keeps jobs to {architecture}"
                if constraint
                else f"its nodes are of {len(counts)} architectures, and no feature tells them apart; {CHECK}"
            )
        key = slug(f"{partition.name}-{architecture}" if found else partition.name)
        found.append(Place(key, partition, own, total, architecture, constraint, split))
    return found


def _telling_feature(own: Sequence[Node], others: Sequence[Node]) -> str:
    common = set(own[0].features).intersection(*(n.features for n in own))
    candidates = common.difference(*(n.features for n in others))
    return min(candidates, key=lambda f: (len(f), f), default="")
