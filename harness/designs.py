"""Which cases are repeated together, in which wave, and which are compared: from a campaign's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from harness.model.campaign import Campaign, Group
from harness.model.campaign_design import Figure, Repeats
from harness.model.case import Case
from harness.model.design import AB, A, B, Comparison, Lot, Question


def place(case: Case, group: Group, campaign: Campaign) -> tuple[str, int]:
    """The lot of a case and its wave there; ("", 0) of one that is run in any case."""
    rule = group.rule
    if rule is None or case.repeat < rule.min:
        return "", 0
    return _lot(case, campaign), 1 + (case.repeat - rule.min) // rule.step


def _lot(case: Case, campaign: Campaign) -> str:
    """What is repeated together: one cell of a group, both settings of a comparison included.

    Cells whose cases are interleaved share their jobs, so all of one number of nodes and ranks are one lot, and the
    least certain decides.
    """
    if campaign.packing.mode != "interleaved":
        return case.cell
    nodes = "" if campaign.packing.share_nodes else f"/n{case.nodes}"
    ranks = f"/ranks_per_node={case.ranks_per_node}" if "ranks_per_node" in case.axes else ""
    return f"{case.group}{nodes}{ranks}"


def lots(cases: Iterable[Case], campaign: Campaign) -> tuple[Lot, ...]:
    """Every lot of a campaign, in the order of its cases; twins are in no series."""
    groups = {group.name: group for group in campaign.groups}
    found: dict[str, tuple[Group, Repeats, dict[str, list[str]]]] = {}
    for case in cases:
        group = groups[case.group]
        rule = group.rule
        if rule is None or case.is_twin:
            continue
        _, _, series = found.setdefault(_lot(case, campaign), (group, rule, {}))
        series.setdefault(case.series, []).append(case.case_id)
    return tuple(
        Lot(
            name=name,
            group=group.name,
            question=_question(rule.until),
            within=rule.until.half_width,
            level=rule.until.confidence,
            least=rule.min,
            most=rule.max,
            step=rule.step,
            max_node_hours=rule.max_node_hours,
            series={label: tuple(members) for label, members in series.items()},
        )
        for name, (group, rule, series) in found.items()
    )


def comparisons(cases: Iterable[Case], campaign: Campaign) -> tuple[Comparison, ...]:
    """Every comparison of a campaign, one for each cell of its group."""
    compared = {group.name: group.compare for group in campaign.groups if group.compare is not None}
    cells: dict[tuple[str, str], dict[str, dict[int, str]]] = {}
    for case in cases:
        if case.group in compared:
            sides = cells.setdefault((case.group, case.cell), {})
            sides.setdefault(str(case.axes[AB]), {})[case.repeat] = case.case_id
    return tuple(
        Comparison(
            name=cell,
            group=group,
            question=_question(compared[group]),
            smallest=compared[group].smallest_share,
            a=compared[group].a.words,
            b=compared[group].b.words,
            pairs=tuple((sides[A][repeat], sides[B][repeat]) for repeat in sorted(sides[A])),
        )
        for (group, cell), sides in cells.items()
    )


def _question(figure: Figure) -> Question:
    return Question(figure.metric, figure.statistic, dict(figure.where))
