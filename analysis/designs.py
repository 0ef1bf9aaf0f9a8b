"""What a campaign repeated until it was enough, and what it compared: from the file alone, as it was planned."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from analysis import gates
from analysis.results import CampaignResults, Row, names, samples_of
from harness.model.design import Comparison, Lot, Question
from harness.model.event import COMPARISON_PLANNED, LOT_PLANNED, REPEATS_WEIGHED
from harness.model.metrics import METRICS, NEITHER
from harness.store import StoreError

T = TypeVar("T")
NOT_RUN = "it was not run"


def lots(results: CampaignResults) -> tuple[Lot, ...]:
    """What was repeated until it was enough.

    Raises:
        StoreError: the file does not say it as it should.
    """
    return _planned(results, LOT_PLANNED, Lot.from_json)


def comparisons(results: CampaignResults) -> tuple[Comparison, ...]:
    """What was compared.

    Raises:
        StoreError: the file does not say it as it should.
    """
    return _planned(results, COMPARISON_PLANNED, Comparison.from_json)


def _planned(results: CampaignResults, kind: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    try:
        return tuple(read(json.loads(event["data"])) for event in results.events if event["kind"] == kind)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        words = f"{type(error).__name__}: {error}"
        raise StoreError(f"{results.path}: an event {kind} is not as it should be ({words})") from None


def stopped(results: CampaignResults, lot: Lot) -> str:
    """Why no more repeats of a lot were run, as the driver wrote it; "" where all were, or are still to be."""
    for event in results.events:
        if event["kind"] == REPEATS_WEIGHED:
            said = json.loads(event["data"])
            if said.get("name") == lot.name and said.get("answer") != "more":
                return str(said.get("why", ""))
    return ""


@dataclass(frozen=True)
class Figure:
    """One case's figure; None with the reason in ``why``."""

    value: float | None
    unit: str = ""
    why: str = ""


def figure(results: CampaignResults, case_id: str, question: Question) -> Figure:
    """The figure of a case that a lot or a comparison is about.

    Raises:
        StoreError: the samples are damaged.
    """
    case = results.case(case_id)
    if case is None:
        return Figure(None, why=NOT_RUN)
    if not results.of_case("attempts", case_id):
        return Figure(None, why=NOT_RUN)
    asked = {"metric": question.metric, "statistic": question.statistic, "where": question.where}
    try:
        value, _, unit = gates.figure(results, case, asked)
    except gates.NoFigure as error:
        return Figure(None, why=str(error))
    return Figure(value, unit)


def node_hours(results: CampaignResults, group: str) -> float:
    """What the cases of a group took, twins included."""
    return node_hours_of(results, {case["case_id"] for case in results.cases if case["group"] == group})


def node_hours_of(results: CampaignResults, case_ids: Set[str]) -> float:
    """What these cases took: nodes times the time of each attempt."""
    rows = (results.attempts[number] for number in results.own_attempts)
    took: list[float] = [
        len(names(row["nodes"])) * max(0, row["duration_ns"]) / 3.6e12
        for row in rows
        if row["case_id"] in case_ids
    ]
    return sum(took)


def direction(results: CampaignResults, case: Row, metric: str) -> str:
    """Which way a metric is better: as the file says it, else as the harness knows it."""
    table = results.find_column(samples_of(case), metric)
    said = results.facts(samples_of(case), table)[metric].get("direction", "") if table is not None else ""
    return said or (METRICS[metric].direction if metric in METRICS else NEITHER)
