"""Finding a place for words beside a mark, where they cover no mark, no line and no other words.

Words for which there is no free place near their mark are not drawn: a table beside the figure has the value. Nothing
is drawn here; boxes are ``(left, top, right, bottom)`` in px.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

Box = tuple[float, float, float, float]

HEIGHT = 13.0  # px of a line of words, as large as a phone draws them
_AROUND = (
    (1, -1),
    (-1, -1),
    (0, -1),
    (1, 1),
    (-1, 1),
    (0, 1),
    (1, 0),
    (-1, 0),
)  # right of and above it first
_DISTANCES = (6.0, 11.0, 18.0, 27.0)  # px from the mark
_STEP = 4.0  # px between two boxes along a line


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share more than an edge."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def around(points: Iterable[tuple[float, float]], radius: float) -> list[Box]:
    """Boxes of marks; those without a place (NaN) have none."""
    return [
        (x - radius, y - radius, x + radius, y + radius)
        for x, y in points
        if math.isfinite(x) and math.isfinite(y)
    ]


def along(points: Sequence[tuple[float, float]], half: float = 1.5) -> list[Box]:
    """Small boxes along the straight lines between points: one large box would take what the line leaves free."""
    found: list[Box] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        if math.isfinite(length):
            pieces = max(1, math.ceil(length / _STEP))
            found += around(
                ((x0 + (x1 - x0) * i / pieces, y0 + (y1 - y0) * i / pieces) for i in range(pieces + 1)), half
            )
    return found


def place(mark: tuple[float, float], wide: float, taken: Sequence[Box], bounds: Box) -> Box | None:
    """The box for words ``wide`` px wide, near their mark, inside bounds and on nothing taken; None: no room."""
    x, y = mark
    for distance in _DISTANCES:
        for right, below in _AROUND:
            left = x - wide / 2 + right * (wide / 2 + distance)
            top = y - HEIGHT / 2 + below * (HEIGHT / 2 + distance)
            box = (left, top, left + wide, top + HEIGHT)
            inside = bounds[0] <= left and bounds[1] <= top and box[2] <= bounds[2] and box[3] <= bounds[3]
            if inside and not any(overlap(box, other) for other in taken):
                return box
    return None
