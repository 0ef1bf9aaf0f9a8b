"""Scaling laws fitted to run times: ideal, Amdahl, Gustafson, Universal Scalability; compared by AICc.

Each law makes the time T(p), or for Gustafson the rate 1/T(p), a sum of basis functions of p with
coefficients that cannot be negative, so one fit serves all (``analysis.fitting``). T(1) is a parameter,
so the smallest run need not be p = 1. Sources: Amdahl 1967; Gustafson 1988; Gunther, Guerrilla Capacity
Planning, 2007; Karp and Flatt 1990; AICc: Burnham and Anderson 2002, eq. 7.32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations

import numpy as np
from scipy import stats

from analysis.fitting import Repeats, aicc, fit_log
from analysis.resample import LEVEL, Interval
from analysis.resample import MINIMUM as MINIMUM_REPEATS
from analysis.series import Floats

STRONG, WEAK = "strong", "weak"
SUPPORTED = 4.0  # laws whose AICc is nearer than this to the lowest cannot be told from it (Burnham and Anderson 2002)
_NO_KAPPA = 1e-12  # less is the rounding error of a fit


@dataclass(frozen=True)
class Parameter:
    """One fitted parameter; ``interval`` is the 95 % bootstrap interval over repeats, None with too few."""

    name: str
    value: float
    unit: str
    interval: tuple[float, float] | None
    meaning: str


@dataclass(frozen=True)
class Fit:
    """One law fitted to n runs; ``aicc`` is None where n < k + 3, and then ``why`` says so."""

    law: str
    formula: str
    parameters: tuple[Parameter, ...]
    n: int
    k: int  # parameters, T(1) and the variance included
    relative_error: float  # root mean square of the residuals of log T
    aicc: float | None
    why: str
    # Where the Universal Scalability law says more stops helping; None unless the interval of kappa excludes 0.
    peak_p: float | None = None
    lack_of_fit: float | None = (
        None  # probability that repeats alone miss the law by so much; None: not known
    )


@dataclass(frozen=True)
class Prediction:
    """What laws say of one node count; intervals are of 95 %, None with too few repeats."""

    nodes: int
    outside: bool  # beyond the runs: it holds as far as the law does
    law: str
    time_s: float
    interval_s: Interval | None  # of the law's time, over all laws that the runs cannot tell apart
    run_interval_s: Interval | None  # in which one new run is expected, its own noise included
    laws: tuple[str, ...]  # those that the runs cannot tell apart, the best first


@dataclass(frozen=True)
class _Law:
    name: str
    formula: str
    basis: Callable[[Floats], Floats]  # p, shape (n,) -> (n, terms)
    of_rate: bool  # the basis gives 1/T instead of T
    read: Callable[[Floats], Floats]  # coefficients (r, terms) -> parameters (r, m), T(1) first
    parameters: tuple[tuple[str, str, str], ...]  # name, unit, meaning


def _stack(*terms: Floats) -> Floats:
    return np.stack(terms, axis=1)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


_T1 = ("T(1)", "s", "time on one node, from the fit")
_S = ("s", "1", "serial part")
_SIGMA = ("sigma", "1", "contention: share of the work that is done one after the other")
_KAPPA = ("kappa", "1", "coherence: cost of each pair that must agree")


def _usl(c: Floats) -> Floats:
    first = c[:, 0] + c[:, 1]
    return np.stack([first, _ratio(c[:, 1], first), _ratio(c[:, 2], first)], axis=1)


def _serial(c: Floats) -> Floats:
    first = c[:, 0] + c[:, 1]
    return np.stack([first, _ratio(c[:, 1], first)], axis=1)


def _gustafson(c: Floats) -> Floats:
    rate = c[:, 0] + c[:, 1]
    return np.stack([_ratio(np.ones_like(rate), rate), _ratio(c[:, 1], rate)], axis=1)


LAWS: dict[str, tuple[_Law, ...]] = {
    STRONG: (
        _Law("ideal", "S = p", lambda p: _stack(1 / p), False, lambda c: c, (_T1,)),
        _Law(
            "Amdahl",
            "S = 1 / (s + (1 - s)/p)",
            lambda p: _stack(1 / p, np.ones_like(p)),
            False,
            _serial,
            (_T1, _S),
        ),
        _Law(
            "Universal Scalability",
            "S = p / (1 + sigma (p - 1) + kappa p (p - 1))",
            lambda p: _stack(1 / p, np.ones_like(p), p - 1),
            False,
            _usl,
            (_T1, _SIGMA, _KAPPA),
        ),
    ),
    WEAK: (
        _Law("ideal", "T = T(1)", lambda p: _stack(np.ones_like(p)), False, lambda c: c, (_T1,)),
        _Law(
            "Gustafson",
            "S = p - s (p - 1)",
            lambda p: _stack(np.ones_like(p), 1 / p),
            True,
            _gustafson,
            (_T1, _S),
        ),
        _Law(
            "Universal Scalability",
            "S = p / (1 + sigma (p - 1) + kappa p (p - 1))",
            lambda p: _stack(np.ones_like(p), p, p * (p - 1)),
            False,
            _usl,
            (_T1, _SIGMA, _KAPPA),
        ),
    ),
}


# --- the laws themselves, as METRICS.md writes them ------------------------------------------------------


def amdahl(p: float, s: float) -> float:
    """Speed-up with serial part s."""
    return 1 / (s + (1 - s) / p)


def gustafson(p: float, s: float) -> float:
    """Scaled speed-up with serial part s."""
    return p - s * (p - 1)


def universal(p: float, sigma: float, kappa: float) -> float:
    """Universal Scalability: relative capacity."""
    return p / (1 + sigma * (p - 1) + kappa * p * (p - 1))


def universal_peak(sigma: float, kappa: float) -> float | None:
    """The p at which Universal Scalability is greatest; None where it never turns."""
    return math.sqrt((1 - sigma) / kappa) if kappa > 0 and sigma <= 1 else None


def karp_flatt(speed_up: float, p: float) -> float:
    """Experimentally determined serial fraction (1/S - 1/p)/(1 - 1/p); NaN at p = 1."""
    return (1 / speed_up - 1 / p) / (1 - 1 / p) if p != 1 else math.nan


def time_s(fit: Fit, mode: str, p: float) -> float:
    """Time that a fitted law gives at p, in s."""
    values = [q.value for q in fit.parameters]
    if fit.law == "Amdahl":
        speed_up = amdahl(p, values[1])
    elif fit.law == "Gustafson":
        speed_up = gustafson(p, values[1])
    elif fit.law == "Universal Scalability":
        speed_up = universal(p, values[1], values[2])
    else:
        speed_up = p
    return values[0] / speed_up * (p if mode == WEAK else 1)


# --- fitting -----------------------------------------------------------------------------------------------


def law_named(mode: str, name: str) -> _Law:
    """The law of that name."""
    return next(law for law in LAWS[mode] if law.name == name)


@dataclass(frozen=True)
class _Fitted:
    """A law's coefficients, and draws of them: with all terms, and without each of those that may be zero."""

    law: _Law
    coefficients: Floats  # shape (1, terms)
    between: float  # weighted sum of squares of the means around the law
    means: Floats | None  # draws of the means, (resamples, places); None with too few repeats
    drawn: tuple[Floats, ...]  # each (resamples, terms)


_Key = tuple[tuple[int, tuple[float, ...]], ...]


def _key(runs: Mapping[int, Sequence[float]]) -> _Key:
    return tuple((p, tuple(times)) for p, times in runs.items())


@lru_cache(maxsize=32)
def _repeats(key: _Key, seed: int) -> tuple[Repeats, Floats | None]:
    """The runs reduced, and draws of their means; those are None with too few repeats."""
    repeats = Repeats.of([times for _, times in key])
    return repeats, repeats.draws(seed) if min(repeats.counts) >= MINIMUM_REPEATS else None


@lru_cache(maxsize=32)
def _fitted(law: _Law, key: _Key, seed: int, *, resampled: bool) -> _Fitted:
    repeats, means = _repeats(key, seed)
    means = means if resampled else None
    basis = law.basis(np.array([float(p) for p, _ in key]))

    def solved(log_times: Floats, terms: list[int], start: Floats | None) -> tuple[Floats, Floats]:
        times = np.exp(log_times)
        found = np.zeros((len(times), basis.shape[1]))
        y = 1 / times if law.of_rate else times
        found[:, terms], sse = fit_log(basis[:, terms], y, repeats.counts, start)
        return found, sse

    every = list(range(basis.shape[1]))
    found, between = solved(repeats.means[None, :], every, None)
    if means is None:
        return _Fitted(law, found, float(between[0]), None, ())
    drawn = [solved(means, every, found[0])[0]]
    zero = [j for j in every if float(np.quantile(drawn[0][:, j], 0.005)) <= 0]
    for count in range(1, min(len(zero), len(every) - 1) + 1):
        for left_out in combinations(zero, count):
            drawn.append(solved(means, [j for j in every if j not in left_out], None)[0])
    return _Fitted(law, found, float(between[0]), means, tuple(drawn))


def _parameter(law: _Law, index: int, coefficients: Floats) -> Floats:
    return law.read(coefficients)[:, index]


def _hull(repeats: Repeats, fitted: _Fitted, figure: Callable[[Floats], Floats]) -> Interval:
    """Interval of a figure of the coefficients, (r, terms) -> (r,), with and without terms that may be zero."""
    assert fitted.means is not None
    spans = [repeats.interval(figure(drawn), fitted.means) for drawn in fitted.drawn]
    return min(low for low, _ in spans), max(high for _, high in spans)


def _times(law: _Law, nodes: float, coefficients: Floats) -> Floats:
    """Times in s that a law gives at ``nodes``, shape (r,); infinite where its rate is 0."""
    sums: Floats = np.asarray(coefficients @ law.basis(np.array([float(nodes)]))[0])
    if not law.of_rate:
        return sums
    return np.divide(1.0, sums, out=np.full_like(sums, np.inf), where=sums > 0)


def _why_not(law: _Law, places: int, n: int) -> str:
    k = len(law.parameters) + 1
    if places < len(law.parameters):
        return f"{places} node counts cannot tell {len(law.parameters)} parameters apart"
    return "" if n >= k + 3 else f"{n} runs, {k} parameters: AICc needs at least {k + 3}"


def fit(law_name: str, mode: str, runs: Mapping[int, Sequence[float]], seed: int = 0) -> Fit:
    """Fit one law to independent runs.

    T(1) is that of a typical run: the geometric mean over repeats is what is fitted.

    Args:
        law_name: name in ``LAWS[mode]``.
        mode: ``strong`` or ``weak``.
        runs: node count -> times in s, above zero, one for each independent repeat.
        seed: of the bootstrap, which resamples repeats within each node count.
    """
    law = law_named(mode, law_name)
    key = _key(runs)
    repeats, _ = _repeats(key, seed)
    n, k = repeats.n, len(law.parameters) + 1
    why = _why_not(law, len(runs), n)
    fitted = _fitted(law, key, seed, resampled=not why)
    values, sse = law.read(fitted.coefficients)[0], fitted.between + repeats.within
    intervals: list[Interval | None] = [None] * len(law.parameters)
    if fitted.means is not None:
        intervals = [_hull(repeats, fitted, partial(_parameter, law, i)) for i in range(len(values))]
    parameters = tuple(
        Parameter(name, float(value), unit, span, meaning)
        for (name, unit, meaning), value, span in zip(law.parameters, values, intervals, strict=True)
    )
    peak = None
    kappa_span = parameters[-1].interval
    if law.name == "Universal Scalability" and kappa_span is not None and kappa_span[0] > _NO_KAPPA:
        peak = universal_peak(*(q.value for q in parameters[1:]))
    score = None if why else aicc(sse, n, k)
    missed = repeats.lack_of_fit(fitted.between, len(law.parameters))
    return Fit(law.name, law.formula, parameters, n, k, math.sqrt(sse / n), score, why, peak, missed)


def supported(fits: Sequence[Fit]) -> tuple[str, ...]:
    """Laws that the runs cannot tell from the one with the lowest AICc, that one first; none without an AICc."""
    scored = sorted((f.aicc, f.law) for f in fits if f.aicc is not None)
    return tuple(law for score, law in scored if score - scored[0][0] < SUPPORTED)


def predict(
    laws: Sequence[str], mode: str, runs: Mapping[int, Sequence[float]], nodes: Sequence[int], seed: int = 0
) -> tuple[Prediction, ...]:
    """Times that laws give at ``nodes``, inside the runs or beyond them.

    Where the runs leave several laws standing, each says another thing far out, so the interval spans all of them.

    Args:
        laws: as ``supported`` gives them, the best first.
        mode, runs, seed: as for ``fit``.
        nodes: node counts, above zero.
    """
    key = _key(runs)
    repeats, means = _repeats(key, seed)
    fits = [_fitted(law_named(mode, name), key, seed, resampled=True) for name in laws]
    found = []
    for p in nodes:
        spans = [_spans(repeats, fitted, p) for fitted in fits] if means is not None else []
        law_spans, run_spans = [s for s, _ in spans], [s for _, s in spans]
        found.append(
            Prediction(
                p,
                not min(runs) <= p <= max(runs),
                laws[0],
                float(_times(fits[0].law, p, fits[0].coefficients)[0]),
                (min(s[0] for s in law_spans), max(s[1] for s in law_spans)) if spans else None,
                (min(s[0] for s in run_spans), max(s[1] for s in run_spans)) if spans else None,
                tuple(laws),
            )
        )
    return tuple(found)


def _spans(repeats: Repeats, fitted: _Fitted, nodes: float) -> tuple[Interval, Interval]:
    """Intervals of a law's time at ``nodes`` and of a new run there, in s."""
    log_s = float(np.log(_times(fitted.law, nodes, fitted.coefficients)[0]))
    low, high = _hull(repeats, fitted, lambda c: np.log(_times(fitted.law, nodes, c)))
    if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(log_s)):
        return (0.0, math.inf), (0.0, math.inf)
    df = repeats.n - len(fitted.law.parameters)
    noise = math.sqrt((repeats.within + fitted.between) / df)  # of log time, one run
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * noise
    # Two uncertainties that know nothing of each other, each with its own two sides.
    run = log_s - math.hypot(log_s - low, half), log_s + math.hypot(high - log_s, half)
    return (math.exp(low), math.exp(high)), (math.exp(run[0]), math.exp(run[1]))
