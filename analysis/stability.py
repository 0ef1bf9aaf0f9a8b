"""Stability of each case: drift, changes of level, jitter, tails, dips, periodic disturbances, leaks, and its warm-up.

The series is the step time of the slowest rank, warm-up left out (METRICS.md, stability). How long the warm-up was is
found and compared with what was declared. A case with an injected fault is disturbed on purpose and told by
``analysis.recovery``. What is found is said in words: what, how much, since when, and what to try. It is information
and no verdict; on an emulated cluster, or with more ranks than cores, it is stamped so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis import text, warmup
from analysis.commandline import main as run
from analysis.leaks import Memory, of_case
from analysis.resample import Interval
from analysis.results import CampaignResults, Row, samples_of
from analysis.series import Floats, slowest_rank
from analysis.slopes import Shift, Slope, shift, theil_sen
from analysis.times import impossible

FEWEST_STEPS = 20
TAIL_STEPS = 1000  # p99.9 needs as many

# From which size on a finding is worth a word; pyperf warns from a tenth on, too.
CHANGE = 0.05  # of the level before, by drift or by a change of level over the whole run
JITTER = 0.10  # CoV
TAIL = 1.5  # p99 / p50
DIPS = 0.05  # share of the time that dips took
_SURE = 0.001  # probability below which a change of level, or a period, is no chance


@dataclass(frozen=True)
class Finding:
    """What makes a case unstable: ``what`` and how much and since when, in words, and what to try."""

    kind: str  # drift, shift, jitter, tail, dips, periodic, warm-up or leak
    words: str
    advice: str


@dataclass(frozen=True)
class Period:
    """A disturbance that comes back: every so many steps, so many times, so much longer than the median."""

    steps: float
    times: int
    extra_s: float  # median of what a disturbed step takes longer


@dataclass(frozen=True)
class Figures:
    """Figures of a series of n step times, in s and shares of 1; ``p999_s`` is None below 1000 steps."""

    n: int
    median_s: float
    cov: float
    robust_cov: float
    p99_s: float
    p99_over_p50: float
    p999_s: float | None
    worst_s: float
    worst_step: int
    dip_area_s: float  # METRICS.md, baseline: the throughput of a median step
    dip_share: float  # of the time of all steps


@dataclass(frozen=True)
class CaseStability:
    """One case; ``why`` says why there is nothing to say of it, or is empty."""

    case_id: str
    label: str
    group: str
    nodes: int
    repeat: int
    why: str
    stamp: str
    figures: Figures | None = None
    warmup: warmup.WarmUp | None = None
    drift: Slope | None = None  # s a step; None where too few stretches of the series are independent
    # What it adds over the judged steps, of the level at their start, with the interval of that; None where a line
    # through them reaches zero.
    drift_share: float | None = None
    drift_share_interval: Interval | None = None
    shift: Shift | None = None  # by index into the settled steps; None where no level changed
    period: Period | None = None
    memory: Memory | None = None
    left_out: int = 0  # steps that a rank did not report
    findings: tuple[Finding, ...] = ()

    @property
    def stable(self) -> bool | None:
        """Whether nothing was found; None where nothing can be said."""
        return None if self.why else not self.findings

    @property
    def words(self) -> str:
        """In one line, and one for each finding."""
        if self.figures is None:
            return text.one_line(f"{self.label}: not known: {self.why}")
        f = self.figures
        head = f"{self.label}: {'steady' if self.stable else 'unstable'}: {text.seconds(f.median_s)} a step"
        head += (
            f", CoV {text.percent(f.cov)} (robust {text.percent(f.robust_cov)}), p99/p50 {f.p99_over_p50:.2f}"
        )
        head += f", p99.9 {text.seconds(f.p999_s)}" if f.p999_s is not None else ""
        head += f", n={f.n}"
        if self.warmup is not None and self.warmup.found is None:
            head += f"; {self.warmup.words}"
        if self.left_out:
            head += f"; {text.count(self.left_out, 'step')} left out, a rank's sample is missing"
        if self.drift is None:
            head += "; drift not known: too few stretches of it are independent of each other"
        if self.memory is not None and self.memory.recorded and self.memory.unknown:
            head += f"; {self.memory.unknown}"
        lines = [text.one_line(head, 1000)]
        lines += ["  " + text.one_line(f"{x.words}; try: {x.advice}", 1000) for x in self.findings]
        return "\n".join(lines)


def figures(times_s: Floats, steps: Floats) -> Figures:
    """Figures of a series; METRICS.md, stability.

    Args:
        times_s: above zero, shape (n,), n > 0.
        steps: their numbers.
    """
    median, p99, p999 = (float(q) for q in np.quantile(times_s, [0.5, 0.99, 0.999]))
    mean, worst = float(np.mean(times_s)), int(np.argmax(times_s))
    mad = float(np.median(np.abs(times_s - median)))
    # max(0, 1 - (1/t) / (1/median)) over t of time
    dips = float(np.sum(np.maximum(0.0, times_s - median)))
    return Figures(
        len(times_s),
        median,
        float(np.std(times_s, ddof=1)) / mean if len(times_s) > 1 else 0.0,
        1.4826 * mad / median,
        p99,
        p99 / median,
        p999 if len(times_s) >= TAIL_STEPS else None,
        float(times_s[worst]),
        int(steps[worst]),
        dips,
        dips / float(np.sum(times_s)),
    )


def period(times_s: Floats, f: Figures) -> Period | None:
    """A disturbance that comes back after equal numbers of steps; None where there is none.

    Steps far above the median are events; they are periodic if far more gaps between them are alike than if as many
    events fell anywhere.
    """
    high = f.median_s * (1 + max(5 * f.robust_cov, 0.1))
    events = np.flatnonzero(times_s > high)
    events = events[np.concatenate([[True], np.diff(events) > 1])] if len(events) else events
    if len(events) < 6:
        return None
    gaps = np.diff(events)
    middle = float(np.median(gaps))
    if middle < 3:
        return None
    width = max(1.0, 0.05 * middle)
    alike = int(np.sum(np.abs(gaps - middle) <= width))
    by_chance = min(1.0, (2 * width + 1) * len(events) / len(times_s))
    from scipy.stats import binom  # late: most series have no events

    if alike < 0.7 * len(gaps) or float(binom.sf(alike - 1, len(gaps), by_chance)) > _SURE:
        return None
    extra = float(np.median(times_s[events])) - f.median_s
    return Period(float(np.mean(gaps[np.abs(gaps - middle) <= width])), len(events), extra)


def _level_words(steps: Floats, moved: Shift) -> Finding:
    slower = moved.after > moved.before
    change = f"{abs(moved.after / moved.before - 1) * 100:.0f} % {'slower' if slower else 'faster'}"
    words = f"since step {int(steps[moved.index])} steps are {change}: {text.seconds(moved.before)} before, "
    advice = "look at telemetry, clocks and Slurm's log for what began then; repeat on other nodes"
    return Finding("shift", f"{words}{text.seconds(moved.after)} after", advice)


def _drift_words(steps: Floats, drift: Slope) -> Finding:
    first, last = int(steps[0]), int(steps[-1])
    if drift.share is None:
        way = "longer" if drift.value > 0 else "shorter"
        words = f"steps get {way} from step {first} to {last}, but this is no level that drifts: a line through them "
        words += "may reach zero, so no size is given"
    else:
        share, (low, high) = drift.share
        words = f"step time drifts by {share * 100:+.1f} % (95 %: {low * 100:+.1f} % to {high * 100:+.1f} %) "
        words += f"of its level at step {first} until step {last}"
    advice = "it still gets faster: more warm-up steps"
    if drift.value > 0:
        advice = (
            "look for clocks that fall with heat, memory or files that grow; run longer to see where it ends"
        )
    return Finding("drift", words, advice)


def _changes(steps: Floats, times_s: Floats, drift: Slope | None, moved: Shift | None) -> list[Finding]:
    """Drift or a change of level, whichever leaves less of the series unexplained."""
    found = []
    if moved is not None and moved.p < _SURE and abs(moved.after / moved.before - 1) >= CHANGE:
        level = np.where(np.arange(len(steps)) < moved.index, moved.before, moved.after)
        found.append((float(np.sum(np.abs(times_s - level))), _level_words(steps, moved)))
    if drift is not None and (drift.interval[0] > 0 or drift.interval[1] < 0):
        if drift.share is None or abs(drift.share[0]) >= CHANGE:
            line = drift.at_start + drift.value * (steps - steps[0])
            left = float(np.sum(np.abs(times_s - line)))
            found.append((left, _drift_words(steps, drift)))
    return [min(found, key=lambda x: x[0])[1]] if found else []


def _findings(
    steps: Floats, times_s: Floats, f: Figures, drift: Slope | None, moved: Shift | None, again: Period | None
) -> list[Finding]:
    found = _changes(steps, times_s, drift, moved)
    if again is not None:
        words = f"every {again.steps:.0f} steps or so one takes {text.seconds(again.extra_s)} longer, "
        words += text.count(again.times, "time")
        advice = (
            "look for what comes as often: garbage collection, logging, a refill of the data loader, a timer"
        )
        found.append(Finding("periodic", words, advice))
    if f.p99_over_p50 >= TAIL and f.n >= 100:
        words = f"one step in 100 takes {f.p99_over_p50:.1f} times as long as the median or longer"
        words += f", at worst {text.seconds(f.worst_s)} in step {f.worst_step}"
        advice = "see in /samples which ranks and nodes those steps waited for, and who else used the nodes"
        found.append(Finding("tail", words, advice))
    if f.cov >= JITTER and not found:
        words = f"step times vary by {text.percent(f.cov)} (CoV; robust {text.percent(f.robust_cov)})"
        advice = "pin ranks to cores, fix the clocks, take nodes of your own, and do more steps"
        found.append(Finding("jitter", words, advice))
    if f.dip_share >= DIPS:
        words = f"{text.seconds(f.dip_area_s)} were lost in dips, {text.percent(f.dip_share)} of the time of all steps"
        found.append(Finding("dips", words, "look at the slowest steps first, see /samples"))
    return found


def _why_not(results: CampaignResults, case: Row) -> str:
    if results.completed(case["case_id"]) is None:
        return f"did not complete ({case['outcome']})"
    if results.of_case("faults", case["case_id"]):
        return "a fault was injected"
    if not results.has_samples(samples_of(case), "steps"):
        return "no steps recorded"
    return ""


def _bad(times_s: Floats) -> str:
    """Why a series says nothing, or empty."""
    if len(times_s) < FEWEST_STEPS:
        return f"{text.count(len(times_s), 'step')} that every rank reported: a series needs {FEWEST_STEPS}"
    if why := impossible(times_s, "step time"):
        return why
    if float(np.ptp(times_s)) == 0:
        same = text.seconds(float(times_s[0]))
        return f"all {len(times_s)} step times are {same} to the last digit: no clock gives that"
    return ""


def of(results: CampaignResults, case: Row) -> CaseStability:
    """Stability of one case.

    Raises:
        StoreError: its samples are damaged.
    """
    head = case["case_id"], case["label"], case["group"], case["nodes"], case["repeat"]
    why = _why_not(results, case)
    if why:
        return CaseStability(*head, why, results.stamp)
    samples = results.effective(case["case_id"], "steps", ["step", "step_time_ns"])
    series = slowest_rank(samples, "step_time_ns", case["ranks"])
    every_s, every = np.asarray(series.slowest / 1e9, dtype=np.float64), np.asarray(series.step)
    judged = every >= case["warmup_steps"]
    steps, times_s = every[judged], every_s[judged]
    why = _bad(times_s)
    if why:
        return CaseStability(*head, why, results.stamp, left_out=series.incomplete)
    warm = warmup.find(every_s, every, case["warmup_steps"])
    f = figures(times_s, steps)
    settled = steps >= warm.last_step + 1
    if int(np.sum(settled)) < FEWEST_STEPS:  # what is judged is nearly all warm-up
        settled = np.ones(len(steps), dtype=bool)
    rest, rest_s = steps[settled], times_s[settled]
    calm = figures(rest_s, rest)
    drift = theil_sen(rest.astype(np.float64), rest_s)
    moved, again = shift(rest_s), period(rest_s, calm)
    share, share_interval = (drift.share if drift is not None else None) or (None, None)
    memory = of_case(results, case)
    found = _findings(rest, rest_s, calm, drift, moved, again)
    if warm.longer:
        found.insert(0, Finding("warm-up", warm.words, f"warmup_steps: {warm.last_step + 1}"))
    advice = "compare with a longer run; look for what is kept from step to step, caches and logs in memory included"
    found += [Finding("leak", leak.words, advice) for leak in memory.leaks]
    return CaseStability(
        *head,
        "",
        results.stamp,
        f,
        warm,
        drift,
        share,
        share_interval,
        moved,
        again,
        memory,
        series.incomplete,
        tuple(found),
    )


def analyse(results: CampaignResults) -> tuple[CaseStability, ...]:
    """Every case of the file, in its order.

    Raises:
        StoreError: samples are damaged.
    """
    return tuple(of(results, case) for case in results.cases)


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    data = {"stamp": results.stamp, "cases": [{**asdict(c), "stable": c.stable} for c in found]}
    head = [f"{results.stamp}: for information, these figures judge nothing"] if results.stamp else []
    told = [c.words for c in found]
    unstable, unknown = sum(c.stable is False for c in found), sum(c.stable is None for c in found)
    foot = [f"{text.count(len(found), 'case')}: {unstable} unstable, {unknown} not known"]
    blind = sum(c.memory is not None and not c.memory.recorded for c in found)
    foot += [f"leaks not known in {text.count(blind, 'case')}: memory was not recorded"] if blind else []
    return data, "\n".join([*head, *told, *foot]), 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.stability results.h5 [--json]``."""
    return run("stability", "Drift, jitter, tails, leaks and warm-up of every case.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
