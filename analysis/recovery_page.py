"""The recovery section of the report: plain values, the summary first, then each fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from analysis import (
    detectors,
    recoveries,
    recovery,
    saved,
    spread,
    text,
    timelines,
    usefultime,
)
from analysis.results import CampaignResults, Row

Words = dict[str, Any]

OPEN_STORIES = 4  # with more faults than these, each is folded
FIGURES = 30  # faults whose time line is drawn
STORIES = 240  # faults that are told one by one; those that did not end well go first where there are more


def _buckets(r: recovery.Recovery) -> list[Words]:
    """The buckets of one fault, each with its share of those that are known."""
    known = sum(b.time_s or 0.0 for b in r.buckets) or 1.0
    return [{"bucket": b, "share": 100 * (b.time_s or 0.0) / known} for b in r.buckets]


def _outcome(r: recovery.Recovery) -> tuple[str, str]:
    """What became of a fault, as css class and words."""
    if not r.observed:
        return "invalid", "not observed"
    if r.healable and not r.healed:
        return "fail", "not healed"
    if r.expect != "recovered":
        return "info", r.expect
    if r.stamp("t8").after_s is None:
        return "fail", "never"
    return "pass", "recovered"


def _story(
    results: CampaignResults, r: recovery.Recovery, number: int, attempt: Callable[[Row], Words]
) -> Words:
    css, outcome = _outcome(r)
    healed = r.healed or not r.healable
    return {
        "r": r,
        "css": css,
        "outcome": outcome,
        "facts": (
            ("requested", r.requested, r.stamp("t0")),
            ("observed", r.observed, r.stamp("t1v")),
            ("healed" if r.healable else "nothing to heal", healed, r.stamp("healed")),
        ),
        "buckets": _buckets(r),
        "figure": Markup(timelines.recovery_timeline(results, r)) if number < FIGURES else "",
        "attempts": [attempt(a) for a in timelines.around(results, r)] if number < FIGURES else [],
    }


def _told(found: Sequence[recovery.Recovery]) -> list[recovery.Recovery]:
    """All faults, or where there are too many: first those that did not end well, all in the file's order."""
    if len(found) <= STORIES:
        return list(found)
    ranked = sorted(range(len(found)), key=lambda n: _outcome(found[n])[0] not in ("fail", "invalid"))
    return [found[n] for n in sorted(ranked[:STORIES])]


def _table(rows: Sequence[spread.Row]) -> list[Words]:
    return [{"row": row, "cells": [row.figures[figure] for figure, _ in spread.FIGURES]} for row in rows]


def _share(value: float | None) -> str:
    return text.percent(value) if value is not None else "unknown"


def _useful(b: usefultime.Beside) -> Words:
    wall = b.account.wall_s or 1.0
    return {
        "b": b,
        "measured": _share(b.account.ettr),
        "without_queue": _share(b.account.ettr_without_queue),
        "modelled": _share(b.modelled),
        "modelled_best": _share(b.modelled_best),
        "buckets": [
            (name, usefultime.WORDS[name], value, 100 * value / wall)
            for name, value in b.account.buckets.items()
        ],
    }


def contents(results: CampaignResults, attempt: Callable[[Row], Words]) -> Words:
    """Everything the section shows.

    Args:
        attempt: a row of /attempts as the page shows it.

    Raises:
        StoreError: samples of the file are damaged.
    """
    found = recovery.analyse(results)
    drawn = [
        (case["label"], recoveries.throughput(results, case, found))
        for case in recoveries.chosen(results, found)
    ]
    told = _told(found)
    return {
        "stories": [_story(results, r, number, attempt) for number, r in enumerate(told)],
        "untold": len(found) - len(told),
        "folded": len(found) > OPEN_STORIES,
        "undrawn": max(0, len(told) - FIGURES),
        "overview": recovery.overview(found),
        "policies": _table(spread.table(found, lambda r: r.policy)),
        "kinds": _table(spread.table(found, lambda r: r.kind)),
        "figures": [words for _, words in spread.FIGURES],
        "by_policy": Markup(recoveries.by_policy(found)),
        "throughput": [(label, Markup(figure)) for label, figure in drawn if figure],
        "more_cases": max(0, len({r.case_id for r in found}) - recoveries.MAXIMUM_CASES),
        "score": detectors.score(results),
        "saved": saved.of(results),
        "useful": [_useful(b) for b in usefultime.beside(results, found)],
    }
