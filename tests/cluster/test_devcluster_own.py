"""Emulated clusters of a test's own, for real: settings of a site, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.shell import Shell, machine, namespaces_of, remains, visitor, wait_for
from tests.cluster.shell import place as place
from tests.conftest import ROOT

pytestmark = pytest.mark.cluster


# -- what a site may do otherwise ---------------------------------------------------------------------


def test_without_accounting_jobs_run_and_sacct_fails_as_on_such_sites(
    cluster_without_accounting: Any,
) -> None:
    there = cluster_without_accounting
    assert there.run_as_user(["srun", "-N4", "true"]).returncode == 0
    answer = there.run_as_user(["sacct"])
    assert (answer.returncode, answer.stderr) == (1, "Slurm accounting storage is disabled\n")
    assert "no accounting: neither MariaDB nor slurmdbd" in Shell(there.folder).run("status")
    status = json.loads(Shell(there.folder).run("status", "--json"))
    assert (status["accounting"], status["settings"]) == (False, [])
    assert sorted(os.listdir(there.folder / "etc")) == [
        "cgroup.conf", "gres.conf", "group", "hosts", "passwd", "slurm.conf",
    ]  # fmt: skip


def test_a_sites_own_settings_are_in_force(place: Path) -> None:
    shell = Shell(place)
    settings = [
        "MaxArraySize=11",
        "AccountingStorageEnforce=limits,qos",
        "PartitionName=low Nodes=ALL MaxTime=5",
        "NodeName=p2 Feature=fast",
    ]
    shell.run("up", "--nodes", "2", *(word for line in settings for word in ("--conf", line)))
    assert "Invalid job array specification" in shell.run(
        "exec", "login", "--", "sbatch", "--array=0-11", "--wrap=true", status=1
    )
    assert shell.login("srun", "-p", "low", "-t", "5", "-C", "fast", "hostname") == "p2\n"
    assert json.loads(shell.run("status", "--json"))["settings"] == settings
    shell.run(
        "exec", "head", "--root", "--", "sacctmgr", "-i", "modify", "user", "alice", "set", "MaxSubmitJobs=1"
    )
    command = "sbatch -H --wrap true && sbatch -H --wrap true"
    assert "AssocMaxSubmitJobLimit" in shell.run("exec", "login", "--", "sh", "-c", command, status=1)
    assert "--reuse asks for" in shell.run("up", "--nodes", "2", "--reuse", status=1)


def test_a_setting_that_slurm_does_not_know_leaves_nothing(place: Path) -> None:
    before = machine()
    assert "unrecognized key: Nonsense" in Shell(place).run(
        "up", "--nodes", "1", "--conf", "Nonsense=1", status=1
    )
    assert not place.exists()
    assert machine() == before


# -- what tests do to the controller ------------------------------------------------------------------


def test_a_controller_that_was_killed_or_frozen_serves_again(cluster: Any) -> None:
    with cluster.controller_stopped():
        assert "Unable to contact slurm controller" in cluster.run_as_user(["squeue"]).stderr
    assert cluster.run_as_user(["squeue"]).returncode == 0
    with cluster.controller_frozen():
        assert "Socket timed out" in cluster.run_as_user(["squeue"]).stderr
    assert cluster.run_as_user(["squeue"]).returncode == 0


def test_what_the_scheduler_was_asked_is_counted_by_itself(cluster: Any) -> None:
    cluster.forget_requests()
    cluster.run_as_user(["squeue"])
    cluster.run_as_user(["squeue"])
    cluster.run_as_user(["sacct"])
    asked = cluster.requests()
    assert asked.controller["REQUEST_JOB_INFO"] == 2
    assert (asked.accounts["DBD_GET_JOBS_COND"], asked.accounts_by_user["alice"] > 0) == (1, True)
    assert asked.controller_by_user["alice"] == sum(asked.controller.values())


# -- up and down --------------------------------------------------------------------------------------


def test_up_leaves_a_foreign_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    shell = Shell(tmp_path)
    assert "it is left alone" in shell.run("up", "--nodes", "1", status=2)
    assert "nothing to take down" in shell.run("down")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_down_keeps_what_the_user_wrote(place: Path) -> None:
    shell = Shell(place)
    shell.run("up", "--nodes", "1")
    shell.script("echo result >result.txt")
    shell.run("down", "--keep-logs")
    assert (shell.folder.shared / "result.txt").read_text() == "result\n"
    assert shell.folder.log("slurmctld").exists()
    shell.run("up", "--nodes", "1")
    assert shell.script("cat result.txt") == "result\n"
    shell.run("down", "--purge")
    assert not place.exists()


def test_a_killed_daemon_takes_its_nodes_along_and_down_clears_up(place: Path) -> None:
    before = machine()
    shell = Shell(place)
    shell.run("up", "--nodes", "2")
    cluster = shell.cluster()
    spaces = namespaces_of(cluster)
    visitors = [visitor(shell, where) for where in ("login", "p1")]
    assert cluster.daemon is not None
    os.kill(cluster.daemon.pid, signal.SIGKILL)
    inits = [host.init for host in (*cluster.nodes, cluster.head) if host.init is not None]
    wait_for(lambda: not any(init.alive() for init in inits), 10, "every host dies with the daemon")

    assert "has lost its daemon" in shell.run("exec", "p1", "--", "true", status=1)
    shell.run("down")

    assert [guest.wait(5) for guest in visitors] == [-signal.SIGKILL, 128 + signal.SIGKILL]
    assert remains(cluster.identity, place, spaces) == []
    assert machine() == before


def test_down_needs_only_the_cookie(place: Path) -> None:
    before = machine()
    shell = Shell(place)
    shell.run("up", "--nodes", "1")
    cluster = shell.cluster()
    spaces = namespaces_of(cluster)
    shell.folder.state.write_text("torn")
    assert "not JSON" in shell.run("exec", "p1", "--", "true", status=1)
    shell.run("down")
    assert remains(cluster.identity, place, spaces) == []
    assert machine() == before


@pytest.mark.parametrize("how", ["daemon killed", "ctrl-c", "up killed"])
def test_an_interrupted_up_leaves_nothing(place: Path, how: str) -> None:
    before = machine()
    shell = Shell(place)
    starting = subprocess.Popen(
        shell.argv("up", "--nodes", "2"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert starting.stdout is not None
    while b"munge" not in starting.stdout.readline():
        assert starting.poll() is None
    cluster = shell.cluster()
    assert cluster.daemon is not None
    if how == "daemon killed":
        os.kill(cluster.daemon.pid, signal.SIGKILL)
    elif how == "ctrl-c":
        starting.send_signal(signal.SIGINT)
    else:
        starting.kill()
    _, errors = starting.communicate(timeout=60)
    assert starting.returncode == {"daemon killed": 1, "ctrl-c": 130, "up killed": -9}[how], errors
    if how == "ctrl-c":
        assert errors.count(b"\n") == 1 and b"stopped; what had started was taken down again" in errors
    shell.run("down")
    assert remains(cluster.identity, place) == []
    assert machine() == before
