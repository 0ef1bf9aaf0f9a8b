"""Times that no clock gives, and figures that are no numbers: what recorded them is no measurement.

A step takes some time; 0 s, less, NaN or infinity come from a broken clock or a broken program, and would win every
comparison. Parts of a step, such as waiting, may well be 0 and are not asked.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from analysis import text
from analysis.results import CampaignResults, Row, samples_of
from harness.model.metrics import METRICS, NEITHER
from harness.store import SAMPLE_KEYS, Column

# Of each table, the columns that time the whole of what a row is about.
WHOLE = {
    "steps": ("step_time_ns",),
    "collectives": ("elapsed_ns",),
    "products": ("product_ns",),
    "shards": ("write_ns", "read_ns"),
    "program": ("program_time_ns",),
}
_KEYS = frozenset({"step", *(f.name for f in SAMPLE_KEYS)})
_WHOLE_NUMBERS = frozenset(name for name, metric in METRICS.items() if metric.type.startswith(("i", "u")))
_TOLD: WeakKeyDictionary[CampaignResults, dict[str, str]] = WeakKeyDictionary()


def impossible(values: Column, name: str) -> str:
    """Why these are no times, in words; empty where they may be.

    Args:
        values: shape (n,), in any unit.
        name: of one and of many: ``step time`` gives ``3 of 48 step times are not above zero``.
    """
    for bad, words in ((~np.isfinite(values), "finite numbers"), (values <= 0, "above zero")):
        if np.any(bad):
            return f"{int(np.sum(bad))} of {len(values)} {name}s are not {words}"
    return ""


def not_measured(results: CampaignResults, case: Row) -> str:
    """Why the judged times of a case are none, in words; empty where they may be. Asked once, told as often as wanted.

    Raises:
        StoreError: its samples are damaged.
    """
    told = _TOLD.setdefault(results, {})
    if case["case_id"] not in told:
        told[case["case_id"]] = _not_measured(results, case)
    return told[case["case_id"]]


def _not_measured(results: CampaignResults, case: Row) -> str:
    home = samples_of(case)
    for table, columns in WHOLE.items():
        known = results.facts(home, table) if results.has_samples(home, table) else {}
        mine = [c for c in columns if c in known]
        samples = results.judged(case["case_id"], table, mine) if mine else {}
        for column in mine:
            name = "step time" if column == "step_time_ns" else f"value of {column}"
            if why := impossible(samples[column], name).replace(f"value of {column}s", f"values of {column}"):
                return f"{why}: no clock gives that"
    return ""


def not_finite(results: CampaignResults, case: Row) -> str:
    """Which figure of merit of a case, the median over its judged samples, is no finite number; empty without one.

    Raises:
        StoreError: its samples are damaged.
    """
    home = samples_of(case)
    for workload, table in results.sample_tables:
        if workload != home:
            continue
        facts = results.facts(home, table)
        mine = [
            n
            for n, of in facts.items()
            if n not in _KEYS and n not in _WHOLE_NUMBERS and of.get("direction", NEITHER) != NEITHER
        ]
        samples = results.judged(case["case_id"], table, mine) if mine else {}
        for name in mine:
            held = samples[name]
            if held.dtype.kind == "f" and len(held) and not np.isfinite(np.median(held)):
                over = text.count(len(held), "sample")
                return f"{name} is no finite number: its median over {over} is {np.median(held)}"
    return ""
