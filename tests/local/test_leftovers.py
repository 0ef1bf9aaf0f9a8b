"""What is left on a machine after ranks, agents and supervisors were killed: nothing of ours. Real kills, real MPI."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.rundir import read_lines
from harness.runtime import leftovers

pytestmark = [pytest.mark.timeout(240), pytest.mark.mpi]

HARNESS = [sys.executable, "-m", "harness"]
HEAD = "schema: 1\nname: killed\nseed: 7\ngroups:\n"
HALO = """\
  - name: halo
    workload: mpi.halo
    nodes: 2
    steps: %d
    params: {rows: 64, columns: 64}
    checkpoint: {every_steps: 20}
    recovery: {policy: %s}
"""
KILLS = """\
    faults:
      - {kind: rank.kill, target: {rank: 1}, at: {steps: [0, 55]}, expect: recovered, count: 5}
"""


def orphans() -> set[str]:
    """Shared memory of libraries that no process has mapped."""
    mapped = leftovers.segments_of(int(name) for name in os.listdir("/proc") if name.isdigit())
    return {n for n in os.listdir("/dev/shm") if n.startswith("mpich_")} - {s.name for s in mapped}


def folders(run: Path) -> list[str]:
    name = f"hh-{leftovers.job_name(run, '')}"
    return [p.name for place in ("/tmp", "/dev/shm") for p in Path(place).glob(f"{name}*")]


def observed(run: Path) -> int:
    """How many faults were seen to have their effect."""
    lines = [line for events in run.glob("work/*/events.jsonl") for line in read_lines(events)]
    return sum(line["kind"] == "fault.observed" for line in lines)


def command(folder: Path, *more: str) -> list[str]:
    return [
        *HARNESS, "run", str(folder.parent / "c.yaml"), "--site", "local", "--folder", str(folder), "--plain", *more
    ]  # fmt: skip


def wait_until(true: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
    end = time.monotonic() + deadline_s
    while not (found := true()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)
    return found


def begun(folder: Path, step: int = 1) -> bool:
    with contextlib.suppress(OSError, ValueError):
        said = [json.loads(path.read_text()) for path in folder.glob("work/*/progress.json")]
        return any(one["step"] >= step for one in said)
    return False


def processes_of(folder: Path) -> dict[str, int]:
    """Name of what it is -> pid, of the processes that work for a run."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            environment = (entry / "environ").read_bytes() if b"-m" in words else b""
            if str(folder).encode() not in environment + b" ".join(words):
                continue
            node = environment.partition(b"HARNESS_NODE=")[2].partition(b"\0")[0].decode()
            module = words[words.index(b"-m") + 1].decode().rpartition(".")[2]
            found[f"{module} {node}" if module == "agent" else f"{module} {entry.name}"] = int(entry.name)
    return found


def test_killed_ranks_and_nodes_leave_no_shared_memory_and_no_folder(tmp_path: Path) -> None:
    before, run = orphans(), tmp_path / "kills"
    (tmp_path / "c.yaml").write_text(HEAD + HALO % (60, "new-step, max_restarts: 9") + KILLS)
    subprocess.run(command(run), capture_output=True, timeout=200)
    assert observed(run) == 5
    assert (orphans() - before, folders(run)) == (set(), [])


def test_a_killed_node_leaves_nothing_when_its_job_has_ended(tmp_path: Path) -> None:
    before, run = orphans(), tmp_path / "node"
    (tmp_path / "c.yaml").write_text(
        HEAD
        + HALO % (60, "none")
        + "    faults:\n      - {kind: node.kill_processes, target: {node: 1}, at: "
        "{step: 30}, expect: failed, because: its agent}\n"
    )
    subprocess.run(command(run), capture_output=True, timeout=200)
    assert observed(run) == 1
    assert (orphans() - before, folders(run)) == (set(), [])
    (log,) = run.glob("work/*/agent-local1.log")
    assert "which its agent left" in log.read_text()


def test_an_agent_that_was_killed_is_cleaned_up_after_by_its_supervisor(tmp_path: Path) -> None:
    before, run = orphans(), tmp_path / "agent"
    (tmp_path / "c.yaml").write_text(HEAD + HALO % (4000, "none"))
    with subprocess.Popen(command(run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_until(lambda: begun(run), "it runs")
        os.kill(processes_of(run)["agent local1"], signal.SIGKILL)
        driver.wait(60)
    assert (orphans() - before, folders(run)) == (set(), [])
    assert processes_of(run) == {}


def test_heal_removes_what_is_left_when_everything_was_killed_and_may_be_run_twice(tmp_path: Path) -> None:
    before, run = orphans(), tmp_path / "all"
    (tmp_path / "c.yaml").write_text(HEAD + HALO % (4000, "none"))
    with subprocess.Popen(command(run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_until(lambda: begun(run), "it runs")
        driver.kill()
    for _ in range(3):
        for pid in processes_of(run).values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    assert len(folders(run)) >= 2
    for _ in range(2):
        healed = subprocess.run([*HARNESS, "heal", str(run)], text=True, capture_output=True, timeout=60)
        assert (healed.returncode, healed.stderr) == (0, "")
    assert (orphans() - before, folders(run)) == (set(), [])
