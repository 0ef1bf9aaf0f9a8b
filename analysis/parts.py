"""Where the time of a step goes: computing, communication, waiting, and what they leave; and which of them grows.

A step takes as long as its slowest rank. Computing, communication and waiting are means over ranks of what the workload
recorded; the rest is what the slowest rank took longer than that mean, and what nobody accounts for. Efficiencies are
of medians, over steps and then over repeats, so the parts are medians too, and the rest is what they leave of the
median time: in a mean a few slow steps would rule. Where parts change against each other it may be below zero. What
scaling loses is told by the same parts: efficiency and the shares lost to each add up to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import text
from analysis.results import CampaignResults, Row, samples_of
from analysis.series import total
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
    """Each part's share of the median step's time, in the order of ``COLUMNS``, and the rest; they add up to 1.

    Args:
        samples: judged samples of one case with the columns that ``columns`` gives.
        steps: steps that every rank reported.
        slowest_ns: time of each of them.
        ranks: world size.
    """
    median_ns = float(np.median(slowest_ns))
    found = {}
    for name, column in COLUMNS.items():
        if column in samples:
            found[name] = float(np.median(total(samples, column, steps))) / ranks / median_ns
    if "waiting" not in found:
        found[_BOTH] = found.pop("communication")
    found[REST] = 1 - sum(found.values())
    return found


def of_repeats(shares_of: Sequence[Mapping[str, float]], times_s: Sequence[float]) -> dict[str, float]:
    """Shares of the median time over repeats: of each part the median over repeats, and the rest.

    Args:
        shares_of: each repeat's shares; all of the same parts.
        times_s: their times, above zero.
    """
    median_s = float(np.median(times_s))
    found = {
        name: float(np.median([s[name] * t for s, t in zip(shares_of, times_s, strict=True)])) / median_s
        for name in shares_of[0]
        if name != REST
    }
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
        """In one line, every part, the largest first: what is shown adds up to the loss that is shown."""
        count = text.count(self.nodes, "node")
        if self.efficiency >= 0.995:
            return f"{count}: nothing lost"
        shown = _tenths(self.parts, 1 - self.efficiency)
        told = [
            f"{tenths / 10:.1f} % to {_NAMES.get(name, name)}"
            for name, tenths in sorted(shown.items(), key=lambda item: -item[1])
        ]
        less = [_NAMES.get(name, name) for name, tenths in shown.items() if tenths < 0]
        words = f"{count}: {sum(shown.values()) / 10:.1f} % of the node time lost: {', '.join(told)}"
        verb = "take" if len(less) > 1 else "takes"
        return (
            f"{words} (below zero: {' and '.join(less)} {verb} less of it than at the base)"
            if less
            else words
        )


_NAMES = {REST: "the slowest rank and what is not accounted for"}


def _tenths(shares: Mapping[str, float], total: float) -> dict[str, int]:
    """Shares as tenths of a per cent that add up to the total as it is shown; the largest errors are rounded away."""
    exact = {name: share * 1000 for name, share in shares.items()}
    shown = {name: round(value) for name, value in exact.items()}
    missing = round(total * 1000) - sum(shown.values())
    step = 1 if missing > 0 else -1
    for name in sorted(exact, key=lambda n: step * (shown[n] - exact[n]))[: abs(missing)]:
        shown[name] += step
    return shown


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

    # What another part gains hides none of it: half of all that is lost, and not of what is left in the end.
    gross = {x.nodes: sum(share for share in x.parts.values() if share > 0) for x in found}
    mostly = [x for x in found if x.efficiency < 0.9 and of_others(x.parts) > gross[x.nodes] / 2]
    longer = [n for n, parts in sorted(shares_of.items()) if of_others(parts) > parts["computing"]]
    words = []
    if mostly:
        others = {n: share for n, share in mostly[0].parts.items() if n not in ("computing", REST)}
        largest = max(others, key=lambda name: others[name])
        if others[largest] <= gross[mostly[0].nodes] / 2:
            largest = "communication and waiting"
        words.append(f"from {text.count(mostly[0].nodes, 'node')} on, most of what is lost goes to {largest}")
    if longer:
        words.append(
            f"from {text.count(longer[0], 'node')} on, ranks communicate and wait longer than they compute"
        )
    return "; ".join(words) or "communication and waiting take less than half of what is lost"
