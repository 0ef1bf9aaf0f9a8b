"""The kinds of faults that the emulated cluster does, and those of our own job, as a job's user has them done."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.faulting import Faults
from tests.cluster.faulting import faults as faults
from tests.cluster.shell import wait_for

_AS_A_JOB = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from harness.faults import Hit, create, tools
SITE = {"kind": "emulated", "launcher": "slurm", "name": "emulated"}
class Tools:
    async def emulated(self, arguments): return await tools.emulated(SITE, arguments)
    async def slurm(self, command): return await tools.slurm(SITE, command)
    async def slurm_state(self, node): return await tools.slurm_state(node)
    def lost(self, node): return ""
hit = Hit.from_json(json.loads(sys.argv[3]))
fault = create(hit.kind)
async def run():
    print(json.dumps(await getattr(fault, sys.argv[2])(Tools(), hit)))
try: asyncio.run(run())
except Exception as error: print(json.dumps({type(error).__name__: str(error)}))
"""


class AsJob:
    """A fault's four steps, by the cluster's ordinary user, each in a process of its own."""

    def __init__(self, faults: Faults, kind: str, **hit: Any) -> None:
        self.faults = faults
        self.hit = json.dumps({"kind": kind, "nodes": [], "lease": "f0", **hit})
        self.root = str(Path(__file__).resolve().parents[2])

    def __call__(self, step: str, where: str = "p1") -> Any:
        command = [sys.executable, "-c", _AS_A_JOB, self.root, step, self.hit]
        return json.loads(self.faults.shell.run("exec", where, "--", *command))

    def until(self, step: str, deadline_s: float = 20) -> Any:
        found: list[Any] = []

        def seen() -> bool:
            found.append(self(step))
            return found[-1] is not None

        wait_for(seen, deadline_s, step)
        return found[-1]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("node.stop_slurmd", {}),
        ("node.drain", {}),
        ("node.fail", {}),
        ("storage.away", {}),
        ("controller.away", {"mode": "kill"}),
        ("controller.away", {"mode": "freeze"}),
    ],
)
def test_a_kind_is_done_seen_healed_and_seen_healed_by_the_ordinary_user(
    faults: Faults, kind: str, params: dict[str, str]
) -> None:
    nodes = [] if kind == "controller.away" else ["p2"]
    # Another kind of fault that had the same name says nothing of this one.
    faults.heal(
        faults.begin("link-down", "--node", "p4", "--id", f"7.{kind + params.get('mode', '')}", for_s=5)["id"]
    )
    step = AsJob(faults, kind, nodes=nodes, params=params, job_id="7", lease=kind + params.get("mode", ""))
    assert step("verify_effect") is None
    assert step("inject")["id"].startswith(f"7.{kind}")
    assert "cluster" in step.until("verify_effect")
    assert step("verify_healed") is None
    assert step("heal")["state"] == "healed"
    assert step("heal")["state"] == "healed"
    assert step.until("verify_healed")["by"] == "alice"


def job_state(faults: Faults, job: str) -> str:
    text = faults.shell.login("scontrol", "-o", "show", "job", job)
    return text.split("JobState=")[1].split()[0]


def running(faults: Faults, *options: str) -> str:
    job = faults.submit("exec sleep 100", "-w", "p3", *options)
    wait_for(lambda: job_state(faults, job) == "RUNNING", 15, "the job runs")
    return job


def test_our_own_job_is_requeued(faults: Faults) -> None:
    step = AsJob(faults, "job.requeue", job_id=running(faults, "--requeue"))
    assert step("verify_effect") is None
    assert step("inject")["asked"] == "scontrol requeue"
    assert step.until("verify_effect")["slurm"]["Restarts"] == "1"


def test_our_own_job_is_cancelled(faults: Faults) -> None:
    job = running(faults)
    step = AsJob(faults, "job.cancel", job_id=job)
    assert step("verify_effect") is None
    step("inject")
    assert step.until("verify_effect")["slurm"]["JobState"] == "CANCELLED"


def test_the_time_limit_of_our_own_job_is_lowered(faults: Faults) -> None:
    step = AsJob(faults, "job.time_limit", job_id=running(faults, "--time=30"))
    assert step("verify_effect") is None
    assert step("inject")["before"]["TimeLimit"] == "00:30:00"
    assert step("verify_effect")["slurm"]["TimeLimit"] == "00:01:00"


def test_our_own_job_is_preempted(faults: Faults) -> None:
    step = AsJob(faults, "job.preempt", job_id=running(faults, "--requeue"), job_nodes=["p3"])
    assert step("verify_effect") is None
    step("inject")
    assert step.until("verify_effect")["slurm"]["JobState"] != "RUNNING"
    assert step("heal")["state"] == "healed"


@pytest.mark.parametrize("kind", ["job.requeue", "job.cancel", "job.time_limit", "job.preempt"])
def test_another_users_job_is_not_touched(faults: Faults, kind: str) -> None:
    submitted = faults.cluster.run_as_root(
        ["sbatch", "--parsable", "-o", "/dev/null", "-w", "p4", "--chdir=/", "--wrap=exec sleep 100"]
    )
    job = submitted.stdout.strip()
    wait_for(lambda: job_state(faults, job) == "RUNNING", 15, "root's job runs")
    try:
        refused = AsJob(faults, kind, job_id=job, job_nodes=["p4"])("inject")
        assert refused == {
            "FaultError": f"job {job} belongs to user 0; we are user 61000, and strike our own jobs only"
        }
        assert job_state(faults, job) == "RUNNING"
    finally:
        faults.cluster.run_as_root(["scancel", job])
