"""Faults of the emulated cluster, asked for and looked at by tests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.shell import Shell, wait_for
from tests.conftest import ClusterUnderTest

NODES = ("p1", "p2", "p3", "p4")

# Says whether a datagram arrives: the receiver answers with the first that it gets within 1.2 s, or "nothing".
_RECEIVER = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 4711)); s.settimeout(1.2)
print("ready", flush=True)
try: print(s.recv(100).decode(), flush=True)
except TimeoutError: print("nothing", flush=True)
"""
_SENDER = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(4):
    try: s.sendto(b"heard", (sys.argv[1], 4711))
    except PermissionError: pass  # a packet filter of our own side
    time.sleep(0.05)
"""
_CONNECT = """
import socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close(); print("connected")
except ConnectionRefusedError: print("refused")
except OSError: print("no answer")
"""


class Faults:
    """`harness cluster fault`, `heal` and `faults` on one cluster."""

    def __init__(self, cluster: ClusterUnderTest) -> None:
        self.cluster = cluster
        self.shell = Shell(cluster.folder)

    def begin(self, kind: str, *arguments: str, for_s: float) -> dict[str, Any]:
        lease: dict[str, Any] = json.loads(self.shell.run("fault", kind, *arguments, "--for", str(for_s)))
        assert lease["state"] == "active" and lease["changed"]
        return lease

    def heal(self, *arguments: str) -> list[dict[str, Any]]:
        healed: list[dict[str, Any]] = json.loads(self.shell.run("heal", *arguments))["faults"]
        return healed

    def now(self, serial: int) -> dict[str, Any]:
        listed: list[dict[str, Any]] = json.loads(self.shell.run("faults"))["faults"]
        return next(fault for fault in listed if fault["serial"] == serial)

    def ends_by_itself(self, lease: dict[str, Any], deadline_s: float = 15) -> dict[str, Any]:
        wait_for(lambda: self.now(lease["serial"])["state"] == "healed", deadline_s, f"{lease['kind']} ends")
        ended = self.now(lease["serial"])
        late_s = (ended["healed_wall_ns"] - ended["until_wall_ns"]) / 1e9
        assert ended["healed_by"] == "timer" and late_s >= 0
        return ended

    def on(self, node: str, program: str, *arguments: str) -> str:
        return self.shell.run("exec", node, "--", "/usr/bin/python3", "-c", program, *arguments).strip()

    def connects(self, source: str, target: str, port: int = 6818) -> str:
        return self.on(source, _CONNECT, target, str(port))

    def hears(self, receiver: str, sender: str) -> bool:
        argv = self.shell.argv("exec", receiver, "--", "/usr/bin/python3", "-c", _RECEIVER)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            self.on(sender, _SENDER, receiver)
            return process.stdout.readline() == "heard\n"

    def state(self, node: str) -> str:
        return self.shell.slurm_state(node)

    def reason(self, node: str) -> str:
        return self.shell.login("sinfo", "-h", "-n", node, "-o", "%E").strip()

    def submit(self, text: str, *options: str) -> str:
        script = "#!/bin/bash\n" + text
        result = self.cluster.run_as_user(
            ["sbatch", "--parsable", "--output=/dev/null", *options], input=script, cwd=self.cluster.shared
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()


@pytest.fixture
def faults(cluster: ClusterUnderTest) -> Iterator[Faults]:
    """The shared cluster, all idle before; every fault healed, every job gone after."""
    found = Faults(cluster)
    wait_idle(found)
    yield found
    found.heal("--all")
    cluster.run_as_root(["scancel", "--user=alice"])
    for node in NODES:
        if found.reason(node) != "none":
            cluster.run_as_root(["scontrol", "update", f"NodeName={node}", "State=RESUME"])
    cluster.command(["power", "--folder", str(cluster.folder), "on", *NODES])


def wait_idle(faults: Faults) -> None:
    count = ["idle", str(len(NODES))]
    wait_for(
        lambda: faults.shell.login("sinfo", "-h", "-o", "%T %D").split() == count, 60, "every node is idle"
    )
