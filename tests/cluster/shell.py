"""`harness cluster` on one folder, and what a cluster may leave on a machine. Not a test."""

from __future__ import annotations

import json
import os
import shutil
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
from tests.conftest import ROOT


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
            cwd=ROOT,
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
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"in\n"
    return process


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for a cluster, below one that an ordinary user cannot enter."""
    parent = Path(tempfile.mkdtemp(prefix="devcluster-test-", dir="/tmp"))
    yield parent / "c"
    subprocess.run(Shell(parent / "c").argv("down", "--purge"), cwd=ROOT, check=False, timeout=90)
    shutil.rmtree(parent, ignore_errors=True)


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


# Says what the daemon answers to one request on its socket.
_ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\\n"); print(s.makefile().readline())
"""


def stranger_asks(folder: ClusterFolder, request: dict[str, Any]) -> Any:
    """What the daemon answers to a user of the machine who is neither root nor the cluster's user."""
    result = subprocess.run(
        ["/usr/bin/python3", "-c", _ASK, str(folder.control_socket), json.dumps(request)],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return json.loads(result.stdout)
