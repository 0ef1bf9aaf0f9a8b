"""Schedules on a real Slurm cluster, as its ordinary user: scrontab, jobs that submit themselves, ticks that die."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)

HARNESS = [sys.executable, "-m", "harness"]
CAMPAIGN = """\
schema: 1
name: nightly
seed: 1
groups:
  - {name: halo, workload: mpi.halo, nodes: 1, ranks_per_node: 1, steps: 20, params: {rows: 64, columns: 64}}
"""
# Debian's Slurm has the controller's part of scrontab and not the command: this stands in for it, and keeps a file.
SCRONTAB = """\
#!/bin/sh
table=$HOME/scrontab.table
case $1 in
    -l) cat "$table" 2>/dev/null || { echo "no crontab for $USER"; exit 1; } ;;
    -r) rm "$table" ;;
    *) cat "$1" >"$table" ;;
esac
"""


class Schedule:
    """One schedule on the cluster."""

    def __init__(self, cluster: Any, name: str, *words: str, path: str = "") -> None:
        self.cluster, self.root, self.path = cluster, cluster.shared / name, path
        campaign = cluster.shared / f"{name}.yaml"
        campaign.write_text(CAMPAIGN)
        added = self.harness(str(campaign), "--site", "emulated", "--folder", str(self.root), *words)
        assert added.returncode == 0, added.stdout + added.stderr

    def harness(self, *words: str) -> "subprocess.CompletedProcess[str]":
        prefix = ["env", f"PATH={self.path}:{os.environ['PATH']}"] if self.path else []
        result: subprocess.CompletedProcess[str] = self.cluster.run_as_user(
            [*prefix, *HARNESS, "schedule", *words]
        )
        return result

    def slurm(self, *words: str) -> str:
        result = self.cluster.run_as_user(list(words))
        assert result.returncode == 0, result.stderr
        return str(result.stdout)

    def jobs(self, *, running: bool = True) -> list[str]:
        """Its jobs in the queue that submit themselves."""
        states = "PENDING,CONFIGURING,RUNNING,COMPLETING" if running else "PENDING"
        name = f"hh.schedule.nightly.{json.loads(self._list().stdout)[0]['id']}"
        return self.slurm(
            "squeue", "--noheader", f"--name={name}", f"--states={states}", "--format=%i"
        ).split()

    def _list(self) -> "subprocess.CompletedProcess[str]":
        return self.harness("list", str(self.root), "--json")

    def history(self) -> list[dict[str, Any]]:
        path = self.root / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def happened(self, what: str) -> list[dict[str, Any]]:
        return [line for line in self.history() if line["what"] == what]

    def log(self) -> str:
        path = self.root / "tick.log"
        return path.read_text() if path.exists() else "no tick was made"

    def make_due(self) -> None:
        """As if it had been made two days ago."""
        spec = json.loads((self.root / "schedule.json").read_text())
        (self.root / "schedule.json").write_text(json.dumps({**spec, "since_s": spec["since_s"] - 2 * 86400}))

    def kill_tick(self) -> int:
        """kill -9 of its ticks, wherever they run; returns how many there were."""
        killed = 0
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
                if str(self.root).encode() in words and b"tick" in words and b"exec" not in words:
                    os.kill(int(entry.parent.name), signal.SIGKILL)
                    killed += 1
            except OSError:
                continue
        return killed


def _wait(what: str, is_so: Callable[[], Any], schedule: Schedule, deadline_s: float = 100.0) -> None:
    end = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end, (
            f"{what}: not within {deadline_s} s; {schedule.history()}; {schedule.log()}"
        )
        time.sleep(0.3)


def _attempts(schedule: Schedule, run: str) -> list[tuple[int, str]]:
    lines = (schedule.root / "runs" / run / "work/0000/attempts.jsonl").read_text().splitlines()
    attempts = [x["attempt"] for x in map(json.loads, lines) if x["what"] == "attempt"]
    return [(a["index"], a["outcome"]) for a in attempts if a["outcome"]]


@pytest.fixture(scope="module")
def scrontab(cluster: Any) -> Iterator[Schedule]:
    """A schedule in scrontab, due each minute; made first, so that the others wait with it."""
    place = cluster.shared / "scrontab-bin"
    if shutil.which("scrontab") is None:
        place.mkdir()
        (place / "scrontab").write_text(SCRONTAB)
        (place / "scrontab").chmod(0o755)
    schedule = Schedule(cluster, "by-scrontab", "--every", "1m", "--install", path=str(place))
    yield schedule
    schedule.harness("remove", str(schedule.root))


def _fire(schedule: Schedule) -> None:
    """What Slurm does at the moment of an entry: its command as a script, with its options and no environment."""
    table = Path(f"{schedule.cluster.folder}/home/alice/scrontab.table").read_text().splitlines()
    options = [word for line in table if line.startswith("#SCRON ") for word in line.split()[1:]]
    (entry,) = [line for line in table if line and not line.startswith("#")]
    script = schedule.cluster.shared / "fired.sh"
    script.write_text(f"#!/bin/sh\n{entry.split(' ', 5)[5]}\n")
    words = shlex.join(["sbatch", *options, str(script)])
    schedule.slurm("sh", "-c", f'exec env -i SLURM_CONF="$SLURM_CONF" PATH=/usr/bin {words}')


def test_a_job_that_submits_itself_survives_its_driver_and_leaves_one_successor(
    cluster: Any, scrontab: Schedule
) -> None:
    schedule = Schedule(cluster, "by-itself", "--every", "1m", "--how", "self", "--install")
    (first,) = schedule.jobs()
    schedule.make_due()
    schedule.slurm("scontrol", "update", f"JobId={first}", "StartTime=now")

    def is_submitted() -> bool:
        return any("submitted" in p.read_text() for p in schedule.root.glob("runs/*/ledger.jsonl"))

    _wait("the first job submits its campaign", is_submitted, schedule)
    assert schedule.kill_tick() == 1
    (second,) = schedule.jobs(running=False)  # was there before anything else
    schedule.slurm("scontrol", "update", f"JobId={second}", "StartTime=now")
    _wait("the next job ends the run", lambda: schedule.happened("ended"), schedule)
    ended = schedule.happened("ended")[0]
    assert (ended["exit"], ended["counts"]) == (0, {"pass": 1})
    assert [x["by"]["job"] for x in schedule.happened("started")[:1]] == [first]
    assert _attempts(schedule, ended["run"]) == [(0, "completed")]

    for _ in range(2):  # once too often, and once more
        schedule.slurm("sbatch", str(schedule.root / "schedule.sh"))
    _wait("a second run ends", lambda: len(schedule.happened("ended")) >= 2, schedule)
    assert len(list((schedule.root / "runs").glob("2*"))) >= 2
    assert os.readlink(schedule.root / "latest").startswith("runs/2")

    def one_waits() -> bool:
        return len(schedule.jobs(running=False)) == 1

    _wait("one job is left waiting", one_waits, schedule, 20)
    removed = schedule.harness("remove", str(schedule.root))
    assert (removed.returncode, removed.stderr) == (0, "")
    _wait("none is left", lambda: not schedule.jobs(), schedule, 30)


def test_scrontab_starts_a_run_in_a_small_job_that_has_no_environment(scrontab: Schedule) -> None:
    if shutil.which("scrontab") is None:
        scrontab.make_due()
        _fire(scrontab)
    _wait("a run ends", lambda: scrontab.happened("ended"), scrontab)
    started, ended = scrontab.happened("started")[0], scrontab.happened("ended")[0]
    assert (ended["run"], ended["exit"], ended["counts"]) == (started["run"], 0, {"pass": 1})
    assert started["by"]["host"].startswith("p")  # a compute node
    assert (scrontab.root / "runs" / ended["run"] / "report.html").exists()
    (row,) = json.loads(scrontab.harness("list", str(scrontab.root), "--ask", "--json").stdout)
    assert (row["how"], row["state"]) == ("scrontab", "installed")
    removed = scrontab.harness("remove", str(scrontab.root))
    assert "removed from the scrontab of alice" in removed.stdout
    (row,) = json.loads(scrontab.harness("list", str(scrontab.root), "--ask", "--json").stdout)
    assert row["state"] == "removed"


def test_ticks_that_are_killed_and_come_two_at_once_run_a_campaign_once(cluster: Any) -> None:
    schedule = Schedule(cluster, "by-cron", "--every", "day", "--how", "cron", "--prepare")
    schedule.make_due()
    rng = random.Random(1)
    # As cron runs it: a shell, and next to nothing in its environment.
    words = shlex.join([*HARNESS, "schedule", "tick", str(schedule.root)])
    command = ["env", "-i", "HOME=/", "LOGNAME=alice", "PATH=/usr/bin:/bin", "/bin/sh", "-c", words]
    where = ["--folder", str(cluster.folder), "login"]
    kills, codes = 0, set()
    end = time.monotonic() + 90
    while not schedule.happened("ended"):
        assert time.monotonic() < end, f"{schedule.history()}; {schedule.log()}"
        both = [
            subprocess.Popen(
                [sys.executable, "-m", "harness.devcluster", "exec", *where, "--", *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        if kills < 6:
            time.sleep(rng.uniform(0.3, 1.5))
            kills += schedule.kill_tick()
        codes |= {tick.wait(timeout=60) for tick in both}
    assert kills >= 3
    assert [x["what"] for x in schedule.history()] == ["started", "ended"]
    run = schedule.happened("ended")[0]["run"]
    assert _attempts(schedule, run) == [(0, "completed")]
    assert codes - {137, -9, 247} <= {0, 4}
