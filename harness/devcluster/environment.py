"""The mount namespaces: what the login environment, the nodes and the head see of the machine.

All share one base: the machine's own root file system, with the cluster's user, hosts and /etc/slurm
in place of the machine's, and a way for that user to the project and its interpreter. A node, or the
head, adds what is its own: processes, /tmp, /var/tmp, /dev/shm, /run, network view, control groups.
Everything is mounted privately: the machine itself sees none of it.
"""

from __future__ import annotations

import os

from harness.devcluster import cgroups, linux
from harness.devcluster.state import Cluster
from harness.devcluster.visible import Shown

_BOUND_FILES = ("passwd", "group", "hosts")
_NODE_LOCAL = (("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/dev/shm", 0o1777), ("/run", 0o755))


def enter_base(cluster: Cluster) -> None:
    """Put the calling process (the daemon) into the base; the login environment is the same one."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.make_mounts_private()
    paths = cluster.paths
    linux.mount(cluster.marker, str(paths.marker), "tmpfs", linux.MS_NOSUID, "mode=0755,size=4k")
    shown = Shown(cluster.shares)
    shown.open_ways(cluster.marker)
    shown.close()
    for name in _BOUND_FILES:
        linux.bind(str(paths.etc / name), f"/etc/{name}")
    if os.path.isdir("/etc/slurm"):
        linux.bind(str(paths.etc), "/etc/slurm")


def enter_host(cluster: Cluster, hierarchies: tuple[cgroups.Hierarchy, ...]) -> None:
    """As process 1 of a host's namespaces, all entered: mount what is its own, over the base."""
    shown = Shown(cluster.shares)
    for point, mode in _NODE_LOCAL:
        if os.path.isdir(point):
            shown.cover(point, mode, cluster.marker)
    shown.close()
    os.makedirs("/run/slurm/spool")
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)
    # A fresh /sys shows this network's links, and hides the machine's control groups.
    linux.mount("sysfs", "/sys", "sysfs", linux.MS_NOSUID | linux.MS_NODEV)
    if hierarchies:
        cgroups.mount_own(hierarchies)
