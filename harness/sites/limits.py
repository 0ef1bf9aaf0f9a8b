"""Limits of accounts and of qualities of service -> what a site file may ask for. Pure.

Slurm counts nodes, processors and GPUs; a site file counts nodes, minutes and jobs in the queue, so that a
limit of 12 processors is one of 3 nodes where nodes have 4. A limit of all jobs together (``shared``) passes
when others end, unless one job alone is beyond it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.sites import texts
from harness.sites.texts import Bound, Limit

NODES, TIME, JOBS = "limits.max_nodes", "limits.max_time_min", "limits.max_jobs_in_queue"
_SHARED = re.compile(r"(Assoc|QOS)(Grp(Node|Cpu|GRES)|Max(Node|Cpu|GRES)Per(User|Account))(Limit)?")


@dataclass(frozen=True)
class Ceiling:
    """The most that a limit leaves for one key of a site file."""

    key: str
    most: int
    said: str  # where it stands, and how
    shared: bool = False


def enforced(config: Mapping[str, str]) -> bool:
    """Whether Slurm holds users to limits."""
    words = texts.first(config, "AccountingStorageEnforce").lower()
    return any(word in words for word in ("limits", "safe", "all"))


def bounds(
    own: Sequence[Limit], accounts: Mapping[str, Limit], qualities: Sequence[Limit]
) -> list[tuple[Bound, str]]:
    """Every limit on jobs of these associations, with its source, in the order in which Slurm asks them."""
    found = [(b, f"sacctmgr show qos {q.name}") for q in qualities for b in q.bounds]
    for one in own:
        found += [(b, f"sacctmgr show assoc, account {one.name}") for b in one.bounds]
    for name in dict.fromkeys(n for one in own for n in _line(one.name, accounts)):
        found += [
            (b, f"sacctmgr show assoc, all of account {name}") for b in accounts[name].bounds if b.shared
        ]
    return found


def _line(name: str, accounts: Mapping[str, Limit]) -> list[str]:
    """An account and those above it."""
    found: list[str] = []
    while name in accounts and name not in found:
        found.append(name)
        name = accounts[name].parent
    return found


def effective(found: Iterable[tuple[Bound, str]]) -> list[tuple[Bound, str]]:
    """Without those that a quality of service overrules: it may set a limit anew, and so may allow more."""
    kept: list[tuple[Bound, str]] = []
    ruled: dict[tuple[str, bool, str], str] = {}
    for bound, source in found:
        name = (bound.what, bound.shared, bound.field)
        first = ruled.setdefault(name, source)
        if first == source or not first.startswith("sacctmgr show qos"):
            kept.append((bound, source))
    return kept


def ceilings(found: Iterable[tuple[Bound, str]], *, cpus: int | None, gpus: int) -> list[Ceiling]:
    """What they leave for a site file; ``cpus`` of one node that a job has for itself, None where it shares."""
    each = {"nodes": 1, "cpus": cpus, "gpus": gpus}
    result = []
    for bound, source in found:
        said = f"{source}: {bound.said}"
        if bound.what in each and (per_node := each[bound.what]):
            if per_node > 1:
                said += f", and a node has {per_node}"
            result.append(Ceiling(NODES, bound.most // per_node, said, bound.shared))
        elif bound.what == "time_min":
            result.append(Ceiling(TIME, bound.most, said, bound.shared))
        elif bound.what == "jobs":
            result.append(Ceiling(JOBS, bound.most, said, bound.shared))
    return result


def too_many(reason: str, nodes: int, known: Iterable[Ceiling]) -> bool:
    """Whether a job waits for a limit of all jobs together that it alone is beyond."""
    return _SHARED.fullmatch(reason) is not None and any(
        c.key == NODES and c.shared and c.most < nodes for c in known
    )
