"""Repeats until they are enough, and pairs of settings: what is planned, what it may cost, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from harness import config
from harness.build import ConfigError, campaign, group, to_yaml
from harness.cost import of_lot, summary
from harness.model.campaign import Campaign
from harness.model.case import Plan
from harness.model.design import Lot, Question
from harness.model.site import Site
from harness.overrides import apply
from harness.plan import expand

UNTIL = {"metric": "step_time_ns", "within": "2%"}
RULE: dict[str, Any] = {"min": 6, "max": 10, "step": 2, "until": UNTIL}
COMPARE: dict[str, Any] = {
    "metric": "step_time_ns",
    "a": {"params": {"rows": 64}},
    "b": {"params": {"rows": 128}},
}


def site(max_time_min: int = 60, **more: Any) -> Site:
    return Site.model_validate(
        {
            "schema": 1, "name": "tiny", "kind": "production", "launcher": "slurm", "requeue": True, "accounting": True,
            "limits": {"max_nodes": 8, "max_time_min": max_time_min}, "node": {"cpus": 4, "exclusive": True},
            "mpi": {"plugin": "pmix"}, **more,
        }
    )  # fmt: skip


def halo(name: str = "g", **more: Any) -> dict[str, Any]:
    return {"name": name, "workload": "mpi.halo", "nodes": 1, "time_limit_min": 2, **more}


def plan(*groups: dict[str, Any], there: Site | None = None, **more: Any) -> Plan:
    return expand(campaign("c", seed=4, groups=groups, **more), there or site())


def submitted(found: Plan) -> list[tuple[str, int, list[list[str]]]]:
    """Lot, wave, and the cases of each job, of each submission."""
    return [
        (s.lot, s.wave, [[found.case(c).label for c in job.case_ids] for job in s.jobs])
        for s in found.submissions
    ]


def repeats(label: str, *numbers: int) -> list[str]:
    return [f"{label}/r{number}" for number in numbers]


# ---- repeats that are added until they are enough ----


def test_all_repeats_are_planned_and_those_that_may_not_be_needed_come_in_waves() -> None:
    assert submitted(plan(halo(repeats=RULE))) == [
        ("", 0, [repeats("g/n1", 0, 1, 2, 3, 4, 5)]),
        ("g/n1", 1, [repeats("g/n1", 6, 7)]),
        ("g/n1", 2, [repeats("g/n1", 8, 9)]),
    ]


def test_a_last_wave_holds_what_is_left() -> None:
    found = plan(halo(repeats={**RULE, "max": 9}))
    assert submitted(found)[-1] == ("g/n1", 2, [repeats("g/n1", 8)])


def test_what_is_repeated_together_says_so_in_the_plan() -> None:
    found = plan(halo(repeats={**RULE, "max_node_hours": 3.0}))
    cases = tuple(c.case_id for c in found.cases)
    question = Question("step_time_ns", "median")
    assert found.lots == (
        Lot("g/n1", "g", question, 0.02, 0.95, 6, 10, 2, 3.0, {"g/n1": cases}),
    )  # fmt: skip
    assert found.lots[0].before(2) == frozenset(cases[:8])
    assert Plan.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_cells_have_waves_of_their_own_unless_they_are_interleaved() -> None:
    swept = halo(repeats={**RULE, "max": 8}, axes=[{"rows": [64, 128]}])
    assert [(lot.name, list(lot.series)) for lot in plan(swept).lots] == [
        ("g/n1/rows=64", ["g/n1/rows=64"]),
        ("g/n1/rows=128", ["g/n1/rows=128"]),
    ]
    found = plan(swept, packing={"mode": "interleaved"})
    assert [(lot.name, list(lot.series)) for lot in found.lots] == [
        ("g/n1", ["g/n1/rows=64", "g/n1/rows=128"])
    ]
    labels = ["g/n1/rows=64/r6", "g/n1/rows=128/r6", "g/n1/rows=64/r7", "g/n1/rows=128/r7"]
    assert submitted(found)[1:] == [("g/n1", 1, [labels])]


def test_more_repeats_wait_behind_all_that_will_be_run() -> None:
    found = plan(halo(repeats={**RULE, "max": 8}), halo("large", nodes=4))
    assert [(s.lot, s.wave, s.jobs[0].nodes) for s in found.submissions] == [
        ("", 0, 4),
        ("", 0, 1),
        ("g/n1", 1, 1),
    ]


def test_the_ids_of_repeats_are_those_of_a_plain_number() -> None:
    rule, number = plan(halo(repeats=RULE)), plan(halo(repeats=10))
    assert [c.case_id for c in rule.cases] == [c.case_id for c in number.cases]


FAULT = {"kind": "node.kill_processes", "target": {"node": 0}, "at": {"step": 9}, "expect": "recovered"}
FAULTED: dict[str, Any] = {
    "name": "f", "workload": "torch.train", "nodes": 2, "time_limit_min": 2, "checkpoint": {"every_steps": 5},
    "recovery": {"policy": "requeue"}, "faults": [FAULT],
}  # fmt: skip


def test_a_twin_is_in_the_wave_of_its_case() -> None:
    found = plan({**FAULTED, "repeats": {**RULE, "max": 7, "step": 1}})
    waves = {c: s.wave for s in found.submissions for job in s.jobs for c in job.case_ids}
    assert {(waves[c.case_id], waves[c.twin]) for c in found.cases if c.twin} == {(0, 0), (1, 1)}
    assert [len(cases) for cases in found.lots[0].series.values()] == [7]  # no twins among them


def test_a_case_that_may_not_be_run_is_nobody_elses_twin() -> None:
    quiet = {k: v for k, v in FAULTED.items() if k not in ("faults", "recovery")}
    found = plan({**quiet, "name": "quiet", "repeats": {**RULE, "max": 8}}, {**FAULTED, "repeats": 8})
    twins = [found.case(c.twin) for c in found.cases if c.twin]
    assert [(t.group, t.repeat) for t in twins] == [
        *(("quiet", r) for r in range(6)),
        ("f", 6),
        ("f", 7),
    ]


def test_what_is_expected_is_what_is_run_in_any_case_and_at_most_all_or_the_budget() -> None:
    def cost(**more: Any) -> tuple[float, float, int, int]:
        found = summary(plan(halo(repeats={**RULE, "max": 36, **more}, time_limit_min=8)))
        return found.node_hours_expected, found.node_hours_max, found.cases, found.perhaps_not_needed

    # 6 x 8 + 2 minutes; 15 waves of 2 x 8 + 2 minutes; or 1 node-hour and a wave.
    assert cost() == (0.83, 5.33, 36, 30)
    assert cost(max_node_hours=1.0) == (0.83, 2.13, 36, 30)
    found = plan(halo(repeats=RULE, time_limit_min=8))
    assert of_lot(found, found.lots[0]) == (0.8, 1.33)


# ---- pairs ----


def test_pairs_stay_together_in_one_allocation_and_their_order_alternates() -> None:
    first, second = ["ab=a/r0", "ab=b/r0", "ab=b/r1", "ab=a/r1"], ["ab=a/r2", "ab=b/r2", "ab=b/r3", "ab=a/r3"]
    for packing, jobs in (
        ({}, [first + second]),
        ({"mode": "interleaved"}, [first + second]),
        ({"max_cases": 5}, [first, second]),
    ):
        found = plan(halo(repeats=4, compare=COMPARE), packing=packing)
        assert submitted(found) == [("", 0, [[f"g/n1/{label}" for label in job] for job in jobs])]
    found = plan(halo(repeats=4, compare=COMPARE), packing={"mode": "jobs"})
    assert [len(job.case_ids) for s in found.submissions for job in s.jobs] == [2, 2, 2, 2]
    odd = plan(halo(repeats=1, seed=5, compare=COMPARE))
    assert submitted(odd) == [("", 0, [["g/n1/ab=b/r0", "g/n1/ab=a/r0"]])]


def test_a_pair_is_not_torn_apart_by_the_time_limit() -> None:
    found = plan(halo(repeats=2, compare=COMPARE, time_limit_min=10), there=site(max_time_min=40))
    assert [[len(job.case_ids) for job in s.jobs] for s in found.submissions] == [[2, 2]]


def test_a_comparison_says_what_is_compared() -> None:
    settings = {"a": {"params": {"rows": 64}}, "b": {"environment": {"X": "1"}}}
    found = plan(halo(repeats=2, compare={"metric": "step_time_ns", "smallest": "3%", **settings}))
    (comparison,) = found.comparisons
    assert (comparison.name, comparison.a, comparison.b, comparison.smallest) == (
        "g/n1",
        "rows=64",
        "X=1",
        0.03,
    )
    assert [[found.case(c).label for c in pair] for pair in comparison.pairs] == [
        ["g/n1/ab=a/r0", "g/n1/ab=b/r0"],
        ["g/n1/ab=a/r1", "g/n1/ab=b/r1"],
    ]
    assert [c.params["rows"] for c in found.cases] == [64, 64, 512, 512]
    assert [dict(c.environment) for c in found.cases] == [{}, {}, {"X": "1"}, {"X": "1"}]
    assert len({c.seed for c in found.cases if c.repeat == 0}) == 1  # both settings get the same data


def test_two_settings_that_are_the_same_are_two_cases_and_a_doubt() -> None:
    alike = campaign("c", seed=4, groups=[halo(repeats=6, compare={"metric": "step_time_ns"})])
    assert len({c.case_id for c in expand(alike, site()).cases}) == 12
    (doubt,) = config.check(alike, site())
    assert doubt.warning
    assert doubt.text.startswith(
        "groups[0].compare, has the same setting twice, which shows no more than how much"
    )


def test_a_program_has_a_settings_variables_in_its_own_environment() -> None:
    command = {"run": ["true"], "environment": {"X": "0", "Y": "2"}, "success": {"output": ["x"]}}
    found = plan(
        {
            "name": "p", "workload": "command", "nodes": 1, "time_limit_min": 2, "repeats": 1, "command": command,
            "compare": {"metric": "program_time_ns", "b": {"environment": {"X": "1"}}},
        }
    )  # fmt: skip
    said = [(c.command or {})["environment"] for c in found.cases]
    assert said == [{"X": "0", "Y": "2"}, {"X": "1", "Y": "2"}]
    assert [dict(c.environment) for c in found.cases] == [{}, {}]


def test_the_environment_of_ranks_is_part_of_what_a_case_is() -> None:
    one, two = plan(halo()), plan(halo(environment={"NCCL_ALGO": "Ring"}))
    assert dict(two.cases[0].environment) == {"NCCL_ALGO": "Ring"}
    assert one.cases[0].case_id != two.cases[0].case_id


def test_pairs_are_added_in_waves_as_pairs() -> None:
    found = plan(halo(repeats={**RULE, "max": 8}, compare=COMPARE))
    assert [(lot.name, list(lot.series)) for lot in found.lots] == [("g/n1", ["g/n1/ab=a", "g/n1/ab=b"])]
    pairs = ["g/n1/ab=a/r6", "g/n1/ab=b/r6", "g/n1/ab=b/r7", "g/n1/ab=a/r7"]
    assert submitted(found)[1:] == [("g/n1", 1, [pairs])]


# ---- what is refused, and in which words ----


def problems(there: Site | None = None, **more: Any) -> list[str]:
    try:
        found = campaign(
            "c", seed=4, groups=[group("g", "mpi.halo", **{"nodes": 1, "time_limit_min": 2, **more})]
        )
    except ConfigError as error:
        return [problem.text.removeprefix("groups[0].") for problem in error.problems]
    return [p.text.removeprefix("groups[0].") for p in config.check(found, there or site()) if not p.warning]


@pytest.mark.parametrize(
    "repeats, words",
    [
        (
            {**RULE, "min": 2, "max": 5},
            "repeats.max = 5, is too small: below 6 repeats there is no interval; raise it, or write the number of "
            "repeats alone, as in repeats: 5",
        ),
        (
            {**RULE, "min": 10},
            "repeats.min = 10, leaves nothing to decide, since max = 10; lower it, or write the number of repeats "
            "alone",
        ),
        ({**RULE, "step": 0}, "repeats.step = 0, is too small, allowed: 1 and above; raise it"),
        ({**RULE, "max": 1001}, "repeats.max = 1001, is too large, allowed: 1000 and below; lower it"),
        (
            {**RULE, "until": {**UNTIL, "within": 0.02}},
            "repeats.until.within = 0.02, must be a percentage above 0 % and below 100 %; write it as 2%",
        ),
        (
            {**RULE, "until": {**UNTIL, "within": "0%"}},
            'repeats.until.within = "0%", must be a percentage above 0 % and below 100 %; write it as 2%',
        ),
        (
            {**RULE, "until": {**UNTIL, "level": "20%"}},
            'repeats.until.level = "20%", allowed: 50% to 99.9%; change it',
        ),
        (
            {**RULE, "until": {**UNTIL, "metric": "step_tim_ns"}},
            'repeats.until.metric = "step_tim_ns", is no metric of the harness; did you mean "step_time_ns"?',
        ),
        (
            {**RULE, "until": {**UNTIL, "where": {"stepp": 1}}},
            'repeats.until.where.stepp = 1, is no column of the samples; did you mean "step"?',
        ),
        (
            {"min": 6, "until": UNTIL},
            "repeats.max, is missing (Most repeats); add it",
        ),
        (
            {**RULE, "budget": 3},
            "repeats.budget = 3, is an unknown key, allowed: min, max, until, step, max_node_hours; remove it",
        ),
        ("many", 'repeats = "many", must be a whole number; write digits only, without quotes'),
        (0, "repeats = 0, is too small, allowed: 1 and above; raise it"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_repeats_is_told_with_place_value_and_what_to_do(repeats: Any, words: str) -> None:
    assert problems(repeats=repeats) == [words]


@pytest.mark.parametrize(
    "more, words",
    [
        (
            {"compare": {**COMPARE, "a": {"params": {"rosw": 3}}}},
            "compare.a.params.rosw = 3, is no parameter of mpi.halo, allowed: ",
        ),
        (
            {"compare": {**COMPARE, "a": {"params": {"rows": "x"}}}},
            'compare.a.params.rows = "x", ',
        ),
        (
            {"compare": COMPARE, "axes": [{"rows": [1, 2]}]},
            "compare.a.params.rows, is an axis in axes[0] too; remove one of the two",
        ),
        (
            {"compare": COMPARE, "scaling": {"mode": "weak", "nodes": [1, 2], "grow": "rows"}, "nodes": None},
            "compare.a.params.rows, is what scaling.grow multiplies, so it cannot be compared; compare another or "
            "remove grow",
        ),
        (
            {"compare": {"metric": "step_time_ns", "b": {"environment": {"RANK": "1"}}}},
            'compare.b.environment.RANK = "1", is set by the harness itself; remove it',
        ),
        (
            {"environment": {"1X": "1"}},
            "environment['1X'] = \"1\", is no name of a variable, allowed: letters, digits and _; rename it",
        ),
        (
            {"compare": {**COMPARE, "smallest": 3}},
            "compare.smallest = 3, must be a percentage above 0 % and below 100 %; write it as 2%",
        ),
        (
            {"compare": COMPARE, "time_limit_min": 30},
            'time_limit_min = 30, but site "tiny" allows jobs of at most 60 minutes, 2 of which the harness needs '
            "itself, and the two cases of a pair share a job; lower it or choose another site",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_comparison_is_told(more: dict[str, Any], words: str) -> None:
    found = problems(**{"repeats": 6, **more})
    assert [text for text in found if text.startswith(words)], found


def test_a_comparison_and_faults_exclude_each_other() -> None:
    with pytest.raises(ConfigError) as error:
        campaign("c", seed=1, groups=[{**FAULTED, "compare": {"metric": "step_time_ns"}}])
    assert "compare, means nothing with faults: each faulted case has a job of its own" in str(error.value)


def test_one_case_a_job_leaves_no_room_for_a_pair() -> None:
    with pytest.raises(
        ValidationError, match="leaves no room for a pair of settings that are compared; raise it"
    ):
        Campaign.model_validate(
            {
                "schema": 1, "name": "c", "seed": 1, "packing": {"max_cases": 1},
                "groups": (halo(compare={"metric": "step_time_ns"}),),
            }
        )  # fmt: skip


def test_variables_that_come_too_late_for_forked_ranks_are_refused() -> None:
    def said(**variables: str) -> list[str]:
        found = campaign(
            "c", seed=1, groups=[group("g", "torch.train", nodes=1, steps=9, environment=variables)]
        ) if not variables.get("bad") else None  # fmt: skip
        return [p.text for p in config.check(found, site())] if found is not None else []

    with pytest.raises(ConfigError, match=r"environment.LD_PRELOAD = \"x\", is read when a process starts"):
        said(LD_PRELOAD="x")
    with pytest.raises(
        ConfigError, match="is how many threads a rank of torch computes with, allowed: 1 to 4096"
    ):
        said(OMP_NUM_THREADS="many")
    assert said(OMP_NUM_THREADS="2", NCCL_ALGO="Ring") == []


def test_a_campaign_with_both_is_the_same_after_it_was_written_and_read() -> None:
    built = campaign("c", seed=4, groups=[halo(repeats=RULE, compare=COMPARE, environment={"X": "1"})])
    assert config.parse_campaign(to_yaml(built)) == built


def test_a_rule_can_be_replaced_by_a_number_on_the_command_line() -> None:
    from harness import document

    text = to_yaml(campaign("c", seed=4, groups=[halo(repeats=RULE)]))
    changed = apply(document.from_text(text, "c.yaml"), ["groups.g.repeats=3"])
    assert changed.data["groups"][0]["repeats"] == 3
    changed = apply(document.from_text(text, "c.yaml"), ["groups.g.repeats.max=30"])
    assert changed.data["groups"][0]["repeats"]["max"] == 30


def test_the_schema_for_editors_offers_a_number_or_a_rule() -> None:
    found = config.campaign_json_schema()["$defs"]["Group"]["properties"]["repeats"]
    assert found["oneOf"] == [
        {"maximum": 1000, "minimum": 1, "type": "integer"},
        {"$ref": "#/$defs/Repeats"},
    ]
