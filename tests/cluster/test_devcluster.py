"""The emulated cluster, for real: it comes up, computes, loses nodes, and leaves nothing behind.

One cluster of four nodes serves most tests;
those that destroy a cluster bring up their own, of one or two nodes.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.devcluster import state
from harness.devcluster.folder import ClusterFolder

pytestmark = pytest.mark.cluster

PROJECT = Path(__file__).resolve().parents[2]
NODES = 4


class Shell:
    """`harness cluster` on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = ClusterFolder(folder)

    def argv(self, verb: str, *arguments: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "harness.devcluster",
            verb,
            "--folder",
            str(self.folder.root),
            *arguments,
        ]

    def run(self, verb: str, *arguments: str, status: int = 0, timeout_s: float = 90) -> str:
        result = subprocess.run(
            self.argv(verb, *arguments),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == status, (
            f"{verb} {arguments}: {result.returncode}\n{result.stdout}{result.stderr}"
        )
        return result.stdout + (result.stderr if status else "")

    def login(self, *command: str, status: int = 0) -> str:
        return self.run("exec", "login", "--", *command, status=status)

    def script(self, text: str, where: str = "login", status: int = 0) -> str:
        return self.run("exec", where, "--", "bash", "-c", f"cd {self.folder.shared}\n{text}", status=status)

    def cluster(self) -> state.Cluster:
        cluster = state.read(self.folder)
        assert cluster is not None
        return cluster

    def slurm_state(self, node: str) -> str:
        return self.login("sinfo", "-h", "-n", node, "-o", "%T").strip()


def wait_for(condition: Callable[[], bool], deadline_s: float, what: str) -> float:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < deadline_s, f"waited {deadline_s} s in vain: {what}"
        time.sleep(0.1)
    return time.monotonic() - begin


def visitor(shell: Shell, where: str) -> subprocess.Popen[bytes]:
    """A command that stays there, once it is there."""
    process = subprocess.Popen(
        shell.argv("exec", where, "--", "bash", "-c", "echo in; exec sleep 1000"),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"in\n"
    return process


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for a cluster, below one that an ordinary user cannot enter."""
    parent = Path(tempfile.mkdtemp(prefix="devcluster-test-", dir="/tmp"))
    yield parent / "c"
    subprocess.run(Shell(parent / "c").argv("down", "--purge"), cwd=PROJECT, check=False, timeout=90)
    shutil.rmtree(parent, ignore_errors=True)


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


# -- what remains of a cluster ------------------------------------------------------------------------


def machine() -> dict[str, object]:
    """What a cluster must not change."""
    return {
        "mounts": Path("/proc/self/mounts").read_text(),
        "hosts": Path("/etc/hosts").read_text(),
        "passwd": Path("/etc/passwd").read_text(),
        "group": Path("/etc/group").read_text(),
        "etc slurm": sorted(os.listdir("/etc/slurm")),
        "munge": os.path.exists("/run/munge"),
        "mysqld": os.path.exists("/run/mysqld"),
    }


def remains(identity: str, folder: Path, namespaces: frozenset[str] = frozenset()) -> list[str]:
    """Whatever on this machine still belongs to that cluster."""
    found = [f"link {name}" for name in os.listdir("/sys/class/net") if identity in name]
    for top, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [f"control group {top}/{name}" for name in folders if identity in name]
    for entry in filter(str.isdigit, os.listdir("/proc")):
        if int(entry) == os.getpid():
            continue
        try:
            told = Path(f"/proc/{entry}/cmdline").read_bytes() + Path(f"/proc/{entry}/mountinfo").read_bytes()
            told += os.readlink(f"/proc/{entry}/root").encode() + os.readlink(f"/proc/{entry}/cwd").encode()
            spaces = {os.readlink(f"/proc/{entry}/ns/{kind}") for kind in ("net", "pid", "mnt")}
        except OSError:
            continue
        if str(folder).encode() in told or identity.encode() in told or spaces & namespaces:
            found.append(f"process {entry}: {told[:200]!r}")
    if folder.exists():
        found += [f"file {path}" for path in folder.iterdir()]
    return found


def freezer_group(cluster: state.Cluster, node: str) -> Path | None:
    """A node's group in the freezer hierarchy, as the daemon sees it; None where there is none."""
    assert cluster.daemon is not None
    for folder in cluster.cgroup_folders:
        if "/freezer/" in folder:
            return Path(f"/proc/{cluster.daemon.pid}/root{folder}/{node}")
    return None


def namespaces_of(cluster: state.Cluster) -> frozenset[str]:
    pids = [host.init.pid for host in (*cluster.nodes, cluster.head) if host.init is not None]
    return frozenset(os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids for kind in ("net", "pid", "mnt"))


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
        ["bash", "-c", command], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
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
        cwd=PROJECT,
        input="from standard input\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 7
    assert result.stdout == f"from standard input\n{PROJECT}\nalice\n"
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
            cwd=PROJECT,
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
    note = f"note: alice cannot write in {PROJECT}; her folder is {healthy.folder.shared}"
    assert terminal(argv, PROJECT) == (0, note + "\r\n")
    assert terminal(healthy.argv("exec", "login", "--root", "--", "true"), PROJECT) == (0, "")
    assert terminal(argv, healthy.folder.shared) == (0, "")
    result = subprocess.run(argv, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert (result.stdout, result.stderr) == (b"", b"")


@pytest.mark.parametrize("where", ["login", "p1"])
def test_ctrl_c_reaches_the_command_on_its_terminal(healthy: Shell, where: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(PROJECT)
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
        f"sbatch --wait -w p1 -o power.out --wrap 'cd {PROJECT} && "
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
    request = json.dumps({"verb": "power", "action": "off", "nodes": ["p1"]})
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(sys.argv[2].encode() + b'\\n'); print(s.makefile().readline())"
    )
    result = subprocess.run(
        ["/usr/bin/python3", "-c", program, str(healthy.folder.control_socket), request],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert json.loads(result.stdout) == {"ok": False, "error": "user 65534 may not: only root and alice"}
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


# -- what a site may do otherwise ----------------------------------------------------------------------


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


# -- what tests do to the controller --------------------------------------------------------------------


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


def test_up_again_is_an_error_unless_reuse_fits(healthy: Shell) -> None:
    assert "is up in" in healthy.run("up", "--nodes", "4", status=1)
    assert "cluster reused" in healthy.run("up", "--nodes", "4", "--gres", "gpu:2", "--reuse")
    assert "--reuse asks for" in healthy.run("up", "--nodes", "5", "--gres", "gpu:2", "--reuse", status=1)


def test_up_leaves_a_foreign_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    shell = Shell(tmp_path)
    assert "it is left alone" in shell.run("up", "--nodes", "1", status=2)
    assert "nothing to take down" in shell.run("down")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


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
        shell.argv("up", "--nodes", "2"), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
