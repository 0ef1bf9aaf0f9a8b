"""Figures over many faults: quantiles with their counts, intervals of rates, and tables by policy and by kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.model.fault import RECOVERED

if TYPE_CHECKING:
    from analysis.recovery import Recovery


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion, 95 % by default (Wilson 1927); (0, 1) when nothing was tried."""
    if trials <= 0:
        return 0.0, 1.0
    p, zz = successes / trials, z * z / trials
    centre = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / trials + zz / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def of(values: Sequence[float | None]) -> dict[str, Any] | None:
    """p50, p95, max and count of the known ones; None when there is none."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    return {
        "p50": float(np.percentile(known, 50)),
        "p95": float(np.percentile(known, 95)),
        "max": max(known),
        "n": len(known),
    }


# Figure of one recovery -> how it is called.
FIGURES: tuple[tuple[str, str], ...] = (
    ("detection_s", "detection latency"),
    ("attribution_s", "attribution latency"),
    ("time_to_restart_s", "time to restart"),
    ("time_to_recover_s", "time to recover"),
    ("degraded_tail_s", "degraded tail"),
)


@dataclass(frozen=True)
class Row:
    """Faults of one policy, or of one kind: how many, how they ended, and the quantiles of each figure in s.

    Of times, only faults count that were observed and had to be recovered from; ``censored`` of them never were.
    """

    name: str
    faults: int
    observed: int
    healed: int
    counted: int
    recovered: int
    censored: int
    rate_95: tuple[float, float]
    figures: dict[str, dict[str, Any] | None]


def _row(name: str, found: Sequence[Recovery]) -> Row:
    counted = [r for r in found if r.observed and r.expect == RECOVERED]
    recovered = [r for r in counted if r.stamp("t8").after_s is not None]
    return Row(
        name=name,
        faults=len(found),
        observed=sum(r.observed for r in found),
        healed=sum(r.healed or not r.healable for r in found if r.observed),
        counted=len(counted),
        recovered=len(recovered),
        censored=len(counted) - len(recovered),
        rate_95=wilson(len(recovered), len(counted)),
        figures={figure: of([getattr(r, figure) for r in counted]) for figure, _ in FIGURES},
    )


def table(found: Sequence[Recovery], key: Callable[[Recovery], str]) -> tuple[Row, ...]:
    """Recoveries in groups, by name."""
    groups: dict[str, list[Recovery]] = {}
    for r in found:
        groups.setdefault(key(r) or "unknown", []).append(r)
    return tuple(_row(name, groups[name]) for name in sorted(groups))
