"""Declared faults become the faults of a case: what is left to chance is the seed's, and the same again."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from harness import strikes
from harness.model.campaign import Group
from harness.model.case import Case, Fault
from harness.packing import PlanError
from tests.unit.test_plan import site

KILL = {"kind": "rank.kill", "target": {"rank": 1}, "at": {"step": 5}, "expect": "failed", "because": "ended"}


def group(*faults: dict[str, Any]) -> Group:
    return Group.model_validate(
        {"name": "g", "workload": "torch.train", "nodes": 4, "ranks_per_node": 2, "faults": faults}
    )


def case(seed: int = 1, **more: Any) -> Case:
    values: dict[str, Any] = {
        "nodes": 4,
        "ranks_per_node": 2,
        "repeat": 0,
        "steps": 50,
        "warmup_steps": 0,
        **more,
    }
    return Case(case_id="c", group="g", workload="torch.train", seed=seed, params={}, **values)


def struck(*faults: dict[str, Any], seed: int = 1, case_id: str = "c") -> tuple[Fault, ...]:
    return strikes.of_group(group(*faults), case(seed), case_id, site(kind="emulated"))


def test_what_is_said_stands_in_the_fault() -> None:
    every = {
        "kind": "node.partition", "target": {"nodes": (1, 3)}, "at": {"event": "recovery.begin", "time": 2},
        "for_s": 1.5, "expect": "failed", "because": "2 of its nodes", "params": {"one_way": True},
    }  # fmt: skip
    assert struck(every) == (
        Fault(
            "c-f0", "node.partition", "node.partition", "failed", because="2 of its nodes", nodes=(1, 3),
            at_event="recovery.begin", at_count=2, duration_s=1.5, params={"one_way": True},
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"rank": 3}, {"rank": 3}),
        ({"role": "checkpoint_writer"}, {"role": "checkpoint_writer"}),
    ],
)
def test_a_target_is_what_is_said(target: dict[str, Any], said: dict[str, Any]) -> None:
    (fault,) = struck({**KILL, "target": target})
    assert fault == Fault("c-f0", "rank.kill", "rank.kill", "failed", "ended", at_step=5, **said)


def test_chance_is_the_seeds_and_covers_what_it_may_hit() -> None:
    random = {**KILL, "target": {"random": "rank"}, "at": {"steps": (10, 12)}}
    assert struck(random, seed=7) == struck(random, seed=7)
    hit = [struck(random, seed=n)[0] for n in range(200)]
    assert {f.rank for f in hit} == set(range(8))
    assert {f.at_step for f in hit} == {10, 11, 12}


@pytest.mark.parametrize(("random", "nodes"), [("node", {0, 1, 2, 3}), ("other_node", {1, 2, 3})])
def test_a_random_node_may_be_kept_from_being_the_batch_host(random: str, nodes: set[int]) -> None:
    fault = {**KILL, "kind": "node.kill_processes", "target": {"random": random}}
    assert {struck(fault, seed=n)[0].node for n in range(100)} == nodes


def test_cases_that_are_compared_meet_the_same_faults_and_two_declarations_others() -> None:
    random = {**KILL, "target": {"random": "rank"}, "at": {"steps": (0, 49)}, "count": 4}
    one, other = struck(random, random), struck(random, random, case_id="d")
    assert [(f.rank, f.at_step) for f in one] == [(f.rank, f.at_step) for f in other]
    assert [(f.rank, f.at_step) for f in one[:4]] != [(f.rank, f.at_step) for f in one[4:]]


def test_a_poisson_process_has_its_mean_and_may_outlive_the_case() -> None:
    faults = struck({**KILL, "at": {"mtbf_s": 20.0}, "count": 1000})
    times = [f.at_s for f in faults]
    assert times == sorted(times)
    assert 18 < times[-1] / 1000 < 22
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert (
        0.58 < sum(gap < 20 for gap in gaps) / len(gaps) < 0.68
    )  # 1 - 1/e of them are shorter than the mean
    assert {(f.may_miss, f.at_step, f.after, f.series) for f in faults} == {(True, -1, (), "c-f0")}


def test_the_same_step_again_is_that_of_a_later_attempt() -> None:
    assert [(f.fault_id, f.at_step, f.after, f.series) for f in struck({**KILL, "count": 3})] == [
        ("c-f0.0", 5, (), "c-f0"),
        ("c-f0.1", 5, ("c-f0.0",), "c-f0"),
        ("c-f0.2", 5, ("c-f0.1",), "c-f0"),
    ]


def test_moments_are_counted_over_the_case() -> None:
    rank = struck({**KILL, "at": {"event": "checkpoint.begin", "time": 2}, "count": 2})
    assert [(f.at_count, f.after) for f in rank] == [(2, ()), (3, ())]
    node = {**KILL, "kind": "node.kill_processes", "target": {"node": 1}}
    recovery = struck({**node, "at": {"event": "recovery.begin", "time": 2}, "count": 2})
    assert [(f.at_count, f.after) for f in recovery] == [(2, ()), (3, ())]


def test_other_moments_need_no_order() -> None:
    assert {f.after for f in struck({**KILL, "at": {"steps": (1, 40)}, "count": 5})} == {()}


def test_a_substitute_is_done_under_its_own_name_and_what_is_impossible_is_refused() -> None:
    off = {**KILL, "kind": "node.power_off", "target": {"node": 1}}
    plain = site(power=None, kind="production")
    with_instead = group({**off, "instead": "node.kill_processes"})
    (fault,) = strikes.of_group(with_instead, case(), "c", plain)
    assert (fault.kind, fault.requested_kind) == ("node.kill_processes", "node.power_off")
    with pytest.raises(PlanError) as refused:
        strikes.of_group(group(off), case(), "c", plain)
    assert str(refused.value) == 'group g: node.power_off: site "tiny" has no power command (power.command)'


def test_a_fault_is_the_same_after_a_way_through_json() -> None:
    import json
    from dataclasses import asdict

    (fault,) = struck({**KILL, "kind": "node.partition", "target": {"nodes": (1, 2)}, "for_s": 1.0})
    fault = replace(fault, after=("x",))
    assert Fault.from_json(json.loads(json.dumps(asdict(fault)))) == fault
