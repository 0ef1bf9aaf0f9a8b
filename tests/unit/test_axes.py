"""Axes of a group: what they multiply out to, what is refused, and how the cases are named."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import config
from harness.config import ConfigError
from harness.model import axes as sweep
from harness.model.campaign import Campaign
from harness.model.case import Case, short
from harness.plan import expand
from harness.resources import configs_dir

SITE = config.load_site("emulated", [configs_dir() / "sites"])[0]


def campaign(body: str) -> Campaign:
    """A campaign of one group, whose own lines begin on line 5."""
    group = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return config.parse_campaign(f"schema: 1\nname: x\nseed: 1\ngroups:\n  - name: g\n{group}\n", "c.yaml")


def cases(body: str) -> tuple[Case, ...]:
    return expand(campaign(body), SITE).cases


def refusal(body: str) -> str:
    with pytest.raises(ConfigError) as caught:
        campaign(body)
    return str(caught.value)


def test_axes_are_multiplied_and_names_of_one_axis_change_together() -> None:
    found = cases("""
        workload: mpi.halo
        nodes: 2
        repeats: 2
        axes:
          - {rows: [8, 16], columns: [4, 2]}
          - {ranks_per_node: [1, 2]}
          - {steps: [10, 20]}
    """)
    assert [(c.params["rows"], c.params["columns"], c.ranks_per_node, c.steps, c.seed) for c in found] == [
        (rows, columns, ranks, steps, seed)
        for rows, columns in ((8, 4), (16, 2))
        for ranks in (1, 2)
        for steps in (10, 20)
        for seed in (1, 2)
    ]
    assert found[0].axes == {"rows": 8, "columns": 4, "ranks_per_node": 1, "steps": 10}
    assert found[0].label == "g/n2/columns=4/ranks_per_node=1/rows=8/steps=10/r0"
    again = Case.from_json(json.loads(json.dumps(found[0].to_json(), sort_keys=True)))
    assert (again, again.label) == (found[0], found[0].label)
    assert len({c.case_id for c in found}) == len({c.label for c in found}) == len(found) == 16


def test_a_number_of_nodes_can_be_an_axis_and_change_with_another() -> None:
    found = cases("workload: mpi.halo\naxes: [{nodes: [1, 2, 4], ranks_per_node: [4, 2, 1]}]")
    assert [(c.nodes, c.ranks_per_node, c.ranks, c.label) for c in found] == [
        (1, 4, 4, "g/n1/ranks_per_node=4/r0"),
        (2, 2, 4, "g/n2/ranks_per_node=2/r0"),
        (4, 1, 4, "g/n4/ranks_per_node=1/r0"),
    ]


def test_a_list_is_one_value_of_a_parameter_that_takes_lists() -> None:
    found = cases("workload: torch.collectives\nnodes: 2\naxes: [{message_bytes: [[8, 16], [32]]}]")
    assert [(c.params["message_bytes"], c.label) for c in found] == [
        ((8, 16), "g/n2/message_bytes=8+16/r0"),
        ((32,), "g/n2/message_bytes=32/r0"),
    ]


def test_axes_go_with_scaling_and_a_swept_parameter_may_grow() -> None:
    found = cases("""
        workload: mpi.halo
        scaling: {mode: weak, nodes: [1, 2], grow: rows}
        axes: [{rows: [8, 16]}]
    """)
    assert [(c.nodes, c.params["rows"], c.axes["rows"], c.label) for c in found] == [
        (1, 8, 8, "g/n1/rows=8/r0"),
        (1, 16, 16, "g/n1/rows=16/r0"),
        (2, 16, 8, "g/n2/rows=8/r0"),
        (2, 32, 16, "g/n2/rows=16/r0"),
    ]


def test_each_faulted_cell_has_a_twin_of_its_own() -> None:
    found = cases("""
        workload: torch.train
        nodes: 2
        axes: [{width: [32, 64]}]
        checkpoint: {every_steps: 5}
        recovery: {policy: requeue}
        faults: [{kind: node.kill_processes, target: {node: 1}, at: {step: 10}, expect: recovered}]
    """)
    assert [(c.label, c.params["width"]) for c in found] == [
        ("g/n2/width=32/r0/fault", 32),
        ("g/n2/width=32/r0/twin", 32),
        ("g/n2/width=64/r0/fault", 64),
        ("g/n2/width=64/r0/twin", 64),
    ]
    assert [c.twin for c in found] == [found[1].case_id, "", found[3].case_id, ""]


def test_the_same_case_has_the_same_id_as_an_axis_and_as_a_parameter() -> None:
    swept = cases("workload: mpi.halo\naxes: [{nodes: [2]}, {rows: [64]}, {steps: [9]}]")
    plain = cases("workload: mpi.halo\nnodes: 2\nparams: {rows: 64}\nsteps: 9")
    assert [c.case_id for c in swept] == [c.case_id for c in plain]


HALO = "workload: mpi.halo\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "nodes: 1\naxes: [{rows: [1, 2], columns: [1]}]",
            "8: groups[0].axes[0], changes rows and columns together, but rows has 2, columns has 1 values; give as "
            "many of each, or make each an axis of its own",
        ),
        (
            "nodes: 1\naxes: [{rows: [8, 8]}]",
            "8: groups[0].axes[0].rows[1] = 8, is in the list twice; keep one of the two",
        ),
        (
            "nodes: 1\naxes: [{rows: [8, 8, 8], columns: [4, 2, 4]}]",
            "8: groups[0].axes[0], has rows = 8, columns = 4 in the list twice; keep one of the two",
        ),
        (
            "nodes: 1\naxes: [{rows: [8]}, {rows: [9]}]",
            "8: groups[0].axes[1].rows, is an axis in axes[0] too; keep one of the two",
        ),
        (
            "nodes: 1\nparams: {rows: 8}\naxes: [{rows: [9]}]",
            "9: groups[0].axes[0].rows, is given by params too; remove one of the two",
        ),
        (
            "nodes: 1\naxes: [{nodes: [2]}]",
            "8: groups[0].axes[0].nodes, is given by nodes too; remove one of the two",
        ),
        (
            "scaling: {mode: strong, nodes: [1]}\naxes: [{nodes: [2]}]",
            "8: groups[0].axes[0].nodes, is given by scaling too; remove one of the two",
        ),
        (
            "nodes: 1\nranks_per_node: 1\naxes: [{ranks_per_node: [2]}]",
            "9: groups[0].axes[0].ranks_per_node, is given by ranks_per_node too; remove one of the two",
        ),
        (
            "axes: [{nodes: [0, two, 100001]}]",
            "7: groups[0].axes[0].nodes[0] = 0, is too small, allowed: 1 and above; raise it\n"
            'c.yaml:7: groups[0].axes[0].nodes[1] = "two", must be a whole number; write digits only, without quotes\n'
            "c.yaml:7: groups[0].axes[0].nodes[2] = 100001, is too large, allowed: 100000 and below; lower it",
        ),
        (
            "nodes: 1\naxes: [{row: [8]}]",
            "8: groups[0].axes[0].row, is no parameter of mpi.halo, allowed: columns, nodes, ranks_per_node, rows, "
            'steps; did you mean "rows"?',
        ),
        (
            "nodes: 1\naxes: [{rows: [8, many, [9]]}]",
            '8: groups[0].axes[0].rows[1] = "many", must be a whole number, like the default 512; change it\n'
            "c.yaml:8: groups[0].axes[0].rows[2], must be one value, like the default 512; remove the [ ]",
        ),
        (
            "nodes: 1\naxes: [{rows: []}, {}]",
            "8: groups[0].axes[0].rows, is empty, allowed: 1 or more; add something\n"
            "c.yaml:8: groups[0].axes[1], is empty, allowed: 1 or more; add something",
        ),
        ("nodes: 1\naxes: {rows: [8]}", "8: groups[0].axes, is a mapping and must be a list; write it in [ ]"),
        (
            "nodes: 1\naxes: [{steps: [20, 5]}]",
            "8: groups[0].axes[0].steps[1] = 5, is not above the 5 warm-up steps of mpi.halo, so nothing is left to "
            "judge; raise it or set warmup_steps",
        ),
        (
            "scaling: {mode: weak, nodes: [2, 3], grow: rows}\naxes: [{rows: [8, 9]}]",
            "7: groups[0].scaling.nodes[1] = 3, makes rows = 9 x 3/2, which is no whole number; change it or rows",
        ),
        (
            "axes: [{nodes: [4, 2]}]\ncheckpoint: {every_steps: 5}\nrecovery: {policy: requeue}\n"
            "faults: [{kind: node.kill_processes, target: {node: 3}, at: {step: 10}, expect: recovered}]",
            "10: groups[0].faults[0].target.node = 3, but the smallest case has 2 nodes, allowed: 0 to 1; lower it",
        ),
    ],
    ids=lambda value: value.split(", ", 1)[1][:40] if value[0].isdigit() else "",
)  # fmt: skip
def test_axes_that_contradict_themselves_are_told_where(body: str, message: str) -> None:
    assert refusal(HALO + body) == f"c.yaml:{message}"


def test_a_value_of_an_axis_that_a_site_does_not_have_is_named_itself() -> None:
    text = (
        "schema: 1\nname: x\nseed: 1\ngroups:\n  - {name: g, workload: mpi.halo, axes: [{nodes: [1, 9]},\n"
        "     {ranks_per_node: [1, 99]}]}\n"
    )
    problems = config.check(config.parse_campaign(text), SITE, path="c.yaml", text=text)
    assert [str(p) for p in problems] == [
        'c.yaml:5: groups[0].axes[0].nodes[1] = 9, but site "emulated" allows at most 4; lower it or choose another '
        "site",
        'c.yaml:6: groups[0].axes[1].ranks_per_node[1] = 99, but a node of site "emulated" has 4 processors: '
        "oversubscribed, so times mean little; lower it unless this is meant",
    ]


def test_a_value_is_short_and_plain_in_a_label() -> None:
    assert [short(v) for v in (8, 0.001, True, "ring", (8, 16), "a/b c")] == [
        "8", "0.001", "true", "ring", "8+16", f"a_b_c~{short('a/b c')[-8:]}",
    ]  # fmt: skip
    assert short(tuple(range(20))) != short(tuple(range(21)))
    assert len(short("x" * 4000)) == 24


def test_a_label_of_many_axes_is_cut_and_stays_unique() -> None:
    def label(last: int) -> str:
        axes = {f"parameter{n}": "x" * 20 for n in range(8)} | {"last": last}
        return Case("id", "g", "w", 1, 1, 0, 1, 1, 0, {}, axes=axes).label

    assert len(label(1)) < 130
    assert label(1) != label(2)


AXES = st.lists(st.dictionaries(st.sampled_from("abc"), st.just(()), min_size=1), max_size=3).flatmap(
    lambda names: st.tuples(
        *(
            st.integers(1, 4).map(lambda n, axis=axis: {name: tuple(range(n)) for name in axis})  # type: ignore[misc]
            for axis in names
        )
    )
)


@given(AXES)
@settings(deadline=None)
def test_the_count_of_cells_is_known_without_them(axes: tuple[dict[str, tuple[Any, ...]], ...]) -> None:
    cells = list(sweep.cells(axes))
    assert len(cells) == sweep.count(axes)
    names = [name for axis in axes for name in axis]
    if len(set(names)) == len(names):
        assert all(set(cell) == set(names) for cell in cells)
        assert len({tuple(sorted(cell.items())) for cell in cells}) == len(cells)
