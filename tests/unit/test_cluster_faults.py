"""What decides about the emulated cluster's faults: what nft is told, when a lease is healed, what is asked."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.devcluster import leases
from harness.devcluster.effect_network import cuts, rules
from harness.devcluster.errors import ClusterError
from harness.devcluster.healer import Healer
from harness.devcluster.leases import Lease
from harness.devcluster.names import expand_nodes
from harness.devcluster.processes import ProcessId
from harness.devcluster.state import Cluster
from harness.faults import FaultError, Hit, create
from harness.faults.leased import lease_name
from harness.faults.own_job import job_name
from tests.unit.test_devcluster_config import cluster


def lease(**changed: Any) -> Lease:
    given = Lease(
        serial=7, identity="cut", kind="partition", nodes=(), options={}, for_s=2.5, asked_by="root",
        requested_wall_ns=0, until_wall_ns=0, until_monotonic_ns=0,
    )  # fmt: skip
    return replace(given, **changed)


# -- what is dropped --------------------------------------------------------------------------------------


def test_the_kernel_is_told_when_to_forget_what_it_drops() -> None:
    assert rules("harness_fault_7", 2.5, ("*",), ("10.120.1.1", "10.120.1.2")) == (
        "table inet harness_fault_7 {\n"
        'set output_cut { type ifname; flags timeout; elements = { "eth0" timeout 2500ms } }\n'
        "chain output { type filter hook output priority -10; policy accept;\n"
        'oifname "lo" accept\n'
        "oifname @output_cut drop\n"
        "}\n"
        "set input_cut { type ipv4_addr; flags timeout;"
        " elements = { 10.120.1.1 timeout 2500ms, 10.120.1.2 timeout 2500ms } }\n"
        "chain input { type filter hook input priority -10; policy accept;\n"
        'iifname "lo" accept\n'
        "ip saddr @input_cut drop\n"
        "}\n"
        "}\n"
    )


P1, P2, P3, HEAD = "10.120.1.1", "10.120.1.2", "10.120.1.3", "10.120.0.2"


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        (("p2",), {"one_way": False}, {"p2": (("*",), ("*",))}),
        (("p2",), {"one_way": True}, {"p2": (("*",), ())}),
        (
            (),
            {"from": ["p1"], "to": ["p2", "head"], "one_way": False},
            {"p1": ((P2, HEAD), (P2, HEAD)), "p2": ((P1,), (P1,)), "head": ((P1,), (P1,))},
        ),
        ((), {"from": ["p1"], "to": ["p3"], "one_way": True}, {"p1": ((P3,), ()), "p3": ((), (P1,))}),
    ],
)
def test_each_side_of_a_partition_drops_its_part(
    nodes: tuple[str, ...], options: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert cuts(cluster(), lease(nodes=nodes, options=options)) == expected


def test_nodes_are_named_singly_in_lists_and_in_ranges() -> None:
    known = ["p1", "p2", "p3", "p4"]
    assert expand_nodes(["p4,p1", "p[1-2]", "p4"], known) == ("p4", "p1", "p2")
    assert expand_nodes([], known) == ()
    for wrong in ("p5", "p[3-5]", "p[2-1]", "p[1-2", "head"):
        with pytest.raises(ClusterError, match="there are p1 to p4"):
            expand_nodes([wrong], known)


# -- leases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, True, "5", 0, -1, 0.05, 600.1, float("nan"), float("inf")])
def test_no_fault_is_without_an_end_of_at_most_ten_minutes(given: object) -> None:
    with pytest.raises(ClusterError, match=r"a fault lasts 0\.1 to 600 s"):
        leases.check_duration(given)


class Recorded:
    """An effect that notes what is done, and what the ledger said then."""

    hits = "nodes"
    asks_slurm = False

    def __init__(self, ledger: Path, *, hits: str = "nodes", asks_slurm: bool = False) -> None:
        self.hits, self.asks_slurm, self.ledger = hits, asks_slurm, ledger
        self.done: list[str] = []
        self.fails: set[str] = set()
        self.is_healed = True

    def _do(self, what: str) -> dict[str, Any]:
        self.done.append(f"{what} after {json.loads(self.ledger.read_text().splitlines()[-1])['state']}")
        if what in self.fails:
            raise ClusterError(f"{what} is impossible")
        return {"done": what}

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        return self._do("inject")

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        return self._do("heal")

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        return {"seen": True} if self.is_healed else None


def healer(folder: Path) -> tuple[Healer, dict[str, Recorded]]:
    plain = cluster()
    nodes = tuple(replace(host, init=ProcessId(9, 9)) for host in plain.nodes)
    found = Healer(replace(plain, folder=str(folder), nodes=nodes))
    ledger = found.cluster.paths.faults
    effects = {
        "node": Recorded(ledger),
        "slurm": Recorded(ledger, asks_slurm=True),
        "controller": Recorded(ledger, hits="controller"),
    }
    found._effects = effects
    return found, effects


def ask(found: Healer, kind: str, for_s: float = 60.0, nodes: Sequence[str] = ("p1",)) -> dict[str, Any]:
    wanted = {"kind": kind, "for_s": for_s, "nodes": [] if kind == "controller" else list(nodes)}
    return found.inject(wanted, "alice")


def states(found: Healer) -> list[str]:
    return [fault["state"] for fault in found.all()]


def test_the_end_is_on_record_before_the_fault_begins(tmp_path: Path) -> None:
    found, effects = healer(tmp_path)
    ask(found, "node", for_s=0.2)
    assert effects["node"].done == ["inject after armed"]
    due_s = found.turn()
    assert due_s is not None and 0.0 < due_s <= 0.2
    time.sleep(due_s)
    assert found.turn() is None
    assert effects["node"].done == ["inject after armed", "heal after healing"]
    lines = [json.loads(line) for line in found.cluster.paths.faults.read_text().splitlines()]
    assert [(line["state"], line["healed_by"]) for line in lines] == [
        ("armed", ""), ("active", ""), ("healing", "timer"), ("healed", "timer"),
    ]  # fmt: skip


def test_what_was_done_half_way_is_undone(tmp_path: Path) -> None:
    found, effects = healer(tmp_path)
    effects["node"].fails = {"inject"}
    with pytest.raises(ClusterError, match="node: inject is impossible"):
        ask(found, "node")
    assert effects["node"].done == ["inject after armed", "heal after healing"]
    (failed,) = found.all()
    assert (failed["state"], failed["error"]) == ("failed", "inject is impossible")


def test_a_healing_that_fails_is_tried_again(tmp_path: Path) -> None:
    found, effects = healer(tmp_path)
    effects["node"].fails = {"heal"}
    identity = ask(found, "node")["id"]
    assert [fault["state"] for fault in found.heal(identity, "alice")] == ["healing"]
    effects["node"].fails = set()
    again_s = found.turn()
    assert again_s is not None and 0 < again_s <= 1
    time.sleep(again_s)
    found.turn()
    (healed,) = found.all()
    assert (healed["state"], healed["error"]) == ("healed", "healing: heal is impossible")


def test_it_is_healed_when_that_is_seen_and_not_before(tmp_path: Path) -> None:
    found, effects = healer(tmp_path)
    effects["node"].is_healed = False
    found.heal(ask(found, "node")["id"], "alice")
    time.sleep(0.11)
    found.turn()
    assert (states(found), effects["node"].done[1:]) == (["healing"], ["heal after healing"])
    effects["node"].is_healed = True
    time.sleep(0.11)
    assert (found.turn(), states(found)) == (None, ["healed"])


def test_what_needs_the_controller_waits_while_it_is_away(tmp_path: Path) -> None:
    found, effects = healer(tmp_path)
    drained, away = ask(found, "slurm")["id"], ask(found, "controller")["id"]
    found.heal(drained, "alice")
    assert (states(found), effects["slurm"].done) == (["healing", "active"], ["inject after armed"])
    found.heal(away, "alice")
    time.sleep(0.11)
    assert (found.turn(), states(found)) == (None, ["healed", "healed"])


def test_down_ends_what_is_left(tmp_path: Path) -> None:
    found, _ = healer(tmp_path)
    ask(found, "node")
    found.close()
    assert (found.turn(), found.open()) == (None, [])
    last = json.loads(found.cluster.paths.faults.read_text().splitlines()[-1])
    assert (last["state"], last["healed_by"]) == ("healed", "down")


def test_two_of_a_kind_on_one_node_are_refused(tmp_path: Path) -> None:
    found, _ = healer(tmp_path)
    ask(found, "node", nodes=["p1", "p2"])
    ask(found, "slurm", nodes=["p1"])
    ask(found, "node", nodes=["p3"])
    with pytest.raises(ClusterError, match="node: fault fault-1, node on p2, is active; first: "):
        ask(found, "node", nodes=["p2"])
    ask(found, "controller")
    with pytest.raises(ClusterError, match="controller: fault fault-4, controller, is active"):
        ask(found, "controller")
    found.heal(None, "root")
    assert states(found) == ["healed"] * 4


# -- what a job asks --------------------------------------------------------------------------------------


class Tools:
    """Notes what is asked; answers as told."""

    def __init__(self, **answers: Any) -> None:
        self.asked: list[list[str]] = []
        self.answers = answers

    async def power(self, action: str, node: str) -> dict[str, Any]:
        raise AssertionError

    async def emulated(self, arguments: Sequence[str]) -> dict[str, Any]:
        self.asked.append(list(arguments))
        answer: dict[str, Any] = self.answers[arguments[0]]
        return answer

    async def slurm(self, command: Sequence[str]) -> str:
        self.asked.append(list(command))
        return str(self.answers[command[0]])

    def tell_agent(self, node: str, message: str) -> None:
        raise AssertionError

    def lost(self, node: str) -> str:
        return str(self.answers.get("lost", {}).get(node, ""))

    async def slurm_state(self, node: str) -> str:
        return str(self.answers.get("states", {}).get(node, "IDLE"))


HIT = Hit(kind="", nodes=("p2",), lease="train/n2/r0/fault 1", job_id="12", job_nodes=("p1", "p2", "p3"))
RECORD = {
    "id": "12.train/n2/r0/fault-1", "kind": "link-down", "nodes": ["p2"], "until": "then", "evidence": {"x": 1},
    "effect_wall_ns": 5, "state": "active", "healed_by": "", "healed": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("node.stop_slurmd", {}, ["slurmd-stop", "--node", "p2"]),
        ("node.link_down", {}, ["link-down", "--node", "p2"]),
        ("node.partition", {}, ["partition", "--node", "p2"]),
        (
            "node.partition",
            {"from_rest": True, "one_way": True},
            ["partition", "--from", "p2", "--to", "p1,p3", "--one-way"],
        ),
        ("node.drain", {}, ["drain", "--node", "p2"]),
        ("node.fail", {}, ["fail", "--node", "p2"]),
        ("controller.away", {}, ["controller-freeze"]),
        ("controller.away", {"mode": "kill"}, ["controller-kill"]),
        ("storage.away", {}, ["storage-away", "--node", "p2"]),
    ],
)
def test_a_kind_asks_for_a_lease_that_ends(kind: str, params: dict[str, Any], expected: list[str]) -> None:
    for duration_s, seconds in ((4.0, "4"), (0.0, "600"), (1e4, "600")):
        tools = Tools(fault=RECORD)
        hit = replace(HIT, params=params, duration_s=duration_s)
        asyncio.run(create(kind).inject(tools, hit))
        assert tools.asked == [["fault", *expected, "--for", seconds, "--id", "12.train/n2/r0/fault-1"]]


def test_a_preempting_job_soon_leaves_the_nodes_to_ours() -> None:
    tools = Tools(squeue=str(os.getuid()), fault=RECORD)
    asyncio.run(create("job.preempt").inject(tools, replace(HIT, nodes=())))
    asked = ["fault", "preempt", "--node", "p1", "p2", "p3", "--for", "10", "--id", lease_name(HIT)]
    assert tools.asked[-1] == asked


def test_the_name_of_a_lease_is_one_that_the_cluster_takes() -> None:
    assert leases.check_identity(lease_name(HIT), 1) == "12.train/n2/r0/fault-1"
    assert leases.check_identity(lease_name(Hit(kind="", lease="x" * 300)), 1) == "job." + "x" * 124


def test_a_cut_is_seen_by_the_cluster_and_by_silent_agents_together() -> None:
    link = create("node.link_down")
    records: list[dict[str, Any]] = [
        {"faults": []},
        {"faults": [{**RECORD, "effect_wall_ns": 0}]},
        {"faults": [RECORD]},
    ]
    for answers in records:
        assert asyncio.run(link.verify_effect(Tools(faults=answers), HIT)) is None


@pytest.mark.parametrize(
    ("silent", "seen"),
    [
        (("p2",), ("p2",)),
        (("p1", "p3"), ("p1", "p3")),  # the supervisor is on p2: all others are silent
        (("p3",), None),  # that one was lost before
    ],
)
def test_a_cut_is_seen_when_all_of_one_side_is_silent(
    silent: tuple[str, ...], seen: tuple[str, ...] | None
) -> None:
    tools = Tools(faults={"faults": [RECORD]}, lost=dict.fromkeys(silent, "no beat"))
    expected = None if seen is None else {"cluster": {"x": 1}, "agents": dict.fromkeys(seen, "no beat")}
    assert asyncio.run(create("node.link_down").verify_effect(tools, HIT)) == expected


def test_healing_what_never_was_is_no_error() -> None:
    link = create("node.link_down")
    tools = Tools(heal={"faults": []}, faults={"faults": []})
    assert asyncio.run(link.heal(tools, HIT)) == {"nothing_to_undo": True}
    assert asyncio.run(link.verify_healed(tools, HIT)) == {"nothing_to_undo": True}


@pytest.mark.parametrize(
    ("done", "state", "healed"),
    [
        ("resumed", "IDLE", True),
        ("resumed", "DOWN*", False),
        ("not resumed: its reason is 'bad disk', which is not ours", "IDLE+DRAIN", True),
    ],
)
def test_a_node_must_be_in_use_again_unless_its_reason_is_not_ours(
    done: str, state: str, healed: bool
) -> None:
    record = {**RECORD, "kind": "drain", "state": "healed", "healed": {"done": {"p2": done}}}
    tools = Tools(faults={"faults": [record]}, states={"p2": state})
    assert (asyncio.run(create("node.drain").verify_healed(tools, HIT)) is not None) is healed


@pytest.mark.parametrize("owner", ["4242", f"{os.getuid()}\n4242", ""])
@pytest.mark.parametrize("kind", ["job.requeue", "job.cancel", "job.time_limit", "job.preempt"])
def test_nothing_is_done_to_a_job_that_is_not_certainly_ours(kind: str, owner: str) -> None:
    tools = Tools(squeue=owner, scontrol="JobState=RUNNING Restarts=0 TimeLimit=01:00:00", fault=RECORD)
    with pytest.raises(FaultError, match="strike our own jobs only"):
        asyncio.run(create(kind).inject(tools, HIT))
    assert [command for command in tools.asked if command[:3] != ["scontrol", "--oneliner", "show"]] == [
        ["squeue", "--noheader", "--format=%U", "--jobs=12"]
    ]


def test_a_task_of_an_array_is_never_taken_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_JOB_ID", "12"), ("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(name, value)
    assert job_name(HIT) == "12_3"
    tools = Tools(squeue=str(os.getuid()), scancel="", scontrol="JobState=RUNNING")
    asyncio.run(create("job.cancel").inject(tools, HIT))
    assert tools.asked[-1] == ["scancel", "12_3"]
    assert job_name(replace(HIT, job_id="11")) == "11"


@pytest.mark.parametrize(
    ("state", "restarts", "before", "seen"),
    [
        ("RUNNING", "0", 0, False),
        ("COMPLETING", "0", 0, True),
        ("PENDING", "0", 0, True),
        ("RUNNING", "1", 0, True),
        ("RUNNING", "1", 1, False),
    ],
)
def test_a_requeue_is_seen_in_the_state_or_in_the_restarts(
    state: str, restarts: str, before: int, seen: bool
) -> None:
    tools = Tools(
        scontrol=f"JobId=12 JobState={state} Reason=None Requeue=1 Restarts={restarts} TimeLimit=01:00:00"
    )
    hit = replace(HIT, params={"restarts_before": before})
    assert (asyncio.run(create("job.requeue").verify_effect(tools, hit)) is not None) is seen


def test_a_controller_that_does_not_answer_says_nothing_yet() -> None:
    class Silent(Tools):
        async def slurm(self, command: Sequence[str]) -> str:
            raise FaultError("no answer within 30 s")

    for kind in ("job.requeue", "job.cancel", "job.time_limit"):
        assert asyncio.run(create(kind).verify_effect(Silent(), HIT)) is None


@pytest.mark.parametrize(("minutes", "limit"), [(1, "00:01:00"), (90, "01:30:00"), (1500, "1-01:00:00")])
def test_a_lower_time_limit_is_seen_as_slurm_writes_it(minutes: int, limit: str) -> None:
    hit = replace(HIT, params={"minutes": minutes})
    tools = Tools(scontrol=f"JobState=RUNNING Restarts=0 TimeLimit={limit}")
    assert asyncio.run(create("job.time_limit").verify_effect(tools, hit)) is not None
