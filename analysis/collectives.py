"""Collectives: bandwidth of each case at each message size, from raw elapsed times of every rank.

Definitions (METRICS.md; factors as in nccl-tests, doc/PERFORMANCE.md): an iteration takes as long as its
slowest rank, t; algorithm bandwidth is S / t with S the size of the larger buffer of a rank; bus bandwidth
is algorithm bandwidth x factor. Left out: the warm-up, and an iteration that a rank did not report. One rank sends
nothing, and a barrier carries nothing: their calls have a time and no bandwidth. Curves over sizes, with latency and
bandwidth fitted, are in ``analysis.curves``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import latency, repeats, text
from analysis.commandline import main as run
from analysis.results import CampaignResults, Row, samples_of
from analysis.series import Floats, Summary, rate_statistic, slowest_rank, summarise
from harness.model.metrics import BANDWIDTHS, FITTED
from harness.model.metrics import BARRIER as BARRIER
from harness.store import Column

if TYPE_CHECKING:
    from analysis.curves import Curve

TABLE = "collectives"
# Workload -> the operation that it measures where its parameters name none.
OPERATIONS = {
    "torch.allreduce": "all-reduce",
    "torch.collectives": "all-reduce",
    "mpi.collectives": "all-reduce",
}
LATENCY, BANDWIDTH = FITTED
FIGURES = (*BANDWIDTHS, *FITTED)  # what ``figure`` forms from raw times


class NoFigure(ValueError):
    """A figure of a collective cannot be computed; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """One case at one message size; summaries are over iterations: median, lowest, highest, count.

    The median of a bandwidth is that of the median time.
    """

    case_id: str
    label: str
    group: str
    nodes: int
    ranks: int
    repeat: int
    operation: str
    message_bytes: int
    time_s: Summary
    algorithm_bandwidth_bytes_per_s: Summary | None  # None on one rank: nothing is sent
    bus_bandwidth_bytes_per_s: Summary | None  # None on one rank: no bus is crossed
    incomplete: int  # iterations left out: a rank's sample is missing, or it was not called


def bus_factor(operation: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth for ``ranks`` ranks; 0 on one rank, and of a barrier.

    Raises:
        ValueError: METRICS.md has no factor for the operation.
    """
    if ranks < 2:
        return 0.0
    if operation == "all-reduce":
        return 2 * (ranks - 1) / ranks
    if operation in ("reduce-scatter", "all-gather", "all-to-all", "gather", "scatter"):
        return (ranks - 1) / ranks
    if operation in ("broadcast", "reduce", "send-receive"):
        return 1.0
    if operation == BARRIER:
        return 0.0
    raise ValueError(
        f"no bus factor for {operation!r}; METRICS.md has them for all-reduce, reduce-scatter, "
        "all-gather, all-to-all, gather, scatter, broadcast, reduce, send-receive"
    )


def is_collective(case: Row) -> bool:
    """Whether a case's workload measures a collective operation."""
    return case["workload"] in OPERATIONS


def operation(case: Row) -> str:
    """The operation that a case's workload measures, as METRICS.md names it; ``unknown`` for a stranger."""
    if not is_collective(case):
        return "unknown"
    try:
        said = json.loads(case["params"] or "{}").get("operation")
    except (ValueError, AttributeError):
        return "unknown"
    return str(said) if said else OPERATIONS[case["workload"]]


def iterations(results: CampaignResults, case: Row, message_bytes: int) -> tuple[Column, int]:
    """Time of each judged iteration at one size: that of its slowest rank, in ns, shape (n,).

    The second value counts the iterations that were left out because a rank did not report them.

    Raises:
        StoreError: the case has no table ``collectives``, or it is damaged.
    """
    samples = results.judged(case["case_id"], TABLE)
    here = samples["message_bytes"] == message_bytes
    steps = slowest_rank({k: v[here] for k, v in samples.items()}, "elapsed_ns", case["ranks"])
    return steps.slowest, steps.incomplete


def all_iterations(results: CampaignResults, case: Row) -> dict[int, tuple[Floats, int]]:
    """For every size that a completed case measured, ascending: times in s, shape (n,), and how many were left out.

    Left out is an iteration that a rank did not report, or in which the slowest took no time: it was not called.
    """
    if not results.has_samples(samples_of(case), TABLE):
        return {}
    samples = results.judged(case["case_id"], TABLE, ["step", "message_bytes", "elapsed_ns"])
    found, size = np.unique(samples["message_bytes"], return_inverse=True)
    steps, step = np.unique(samples["step"], return_inverse=True)
    shape = len(found), len(steps)
    slowest = np.zeros(shape, dtype=np.int64)
    np.maximum.at(slowest, (size, step), samples["elapsed_ns"])
    count = np.bincount(size * shape[1] + step, minlength=shape[0] * shape[1]).reshape(shape)
    good = (count == case["ranks"]) & (slowest > 0)
    left_out = np.sum((count > 0) & ~good, axis=1)
    return {int(found[i]): (slowest[i][good[i]] / 1e9, int(left_out[i])) for i in range(len(found))}


def sizes(results: CampaignResults, case: Row) -> list[int]:
    """Message sizes that a completed case measured, ascending, in bytes."""
    if not results.has_samples(samples_of(case), TABLE):
        return []
    samples = results.judged(case["case_id"], TABLE, ["message_bytes"])
    return [int(s) for s in np.unique(samples["message_bytes"])]


def _bandwidth(sent_bytes: float, times_s: Floats) -> Summary:
    rates = sent_bytes / times_s
    return replace(summarise(rates), median=rate_statistic("median", rates))


def _measurement(case: Row, message_bytes: int, times_s: Floats, left_out: int) -> Measurement:
    name = operation(case)
    sent = case["ranks"] > 1 and name != BARRIER and message_bytes > 0
    bus = None
    if sent and name != "unknown":
        bus = _bandwidth(message_bytes * bus_factor(name, case["ranks"]), times_s)
    return Measurement(
        case["case_id"],
        case["label"],
        case["group"],
        case["nodes"],
        case["ranks"],
        case["repeat"],
        name,
        message_bytes,
        summarise(times_s),
        _bandwidth(message_bytes, times_s) if sent else None,
        bus,
        left_out,
    )


def measure(results: CampaignResults, case: Row, message_bytes: int) -> Measurement | None:
    """One case at one size; None when no iteration was reported by every rank."""
    times_s, left_out = all_iterations(results, case).get(message_bytes, (np.array([]), 0))
    return _measurement(case, message_bytes, times_s, left_out) if len(times_s) else None


def line(found: Mapping[int, tuple[Floats, int]]) -> latency.Line:
    """Latency and bandwidth fitted to one case, from ``all_iterations``."""
    known = {size: float(np.median(times)) for size, (times, _) in found.items() if len(times) and size > 0}
    return latency.fit(np.array([float(s) for s in known]), np.array([list(known.values())]))


def figure(results: CampaignResults, case: Row, metric: str, where: Mapping[str, Any]) -> Floats:
    """What a gate on a collective takes its statistic of: one of ``FIGURES``, in s or bytes/s, shape (n,).

    A bandwidth is that of each judged iteration. ``latency_s`` is alpha and ``asymptotic_bandwidth_bytes_per_s`` beta
    of t = alpha + S / beta over all sizes of the case, one value; the latency of a barrier is the time of each call.

    Args:
        where: of a bandwidth, ``message_bytes``, needed where the case has several; of a fitted figure, nothing.

    Raises:
        NoFigure: it cannot be computed.
        StoreError: the samples are damaged.
    """
    if not results.has_samples(samples_of(case), TABLE):
        raise NoFigure(f"{case['workload']} recorded no table {TABLE}")
    if metric in (LATENCY, BANDWIDTH) and where:
        raise NoFigure(f"{metric} is fitted to all sizes; it cannot be chosen by {sorted(where)}")
    if set(where) - {"message_bytes"}:
        raise NoFigure(f"a bandwidth can be chosen by message_bytes only, not by {sorted(where)}")
    name, found = operation(case), all_iterations(results, case)
    wanted = where.get("message_bytes")
    found = {size: x for size, x in found.items() if (wanted is None or size == wanted) and len(x[0])}
    if not found:
        raise NoFigure("no sample is left after the warm-up and its filter")
    if metric == LATENCY and name == BARRIER:
        return np.concatenate([times for times, _ in found.values()])
    if name == BARRIER:
        raise NoFigure("a barrier carries nothing: it has a latency and no bandwidth")
    if metric in (LATENCY, BANDWIDTH):
        return _fitted(found, metric)
    if why := repeats.not_pooled("message_bytes", found):
        raise NoFigure(why)
    try:
        factor = 1.0 if metric == FIGURES[0] else bus_factor(name, case["ranks"])
    except ValueError as error:
        raise NoFigure(str(error)) from None
    ((size, (times, _)),) = found.items()
    return size / times * factor


def _fitted(found: Mapping[int, tuple[Floats, int]], metric: str) -> Floats:
    fitted = line(found)
    if fitted.refused:
        raise NoFigure(fitted.refused)
    estimate = fitted.latency_s if metric == LATENCY else fitted.bandwidth_bytes_per_s
    if estimate is None:
        sizes_ = f"{text.size(min(found))} to {text.size(max(found))}"
        other = "smaller" if metric == LATENCY else "larger"
        raise NoFigure(f"it is not to be seen at {sizes_}; {other} sizes would show it")
    return np.array([estimate.value])


def curves(results: CampaignResults) -> tuple[Curve, ...]:
    """Time and bandwidth over sizes for each operation, repeats put together, with latency and bandwidth fitted."""
    from analysis import curves as over_sizes  # which needs this module

    return over_sizes.of(results)


def analyse(results: CampaignResults) -> tuple[Measurement, ...]:
    """Every completed case at every size, in the order of the file's cases."""
    return tuple(
        _measurement(case, size, times_s, left_out)
        for case in results.cases
        for size, (times_s, left_out) in all_iterations(results, case).items()
        if len(times_s)
    )


def table(measurements: Sequence[Measurement]) -> str:
    """The measurements as plain columns."""
    rows = []
    for m in measurements:
        bus = m.bus_bandwidth_bytes_per_s
        spread = m.algorithm_bandwidth_bytes_per_s
        rows.append(
            (
                m.label,
                m.operation,
                m.nodes,
                m.ranks,
                text.size(m.message_bytes),
                text.seconds(m.time_s.median),
                text.si(spread.median, "B/s") if spread else "-",
                text.si(bus.median, "B/s") if bus else "-",
                f"{text.si(spread.low, 'B/s')} to {text.si(spread.high, 'B/s')}"
                if spread
                else "nothing is sent",
                m.time_s.n,
            )
        )
    header = (
        "case",
        "operation",
        "nodes",
        "ranks",
        "size",
        "time",
        "algorithm bw",
        "bus bw",
        "range of alg. bw",
        "n",
    )
    return text.columns(header, rows, left=(0, 1))


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    from analysis import curves as over_sizes  # which need this module
    from analysis import expected

    found, every, beside = analyse(results), over_sizes.of(results), expected.of(results)
    data = {
        "stamp": results.stamp,
        "measurements": [asdict(m) for m in found],
        "curves": [asdict(c) for c in every],
        "expected": [asdict(c) for c in beside.compared],
        "expected_not_measured": list(beside.not_measured),
    }
    if not found:
        return data, "no collectives: no completed case recorded a table `collectives`", 0
    words = [f"{results.stamp}: for information, these figures judge nothing"] if results.stamp else []
    shared, alone = over_sizes.told(every)
    words += [*shared, *("\n".join(lines) for lines in alone)]
    if beside.compared:
        words.append(f"\n{expected.table(beside.compared)}\n")
    words += [beside.missing] if beside.missing else []
    words.append(table(found))
    return data, "\n".join(words), 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.collectives results.h5 [--json]``."""
    return run("collectives", "Bandwidth of collectives by case and message size.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
