"""A case again: what chance and the clock chose is put to steps, in the order in which it struck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cli, config
from harness.model import event as ev
from harness.model.case import Case, Plan
from harness.packing import PlanError
from harness.plan import expand
from harness.prepare import site_for_jobs
from harness.replay import Replay, ReplayError, campaign_of, find_case, of_case, plan_of, site_of
from harness.resources import configs_dir
from harness.rundir import RunDir, append_line, write_atomic, write_json
from tests.unit.test_plan import site

CAMPAIGN = """\
schema: 1
name: week
seed: 3
groups:
  - {name: warm, workload: mpi.halo, nodes: 1, role: pre-check}
  - name: g
    workload: torch.train
    nodes: 2
    steps: 40
    checkpoint: {every_steps: 5}
    recovery: {policy: new-step, max_restarts: 9}
    repeats: 2
    faults: FAULTS
"""
CLOCK = """
      - {kind: rank.kill, target: {random: rank}, at: {mtbf_s: 9}, count: 3, expect: recovered}
      - {kind: node.kill_processes, target: {node: 1}, at: {after_s: 4}, expect: recovered}
      - {kind: rank.kill, target: {rank: 0}, at: {event: checkpoint.begin, time: 2}, expect: recovered}
"""
STEPS = "[{kind: rank.kill, target: {random: rank}, at: {steps: [3, 30]}, count: 2, expect: recovered}]"


def made(folder: Path, faults: str = CLOCK) -> tuple[RunDir, Plan, Case]:
    """A run folder of which all is planned; and the second repeat of its case."""
    where, text = site(power=None, kind="production"), CAMPAIGN.replace("FAULTS", faults)
    plan = expand(config.parse_campaign(text), where)
    run = RunDir(folder / "run")
    run.path.mkdir()
    write_atomic(run.campaign_text, text.encode())
    write_json(run.plan, plan.to_json())
    write_json(run.site, site_for_jobs(where, "python3"))
    return run, run.read_plan(), next(c for c in plan.cases if c.repeat == 1 and c.faults)


def tell(run: RunDir, plan: Plan, case: Case, number: int, attempt: int, step: int, kind: str = ev.FAULT_REQUESTED,
         **more: Any) -> None:  # fmt: skip
    key = next(j.key for s in plan.submissions for j in s.jobs if case.case_id in j.case_ids)
    fault = case.faults[number]
    data: dict[str, Any] = {"fault_id": fault.fault_id, "fault": fault.kind, "step": step, **more}
    data |= {"hit": {"kind": fault.kind, "nodes": ["n7"]}}
    run.job(key).mkdir(parents=True, exist_ok=True)
    line = {
        "kind": kind,
        "wall_ns": 10 * attempt + step,
        "case_id": case.case_id,
        "attempt": attempt,
        "rank": fault.rank,
    }
    append_line(run.events(key), {**line, "data": data})


def again(run: RunDir, plan: Plan, case: Case) -> Replay:
    return of_case(run, plan, case)


def test_triggers_by_the_clock_become_steps_in_the_same_order(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path)
    first, second, third, node, event = (f.fault_id for f in case.faults)
    tell(run, plan, case, 1, 0, 17)
    tell(run, plan, case, 0, 1, 12)  # later, and at an earlier step
    tell(run, plan, case, 3, 2, -1)
    tell(run, plan, case, 4, 2, 20)
    found = again(run, plan, case)
    assert [
        (f.fault_id, f.rank, f.node, f.at_step, f.at_s, f.at_event, f.after) for f in found.case.faults
    ] == [
        (first, case.faults[0].rank, -1, 12, -1.0, "", (second,)),
        (second, case.faults[1].rank, -1, 17, -1.0, "", ()),
        (node, -1, 1, 0, -1.0, "", (first,)),
        (event, 0, -1, -1, -1.0, "checkpoint.begin", (first,)),
    ]
    assert [(f.fault_id, why) for f, why in found.left_out] == [(third, "it never struck")]
    assert {f.may_miss for f in found.case.faults} == {False}
    one, two = case.faults[1].rank, case.faults[0].rank
    assert [s.words for s in found.strikes[:3]] == [
        f"rank.kill of rank {one} at step 17  (struck rank {one} on n7 at step 17, attempt 0)",
        f"rank.kill of rank {two} at step 12  (struck rank {two} on n7 at step 12, attempt 1)",
        "node.kill_processes of node 1 at step 0  (struck n7 at step -1, attempt 2)",
    ]  # fmt: skip


def test_the_case_keeps_seed_parameters_and_twin_and_has_another_id(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path)
    tell(run, plan, case, 0, 0, 9)
    found = again(run, plan, case)
    assert replace(found.case, case_id=case.case_id, faults=case.faults) == plan.case(case.case_id)
    assert found.case.case_id != case.case_id
    assert found.twin == plan.case(case.twin)
    assert again(run, plan, case) == found


def test_a_case_of_which_nothing_differs_keeps_its_id(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path, STEPS)
    tell(run, plan, case, 1, 0, case.faults[1].at_step)
    left_out = again(run, plan, case)
    assert left_out.case.faults == (case.faults[1],)
    assert left_out.case.case_id != case.case_id
    tell(run, plan, case, 0, 1, case.faults[0].at_step)
    assert again(run, plan, case).case == plan.case(case.case_id)


def test_what_was_refused_is_left_out_with_the_reason(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path)
    tell(run, plan, case, 3, 0, 5)
    tell(run, plan, case, 3, 0, 5, ev.FAULT_REFUSED, why="no such node")
    with pytest.raises(ReplayError, match=r"struck: no such node; nothing to replay"):
        again(run, plan, case)
    tell(run, plan, case, 0, 0, 6)
    why: Mapping[str, str] = {f.fault_id: why for f, why in again(run, plan, case).left_out}
    assert why[case.faults[3].fault_id] == "refused: no such node"


def test_what_cannot_be_replayed_says_why(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path)
    with pytest.raises(ReplayError, match="the run is not that far, or ended before; nothing to replay"):
        again(run, plan, case)
    with pytest.raises(
        ReplayError, match="declares no fault, so there is nothing to replay; choose one whose label"
    ):
        again(run, plan, plan.case(case.twin))


def test_a_case_is_found_by_id_label_or_the_beginning_of_its_id(tmp_path: Path) -> None:
    _, plan, case = made(tmp_path)
    for given in (case.case_id, case.label, case.case_id[:8]):
        assert find_case(plan, given) == plan.case(case.case_id)
    with pytest.raises(ReplayError, match="no case 'zzz'; `harness status RUN` lists them"):
        find_case(plan, "zzz")
    with pytest.raises(ReplayError, match="no case ''"):
        find_case(plan, "")
    alike = Plan(tuple(replace(c, case_id=f"ab{n}") for n, c in enumerate(plan.cases)), ())
    with pytest.raises(
        ReplayError, match=r"several cases are called 'ab': ab0 \(warm/n1/r0\), ab1 .*; give more of the id"
    ):
        find_case(alike, "ab")


def test_the_plan_is_of_the_case_and_its_twin_alone_and_waits_for_no_other_group(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path)
    tell(run, plan, case, 0, 0, 9)
    found = again(run, plan, case)
    campaign, text = campaign_of(run, found)
    planned = plan_of(found, campaign, site(power=None, kind="production"))
    assert [c.case_id for c in planned.cases] == [found.case.case_id, case.twin]
    assert sorted(i for s in planned.submissions for j in s.jobs for i in j.case_ids) == sorted(
        [found.case.case_id, case.twin]
    )
    assert [(s.after, s.needs) for s in planned.submissions] == [((), ())] * len(planned.submissions)
    assert (campaign.name, [g.name for g in campaign.groups]) == ("week-replay", ["g"])
    assert campaign.description == f"replay of case {case.case_id} (g/n2/r1/fault) as {found.case.case_id}"
    assert text.startswith("# Written by `harness replay`: ")
    assert config.parse_campaign(text) == campaign


def test_a_replay_of_a_replay_is_called_the_same(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path)
    tell(run, plan, case, 0, 0, 9)
    found = again(run, plan, case)
    _, text = campaign_of(run, found)
    write_atomic(run.campaign_text, text.encode())
    assert campaign_of(run, found)[0].name == "week-replay"


def test_another_site_must_allow_the_faults_and_hold_the_case(tmp_path: Path) -> None:
    run, plan, case = made(tmp_path)
    tell(run, plan, case, 0, 0, 9)
    found = again(run, plan, case)
    campaign, _ = campaign_of(run, found)
    off = replace(found, case=replace(found.case, faults=(replace(case.faults[0], kind="node.power_off"),)))
    with pytest.raises(
        ReplayError, match=r'node.power_off: site "tiny" has no power command .* choose another --site'
    ):
        plan_of(off, campaign, site(power=None, kind="production"))
    elsewhere = replace(found, case=replace(found.case, partition="fat"))
    with pytest.raises(ReplayError, match="site \"tiny\" has no partition 'fat'; choose another --site"):
        plan_of(elsewhere, campaign, site())
    with pytest.raises(PlanError, match="2 nodes, but site tiny allows 1"):
        plan_of(found, campaign, site(limits={"max_nodes": 1, "max_time_min": 60}))


def test_the_site_is_the_runs_own(tmp_path: Path) -> None:
    run, *_ = made(tmp_path)
    text = (configs_dir() / "sites" / "local.yaml").read_text()
    write_atomic(run.site_text, text.encode())
    write_json(run.site, {**site_for_jobs(config.parse_site(text), "python3"), "templates": "/own/templates"})
    found, same = site_of(run)
    assert (found.name, str(found.templates), same) == ("local", "/own/templates", text)


def test_the_verb_says_what_it_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, plan, case = made(tmp_path, STEPS)
    tell(run, plan, case, 1, 0, case.faults[1].at_step)
    arguments = ["replay", str(run.path), "--case", case.label, "--site", "local", "--dry-run"]
    assert cli.main(arguments) == 0
    struck, left = case.faults[1], case.faults[0]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"replay of {case.case_id}  {case.label}, torch.train, seed 4, of {run.path}"
    assert out[1].startswith(f"  rank.kill of rank {struck.rank} at step {struck.at_step}  (struck ")
    assert out[2] == f"  left out: rank.kill of rank {left.rank} at step {left.at_step}: it never struck"
    assert out[3].endswith(": its triggers or its faults differ, so its id does")
    assert out[4] == f"  compared with its twin {case.twin}"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_case_that_is_not_there_is_told_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, *_ = made(tmp_path)
    assert cli.main(["replay", str(run.path), "--case", "no"]) == 2
    assert capsys.readouterr().err == f"{run.path}: no case 'no'; `harness status RUN` lists them\n"
