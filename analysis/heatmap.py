"""Node by node: how a node's time in each case stands to that of the other nodes of the same case.

A node is compared only with nodes that ran the same case. What is compared is the median over judged steps of the
time that its slowest rank computed (``compute_ns``) where that was recorded; else of the whole step, in which faster
ranks of a coupled program wait for slower ones, so that a slow node hardly shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis import svg, text
from analysis.results import CampaignResults, Row, names, samples_of
from analysis.timelines import gutter, natural
from harness.model.attempt import COMPLETED

MAXIMUM_NODES = 64  # rows
MAXIMUM_CASES = 120  # columns
NOTABLE = 0.05  # a node this much slower than the others of its cases, in the median, is named

_CELLS = (24.0, 16.0)  # px, of few columns and of many
_SHADES = (-0.2, -0.1, -0.05, -0.02, 0.02, 0.05, 0.1, 0.2)  # between the nine colours
_KEYS = 430.0  # px of what the colours mean
_CSS = ("h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8")


@dataclass(frozen=True)
class NodeRow:
    """One node over all its cases; ``slower`` is how much longer it took than its peers, the median, as a fraction."""

    name: str
    cases: int
    compared: int
    slower: float | None
    worst: float | None
    worst_case: str
    lost: int  # attempts that did not complete on it


@dataclass(frozen=True)
class HeatMap:
    """The figure, a row for each node, and what there was no room for."""

    figure: str
    rows: tuple[NodeRow, ...]
    notable: tuple[NodeRow, ...]
    what: tuple[str, ...]  # columns that were compared
    left_out: str


def node_medians(results: CampaignResults, case: Row) -> tuple[str, dict[int, float]]:
    """Column, and for each node (row of /nodes) the median over judged steps of its slowest rank, in ns.

    Raises:
        StoreError: the samples are damaged.
    """
    home = samples_of(case)
    if results.completed(case["case_id"]) is None or not results.has_samples(home, "steps"):
        return "", {}
    column = "compute_ns" if "compute_ns" in results.facts(home, "steps") else "step_time_ns"
    samples = results.judged(case["case_id"], "steps", ["step", column])
    nodes = np.unique(samples["node"])
    if len(nodes) < 2 or not len(samples["step"]):
        return "", {}
    _, step = np.unique(samples["step"], return_inverse=True)
    place = np.searchsorted(nodes, samples["node"])
    slowest = np.full((len(nodes), int(step.max()) + 1), -1, dtype=np.int64)
    np.maximum.at(slowest, (place, step), samples[column])
    return column, {
        int(node): float(np.median(row[row >= 0]))
        for node, row in zip(nodes, slowest, strict=True)
        if (row >= 0).any()
    }


def analyse(results: CampaignResults) -> HeatMap | None:
    """The heat map of a campaign; None where nothing ran.

    Raises:
        StoreError: the samples are damaged.
    """
    ran = [c for c in results.cases if results.of_case("attempts", c["case_id"])]
    ratios: dict[tuple[str, int], float] = {}
    placed: set[tuple[str, int]] = set()
    lost: dict[tuple[str, int], int] = {}
    what: set[str] = set()
    for number, case in enumerate(ran):
        for attempt in results.of_case("attempts", case["case_id"]):
            for host in set(names(attempt["rank_nodes"])):
                placed.add((host, number))
                if attempt["outcome"] != COMPLETED:
                    lost[host, number] = lost.get((host, number), 0) + 1
        column, medians = node_medians(results, case)
        middle = float(np.median(list(medians.values()))) if medians else 0.0
        if middle > 0:
            what.add(column)
            for node, value in medians.items():
                if 0 <= node < len(results.nodes):
                    ratios[results.nodes[node], number] = value / middle - 1
    if not placed:
        return None
    rows = _rows(ran, ratios, placed, lost)
    columns = _columns(ran, ratios, lost)
    shown = _shown(rows)
    left = []
    if len(shown) < len(rows):
        left.append(f"{len(rows) - len(shown)} of {len(rows)} nodes")
    if len(columns) < len(ran):
        left.append(f"{len(ran) - len(columns)} of {len(ran)} cases")
    notable = sorted(
        (r for r in rows if r.slower is not None and r.slower > NOTABLE), key=lambda r: -(r.slower or 0)
    )
    return HeatMap(
        _draw(ran, columns, shown, ratios, placed, lost),
        rows,
        tuple(notable),
        tuple(sorted(what)),
        " and ".join(left),
    )


def _rows(
    ran: Sequence[Row],
    ratios: dict[tuple[str, int], float],
    placed: set[tuple[str, int]],
    lost: dict[tuple[str, int], int],
) -> tuple[NodeRow, ...]:
    of_node: dict[str, list[int]] = {}
    for host, number in sorted(placed, key=lambda p: p[1]):
        of_node.setdefault(host, []).append(number)
    found = []
    for host in sorted(of_node, key=natural):
        mine = [(ratios[host, n], n) for n in of_node[host] if (host, n) in ratios]
        worst = max(mine, default=None)
        found.append(
            NodeRow(
                host,
                len(of_node[host]),
                len(mine),
                float(np.median([r for r, _ in mine])) if mine else None,
                worst[0] if worst else None,
                ran[worst[1]]["label"] if worst else "",
                sum(lost.get((host, n), 0) for n in of_node[host]),
            )
        )
    return tuple(found)


def _shown(rows: Sequence[NodeRow]) -> list[NodeRow]:
    """All nodes, or where there are too many those that stand out most, in the order of their names."""
    if len(rows) <= MAXIMUM_NODES:
        return list(rows)
    ranked = sorted(rows, key=lambda r: (-r.lost, -abs(r.slower or 0.0)))[:MAXIMUM_NODES]
    return sorted(ranked, key=lambda r: natural(r.name))


def _columns(
    ran: Sequence[Row], ratios: dict[tuple[str, int], float], lost: dict[tuple[str, int], int]
) -> list[int]:
    """All cases, or where there are too many those in which nodes differ most, in the file's order."""
    if len(ran) <= MAXIMUM_CASES:
        return list(range(len(ran)))
    spread = np.zeros(len(ran))
    for (_, number), ratio in ratios.items():
        spread[number] = max(spread[number], abs(ratio))
    for _, number in lost:
        spread[number] += 1
    return sorted(np.argsort(-spread, kind="stable")[:MAXIMUM_CASES].tolist())


def _draw(
    ran: Sequence[Row],
    columns: Sequence[int],
    shown: Sequence[NodeRow],
    ratios: dict[tuple[str, int], float],
    placed: set[tuple[str, int]],
    lost: dict[tuple[str, int], int],
) -> str:
    labels = [r.name for r in shown]
    cell = _CELLS[len(columns) > 42]
    longest = max(svg.width(text.one_line(ran[n]["label"], 26), 10.5) for n in columns)
    left, foot = max(gutter(labels), longest * 0.62), 16 + longest * 0.8  # words below are turned
    width = left + max(cell * len(columns) + 24, _KEYS)
    plot = svg.Plot("Nodes by cases: how much longer a node took than the others of its case",
                    (width, 36 + cell * len(shown) + foot), (left, 36, 24, foot))  # fmt: skip
    plot.right = left + cell * len(columns)
    plot.rows(labels, 24)
    inner = cell - 1.5
    few = len(shown) * len(columns) <= 1500
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    crosses: list[tuple[float, float]] = []
    for row, node in enumerate(shown):
        for place, number in enumerate(columns):
            key = (node.name, number)
            if key not in placed:
                continue
            x, y = left + cell * place + 0.75, plot.top + cell * row + 0.75
            ratio = ratios.get(key)
            css = "h-none" if ratio is None else _CSS[int(np.searchsorted(_SHADES, ratio))]
            if few:
                said = f"{node.name}, {ran[number]['label']}: {_words(ratio)}"
                plot.rect(x, y, inner, inner, css, said + (", lost here" if key in lost else ""))
            else:
                boxes.setdefault(css, []).append((x, y, inner, inner))
            if key in lost:
                crosses.append((x + cell / 2 - 0.75, y + cell / 2 - 0.75))
    for css, cells in boxes.items():
        plot.cells(cells, css)
    plot.x = svg.Scale(0, 1, 0, 1)
    plot.y = svg.Scale(0, 1, 0, 1)
    plot.crosses([x for x, _ in crosses], [y for _, y in crosses], svg.INK, 3)
    every = max(1, -(-len(columns) // 60))
    for place in range(0, len(columns), every):
        at = left + cell * (place + 0.5)
        name = ran[columns[place]]["label"]
        plot.text(at + 4, plot.bottom + 8, text.one_line(name, 26), "tick small end", turn=-52, full=name)
    _scale(plot, left)
    return plot.svg()


def _words(ratio: float | None) -> str:
    if ratio is None:
        return "not compared"
    return f"{abs(ratio) * 100:.1f} % {'slower' if ratio >= 0 else 'faster'} than its peers"


def _scale(plot: svg.Plot, left: float) -> None:
    """What the colours mean."""
    at = left
    plot.text(at, 15, "20 % faster", "tick")
    at += svg.width("20 % faster", 11) + 8
    for css in _CSS:
        plot.rect(at, 5, 16, 12, css, rounded=0)
        at += 16
    plot.text(at + 8, 15, "20 % slower", "tick")
    at += svg.width("20 % slower", 11) + 26
    plot.rect(at, 5, 16, 12, "h-none")
    plot.text(at + 22, 15, "not compared", "tick")
