"""What is wrong with declared faults and recovery: every rule, in whole messages, as a person reads them."""

# ruff: noqa: E501 - a message is on one line, as it is told

from __future__ import annotations

from typing import Any

import pytest

from harness import config
from harness.config import ConfigError
from harness.fault_rules import group_findings
from harness.model.campaign import Group
from harness.model.fault import KINDS
from harness.workloads import REGISTRY
from tests.unit.test_plan import site

BASE = {
    "workload": "torch.train", "nodes": 2, "ranks_per_node": 2, "steps": 40, "checkpoint": {"every_steps": 5},
    "recovery": {"policy": "warm-restart"},
}  # fmt: skip
KILL = {"kind": "rank.kill", "target": {"rank": 1}, "at": {"step": 5}, "expect": "recovered"}
NODE = {**KILL, "kind": "node.kill_processes", "target": {"node": 1}}
PART = {**NODE, "kind": "node.partition", "for_s": 3.0}
PAUSE = {**KILL, "kind": "rank.pause", "for_s": 0.5, "expect": "unharmed"}
CONTROL = {**KILL, "kind": "control.position", "at": {"event": "restore.begin"}, "expect": "caught"}
CANCEL = {"kind": "job.cancel", "at": {"step": 5}, "expect": "failed", "because": "SIGTERM"}
COMMAND = {
    "workload": "command", "command": {"run": ("prog",), "success": {"output": ("ok",)}, "restartable": True},
    "steps": 40, "checkpoint": None, "recovery": {"policy": "requeue"},
}  # fmt: skip


def problems(*faults: dict[str, Any], on: Any = None, **more: Any) -> list[str]:
    group = {k: v for k, v in {"name": "g", **BASE, **more, "faults": faults}.items() if v is not None}
    try:
        campaign = config.build_campaign({"schema": 1, "name": "c", "seed": 1, "groups": (group,)}, "c")
    except ConfigError as error:
        return [str(p).removeprefix("c: groups[0].") for p in error.problems]
    return [str(p).removeprefix("campaign: groups[0].") for p in config.check(campaign, on)] if on else []


def test_what_is_right_is_accepted() -> None:
    right = [
        KILL,
        {**KILL, "at": {"steps": (0, 39)}, "count": 2},
        {**KILL, "kind": "rank.freeze", "expect": "failed", "because": "stopped"},
        PAUSE,
        CONTROL,
        {**KILL, "target": {"role": "checkpoint_writer"}, "at": {"event": "checkpoint.written", "time": 3}},
        {**NODE, "target": {"rank": 3}, "at": {"mtbf_s": 30.0}},
        {**NODE, "target": {"role": "batch_host"}, "at": {"event": "recovery.begin"}},
        {**PART, "instead": "node.kill_processes", "params": {"one_way": True}},
        {"kind": "checkpoint.flip_bit", "at": {"event": "checkpoint.committed"}, "params": {"which": "all", "seed": 4},
         "expect": "unharmed"},
        {"kind": "controller.away", "at": {"after_s": 3}, "for_s": 5.0, "params": {"mode": "kill"},
         "expect": "unharmed"},
        {"kind": "job.requeue", "at": {"step": 3}, "expect": "failed", "because": "SIGTERM"},
    ]  # fmt: skip
    assert problems(*right, recovery={"policy": "warm-restart", "max_restarts": 100}) == []


ONE_OF = "allowed: one of rank, node, nodes, role, random; choose one"
MOMENT = "allowed: one of step, steps, after_s, mtbf_s, event; choose one"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        # what
        ({"kind": "rank.kil"}, f'kind = "rank.kil", is no kind of fault, allowed: {", ".join(KINDS)}; did you mean "rank.kill"?'),
        ({"kind": "xyz"}, f'kind = "xyz", is no kind of fault, allowed: {", ".join(KINDS)}; `harness faults` explains each'),
        # at what
        ({"target": {}}, f"target, says nothing, {ONE_OF}"),
        ({"target": {"rank": 1, "node": 1}}, f"target, says rank and node, {ONE_OF}"),
        ({"target": {"node": 1}}, "target.node = 1, does not fit rank.kill, which hits one rank; change it"),
        ({"target": {"random": "node"}}, 'target.random = "node", does not fit rank.kill, which hits one rank; change it'),
        ({"target": {"role": "batch_host"}}, 'target.role = "batch_host", does not fit rank.kill, which hits one rank; change it'),
        ({**NODE, "target": {"nodes": (0, 1)}}, "target.nodes, does not fit node.kill_processes, which hits one node; change it"),
        ({**PART, "target": {"rank": 1}}, "target.rank = 1, does not fit node.partition, which hits nodes; change it"),
        ({**CANCEL, "target": {"rank": 1}}, "target, means nothing for job.cancel, which hits the job; remove it"),
        ({"target": {"rank": 4}}, "target.rank = 4, but the smallest case has 4 ranks, allowed: 0 to 3; lower it"),
        ({**NODE, "target": {"node": 2}}, "target.node = 2, but the smallest case has 2 nodes, allowed: 0 to 1; lower it"),
        ({**PART, "target": {"nodes": (0, 5)}}, "target.nodes = 5, but the smallest case has 2 nodes, allowed: 0 to 1; lower it"),
        # when
        ({"at": {}}, f"at, says nothing, {MOMENT}"),
        ({"at": {"step": 1, "after_s": 2}}, f"at, says step and after_s, {MOMENT}"),
        ({"at": {"step": 1, "time": 2}}, "at.time = 2, means nothing without event; remove it"),
        ({"at": {"steps": (9, 3)}}, "at.steps = [9, 3], begins behind its end; exchange the two"),
        ({"at": {"step": 40}}, "at.step = 40, but a case has 40 steps, the last of them 39; lower it"),
        ({"at": {"steps": (3, 40)}}, "at.steps = 40, but a case has 40 steps, the last of them 39; lower it"),
        ({"at": {"event": "recovery.begin"}}, 'at.event = "recovery.begin", is a moment when no rank is there; take another'),
        ({"at": {"after_s": 2}, "count": 2}, "count = 2, means nothing with after_s, at which all would strike at once; remove it or write mtbf_s"),
        ({**PAUSE, "count": 2}, "count = 2, but rank.pause leads to no restart, so its moment does not come again; write steps or mtbf_s"),
        ({**PAUSE, "kind": "storage.slow"}, "at, says no checkpoint, which is what it slows; write event: checkpoint.begin"),
        # for how long
        ({"for_s": 1.0}, "for_s = 1.0, means nothing for rank.kill, which is over at once; remove it"),
        ({**PART, "for_s": None}, "for_s, is missing: node.partition must end by itself; say after how many seconds"),
        ({**PAUSE, "for_s": 1.0}, "for_s = 1.0, is no decoy any more: detection.frozen_s = 0.9 would call it a fault; lower it or raise frozen_s"),
        ({**PAUSE, "kind": "rank.slow_step", "for_s": 11.0}, "for_s = 11.0, is no decoy any more: detection.step_s = 10 would call it a fault; lower it or raise step_s"),
        ({"kind": "rank.freeze", "for_s": 0.5}, "for_s = 0.5, is a pause that detection.frozen_s = 0.9 tolerates; raise it, or leave it out: then the rank stays frozen"),
        # what for
        ({"because": "x"}, 'because = "x", means nothing with expect: recovered; remove it'),
        ({"expect": "failed"}, 'expect = "failed", says nothing of why, so a case that ends for any other reason would pass; add because: with words that its reason must hold, such as because: "ended"'),
        ({**NODE, "expect": "failed"}, 'expect = "failed", says nothing of why, so a case that ends for any other reason would pass; add because: with words that its reason must hold, such as because: "was lost"'),
        ({**PAUSE, "expect": "failed"}, 'expect = "failed", must be unharmed for the decoy rank.pause; change it'),
        ({"expect": "unharmed"}, 'expect = "unharmed", cannot be unharmed: no job rides rank.kill out; write recovered or failed'),
        ({"expect": "caught"}, 'expect = "caught", caught is for negative controls (control.*), and they for it; change one of the two'),
        ({**CANCEL, "because": "", "expect": "recovered"}, 'expect = "recovered", but scancel ends the job for good; expect failed'),
        ({**CANCEL, "because": "", "kind": "job.requeue", "expect": "recovered"}, 'expect = "recovered", but Slurm takes the allocation away, so only a job that it starts again recovers; write recovery: {policy: requeue}, or expect failed'),
        # instead of what
        ({"instead": "rank.kill"}, 'instead = "rank.kill", is the same as kind; name another fault or remove it'),
        ({"instead": "rank.raise"}, 'instead = "rank.raise", is never used, since every site allows rank.kill; remove it'),
        ({**PART, "instead": "rank.kill"}, 'instead = "rank.kill", hits one rank, and target says node; take a kind that hits the same'),
        ({**PART, "target": {"nodes": (0, 1)}, "instead": "node.kill_processes"}, 'instead = "node.kill_processes", hits one node, and target says nodes; take a kind that hits the same'),
        ({**NODE, "kind": "node.power_off", "instead": "node.link_down"}, "for_s, is missing: node.link_down must end by itself; say after how many seconds"),
        # what else it is told
        ({"params": {"x": 1}}, "params.x = 1, is no parameter of rank.kill, allowed: none; remove it"),
        ({"kind": "rank.hang", "params": {"were": "step"}}, 'params.were = "step", is no parameter of rank.hang, allowed: where; did you mean "where"?'),
        ({"kind": "rank.hang", "params": {"where": "stp"}}, 'params.where = "stp", allowed: collective, step; did you mean "step"?'),
        ({"kind": "rank.out_of_memory", "params": {"mb": "1"}}, 'params.mb = "1", must be a whole number, like the default 256; change it'),
        ({"kind": "rank.out_of_memory", "params": {"mb": -1}}, "params.mb = -1, is negative, allowed: 0 and above (default 256); change it"),
    ],
)  # fmt: skip
def test_each_wrong_fault_is_told(fault: dict[str, Any], said: str) -> None:
    given = {k: v for k, v in {**KILL, **fault}.items() if v is not None}
    if (fault.get("kind", "").startswith("job.") and "target" not in fault) or fault is CANCEL:
        given.pop("target", None)
    found = problems(given)
    assert f"faults[0].{said}" in found
    assert len(found) == 1


def test_a_negative_control_strikes_at_a_restore_that_must_come() -> None:
    assert problems({**CONTROL, "at": {"step": 3}}, KILL) == [
        "faults[0].at, says no restore, at which negative controls strike; write event: restore.begin"
    ]
    assert problems(CONTROL) == [
        "faults[0], strikes when a rank has restored its state, and nothing here leads to a restart; add a fault "
        "with expect: recovered, such as rank.kill"
    ]
    assert problems(CONTROL, KILL) == []


def test_the_batch_host_is_the_only_node_of_one() -> None:
    other = {**NODE, "target": {"random": "other_node"}}
    assert problems(other, nodes=1) == [
        'faults[0].target.random = "other_node", but the smallest case has 1 node, which is the batch host; write node, '
        "or raise the number of nodes"
    ]
    assert problems(other) == []


@pytest.mark.parametrize("what", [{"at": {"event": "checkpoint.begin"}}, {"kind": "storage.full", "at": {"event": "checkpoint.begin"}}])  # fmt: skip
def test_a_moment_of_checkpoints_needs_checkpoints(what: dict[str, Any]) -> None:
    assert problems({**KILL, **what, "expect": "failed", "because": "ended"}, checkpoint=None) == [
        "faults[0].at, but the group takes no checkpoint; add checkpoint: {every_steps: ...}"
    ]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            {**KILL, "kind": "rank.hang"},
            'kind = "rank.hang", strikes at a moment of the harness\'s own loop, which a program of yours does not have; '
            "take one that is a signal (rank.kill, rank.terminate, rank.abort, rank.segfault, rank.freeze, rank.pause), "
            "or let the program count its steps by harness.program and say command: {cooperates: true}",
        ),
        (
            {**KILL, "at": {"event": "checkpoint.begin"}},
            'at.event = "checkpoint.begin", is a moment that a program must tell; write step, after_s or mtbf_s, or let '
            "the program save by harness.program, or name the place by its faults.at, and say command: {cooperates: "
            "true}",
        ),
        (
            {"kind": "checkpoint.truncate", "at": {"step": 3}, "expect": "recovered"},
            'kind = "checkpoint.truncate", damages checkpoints, and a program saves in its own way; take another kind, '
            "or let it save by harness.program and say command: {cooperates: true}",
        ),
    ],
)
def test_a_program_of_ones_own_has_no_loop_of_ours(fault: dict[str, Any], said: str) -> None:
    assert problems(fault, **COMMAND) == [f"faults[0].{said}"]


WILLING = {**COMMAND, "command": {**COMMAND["command"], "cooperates": True}}


def test_a_program_that_cooperates_takes_every_fault_that_is_a_programs() -> None:
    faults = [
        {**KILL, "kind": "rank.hang"},
        {**KILL, "at": {"event": "checkpoint.written", "time": 2}},
        {**NODE, "at": {"event": "halo"}},
        {"kind": "checkpoint.truncate", "at": {"event": "checkpoint.committed"}, "expect": "recovered"},
        {
            "kind": "control.position",
            "target": {"rank": 0},
            "at": {"event": "restore.begin"},
            "expect": "caught",
        },
    ]
    more = {"recovery": {"policy": "requeue", "max_restarts": 9}}
    assert problems(*faults, **{**WILLING, **more}) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            {**KILL, "kind": "rank.skip_collective"},
            'kind = "rank.skip_collective", is of the harness\'s own workloads, allowed of a program: rank.kill, '
            "rank.terminate, rank.abort, rank.segfault, rank.freeze, rank.pause, rank.raise, rank.hang, rank.livelock, "
            "rank.out_of_memory, rank.slow_step, storage.slow, storage.full, control.position; change it",
        ),
        (
            {**KILL, "kind": "rank.hang", "params": {"where": "collective"}},
            'params.where = "collective", is not known of a program; write step',
        ),
    ],
)
def test_what_no_program_can_do_is_refused_also_of_one_that_cooperates(
    fault: dict[str, Any], said: str
) -> None:
    assert problems(fault, **WILLING) == [f"faults[0].{said}"]


def test_a_place_with_a_name_is_a_programs() -> None:
    assert problems({**KILL, "at": {"event": "halo"}}) == [
        'faults[0].at.event = "halo", is no moment of torch.train, allowed: restore.begin, checkpoint.begin, '
        "checkpoint.written, checkpoint.committed, recovery.begin; places with names are for programs"
    ]
    assert problems({**KILL, "at": {"event": "Halo!"}}) == [
        'faults[0].at.event = "Halo!", is no moment, allowed: restore.begin, checkpoint.begin, checkpoint.written, '
        "checkpoint.committed, recovery.begin, or the name of a place in a program that cooperates (a-z 0-9 _ -)"
    ]


def test_a_program_must_say_its_number_of_steps_before_one_of_them_can_be_hit() -> None:
    assert problems(KILL, **{**COMMAND, "steps": None}) == [
        f"faults[0].at.step = {KILL['at']['step']}, but the group does not say how many steps its program has; add "
        "steps: N, as many as the program says by command.progress or by harness.program's steps"
    ]


def test_a_program_has_a_twin_where_something_of_it_can_be_compared() -> None:
    answers = {**COMMAND, "command": {**COMMAND["command"], "answers": {"files": ("x.npy",)}}}
    assert problems(KILL, **{**COMMAND, "twin": True}) == [
        "twin = true, but nothing of the program can be compared with its twin's; add command: {answers: {files: "
        "[...]}} or {answers: {metrics: [...]}}, or cooperates: true where it saves and restores by harness.program"
    ]
    for right in (answers, WILLING):
        assert problems(KILL, **{**right, "twin": True}) == []
    assert problems(**{**WILLING, "twin": True, "recovery": None}) == [
        "twin = true, means nothing without faults and without recovery; remove it or add one"
    ]


def test_a_program_can_be_killed_at_a_step() -> None:
    assert problems(KILL, {**NODE, "at": {"event": "recovery.begin"}}, **COMMAND) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"recovery": None},
            'faults[0].expect = "recovered", but the group cannot recover without recovery: {policy: requeue}; add that, '
            "or expect failed",
        ),
        (
            {"recovery": {"policy": "new-step", "max_restarts": 1}, "faults": 2},
            "recovery.max_restarts = 1, but 2 faults are expected to be recovered from; raise it",
        ),
        (
            {"workload": "mpi.halo"},
            'recovery.policy = "warm-restart", forks ranks from processes that have imported torch, and mpi.halo is no '
            "torch workload; write new-step",
        ),
        (
            {"recovery": {"policy": "new-step", "shrink": True}},
            "recovery.shrink = true, but the answer of torch.train depends on its number of ranks; remove it and give "
            "spares",
        ),
        (
            {"workload": "mpi.halo", "recovery": {"policy": "new-step"}, "checkpoint": {"every_steps": 5, "engine": "dcp"}},
            'checkpoint.engine = "dcp", is torch\'s, and mpi.halo saves in its own way; remove it',
        ),
        (
            {"recovery": {"policy": "requeue", "spares": 1}},
            "recovery.spares = 1, means nothing with policy: requeue, where no attempt follows in the same allocation; "
            "remove it or write policy: new-step or warm-restart",
        ),
    ],
)  # fmt: skip
def test_a_recovery_that_cannot_be_is_told(more: dict[str, Any], said: str) -> None:
    times = more.pop("faults", 1) if "faults" in more else 1
    assert problems(*[KILL] * times, **more) == [said]


def test_a_site_that_lacks_the_means_says_which_and_what_else_to_write() -> None:
    plain = site(power=None, kind="production", name="big")
    off = {**NODE, "kind": "node.power_off"}
    away = {"kind": "controller.away", "at": {"step": 3}, "for_s": 2.0, "expect": "unharmed"}
    assert problems(off, {**PART, "instead": "node.link_down"}, away, {**off, "instead": "node.kill_processes"},
                    on=plain, recovery={"policy": "new-step", "max_restarts": 9}) == [
        'faults[0].kind = "node.power_off", but site "big" has no power command (power.command); choose another site, or '
        "add instead: node.kill_processes (`harness faults` lists what it allows)",
        'faults[1].instead = "node.link_down", but site "big" is production, and this reaches outside the job: emulated '
        "clusters only; choose another (`harness faults` lists what it allows)",
        'faults[2].kind = "controller.away", but site "big" is production, and this reaches outside the job: emulated '
        "clusters only; choose another site, or remove it (`harness faults` lists what it allows)",
    ]  # fmt: skip


def test_one_machine_has_no_node_to_spare() -> None:
    local, _ = config.load_site("local", [config.Path("configs/sites")])
    found = problems(KILL, on=local, nodes=1, recovery={"policy": "new-step", "spares": 1})
    assert (
        'recovery.spares = 1, but site "local" has one machine, and no node to spare; remove it' in found
    ), found


def test_findings_are_made_for_valid_groups_of_every_workload() -> None:
    """The rules themselves never raise, whatever the kind."""
    for kind, facts in KINDS.items():
        target = {"rank": {"rank": 0}, "node": {"node": 0}, "nodes": {"nodes": (0,)}}.get(facts.hits, {})
        fault: dict[str, Any] = {"kind": kind, "target": target, "at": {"event": "restore.begin"}}
        fault["at"] = {"event": "checkpoint.begin"} if kind == "storage.slow" else fault["at"]
        fault |= {"for_s": 0.1} if facts.lasts else {}
        fault["expect"] = (
            "unharmed" if facts.harmless else "caught" if kind.startswith("control.") else "failed"
        )
        fault |= {"because": "ended"} if fault["expect"] == "failed" else {}
        group = Group.model_validate({"name": "g", "workload": "torch.train", "nodes": 2, "faults": (fault,)})
        assert list(group_findings(group, REGISTRY["torch.train"], 10, True))  # it takes no checkpoint
