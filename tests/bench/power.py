"""How often the regression gate raises a false alarm, and how often it finds what it should: on generated campaigns.

    python -m tests.bench.power [--campaigns 5000] [--only single,noise,family,history]

Each campaign is a baseline and a run with a known change, of known noise from repeat to repeat; the gate's smallest
effect is 5 %. Stated are the false-alarm rate, 2.5 % of single comparisons (5 % of whole comparisons of many series),
and the power that ``analysis.difference.power`` gives for so much noise and so many repeats. Shares are of thousands
of campaigns and stand beside what was stated, or with their Wilson 95 % intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analysis import history
from analysis.difference import Change, Smallest, change_of, conclude, corrected, measure_many, power
from analysis.series import Floats
from analysis.spread import wilson

SMALLEST = Smallest(0.05)
ALARMS = 0.025  # of single comparisons without a change
LOWER = "lower"
REPEATS = (6, 8, 12, 20)
NOISE = (0.01, 0.02, 0.05)
EFFECTS = (0.0, 0.025, 0.05, 0.075, 0.10, 0.20)
Draw = Callable[[np.random.Generator, tuple[int, ...], float], Floats]


def lognormal(random: np.random.Generator, shape: tuple[int, ...], noise: float) -> Floats:
    """Repeats whose logarithms are normal."""
    return np.asarray(np.exp(noise * random.standard_normal(shape)))


def contaminated(random: np.random.Generator, shape: tuple[int, ...], noise: float) -> Floats:
    """As lognormal, and one repeat in ten is 10 % to 30 % slower: a busy neighbour."""
    wild = np.where(random.random(shape) < 0.1, 1 + random.uniform(0.1, 0.3, shape), 1.0)
    return np.asarray(lognormal(random, shape, noise) * wild)


def heavy(random: np.random.Generator, shape: tuple[int, ...], noise: float) -> Floats:
    """Student's t with 3 degrees of freedom, of the same quartiles."""
    return np.asarray(np.exp(noise * 0.882 * random.standard_t(3, shape)))


def skewed(random: np.random.Generator, shape: tuple[int, ...], noise: float) -> Floats:
    """Late and hardly ever early: 1 + exponential."""
    return np.asarray(1 + noise * random.exponential(size=shape))


def two_modes(random: np.random.Generator, shape: tuple[int, ...], noise: float) -> Floats:
    """Half of the repeats 8 % slower, whatever is measured: two kinds of placement."""
    return np.asarray(lognormal(random, shape, noise) * np.where(random.random(shape) < 0.5, 1.08, 1.0))


KINDS: dict[str, Draw] = {
    "log-normal": lognormal,
    "one in ten 10-30 % late": contaminated,
    "heavy tails (t, 3 df)": heavy,
    "skewed": skewed,
    "two modes, 8 % apart": two_modes,
}


def shares(
    draw: Draw, noise: float, repeats: int, effect: float, campaigns: int, seed: int
) -> dict[Change, float]:
    """Share of campaigns with each verdict, of single comparisons."""
    random = np.random.default_rng([seed, repeats, round(effect * 1e4), round(noise * 1e4)])
    a, b = draw(random, (campaigns, repeats), noise), draw(random, (campaigns, repeats), noise)
    tested = measure_many(a, b * (1 + effect), SMALLEST)
    codes = conclude(tested, tested.p(1), LOWER)
    return {change: float(np.mean([codes == i])) for i, change in enumerate(Change)}


def family(
    draw: Draw, noise: float, repeats: int, series: int, worse: int, effect: float, campaigns: int, seed: int
) -> tuple[float, float, float]:
    """Of comparisons of many series, ``worse`` of them changed.

    Returns:
        Share of campaigns with any false alarm, mean share of false ones among alarms, share of changes found.
    """
    random = np.random.default_rng([seed, series, worse, repeats])
    any_false, false_share, found = 0, 0.0, 0
    for _ in range(campaigns):
        a, b = draw(random, (series, repeats), noise), draw(random, (series, repeats), noise)
        b[:worse] *= 1 + effect
        tested = measure_many(a, b, SMALLEST)
        codes = conclude(tested, corrected(tested.p(series)), LOWER)
        alarm = np.array([change_of(int(c)) is Change.WORSE for c in codes])
        false = int(np.sum(alarm[worse:]))
        any_false += false > 0
        false_share += false / max(1, int(np.sum(alarm)))
        found += int(np.sum(alarm[:worse]))
    return any_false / campaigns, false_share / campaigns, found / max(1, worse * campaigns)


def last_run(noise: float, runs: int, effect: float, campaigns: int, seed: int) -> tuple[float, float]:
    """Shares of campaigns whose last run is called worse, and of intervals that hold the truth."""
    random = np.random.default_rng([seed, runs, round(effect * 1e4)])
    worse = held = 0
    for _ in range(campaigns):
        figures = lognormal(random, (runs + 1,), noise)
        figures[-1] *= 1 + effect
        said = history.expected(history.measure(figures, SMALLEST, LOWER))
        worse += said.verdict is Change.WORSE
        held += said.interval is not None and said.interval[0] <= effect <= said.interval[1]
    return worse / campaigns, held / campaigns


# --- tables ------------------------------------------------------------------------------------------------


def _percent(share: float) -> str:
    return f"{share * 100:.1f}"


def _with_interval(share: float, number: int) -> str:
    low, high = wilson(round(share * number), number)
    return f"{_percent(share)} ({_percent(low)}-{_percent(high)})"


def _bar(share: float, width: int = 40) -> str:
    return "#" * round(share * width)


def single(campaigns: int) -> list[dict[str, Any]]:
    """False alarms and power of one comparison, by noise and repeats."""
    from tests.bench.table import print_table

    kept, rows = [], []
    for noise in NOISE:
        for repeats in REPEATS:
            cells = []
            for effect in EFFECTS:
                share = shares(lognormal, noise, repeats, effect, campaigns, 1)
                stated = ALARMS if effect == 0 else power(noise, repeats, effect, SMALLEST)
                kept.append({"noise": noise, "repeats": repeats, "effect": effect, "stated": stated,
                             **{k.value: v for k, v in share.items()}})  # fmt: skip
                worse = share[Change.WORSE]
                cells.append(f"{_percent(worse)} / {_percent(stated)}")
            rows.append([f"{noise * 100:.0f} %", str(repeats), *cells])
    header = ["noise", "repeats", *(f"+{e * 100:g} %" if e else "no change" for e in EFFECTS)]
    title = f"called worse, % of {campaigns} campaigns / stated; smallest effect 5 %, log-normal noise"
    print_table(title, header, rows)
    print("\n  the curve: 6 repeats, 2 % noise")
    for effect in np.arange(0, 0.1225, 0.0125):
        worse = shares(lognormal, 0.02, 6, float(effect), campaigns, 2)[Change.WORSE]
        print(f"  {effect * 100:5.2f} %  {worse * 100:5.1f} %  {_bar(worse)}")
    return kept


def kinds(campaigns: int) -> list[dict[str, Any]]:
    """The same under other kinds of noise, 2 % wide."""
    from tests.bench.table import print_table

    kept, rows = [], []
    for name, draw in KINDS.items():
        for repeats in (6, 12):
            share = {e: shares(draw, 0.02, repeats, e, campaigns, 3) for e in (0.0, 0.05, 0.10)}
            kept += [
                {"kind": name, "repeats": repeats, "effect": e, "worse": s[Change.WORSE]}
                for e, s in share.items()
            ]
            cells = [_with_interval(share[e][Change.WORSE], campaigns) for e in share]
            rows.append([name, str(repeats), *cells, _percent(share[0.0][Change.UNKNOWN])])
    header = ["noise, 2 %", "repeats", "no change", "+5 %", "+10 %", "unknown, no change"]
    print_table(f"called worse, % of {campaigns} campaigns (95 % interval)", header, rows)
    return kept


def families(campaigns: int) -> list[dict[str, Any]]:
    """Many series at once, corrected."""
    from tests.bench.table import print_table

    kept, rows = [], []
    for name, draw in KINDS.items():
        for series, worse, repeats in ((50, 0, 6), (50, 1, 6), (50, 5, 6), (500, 1, 6), (500, 1, 10)):
            any_false, false_share, found = family(draw, 0.02, repeats, series, worse, 0.10, campaigns, 4)
            kept.append({"kind": name, "series": series, "worse": worse, "repeats": repeats,
                         "any_false": any_false, "false_share": false_share, "found": found})  # fmt: skip
            cells = [
                _with_interval(any_false, campaigns),
                _percent(false_share),
                _percent(found) if worse else "-",
            ]
            rows.append([name, str(series), str(worse), str(repeats), *cells])
    header = [
        "noise, 2 %",
        "series",
        "10 % worse",
        "repeats",
        "any false alarm, %",
        "false among alarms, %",
        "found, %",
    ]
    print_table(
        f"many series at once, {campaigns} campaigns each; stated: 5 % of alarms false at most", header, rows
    )
    return kept


def histories(campaigns: int) -> list[dict[str, Any]]:
    """The last run of a folder against those before it."""
    from tests.bench.table import print_table

    kept, rows = [], []
    for runs in (6, 10, 20, 40):
        for noise in (0.01, 0.02):
            found = {e: last_run(noise, runs, e, campaigns, 5) for e in (0.0, 0.05, 0.10)}
            kept += [
                {"runs": runs, "noise": noise, "effect": e, "worse": w, "held": h}
                for e, (w, h) in found.items()
            ]
            cells = [_with_interval(w, campaigns) for w, _ in found.values()]
            rows.append([str(runs), f"{noise * 100:.0f} %", *cells, _percent(found[0.0][1])])
    header = ["earlier runs", "noise", "no change", "+5 %", "+10 %", "interval holds truth, %"]
    print_table(f"the last run called worse, % of {campaigns} campaigns (95 % interval)", header, rows)
    return kept


def main(campaigns: int = 5000, only: Sequence[str] = ()) -> None:
    """Every table, and the figures as data."""
    from tests.bench.table import write_json

    few = max(50, campaigns // 10)
    tables: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "single": lambda: single(campaigns),
        "noise": lambda: kinds(campaigns),
        "family": lambda: families(few),
        "history": lambda: histories(2 * few),
    }
    write_json(
        "power",
        {"campaigns": campaigns, **{n: make() for n, make in tables.items() if not only or n in only}},
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--campaigns", type=int, default=5000)
    options.add_argument("--only", type=lambda t: t.split(","), default=())
    main(**vars(options.parse_args()))
