"""How cases share jobs, and jobs an sbatch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness import config
from harness.model.campaign import Campaign
from harness.model.case import Plan
from harness.model.site import Site
from harness.plan import PlanError, expand
from harness.resources import configs_dir
from harness.rules import JOB_MARGIN_MIN


def site(limits: dict[str, Any] | None = None, **more: Any) -> Site:
    base: dict[str, Any] = {
        "schema": 1,
        "name": "tiny",
        "kind": "production",
        "launcher": "slurm",
        "limits": {"max_nodes": 8, "max_time_min": 60, **(limits or {})},
        "node": {"cpus": 4, "exclusive": True},
        "mpi": {"plugin": "pmix"},
        "requeue": True,
        "accounting": True,
    }
    return Site.model_validate({**base, **more})


def campaign(*groups: dict[str, Any], **more: Any) -> Campaign:
    named = tuple(
        {"name": f"g{i}", "workload": "mpi.halo", "time_limit_min": 2, **g} for i, g in enumerate(groups)
    )
    found = Campaign.model_validate({"schema": 1, "name": "c", "seed": 1, "groups": named, **more})
    assert [p for p in config.check(found, site()) if not p.warning] == []
    return found


def jobs(plan: Plan) -> list[tuple[int, list[str]]]:
    """Nodes and cases of each job, in the order of submission."""
    return [
        (job.nodes, [plan.case(c).label for c in job.case_ids]) for s in plan.submissions for job in s.jobs
    ]


ROWS: dict[str, Any] = {"nodes": 1, "repeats": 2, "axes": ({"rows": (8, 16)},)}
FAULTED: dict[str, Any] = {
    "workload": "torch.train",
    "nodes": 2,
    "faults": (
        {
            "kind": "node.kill_processes",
            "target": {"node": 0},
            "at": {"step": 9},
            "expect": "failed",
            "because": "was lost",
        },
    ),
}
SIZES: dict[str, Any] = {"axes": ({"nodes": (1, 4, 2)},), "repeats": 2}


def test_interleaved_runs_one_repeat_of_each_case_before_the_next_of_any() -> None:
    assert jobs(expand(campaign(ROWS, packing={"mode": "interleaved"}), site())) == [
        (1, ["g0/n1/rows=8/r0", "g0/n1/rows=16/r0", "g0/n1/rows=8/r1", "g0/n1/rows=16/r1"])
    ]
    assert jobs(expand(campaign(ROWS), site())) == [
        (1, ["g0/n1/rows=8/r0", "g0/n1/rows=8/r1", "g0/n1/rows=16/r0", "g0/n1/rows=16/r1"])
    ]


def test_a_job_holds_no_more_cases_than_it_may() -> None:
    plan = expand(campaign(ROWS, packing={"max_cases": 3, "mode": "interleaved"}), site())
    assert jobs(plan) == [
        (1, ["g0/n1/rows=8/r0", "g0/n1/rows=16/r0", "g0/n1/rows=8/r1"]),
        (1, ["g0/n1/rows=16/r1"]),
    ]
    assert [s.jobs[0].time_limit_min for s in plan.submissions] == [8, 4]


def test_cases_of_fewer_nodes_share_the_allocation_of_larger_ones_and_faulted_ones_do_not() -> None:
    found = campaign(SIZES, FAULTED, packing={"share_nodes": True, "mode": "interleaved"})
    assert jobs(expand(found, site())) == [
        (4, ["g0/n4/r0", "g0/n2/r0", "g0/n1/r0", "g0/n4/r1", "g0/n2/r1", "g0/n1/r1"]),
        (2, ["g1/n2/r0/fault"]),
    ]


def test_a_shared_job_whose_cases_are_all_small_is_small() -> None:
    plan = expand(campaign(SIZES, packing={"share_nodes": True, "max_cases": 2}), site())
    assert jobs(plan) == [
        (4, ["g0/n4/r0", "g0/n4/r1"]),
        (2, ["g0/n2/r0", "g0/n2/r1"]),
        (1, ["g0/n1/r0", "g0/n1/r1"]),
    ]


def test_cases_of_other_ranks_partitions_and_kinds_share_no_allocation() -> None:
    other = site(partitions={"fat": {"partition": "fat"}})
    torch = {"workload": "torch.collectives", "nodes": 1}
    found = campaign(
        {"nodes": 2},
        {"nodes": 1, "ranks_per_node": 2},
        torch,
        packing={"share_nodes": True},
    )
    fat = found.model_copy(
        update={
            "groups": (*found.groups, found.groups[0].model_copy(update={"name": "f", "partition": "fat"}))
        }
    )
    plan = expand(fat, other)
    assert jobs(plan) == [(2, ["g0/n2/r0"]), (2, ["f/n2/r0"]), (1, ["g1/n1/r0"]), (1, ["g2/n1/r0"])]
    assert [s.partition for s in plan.submissions] == ["", "fat", "", ""]


def test_a_partition_has_limits_of_its_own() -> None:
    small = site(partitions={"small": {"limits": {"max_nodes": 1, "max_time_min": 10}}})
    found = campaign({"nodes": 1, "repeats": 6}, {"nodes": 2})
    inside = found.model_copy(
        update={"groups": tuple(g.model_copy(update={"partition": "small"}) for g in found.groups[:1])}
    )
    assert [j.time_limit_min for s in expand(inside, small).submissions for j in s.jobs] == [10, 6]
    too_large = found.model_copy(
        update={"groups": tuple(g.model_copy(update={"partition": "small"}) for g in found.groups)}
    )
    with pytest.raises(PlanError, match="2 nodes, but site tiny allows 1"):
        expand(too_large, small)


def test_five_hundred_jobs_of_one_shape_are_one_array() -> None:
    many = {"nodes": 1, "repeats": 5, "axes": ({"rows": tuple(range(1, 101))},)}
    (submission,) = expand(campaign(many, packing={"mode": "jobs"}), site()).submissions
    assert [job.key for job in submission.jobs] == [f"0000_{n}" for n in range(500)]
    assert {len(job.case_ids) for job in submission.jobs} == {1}


@pytest.mark.parametrize(
    ("ours", "theirs", "array", "sizes", "queue"),
    [
        (None, None, 3, [3, 3, 1], None),
        (4, None, 1000, [4, 3], 4),
        (None, 4, 1000, [4, 3], 4),
        (2, 4, 3, [2, 2, 2, 1], 2),
        (5, 1, 3, [1, 1, 1, 1, 1, 1, 1], 1),
    ],
)
def test_an_array_fits_into_the_queue(
    ours: int | None, theirs: int | None, array: int, sizes: list[int], queue: int | None
) -> None:
    limits = {"max_array_size": array, "max_jobs_in_queue": theirs}
    found = campaign(
        {"nodes": 1, "repeats": 7},
        packing={"mode": "jobs"},
        limits={"max_jobs_in_queue": ours} if ours else {},
    )
    plan = expand(found, site(limits))
    assert [len(s.jobs) for s in plan.submissions] == sizes
    assert plan.policy.max_jobs_in_queue == queue


def test_the_lesson_on_sweeps_is_few_jobs_in_an_order() -> None:
    campaigns, sites = configs_dir() / "campaigns", configs_dir() / "sites"
    found, _ = config.load_campaign("sweep", [campaigns])
    plan = expand(found, config.load_site("emulated", [sites])[0])
    assert [
        (len(s.jobs), s.jobs[0].nodes, len(s.jobs[0].case_ids), s.after, s.needs) for s in plan.submissions
    ] == [
        (1, 4, 1, (), ()),
        (1, 4, 12, (), ("can-talk",)),
        (1, 2, 2, ("grid",), ("can-talk",)),
        (1, 2, 2, ("grid",), ("can-talk",)),
        (1, 4, 1, ("can-talk", "grid", "messages"), ()),
    ]


def test_the_driver_is_told_what_to_try_again() -> None:
    plan = expand(campaign({"nodes": 1}, retry={"program": 1, "machine": 0}), site())
    assert plan.policy.retry == {
        "program": 1,
        "machine": 0,
        "memory": 0,
        "time_limit": 0,
        "preempted": 5,
        "cancelled": 0,
        "unknown": 1,
    }
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("more", [{"max_cases": 2}, {"share_nodes": True}])
def test_a_packing_that_means_nothing_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="means nothing with mode: jobs"):
        campaign(ROWS, packing={"mode": "jobs", **more})


GROUPS = st.lists(
    st.fixed_dictionaries(
        {
            "workload": st.sampled_from(["mpi.halo", "torch.collectives"]),
            "ranks_per_node": st.integers(1, 2),
            "repeats": st.integers(1, 5),
            "time_limit_min": st.integers(1, 40),
            "axes": st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True).map(
                lambda nodes: ({"nodes": tuple(nodes)},)
            ),
            "role": st.sampled_from(["measurement", "measurement", "pre-check", "post-check"]),
        }
    ),
    min_size=1,
    max_size=5,
)
PACKINGS = st.one_of(
    st.just({"mode": "jobs"}),
    st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["sequence", "interleaved"]),
            "share_nodes": st.booleans(),
            "max_cases": st.none() | st.integers(1, 5),
        }
    ),
)


@given(groups=GROUPS, packing=PACKINGS, array=st.integers(2, 5), queue=st.none() | st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_every_packing_runs_every_case_once_within_all_limits(
    groups: list[dict[str, Any]], packing: dict[str, Any], array: int, queue: int | None
) -> None:
    found = campaign(*groups, packing=packing)
    plan = expand(found, site({"max_array_size": array, "max_jobs_in_queue": queue}))
    all_jobs = [job for s in plan.submissions for job in s.jobs]
    assert sorted(c for job in all_jobs for c in job.case_ids) == sorted(c.case_id for c in plan.cases)
    assert len({job.key for job in all_jobs}) == len(all_jobs)
    waits = found.waits()
    for submission in plan.submissions:
        assert 1 <= len(submission.jobs) <= min(array, queue or array)
        assert len({(j.nodes, j.ranks_per_node, j.time_limit_min, j.requeue) for j in submission.jobs}) == 1
        for job in submission.jobs:
            cases = [plan.case(c) for c in job.case_ids]
            assert job.nodes == max(c.nodes for c in cases)
            assert {c.ranks_per_node for c in cases} == {job.ranks_per_node}
            assert job.time_limit_min == sum(c.time_limit_min for c in cases) + JOB_MARGIN_MIN <= 60
            assert len(cases) <= (1 if packing["mode"] == "jobs" else packing["max_cases"] or len(cases))
            assert packing.get("share_nodes") or {c.nodes for c in cases} == {job.nodes}
            if packing["mode"] == "interleaved":
                assert [c.repeat for c in cases] == sorted(c.repeat for c in cases)
            for case in cases:
                wait = waits[case.group]
                assert (submission.after, submission.needs) == (wait.after, wait.needs)
    sent: set[str] = set()  # groups of which everything was sent before this submission
    left = [c.group for c in plan.cases]
    for submission in plan.submissions:
        assert {*submission.after, *submission.needs} <= sent
        for job in submission.jobs:
            for case_id in job.case_ids:
                left.remove(plan.case(case_id).group)
        sent = {g.name for g in found.groups} - set(left)
