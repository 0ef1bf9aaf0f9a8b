"""Gates against a baseline file or against the history of a folder: what was measured before is the limit.

A gate of that kind judges all repeats of a setting together, so each of its cases has the same finding. All such gates
of a file are one family of comparisons (``analysis.difference``, ``analysis.history``). Other hardware, software or
definition than before makes a gate invalid, unless it says that it compares all the same; what is not there makes it
unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis import accepted as levels
from analysis import expected, gates, history, matching, repeats, surroundings, text, trend
from analysis.difference import (
    MINIMUM_REPEATS,
    Change,
    Smallest,
    Tested,
    change_of,
    conclude,
    corrected,
    difference,
    measure_many,
)
from analysis.difference import compare as compare_two
from analysis.gates import GateResult, NoFigure
from analysis.history import Judged
from analysis.matching import Pair
from analysis.repeats import Repeats, Setting
from analysis.results import CampaignResults, Row, load
from analysis.series import Floats
from analysis.units import is_performance
from harness.model.verdict import Verdict
from harness.store import StoreError

VERDICTS = {
    Change.WORSE: Verdict.FAIL,
    Change.DIFFERS: Verdict.FAIL,
    Change.BETTER: Verdict.PASS,
    Change.NOT_WORSE: Verdict.PASS,
    Change.WITHIN_NOISE: Verdict.WITHIN_NOISE,
    Change.UNKNOWN: Verdict.UNKNOWN,
}


@dataclass(frozen=True)
class Given:
    """What somebody says instead of what the gates say; empty where they do not."""

    baseline: str = ""
    history: str = ""
    despite: frozenset[str] = frozenset()


def asks(gate: Mapping[str, Any]) -> bool:
    """Whether a gate is one of a baseline or a history."""
    return bool(gate.get("baseline") or gate.get("history"))


def asks_any(results: CampaignResults, kind: str) -> bool:
    """Whether any gate of a file is one of a ``baseline``, or of a ``history``."""
    return any(gate.get(kind) for case in results.cases for gate in json.loads(case["gates"] or "[]"))


class _Unfit(Exception):
    """A gate cannot be judged: the verdict, and why."""

    def __init__(self, verdict: Verdict, why: str) -> None:
        super().__init__(why)
        self.verdict = verdict


@dataclass
class _Asked:
    """One gate of one setting."""

    repeats: Repeats
    gate: Mapping[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    now: Floats = field(default_factory=lambda: np.empty(0))
    before: Floats = field(default_factory=lambda: np.empty(0))  # of the baseline's repeats
    judged: Judged | None = None  # of the history
    tested: Tested | None = None
    notes: list[str] = field(default_factory=list)
    result: GateResult | None = None

    @property
    def smallest(self) -> Smallest:
        return Smallest.parse(str(self.gate.get("smallest") or "5%"))


class _Earlier(NamedTuple):
    """The figure of an earlier run."""

    when: int  # ns since the epoch
    value: float
    run_id: str


def figures(results: CampaignResults, cases: Sequence[Row], gate: Mapping[str, Any]) -> Floats:
    """The gate's figure of each of these repeats, shape (n,); those without one left out."""
    found = []
    for case in cases:
        try:
            found.append(gates.figure(results, case, gate)[0])
        except NoFigure:
            continue
    return np.asarray(found, dtype=np.float64)


class References:
    """All gates of a file that need another file; judged together when the first of them is asked for."""

    def __init__(self, results: CampaignResults, given: Given = Given()) -> None:
        self._results, self._given = results, given
        self._asked: dict[tuple[Setting, str], _Asked] = {}
        self._ready = False

    def check(self, case: Row, gate: Mapping[str, Any]) -> GateResult:
        """The finding of one gate of one case.

        Raises:
            StoreError: samples of the judged file are damaged.
        """
        if not self._ready:
            self._judge_all()
        result = self._asked[repeats.setting_of(case), json.dumps(gate, sort_keys=True)].result
        assert result is not None  # `_judge_all` gives one to each
        return result

    @cached_property
    def of_site(self) -> expected.Findings:
        """What the site expects, beside what was measured: the other limits that all repeats are held against."""
        return expected.of(self._results)

    # --- all of them

    def _judge_all(self) -> None:
        for setting, found in repeats.settings(self._results).items():
            for case in found.cases:
                for gate in json.loads(case["gates"] or "[]"):
                    if asks(gate):
                        self._asked.setdefault(
                            (setting, json.dumps(gate, sort_keys=True)), _Asked(found, gate)
                        )
        self._ready = True
        for asked in self._asked.values():
            self._attempt(asked, self._figures_now)
        self._baselines([a for a in self._asked.values() if a.result is None and a.gate.get("baseline")])
        self._histories([a for a in self._asked.values() if a.result is None and not a.gate.get("baseline")])
        self._conclude([a for a in self._asked.values() if a.result is None])

    def _attempt(self, asked: _Asked, act: Any, *more: Any) -> None:
        try:
            act(asked, *more)
        except _Unfit as unfit:
            asked.result = GateResult(
                unfit.verdict, f"gate {gates.words(asked.gate)} cannot be judged: {unfit}"
            )

    def _figures_now(self, asked: _Asked) -> None:
        if not asked.repeats.usable:
            raise _Unfit(Verdict.UNKNOWN, "no repeat has a figure")
        asked.facts = gates.facts(self._results, asked.repeats.usable[0], asked.gate["metric"])
        asked.now = figures(self._results, asked.repeats.usable, asked.gate)
        if not len(asked.now):
            raise _Unfit(Verdict.UNKNOWN, _no_figure(self._results, asked))

    # --- a baseline

    def _baselines(self, wanted: Sequence[_Asked]) -> None:
        by_path: dict[str, list[_Asked]] = {}
        for asked in wanted:
            by_path.setdefault(self._given.baseline or str(asked.gate["baseline"]), []).append(asked)
        for path, group in by_path.items():
            try:
                with load(_results_file(path)) as base:
                    pairs = matching.pairs(repeats.settings(base), repeats.settings(self._results))
                    changed = matching.one_id_two_cases(base, self._results)
                    for asked in group:
                        pair = next(
                            p for p in pairs if p.b is not None and p.b.setting == asked.repeats.setting
                        )
                        matching.named(pair, base, self._results, changed)
                        self._attempt(asked, self._against, base, pair)
            except (StoreError, OSError) as error:
                why = text.one_line(
                    f"its baseline: {error}; `harness judge --baseline FILE` names another", 400
                )
                for asked in group:
                    words = f"gate {gates.words(asked.gate)} cannot be judged: {why}"
                    asked.result = GateResult(Verdict.UNKNOWN, words)

    def _against(self, asked: _Asked, base: CampaignResults, pair: Pair) -> None:
        if pair.a is None or not pair.a.usable:
            raise _Unfit(Verdict.UNKNOWN, "the baseline has no figure of this setting")
        said = {
            k: surroundings.sides(w, "in the baseline", "in this run") for k, w in pair.differences.items()
        }
        self._fit(asked, base, pair.a.usable[0], said)
        asked.before = figures(base, pair.a.usable, asked.gate)

    def _fit(self, asked: _Asked, other: CampaignResults, case: Row, differences: Mapping[str, str]) -> None:
        """Refuse what is not comparable."""
        despite = self._given.despite | frozenset(asked.gate.get("despite") or ())
        found = [(kind, words) for kind, words in differences.items() if kind not in despite]
        facts = gates.facts(other, case, asked.gate["metric"])
        for name in ("unit", "direction"):
            if facts.get(name, "") != asked.facts.get(name, ""):
                found.append((surroundings.DEFINITION, f"its {name} was {facts.get(name) or 'none'}"))
        if (
            facts.get("definition") != asked.facts.get("definition")
            and surroundings.DEFINITION not in despite
        ):
            found.append((surroundings.DEFINITION, "the metric was defined differently"))
        if other.stamp and not self._results.stamp and is_performance(asked.facts.get("unit", "")):
            found.append(("", f"the earlier figures are of other times: {other.stamp}"))
        if found:
            raise _Unfit(Verdict.INVALID, text.one_line("; ".join(words for _, words in found), 400))
        asked.notes += [words for kind, words in differences.items() if kind in despite]

    # --- a history

    def _histories(self, wanted: Sequence[_Asked]) -> None:
        by_folder: dict[str, list[_Asked]] = {}
        for asked in wanted:
            by_folder.setdefault(self._given.history or str(asked.gate["history"]), []).append(asked)
        for folder, group in by_folder.items():
            self._history(folder, group)

    def _history(self, folder: str, group: Sequence[_Asked]) -> None:
        paths = trend.find(folder) if Path(folder).is_dir() else []
        found: dict[int, list[_Earlier]] = {id(a): [] for a in group}
        for path in paths:
            try:
                with load(path) as earlier:
                    self._earlier(earlier, group, found)
            except (StoreError, OSError) as error:
                for asked in group:
                    asked.notes.append(text.one_line(f"left out: {error}", 200))
        for asked in group:
            before = sorted(found[id(asked)])
            now = float(np.median(asked.now))
            if not Path(folder).is_dir():
                why = f"its history {folder} is not here; `harness judge --history FOLDER` names another"
                self._attempt(asked, _refuse, why)
            elif not np.isfinite(now):
                self._attempt(asked, _refuse, "its figure is not a finite number")
            else:
                asked.judged = self._measured(asked, before, now, levels.read(folder))
                asked.tested = asked.judged.tested

    def _measured(
        self, asked: _Asked, earlier: Sequence[_Earlier], now: float, accepted: frozenset[str]
    ) -> Judged:
        ids = [*(run.run_id for run in earlier), self._results.text("run_id")]
        names = [*(text.instant(run.when) for run in earlier), "this run"]
        figures, direction = [*(run.value for run in earlier), now], asked.facts.get("direction", "")
        last = levels.last_of(ids, accepted)
        return history.measure(figures, asked.smallest, direction, accepted=last, names=names)

    def _earlier(
        self, earlier: CampaignResults, group: Sequence[_Asked], found: dict[int, list[_Earlier]]
    ) -> None:
        """Add the figures of one earlier run, where it is earlier and comparable."""
        when, now = trend.wall_ns(earlier), trend.wall_ns(self._results)
        if earlier.text("run_id") == self._results.text("run_id") or when >= now:
            return
        there = repeats.settings(earlier)
        for asked in group:
            held = there.get(asked.repeats.setting)
            if held is None or not held.usable:
                continue
            sides = (
                surroundings.of_cases(r, x.usable)
                for r, x in ((earlier, held), (self._results, asked.repeats))
            )
            one, two = sides
            notes = len(asked.notes)
            try:
                differences = surroundings.differences(one, two)
                said = {k: surroundings.sides(w, "then", "now") for k, w in differences.items()}
                self._fit(asked, earlier, held.usable[0], said)
            except _Unfit as unfit:
                asked.notes.append(f"run {text.one_line(earlier.text('run_id'), 40)} left out: {unfit}")
                continue
            del asked.notes[notes:]
            values = figures(earlier, held.usable, asked.gate)
            if len(values) and np.all(np.isfinite(values)):
                found[id(asked)].append(_Earlier(when, float(np.median(values)), earlier.text("run_id")))

    # --- the verdicts

    def _conclude(self, wanted: Sequence[_Asked]) -> None:
        for asked in wanted:
            enough = min(len(asked.now), len(asked.before)) >= MINIMUM_REPEATS
            finite = np.all(np.isfinite(asked.now)) and np.all(np.isfinite(asked.before))
            if asked.judged is None and enough and finite:
                asked.tested = measure_many(asked.before[None, :], asked.now[None, :], asked.smallest)
        tested = [a for a in wanted if a.tested is not None]
        p = [float(a.tested.p(len(tested))[0]) for a in tested if a.tested is not None]
        by_id = dict(zip(map(id, tested), corrected(np.array(p)), strict=True))
        for asked in wanted:
            asked.result = self._result(asked, by_id.get(id(asked)), len(tested))

    def _result(self, asked: _Asked, p: float | None, number: int) -> GateResult:
        unit, direction = asked.facts.get("unit", ""), asked.facts.get("direction", "")
        now = text.quantity(float(np.median(asked.now)), unit)
        if asked.judged is not None:
            e = history.expected(asked.judged, p)
            change, said, why = e.verdict, e.said(unit), e.why
            against = f"the history of {text.count(e.runs, 'run')}, {text.quantity(e.level, unit)}"
        else:
            d = compare_two(asked.before, asked.now, smallest=asked.smallest, direction=direction)
            if asked.tested is not None and p is not None:
                code = conclude(asked.tested, np.array([p]), direction)[0]
                d = difference(asked.before, asked.now, asked.tested, 0, p, change_of(int(code)), number)
            change, said, why = d.verdict, f"estimated shift {d.said(unit)}", d.why
            against = f"the baseline's {text.quantity(d.median_a, unit)} (n={d.n_a})"
        words = f"gate {gates.words(asked.gate)}: {now} (n={len(asked.now)}) against {against}: {said}"
        words += f", smallest effect {asked.smallest.words(unit)}: {change.value}"
        words += "".join(f"; {note}" for note in (why, *asked.notes) if note)
        stamp = self._results.stamp
        if stamp and is_performance(unit):
            return GateResult(None, f"{words} ({stamp}: for information)")
        return GateResult(VERDICTS[change], words)


def _refuse(_: _Asked, why: str) -> None:
    raise _Unfit(Verdict.UNKNOWN, why)


def _no_figure(results: CampaignResults, asked: _Asked) -> str:
    try:
        gates.figure(results, asked.repeats.usable[0], asked.gate)
    except NoFigure as error:
        return str(error)
    return "no repeat has a figure"


def _results_file(given: str) -> Path:
    """A results file, or the one in a run folder."""
    path = Path(given)
    return path / trend.NAME if path.is_dir() else path
