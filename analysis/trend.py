"""All runs of a campaign in a folder, in order of time: each series, where its level changed, what the last run says.

The unit is the run (``analysis.history``): its figure is the median of its repeats. Runs of one campaign on one site
belong together. The last of them is judged against the level before it, from which a change for the worse takes
nothing away until somebody accepts it (``analysis.accepted``); a run of other hardware, software, or definition
than the last is shown, named, and no part of the history, unless told otherwise. Nothing is dropped: files that cannot
be read, series that ended or are new, and runs without a figure are named.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from analysis import accepted as levels
from analysis import history, matching, repeats, surroundings, text
from analysis.compare import HARMLESS, Asked
from analysis.difference import Change, corrected
from analysis.history import Expected, Judged
from analysis.repeats import Block, Place, Setting
from analysis.results import CampaignResults, load
from analysis.series import Floats
from analysis.surroundings import Surroundings
from analysis.units import is_performance
from harness.model.verdict import Verdict, exit_code
from harness.store import StoreError

NAME = "results.h5"
FAILED, MISSING, NEW = "failed in the last run", "missing in the last run", "new"

# Status of a series -> what it means for the verdict; the worst first.
VERDICTS: dict[str, Verdict | None] = {
    Change.WORSE.value: Verdict.FAIL,
    FAILED: Verdict.FAIL,
    MISSING: Verdict.UNKNOWN,
    **HARMLESS,
    NEW: None,
}
ORDER = tuple(VERDICTS)

Key = tuple[Setting, str, str, Place]  # setting, table, metric, place


@dataclass(frozen=True)
class Of:
    """One series in one run."""

    block: Block
    label: str
    around: Surroundings

    @property
    def values(self) -> Floats:
        """Figures of its repeats, finite ones."""
        row = self.block.values[0]
        return np.asarray(row[np.isfinite(row)])


@dataclass(frozen=True)
class Run:
    """One results file."""

    path: str
    campaign: str
    site: str
    run_id: str
    wall_ns: int
    stamp: str
    series: dict[Key, Of]
    without: dict[Setting, tuple[str, bool]]  # settings without any figure: why, and whether they failed
    labels: dict[Setting, str]

    @property
    def name(self) -> str:
        """When it was, for people."""
        return text.instant(self.wall_ns).removesuffix(" UTC")


@dataclass(frozen=True)
class Line:
    """One series over the runs of its campaign and site. Texts may be hostile."""

    status: str
    verdict: Verdict | None  # None: for information
    campaign: str
    site: str
    label: str
    metric: str
    unit: str
    direction: str
    place: str
    runs: tuple[int, ...]  # of ``Trend.runs``, those of its campaign and site
    values: tuple[tuple[float, ...], ...]  # figures of the repeats of each; empty where it has none
    used: tuple[bool, ...]  # whether each is part of the history, or the last
    changed: tuple[int, ...]  # places in ``runs`` at which another level begins
    levels: tuple[tuple[float, float], ...]  # before and after each of these
    expected: Expected | None
    why: str

    @property
    def name(self) -> str:
        """Metric with its place."""
        return ", ".join(p for p in (self.metric, self.place) if p)


@dataclass(frozen=True)
class Unread:
    """A file that cannot be read, and whether the last run of a campaign may be in it. Texts may be hostile."""

    path: str
    why: str
    changed_ns: int  # of the file, since the epoch
    may_be_last: bool = True

    @property
    def verdict(self) -> Verdict | None:
        """Unknown, or for information."""
        return Verdict.UNKNOWN if self.may_be_last else None


@dataclass
class Trend:
    """A folder's runs and series."""

    folder: str
    asked: Asked
    runs: list[Run]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)
    series: int = 0  # that were judged
    unread: list[Unread] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many series have each status, the worst first."""
        found = Counter(line.status for line in self.lines)
        return {status: found[status] for status in ORDER}

    def for_information(self) -> dict[str, int]:
        """How many series judge nothing because of a stamp, by status, the worst first."""
        found = Counter(line.status for line in self.lines if line.verdict is None and line.status != NEW)
        return {status: found[status] for status in ORDER if found[status]}

    def exit_status(self) -> int:
        """0 nothing worse, 1 something, 3 unknown, or nothing was judged at all."""
        said = [line.verdict for line in self.lines] + [one.verdict for one in self.unread]
        return exit_code(verdict for verdict in said if verdict is not None)

    @property
    def stamp(self) -> str:
        """Why figures of performance judge nothing, where that is so of every run."""
        stamps = {run.stamp for run in self.runs}
        return stamps.pop() if len(stamps) == 1 else ""


# --- reading -----------------------------------------------------------------------------------------


def find(folder: Path | str) -> list[Path]:
    """Every results file below a folder, by name."""
    found = []
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if NAME in files:
            found.append(Path(base) / NAME)
    return found


def wall_ns(results: CampaignResults) -> int:
    """When a run was made, since the epoch; when its file was, where it does not say."""
    for name in ("created_wall_ns", "collected_wall_ns"):
        value = results.attributes.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return int(results.path.stat().st_mtime_ns)


def read(path: Path | str, metric: str = "") -> Run:
    """What a trend needs of one file.

    Raises:
        StoreError: it cannot be read.
    """
    with load(path) as results:
        series: dict[Key, Of] = {}
        without: dict[Setting, tuple[str, bool]] = {}
        labels = {}
        for setting, found in repeats.settings(results).items():
            labels[setting] = found.label
            if not found.usable:
                words = "; ".join(f"{label}: {why}" for label, why, _ in found.left_out[:2])
                without[setting] = words, any(failed for _, _, failed in found.left_out)
                continue
            around = surroundings.of_cases(results, found.usable)
            for block in repeats.blocks(results, found, metric=metric):
                series[setting, block.table, block.metric, block.place] = Of(block, found.label, around)
        return Run(
            str(path), results.text("campaign"), results.text("site"), results.text("run_id"), wall_ns(results),
            results.stamp, series, without, labels,
        )  # fmt: skip


def _changed_ns(path: Path) -> int:
    """When a file was written last, since the epoch; now where that cannot be told."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return time.time_ns()


def _placed(unread: Sequence[Unread], runs: Sequence[Run]) -> list[Unread]:
    """Say of each file whether it may hold the last run of some campaign: it was written after the last one began."""
    last: dict[tuple[str, str], int] = {}
    for run in runs:
        key = run.campaign, run.site
        last[key] = max(run.wall_ns, last.get(key, 0))
    oldest = min(last.values(), default=0)
    return [replace(one, may_be_last=one.changed_ns >= oldest) for one in unread]


def runs_below(folder: Path | str, metric: str = "") -> tuple[list[Run], list[Unread], list[str]]:
    """Every run below a folder, oldest first; the files that cannot be read; what was left out, in words."""
    found: dict[str, Run] = {}
    unread: list[Unread] = []
    notes = []
    for path in find(folder):
        try:
            run = read(path, metric)
        except StoreError as error:
            unread.append(Unread(str(path), text.one_line(error, 300), _changed_ns(path)))
            continue
        except OSError as error:
            why = text.one_line(f"{path}: {error.strerror or error}", 300)
            unread.append(Unread(str(path), why, _changed_ns(path)))
            continue
        other = found.get(run.run_id) if run.run_id != "unknown" else None
        if other is not None:
            notes.append(text.one_line(f"left out: {path} is of the same run as {other.path}", 300))
            continue
        found[run.run_id if run.run_id != "unknown" else str(path)] = run
    notes += [f"left out: {one.why}" for one in unread]
    return (
        sorted(found.values(), key=lambda r: (r.wall_ns, r.path)),
        _placed(unread, list(found.values())),
        notes,
    )


# --- one series ----------------------------------------------------------------------------------------


@dataclass
class _Series:
    """A series on its way to a line."""

    line: Line
    judged: Judged | None
    places: list[int]  # of the figures of ``judged``, in ``line.runs``


def _other(now: Of, then: Of, despite: frozenset[str]) -> str:
    """Why an earlier run is no part of the history, or empty."""
    overlooked, never = matching.definition(then.block, now.block)
    if never:
        return surroundings.sides(f"its {never}", "then", "now")
    if overlooked and surroundings.DEFINITION not in despite:
        return "its definition differs"
    for kind, words in surroundings.differences(then.around, now.around).items():
        if kind not in despite:
            return surroundings.sides(words, "then", "now")
    return ""


def _reasons(reasons: Sequence[tuple[str, str]]) -> str:
    """Runs that are no part of the history, by reason."""
    grouped: dict[str, list[str]] = {}
    for name, why in reasons:
        grouped.setdefault(why, []).append(name)
    return "; ".join(
        f"{text.count(len(names), 'run')} not in the history: {why}" for why, names in grouped.items()
    )


def _series(
    runs: Sequence[Run], numbers: Sequence[int], key: Key, asked: Asked, accepted: frozenset[str]
) -> _Series:
    of = [run.series.get(key) for run in runs]
    known = [x for x in of if x is not None]
    now, last, block = of[-1], runs[-1], known[-1].block
    judges = not (last.stamp and is_performance(block.unit))
    values = tuple(tuple(float(v) for v in x.values) if x is not None else () for x in of)
    plain = Line(
        MISSING, None, last.campaign, last.site, known[-1].label, block.metric, block.unit, block.direction,
        block.places, tuple(numbers), values, tuple(bool(v) for v in values), (), (), None, "",
    )  # fmt: skip
    if now is None or not values[-1]:
        status, why = MISSING, "the last run has no figure of it"
        if key[0] in last.without:
            why, failed = last.without[key[0]]
            status = FAILED if failed else MISSING
        return _Series(
            replace(plain, status=status, verdict=VERDICTS[status] if judges else None, why=why), None, []
        )
    used, reasons = [], []
    for number, (run, x) in enumerate(zip(runs, of, strict=True)):
        why = "" if x is None or x is now else _other(now, x, asked.despite)
        if not why and run.stamp != last.stamp:
            why = f"stamped {run.stamp or 'as real'}"
        if why:
            reasons.append((run.name, why))
        used.append(bool(values[number]) and not why)
    places = [i for i, fit in enumerate(used) if fit]
    line = replace(plain, used=tuple(used), why=_reasons(reasons))
    if len(places) == 1 and len(known) == 1:
        return _Series(replace(line, status=NEW, why="no earlier run has it"), None, [])
    judged = history.measure(
        [float(np.median(values[i])) for i in places], asked.smallest, block.direction,
        accepted=levels.last_of([runs[i].run_id for i in places], accepted), names=[runs[i].name for i in places],
    )  # fmt: skip
    line = replace(
        line,
        status=Change.UNKNOWN.value,
        verdict=VERDICTS[Change.UNKNOWN.value] if judges else None,
        changed=tuple(places[c.index] for c in judged.changes),
        levels=tuple((c.before, c.after) for c in judged.changes),
    )
    return _Series(line, judged, places)


def _concluded(found: list[_Series]) -> int:
    """Judge a family of series; returns how many were tested."""
    tested = [s for s in found if s.judged is not None and s.judged.tested is not None]
    p = np.array([float(s.judged.tested.p_rank[0]) for s in tested if s.judged and s.judged.tested])
    by_series = dict(zip(map(id, tested), corrected(p), strict=True)) if len(p) else {}
    for s in found:
        if s.judged is None:
            continue
        said = history.expected(s.judged, by_series.get(id(s)))
        verdict = VERDICTS[said.verdict.value] if s.line.verdict is not None else None
        why = "; ".join(w for w in (said.why, s.line.why) if w)
        s.line = replace(s.line, status=said.verdict.value, verdict=verdict, expected=said, why=why)
    return len(tested)


def analyse(
    runs: Sequence[Run],
    asked: Asked,
    folder: str = "",
    notes: Sequence[str] = (),
    accepted: frozenset[str] = frozenset(),
) -> Trend:
    """Every series of these runs, oldest first; ``accepted``: ids of runs whose level somebody accepted."""
    notes = list(notes)
    belong: dict[tuple[str, str], list[int]] = {}
    for number, run in enumerate(runs):
        belong.setdefault((run.campaign, run.site), []).append(number)
    found = []
    for numbers in belong.values():
        together = [runs[i] for i in numbers]
        keys = dict.fromkeys(key for run in together for key in run.series)
        found += [_series(together, numbers, key, asked, accepted) for key in keys]
        had = {key[0] for key in keys}
        for setting, (why, _) in together[-1].without.items():
            if setting not in had:
                notes.append(
                    text.one_line(f"{together[-1].labels[setting]}: no run has a figure of it: {why}", 300)
                )
    judged = [s for s in found if s.line.verdict is not None]
    _concluded([s for s in found if s.line.verdict is None])
    series = _concluded(judged)
    lines = sorted((s.line for s in found), key=lambda line: ORDER.index(line.status))
    return Trend(folder, asked, list(runs), lines, notes, series)


def of_folder(folder: Path | str, asked: Asked) -> Trend:
    """The trend of every results file below a folder."""
    runs, unread, notes = runs_below(folder, asked.metric)
    found = analyse(runs, asked, str(folder), notes, levels.read(folder))
    found.unread = unread
    return found
