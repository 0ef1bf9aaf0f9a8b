"""What is read from a user's program: figures, progress, and whether it said what it must.

Every figure that is found is recorded at once as a raw sample; what is found and is no number is
counted and told. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.model import placeholders
from harness.model.metrics import METRICS, NEITHER, Metric

MAX_SAMPLES = 1_000_000  # of one metric on one rank
SEARCH_S = 10.0  # for one pattern in one line
_SHOWN = 80  # characters of what is no number

Record = Callable[[str, Mapping[str, int | float]], None]


def metric(name: str, unit: str, direction: str = NEITHER, definition: str = "") -> Metric:
    """A metric of a program: the harness's own, where it has one of that name."""
    return METRICS.get(name) or Metric(name, unit, "f8", direction, definition)


def number(text: object) -> float | None:
    """A finite number, or None. ``1,234`` is none: whether it is 1.234 or 1234 only its author knows."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return None
    try:
        value = float(text)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


class TooSlow(Exception):
    """A pattern was looked for in one line for longer than SEARCH_S; the message names it."""


@dataclass
class _Search:
    """The search that is under way; patterns of people's own can take for ever (``(a+)+$``)."""

    pattern: str = ""
    since: float = 0.0


_search = _Search()


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Within it, a search that takes longer than SEARCH_S ends with TooSlow. For the main thread.

    Python's ``re`` minds signals while it searches, so that a timer reaches it.
    """

    def look(number: int, frame: object) -> None:
        if _search.pattern and time.monotonic() - _search.since > SEARCH_S:
            raise TooSlow(
                f"reading what it said with the pattern {_search.pattern!r} took longer than {SEARCH_S:g} s "
                "for one line; write it so that a text matches in one way alone, without repeats within repeats"
            )

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, SEARCH_S, SEARCH_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Searching:
    """Says, while it is entered, which pattern is being looked for."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __enter__(self) -> None:
        self._before = _search.pattern, _search.since
        _search.pattern, _search.since = self._pattern, time.monotonic()

    def __exit__(self, *_: object) -> None:
        _search.pattern, _search.since = self._before


@dataclass
class Reading:
    """One declared metric: what has been seen of it."""

    name: str
    required: bool
    columns: tuple[Metric, ...]
    find: Callable[[str], Iterator[Mapping[str, object]]]  # in a line: each time the values by column name
    samples: int = 0
    last: int | float | None = None  # its newest value
    bad: str = ""  # the first value that was no number
    bad_count: int = 0
    left_out: int = 0

    def take(self, line: str, record: Record, step: Mapping[str, int]) -> None:
        """Record what a line holds of it."""
        for found in self.find(line):
            self.add(found, record, step)

    def add(self, found: Mapping[str, object], record: Record, step: Mapping[str, int]) -> None:
        """Record one sample, or count it as bad."""
        row: dict[str, int | float] = dict(step)
        for column in self.columns:
            if column.name in row:
                continue
            value = number(found.get(column.name))
            if value is None or (column.type == "i8" and not (value.is_integer() and abs(value) < 1 << 63)):
                self.bad_count += 1
                self.bad = self.bad or f"{column.name} = {str(found.get(column.name))[:_SHOWN]!r}"
                return
            row[column.name] = int(value) if column.type == "i8" else value
        if self.samples >= MAX_SAMPLES:
            self.left_out += 1
            return
        self.samples += 1
        self.last = row[self.columns[-1].name]
        record(self.name, row)

    def verdict(self) -> tuple[bool, str, str]:
        """Whether it is as declared; what was expected, and what was seen."""
        expected = "at least one number, and nothing but numbers" if self.required else "nothing but numbers"
        if self.bad_count:
            return (
                False,
                expected,
                f"{self.bad_count} of {self.samples + self.bad_count} are none: {self.bad}",
            )
        if self.left_out:
            return False, f"at most {MAX_SAMPLES} on a rank", f"{self.samples + self.left_out}"
        seen = f"{self.samples} number{'s' * (self.samples != 1)}" if self.samples else "it was never said"
        return bool(self.samples) or not self.required, expected, seen


def by_regex(text: str, name: str) -> Callable[[str], Iterator[Mapping[str, object]]]:
    """Finds every match in a line; the group ``value`` is the metric's own."""
    pattern = re.compile(text)

    def find(line: str) -> Iterator[Mapping[str, object]]:
        with Searching(text):
            for match in pattern.finditer(line):
                groups: dict[str, object] = dict(match.groupdict())
                groups[name] = groups.pop("value")
                yield groups

    return find


def by_key(
    key: str, name: str, coordinates: Sequence[str]
) -> Callable[[str], Iterator[Mapping[str, object]]]:
    """Finds a key of lines that are JSON objects; coordinates are keys beside it, or else at the top."""
    *path, last = key.split(".")

    def find(line: str) -> Iterator[Mapping[str, object]]:
        if not line.lstrip().startswith("{"):
            return
        try:
            place = top = json.loads(line)
        except ValueError:
            return
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and last in place:
            yield {**{c: place.get(c, top.get(c)) for c in coordinates}, name: place[last]}

    return find


@dataclass
class Pattern:
    """One regular expression that must, or must not, be matched by some line."""

    text: str  # as declared, the same on all ranks
    wanted: bool
    values: Mapping[str, str] = field(default_factory=dict)  # what its placeholders stand for
    matched: str = ""  # the first line that matched
    lines: int = 0
    filled: str = field(init=False)
    compiled: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self.filled = placeholders.fill(self.text, self.values, re.escape)
        self.compiled = re.compile(self.filled)

    def take(self, line: str) -> None:
        """Look at a line."""
        self.lines += 1
        if not self.matched:
            with Searching(self.filled):
                if self.compiled.search(line):
                    self.matched = line.strip()[:200] or "(blank)"

    def verdict(self) -> tuple[bool, str, str]:
        """Whether it held; what was expected, and what was seen."""
        seen = f"the line {self.matched!r}" if self.matched else f"none of {self.lines} lines"
        expected = f"{'a' if self.wanted else 'no'} line like {self.filled!r}"
        return bool(self.matched) == self.wanted, expected, seen


def readings(
    declared: Sequence[Mapping[str, Any]], values: Mapping[str, str], stepped: bool
) -> list[Reading]:
    """The declared metrics (JSON of ``harness.model.command.CommandMetric``), ready to be fed.

    Args:
        declared: the metrics.
        values: what placeholders stand for.
        stepped: whether each sample carries the step during which it was read.
    """
    found = []
    for m in declared:
        source = m["from"]
        where = "the program itself" if source == "program" else source.replace("_", " ")
        own = metric(
            m["name"],
            m["unit"],
            NEITHER if m["direction"] == "neither" else m["direction"],
            m["definition"] or f"read from {where} of the group's command",
        )
        beside = tuple(metric(n, u, NEITHER, f"of what {m['name']} is") for n, u in m["coordinates"].items())
        step = (METRICS["step"],) if stepped or source == "program" else ()
        if m["regex"] is not None:
            find = by_regex(placeholders.fill(m["regex"], values, re.escape), m["name"])
        elif m["json"] is not None:
            find = by_key(m["json"], m["name"], tuple(m["coordinates"]))
        else:
            find = _whole(m["name"])
        found.append(Reading(m["name"], m["required"], (*step, *beside, own), find))
    return found


def _whole(name: str) -> Callable[[str], Iterator[Mapping[str, object]]]:
    """Takes a text as one number."""

    def find(text: str) -> Iterator[Mapping[str, object]]:
        yield {name: text.strip()}

    return find
