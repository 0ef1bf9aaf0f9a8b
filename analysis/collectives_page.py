"""What the report tells of collectives: a panel for each operation. Nothing is computed or judged here."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from analysis import collective_figures, collectives, curves, expected
from analysis.results import CampaignResults

ROWS = 300  # of all tables together
WORDS = 24  # curves of one operation that are told in words
EXPECTED_ROWS = 100  # expected figures of one operation


def contents(results: CampaignResults) -> dict[str, Any]:
    """A panel for each operation: figures, what the site expects, what was fitted, the first of its places in figures.

    Raises:
        StoreError: samples of the file are damaged.
    """
    found: dict[str, list[curves.Curve]] = {}
    for curve in collectives.curves(results):
        found.setdefault(curve.operation, []).append(curve)
    beside = expected.of(results)
    panels = []
    left = ROWS
    for name, mine in found.items():
        rows = [(curve, place) for curve in mine for place in curve.places]
        hoped = [c for c in beside.compared if c.operation == name]
        shared, alone = curves.told(mine)
        panels.append(
            {
                "operation": name,
                "figures": [
                    Markup(drawn)
                    for draw in (collective_figures.bandwidth, collective_figures.time)
                    if (drawn := draw(mine, name, hoped))
                ],
                "undrawn": max(0, len(mine) - collective_figures.MAXIMUM_LINES),
                "expected": hoped[:EXPECTED_ROWS],
                "more_expected": max(0, len(hoped) - EXPECTED_ROWS),
                "shared": shared,
                "words": alone[:WORDS],
                "more_words": max(0, len(alone) - WORDS),
                "rows": rows[: max(0, left)],
                "all": len(rows),
            }
        )
        left -= len(rows)
    return {"panels": panels, "expected": bool(beside.compared), "missing": beside.missing}
