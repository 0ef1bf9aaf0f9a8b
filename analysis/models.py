"""Scaling laws fitted to run times: ideal, Amdahl, Gustafson, Universal Scalability; compared by AICc.

Each law makes the time T(p), or for Gustafson the rate 1/T(p), a sum of basis functions of p with
coefficients that cannot be negative, so one fit serves all (``analysis.fitting``). T(1) is a parameter,
so the smallest run need not be p = 1. Sources: Amdahl 1967; Gustafson 1988; Gunther, Guerrilla Capacity
Planning, 2007; Karp and Flatt 1990; AICc: Burnham and Anderson 2002, eq. 7.32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from analysis.fitting import Repeats, aicc, fit_log
from analysis.resample import MINIMUM as MINIMUM_REPEATS
from analysis.resample import Interval
from analysis.series import Floats

STRONG, WEAK = "strong", "weak"
_STEP = 1e-6  # of logarithms of times, of derivatives
_LARGEST_LOG = 700.0
SUPPORTED = 4.0  # laws whose AICc is nearer than this to the lowest cannot be told from it (Burnham and Anderson 2002)
_NO_KAPPA = 1e-12  # less is the rounding error of a fit


@dataclass(frozen=True)
class Parameter:
    """One fitted parameter; ``interval`` is of 95 % from repeats, None with too few."""

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


Figure = Callable[[Floats], Floats]  # of coefficients: (r, terms) -> (r,)
_Key = tuple[tuple[int, tuple[float, ...]], ...]


def _key(runs: Mapping[int, Sequence[float]]) -> _Key:
    return tuple((p, tuple(times)) for p, times in runs.items())


@lru_cache(maxsize=32)
def _repeats(key: _Key) -> Repeats:
    return Repeats.of([times for _, times in key])


@dataclass(frozen=True)
class _Fitted:
    """A law fitted to means of repeats, with those of its terms that ``terms`` names; the others are 0."""

    law: _Law
    repeats: Repeats
    basis: Floats  # shape (places, terms of the law)
    terms: tuple[int, ...]
    coefficients: Floats  # shape (1, terms of the law)
    between: float  # weighted sum of squares of the means around the law

    @classmethod
    def of(cls, law: _Law, repeats: Repeats, basis: Floats, terms: tuple[int, ...]) -> _Fitted:
        """The fit to the means of repeats."""
        empty = cls(law, repeats, basis, terms, np.zeros((1, basis.shape[1])), 0.0)
        found, between = empty._solved(repeats.means[None, :])
        return replace(empty, coefficients=found, between=float(between[0]))

    def _solved(self, log_times: Floats) -> tuple[Floats, Floats]:
        """Coefficients and sums of squares for means of log time, (r, places)."""
        terms, found = list(self.terms), np.zeros((len(log_times), self.basis.shape[1]))
        y = np.exp(-log_times if self.law.of_rate else log_times)
        found[:, terms], sse = fit_log(self.basis[:, terms], y, self.repeats.counts)
        return found, sse

    def spans(self, figures: Sequence[Figure]) -> list[Interval]:
        """Interval of each figure, as ``analysis.fitting`` says."""
        ends = np.concatenate([self.repeats.ends(self._gradient(f)) for f in figures])
        found, _ = self._solved(ends)
        pairs = [f(found[2 * i : 2 * i + 2]).tolist() for i, f in enumerate(figures)]
        return [(min(pair), max(pair)) for pair in pairs]

    def _gradient(self, figure: Figure) -> Floats:
        """Of a figure by the means of log time, (places,), as if coefficients could be negative."""
        terms = list(self.terms)
        columns = self.basis / (self.basis @ self.coefficients[0])[:, None]
        most = np.max(np.abs(columns), axis=0)  # change of the logarithm of some time, for each coefficient
        steps = _STEP * np.diag(1 / most)[terms]
        slopes = (figure(self.coefficients + steps) - figure(self.coefficients)) / _STEP
        root = np.sqrt(self.repeats.counts)
        solution = np.linalg.pinv((columns / most)[:, terms] * root[:, None]) * root
        return np.asarray((-1 if self.law.of_rate else 1) * slopes @ solution)


@dataclass(frozen=True)
class _Family:
    """A law fitted with all terms, and without each of those that may as well be zero."""

    full: _Fitted
    reduced: tuple[_Fitted, ...]

    def intervals(self, figures: Sequence[Figure]) -> list[Interval]:
        """Interval of each figure: it spans the law with and without such terms."""
        every = [fitted.spans(figures) for fitted in (self.full, *self.reduced)]
        return [(min(low for low, _ in s), max(high for _, high in s)) for s in zip(*every, strict=True)]


@lru_cache(maxsize=32)
def _fitted(law: _Law, key: _Key) -> _Fitted:
    basis = law.basis(np.array([float(p) for p, _ in key]))
    return _Fitted.of(law, _repeats(key), basis, tuple(range(basis.shape[1])))


@lru_cache(maxsize=32)
def _family(law: _Law, key: _Key) -> _Family:
    """Needs two repeats a place, and as many places as the law has terms."""
    full = _fitted(law, key)
    return _Family(full, tuple(_reduced(full).values()))


def _reduced(fitted: _Fitted) -> dict[tuple[int, ...], _Fitted]:
    """Fits without a term that may as well be zero, and of those again, by the terms that are left."""
    found: dict[tuple[int, ...], _Fitted] = {}
    if len(fitted.terms) > 1:
        spans = fitted.spans([partial(_coefficient, j) for j in fitted.terms])
        for j in [j for j, (low, _) in zip(fitted.terms, spans, strict=True) if low <= 0]:
            kept = tuple(k for k in fitted.terms if k != j)
            without = _Fitted.of(fitted.law, fitted.repeats, fitted.basis, kept)
            found |= {kept: without, **_reduced(without)}
    return found


def _coefficient(index: int, coefficients: Floats) -> Floats:
    return coefficients[:, index]


def _parameter(law: _Law, index: int, coefficients: Floats) -> Floats:
    return law.read(coefficients)[:, index]


def _log_times(law: _Law, nodes: float, coefficients: Floats) -> Floats:
    """Logarithms of times in s that a law gives at ``nodes``, shape (r,); infinite where its rate is 0."""
    sums: Floats = np.asarray(coefficients @ law.basis(np.array([float(nodes)]))[0])
    logs = np.log(np.maximum(sums, 1e-300))
    return np.where(sums > 0, -logs, np.inf) if law.of_rate else logs


def _why_not(law: _Law, places: int, n: int) -> str:
    k = len(law.parameters) + 1
    if places < len(law.parameters):
        return f"{places} node counts cannot tell {len(law.parameters)} parameters apart"
    return "" if n >= k + 3 else f"{n} runs, {k} parameters: AICc needs at least {k + 3}"


def fit(law_name: str, mode: str, runs: Mapping[int, Sequence[float]]) -> Fit:
    """Fit one law to independent runs.

    T(1) is that of a typical run: the geometric mean over repeats is what is fitted.

    Args:
        law_name: name in ``LAWS[mode]``.
        mode: ``strong`` or ``weak``.
        runs: node count -> times in s, above zero, one for each independent repeat.
    """
    law = law_named(mode, law_name)
    repeats, fitted = _repeats(_key(runs)), _fitted(law, _key(runs))
    n, k = repeats.n, len(law.parameters) + 1
    why = _why_not(law, len(runs), n)
    values, sse = law.read(fitted.coefficients)[0], fitted.between + repeats.within
    intervals: list[Interval | None] = [None] * len(law.parameters)
    if not why and min(repeats.counts) >= MINIMUM_REPEATS:
        figures = [partial(_parameter, law, i) for i in range(len(values))]
        intervals = [*_family(law, _key(runs)).intervals(figures)]
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
    laws: Sequence[str], mode: str, runs: Mapping[int, Sequence[float]], nodes: Sequence[int]
) -> tuple[Prediction, ...]:
    """Times that laws give at ``nodes``, inside the runs or beyond them.

    Where the runs leave several laws standing, each says another thing far out, so the interval spans all of them.

    Args:
        laws: as ``supported`` gives them, the best first.
        mode, runs: as for ``fit``.
        nodes: node counts, above zero.
    """
    fits = [_fitted(law_named(mode, name), _key(runs)) for name in laws]
    enough = min(_repeats(_key(runs)).counts) >= MINIMUM_REPEATS
    spans_of = [_spans(_family(f.law, _key(runs)), nodes) for f in fits] if enough else []
    found = []
    for i, p in enumerate(nodes):
        spans = [of_law[i] for of_law in spans_of]
        law_spans, run_spans = [s for s, _ in spans], [s for _, s in spans]
        found.append(
            Prediction(
                p,
                not min(runs) <= p <= max(runs),
                laws[0],
                math.exp(float(_log_times(fits[0].law, p, fits[0].coefficients)[0])),
                (min(s[0] for s in law_spans), max(s[1] for s in law_spans)) if spans else None,
                (min(s[0] for s in run_spans), max(s[1] for s in run_spans)) if spans else None,
                tuple(laws),
            )
        )
    return tuple(found)


def _spans(family: _Family, nodes: Sequence[int]) -> list[tuple[Interval, Interval]]:
    """Intervals of a law's times at ``nodes`` and of a new run there, in s."""
    full = family.full
    figures = [partial(_log_times, full.law, p) for p in nodes]
    early, late = full.repeats.one_more(full.between, len(full.law.parameters))
    found = []
    for figure, (low, high) in zip(figures, family.intervals(figures), strict=True):
        log_s = float(figure(full.coefficients)[0])
        # Two uncertainties that know nothing of each other, each with its own two sides.
        run = log_s - math.hypot(log_s - low, early), log_s + math.hypot(high - log_s, late)
        found.append(((_exp(low), _exp(high)), (_exp(run[0]), _exp(run[1]))))
    return found


def _exp(log: float) -> float:
    return math.exp(log) if log < _LARGEST_LOG else math.inf
