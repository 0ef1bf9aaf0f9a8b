"""What the tests of driving on a real Slurm share: campaigns, and ways to start and to read a run."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from harness.store import Results

HARNESS = [sys.executable, "-m", "harness"]
SHARED_NODES = ("exclusive: true ", "exclusive: false ")
LONG = (
    "schema: 1\nname: long\nseed: 1\ngroups:\n  - {name: halo, workload: mpi.halo, nodes: 1, steps: 6000}\n"
)

TRIVIAL = """\
schema: 1
name: trivial
seed: 1
packing: {mode: jobs}
groups:
  - name: trivial
    workload: command
    nodes: 1
    repeats: %d
    time_limit_min: 1
    command: {run: [bash, -c, "sleep %s; echo done"], success: {output: "^done$"}}
"""


def write(cluster: Any, name: str, text: str) -> str:
    (cluster.shared / name).write_text(text)
    return str(cluster.shared / name)


def on_login(cluster: Any, command: list[str]) -> list[str]:
    """The command that runs ``command`` on the login node as the cluster's ordinary user."""
    there = ["exec", "--folder", str(cluster.folder), "login", "--"]
    return [sys.executable, "-m", "harness.devcluster", *there, *command]


def run(cluster: Any, name: str, text: str, site: object = "emulated", **options: Any) -> Any:
    campaign = write(cluster, f"{name}.yaml", text)
    folder = cluster.shared / name
    command = [*HARNESS, "run", campaign, "--site", str(site), "--folder", str(folder), "--plain"]
    return folder, cluster.run_as_user(command, **{"timeout": 300, **options})


def start(
    cluster: Any, name: str, text: str, site: object = "emulated"
) -> tuple[Path, subprocess.Popen[str]]:
    campaign = write(cluster, f"{name}.yaml", text)
    folder = cluster.shared / name
    inside = [*HARNESS, "run", campaign, "--site", str(site), "--folder", str(folder), "--plain"]
    return folder, subprocess.Popen(
        on_login(cluster, inside),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def loses_its_node(cluster: Any, name: str, text: str, site: object = "emulated") -> tuple[Path, str, str]:
    """Run a campaign of one case, power its node off meanwhile; the folder, the node and what the driver said."""
    folder, driver = start(cluster, name, text, site)
    wait("the case runs", lambda: begun(folder))
    started = json.loads((folder / "work/0000/events.jsonl").read_text().splitlines()[0])
    (node,) = started["data"]["nodes"]
    cluster.power("off", node)
    try:
        output, _ = driver.communicate(timeout=200)
    finally:
        cluster.power("on", node)
    assert driver.returncode == 0, output
    return folder, node, output


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    with Results(folder / "results.h5") as results:
        return results.rows(table)


def ledger(folder: Path, what: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [line for line in lines if line["what"] == what]


def wait(what: str, true: Any, deadline_s: float = 90) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.05)


def begun(folder: Path, key: str = "0000") -> bool:
    progress = folder / "work" / key / "progress.json"
    return progress.exists() and json.loads(progress.read_text())["state"] == "running"


def started_once(folder: Path) -> None:
    """Every job key was executed by one Slurm job, every case has one attempt that completed."""
    for events in folder.glob("work/*/events.jsonl"):
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        ids = {line["data"]["job_id"] for line in lines if line["kind"] == "job.started"}
        assert len(ids) == 1, f"{events.parent.name} was executed by {ids}"
    attempts = Counter(a["case_id"] for a in rows(folder, "attempts"))
    cases = rows(folder, "cases")
    assert attempts == {c["case_id"]: 1 for c in cases}
    assert {c["outcome"] for c in cases} == {"completed"}
