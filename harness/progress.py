"""How a run looks while it runs: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from harness.views import CaseView

if TYPE_CHECKING:
    from rich.console import Group

Tell = Callable[[list[CaseView], str], None]

_STYLES = {
    "completed": "green",
    "failed": "red",
    "lost": "red",
    "not_run": "red",
    "node_lost": "yellow",
    "interrupted": "yellow",
    "requeued": "yellow",
    "retrying": "yellow",
    "healing": "yellow",
    "running": "cyan",
}


def line(view: CaseView) -> str:
    """One case in one line."""
    attempts = f", attempt {view.attempts}" if view.attempts > 1 else ""
    job = f"  job {view.job_id}" if view.job_id and not view.job_id.startswith("local") else ""
    reason = f"  {view.reason}" if view.reason and view.state != "completed" else ""
    reason = f"  {view.cached}" if view.cached else reason
    done = view.case.steps if view.state == "completed" else view.step
    return f"{view.case.label:<28} {view.state:<12} {done:>5}/{view.case.steps}{attempts}{job}{reason}"


@contextlib.contextmanager
def watcher(title: str, *, plain: bool) -> Iterator[Tell]:
    """Something that shows the cases each time it is told them."""
    if plain or not sys.stdout.isatty():
        yield _Lines().tell
        return
    from rich.live import Live

    started = time.monotonic()
    with Live(refresh_per_second=4, transient=False) as live:

        def tell(views: list[CaseView], trouble: str) -> None:
            rows = max(5, live.console.size.height - 7)
            live.update(_table(title, views, trouble, time.monotonic() - started, rows))

        yield tell


def spared(views: list[CaseView]) -> Iterator[str]:
    """Cases that were not needed, in few lines: those of one lot, of which the same is said, together."""
    found: dict[tuple[str, str], list[CaseView]] = {}
    for view in views:
        if view.state == "not_needed":
            found.setdefault((view.case.cell, view.reason), []).append(view)
    for (cell, reason), members in found.items():
        first, last = min(v.case.repeat for v in members), max(v.case.repeat for v in members)
        repeats = f"repeat {first}" if first == last else f"repeats {first} to {last}"
        yield f"{cell:<28} {'not_needed':<12} {repeats}: {reason}"


PARTS = 4


def _part(view: CaseView) -> int:
    """How many quarters of its steps a running case has done."""
    return PARTS * view.step // max(view.case.steps, 1) if view.state == "running" else 0


class _Lines:
    """A line whenever a case changes its state, or has done another quarter of its steps."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[str, int, int]] = {}
        self._spared: set[str] = set()
        self._trouble = ""

    def tell(self, views: list[CaseView], trouble: str) -> None:
        new = [v for v in views if v.state == "not_needed" and v.case.case_id not in self._spared]
        self._spared.update(v.case.case_id for v in new)
        for words in spared(new):
            print(words, flush=True)
        for view in views:
            now = (view.state, view.attempts, _part(view))
            if self._before.get(view.case.case_id) != now:
                self._before[view.case.case_id] = now
                if view.state not in ("planned", "queued", "waiting", "not_needed"):
                    print(line(view), flush=True)
        if trouble and trouble != self._trouble:
            print(trouble, file=sys.stderr, flush=True)
        self._trouble = trouble


def select(views: list[CaseView], rows: int) -> list[CaseView]:
    """The cases to show where not all fit: those at work, those in trouble, those that are done, those that wait."""
    if len(views) <= rows:
        return views
    order = {
        "running": 0,
        "requeued": 0,
        "retrying": 0,
        "healing": 0,
        "completed": 2,
        "not_needed": 4,
        "planned": 3,
        "queued": 3,
        "waiting": 3,
    }
    chosen = sorted(range(len(views)), key=lambda i: (order.get(views[i].state, 1), i))[:rows]
    return [views[i] for i in chosen]


def _table(title: str, views: list[CaseView], trouble: str, seconds: float, rows: int) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{escape(title)}  {int(seconds) // 60}:{int(seconds) % 60:02}", title_justify="left")
    table.add_column("case", no_wrap=True)
    for name in ("state", "progress", "attempt", "job", "workload"):
        table.add_column(name, no_wrap=name != "workload")
    for view in select(views, rows):
        done = view.case.steps if view.state == "completed" else view.step
        table.add_row(
            escape(view.case.label),
            Text(view.state, style=_STYLES.get(view.state, "")),
            ProgressBar(total=view.case.steps, completed=done, width=20),
            str(view.attempts or ""),
            "" if view.job_id.startswith("local") else view.job_id,
            view.case.workload,
        )
    spared = sum(v.state == "not_needed" for v in views)
    over = sum(v.state in ("completed", "failed", "lost", "not_run") for v in views)
    hidden = len(views) - len(select(views, rows))
    words = Text(f"{over} of {len(views) - spared} cases ended" + (f"; {hidden} not shown" if hidden else ""))
    words.append(f"; {spared} not needed" if spared else "")
    if trouble:
        words.append(f"; {trouble}", style="yellow")
    return Group(table, words)
