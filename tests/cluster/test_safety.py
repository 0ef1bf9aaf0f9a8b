"""Rules about faults, each of which a test tries to break."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.driving import HARNESS, start, wait, write
from tests.cluster.faulting import Faults
from tests.cluster.faulting import faults as faults

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PARTITION = """\
schema: 1
name: cut-off
seed: 5
groups:
  - name: halo
    workload: mpi.halo
    nodes: 2
    steps: 20000
    checkpoint: {every_steps: 1000}
    recovery: {policy: new-step, max_restarts: 1}
    twin: false
    faults:
      - {kind: node.partition, target: {node: 1}, at: {step: 100}, for_s: 30, expect: recovered}
"""
POWER_OFF = """\
schema: 1
name: off
seed: 5
groups:
  - name: halo
    workload: mpi.halo
    nodes: 2
    steps: 4000
    faults:
      - {kind: node.power_off, target: {node: 1}, at: {step: 100}, expect: failed, because: was lost}
"""


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob("work/*/events.jsonl") for line in path.open()]


def test_a_partition_heals_by_itself_when_driver_supervisor_and_agents_are_killed(faults: Faults) -> None:
    cluster: Any = faults.cluster
    folder, driver = start(cluster, "cut-off", PARTITION, cluster.site())
    try:
        wait(
            "nodes are cut off",
            lambda: any(e["kind"] == "fault.injected" and e["case_id"] for e in events(folder)),
        )
        struck = next(e for e in events(folder) if e["kind"] == "fault.injected")
        nodes = next(e for e in events(folder) if e["kind"] == "attempt.started")["data"]["nodes"]
        for child in driver.pid, *_children(driver.pid):
            _kill(child)
        for node in nodes:  # all that is ours on them: supervisor, agents, ranks
            faults.shell.run("exec", node, "--", "sh", "-c", "pkill -9 -f harness[.]runtime; true")
        assert faults.connects(nodes[0], nodes[1]) == "no answer"  # the cut is on, and nobody of ours is left
        healed_by_s = struck["wall_ns"] / 1e9 + 30 + 10
        wait("the cut ends", lambda: faults.connects(nodes[0], nodes[1]) == "connected", 60)
        assert time.time() < healed_by_s
    finally:
        driver.kill()
        driver.communicate()
    (lease,) = json.loads(faults.shell.run("faults"))["faults"][-1:]
    assert (lease["kind"], lease["state"], lease["healed_by"]) == ("partition", "healed", "timer")
    for _ in range(2):  # may be run twice
        healed = cluster.run_as_user([*HARNESS, "heal", str(folder)])
        assert (healed.returncode, healed.stdout.strip()) == (0, "no fault of this run is left unhealed")


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found] + [n for child in found for n in _children(int(child))]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _site(cluster: Any, **changes: Any) -> str:
    site = YAML(typ="safe").load(Path(cluster.site()).read_text())
    path = cluster.shared / "changed-site.yaml"
    path.write_text(json.dumps({**site, **changes}))
    return str(path)


@pytest.mark.parametrize("kind", ["production", "staging"])
def test_what_only_an_emulated_cluster_may_do_is_refused_elsewhere(faults: Faults, kind: str) -> None:
    cluster: Any = faults.cluster
    changes: dict[str, Any] = {"kind": kind, "name": "real"}
    if kind == "production":
        changes["power"] = None
    campaign = write(cluster, "cut-off.yaml", PARTITION)
    result = cluster.run_as_user([*HARNESS, "run", campaign, "--site", _site(cluster, **changes)])
    assert result.returncode == 2
    assert "faults[0].kind" in result.stderr and f"is {kind}" in result.stderr, result.stderr


def test_a_staging_site_switches_off_only_what_was_named_on_the_command_line(faults: Faults) -> None:
    cluster: Any = faults.cluster
    site = _site(cluster, kind="staging", name="lab")
    campaign = write(cluster, "off.yaml", POWER_OFF)
    command = [*HARNESS, "run", campaign, "--site", site, "--plain", "--folder"]
    unnamed = cluster.run_as_user([*command, str(cluster.shared / "unnamed")])
    assert unnamed.returncode == 2
    assert "name those that may be, --may-power-off NODE[,NODE...]" in unnamed.stderr
    other = cluster.shared / "other"
    result = cluster.run_as_user([*command, str(other), "--may-power-off", "p9"], timeout=120)
    assert result.returncode != 0
    (refused,) = [e for e in events(other) if e["kind"] == "fault.refused"]
    assert "was not named on the command line" in refused["data"]["why"]
    assert faults.shell.run("power", "status", *refused["data"]["hit"]["nodes"]).split()[0] == "on"
    named = cluster.shared / "named"
    result = cluster.run_as_user([*command, str(named), "--may-power-off", "p1,p2,p3,p4"], timeout=200)
    kinds = [e["kind"] for e in events(named)]
    assert "fault.refused" not in kinds and "fault.injected" in kinds, result.stdout + result.stderr


def test_nobody_without_the_jobs_secret_is_listened_to(faults: Faults) -> None:
    cluster: Any = faults.cluster
    folder, driver = start(cluster, "secret", PARTITION.replace("step: 100", "step: 19999"), cluster.site())
    try:
        wait("its agents are there", lambda: sum(e["kind"] == "agent.connected" for e in events(folder)) == 2)
        (token,) = folder.glob("work/*/token")
        assert oct(token.stat().st_mode)[-3:] == "600"
        node = next(e for e in events(folder) if e["kind"] == "job.started")["data"]["nodes"][0]
        said = faults.on(node, _STRANGER)
        assert said == "closed without a word"
        assert sum(e["kind"] == "agent.connected" for e in events(folder)) == 2
    finally:
        cluster.run_as_user([*HARNESS, "cancel", str(folder)])
        driver.communicate(timeout=90)


# Finds the port on which the supervisor listens, says hello with a wrong secret, and a command at once.
_STRANGER = """
import glob, json, socket
for path in glob.glob("/proc/[0-9]*/environ"):
    try: words = open(path, "rb").read().split(b"\\0")
    except OSError: continue
    ports = [int(w.split(b"=")[1]) for w in words if w.startswith(b"HARNESS_SUPERVISOR_PORT=")]
    if ports: break
s = socket.create_connection(("127.0.0.1", ports[0]), 5); s.settimeout(15)
s.sendall(json.dumps({"type": "hello", "version": 1, "token": "guess", "node": "p2"}).encode() + b"\\n")
s.sendall(json.dumps({"type": "die"}).encode() + b"\\n")
try: print("closed without a word" if s.recv(100) == b"" else "answered")
except ConnectionResetError: print("closed without a word")
"""
