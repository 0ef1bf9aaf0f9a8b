"""Process 1 of a node or of the head: enter the namespaces, start the daemons, bury the orphans.

It is forked by the cluster's daemon and dies with it. The daemon leads it by lines over a socket
pair, because a host's network exists only once both sides have done their part:

    init -> daemon  namespaces      network and mount namespaces exist
    daemon -> init  linked          the cable is in, and the process is recorded: go on
    init -> daemon  ready           mounts, addresses, host name are in place
    daemon -> init  start           start slurmd (the head: its daemons)
    init -> daemon  phase NAME S    (the head only) NAME answers, after S seconds
    init -> daemon  started

If the other side goes away, the socket ends and so does init. Power-off is SIGKILL for this process:
the kernel then kills everything in its process namespace at once.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from harness.devcluster import cgroups, environment, linux, network
from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ENVIRONMENT_NAME
from harness.devcluster.packages import SYSTEM_PATH
from harness.devcluster.state import Cluster, Host

NAMESPACES, LINKED, READY, START, STARTED = "namespaces", "linked", "ready", "start", "started"
PHASE, FAILED = "phase ", "failed "
_ANSWER_S = 90.0


class Channel:
    """One end of the socket pair between the daemon and an init: lines of text."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = b""

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, line: str) -> None:
        self._end.sendall(line.replace("\n", " | ").encode() + b"\n")

    def receive(self, timeout_s: float | None) -> str | None:
        """The next line, or None when the other side has ended; TimeoutError after `timeout_s`."""
        self._end.settimeout(timeout_s)
        while b"\n" not in self._received:
            chunk = self._end.recv(4096)
            if not chunk:
                return None
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace")

    def close(self) -> None:
        self._end.close()


@dataclass(frozen=True)
class Init:
    """The daemon's handle on one host's process 1, while that is being started."""

    host: Host
    pid: int
    channel: Channel

    def expect(self, line: str, on_phase: Callable[[str], None] = lambda phase: None) -> None:
        """Wait for the line; an init that fails sends its reason instead, and ends."""
        while True:
            try:
                answer = self.channel.receive(_ANSWER_S)
            except TimeoutError:
                raise ClusterError(f"{self.host.name}: no {line!r} within {_ANSWER_S:g} s") from None
            if answer == line:
                return
            if answer is None or not answer.startswith(PHASE):
                reason = "it was killed" if answer is None else answer.removeprefix(FAILED)
                raise ClusterError(f"{self.host.name} did not start: {reason}")
            on_phase(answer.removeprefix(PHASE))


Body = Callable[[Cluster, Host, Channel], None]


def fork_init(cluster: Cluster, host: Host, hierarchies: tuple[cgroups.Hierarchy, ...], body: Body) -> Init:
    """Fork process 1 of `host`; it waits for the daemon before it does anything lasting."""
    ours, theirs = socket.socketpair()
    # A namespace of processes takes in later children only, so the daemon makes one for the child
    # and steps back. That makes init the daemon's own child, which its death signal depends on.
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    linux.unshare(linux.CLONE_NEWPID)
    try:
        pid = os.fork()
        if pid == 0:
            _child(cluster, host, hierarchies, body, Channel(theirs))  # never returns
    finally:
        linux.setns_fd(own, linux.CLONE_NEWPID, "own process namespace")
        os.close(own)
    theirs.close()
    return Init(host, pid, Channel(ours))


def _child(
    cluster: Cluster, host: Host, hierarchies: tuple[cgroups.Hierarchy, ...], body: Body, channel: Channel
) -> None:
    try:
        linux.die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        _close_all_but(channel.fileno())
        if hierarchies:
            cgroups.enter(cluster.cgroup_folders, host.name)
        linux.unshare(
            linux.CLONE_NEWNET
            | linux.CLONE_NEWNS
            | linux.CLONE_NEWUTS
            | linux.CLONE_NEWIPC
            | (linux.CLONE_NEWCGROUP if hierarchies else 0)
        )
        network.keep_to_version_4()
        channel.send(NAMESPACES)
        await_line(channel, LINKED)
        os.setsid()
        socket.sethostname(host.name)
        address = IPv4Address(host.address)
        network.configure(address, cluster.prefix_length)
        environment.enter_host(cluster, hierarchies)
        channel.send(READY)
        body(cluster, host, channel)
    except BaseException as error:  # there is no caller to raise to: tell the daemon, and end
        try:
            channel.send(f"{FAILED}{type(error).__name__}: {error}")
        finally:
            os._exit(1)
    os._exit(0)


def _close_all_but(kept: int) -> None:
    """Drop the daemon's descriptors: its control socket and the other hosts' channels."""
    os.closerange(3, kept)
    os.closerange(kept + 1, 65536)


def await_line(channel: Channel, line: str) -> None:
    """Wait for the daemon's word; without a daemon there is nothing to live for."""
    if channel.receive(None) != line:
        os._exit(1)  # the daemon has gone


def run_slurmd(cluster: Cluster, host: Host, channel: Channel) -> None:
    """What a node's process 1 does once its namespaces are ready."""
    await_line(channel, START)
    # -b: this is a boot. Without it nothing tells Slurm that the node was away.
    spawn(cluster, ["slurmd", "-D", "-b"], host.name)
    channel.send(STARTED)
    channel.close()
    bury_orphans(cluster, host)


def daemon_environment(cluster: Cluster) -> dict[str, str]:
    """The environment of the cluster's daemons: the system's, whatever the caller's was."""
    return {
        "PATH": SYSTEM_PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "SLURM_CONF": str(cluster.paths.slurm_conf),
        ENVIRONMENT_NAME: cluster.folder,
    }


def spawn(
    cluster: Cluster, command: list[str], log_name: str, first: Callable[[], object] | None = None
) -> subprocess.Popen[bytes]:
    """Start one of the cluster's daemons; what it prints goes to its own log. `first` is done in it before."""
    with open(cluster.paths.logs / f"{log_name}.out", "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=daemon_environment(cluster),
            preexec_fn=first,
        )


def bury_orphans(cluster: Cluster, host: Host) -> None:
    """Reap every process that ends in this namespace, for ever, and log those that were not orphans' ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if status != 0:
                    _note(cluster, host, f"process {pid} ended: {os.waitstatus_to_exitcode(status)}")
        except ChildProcessError:
            pass  # nobody is left; somebody may yet be sent here by `exec`
        signal.sigtimedwait({signal.SIGCHLD}, 60.0)


def _note(cluster: Cluster, host: Host, text: str) -> None:
    with open(cluster.paths.logs / f"{host.name}.out", "a") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} init: {text}\n")
