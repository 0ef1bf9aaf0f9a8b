"""How good the detectors were: what they noticed of what was there, whom they blamed, and what they made up.

A fault is theirs to notice when it hit a rank or a node, its effect was observed, and it was not meant to be ridden
out. A detection is right when such a fault was going on; with none going on, or while a decoy or a control was, it is a
false alarm (on a real cluster it may have been a failure that nobody commanded). Cases without a fault count too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from analysis import text
from analysis.results import CampaignResults, Row, names, samples_of
from harness.model.fault import FAILED, RECOVERED
from harness.store import Column

_THEIRS = ("rank.", "node.")
_DAY_NS = 86_400 * 10**9
_MOST_FLAGS = 200_000_000  # bytes that counting steps may take


@dataclass(frozen=True)
class Score:
    """The detectors over a whole campaign; a share without cases to take it from is None.

    ``confusion`` counts (kind of fault, what was said of whom): right, another target, or missed; for false alarms the
    kind is that of the decoy or control, or "nothing".
    """

    faults: int  # that were theirs to notice
    noticed: int
    blamed: int  # of these, with the right target
    detections: int
    false_alarms: int
    precision: float | None
    recall: float | None
    decoys: int  # faults that were to be ridden out, and controls
    clean_cases: int  # without any fault
    node_days: float
    steps: int
    per_node_day: float | None
    per_step: float | None
    confusion: tuple[tuple[str, str, int], ...]

    @property
    def words(self) -> str:
        """In one line."""
        recall, precision = (
            text.percent(v) if v is not None else "unknown" for v in (self.recall, self.precision)
        )
        return (
            f"noticed {self.noticed} of {text.count(self.faults, 'fault')} (recall {recall}), the right target "
            f"blamed for {self.blamed}; {text.count(self.false_alarms, 'false alarm')} among "
            f"{text.count(self.detections, 'detection')} (precision {precision}), in {self.steps:,} steps, "
            f"{text.digits(self.node_days)} node-days, "
            f"{text.count(self.decoys, 'decoy or control', 'decoys or controls')} "
            f"and {text.count(self.clean_cases, 'case')} without a fault"
        )


def theirs(fault: Row) -> bool:
    """Whether a fault is one that detectors must notice."""
    return bool(
        fault["observed"] and fault["expect"] in (RECOVERED, FAILED) and fault["kind"].startswith(_THEIRS)
    )


def score(results: CampaignResults) -> Score:
    """The detectors of a campaign, scored.

    Raises:
        StoreError: the samples are damaged.
    """
    by_id = {f["fault_id"]: f for f in results.faults}
    mine = [f for f in results.faults if theirs(f)]
    noticed = [f for f in mine if f["detected_wall_ns"] > 0]
    false = [d for d in results.detections if not _right(by_id.get(d["fault_id"]))]
    confusion: Counter[tuple[str, str]] = Counter((f["kind"], _said(f)) for f in mine)
    for d in false:
        decoy = by_id.get(d["fault_id"])
        confusion[decoy["kind"] if decoy else "nothing", f"{d['what'] or 'something'}, a false alarm"] += 1
    days = _node_days(results)
    steps = _steps(results)
    true = len(results.detections) - len(false)
    return Score(
        faults=len(mine),
        noticed=len(noticed),
        blamed=sum(f["blamed_wall_ns"] > 0 for f in noticed),
        detections=len(results.detections),
        false_alarms=len(false),
        precision=true / len(results.detections) if results.detections else None,
        recall=len(noticed) / len(mine) if mine else None,
        decoys=sum(bool(f["observed"]) and f["expect"] not in (RECOVERED, FAILED) for f in results.faults),
        clean_cases=sum(
            not results.of_case("faults", case_id)
            for case_id in {results.attempts[n]["case_id"] for n in results.own_attempts}
        ),
        node_days=days,
        steps=steps,
        per_node_day=len(false) / days if days > 0 else None,
        per_step=len(false) / steps if steps else None,
        confusion=tuple((kind, said, n) for (kind, said), n in sorted(confusion.items())),
    )


def _right(fault: Row | None) -> bool:
    return fault is not None and fault["expect"] in (RECOVERED, FAILED)


def _said(fault: Row) -> str:
    """What became of a fault that was theirs, in words."""
    if fault["detected_wall_ns"] <= 0:
        return "missed"
    what = fault["detector"] or "noticed by its end alone"
    if fault["blamed_wall_ns"] > 0:
        return f"{what}, the right target"
    return f"{what}, another target" if fault["blamed"] else what


def _node_days(results: CampaignResults) -> float:
    total = 0
    for attempt in (results.attempts[n] for n in results.own_attempts):
        nodes = len(dict.fromkeys(names(attempt["rank_nodes"]) or names(attempt["nodes"])))
        total += nodes * max(0, attempt["duration_ns"])
    return float(total) / _DAY_NS


def _steps(results: CampaignResults) -> int:
    """Steps that jobs did, repeats included: a step of all ranks is one."""
    total = 0
    for home in {samples_of(case) for case in results.cases}:
        if results.has_samples(home, "steps"):
            samples = results.samples(home, "steps", ["attempt", "step"])
            own = np.isin(samples["attempt"], results.own_attempts)
            total += _distinct(samples["attempt"][own], samples["step"][own])
    return total


def _distinct(attempt: Column, step: Column) -> int:
    """How many different pairs there are; counted without sorting where their range allows."""
    if not len(step):
        return 0
    length = int(step.max()) - int(step.min()) + 1
    keys = attempt.astype(np.int64) * length + (step.astype(np.int64) - int(step.min()))
    first, last = int(keys.min()), int(keys.max())
    if last - first > _MOST_FLAGS:
        return len(np.unique(keys))
    seen = np.zeros(last - first + 1, dtype=bool)
    seen[keys - first] = True
    return int(np.count_nonzero(seen))
