"""Scaling in words, for a terminal: tables, laws with their parameters, what is said of more nodes, and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import text
from analysis.models import Fit, Prediction
from analysis.resample import MINIMUM as MINIMUM_REPEATS
from analysis.resample import Interval

if TYPE_CHECKING:
    from analysis.scaling import Point, Series

_MISSES = 0.01  # probability below which a law is said to miss what repeats alone would not


def parameter_words(series_fit: Fit) -> str:
    """Parameters of a fit with their intervals, for people."""
    words = []
    for q in series_fit.parameters:
        values = (q.value, *(q.interval or ()))
        shown = [text.seconds(v) for v in values] if q.unit == "s" else text.together(values)
        span = f" ({shown[1]} to {shown[2]})" if q.interval else ""
        words.append(f"{q.name} = {shown[0]}{span}")
    if series_fit.peak_p is not None:
        gain = (
            f"peak at {text.digits(series_fit.peak_p)} nodes"
            if series_fit.peak_p > 1
            else "no gain from a second node"
        )
        words.append(gain)
    return ", ".join(words)


def efficiency_words(p: Point) -> str:
    """The efficiency of a point with its interval."""
    return text.fine_percent(p.efficiency) + _percents(p.efficiency_interval)


def _percents(span: Interval | None) -> str:
    return f" ({text.fine_percent(span[0])} to {text.fine_percent(span[1])})" if span else ""


def table(series: Series) -> str:
    """One series as plain columns."""
    rows = []
    for p in series.points:
        low, high = p.interval_s or p.range_s
        rows.append(
            (
                p.nodes,
                p.ranks,
                len(p.times_s),
                p.steps,
                text.seconds(p.median_s),
                f"{text.seconds(low)} to {text.seconds(high)}",
                text.digits(p.speed_up),
                efficiency_words(p),
                karp_flatt_words(p),
            )
        )
    kind = "95 % interval" if any(p.interval_s for p in series.points) else "range of repeats"
    return text.columns(
        ("nodes", "ranks", "repeats", "steps", "step time", kind, "speed-up", "efficiency", "Karp-Flatt"),
        rows,
        (),
    )


def karp_flatt_words(p: Point) -> str:
    """Karp-Flatt's serial fraction of a point with its interval; a dash at the base."""
    if p.karp_flatt is None:
        return "-"
    fraction, *span = text.together((p.karp_flatt, *(p.karp_flatt_interval or ())))
    return f"{fraction} ({span[0]} to {span[1]})" if span else fraction


def prediction_words(p: Prediction) -> str:
    """What the laws say of one node count, for people."""
    place = "outside of what was measured" if p.outside else "inside of what was measured"
    said = f"{text.count(p.nodes, 'node')}, {place}: {text.seconds(p.time_s)} by {p.law}"
    if p.interval_s is None or p.run_interval_s is None:
        return f"{said}; no interval with fewer than {MINIMUM_REPEATS} repeats"
    law, run = (
        f"{text.seconds(low)} to {text.seconds(high)}" for low, high in (p.interval_s, p.run_interval_s)
    )
    several = f", over {' and '.join(p.laws)}" if len(p.laws) > 1 else ""
    return f"{said} (95 %: {law}{several}; one new run: {run})"


def law_words(series: Series) -> list[str]:
    """Which law was chosen and how sure that is, a line each, or why there is none."""
    if series.why_no_fit:
        return [f"no law chosen: {series.why_no_fit}"]
    lines = [f"{series.best} has the lowest AICc"]
    if len(series.supported) > 1:
        lines.append(f"the runs cannot tell {' from '.join(series.supported)} by AICc")
    missed = series.fit_named(series.best).lack_of_fit
    if missed is not None and missed < _MISSES:
        lines.append(
            f"{series.best} misses the medians by more than repeats vary (F test, {text.chance(missed)}): its "
            "intervals and what it says of more nodes are too sure of themselves"
        )
    if not any(q.interval for f in series.fits for q in f.parameters):
        lines.append(f"no intervals: fewer than {MINIMUM_REPEATS} repeats at some node count")
    return lines


def _laws(series: Series) -> list[str]:
    lines = []
    for f in series.fits:
        mark = "*" if f.law == series.best else " "
        score = f"AICc {f.aicc:.1f}" if f.aicc is not None else f"AICc unknown: {f.why}"
        lines.append(f"{mark} {f.law}: {parameter_words(f)}; off by {f.relative_error * 100:.2f} %, {score}")
    return lines + law_words(series)


def words(series: Series) -> str:
    """One series for the terminal: table, fits or why there is none, and what was left out."""
    cell = "" if series.cell == "{}" else f" {series.cell}"
    lines = [
        text.one_line(
            f"{series.group}: {series.workload}, {series.mode} scaling{cell}, "
            + (f"{series.differs}, " if series.differs else "")
            + f"{text.count(series.ranks_per_node, 'rank')} a node"
            + (f"; base: {text.count(series.base_nodes, 'node')}" if series.points else "")
            + (f" [{series.stamp}]" if series.stamp else "")
        )
    ]
    if series.points:
        lines.append(table(series))
    lines += _laws(series)
    lines += [prediction_words(p) for p in series.predictions]
    lines += [x.words for x in series.lost]
    lines += [said for said in (series.communication, series.overhead) if said]
    lines += [text.one_line(f"note: {note}") for note in series.notes]
    lines += [text.one_line(f"left out: {reason}") for reason in series.left_out]
    return "\n".join(lines)
