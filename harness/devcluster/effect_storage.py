"""The shared folder goes away on some nodes: an empty read-only folder is mounted over it there.

Whoever opens a path in it sees no such file, and can make none (EROFS). Files and working folders that are
open already stay as they are: they are held by the mount below, as with a lazy unmount. Other nodes, the head
and the login environment see the folder as before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from harness.devcluster import linux
from harness.devcluster.effects import REBOOTED, in_mounts, powered, present
from harness.devcluster.errors import ClusterError
from harness.devcluster.leases import Lease
from harness.devcluster.state import Cluster

_FLAGS = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV


class StorageAway:
    """As the module says."""

    hits = "nodes"
    asks_slurm = False

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Cover it, and read the node's own list of mounts."""
        shared = str(cluster.paths.shared)
        found: dict[str, Any] = {}
        for name in lease.nodes:
            pid = powered(cluster, name)[1].pid

            def cover(pid: int = pid) -> None:
                in_mounts(pid)
                linux.mount(lease.table, shared, "tmpfs", _FLAGS, "mode=0755,size=4k")

            _in_child(cover, f"cover {shared} on {name}")
            found[name] = _covers(pid, lease.table)
            if not found[name]:
                raise ClusterError(f"{name}: {shared} is not covered")
        return {"mounts": found}

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Take the cover off, also from under whoever sits in it."""
        done: dict[str, Any] = {}
        for name in lease.nodes:
            host = present(cluster, lease, name)
            if host is None or host.init is None:
                done[name] = REBOOTED
                continue
            pid = host.init.pid
            covers = _covers(pid, lease.table)

            def uncover(pid: int = pid, covers: int = len(covers)) -> None:
                in_mounts(pid)
                for _ in range(covers):
                    linux.unmount_lazily(str(cluster.paths.shared))

            if covers:
                _in_child(uncover, f"uncover {cluster.paths.shared} on {name}")
            done[name] = "uncovered" if covers else "no cover"
        return done

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """No cover of ours is mounted."""
        left = {
            name: _covers(host.init.pid, lease.table)
            for name in lease.nodes
            if (host := present(cluster, lease, name)) is not None and host.init is not None
        }
        return None if any(left.values()) else {"mounts left": left}


def _covers(pid: int, source: str) -> list[str]:
    """Our mounts there, as /proc/PID/mountinfo has them."""
    with open(f"/proc/{pid}/mountinfo") as lines:
        return [line.strip() for line in lines if f" - tmpfs {source} " in line]


def _in_child(action: Callable[[], None], what: str) -> None:
    """Do it in a child, since a mount namespace is entered for good; a failure is a ClusterError."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException as error:  # there is no caller to raise to
            os.write(writer, str(error).encode()[:500])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as channel:
        said = channel.read().decode(errors="replace")
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise ClusterError(f"{what}: {said or 'it was killed'}")
