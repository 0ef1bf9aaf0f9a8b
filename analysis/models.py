"""Scaling laws fitted to run times: ideal, Amdahl, Gustafson, Universal Scalability; compared by AICc.

Each law makes the time T(p), or for Gustafson the rate 1/T(p), a sum of basis functions of p with
coefficients that cannot be negative, so one fit serves all: least squares on log T (errors are relative), by
Gauss-Newton on a linear problem solved exactly over every set of active coefficients. T(1) is a parameter,
so the smallest run need not be p = 1. Sources: Amdahl 1967; Gustafson 1988; Gunther, Guerrilla Capacity
Planning, 2007; Karp and Flatt 1990; AICc: Burnham and Anderson 2002, eq. 7.32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.series import Floats

STRONG, WEAK = "strong", "weak"
MINIMUM_REPEATS = 6  # below it the range is given and no interval (METRICS.md)
RESAMPLES = 1000
_ITERATIONS = 25


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
    peak_p: float | None = None  # where the Universal Scalability law says more stops helping


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


def aicc(sse: float, n: int, k: int) -> float:
    """Akaike's criterion, corrected for n: n ln(SSE/n) + 2k + 2k(k+1)/(n-k-1); needs n > k + 1."""
    return n * math.log(max(sse / n, 1e-24)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _non_negative(a: Floats, b: Floats) -> Floats:
    """Least squares with non-negative coefficients, by trying every active set.

    Shapes: a (r, n, m), b (r, n), result (r, m).
    """
    r, _, m = a.shape
    best = np.zeros((r, m))
    best_cost = np.einsum("rn,rn->r", b, b)
    for count in range(1, m + 1):
        for active in combinations(range(m), count):
            part = a[:, :, active]
            normal = np.einsum("rni,rnj->rij", part, part)
            normal += 1e-14 * np.einsum("rii->r", normal)[:, None, None] * np.eye(count)
            x = np.linalg.solve(normal, np.einsum("rni,rn->ri", part, b)[:, :, None])[:, :, 0]
            residual = b - np.einsum("rni,ri->rn", part, x)
            cost = np.einsum("rn,rn->r", residual, residual)
            better = np.all(x >= 0, axis=1) & (cost < best_cost * (1 - 1e-12))
            best_cost = np.where(better, cost, best_cost)
            full = np.zeros((r, m))
            full[:, list(active)] = x
            best = np.where(better[:, None], full, best)
    return best


def fit_log(basis: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Minimise the sum of (log y - log(basis c))^2 over c >= 0.

    Args:
        basis: shape (n, m) for one set of p, or (r, n, m).
        y: positive, shape (r, n).

    Returns:
        Coefficients (r, m) and sums of squares (r,).
    """
    basis = np.broadcast_to(basis, (len(y), *basis.shape[-2:]))
    model = y
    coefficients = np.zeros((len(y), basis.shape[-1]))
    for _ in range(_ITERATIONS):
        target = 1 + np.log(y / model)  # of basis c / model, to first order in log
        coefficients = _non_negative(basis / model[:, :, None], target)
        before, model = model, np.maximum(np.einsum("rnm,rm->rn", basis, coefficients), 1e-300)
        if np.allclose(model, before, rtol=1e-10, atol=0):
            break
    return coefficients, np.asarray(np.sum(np.log(y / model) ** 2, axis=1))


def _solve(law: _Law, p: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Parameters (r, m) and sums of squares (r,) of a law for p (n,) or (r, n) and times (r, n) in s."""
    basis = law.basis(p) if p.ndim == 1 else np.stack([law.basis(row) for row in p])
    coefficients, sse = fit_log(basis, 1 / times if law.of_rate else times)
    return law.read(coefficients), sse


def fit(law_name: str, mode: str, runs: dict[int, list[float]], seed: int = 0) -> Fit:
    """Fit one law to independent runs.

    Args:
        law_name: name in ``LAWS[mode]``.
        mode: ``strong`` or ``weak``.
        runs: node count -> times in s, one for each independent repeat.
        seed: of the bootstrap, which resamples whole repeats within each node count.
    """
    law = next(x for x in LAWS[mode] if x.name == law_name)
    p = np.array([float(nodes) for nodes, times in runs.items() for _ in times])
    times = np.array([t for values in runs.values() for t in values])
    values, sse = _solve(law, p, times[None, :])
    n, k = len(times), len(law.parameters) + 1
    why = "" if n >= k + 3 else f"{n} runs, {k} parameters: AICc needs at least {k + 3}"
    if len(runs) < len(law.parameters):
        why = f"{len(runs)} node counts cannot tell {len(law.parameters)} parameters apart"
    intervals: list[tuple[float, float] | None] = [None] * len(law.parameters)
    if not why and min(len(v) for v in runs.values()) >= MINIMUM_REPEATS:
        generator = np.random.default_rng(seed)
        draws = [np.asarray(v)[generator.integers(len(v), size=(RESAMPLES, len(v)))] for v in runs.values()]
        resampled, _ = _solve(law, p, np.concatenate(draws, axis=1))
        low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
        intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    parameters = tuple(
        Parameter(name, float(value), unit, interval, meaning)
        for (name, unit, meaning), value, interval in zip(law.parameters, values[0], intervals, strict=True)
    )
    peak = (
        universal_peak(parameters[1].value, parameters[2].value)
        if law.name == "Universal Scalability"
        else None
    )
    score = None if why else aicc(float(sse[0]), n, k)
    return Fit(law.name, law.formula, parameters, n, k, math.sqrt(float(sse[0]) / n), score, why, peak)
