"""Where the time of a step goes: computing, communication, waiting, and what they leave; and which of them grows.

A step takes as long as its slowest rank. Computing, communication and waiting are means over ranks and steps of what
the workload recorded; the rest is what the slowest rank took longer than that mean, and what nobody accounts for. What
scaling loses is told by the same parts: efficiency and the shares lost to each add up to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import text
from analysis.results import CampaignResults, Row, samples_of
from harness.store import Column, Table

COLUMNS = {"computing": "compute_ns", "communication": "communication_ns", "waiting": "waiting_ns"}
REST = "rest"
NEEDED = ("compute_ns", "communication_ns")
NOT_RECORDED = "where the time goes is not recorded: the steps have no compute_ns and communication_ns"
# Before there was waiting_ns, communication_ns held it.
_BOTH = "communication and waiting"


def columns(results: CampaignResults, case: Row) -> list[str]:
    """Columns of the case's steps that tell parts; empty where they are not recorded."""
    if not results.has_samples(samples_of(case), "steps"):
        return []
    known = results.facts(samples_of(case), "steps")
    return [c for c in COLUMNS.values() if c in known] if all(c in known for c in NEEDED) else []


def shares(samples: Table, steps: Column, slowest_ns: Column, ranks: int) -> dict[str, float]:
    """Each part's share of the time of the steps, in the order of ``COLUMNS``, and the rest; they add up to 1.

    Args:
        samples: judged samples of one case with the columns that ``columns`` gives.
        steps: steps that every rank reported.
        slowest_ns: time of each of them.
        ranks: world size.
    """
    whole = np.isin(samples["step"], steps)
    all_ns = float(np.sum(slowest_ns, dtype=np.float64))
    found = {}
    for name, column in COLUMNS.items():
        if column in samples:
            mean_ns = float(np.sum(samples[column][whole], dtype=np.float64)) / ranks
            found[name] = mean_ns / all_ns
    if "waiting" not in found:
        found[_BOTH] = found.pop("communication")
    found[REST] = 1 - sum(found.values())
    return found


@dataclass(frozen=True)
class Lost:
    """What one node count loses against the base, as shares of its node time; they add up to 1 - efficiency."""

    nodes: int
    efficiency: float
    parts: dict[str, float]  # a negative share is one that shrank

    @property
    def words(self) -> str:
        """In one line, the largest first."""
        lost = sorted(self.parts.items(), key=lambda item: -item[1])
        told = [
            f"{text.percent(share)} to {_NAMES.get(name, name)}" for name, share in lost if share >= 0.005
        ]
        count = text.count(self.nodes, "node")
        if self.efficiency >= 0.995 or not told:
            return f"{count}: nothing lost"
        return f"{count}: {text.percent(1 - self.efficiency)} of the node time lost, {', '.join(told)}"


_NAMES = {"computing": "computing more", REST: "the slowest rank and what is not accounted for"}


def lost(
    times_s: Mapping[int, float], shares_of: Mapping[int, Mapping[str, float]], strong: bool
) -> tuple[Lost, ...]:
    """What each node count loses to which part, against the smallest.

    Args:
        times_s: node count -> time of a step.
        shares_of: node count -> shares of that time; the same node counts.
        strong: whether the work is shared out over nodes, or grows with them.
    """
    base = min(times_s)
    before = {name: share * times_s[base] for name, share in shares_of[base].items()}
    found = []
    for nodes, time_s in times_s.items():
        if nodes == base:
            continue
        fewer = base / nodes if strong else 1.0  # what the base's time would be on these nodes
        parts = {
            name: share - before.get(name, 0.0) * fewer / time_s for name, share in shares_of[nodes].items()
        }
        found.append(Lost(nodes, times_s[base] * fewer / time_s, parts))
    return tuple(found)


def eaten(found: Sequence[Lost], shares_of: Mapping[int, Mapping[str, float]]) -> str:
    """From where on communication eats the gain, in words."""

    def of_others(parts: Mapping[str, float]) -> float:
        return sum(share for name, share in parts.items() if name not in ("computing", REST))

    mostly = [x for x in found if x.efficiency < 0.9 and of_others(x.parts) > (1 - x.efficiency) / 2]
    longer = [n for n, parts in sorted(shares_of.items()) if of_others(parts) > parts["computing"]]
    words = []
    if mostly:
        largest = max(mostly[0].parts, key=lambda name: mostly[0].parts[name])
        words.append(f"from {text.count(mostly[0].nodes, 'node')} on, most of what is lost goes to {largest}")
    if longer:
        words.append(
            f"from {text.count(longer[0], 'node')} on, ranks communicate and wait longer than they compute"
        )
    return "; ".join(words) or "communication and waiting take less than half of what is lost"
