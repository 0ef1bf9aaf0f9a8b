"""Faults of the emulated cluster, for real: each has its effect, ends by itself, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster.faulting import Faults
from tests.cluster.faulting import faults as faults
from tests.cluster.shell import Shell, machine, namespaces_of, remains, stranger_asks, wait_for

# -- the network ----------------------------------------------------------------------------------------


def test_a_link_that_is_down_carries_nothing_and_comes_back_by_itself(faults: Faults) -> None:
    lease = faults.begin("link-down", "--node", "p2", for_s=3)
    (link,) = lease["evidence"]["ip -j link"].values()
    assert (link["operstate"], "UP" in link["flags"]) == ("DOWN", False)
    assert (faults.connects("p1", "p2"), faults.connects("p1", "p3")) == ("no answer", "connected")
    faults.ends_by_itself(lease)
    assert faults.connects("p1", "p2") == "connected"


def test_a_node_that_is_cut_off_hears_nobody_and_heal_ends_it_twice(faults: Faults) -> None:
    lease = faults.begin("partition", "--node", "p2", "--id", "cut", for_s=60)
    assert faults.connects("p2", "p2") == "connected"  # its own loopback
    assert (faults.connects("p1", "p2"), faults.connects("p1", "p3")) == ("no answer", "connected")
    assert (faults.hears("p2", "head"), faults.hears("p1", "p2")) == (False, False)
    (first,) = faults.heal("cut")
    (second,) = faults.heal("cut")
    assert (first["state"], first["healed_by"]) == ("healed", "root")
    assert second == first and first["serial"] == lease["serial"]
    assert faults.heal("never-was") == []
    assert faults.connects("p1", "p2") == "connected"


def test_two_halves_hear_themselves_only(faults: Faults) -> None:
    lease = faults.begin("partition", "--halves", "--id", "split", for_s=30)
    assert f"fault split: partition p1,p2|p3,p4, active until {lease['until']}" in faults.shell.run("status")
    assert faults.connects("p1", "p2") == faults.connects("p4", "p3") == "connected"
    assert faults.connects("p1", "p3") == faults.connects("p4", "p2") == "no answer"
    assert faults.connects("p1", "head", 6817) == faults.connects("p3", "head", 6817) == "connected"


def test_one_direction_alone_is_cut(faults: Faults) -> None:
    faults.begin("partition", "--from", "p[1-2]", "--to", "p3,head", "--one-way", for_s=30)
    assert (faults.hears("p3", "p1"), faults.hears("p1", "p3")) == (False, True)
    assert (faults.hears("p4", "p1"), faults.hears("p2", "p1")) == (True, True)


def test_an_open_connection_outlives_a_short_partition(faults: Faults) -> None:
    server = (
        "import socket; s = socket.create_server(('', 4712)); print('ready', flush=True);"
        "c, _ = s.accept(); print(c.recv(9), flush=True); print(c.recv(9), flush=True)"
    )
    client = (
        "import socket, sys; s = socket.create_connection(('p2', 4712)); s.sendall(b'one'); print('sent', flush=True);"
        "sys.stdin.readline(); s.sendall(b'two'); sys.stdin.readline()"
    )
    python = ("--", "/usr/bin/python3", "-c")
    with (
        subprocess.Popen(
            faults.shell.argv("exec", "p2", *python, server), stdout=subprocess.PIPE, text=True
        ) as there,
    ):
        assert there.stdout is not None and there.stdout.readline() == "ready\n"
        with subprocess.Popen(
            faults.shell.argv("exec", "p1", *python, client),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as here:
            assert here.stdin is not None and here.stdout is not None
            assert here.stdout.readline() == "sent\n" and there.stdout.readline() == "b'one'\n"
            lease = faults.begin("partition", "--node", "p1", for_s=2)
            here.stdin.write("\n")
            here.stdin.flush()
            faults.ends_by_itself(lease)
            assert there.stdout.readline() == "b'two'\n"
            here.stdin.write("\n")


def test_a_partition_ends_by_itself_when_whoever_asked_is_killed(faults: Faults) -> None:
    asking = (
        "import subprocess, sys, time; subprocess.run(sys.argv[1:], check=True);"
        "print('on', flush=True); time.sleep(60)"
    )
    argv = faults.shell.argv("fault", "partition", "--node", "p3", "--for", "3")
    process = subprocess.Popen([sys.executable, "-c", asking, *argv], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lease = json.loads(process.stdout.readline())
    assert process.stdout.readline() == "on\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert faults.connects("p1", "p3") == "no answer"
    faults.ends_by_itself(lease)
    assert faults.connects("p1", "p3") == "connected"


def test_the_kernel_ends_a_partition_also_while_the_daemon_cannot(faults: Faults) -> None:
    daemon = faults.shell.cluster().daemon
    assert daemon is not None
    lease = faults.begin("partition", "--node", "p4", for_s=2)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        assert faults.connects("p1", "p4") == "no answer"
        wait_for(lambda: faults.connects("p1", "p4") == "connected", 10, "p4 answers")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert faults.ends_by_itself(lease)["healed"]["done"] == {"p4": "table deleted"}


def test_a_loss_of_power_ends_a_fault_of_that_node(faults: Faults) -> None:
    lease = faults.begin("partition", "--node", "p2", for_s=60)
    faults.shell.run("power", "off", "p2")
    faults.shell.run("power", "on", "p2")
    assert faults.connects("p1", "p2") == "connected"
    (healed,) = faults.heal(lease["id"])
    assert healed["healed"]["done"] == {"p2": "it lost its power, and the fault with it"}


# -- Slurm's daemons ------------------------------------------------------------------------------------


def test_tasks_live_while_slurmd_is_gone_and_it_comes_back_by_itself(faults: Faults) -> None:
    beats = faults.cluster.shared / "beats"
    beats.unlink(missing_ok=True)
    faults.submit(f"while true; do date >>{beats}; sleep 0.1; done", "-w", "p2")
    wait_for(beats.exists, 15, "the task runs")
    lease = faults.begin("slurmd-stop", "--node", "p2", for_s=3)
    assert len(lease["evidence"]["p2"]["steps alive"]) >= 1
    assert faults.connects("p1", "p2") == "refused"
    size = beats.stat().st_size
    time.sleep(0.5)
    assert beats.stat().st_size > size
    faults.ends_by_itself(lease)
    assert faults.connects("p1", "p2") == "connected"
    faults.cluster.run_as_root(["scancel", "--user=alice"])
    assert faults.cluster.run_as_user(["srun", "-w", "p2", "hostname"]).stdout == "p2\n"


def test_a_controller_that_is_killed_refuses_and_is_started_again(faults: Faults) -> None:
    lease = faults.begin("controller-kill", for_s=2)
    assert faults.connects("p1", "head", 6817) == "refused"
    faults.ends_by_itself(lease)
    assert faults.cluster.run_as_user(["srun", "hostname"], timeout=20).returncode == 0


def test_a_controller_that_was_killed_comes_back_with_the_jobs_of_that_moment(faults: Faults) -> None:
    def state_of(job: str) -> str:
        return faults.shell.login("scontrol", "-o", "show", "job", job).split("JobState=")[1].split()[0]

    def becomes(job: str, state: str) -> None:
        wait_for(lambda: state_of(job) == state, 15, f"the job is {state}")

    jobs = [faults.submit("sleep 300", "-w", node) for node in ("p1", "p2")]
    for job in jobs:  # the second ends within the seconds for which slurmctld keeps a change to itself
        becomes(job, "RUNNING")
        faults.cluster.run_as_root(["scancel", job])
        becomes(job, "CANCELLED")
    faults.heal(faults.begin("controller-kill", for_s=30)["id"])
    assert [state_of(job) for job in jobs] == ["CANCELLED", "CANCELLED"]


def test_what_needs_the_controller_is_healed_after_it_and_in_time_otherwise(faults: Faults) -> None:
    drain = faults.begin("drain", "--node", "p1", for_s=1)
    freeze = faults.begin("controller-freeze", for_s=4)
    with pytest.raises(subprocess.TimeoutExpired):
        faults.cluster.run_as_user(["squeue"], timeout=1.5)
    link = faults.begin("link-down", "--node", "p3", for_s=1)
    faults.ends_by_itself(link)
    assert faults.now(freeze["serial"])["state"] == "active"
    assert faults.now(drain["serial"])["state"] == "healing"
    thawed = faults.ends_by_itself(freeze)
    assert faults.ends_by_itself(drain)["healed_wall_ns"] > thawed["healed_wall_ns"]
    assert faults.reason("p1") == "none"


# -- what the administrator does ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "states"), [("drain", ("drained", "draining")), ("fail", ("fail", "fail"))])
def test_a_node_is_taken_away_and_given_back_and_its_job_runs_on(
    faults: Faults, kind: str, states: tuple[str, str]
) -> None:
    job = faults.submit("exec sleep 100", "-w", "p2")
    running = ["squeue", "-h", "-j", job, "-o", "%T"]
    wait_for(lambda: faults.shell.login(*running) == "RUNNING\n", 15, "the job runs")
    lease = faults.begin(kind, "--node", "p2,p3", "--id", f"mine/{kind}", for_s=60)
    assert [faults.reason(node) for node in ("p2", "p3")] == [f"harness-fault mine/{kind}"] * 2
    assert (faults.state("p3"), faults.state("p2")) == states
    assert faults.shell.login(*running) == "RUNNING\n"
    faults.heal(lease["id"])
    assert [faults.reason(node) for node in ("p3", "p2")] == ["none", "none"]
    # Slurm asks a node that is resumed whether it is there: "idle*" until it has answered.
    wait_for(
        lambda: (faults.state("p3"), faults.state("p2")) == ("idle", "mixed"), 15, "both are in use again"
    )


def test_a_node_whose_reason_is_not_ours_is_neither_taken_nor_resumed(faults: Faults) -> None:
    lease = faults.begin("drain", "--node", "p2", for_s=60)
    faults.cluster.run_as_root(["scontrol", "update", "NodeName=p2", "Reason=bad disk"])
    faults.cluster.run_as_root(
        ["scontrol", "update", "NodeName=p3", "State=DRAIN", "Reason=harness-fault other"]
    )
    (healed,) = faults.heal(lease["id"])
    assert healed["state"] == "healed"
    assert healed["healed"]["done"] == {"p2": "not resumed: its reason is 'bad disk', which is not ours"}
    assert (faults.state("p2"), faults.reason("p2")) == ("drained", "bad disk")
    refusal = faults.shell.run("fault", "drain", "--node", "p3", "--for", "5", status=1)
    assert "p3 has a reason already, 'harness-fault other': it is left alone" in refusal
    assert (faults.state("p3"), faults.reason("p3")) == ("drained", "harness-fault other")


def test_a_job_is_preempted_and_runs_again(faults: Faults) -> None:
    starts = faults.cluster.shared / "starts"
    starts.unlink(missing_ok=True)
    job = faults.submit(f"echo $SLURM_RESTART_COUNT. >>{starts}; exec sleep 100", "-w", "p2", "--requeue")
    wait_for(starts.exists, 15, "the job runs")
    partitions = faults.shell.login("sinfo", "--all", "-h", "-o", "%P")
    lease = faults.begin("preempt", "--node", "p2", for_s=60)
    wait_for(
        lambda: faults.shell.login("squeue", "--all", "-h", "-w", "p2", "-t", "R", "-o", "%u") == "root\n",
        15,
        "root's job has the node",
    )
    assert faults.shell.login("squeue", "-h", "-j", job, "-o", "%T") == "PENDING\n"
    assert faults.shell.login("sinfo", "-h", "-o", "%P") == partitions  # hidden
    faults.heal(lease["id"])
    assert faults.shell.login("sinfo", "--all", "-h", "-o", "%P") == partitions
    wait_for(lambda: starts.read_text() == ".\n1.\n", 25, "the job runs again")


# -- storage --------------------------------------------------------------------------------------------


def test_the_shared_folder_is_away_on_one_node_alone(faults: Faults) -> None:
    shared = faults.cluster.shared
    (shared / "here").write_text("data")
    look = (
        f"import os\nfor path in ('here', 'made'):\n"
        f"    try: open('{shared}/' + path, 'a' if path == 'made' else 'r'); print('yes')\n"
        "    except OSError as error: print(type(error).__name__, error.errno)"
    )
    holding = (
        f"import sys; f = open('{shared}/here', 'a', 1); print('open', flush=True);"
        "sys.stdin.readline(); f.write('+')"
    )
    with subprocess.Popen(
        faults.shell.argv("exec", "p1", "--root", "--", "/usr/bin/python3", "-c", holding),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        lease = faults.begin("storage-away", "--node", "p1", for_s=3)
        assert faults.on("p1", look).split("\n") == ["FileNotFoundError 2", "OSError 30"]
        assert faults.on("p2", look).split("\n") == ["yes", "yes"]
        process.communicate("\n", timeout=10)
    assert (shared / "here").read_text() == "data+"  # what is open stays so
    assert "is active; first: harness cluster heal" in faults.shell.run(
        "fault", "storage-away", "--node", "p[1-2]", "--for", "5", status=1
    )
    faults.ends_by_itself(lease)
    assert faults.on("p1", look).split("\n") == ["yes", "yes"]


# -- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("drain", "--node", "p1"), "no --for: a fault lasts 0.1 to 600 s"),
        (("drain", "--node", "p1", "--for", "601"), "--for 601: a fault lasts 0.1 to 600 s"),
        (("drain", "--node", "p1", "--for", "nan"), "--for nan: a fault lasts 0.1 to 600 s"),
        (("drain", "--for", "5"), "which nodes? Give --node"),
        (("drain", "--node", "p9", "--for", "5"), "no node p9; there are p1 to p4"),
        (("flood", "--for", "5"), "fault 'flood': there are slurmd-stop,"),
        (("controller-kill", "--node", "p1", "--for", "5"), "there is one controller; leave --node out"),
        (("partition", "--from", "p1", "--for", "5"), "or --from and --to, which share no host"),
        (("link-down", "--node", "p1", "--one-way", "--for", "5"), "--halves are for partition"),
        (("drain", "--node", "p1", "--for", "5", "--id", "a b"), "letters, digits and ._:/+- are allowed"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_done(
    faults: Faults, arguments: tuple[str, ...], said: str
) -> None:
    before = faults.shell.run("faults")
    result = subprocess.run(
        faults.shell.argv("fault", *arguments), capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode in (1, 2) and said in result.stderr
    assert faults.shell.run("faults") == before


def test_the_socket_itself_gives_no_fault_without_an_end_and_none_to_other_users(faults: Faults) -> None:
    request = {"verb": "fault", "kind": "link-down", "nodes": ["p1"]}
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(faults.shell.folder.control_socket))
        channel.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(channel.makefile().readline())
    assert (answer["ok"], answer["error"][:8]) == (False, "no --for")
    faults.cluster.folder.chmod(0o755)
    for asked in ({**request, "for_s": 5.0}, {"verb": "heal", "id": None}):
        answer = stranger_asks(faults.shell.folder, asked)
        assert answer == {"ok": False, "error": "user 65534 may not: only root and alice"}
    assert faults.connects("p2", "p1") == "connected"


def test_the_same_id_is_the_same_fault(faults: Faults) -> None:
    lease = faults.begin("link-down", "--node", "p1", "--id", "one", for_s=30)
    again = json.loads(faults.shell.run("fault", "link-down", "--node", "p1", "--id", "one", "--for", "9"))
    assert (again["serial"], again["until"], again["changed"]) == (lease["serial"], lease["until"], False)
    assert "a fault of that id is active" in faults.shell.run(
        "fault", "drain", "--node", "p1", "--id", "one", "--for", "9", status=1
    )


# -- what remains of a cluster --------------------------------------------------------------------------


@pytest.mark.parametrize("daemon_killed", [False, True])
def test_down_undoes_every_fault(daemon_killed: bool) -> None:
    before = machine()
    parent = Path(tempfile.mkdtemp(prefix="harness-test-", dir="/tmp"))
    place = parent / "c"
    shell = Shell(place)
    try:
        shell.run("up", "--nodes", "3")
        cluster = shell.cluster()
        spaces = namespaces_of(cluster)
        for arguments in (
            ("partition", "--node", "p1"),
            ("link-down", "--node", "p1"),
            ("slurmd-stop", "--node", "p2"),
            ("storage-away", "--node", "p2"),
            ("drain", "--node", "p3"),
            ("preempt", "--node", "p3"),
            ("controller-freeze",),
        ):
            shell.run("fault", *arguments, "--for", "600")
        assert len(shell.folder.faults.read_text().splitlines()) == 14
        if daemon_killed:
            assert cluster.daemon is not None
            os.kill(cluster.daemon.pid, signal.SIGKILL)
        shell.run("down", "--keep-logs")
        last = {
            line["serial"]: line for line in map(json.loads, shell.folder.faults.read_text().splitlines())
        }
        expected = ("active", "") if daemon_killed else ("healed", "down")
        assert [(line["state"], line["healed_by"]) for line in last.values()] == [expected] * 7
        shell.run("down", "--purge")
        assert remains(cluster.identity, place, spaces) == []
        assert machine() == before
    finally:
        shell.run("down", "--purge")
        shutil.rmtree(parent)
