"""What must hold of the figures that a group or a site names: that the workload records them, each one figure. Pure.

A figure is a statistic of a metric: of a gate, of repeats until it is known, or of a comparison. Whether its names are
names at all is asked in ``harness.rules``; a user's program says by itself what it records. What a site expects is of
collectives, and of those that there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from harness.model import axes as sweep
from harness.model.campaign import COMMAND, Group
from harness.model.campaign_design import Repeats
from harness.model.fields import Finding, Loc, did_you_mean
from harness.model.metrics import BANDWIDTHS, BARRIER, COORDINATES, FITTED, METRICS
from harness.model.site import Site
from harness.model.site_expected import Expected

OF_STEPS = ("step", "start_mono_ns", "step_time_ns")  # of the table of steps, whatever the workload
OF_CHECKPOINTS = ("step", "checkpoint_time_ns", "checkpoint_bytes")
_COLLECTIVES = "collectives"


class Workload(Protocol):
    """What these rules need to know of a workload."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their defaults."""

    @property
    def tables(self) -> Mapping[str, tuple[str, ...]]:
        """Its tables of samples and their columns, as its class has them."""

    @property
    def allowed(self) -> dict[str, tuple[Any, ...]]:
        """Of parameters: the texts that are allowed, or the lowest and the highest number."""


class _Figure(Protocol):
    @property
    def metric(self) -> str: ...
    @property
    def where(self) -> Mapping[str, float]: ...


def findings(group: Group, workload: Workload) -> Iterator[Finding]:
    """Figures of a valid group that no case of it can have."""
    if group.workload == COMMAND:
        return
    asked: list[tuple[Loc, _Figure]] = [(("gates", n), gate) for n, gate in enumerate(group.gates)]
    if isinstance(group.repeats, Repeats):
        asked.append((("repeats", "until"), group.repeats.until))
    if group.compare is not None:
        asked.append((("compare",), group.compare))
    tables = _tables(group, workload)
    for loc, figure in asked:
        for finding in _of_figure(group, workload, tables, figure):
            yield Finding((*loc, *finding.loc), finding.text, finding.value)


def expected_findings(site: Site, registry: Mapping[str, Workload]) -> Iterator[Finding]:
    """Figures that a valid site expects of what no workload measures."""
    yield from _expected(site.expected, registry)
    for name, part in site.partitions.items():
        for finding in _expected(part.expected or (), registry):
            yield Finding(("partitions", name, *finding.loc), finding.text, finding.value)


def _expected(entries: Sequence[Expected], registry: Mapping[str, Workload]) -> Iterator[Finding]:
    collectives = [name for name, entry in registry.items() if _COLLECTIVES in entry.tables]
    for index, entry in enumerate(entries):
        workload = registry.get(entry.workload)
        if workload is None or entry.workload not in collectives:
            text = f"measures no collective, allowed: {', '.join(collectives)}"
            text += f"; {did_you_mean(entry.workload, collectives, 'choose one')}"
            yield Finding(("expected", index, "workload"), text, entry.workload)
            continue
        for name, value in (("operation", entry.operation), ("dtype", entry.dtype)):
            if value is not None and value not in (known := workload.allowed[name]):
                text = f"allowed with {entry.workload}: {', '.join(known)}; {did_you_mean(value, known, 'choose one')}"
                yield Finding(("expected", index, name), text, value)


def _tables(group: Group, workload: Workload) -> dict[str, tuple[str, ...]]:
    """Columns by table, and what analysis forms from them."""
    tables = {**workload.tables, "steps": (*OF_STEPS, *workload.tables.get("steps", ()))}
    if group.checkpoint is not None:
        tables["checkpoints"] = OF_CHECKPOINTS
    return tables


def _of_figure(
    group: Group, workload: Workload, tables: Mapping[str, Sequence[str]], figure: _Figure
) -> Iterator[Finding]:
    formed = (*BANDWIDTHS, *FITTED) if _COLLECTIVES in tables else ()
    known = sorted({*formed, *(c for columns in tables.values() for c in columns)} - {"step"})
    if figure.metric not in METRICS:
        return  # a finding of its own
    if figure.metric not in known:
        yield Finding(
            ("metric",),
            f"is not recorded by {group.workload}{_without_checkpoints(figure.metric)}, allowed: {', '.join(known)}; "
            f"{did_you_mean(figure.metric, known, 'choose one')}",
            figure.metric,
        )
        return
    if figure.metric in formed:
        columns: Sequence[str] = ("message_bytes",) if figure.metric in BANDWIDTHS else ()
    else:
        columns = next(c for c in tables.values() if figure.metric in c)
    for column, value in figure.where.items():
        if column in METRICS and column not in columns:
            allowed = ", ".join(columns) or "none"
            text = f"is no column by which {figure.metric} can be chosen, allowed: {allowed}; remove it"
            yield Finding(("where", column), text, value)
    for coordinate in sorted(COORDINATES & set(columns) - {figure.metric}):
        yield from _at_one_place(group, workload, figure, coordinate)


def _without_checkpoints(metric: str) -> str:
    return " where no checkpoint is taken" if metric in OF_CHECKPOINTS else ""


def _at_one_place(group: Group, workload: Workload, figure: _Figure, coordinate: str) -> Iterator[Finding]:
    """One value of a coordinate must be chosen where a case has several, and it must be one that a case has."""
    operations = _given(group, workload, "operation")
    if BARRIER in operations:
        if figure.metric in BANDWIDTHS:
            text = "and a barrier carries nothing, so it has no bandwidth; choose latency_s, or another operation"
            yield Finding(("metric",), text, figure.metric)
        return
    lists = [value for value in _given(group, workload, coordinate) if isinstance(value, tuple)]
    wanted = figure.where.get(coordinate)
    held = sorted({value for values in lists for value in values})
    shown = ", ".join(map(str, held[:8])) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
    if wanted is None and any(len(set(values)) > 1 for values in lists):
        yield Finding(
            ("metric",),
            f"has samples at several {coordinate} in a case ({shown}), which no figure pools; "
            f"choose one, where: {{{coordinate}: {held[0]}}}, or write one for each",
            figure.metric,
        )
    elif wanted is not None and wanted not in held:
        text = f"is none of the group's {coordinate}, allowed: {shown}; change it"
        yield Finding(("where", coordinate), text, wanted)


def _given(group: Group, workload: Workload, name: str) -> list[Any]:
    """Every value that a parameter has in some case of the group."""
    swept = [value for _, value in sweep.values(group.axes, name)]
    found = swept or [group.params.get(name, workload.defaults.get(name))]
    if group.compare is not None:
        sides = [setting.params for _, setting in group.compare.settings if name in setting.params]
        found = [*(found if len(sides) < 2 else ()), *(params[name] for params in sides)]
    return found
