"""From a campaign and a site to cases, jobs and submissions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import config
from harness.cost import Summary, summary
from harness.model.campaign import Campaign
from harness.model.case import Fault, Gate, Plan
from harness.model.site import Site
from harness.plan import PlanError, expand
from harness.resources import configs_dir
from harness.rules import JOB_MARGIN_MIN

SITES = configs_dir() / "sites"


def site(**changes: Any) -> Site:
    base: dict[str, Any] = {
        "schema": 1,
        "name": "tiny",
        "kind": "staging",
        "launcher": "slurm",
        "limits": {"max_nodes": 8, "max_time_min": 60},
        "node": {"cpus": 4, "exclusive": True},
        "mpi": {"plugin": "pmix"},
        "power": {"command": ("bmc", "{action}", "{node}")},
        "requeue": True,
        "accounting": True,
    }
    return Site.model_validate({k: v for k, v in {**base, **changes}.items() if v is not None})


def campaign(*groups: dict[str, Any], seed: int = 100) -> Campaign:
    named = tuple({"name": f"g{i}", **g} for i, g in enumerate(groups))
    found = Campaign.model_validate({"schema": 1, "name": "c", "seed": seed, "groups": named})
    assert [p for p in config.check(found, site()) if not p.warning] == []
    return found


FAULT = {
    "kind": "node.power_off",
    "instead": "node.kill_processes",
    "target": {"node": 1},
    "at": {"step": 10},
    "expect": "recovered",
}
TRAIN = {"workload": "torch.train", "nodes": 2, "checkpoint": {"every_steps": 5}, "steps": 20}
FAULTED = {**TRAIN, "recovery": {"policy": "requeue"}, "faults": (FAULT,)}


# ---- cases ----


def test_a_case_holds_everything_that_was_left_out() -> None:
    group = {
        "workload": "mpi.halo",
        "nodes": 3,
        "ranks_per_node": 2,
        "repeats": 2,
        "params": {"rows": 96},
        "gates": ({"metric": "residual", "statistic": "max", "max": 1, "where": {"step": 9}},),
    }
    _, second = expand(campaign(group), site()).cases
    assert second.to_json() == {
        "case_id": second.case_id,
        "group": "g0",
        "workload": "mpi.halo",
        "nodes": 3,
        "ranks_per_node": 2,
        "repeat": 1,
        "seed": 101,
        "steps": 60,
        "warmup_steps": 5,
        "params": {"rows": 96, "columns": 512},
        "scaling_mode": "none",
        "scaling_base": 0,
        "checkpoint_every": 0,
        "checkpoint_keep": 2,
        "checkpoint_engine": "own",
        "memory_every": 0,
        "digest_every": 0,
        "faults": (),
        "recovery": "none",
        "max_restarts": 0,
        "spares": 0,
        "shrink": False,
        "detection": {"lease_s": 5.0, "frozen_s": 0.9, "step_s": 10.0, "checkpoint_s": 60.0, "start_s": 120.0},
        "gates": (
            {
                "metric": "residual",
                "statistic": "max",
                "minimum": None,
                "maximum": 1,
                "where": {"step": 9},
                "baseline": "",
                "history": "",
                "smallest": "",
                "despite": (),
            },
        ),
        "twin": "",
        "is_twin": False,
        "deterministic": True,
        "time_limit_min": 5,
        "axes": {},
        "partition": "",
        "command": None,
        "environment": {},
    }  # fmt: skip
    assert second.gates == (Gate("residual", "max", None, 1, {"step": 9}),)
    assert second.label == "g0/n3/r1"


def test_a_whole_number_for_a_parameter_with_a_fraction_becomes_one() -> None:
    (case,) = expand(campaign({**TRAIN, "params": {"learning_rate": 1}}), site()).cases
    assert (case.params["learning_rate"], type(case.params["learning_rate"])) == (1.0, float)


def test_strong_scaling_keeps_the_work() -> None:
    group = {"workload": "mpi.halo", "params": {"rows": 96}, "scaling": {"mode": "strong", "nodes": (4, 1)}}
    cases = expand(campaign(group), site()).cases
    assert [(c.nodes, c.params["rows"], c.scaling_mode, c.scaling_base) for c in cases] == [
        (4, 96, "strong", 1),
        (1, 96, "strong", 1),
    ]


def test_weak_scaling_grows_one_parameter_with_the_nodes() -> None:
    scaling = {"mode": "weak", "nodes": (1, 2, 8), "base": 2, "grow": "rows"}
    cases = expand(
        campaign({"workload": "mpi.halo", "params": {"rows": 96}, "scaling": scaling}), site()
    ).cases
    assert [(c.nodes, dict(c.params), c.scaling_base) for c in cases] == [
        (1, {"rows": 48, "columns": 512}, 2),
        (2, {"rows": 96, "columns": 512}, 2),
        (8, {"rows": 384, "columns": 512}, 2),
    ]


@given(
    rows=st.integers(1, 10_000),
    base=st.integers(1, 8),
    nodes=st.lists(st.integers(1, 8), min_size=1, max_size=4, unique=True),
)
@settings(deadline=None)
def test_weak_scaling_is_exact_or_refused(rows: int, base: int, nodes: list[int]) -> None:
    scaling = {"mode": "weak", "nodes": tuple(nodes), "base": base, "grow": "rows"}
    group = {"name": "g", "workload": "mpi.halo", "params": {"rows": rows}, "scaling": scaling}
    found = Campaign.model_validate({"schema": 1, "name": "c", "seed": 1, "groups": (group,)})
    exact = all(rows * n % base == 0 for n in nodes)
    assert (config.check(found, site()) == []) is exact
    if not exact:
        with pytest.raises(PlanError, match="is not whole"):
            expand(found, site())
        return
    for case in expand(found, site()).cases:
        assert case.params["rows"] * base == rows * case.nodes  # type: ignore[operator]


def test_a_repeat_has_the_seed_of_its_group_plus_its_number() -> None:
    groups = ({**TRAIN, "repeats": 3}, {**TRAIN, "repeats": 2, "seed": 7})
    assert [(c.group, c.repeat, c.seed) for c in expand(campaign(*groups), site()).cases] == [
        ("g0", 0, 100),
        ("g0", 1, 101),
        ("g0", 2, 102),
        ("g1", 0, 7),
        ("g1", 1, 8),
    ]


# ---- identity ----


def ids(found: Plan) -> list[str]:
    return [c.case_id for c in found.cases]


def test_the_id_of_a_case_does_not_change_between_versions() -> None:
    assert ids(expand(campaign(FAULTED), site())) == ["37b93131d3a4", "4696f0afe15b"]


@pytest.mark.parametrize(
    "change",
    [
        {"gates": ({"metric": "loss", "statistic": "min", "max": 3},)},
        {"time_limit_min": 7},
        {"warmup_steps": 2},
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_id(change: dict[str, Any]) -> None:
    assert ids(expand(campaign({**TRAIN, **change}), site())) == ids(expand(campaign(TRAIN), site()))


@pytest.mark.parametrize(
    "change",
    [
        {"workload": "mpi.halo"},
        {"params": {"width": 32}},
        {"steps": 21},
        {"nodes": 3},
        {"ranks_per_node": 2},
        {"seed": 3},
        {"checkpoint": {"every_steps": 6}},
        {"recovery": {"policy": "requeue"}},
        {"name": "other"},
    ],
)
def test_what_changes_the_result_changes_the_id(change: dict[str, Any]) -> None:
    assert set(ids(expand(campaign({**TRAIN, **change}), site()))).isdisjoint(
        ids(expand(campaign(TRAIN), site()))
    )


def test_the_id_depends_on_no_site_even_where_the_fault_does() -> None:
    here, there = (
        expand(campaign(FAULTED), s) for s in (site(), site(name="b", kind="production", power=None))
    )
    assert ids(here) == ids(there)
    assert (here.cases[0].faults, there.cases[0].faults) == (
        (Fault(f"{ids(here)[0]}-f0", "node.power_off", "node.power_off", "recovered", node=1, at_step=10),),
        (
            Fault(
                f"{ids(here)[0]}-f0", "node.kill_processes", "node.power_off", "recovered", node=1, at_step=10
            ),
        ),
    )


# ---- twins ----


def test_a_faulted_case_gets_an_undisturbed_twin() -> None:
    faulted, twin = expand(campaign(FAULTED), site()).cases
    assert faulted.twin == twin.case_id
    assert (faulted.label, twin.label) == ("g0/n2/r0/fault", "g0/n2/r0/twin")
    same = (
        "workload",
        "nodes",
        "ranks_per_node",
        "seed",
        "steps",
        "warmup_steps",
        "params",
        "checkpoint_every",
    )
    assert [getattr(faulted, n) for n in same] == [getattr(twin, n) for n in same]
    assert (twin.faults, twin.recovery, twin.max_restarts, twin.gates, twin.twin, twin.is_twin) == (
        (), "none", 0, (), "", True,
    )  # fmt: skip


def test_each_repeat_has_its_own_twin() -> None:
    cases = expand(campaign({**FAULTED, "repeats": 2}), site()).cases
    assert [(c.seed, c.is_twin, c.twin) for c in cases] == [
        (100, False, cases[1].case_id),
        (100, True, ""),
        (101, False, cases[3].case_id),
        (101, True, ""),
    ]


def test_an_identical_undisturbed_case_is_the_twin() -> None:
    cases = expand(campaign(FAULTED, TRAIN), site()).cases
    assert [(c.group, c.is_twin) for c in cases] == [("g0", False), ("g1", False)]
    assert cases[0].twin == cases[1].case_id


def test_two_faulted_groups_share_a_twin() -> None:
    kill = {**FAULT, "kind": "node.kill_processes", "instead": None}
    cases = expand(campaign(FAULTED, {**FAULTED, "faults": (kill,)}), site()).cases
    assert [(c.group, c.is_twin, c.twin) for c in cases] == [
        ("g0", False, cases[1].case_id),
        ("g0", True, ""),
        ("g1", False, cases[1].case_id),
    ]


@pytest.mark.parametrize(
    "change",
    [{"twin": False}, {"faults": ({**FAULT, "expect": "failed", "because": "was lost"},)}],
    ids=["declined", "failed"],
)
def test_no_twin_where_none_is_wanted(change: dict[str, Any]) -> None:
    (case,) = expand(campaign({**FAULTED, **change}), site()).cases
    assert case.twin == ""


# ---- jobs ----


def shapes(found: Plan) -> list[tuple[str, str, list[tuple[str, int, int, bool, list[str]]]]]:
    return [
        (
            s.name,
            s.template,
            [
                (j.key, j.nodes, j.time_limit_min, j.requeue, [found.case(c).label for c in j.case_ids])
                for j in s.jobs
            ],
        )
        for s in found.submissions
    ]


def test_cases_of_one_shape_share_a_job_and_faulted_ones_do_not() -> None:
    allreduce = {
        "workload": "torch.collectives",
        "scaling": {"mode": "strong", "nodes": (1, 2)},
        "repeats": 2,
        "time_limit_min": 3,
    }
    halo = {"workload": "mpi.halo", "nodes": 2, "time_limit_min": 3}
    assert shapes(expand(campaign(allreduce, halo, {**FAULTED, "repeats": 2}), site())) == [
        (
            "0000",
            "torch.sh.j2",
            [("0000", 2, 18, False, ["g0/n2/r0", "g0/n2/r1", "g2/n2/r0/twin", "g2/n2/r1/twin"])],
        ),
        ("0001", "mpi.sh.j2", [("0001", 2, 5, False, ["g1/n2/r0"])]),
        ("0002", "torch.sh.j2", [("0002", 1, 8, False, ["g0/n1/r0", "g0/n1/r1"])]),
        (
            "0003",
            "torch.sh.j2",
            [("0003_0", 2, 7, True, ["g2/n2/r0/fault"]), ("0003_1", 2, 7, True, ["g2/n2/r1/fault"])],
        ),
    ]


def test_a_job_ends_where_the_site_s_time_limit_does() -> None:
    group = {"workload": "mpi.halo", "nodes": 1, "repeats": 5, "time_limit_min": 14}
    found = expand(campaign(group), site(limits={"max_nodes": 8, "max_time_min": 30}))
    assert shapes(found) == [
        (
            "0000",
            "mpi.sh.j2",
            [
                ("0000_0", 1, 30, False, ["g0/n1/r0", "g0/n1/r1"]),
                ("0000_1", 1, 30, False, ["g0/n1/r2", "g0/n1/r3"]),
            ],
        ),
        ("0001", "mpi.sh.j2", [("0001", 1, 16, False, ["g0/n1/r4"])]),
    ]


def test_an_array_is_no_larger_than_the_site_allows() -> None:
    found = expand(
        campaign({**FAULTED, "repeats": 5, "twin": False}),
        site(limits={"max_nodes": 8, "max_time_min": 30, "max_array_size": 2}),
    )
    assert [[j.key for j in s.jobs] for s in found.submissions] == [
        ["0000_0", "0000_1"],
        ["0001_0", "0001_1"],
        ["0002"],
    ]


def test_numbers_of_a_plan_are_an_upper_bound() -> None:
    group = {**FAULTED, "recovery": {"policy": "requeue", "max_restarts": 2}, "time_limit_min": 28}
    halo = {"workload": "mpi.halo", "nodes": 4, "time_limit_min": 13}
    # At most 2 nodes x 30 min x 3 starts, its twin 2 x 30, and 4 x 15; expected one start more than the first.
    assert summary(expand(campaign(group, halo), site())) == Summary(
        cases=3,
        twins=1,
        jobs=3,
        submissions=3,
        largest_array=1,
        largest_job_nodes=4,
        longest_job_min=30,
        node_hours_expected=4.0,
        node_hours_max=5.0,
    )


GROUPS = st.lists(
    st.fixed_dictionaries(
        {
            "shape": st.sampled_from(
                [TRAIN, FAULTED, {"workload": "mpi.halo"}, {"workload": "torch.collectives"}]
            ),
            "nodes": st.lists(st.integers(2, 8), min_size=1, max_size=3, unique=True),
            "ranks_per_node": st.integers(1, 3),
            "repeats": st.integers(1, 6),
            "time_limit_min": st.integers(1, 40),
        }
    ),
    min_size=1,
    max_size=5,
)


@given(groups=GROUPS, max_time=st.integers(42, 90), max_array=st.integers(2, 5))
@settings(max_examples=150, deadline=None)
def test_every_plan_runs_every_case_once_within_the_limits(
    groups: list[dict[str, Any]], max_time: int, max_array: int
) -> None:
    written = []
    for g in groups:
        plain = {k: v for k, v in g["shape"].items() if k != "nodes"}
        scaling = {"mode": "strong", "nodes": tuple(g["nodes"])}
        rest = {k: g[k] for k in ("ranks_per_node", "repeats", "time_limit_min")}
        written.append({**plain, **rest, "scaling": scaling})
    limits = {"max_nodes": 8, "max_time_min": max_time, "max_array_size": max_array}
    found = expand(campaign(*written), site(limits=limits))

    jobs = [j for s in found.submissions for j in s.jobs]
    assert sorted(c for j in jobs for c in j.case_ids) == sorted(set(ids(found)))
    assert len({j.key for j in jobs}) == len(jobs)
    for submission in found.submissions:
        assert 1 <= len(submission.jobs) <= max_array
        assert len({(j.nodes, j.ranks_per_node, j.time_limit_min, j.requeue) for j in submission.jobs}) == 1
        for index, job in enumerate(submission.jobs):
            assert job.key == (f"{submission.name}_{index}" if submission.is_array else submission.name)
            cases = [found.case(c) for c in job.case_ids]
            assert {(c.nodes, c.ranks_per_node) for c in cases} == {(job.nodes, job.ranks_per_node)}
            assert job.time_limit_min == sum(c.time_limit_min for c in cases) + JOB_MARGIN_MIN <= max_time
            assert len(cases) == 1 or not any(c.faults for c in cases)
            assert {c.recovery == "requeue" for c in cases} == {job.requeue}
    for case in found.cases:
        if case.twin:
            twin = found.case(case.twin)
            assert (twin.faults, twin.seed, twin.params) == ((), case.seed, case.params)
    assert expand(campaign(*written), site(limits=limits)) == found
    assert Plan.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_check_refuses_cannot_be_planned() -> None:
    bad = FAULTED | {"faults": ({**FAULT, "instead": None},)}
    for group, where, why in (
        (bad, site(power=None, kind="production"), r'g0: node.power_off: site "tiny" has no power command'),
        ({**TRAIN, "nodes": 8}, site(limits={"max_nodes": 4, "max_time_min": 60}), "8 nodes, but site tiny allows 4"),
        (TRAIN, site(limits={"max_nodes": 4, "max_time_min": 6}), "7 minutes, but site tiny allows 6"),
        (FAULTED, site(requeue=False), "does not start jobs again"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=why):
            expand(campaign(group), where)


def test_five_hundred_cases_are_planned_in_under_a_second(tmp_path: Path) -> None:
    import time

    found = campaign(*({"workload": "mpi.halo", "nodes": 1 + n % 8, "repeats": 10} for n in range(50)))
    start = time.perf_counter()
    assert len(expand(found, site()).cases) == 500
    assert time.perf_counter() - start < 1
