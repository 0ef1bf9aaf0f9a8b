"""Which cases of a file are repeats of each other, and the figure of each repeat: what comparisons are made of.

The figure of a repeat is the median over its judged samples; of a time that each rank recorded in a step that of the
slowest rank at each step, of a program's time its longest. Repeats that did not complete, gave a wrong answer, or
recorded times that no clock gives, have no figure and are named. Nothing here compares or judges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis import text, times
from analysis.measured import COMMAND
from analysis.results import CampaignResults, Row, samples_of
from analysis.series import Floats, slowest_rank
from harness.model.attempt import COMPLETED, FAILED
from harness.model.metrics import COORDINATES, NEITHER
from harness.store import SAMPLE_KEYS, Column, Table

_KEYS = frozenset({"step", *(f.name for f in SAMPLE_KEYS)})
# Tables in which each rank has one row a step (and size).
_BY_STEP = ("steps", "collectives", "checkpoints", "products", "shards")
_OWN = ("steps", "progress", "program")  # tables of a program that hold no metric of its own

Place = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Setting:
    """What was run, repeats left out: cases with an equal setting are repeats of each other."""

    group: str
    workload: str
    nodes: int
    ranks: int
    partition: str
    role: str  # "", "twin", or the kinds of its faults
    cell: str  # JSON: what the campaign's axes say beyond nodes and parameters: steps, or the side of a comparison
    params: str  # JSON, keys sorted
    command: str
    environment: str  # JSON: variables of every rank; empty where there are none

    @property
    def question(self) -> tuple[object, ...]:
        """All but the parameters and the program: two files ask the same question when these are equal."""
        return self.group, self.workload, self.nodes, self.ranks, self.partition, self.role, self.cell

    @property
    def given(self) -> dict[str, Any]:
        """Parameters, with the program and the variables of its ranks as one of them each."""
        try:
            found = json.loads(self.params)
        except ValueError:
            found = None
        given = found if isinstance(found, dict) else {"params": self.params}
        more = {"command": self.command, "environment": self.environment}
        return {**given, **{name: value for name, value in more.items() if value}}


@dataclass
class Repeats:
    """The cases of one setting in one file."""

    setting: Setting
    label: str  # group, nodes and axes, for people
    cases: list[Row] = field(default_factory=list)
    usable: list[Row] = field(default_factory=list)
    left_out: list[tuple[str, str, bool]] = field(default_factory=list)  # label, reason, whether it failed


@dataclass(frozen=True)
class Block:
    """One metric of one setting: a row for each unit (a node, or the whole case), a column for each repeat.

    NaN: that repeat has no figure of that unit. A figure that was recorded as NaN is infinite here.
    """

    metric: str
    table: str
    place: Place
    unit: str
    direction: str
    definition: str
    places: str  # in words, empty without coordinates
    units: tuple[str, ...]
    values: Floats  # shape (units, repeats)


def _canonical(given: str) -> str:
    try:
        return json.dumps(json.loads(given or "{}"), sort_keys=True)
    except ValueError:
        return given


def _object(given: str) -> dict[str, Any]:
    try:
        found = json.loads(given or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _role(case: Row) -> str:
    if case["is_twin"]:
        return "twin"
    try:
        faults = json.loads(case["faults"] or "[]")
        return ", ".join(sorted(f"{f['kind']}: {f['expect']}" for f in faults))
    except (ValueError, TypeError, KeyError):
        return str(case["faults"])


def _cell(case: Row) -> str:
    known = {"nodes", "ranks_per_node", *_object(case["params"])}
    rest = {name: value for name, value in _object(case["axes"]).items() if name not in known}
    return json.dumps(rest, sort_keys=True) if rest else ""


def setting_of(case: Row) -> Setting:
    """The setting of a case."""
    return Setting(
        case["group"],
        case["workload"],
        case["nodes"],
        case["ranks"],
        case["partition"],
        _role(case),
        _cell(case),
        _canonical(case["params"]),
        _canonical(case["command"]) if case["command"] else "",
        _canonical(case["environment"]).removeprefix("{}"),
    )


def _label(case: Row) -> str:
    parts = str(case["label"]).split("/")
    return "/".join(p for p in parts if p != f"r{case['repeat']}")


def _unusable(results: CampaignResults, case: Row) -> tuple[str, bool]:
    """Why a repeat has no figure, and whether that is its own fault; empty where it has one."""
    if case["outcome"] != COMPLETED or results.completed(case["case_id"]) is None:
        words = str(case["outcome"]).replace("_", " ")
        reason = f": {case['reason']}" if case["reason"] else ""
        return f"{words}{reason}", case["outcome"] == FAILED
    wrong = next((c for c in results.of_case("checks", case["case_id"]) if not c["passed"]), None)
    if wrong is not None:
        return f'its answer was wrong (check "{wrong["name"]}" on rank {wrong["rank"]})', True
    if case["evidence"] != "complete":
        return str(case["evidence"]), False
    return times.not_measured(results, case), False


def settings(results: CampaignResults) -> dict[Setting, Repeats]:
    """Every setting of the file with its repeats, in the order of the file.

    Raises:
        StoreError: samples are damaged.
    """
    found: dict[Setting, Repeats] = {}
    for case in results.cases:
        setting = setting_of(case)
        repeats = found.setdefault(setting, Repeats(setting, _label(case)))
        repeats.cases.append(case)
        reason, failed = _unusable(results, case)
        if reason:
            repeats.left_out.append((text.one_line(case["label"], 120), text.one_line(reason, 200), failed))
        else:
            repeats.usable.append(case)
    return found


# --- metrics and their coordinates -----------------------------------------------------------------------


def metrics(results: CampaignResults, home: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Table, name and facts of every figure of merit that a workload recorded."""
    for workload, table in results.sample_tables:
        if workload == home:
            for name, facts in results.facts(home, table).items():
                if name not in _KEYS and facts.get("direction", NEITHER) != NEITHER:
                    yield table, name, facts


def not_compared(results: CampaignResults, home: str) -> list[str]:
    """Columns of a workload of which neither higher nor lower is better, and which are no coordinates."""
    names = set()
    for workload, table in results.sample_tables:
        if workload == home:
            facts = results.facts(home, table)
            names |= {
                n for n, f in facts.items() if n not in _KEYS and f.get("direction", NEITHER) == NEITHER
            } - set(coordinates(home, table, facts))
    return sorted(names)


def coordinates(home: str, table: str, facts: Mapping[str, Any]) -> list[str]:
    """Columns of a table that say at what its samples were taken, such as ``message_bytes``."""
    if home.startswith(f"{COMMAND}.") and table not in _OWN:
        return [c for c in facts if c not in _KEYS and c != table]
    return [c for c in facts if c in COORDINATES]


def not_pooled(coordinate: str, values: Iterable[float]) -> str:
    """Why there is no one figure over several values of a coordinate, and what to write; empty where it has one."""
    held = [f"{v:.0f}" if v.is_integer() else str(v) for v in sorted(set(map(float, values)))]
    if len(held) < 2:
        return ""
    last = held[-1] if len(held) <= 5 else f"{len(held) - 4} more"
    return (
        f"it has samples at {coordinate} = {', '.join(held[: len(held) - 1][:4])} and {last}, which no figure pools; "
        f"choose one, where: {{{coordinate}: {held[0]}}}, or write one for each"
    )


def _places(samples: Table, along: Sequence[str]) -> list[tuple[Place, Table]]:
    if not along:
        return [((), samples)]
    held = np.stack([np.asarray(samples[c], dtype=np.float64) for c in along], axis=1)
    found = []
    for place in np.unique(held, axis=0):
        keep = np.all(held == place, axis=1)
        named = tuple((c, float(v)) for c, v in zip(along, place, strict=True))
        found.append((named, {name: values[keep] for name, values in samples.items()}))
    return found


def _in_words(place: Place, facts: Mapping[str, Mapping[str, str]]) -> str:
    return ", ".join(f"{c} = {text.quantity(v, facts[c].get('unit', ''))}" for c, v in place)


# --- figures ---------------------------------------------------------------------------------------------


def _recorded(value: float) -> float:
    """A figure as blocks hold it: NaN means that there is none, so one that was recorded becomes infinite."""
    return value if value == value else float("inf")


def values_of(samples: Table, table: str, name: str, facts: Mapping[str, str], ranks: int) -> Column:
    """What a statistic of a column is taken of, shape (n,): the samples; of a time of each step, the slowest rank's.

    Args:
        samples: effective samples of one case at one place of its coordinates.
        facts: of the column.
        ranks: how many there are; a step that fewer reported is left out.
    """
    values = samples[name]
    if facts.get("unit") != "ns" or not len(values):
        return values
    if table == "program":
        return np.asarray([np.max(values)])
    if "step" in samples and table in _BY_STEP:
        return slowest_rank(samples, name, ranks).slowest
    return values


def _of_case(samples: Table, table: str, name: str, facts: Mapping[str, str], ranks: int) -> float | None:
    """The figure of one repeat; None where no sample is left."""
    values = values_of(samples, table, name, facts, ranks)
    return _recorded(float(np.median(values))) if len(values) else None


class _Nodes:
    """Rows of samples by node, sorted out once for all figures of a table."""

    def __init__(self, node: Column, nodes: int) -> None:
        self.node, self.count = node, np.bincount(node, minlength=nodes)
        self.single = not len(node) or int(np.max(self.count)) == 1

    def medians(self, recorded: Column) -> Floats:
        """The median on each node, shape (nodes,); NaN where a node recorded nothing."""
        values = np.asarray(recorded, dtype=np.float64)
        if np.isnan(np.sum(values)):
            values = np.where(np.isnan(values), np.inf, values)
        figures = np.full(len(self.count), np.nan)
        if self.single:
            figures[self.node] = values
            return figures
        order = np.lexsort((values, self.node))
        held, ends, there = values[order], np.cumsum(self.count), self.count > 0
        first, count = (ends - self.count)[there], self.count[there]
        figures[there] = (held[first + (count - 1) // 2] + held[first + count // 2]) / 2
        return figures


@dataclass
class _Growing:
    facts: dict[str, str]
    words: str
    columns: dict[int, Any] = field(default_factory=dict)  # repeat -> figure, or figures of nodes


def blocks(
    results: CampaignResults, repeats: Repeats, *, by_node: bool = False, metric: str = ""
) -> list[Block]:
    """Every figure of merit of one setting, over its usable repeats.

    Args:
        by_node: each node's own figure, and not the case's.
        metric: only this one.

    Raises:
        StoreError: samples are damaged.
    """
    found: dict[tuple[str, str, Place], _Growing] = {}
    wanted: dict[str, list[tuple[str, dict[str, str]]]] = {}
    home = samples_of(repeats.cases[0])
    for table, name, facts in metrics(results, home):
        if metric in ("", name):
            wanted.setdefault(table, []).append((name, facts))
    for number, case in enumerate(repeats.usable):
        for table, names in wanted.items():
            _add(results, case, number, table, names, by_node, found)
    width = len(repeats.usable)
    return [_block(results, key, grown, width, by_node) for key, grown in found.items()]


def _add(
    results: CampaignResults,
    case: Row,
    number: int,
    table: str,
    names: Sequence[tuple[str, dict[str, str]]],
    by_node: bool,
    found: dict[tuple[str, str, Place], _Growing],
) -> None:
    home = samples_of(case)
    facts = results.facts(home, table)
    samples = results.judged(case["case_id"], table)
    for place, here in _places(samples, coordinates(home, table, facts)):
        nodes = _Nodes(here["node"], len(results.nodes)) if by_node else None
        for name, of_metric in names:
            if nodes is not None:
                figure: Any = nodes.medians(here[name])
            else:
                figure = _of_case(here, table, name, of_metric, case["ranks"])
            if figure is not None:
                grown = found.setdefault((table, name, place), _Growing(of_metric, _in_words(place, facts)))
                grown.columns[number] = figure


def _block(
    results: CampaignResults, key: tuple[str, str, Place], grown: _Growing, width: int, by_node: bool
) -> Block:
    table, name, place = key
    units = tuple(results.nodes) if by_node else ("",)
    values = np.full((len(units), width), np.nan)
    for number, figure in grown.columns.items():
        values[:, number] = figure
    keep = ~np.all(np.isnan(values), axis=1) if np.isnan(np.sum(values)) else np.ones(len(values), dtype=bool)
    if not np.all(keep):
        units, values = tuple(u for u, k in zip(units, keep, strict=True) if k), values[keep]
    facts = grown.facts
    return Block(
        name, table, place, facts.get("unit", ""), facts.get("direction", NEITHER), facts.get("definition", ""),
        grown.words, units, values,
    )  # fmt: skip
