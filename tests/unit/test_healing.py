"""Faults that a run left are undone from outside its jobs, once, and what cannot be undone is said each time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harness.faults import Hit
from harness.healing import heal_left
from harness.model import event as ev
from harness.model.case import Case, Fault, Job, Plan, Submission
from harness.rundir import RunDir, append_line, read_lines
from harness.runtime import fault_runner

SWITCH = """\
#!/bin/sh
# power ACTION NODE: a file for each node says whether it is on
cd "$(dirname "$0")"
[ "$1" = status ] || echo "$1" > "power-$2"
echo "$1 $2" >> asked
cat "power-$2"
"""


def plan(*kinds: str) -> Plan:
    faults = tuple(
        Fault(f"c-f{n}", kind, kind, "recovered", node=1, at_step=3) for n, kind in enumerate(kinds)
    )
    case = Case("c", "g", "torch.train", 2, 1, 0, 1, 50, 0, {}, faults=faults)
    return Plan((case,), (Submission("0000", (Job("0000", 2, 1, 5, ("c",), False),), "base.sh.j2"),))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.job("0000").mkdir(parents=True)
    (tmp_path / "switch").write_text(SWITCH)
    (tmp_path / "switch").chmod(0o755)
    (tmp_path / "power-n1").write_text("off\n")
    return run


def site(run: RunDir) -> dict[str, Any]:
    command = [str(run.path.parent / "switch"), "{action}", "{node}"]
    return {
        "launcher": "local", "name": "here", "kind": "staging", "power": {"command": command},
        "paths": {"node_local": str(run.path.parent / "node_local")},
    }  # fmt: skip


def tell(run: RunDir, kind: str, fault: Fault, **more: Any) -> None:
    hit = Hit(fault.kind, ("n1",), fault.rank, lease=fault.fault_id)
    data = {
        "fault_id": fault.fault_id,
        "fault": fault.kind,
        "node": "n1",
        "rank": fault.rank,
        "hit": hit.to_json(),
    }
    line = {
        "kind": kind,
        "wall_ns": 1,
        "case_id": "c",
        "attempt": 0,
        "rank": fault.rank,
        "data": {**data, **more},
    }
    append_line(run.events("0000"), line)


def facts(run: RunDir) -> list[tuple[str, str, Any]]:
    lines = read_lines(run.driver_events)
    return [(line["kind"], line["data"]["fault_id"], line["data"]["evidence"]) for line in lines]


def test_a_node_that_was_left_off_is_switched_on_once(run: RunDir) -> None:
    planned = plan("node.power_off")
    tell(run, ev.FAULT_REQUESTED, planned.cases[0].faults[0])
    assert heal_left(run, planned, site(run)) == []
    assert facts(run) == [(ev.FAULT_HEALED, "c-f0", {"power": "on", "slurm": ""})]
    asked = (run.path.parent / "asked").read_text()
    assert asked.splitlines() == ["on n1", "status n1"]
    assert heal_left(run, planned, site(run)) == []
    assert (run.path.parent / "asked").read_text() == asked


def test_what_was_healed_by_its_supervisor_or_never_asked_for_is_left_alone(run: RunDir) -> None:
    planned = plan("node.power_off", "node.power_off")
    tell(run, ev.FAULT_REQUESTED, planned.cases[0].faults[0])
    tell(run, ev.FAULT_HEALED, planned.cases[0].faults[0], evidence={})
    assert heal_left(run, planned, site(run)) == []
    assert facts(run) == []
    assert not (run.path.parent / "asked").exists()


def test_what_a_rank_did_to_itself_leaves_nothing(run: RunDir) -> None:
    planned = plan("rank.kill")
    tell(run, ev.FAULT_REQUESTED, planned.cases[0].faults[0])
    assert heal_left(run, planned, site(run)) == []
    assert facts(run) == [
        (ev.FAULT_HEALED, "c-f0", {"nothing_to_undo": "the process that it hit has ended, or went on"})
    ]


def test_what_cannot_be_undone_is_told_now_and_the_next_time(run: RunDir) -> None:
    planned = plan("node.power_off", "rank.kill")
    for fault in planned.cases[0].faults:
        tell(run, ev.FAULT_REQUESTED, fault)
    without = {**site(run), "power": None}
    why = "this site has no power command; add power.command to the site file, or use instead:"
    said = f"node.power_off on n1 is not healed: {{'why': {why!r}}}"
    assert heal_left(run, planned, without) == [said]
    assert heal_left(run, planned, without) == [said]
    assert [(kind, fault) for kind, fault, _ in facts(run)] == [
        (ev.FAULT_UNHEALED, "c-f0"), (ev.FAULT_HEALED, "c-f1"), (ev.FAULT_UNHEALED, "c-f0"),
    ]  # fmt: skip
    assert heal_left(run, planned, site(run)) == []


def test_a_node_that_does_not_come_back_is_waited_for_and_no_longer(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan("node.power_off")
    tell(run, ev.FAULT_REQUESTED, planned.cases[0].faults[0])
    (run.path.parent / "switch").write_text("#!/bin/sh\necho off\n")
    monkeypatch.setattr(fault_runner, "HEAL_S", 0.5)
    assert heal_left(run, planned, site(run)) == [
        "node.power_off on n1 is not healed: {'why': 'not seen to be healed within 0.5 s'}"
    ]


def test_a_fault_that_another_hides_is_seen_to_be_healed_once_that_one_is(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first node is seen to be on only after the second one is."""
    planned = plan("node.power_off", "node.power_off")
    first, second = planned.cases[0].faults
    tell(run, ev.FAULT_REQUESTED, first, hit=Hit(first.kind, ("n1",), lease="c-f0").to_json())
    tell(run, ev.FAULT_REQUESTED, second, hit=Hit(second.kind, ("n2",), lease="c-f1").to_json())
    hides = '[ "$1 $2" != "status n1" ] || [ -e power-n2 ] || { echo off; exit; }\ncat "power-$2"\n'
    (run.path.parent / "switch").write_text(SWITCH.replace('cat "power-$2"\n', hides))
    monkeypatch.setattr(fault_runner, "HEAL_S", 3.0)
    assert heal_left(run, planned, site(run)) == []
    assert sorted(fact[:2] for fact in facts(run)) == [(ev.FAULT_HEALED, "c-f0"), (ev.FAULT_HEALED, "c-f1")]


def test_runs_of_a_harness_that_knew_only_nodes_are_healed(run: RunDir) -> None:
    assert fault_runner.hit_of({"fault": "node.power_off", "node": "n3"}) == Hit("node.power_off", ("n3",))
    hit = Hit(
        "node.partition", ("a", "b"), duration_s=2.0, params={"one_way": True}, job_nodes=("a", "b", "c")
    )
    assert fault_runner.hit_of({"hit": hit.to_json()}) == hit


def test_only_what_the_site_can_undo_is_tried() -> None:
    """A fault of an emulated cluster, asked of another site: refused with why, and nothing is run."""
    from harness.healing import _Outside

    tools = _Outside({"launcher": "slurm", "name": "big", "kind": "production", "power": None})
    healed, evidence = asyncio.run(
        fault_runner.heal(tools, Hit("node.partition", ("n1",), lease="x", job_id="7"))
    )
    assert (healed, evidence) == (
        False,
        {"why": "only an emulated cluster can do this, and site big is production"},
    )
