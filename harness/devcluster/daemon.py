"""The one root process that holds a cluster: parent of every host, and its power controller.

It makes everything, serves power requests on a Unix socket as a BMC would, and takes everything down
when it is told to end. It has one thread and one loop, since it forks hosts, and a fork of a process
with threads is a gamble. If it is killed, the kernel kills every host with it, and `down` clears up
the links and control groups that remain.

Run as ``python -m harness.devcluster.daemon FOLDER REPORT_FD`` by ``up``; never by hand.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from harness.devcluster import cgroups, control, environment, head, healer, network, node, state, teardown
from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ClusterFolder
from harness.devcluster.neighbours import Neighbours
from harness.devcluster.processes import identify
from harness.devcluster.state import Cluster, Host
from harness.devcluster.waiting import wait_until

_IDLE_S = 30.0
_IDLE = re.compile(r"^NodeName=(\S+) .* State=IDLE ", re.MULTILINE)


@dataclass(frozen=True)
class Stamp:
    """One instant on both clocks."""

    wall_ns: int
    monotonic_ns: int

    @staticmethod
    def now() -> Stamp:
        return Stamp(time.time_ns(), time.monotonic_ns())


class Daemon:
    """Holds the cluster's present state; every change of it is recorded before it is acted upon."""

    def __init__(self, cluster: Cluster, report: Callable[[str, float], None]) -> None:
        self.cluster = cluster
        self.report = report
        self.neighbours: Neighbours | None = None
        self.healer = healer.Healer(cluster)
        self.hierarchies = cgroups.detect(str(cluster.paths.freezer)).hierarchies

    # -- coming up ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Everything from nothing to idle nodes."""
        begin = time.monotonic()
        cluster = self.cluster
        self._record(replace(cluster, daemon=identify(os.getpid())))
        environment.enter_base(cluster)
        if cluster.cgroup == "freezer":
            cgroups.mount_private_freezer(str(cluster.paths.freezer))
        cgroups.make_group(cluster.cgroup_folders)
        network.make_bridge(cluster.bridge, IPv4Address(cluster.gateway), cluster.prefix_length)
        self.neighbours = Neighbours(cluster.bridge, IPv4Address(cluster.gateway))
        self.report("namespaces and bridge", time.monotonic() - begin)
        # The head's daemons take longest: start them first, and make the nodes meanwhile.
        (leader,) = self._boot([cluster.head], head.run_services)
        leader.channel.send(node.START)
        begin = time.monotonic()
        inits = self._boot(cluster.nodes, node.run_slurmd)
        self.report(f"{len(inits)} nodes cabled", time.monotonic() - begin)
        leader.expect(node.STARTED, self._report_phase)
        begin = time.monotonic()
        for init in inits:
            init.channel.send(node.START)
        for init in inits:
            init.expect(node.STARTED)
            init.channel.close()
        leader.channel.close()
        self._wait_idle()
        self.report("slurmd on every node", time.monotonic() - begin)
        self._record(replace(self.cluster, phase="ready"))

    def _report_phase(self, phase: str) -> None:
        name, elapsed_s = phase.rsplit(" ", 1)
        self.report(name, float(elapsed_s))

    def _boot(self, hosts: Sequence[Host], body: node.Body) -> list[node.Init]:
        """Fork each host's process 1, record them all, cable them, and wait until each is ready."""
        assert self.neighbours is not None
        inits: list[node.Init] = []
        try:
            for host in hosts:
                cgroups.make_group(self.cluster.cgroup_folders, host.name)
                inits.append(node.fork_init(self.cluster, host, self.hierarchies, body))
            for init in inits:
                init.expect(node.NAMESPACES)
            self._record_hosts(
                {init.host.name: replace(init.host, init=identify(init.pid)) for init in inits}
            )
            network.connect(
                self.cluster.bridge,
                [(init.host.link, IPv4Address(init.host.address), init.pid) for init in inits],
            )
            for init in inits:
                init.channel.send(node.LINKED)
            for init in inits:
                init.expect(node.READY)
            self.neighbours.add({init.host: init.pid for init in inits}, network.INTERFACE)
        except BaseException:
            for init in inits:
                os.kill(init.pid, signal.SIGKILL)
                os.waitpid(init.pid, 0)
            self._clear_up(hosts)
            raise
        return inits

    def _wait_idle(self) -> None:
        names = [host.name for host in self.cluster.nodes]

        def lacking() -> list[str]:
            answer = subprocess.run(
                # Not sinfo: a partition that was asked for may hide nodes, or leave some out.
                ["scontrol", "--oneliner", "show", "node"],
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
                env=node.daemon_environment(self.cluster),
            )
            return sorted(set(names) - set(_IDLE.findall(answer.stdout)))

        try:
            wait_until(
                lambda: not lacking(),
                deadline_s=_IDLE_S + len(names) / 2,
                every_s=0.05,
                what="all nodes are idle",
            )
        except ClusterError as error:
            late = lacking() or names
            log = self.cluster.paths.log(f"slurmd-{late[0]}")
            raise ClusterError(f"{error}; not {', '.join(late[:8])}: see {log}") from error

    def _record(self, cluster: Cluster) -> None:
        state.write(cluster)
        self.cluster = self.healer.cluster = cluster

    def _record_hosts(self, changed: dict[str, Host]) -> None:
        cluster = self.cluster
        self._record(
            replace(
                cluster,
                nodes=tuple(changed.get(host.name, host) for host in cluster.nodes),
                head=changed.get(cluster.head.name, cluster.head),
            )
        )

    def stop(self) -> None:
        """Take down whatever there is."""
        if self.neighbours is not None:
            self.neighbours.close()
        teardown.stop_hosts(self.cluster)
        self.healer.close()

    # -- power -------------------------------------------------------------------------------------

    def power(self, action: str, names: Sequence[str], asked_by: str) -> list[dict[str, object]]:
        """Do it, log it, and say what was done when; an unknown node is a ClusterError."""
        requested = Stamp.now()
        known = {host.name: host for host in self.cluster.nodes}
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ClusterError(
                f"power {action}: no node {', '.join(unknown) or '(none given)'};"
                f" there are {self.cluster.nodes[0].name} to {self.cluster.nodes[-1].name}"
            )
        hosts = [known[name] for name in dict.fromkeys(names)]
        if action == "status":
            return [{"node": host.name, "power": _power(host)} for host in hosts]
        if action == "off":
            effects = self._power_off([host for host in hosts if host.init is not None])
        elif action == "on":
            effects = self._power_on([host for host in hosts if host.init is None])
        else:
            raise ClusterError(f"power {action}: the actions are on, off, status")
        replies: list[dict[str, object]] = []
        for host in hosts:
            effect = effects.get(host.name)
            replies.append(
                {
                    "node": host.name,
                    "action": action,
                    "power": action,
                    "changed": effect is not None,
                    "asked_by": asked_by,
                    "requested_wall_ns": requested.wall_ns,
                    "requested_monotonic_ns": requested.monotonic_ns,
                    **(effect or {}),
                }
            )
        self._log_power(replies)
        return replies

    def _power_off(self, hosts: Sequence[Host]) -> dict[str, dict[str, object]]:
        effects: dict[str, dict[str, object]] = {}
        for host in hosts:
            # The cable first: dying processes would close their connections, and a peer would see
            # a reset, which a loss of power never sends.
            network.set_up(host.link, False)
            cut = Stamp.now()
            assert host.init is not None
            os.kill(host.init.pid, signal.SIGKILL)  # our own unreaped child: the pid is certain
            effects[host.name] = {"effect_wall_ns": cut.wall_ns, "effect_monotonic_ns": cut.monotonic_ns}
        for host in hosts:
            cgroups.thaw([f"{folder}/{host.name}" for folder in self.cluster.cgroup_folders])
            assert host.init is not None
            os.waitpid(host.init.pid, 0)
            effects[host.name]["dead_monotonic_ns"] = time.monotonic_ns()
        self._clear_up(hosts)
        return effects

    def _clear_up(self, hosts: Sequence[Host]) -> None:
        """After the end of these hosts: what they leave in the machine, and in our records."""
        if self.neighbours is not None:
            self.neighbours.remove(hosts)
        network.delete_links([host.link for host in hosts])
        cgroups.remove([f"{folder}/{host.name}" for folder in self.cluster.cgroup_folders for host in hosts])
        self._record_hosts({host.name: replace(host, init=None) for host in hosts})

    def _power_on(self, hosts: Sequence[Host]) -> dict[str, dict[str, object]]:
        if not hosts:
            return {}
        inits = self._boot(hosts, node.run_slurmd)
        effects: dict[str, dict[str, object]] = {}
        for init in inits:
            init.channel.send(node.START)
        for init in inits:
            init.expect(node.STARTED)
            init.channel.close()
            started = Stamp.now()
            effects[init.host.name] = {
                "effect_wall_ns": started.wall_ns,
                "effect_monotonic_ns": started.monotonic_ns,
            }
        return effects

    def _log_power(self, entries: Sequence[dict[str, object]]) -> None:
        with open(self.cluster.paths.power_log, "a") as log:
            log.write("".join(json.dumps(entry) + "\n" for entry in entries))

    def bury(self) -> None:
        """A host whose process 1 ended without our doing has lost its power too: record it."""
        dead: list[Host] = []
        for host in (*self.cluster.nodes, self.cluster.head):
            if host.init is not None and os.waitpid(host.init.pid, os.WNOHANG)[0] != 0:
                dead.append(host)
        if dead:
            now = Stamp.now()
            self._clear_up(dead)
            self._log_power(
                [
                    {
                        "node": host.name,
                        "action": "died",
                        "power": "off",
                        "effect_wall_ns": now.wall_ns,
                        "effect_monotonic_ns": now.monotonic_ns,
                    }
                    for host in dead
                ]
            )

    # -- the control socket ------------------------------------------------------------------------

    def answer(self, request: dict[str, object], uid: int) -> dict[str, object]:
        """What the control socket answers; a ClusterError is its refusal."""
        cluster = self.cluster
        if uid not in (0, cluster.user.uid):
            raise ClusterError(f"user {uid} may not: only root and {cluster.user.name}")
        if request.get("verb") == "status":
            powers = {host.name: _power(host) for host in (*cluster.nodes, cluster.head)}
            return {"phase": cluster.phase, "nodes": powers, "faults": self.healer.open()}
        asked_by = "root" if uid == 0 else cluster.user.name
        if request.get("verb") == "fault":
            return {"fault": self.healer.inject(request, asked_by)}
        if request.get("verb") == "faults":
            return {"faults": self.healer.all()}
        if request.get("verb") == "heal":
            identity = request.get("id")
            if identity is not None and not isinstance(identity, str):
                raise ClusterError("heal: `id` is the id of a fault, or null for all")
            return {"faults": self.healer.heal(identity, asked_by)}
        if request.get("verb") != "power":
            raise ClusterError(
                f"verb {request.get('verb')!r}: there are power, status, fault, faults and heal"
            )
        names = request.get("nodes")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ClusterError("power: `nodes` is a list of node names")
        return {"nodes": self.power(str(request.get("action")), names, asked_by)}


def _power(host: Host) -> str:
    return "off" if host.init is None else "on"


def main(folder: ClusterFolder, report_fd: int) -> int:
    """Bring the planned cluster up, serve it until SIGTERM, take it down."""
    os.umask(0o022)
    reports = os.fdopen(report_fd, "w", buffering=1)

    def report(phase: str, elapsed_s: float) -> None:
        tell({"phase": phase, "elapsed_s": elapsed_s})

    def tell(message: dict[str, object]) -> None:
        try:
            reports.write(json.dumps(message) + "\n")
        except BrokenPipeError:
            pass  # whoever started us has gone; the cluster comes up all the same

    cluster = state.read(folder)
    if cluster is None:
        raise ClusterError(f"{folder.state}: missing; the daemon is started by `harness cluster up`")
    told_to_end: list[int] = []
    daemon = Daemon(cluster, report)

    def end(number: int, _frame: object) -> None:
        told_to_end.append(number)
        if daemon.cluster.phase == "starting" and len(told_to_end) == 1:
            raise ClusterError("it was told to end while it started")

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        listener = control.listen(folder.control_socket)
        daemon.start()
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        wakeup, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        tell({"ready": True})
        reports.close()
        control.serve(
            listener, daemon.answer, wakeup, daemon.bury, lambda: bool(told_to_end), daemon.healer.turn
        )
    except Exception as error:
        traceback.print_exc()
        if not reports.closed:
            tell({"error": str(error) or type(error).__name__})
        return 1
    finally:
        signal.set_wakeup_fd(-1)
        daemon.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(ClusterFolder(Path(sys.argv[1])), int(sys.argv[2])))
