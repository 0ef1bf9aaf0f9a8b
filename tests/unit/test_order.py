"""What groups wait for: by their own words, and by their roles."""

from __future__ import annotations

from typing import Any

import pytest

from harness import config
from harness.config import ConfigError
from harness.model.campaign import Campaign
from harness.model.order import Wait
from harness.plan import expand
from harness.resources import configs_dir

SITE = config.load_site("emulated", [configs_dir() / "sites"])[0]


def text(*groups: str) -> str:
    lines = [f"  - {{workload: mpi.halo, nodes: 1, {group}}}\n" for group in groups]
    return "schema: 1\nname: x\nseed: 1\ngroups:\n" + "".join(lines)


def campaign(*groups: str) -> Campaign:
    return config.parse_campaign(text(*groups), "c.yaml")


def refusal(*groups: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        campaign(*groups)
    return str(caught.value).splitlines()


def sent(*groups: str) -> list[tuple[list[str], tuple[str, ...], tuple[str, ...]]]:
    """The groups of each submission, in the order of sending, and what it waits for."""
    plan = expand(campaign(*groups), SITE)
    return [
        (sorted({plan.case(c).group for j in s.jobs for c in j.case_ids}), s.after, s.needs)
        for s in plan.submissions
    ]


def test_measurements_need_pre_checks_and_a_post_check_comes_after_all() -> None:
    assert sent("name: z, role: post-check", "name: m", "name: n", "name: a, role: pre-check") == [
        (["a"], (), ()),
        (["m", "n"], (), ("a",)),
        (["z"], ("m", "n", "a"), ()),
    ]


def test_groups_wait_for_those_they_name_and_share_no_job_with_them() -> None:
    assert sent("name: c, needs: [b], after: [a]", "name: b, after: [a]", "name: a", "name: d") == [
        (["a", "d"], (), ()),
        (["b"], ("a",), ()),
        (["c"], ("a",), ("b",)),
    ]


def test_a_twin_waits_for_what_its_group_waits_for() -> None:
    found = config.parse_campaign("""\
schema: 1
name: x
seed: 1
groups:
  - {name: a, workload: mpi.halo, nodes: 1}
  - name: b
    workload: torch.train
    nodes: 2
    needs: [a]
    checkpoint: {every_steps: 5}
    recovery: {policy: requeue}
    faults: [{kind: node.kill_processes, target: {node: 1}, at: {step: 10}, expect: recovered}]
""")
    plan = expand(found, SITE)
    labels = [([plan.case(c).label for j in s.jobs for c in j.case_ids], s.needs) for s in plan.submissions]
    assert labels == [
        (["a/n1/r0"], ()),
        (["b/n2/r0/twin"], ("a",)),
        (["b/n2/r0/fault"], ("a",)),
    ]


def test_what_is_needed_is_not_waited_for_twice() -> None:
    found = campaign(
        "name: a, role: pre-check", "name: b, after: [a]", "name: z, role: post-check, needs: [b]"
    )
    assert found.waits() == {"a": Wait(), "b": Wait(needs=("a",)), "z": Wait(after=("a",), needs=("b",))}


@pytest.mark.parametrize(
    ("groups", "messages"),
    [
        (
            ["name: aa, after: [bb]", "name: b"],
            ['5: groups[0].after[0] = "bb", is no group of this campaign, allowed: b; did you mean "b"?'],
        ),
        (["name: a, needs: [a]"], ['5: groups[0].needs[0] = "a", is the group itself; remove it']),
        (
            ["name: a, needs: [b, b]", "name: b"],
            ['5: groups[0].needs[1] = "b", is in the list twice; keep one of the two'],
        ),
        (
            ["name: a, needs: [b], after: [b]", "name: b"],
            ['5: groups[0].after[0] = "b", is in needs too, which says more; remove it here'],
        ),
        (
            ["name: a, needs: [b]", "name: b, after: [c]", "name: c, needs: [a]"],
            [
                '5: groups[0].needs[0] = "b", makes a circle: a waits for b waits for c waits for a; remove one of '
                "these"
            ],
        ),
        (
            ["name: a, after: [b]", "name: b, after: [a]", "name: c, after: [d]", "name: d, after: [c]"],
            [
                '5: groups[0].after[0] = "b", makes a circle: a waits for b waits for a; remove one of these',
                '7: groups[2].after[0] = "d", makes a circle: c waits for d waits for c; remove one of these',
            ],
        ),
        (
            ["name: a, role: pre-check, needs: [b]", "name: b"],
            [
                '5: groups[0].needs[0] = "b", is a measurement, and all measurements need this pre-check; remove it or '
                "change a role"
            ],
        ),
        (
            ["name: a, after: [b]", "name: b, role: post-check"],
            [
                '5: groups[0].after[0] = "b", is a post-check, which runs when all else has ended; remove it or change '
                "a role"
            ],
        ),
    ],
)
def test_an_order_that_cannot_be_is_told_where(groups: list[str], messages: list[str]) -> None:
    assert refusal(*groups) == [f"c.yaml:{message}" for message in messages]


def test_an_order_is_checked_although_something_else_is_wrong() -> None:
    assert refusal("name: a, steps: x, after: [c]", "name: b") == [
        'c.yaml:5: groups[0].steps = "x", must be a whole number; write digits only, without quotes',
        'c.yaml:5: groups[0].after[0] = "c", is no group of this campaign, allowed: b; choose one or remove it',
    ]


def test_to_need_a_group_that_is_expected_to_fail_is_doubted() -> None:
    fault = "{kind: node.kill_processes, target: {node: 0}, at: {step: 9}, expect: failed, because: lost}"
    groups = f"name: a, faults: [{fault}]", "name: b, needs: [a]"
    problems = config.check(campaign(*groups), SITE, path="c.yaml", text=text(*groups))
    assert [(str(p), p.warning) for p in problems] == [
        (
            'c.yaml:6: groups[1].needs[0] = "a", has faults with which it is expected to fail, and has passed if it '
            "does; write it in after unless this is meant",
            True,
        )
    ]


def _beside(*groups: str) -> list[tuple[str, bool]]:
    site = SITE.model_copy(update={"kind": "emulated"})
    problems = config.check(campaign(*groups), site, path="c.yaml", text=text(*groups))
    return [(str(p), p.warning) for p in problems]


AWAY = "faults: [{kind: controller.away, at: {step: 9}, for_s: 3, expect: unharmed}]"


def test_a_fault_that_reaches_other_groups_says_which() -> None:
    assert _beside(f"name: a, {AWAY}", "name: b", "name: c, after: [a]") == [
        (
            'c.yaml:5: groups[0].faults[0].kind = "controller.away", reaches every job of the cluster, those of b too, '
            "which may run beside it; where that matters write after: [b]",
            True,
        )
    ]


def test_a_fault_that_waits_for_all_others_reaches_none() -> None:
    assert _beside("name: b", f"name: a, after: [b], {AWAY}") == []
    assert _beside("name: b", f"name: a, role: post-check, {AWAY}") == []


def test_a_chain_of_a_thousand_groups_is_planned() -> None:
    groups = tuple(
        {"name": f"g{n}", "workload": "mpi.halo", "nodes": 1, **({"after": (f"g{n - 1}",)} if n else {})}
        for n in range(1000)
    )
    data: dict[str, Any] = {"schema": 1, "name": "c", "seed": 1, "groups": groups}
    plan = expand(Campaign.model_validate(data), SITE)
    assert [plan.case(s.jobs[0].case_ids[0]).group for s in plan.submissions] == [
        f"g{n}" for n in range(1000)
    ]
