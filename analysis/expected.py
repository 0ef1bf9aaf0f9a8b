"""Figures of collectives beside those that the site expects: how much of each was reached, and the verdict.

The site file's ``expected`` travels in the results file. An expected figure is a gate (``analysis.gates``) that all
repeats of a setting are held against together: their median, with its 95 % interval from six repeats on. Where the
median misses the limit and the interval, or with fewer repeats their range, reaches it, that is within noise. Cases
with a declared fault are left out, and so is one rank alone. As with gates, an emulated cluster's are shown only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import collectives, gates, repeats, resample, text
from analysis.repeats import Repeats
from analysis.resample import Interval
from analysis.results import CampaignResults, Row
from harness.model.metrics import EXPECTED, HIGHER, METRICS, OF_A_SIZE
from harness.model.verdict import Verdict
from harness.store import StoreError

ATTRIBUTE = "expected"  # of the file: JSON, entries of the site file by partition, "" for the site's own
_SCALES = {
    "time_s": ("elapsed_ns", 1e9)
}  # expected figures that are recorded under another name, in another unit
_TITLES = {
    "bus_bandwidth_bytes_per_s": "bus bandwidth",
    "algorithm_bandwidth_bytes_per_s": "algorithm bandwidth",
    "time_s": "time",
    "latency_s": "latency",
    "asymptotic_bandwidth_bytes_per_s": "asymptotic bandwidth",
}
NAMED = 8  # expected figures that no case measured and that are named


@dataclass(frozen=True)
class Wanted:
    """One figure of one entry of the site file; limits and figure in the metric's unit."""

    of: Mapping[
        str, Any
    ]  # workload, operation, and those of nodes, ranks_per_node, message_bytes, dtype that count
    figure: str  # its key in the site file
    metric: str
    value: float  # what the others are a share of
    minimum: float | None
    maximum: float | None

    @property
    def key(self) -> str:
        """The same for the same figure of the same, in whatever partition it stands."""
        return json.dumps([self.figure, *self.of.values()])

    @property
    def unit(self) -> str:
        """Of all its numbers."""
        return METRICS[self.metric].unit

    @property
    def gate(self) -> dict[str, Any]:
        """The gate that it is (JSON of ``harness.model.case.Gate``)."""
        size = self.of["message_bytes"]
        where = {"message_bytes": size} if self.figure in OF_A_SIZE and size is not None else {}
        limits = {"minimum": self.minimum, "maximum": self.maximum}
        return {"metric": self.metric, "statistic": "median", "where": where, **limits}

    @property
    def name(self) -> str:
        """For people: ``bus bandwidth of all-reduce at 1 GiB (torch.collectives, 2 nodes)``."""
        of = self.of
        at = f" at {text.size(of['message_bytes'])}" if of["message_bytes"] is not None else ""
        more = [of["workload"]]
        more += [text.count(of["nodes"], "node")] if of["nodes"] else []
        more += [f"{text.count(of['ranks_per_node'], 'rank')} a node"] if of["ranks_per_node"] else []
        more += [of["dtype"]] if of["dtype"] else []
        return text.one_line(f"{_TITLES[self.figure]} of {of['operation']}{at} ({', '.join(more)})", 200)

    def concerns(self, case: Row) -> bool:
        """Whether a case is to reach it."""
        params = _params(case)
        sizes = params.get("message_bytes")
        size, dtype = self.of["message_bytes"], self.of["dtype"]
        return (
            collectives.is_collective(case)
            and case["ranks"] > 1
            and case["faults"] in ("", "[]")
            and (case["workload"], collectives.operation(case)) == (self.of["workload"], self.of["operation"])
            and self.of["nodes"] in (None, case["nodes"])
            and self.of["ranks_per_node"] in (None, case["ranks_per_node"])
            and (dtype is None or dtype == params.get("dtype"))
            and (size is None or size in (sizes if isinstance(sizes, list) else [sizes]))
        )


@dataclass(frozen=True)
class Compared:
    """An expected figure and what the repeats of one setting measured of it, in ``unit``."""

    name: str
    series: str  # group, nodes and axes
    group: str
    workload: str
    operation: str
    nodes: int
    ranks: int
    params: str  # JSON, as the first case has it
    message_bytes: int | None
    figure: str
    unit: str
    expected: float
    minimum: float | None
    maximum: float | None
    measured: float | None  # median over repeats; None: ``words`` say why
    interval: Interval | None  # 95 %, of the median
    repeats: int
    share: float | None  # measured / expected
    share_interval: Interval | None
    verdict: Verdict | None  # None: for information
    says: str  # holds, does not hold, within noise ...
    words: str

    @property
    def limit(self) -> str:
        """Its limit, for people."""
        return gates.limit_words({"minimum": self.minimum, "maximum": self.maximum}, self.unit)


@dataclass(frozen=True)
class Findings:
    """Everything that the site expects, beside what was measured."""

    compared: tuple[Compared, ...]
    of_case: Mapping[str, tuple[Compared, ...]]  # by case_id
    not_measured: tuple[str, ...]  # names of the figures that no case is to reach

    @property
    def missing(self) -> str:
        """Those that no case measured, in words; empty where there is none."""
        if not self.not_measured:
            return ""
        more = len(self.not_measured) - NAMED
        named = "; ".join(self.not_measured[:NAMED]) + (f"; and {more} more" if more > 0 else "")
        verb = "expected figure was" if len(self.not_measured) == 1 else "expected figures were"
        return f"{len(self.not_measured)} {verb} measured by no case: {named}"


def _params(case: Row) -> dict[str, Any]:
    try:
        found = json.loads(case["params"] or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _wanted(entry: Mapping[str, Any]) -> Iterator[Wanted]:
    names = ("workload", "operation", "nodes", "ranks_per_node", "message_bytes", "dtype")
    of = {name: entry.get(name) for name in names}
    for figure in EXPECTED:
        given = entry.get(figure)
        if given is None:
            continue
        metric, scale = _SCALES.get(figure, (figure, 1.0))
        higher = METRICS[metric].direction == HIGHER
        if isinstance(given, Mapping):
            low, high = given.get("at_least"), given.get("at_most")
            known = [limit for limit in ((low, high) if higher else (high, low)) if limit is not None]
            value = float(known[0])
        else:
            value, share = float(given), float(str(entry["within"]).rstrip("% ")) / 100
            low, high = (value * (1 - share), None) if higher else (None, value * (1 + share))
        limits = (None if limit is None else float(limit) * scale for limit in (low, high))
        yield Wanted(of, figure, metric, value * scale, *limits)


def wanted(results: CampaignResults) -> dict[str, tuple[Wanted, ...]]:
    """Every figure that the site expects, by partition; ``""`` is the site itself.

    Of a merged file whose sources expect different figures, those of all of them.

    Raises:
        StoreError: the file's attribute is not as a site file is.
    """
    found: dict[str, tuple[Wanted, ...]] = {}
    try:
        given = [results.attributes.get(ATTRIBUTE)]
        if _in_dispute(results):
            given = [json.loads(source["attributes"]).get(ATTRIBUTE) for source in results.sources]
        for attribute in dict.fromkeys(given):
            for partition, entries in json.loads(str(attribute or "{}")).items():
                new = tuple(w for entry in entries for w in _wanted(entry))
                found[str(partition)] = (*found.get(str(partition), ()), *new)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        words = f"{results.path}: its attribute {ATTRIBUTE} is damaged ({error}); collect it again"
        raise StoreError(words) from None
    return found


def _in_dispute(results: CampaignResults) -> bool:
    """Whether files were merged whose sites expect different figures: the merged one then has none of its own."""
    return bool(results.sources) and ATTRIBUTE not in results.attributes


def _measured(results: CampaignResults, cases: Sequence[Row], limit: Wanted) -> tuple[list[float], str]:
    """The figure of each repeat that has one, and why another has none."""
    found, why = [], "no repeat can be used"
    for case in cases:
        try:
            value = gates.figure(results, case, limit.gate)[0]
        except gates.NoFigure as error:
            why = str(error)
            continue
        if np.isfinite(value) and value > 0:
            found.append(float(value))
        else:
            why = f"{text.quantity(value, limit.unit)} is no figure"
    return found, why


def _judged(
    results: CampaignResults, limit: Wanted, values: Sequence[float], span: Interval
) -> tuple[Verdict | None, str]:
    """The verdict, and what it says in words."""

    def keeps(value: float) -> bool:
        low, high = limit.minimum, limit.maximum
        return (low is None or value >= low) and (high is None or value <= high)

    median = float(np.median(values))
    below = limit.minimum is not None and median < limit.minimum
    if keeps(median):
        verdict, says = Verdict.PASS, "holds"
    elif keeps(span[1] if below else span[0]):
        verdict, says = Verdict.WITHIN_NOISE, "does not hold, within noise"
    else:
        verdict, says = Verdict.FAIL, "does not hold"
    if not results.stamp:
        if _in_dispute(results):
            return Verdict.UNKNOWN, "merged files expect different figures, so it judges nothing"
        return verdict, says
    if results.flag("emulated") is None and not results.flag("oversubscribed"):
        return Verdict.UNKNOWN, f"{results.stamp}, so it judges nothing"
    kept = "would hold" if verdict is Verdict.PASS else says.replace("does not", "would not")
    return None, f"{kept} ({results.stamp}: for information)"


def _compared(results: CampaignResults, limit: Wanted, found: Repeats) -> Compared:
    values, why = _measured(results, found.usable, limit)
    first = found.cases[0]
    measured, interval, share = None, None, None
    verdict: Verdict | None = Verdict.UNKNOWN
    says = f"cannot be judged: {why}"
    shown = f"expected {limit.name}"
    if values:
        measured, interval = float(np.median(values)), resample.interval(values)
        span = interval or (min(values), max(values))
        verdict, says = _judged(results, limit, values, span)
        share = measured / limit.value
        kind = "95 %" if interval else "range"
        around = f" ({kind}: {text.quantity(span[0], limit.unit)} to {text.quantity(span[1], limit.unit)})"
        shown += f": {text.quantity(measured, limit.unit)}{around if len(values) > 1 else ''}"
        shown += f" over {text.count(len(values), 'repeat')}, {text.percent(share)} of "
        shown += (
            f"{text.quantity(limit.value, limit.unit)}, limit {gates.limit_words(limit.gate, limit.unit)}"
        )
    return Compared(
        limit.name,
        text.one_line(found.label, 120),
        first["group"],
        first["workload"],
        limit.of["operation"],
        first["nodes"],
        first["ranks"],
        first["params"],
        limit.of["message_bytes"],
        limit.figure,
        limit.unit,
        limit.value,
        limit.minimum,
        limit.maximum,
        measured,
        interval,
        len(values),
        share,
        (interval[0] / limit.value, interval[1] / limit.value) if interval else None,
        verdict,
        text.one_line(says),
        text.one_line(f"{shown}: {says}", 600) if values else text.one_line(f"{shown} {says}", 600),
    )


def of(results: CampaignResults) -> Findings:
    """Every expected figure against every setting that it concerns, in the order of the file.

    Raises:
        StoreError: samples are damaged, or what the site expects.
    """
    by_partition = wanted(results)
    every = {w.key: w for limits in by_partition.values() for w in limits}
    compared: list[Compared] = []
    of_case: dict[str, tuple[Compared, ...]] = {}
    seen = set()
    for found in repeats.settings(results).values() if every else ():
        first = found.cases[0]
        for limit in by_partition.get(first["partition"], ()):
            if limit.concerns(first):
                seen.add(limit.key)
                compared.append(_compared(results, limit, found))
                for case in found.cases:
                    of_case[case["case_id"]] = (*of_case.get(case["case_id"], ()), compared[-1])
    return Findings(tuple(compared), of_case, tuple(w.name for key, w in every.items() if key not in seen))


def table(found: Sequence[Compared]) -> str:
    """Measured beside expected, as plain columns."""
    rows = []
    for c in found:
        measured = "-" if c.measured is None else text.quantity(c.measured, c.unit)
        span = "-" if c.interval is None else " to ".join(text.quantity(v, c.unit) for v in c.interval)
        share = "-" if c.share is None else text.percent(c.share)
        of_share = "-" if c.share_interval is None else " to ".join(map(text.percent, c.share_interval))
        wanted_ = text.quantity(c.expected, c.unit)
        rows.append((c.series, c.name, wanted_, c.limit, measured, span, share, of_share, c.repeats, c.says))
    header = (
        "series", "what the site expects", "expected", "limit", "measured", "95 %", "share", "95 % of it", "repeats",
        "verdict",
    )  # fmt: skip
    return text.columns(header, rows, left=(0, 1, 3, 9))
