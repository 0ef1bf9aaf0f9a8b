"""Whether intervals hold the truth 95 times in 100: thousands of generated data sets whose truth is known.

    python -m tests.bench.truth [--sets 1000] [--only laws,latency]

Each row is one figure under one kind of noise and number of repeats, with how often its interval held the true value
and the Wilson interval of that share. Noise is multiplicative: lognormal, or skewed (1 + exponential, so that runs are
late and hardly ever early). The percentile bootstrap, which is not used, stands beside as what would have been.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from analysis import latency, models, resample, slopes
from analysis.models import STRONG, WEAK
from analysis.series import Floats
from analysis.spread import wilson

LOGNORMAL, SKEWED = "lognormal", "skewed"
NODES = (1, 2, 4, 8, 16)
FAR = 64  # nodes to which laws are extended
SIZES = np.array([2.0**power for power in range(3, 25)])
Protocols = tuple[tuple[float, float], tuple[float, float]]
# (alpha s, beta bytes/s) of small sizes, and of those above 8 KiB
ONE: Protocols
TWO: Protocols
ONE, TWO = ((5e-6, 1e10), (5e-6, 1e10)), ((5e-6, 2e9), (20e-6, 1e10))
LAWS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    (STRONG, "Amdahl", (0.05,)),
    (STRONG, "Universal Scalability", (0.03, 0.001)),
    (STRONG, "Universal Scalability", (0.03, 0.0)),
    (WEAK, "Gustafson", (0.1,)),
    (WEAK, "Universal Scalability", (0.03, 0.001)),
)


TITLES = {
    "medians": "medians and efficiencies",
    "latency": "latency and bandwidth of collectives",
    "drift": "drift of a series, by steps",
    "laws": "scaling laws",
}


@dataclass(frozen=True)
class Held:
    """How often the interval of one figure held the truth."""

    figure: str
    noise: str
    repeats: int
    held: int
    tried: int
    none: int = 0  # data sets in which no interval was given: said to be unknown

    @property
    def share(self) -> float:
        """Of those that were tried."""
        return self.held / self.tried if self.tried else math.nan

    @property
    def row(self) -> tuple[str, ...]:
        """For a table."""
        low, high = wilson(self.held, self.tried)
        share = f"{100 * self.share:.1f} %"
        return (
            self.figure,
            self.noise,
            str(self.repeats),
            share,
            f"{100 * low:.1f} to {100 * high:.1f}",
            str(self.tried),
            str(self.none),
        )


@lru_cache
def _centre(size: float) -> float:
    """Mean of log(1 + size E) for an exponential E of mean 1, from its quantiles."""
    quantiles = -np.log1p(-(np.arange(200_000) + 0.5) / 200_000)
    return float(np.mean(np.log1p(size * quantiles)))


def noise(kind: str, size: float, generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Factors whose logarithms have the mean 0 and about the standard deviation ``size``."""
    if kind == LOGNORMAL:
        return np.asarray(np.exp(size * generator.standard_normal(shape)))
    return np.asarray((1 + size * generator.exponential(size=shape)) / math.exp(_centre(size)))


def _holds(interval: tuple[float, float], truth: float) -> bool:
    slack = 1e-12 * abs(truth)
    return interval[0] - slack <= truth <= interval[1] + slack


class _Tally:
    """Counts by figure, in the order in which figures came."""

    def __init__(self, kind: str, size: float, repeats: int) -> None:
        self.noise, self.repeats = f"{kind} {100 * size:g} %", repeats
        self.counts: dict[str, list[int]] = {}

    def add(self, figure: str, interval: tuple[float, float] | None, truth: float) -> None:
        counts = self.counts.setdefault(figure, [0, 0, 0])
        if interval is None:
            counts[2] += 1
            return
        counts[0] += _holds(interval, truth)
        counts[1] += 1

    def rows(self) -> list[Held]:
        return [Held(figure, self.noise, self.repeats, *counts) for figure, counts in self.counts.items()]


def medians(kind: str, size: float, repeats: int, sets: int, seed: int = 1) -> list[Held]:
    """The median of repeats, the same by the percentile bootstrap, and efficiency: a ratio of two medians."""
    generator, tally = np.random.default_rng(seed), _Tally(kind, size, repeats)
    middle = float(np.median(noise(kind, size, generator, (400_000,))))
    here, base = noise(kind, size, generator, (2, sets, repeats))
    draws = generator.integers(repeats, size=(400, repeats))
    for a, b in zip(here, base, strict=True):
        tally.add("median", resample.interval(a), middle)
        low, high = np.percentile(np.median(a[draws], axis=1), [2.5, 97.5])
        tally.add("median, percentile bootstrap (not used)", (float(low), float(high)), middle)
        tally.add("mean", resample.interval(a, np.mean), _mean(kind, size))
        # T(1) = 2 s, T(8) = 0.4 s: efficiency 0.625
        span = resample.ratio_of_medians(2.0 * b, 0.4 * a)
        tally.add("efficiency", span and (span[0] / 8, span[1] / 8), 0.625)
        wider = resample.ratio_of_medians(2.0 * b, 0.4 * a**3 / middle**2)  # a node count with more noise
        tally.add("efficiency, noise three times as large", wider and (wider[0] / 8, wider[1] / 8), 0.625)
    return tally.rows()


def _mean(kind: str, size: float) -> float:
    if kind == LOGNORMAL:
        return math.exp(size**2 / 2)
    return (1 + size) / math.exp(_centre(size))


def law_time_s(mode: str, law: str, parameters: tuple[float, ...], p: int) -> float:
    """Time of a law with T(1) = 2 s, in s."""
    speed_up: Mapping[str, Callable[..., float]] = {
        "Amdahl": models.amdahl, "Gustafson": models.gustafson, "Universal Scalability": models.universal
    }  # fmt: skip
    return 2.0 * (p if mode == WEAK else 1) / speed_up[law](p, *parameters)


def laws(
    mode: str, law: str, parameters: tuple[float, ...], kind: str, size: float, repeats: int, sets: int, seed: int = 1
) -> list[Held]:  # fmt: skip
    """Parameters of a law, its time at ``FAR`` nodes and a new run there: by the true law, and by those chosen."""
    generator, tally = np.random.default_rng(seed), _Tally(kind, size, repeats)
    name = f"{mode} {law} {parameters}"
    far_s = law_time_s(mode, law, parameters, FAR)
    for _ in range(sets):
        runs = {
            p: [
                float(t)
                for t in law_time_s(mode, law, parameters, p) * noise(kind, size, generator, (repeats,))
            ]
            for p in NODES
        }
        fitted = models.fit(law, mode, runs)
        for q, truth in zip(fitted.parameters, (2.0, *parameters), strict=True):
            tally.add(f"{name}: {q.name}", q.interval, truth)
        run_s = far_s * float(noise(kind, size, generator, (1,))[0])
        (known,) = models.predict((law,), mode, runs, (FAR,))
        tally.add(f"{name}: time at {FAR} nodes", known.interval_s, far_s)
        tally.add(f"{name}: a new run there", known.run_interval_s, run_s)
        able = models.supported([models.fit(x.name, mode, runs) for x in models.LAWS[mode]])
        (chosen,) = models.predict(able, mode, runs, (FAR,))
        tally.add(f"{name}: time at {FAR} nodes, law chosen by AICc", chosen.interval_s, far_s)
    return tally.rows()


def latencies(truth: Protocols, kind: str, size: float, repeats: int, sets: int, seed: int = 1) -> list[Held]:
    """Alpha and beta over sizes, with a factor that each repeat has of its own."""
    generator, tally = np.random.default_rng(seed), _Tally(kind, size, repeats)
    small, large = truth
    times_s = np.where(SIZES <= 8192, small[0] + SIZES / small[1], large[0] + SIZES / large[1])
    name = "one protocol" if small == large else "two protocols"
    for _ in range(sets):
        factors = noise(LOGNORMAL, 0.02, generator, (repeats, 1))
        line = latency.fit(SIZES, times_s * noise(kind, size, generator, (repeats, len(SIZES))) * factors)
        a, b = line.latency_s, line.bandwidth_bytes_per_s
        tally.add(f"{name}: latency", a and a.interval, small[0])
        tally.add(f"{name}: bandwidth", b and b.interval, large[1])
    return tally.rows()


def drifts(correlation: float, steps: int, kind: str, sets: int, seed: int = 1) -> list[Held]:
    """Theil-Sen's slope of steps that follow one another (an autoregressive series), by how many steps there are."""
    generator, tally = np.random.default_rng(seed), _Tally(kind, 0.05, steps)
    x, slope, lead = np.arange(steps, dtype=np.float64), 1e-5, 300
    for _ in range(sets):
        wild = np.log(noise(kind, 0.05, generator, (steps + lead,)))
        y = np.empty_like(wild)
        last = 0.0
        for i, value in enumerate(wild.tolist()):
            last = correlation * last + value
            y[i] = last
        found = slopes.theil_sen(x, 1 + slope * x + y[lead:])
        tally.add(f"drift, correlation {correlation:g}, {steps} steps", found and found.interval, slope)
    return tally.rows()


def cases(sets: int) -> Iterator[tuple[str, Callable[[int], list[Held]]]]:
    """Every part of the bench: its name, and what gives its rows for a seed."""
    for kind, size in ((LOGNORMAL, 0.02), (LOGNORMAL, 0.1), (SKEWED, 0.1), (SKEWED, 0.3)):
        for repeats in (6, 7, 10, 20):
            yield "medians", partial(medians, kind, size, repeats, 2 * sets)
    for law in LAWS:
        for kind, size in ((LOGNORMAL, 0.02), (SKEWED, 0.1)):
            for repeats in (6, 12):
                yield "laws", partial(laws, *law, kind, size, repeats, sets)
    for truth in (ONE, TWO):
        for kind, size in ((LOGNORMAL, 0.03), (SKEWED, 0.1)):
            for repeats in (6, 12):
                yield "latency", partial(latencies, truth, kind, size, repeats, sets)
    for correlation in (0.0, 0.5, 0.9):
        for steps in (100, 1000):
            for kind in (LOGNORMAL, SKEWED):
                yield "drift", partial(drifts, correlation, steps, kind, sets)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table of every part, and keep it as data."""
    from tests.bench.table import print_table, write_json

    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.truth", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--sets", type=int, default=1000, help="data sets for each row")
    parser.add_argument("--only", default="", help="parts, such as laws,drift")
    options = parser.parse_args(argv)
    wanted = options.only.split(",") if options.only else list(TITLES)
    header = ("interval of", "noise", "repeats", "held", "95 % of that", "of", "no interval")
    every: list[Held] = []
    seeded = list(enumerate(cases(options.sets), 1))  # a part has the same seeds also where it runs alone
    for part in wanted:
        found = [held for seed, (name, rows) in seeded if name == part for held in rows(seed)]
        print_table(f"{TITLES[part]}: intervals of 95 % that held the truth", header, [h.row for h in found])
        every += found
    write_json("truth", {"sets": options.sets, "rows": [vars(h) for h in every]})


if __name__ == "__main__":
    main()
