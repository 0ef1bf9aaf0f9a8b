"""Gates: a declared limit on a statistic of one metric, over a case's own judged samples.

A figure of performance (a time, a rate, a use of the machine) judges nothing on an emulated cluster or with
more ranks than cores: it is computed, stamped, and shown. A figure of the answer (a loss, a residual) is
judged everywhere. What cannot be computed is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import collectives, text
from analysis.load import CampaignResults, Row, samples_of
from analysis.series import statistic
from harness.model.metrics import METRICS
from harness.model.verdict import Verdict
from harness.store import Column, Table

# Units of figures that depend on the machine and not on the answer: times, uses, and all rates.
PERFORMANCE_UNITS = frozenset({"ns", "us", "ms", "s", "min", "h", "%", "W", "J", "kWh", "degC", "MHz", "GHz"})
_RATE = re.compile(r"/ ?(s|sec|min|h|day)$|^[kMGTPE]?(flops?|iops|ips|bps|teps|updates)$", re.IGNORECASE)
_BANDWIDTHS = ("algorithm_bandwidth_bytes_per_s", "bus_bandwidth_bytes_per_s")


@dataclass(frozen=True)
class GateResult:
    """What one gate says; ``verdict`` is None when it is shown for information only."""

    verdict: Verdict | None
    words: str


def is_performance(unit: str) -> bool:
    """Whether a figure of that unit depends on the machine, and not on the answer alone."""
    return unit in PERFORMANCE_UNITS or bool(_RATE.search(unit))


class NoFigure(Exception):
    """The figure that a gate limits cannot be computed; the message says why."""


def _filtered(samples: Table, where: Mapping[str, Any]) -> Table:
    keep = np.ones(len(samples["case"]), dtype=bool)
    for column, wanted in where.items():
        if column not in samples:
            raise NoFigure(f"its samples have no column {column}")
        keep &= np.asarray(samples[column] == wanted)
    return {name: values[keep] for name, values in samples.items()}


def _bandwidth(results: CampaignResults, case: Row, metric: str, where: Mapping[str, Any]) -> Column:
    """Bandwidth of each judged iteration, slowest rank, in bytes/s; shape (n,)."""
    if not results.has_samples(samples_of(case), collectives.TABLE):
        raise NoFigure(f"{case['workload']} recorded no table {collectives.TABLE}")
    if set(where) - {"message_bytes"}:
        raise NoFigure(f"a bandwidth can be chosen by message_bytes only, not by {sorted(where)}")
    wanted = where.get("message_bytes")
    sizes = [s for s in collectives.sizes(results, case) if wanted is None or s == wanted]
    values = []
    for size in sizes:
        times_ns, _ = collectives.iterations(results, case, size)
        values.append(size / (times_ns[times_ns > 0] / 1e9))
    factor = 1.0
    if metric == "bus_bandwidth_bytes_per_s":
        factor = collectives.bus_factor(collectives.operation(case), case["ranks"])
    return np.concatenate([*values, np.array([])]) * factor


def figure(results: CampaignResults, case: Row, gate: Mapping[str, Any]) -> tuple[float, int, str]:
    """The statistic that a gate limits, its number of samples, and its unit.

    Raises:
        NoFigure: the metric was not recorded, or no sample is left.
        StoreError: the samples are damaged.
    """
    metric, where = gate["metric"], gate.get("where") or {}
    if results.completed(case["case_id"]) is None:
        raise NoFigure("the case did not complete")
    if metric in _BANDWIDTHS:
        values, unit = _bandwidth(results, case, metric, where), METRICS[metric].unit
    else:
        table = results.find_column(samples_of(case), metric)
        if table is None:
            raise NoFigure(f"{case['workload']} recorded no {metric}")
        values = _filtered(results.judged(case["case_id"], table), where)[metric]
        unit = results.facts(samples_of(case), table)[metric].get("unit", "")
    if not len(values):
        raise NoFigure("no sample is left after the warm-up and its filter")
    try:
        return statistic(gate["statistic"], values), len(values), unit
    except ValueError as error:
        raise NoFigure(str(error)) from None


def words(gate: Mapping[str, Any]) -> str:
    """The gate for people: ``median step_time_ns (message_bytes = 65536)``."""
    where = ", ".join(f"{k} = {v}" for k, v in (gate.get("where") or {}).items())
    return f"{gate['statistic']} {gate['metric']}" + (f" ({where})" if where else "")


def _limits(gate: Mapping[str, Any], unit: str) -> str:
    parts = []
    if gate.get("minimum") is not None:
        parts.append(f"at least {text.quantity(gate['minimum'], unit)}")
    if gate.get("maximum") is not None:
        parts.append(f"at most {text.quantity(gate['maximum'], unit)}")
    return " and ".join(parts)


def check(results: CampaignResults, case: Row, gate: Mapping[str, Any]) -> GateResult:
    """Judge one gate (JSON of ``harness.model.case.Gate``).

    Raises:
        StoreError: the samples are damaged.
    """
    name = words(gate)
    if gate["metric"] in _BANDWIDTHS and case["ranks"] < 2:
        return GateResult(None, f"gate {name} does not apply: one rank sends nothing")
    minimum, maximum = gate.get("minimum"), gate.get("maximum")
    if minimum is None and maximum is None:
        return GateResult(Verdict.UNKNOWN, f"gate {name} limits nothing")
    try:
        value, n, unit = figure(results, case, gate)
    except NoFigure as error:
        return GateResult(Verdict.UNKNOWN, f"gate {name} cannot be judged: {error}")
    shown = f"gate {name}: {text.quantity(value, unit)} over {text.count(n, 'sample')}"
    shown = f"{shown}, limit {_limits(gate, unit)}"
    if not np.isfinite(value):
        return GateResult(Verdict.UNKNOWN, f"{shown}: not a finite number")
    holds = (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
    if is_performance(unit) and results.stamp:
        if results.flag("emulated") is None and not results.flag("oversubscribed"):
            return GateResult(Verdict.UNKNOWN, f"{shown}: {results.stamp}, so it judges nothing")
        kept = "would hold" if holds else "would not hold"
        return GateResult(None, f"{shown}: {kept} ({results.stamp}: for information)")
    if holds:
        return GateResult(Verdict.PASS, f"{shown}: holds")
    return GateResult(Verdict.FAIL, f"{shown}: does not hold")
