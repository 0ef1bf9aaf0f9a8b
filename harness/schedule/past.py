"""What the history says is true now, and what is to be done next. Pure. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.schedule.folder import ENDED, FAILED, SKIPPED, STARTED, TOLD, TROUBLE
from harness.schedule.when import Moment


@dataclass(frozen=True)
class Past:
    """The history, as far as decisions need it."""

    open_run: str | None = None
    """The run that was started and has not ended."""
    handled_s: float = 0.0
    """The newest moment that was started, failed or skipped."""
    runs: tuple[str, ...] = ()
    """Every run that was started, in order."""
    outcome: Mapping[str, Any] | None = None
    """How the newest run ended, or why there was none."""
    told: bool = False
    """Whether people were told of that."""
    trouble: str = ""
    """What went wrong since the last thing that went well."""


def read(lines: Sequence[Mapping[str, Any]], since_s: float = 0.0) -> Past:
    """Conclude from the history.

    Args:
        lines: the history, in order.
        since_s: moments before this are not due.
    """
    open_run: str | None = None
    runs: list[str] = []
    outcome: Mapping[str, Any] | None = None
    handled_s, trouble, told = since_s, "", False
    for line in lines:
        what = line["what"]
        if what == TROUBLE:
            trouble = line["why"]
            continue
        if what == TOLD:
            told = told or (outcome is not None and line["of"] == key(outcome))
            continue
        if what == STARTED:
            open_run = line["run"]
            runs.append(open_run)
            handled_s = max(handled_s, line["moment_s"])
        elif what in (ENDED, FAILED):
            open_run = None
        elif what == SKIPPED:
            handled_s = max(handled_s, line["moment_s"])
        if what in (ENDED, FAILED, SKIPPED):
            outcome, told = line, False
        trouble = ""
    return Past(open_run, handled_s, tuple(runs), outcome, told, trouble)


def key(line: Mapping[str, Any]) -> str:
    """Names one outcome, so that a line can say that people were told of it."""
    return f"{line['what']} {line['moment']}"


@dataclass(frozen=True)
class GoOn:
    """Go on with a run that has not ended."""

    run: str


@dataclass(frozen=True)
class Start:
    """Start a run for a moment that has come."""

    moment: Moment


@dataclass(frozen=True)
class Nothing:
    """Nothing is due."""


Step = GoOn | Start | Nothing


def decide(past: Past, due: Moment) -> Step:
    """What to do next: an unfinished run first; of missed moments only the newest, once.

    Args:
        past: what the history says.
        due: the newest moment that has come.
    """
    if past.open_run is not None:
        return GoOn(past.open_run)
    if due.epoch_s > past.handled_s:
        return Start(due)
    return Nothing()


def missed(past: Past, due: Moment) -> Moment | None:
    """The moment that an unfinished run keeps from being started, and of which nothing is written yet."""
    return due if past.open_run is not None and due.epoch_s > past.handled_s else None
