"""Gates: a declared limit on a statistic of one metric, over a case's own judged samples.

A time that each rank records in a step is that of the slowest rank of each step, as in every comparison
(``analysis.repeats``). Samples at several values of a coordinate are not pooled: ``where`` must choose.
A figure of performance (a time, a rate, a use of the machine) judges nothing on an emulated cluster or with
more ranks than cores: it is computed, stamped, and shown. A figure of the answer (a loss, a residual) is
judged everywhere. What cannot be computed is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import collectives, repeats, text
from analysis.results import CampaignResults, Row, samples_of
from analysis.series import rate_statistic, statistic
from analysis.units import is_performance as is_performance
from harness.model.metrics import BANDWIDTHS, METRICS
from harness.model.verdict import Verdict
from harness.store import Column, Table


@dataclass(frozen=True)
class GateResult:
    """What one gate says; ``verdict`` is None when it is shown for information only."""

    verdict: Verdict | None
    words: str


class NoFigure(Exception):
    """The figure that a gate limits cannot be computed; the message says why."""


def _filtered(samples: Table, where: Mapping[str, Any]) -> Table:
    keep = np.ones(len(samples["case"]), dtype=bool)
    for column, wanted in where.items():
        if column not in samples:
            raise NoFigure(f"its samples have no column {column}")
        keep &= np.asarray(samples[column] == wanted)
    return {name: values[keep] for name, values in samples.items()}


def _of_collective(results: CampaignResults, case: Row, metric: str, where: Mapping[str, Any]) -> Column:
    """Values of a figure that is formed from the raw times of a collective."""
    try:
        return collectives.figure(results, case, metric, where)
    except collectives.NoFigure as error:
        raise NoFigure(str(error)) from None


def _of_samples(
    results: CampaignResults, case: Row, metric: str, where: Mapping[str, Any]
) -> tuple[Column, str]:
    """What the statistic of a recorded metric is taken of, at least one value, and its unit."""
    home = samples_of(case)
    table = results.find_column(home, metric)
    if table is None:
        raise NoFigure(f"{case['workload']} recorded no {metric}")
    samples = _filtered(results.judged(case["case_id"], table), where)
    if not len(samples[metric]):
        raise NoFigure("no sample is left after the warm-up and its filter")
    facts = results.facts(home, table)
    for name in repeats.coordinates(home, table, facts):
        if name != metric and (why := repeats.not_pooled(name, np.unique(samples[name]))):
            raise NoFigure(why)
    ranks = len(np.unique(samples["rank"])) if {"rank", "node"} & set(where) else case["ranks"]
    values = repeats.values_of(samples, table, metric, facts[metric], ranks)
    if not len(values):
        raise NoFigure("no step is left that every rank reported")
    return values, facts[metric].get("unit", "")


def figure(results: CampaignResults, case: Row, gate: Mapping[str, Any]) -> tuple[float, int, str]:
    """The statistic that a gate limits, its number of samples, and its unit.

    Raises:
        NoFigure: the metric was not recorded, or no sample is left.
        StoreError: the samples are damaged.
    """
    metric, where = gate["metric"], gate.get("where") or {}
    if results.completed(case["case_id"]) is None:
        raise NoFigure("the case did not complete")
    if metric in collectives.FIGURES:
        values, unit = _of_collective(results, case, metric, where), METRICS[metric].unit
    else:
        values, unit = _of_samples(results, case, metric, where)
    try:
        of = rate_statistic if metric in BANDWIDTHS else statistic
        return of(gate["statistic"], values), len(values), unit
    except ValueError as error:
        raise NoFigure(str(error)) from None


def facts(results: CampaignResults, case: Row, metric: str) -> dict[str, str]:
    """Unit, direction and definition of a metric as the file has them; empty where it has no such metric."""
    if metric in collectives.FIGURES:
        known = METRICS[metric]
        return {"unit": known.unit, "direction": known.direction, "definition": known.definition}
    table = results.find_column(samples_of(case), metric)
    return {} if table is None else results.facts(samples_of(case), table)[metric]


def words(gate: Mapping[str, Any]) -> str:
    """The gate for people: ``median step_time_ns (message_bytes = 65536)``."""
    where = ", ".join(f"{k} = {v}" for k, v in (gate.get("where") or {}).items())
    return f"{gate['statistic']} {gate['metric']}" + (f" ({where})" if where else "")


def limit_words(gate: Mapping[str, Any], unit: str) -> str:
    """The limits of a gate, for people."""
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
    if gate["metric"] in collectives.FIGURES and case["ranks"] < 2:
        return GateResult(None, f"gate {name} does not apply: one rank sends nothing")
    minimum, maximum = gate.get("minimum"), gate.get("maximum")
    if minimum is None and maximum is None:
        return GateResult(Verdict.UNKNOWN, f"gate {name} limits nothing")
    try:
        value, n, unit = figure(results, case, gate)
    except NoFigure as error:
        return GateResult(Verdict.UNKNOWN, f"gate {name} cannot be judged: {error}")
    shown = f"gate {name}: {text.quantity(value, unit)} over {text.count(n, 'sample')}"
    shown = f"{shown}, limit {limit_words(gate, unit)}"
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
