"""The emulated cluster, for real: it comes up, computes, passes commands through, loses nodes.

One cluster of four nodes serves all tests of this file.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.shell import Shell, freezer_group, machine, remains, stranger_asks, visitor, wait_for
from tests.cluster.shell import place as place
from tests.conftest import ROOT

pytestmark = pytest.mark.cluster

NODES = 4


@pytest.fixture(scope="module")
def up() -> Iterator[Shell]:
    """Four nodes with two devices each."""
    parent = Path(tempfile.mkdtemp(prefix="devcluster-test-", dir="/tmp"))
    shell = Shell(parent / "c")
    try:
        shell.run("up", "--nodes", str(NODES), "--gres", "gpu:2")
        yield shell
    finally:
        shell.run("down", "--purge")
        assert not shell.folder.root.exists()
        shutil.rmtree(parent)


@pytest.fixture
def healthy(up: Shell) -> Shell:
    """The common cluster, with every node idle again."""
    up.run("power", "on", *(f"p{number}" for number in range(1, NODES + 1)))
    up.login("scancel", "--user", "alice")
    wait_for(
        lambda: up.login("sinfo", "-h", "-o", "%T %D").split() == ["idle", str(NODES)], 60, "every node idle"
    )
    return up


# -- a cluster that works -----------------------------------------------------------------------------


def test_all_nodes_are_idle_and_run_a_program_each(healthy: Shell) -> None:
    assert healthy.login("srun", "-N4", "hostname").split() != []
    assert sorted(healthy.login("srun", "-N4", "hostname").split()) == ["p1", "p2", "p3", "p4"]


def test_status_tells_programs_and_people_the_same(healthy: Shell) -> None:
    status = json.loads(healthy.run("status", "--json"))
    assert [node["name"] for node in status["nodes"]] == ["p1", "p2", "p3", "p4"]
    assert {(node["power"], node["slurm_state"]) for node in status["nodes"]} == {("on", "idle")}
    assert "UP" in status["controller_ping"]
    assert (status["user"], status["account"], status["emulated"]) == ("alice", "lab", True)
    text = healthy.run("status")
    assert all(node["address"] in text for node in status["nodes"])


def test_a_job_of_the_ordinary_user_is_in_accounting(healthy: Shell) -> None:
    job = healthy.script("sbatch --parsable --wait -o job.out --wrap 'id -un; echo $HARNESS_CLUSTER'").strip()
    assert (healthy.folder.shared / "job.out").read_text().split() == ["alice", str(healthy.folder.root)]
    wait_for(
        lambda: (
            healthy.login("sacct", "-nXP", "-j", job, "-o", "user,account,state").split("\n")[0]
            == "alice|lab|COMPLETED"
        ),
        10,
        "the job in sacct",
    )


def test_the_machine_itself_is_a_client_too(healthy: Shell) -> None:
    command = f'eval "$({" ".join(healthy.argv("env"))})"; srun -N2 hostname; sacctmgr -nP list cluster format=cluster'
    result = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(result.stdout.split()) == ["emulated", "p1", "p2"]


def test_devices_are_given_out(healthy: Shell) -> None:
    assert healthy.login("srun", "--gres=gpu:2", "printenv", "CUDA_VISIBLE_DEVICES").strip() == "0,1"


@pytest.mark.parametrize(
    ("plugin", "settings"),
    [("pmi2", ""), ("pmix", "MPI4PY_MPIABI=openmpi MPI4PY_LIBMPI=/usr/lib/x86_64-linux-gnu/libmpi.so.40")],
)
def test_four_mpi_ranks_on_four_nodes_are_one_world(healthy: Shell, plugin: str, settings: str) -> None:
    if subprocess.run([sys.executable, "-c", "import mpi4py"], check=False, capture_output=True).returncode:
        pytest.skip("needs mpi4py (the extra `mpi`); `make test` installs it")
    if plugin == "pmix" and not os.path.exists("/usr/lib/x86_64-linux-gnu/libmpi.so.40"):
        pytest.skip("needs libopenmpi3; `make test` as root installs it")
    program = "from mpi4py import MPI; print(MPI.COMM_WORLD.size, MPI.Get_processor_name())"
    output = healthy.script(f"{settings} srun --mpi={plugin} -N4 -n4 {sys.executable} -c '{program}'")
    assert sorted(output.splitlines()) == ["4 p1", "4 p2", "4 p3", "4 p4"]


def test_node_local_folders_are_private_and_the_shared_one_is_not(healthy: Shell) -> None:
    healthy.script("touch /tmp/mine /dev/shm/mine seen-by-all", where="p1")
    probe = "ls -d /tmp/mine /dev/shm/mine seen-by-all 2>/dev/null; true"
    assert healthy.script(probe, where="p2").split() == ["seen-by-all"]
    assert healthy.script(probe, where="p1").split() == ["/dev/shm/mine", "/tmp/mine", "seen-by-all"]
    assert not os.path.exists("/tmp/mine")


def test_a_node_has_its_own_network_processes_and_name(healthy: Shell) -> None:
    output = healthy.script("hostname; ls /sys/class/net; cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l", "p3")
    name, *links, init, processes = output.split()
    assert (name, links, init) == ("p3", ["eth0", "lo"], "python") and int(processes) < 20


def test_processes_that_left_their_session_end_with_the_job(healthy: Shell) -> None:
    if healthy.cluster().cgroup == "none":
        pytest.skip("without control groups they do not: that is why `status` says so")
    healthy.login("srun", "-w", "p2", "bash", "-c", "setsid sleep 4321 & sleep 0.2")
    wait_for(lambda: healthy.slurm_state("p2") == "idle", 15, "p2 is idle again")
    assert "sleep 4321" not in healthy.script(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; done", "p2"
    )


# -- exec ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["login", "p1"])
def test_exec_passes_status_streams_and_folder_through(healthy: Shell, where: str) -> None:
    result = subprocess.run(
        healthy.argv("exec", where, "--", "bash", "-c", "cat; pwd; id -un; echo oops >&2; exit 7"),
        cwd=ROOT,
        input="from standard input\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 7
    assert result.stdout == f"from standard input\n{ROOT}\nalice\n"
    assert result.stderr == "oops\n"


@pytest.mark.parametrize("where", ["login", "p1"])
def test_exec_as_root_when_asked(healthy: Shell, where: str) -> None:
    assert healthy.run("exec", where, "--root", "--", "id", "-u").strip() == "0"
    assert healthy.run("exec", "--root", where, "--", "id", "-u").strip() == "0"


def test_the_callers_own_harness_comes_first(healthy: Shell) -> None:
    """Also when the cluster was brought up by another environment's interpreter."""
    other = Path(tempfile.mkdtemp(prefix="devcluster-bin-", dir="/tmp"))
    try:
        other.chmod(0o755)
        (other / "python").symlink_to(sys.executable)
        result = subprocess.run(
            [str(other / "python"), *healthy.argv("exec", "login", "--", "bash", "-c", "echo $PATH")[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.split(":")[:2] == [str(other), str(Path(sys.executable).parent)]
    finally:
        shutil.rmtree(other)


def terminal(argv: list[str], folder: Path) -> tuple[int, str]:
    """Run it on a terminal of its own; its exit status, and what it said there."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execv(argv[0], argv)
    said = b""
    begin = time.monotonic()
    while select.select([master], [], [], 30)[0] and time.monotonic() - begin < 60:
        try:
            said += os.read(master, 4096)
        except OSError:
            break  # the last one who had the terminal has gone
    _, status = os.waitpid(pid, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), said.decode()


def test_who_sits_in_a_folder_that_is_not_his_is_told_so_and_a_program_is_not(healthy: Shell) -> None:
    argv = healthy.argv("exec", "login", "--", "true")
    note = f"note: alice cannot write in {ROOT}; her folder is {healthy.folder.shared}"
    assert terminal(argv, ROOT) == (0, note + "\r\n")
    assert terminal(healthy.argv("exec", "login", "--root", "--", "true"), ROOT) == (0, "")
    assert terminal(argv, healthy.folder.shared) == (0, "")
    result = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert (result.stdout, result.stderr) == (b"", b"")


@pytest.mark.parametrize("where", ["login", "p1"])
def test_ctrl_c_reaches_the_command_on_its_terminal(healthy: Shell, where: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(
            sys.executable, healthy.argv("exec", where, "--", "bash", "-c", "tty -s && echo on; sleep 60")
        )
    seen = b""
    begin = time.monotonic()
    while b"on" not in seen:
        assert time.monotonic() - begin < 20, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 100)
    time.sleep(0.3)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert time.monotonic() - begin < 20
    assert os.waitstatus_to_exitcode(status) in (130, -signal.SIGINT)


def test_exec_on_an_unknown_node_names_the_known_ones(healthy: Shell) -> None:
    assert "no node 'p9'" in healthy.run("exec", "p9", "--", "true", status=2)


# -- power --------------------------------------------------------------------------------------------


def test_power_off_kills_everything_and_destroys_local_storage(healthy: Shell) -> None:
    healthy.script("touch /tmp/local /dev/shm/local", where="p3")
    sleeper = visitor(healthy, "p3")
    before = healthy.cluster()
    init = before.host("p3").init
    assert init is not None
    group = freezer_group(before, "p3")
    assert group is None or group.is_dir()

    entry = json.loads(healthy.run("power", "off", "--json", "p3"))

    assert sleeper.wait(5) == 128 + signal.SIGKILL
    assert not init.alive()
    assert group is None or not group.exists()
    assert before.host("p3").link not in os.listdir("/sys/class/net")
    assert entry["requested_monotonic_ns"] < entry["effect_monotonic_ns"] < entry["dead_monotonic_ns"]
    assert healthy.run("power", "status", "p3") == "off\n"
    first = f"has no power; first: harness cluster power --folder {healthy.folder.root} on p3"
    assert first in healthy.run("exec", "p3", "--", "true", status=1)
    assert json.loads(healthy.run("power", "off", "--json", "p3"))["changed"] is False

    healthy.run("power", "on", "p3")
    assert healthy.run("power", "status", "p3") == "on\n"
    assert healthy.script("ls /tmp/local /dev/shm/local 2>/dev/null; true", where="p3") == ""
    wait_for(lambda: healthy.slurm_state("p3") == "idle", 30, "p3 is idle by itself")
    log = [json.loads(line) for line in healthy.folder.power_log.read_text().splitlines()]
    assert [(line["node"], line["action"], line["changed"]) for line in log[-3:]] == [
        ("p3", "off", True),
        ("p3", "off", False),
        ("p3", "on", True),
    ]


def test_a_frozen_node_can_be_powered_off(healthy: Shell) -> None:
    group = freezer_group(healthy.cluster(), "p2")
    if group is None:
        pytest.skip("needs control groups that can be mounted; CI's machine has them")
    (group / "freezer.state").write_text("FROZEN")
    healthy.run("power", "off", "p2", timeout_s=20)
    assert healthy.run("power", "status", "p2") == "off\n"


def test_a_job_switches_nodes_as_the_ordinary_user(healthy: Shell) -> None:
    healthy.script(
        f"sbatch --wait -w p1 -o power.out --wrap 'cd {ROOT} && "
        f"for action in off on; do {sys.executable} -m harness.devcluster power $action p4 --json; done'"
    )
    entries = [json.loads(line) for line in (healthy.folder.shared / "power.out").read_text().splitlines()]
    assert [(entry["action"], entry["asked_by"], entry["changed"]) for entry in entries] == [
        ("off", "alice", True),
        ("on", "alice", True),
    ]


def test_a_job_on_a_lost_node_is_requeued_to_another(healthy: Shell) -> None:
    log = healthy.folder.shared / "requeue.log"
    healthy.script(
        "cat >job.sh <<'END'\n#!/bin/bash\n"
        f'echo "${{SLURM_RESTART_COUNT-unset}} $SLURMD_NODENAME" >>{log}\n'
        '[ -n "$SLURM_RESTART_COUNT" ] || exec sleep 600\nEND\n'
        "sbatch -N1 --requeue -o /dev/null job.sh"
    )
    wait_for(log.exists, 15, "the job runs")
    lost = log.read_text().split()[1]
    healthy.run("power", "off", lost)
    elapsed_s = wait_for(lambda: len(log.read_text().splitlines()) == 2, 90, "the job runs again")
    print(f"requeued and running again after {elapsed_s:.1f} s")
    first, second = (line.split() for line in log.read_text().splitlines())
    assert (first[0], second[0]) == ("unset", "1")
    assert second[1] != lost
    healthy.run("power", "on", lost)
    wait_for(lambda: healthy.slurm_state(lost) == "idle", 60, "the lost node is idle again")


def test_other_users_may_not_touch_the_power(healthy: Shell) -> None:
    healthy.folder.root.parent.chmod(0o755)
    answer = stranger_asks(healthy.folder, {"verb": "power", "action": "off", "nodes": ["p1"]})
    assert answer == {"ok": False, "error": "user 65534 may not: only root and alice"}
    assert healthy.run("power", "status", "p1") == "on\n"


def test_nonsense_on_the_control_socket_is_answered_and_survived(healthy: Shell) -> None:
    for line in (
        b"\n",
        b"[]\n",
        b'{"verb": "power"}\n',
        b'{"verb": "power", "action": "on", "nodes": [3]}\n',
        b"x",
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(5)
            channel.connect(str(healthy.folder.control_socket))
            channel.sendall(line)
            channel.shutdown(socket.SHUT_WR)
            assert json.loads(channel.makefile().readline())["ok"] is False
    assert "no node p99" in healthy.run("power", "off", "p99", status=1)
    assert healthy.run("power", "status", "p1") == "on\n"


# -- beside other clusters ----------------------------------------------------------------------------


def test_up_again_is_an_error_unless_reuse_fits(healthy: Shell) -> None:
    assert "is up in" in healthy.run("up", "--nodes", "4", status=1)
    assert "cluster reused" in healthy.run("up", "--nodes", "4", "--gres", "gpu:2", "--reuse")
    assert "--reuse asks for" in healthy.run("up", "--nodes", "5", "--gres", "gpu:2", "--reuse", status=1)


def test_two_clusters_side_by_side(healthy: Shell, place: Path) -> None:
    other = Shell(place)
    before = machine()
    other.run("up", "--nodes", "1")
    assert other.login("srun", "hostname").strip() == "p1"
    assert other.cluster().subnet != healthy.cluster().subnet
    identity = other.cluster().identity
    output = other.run("down")
    assert "cluster down" in output
    assert remains(identity, place) == []
    assert machine() == before
    assert "nothing to take down" in other.run("down")
    assert healthy.login("srun", "-N4", "true") == ""
