"""One control-group tree for each node, so that each slurmd finds a root of its own.

Slurm's cgroup/v1 plug-in always works in /sys/fs/cgroup/CONTROLLER/slurm_NODE, which two clusters
whose nodes have the same names would share, and a real node of this machine too. So each node's
processes start in a group of their own, and a cgroup namespace makes that group their root.

A machine that has version 2 alone (today's usual) still lends out the version 1 freezer, since version
2 has no controller of that name; it is mounted where only the cluster sees it, and is all that Slurm
needs to find every process of a job. Memory limits are not enforced then. Where not even that can be
had, jobs are tracked by their parents, and what leaves its session outlives its job. `status` says
which it is, and why.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.devcluster import linux
from harness.devcluster.processes import ProcessId, identify, send

_MOUNT = "/sys/fs/cgroup"
_NEEDED = frozenset({"freezer", "memory", "cpuset"})


@dataclass(frozen=True)
class Hierarchy:
    """One mounted version 1 hierarchy: where it is, its mount options, and our own group in it."""

    mount_point: str
    options: str
    own_folder: str


@dataclass(frozen=True)
class Detected:
    """What to use: "v1", "freezer" or "none", its hierarchies, and why it is not "v1"."""

    kind: str
    hierarchies: tuple[Hierarchy, ...]
    why: str = ""


def parse(mountinfo: str, membership: str) -> tuple[Hierarchy, ...]:
    """The version 1 hierarchies below /sys/fs/cgroup, from /proc/self/mountinfo and /proc/self/cgroup."""
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, super_options) = left.split(), right.split()[:3]
        root, point = fields[3], fields[4]
        if kind != "cgroup" or os.path.dirname(point) != _MOUNT:
            continue
        options = ",".join(
            option
            for option in super_options.split(",")
            if option not in ("rw", "ro", "xattr", "noprefix")
            and not option.startswith(("release_agent=", "clone_children"))
        )
        if options not in own:
            continue
        inside = os.path.relpath(own[options], root) if own[options].startswith(root) else "."
        found.append(Hierarchy(point, options, os.path.normpath(os.path.join(point, inside))))
    return tuple(found)


def detect(private_freezer: str) -> Detected:
    """What this machine offers; `private_freezer` is where a freezer of our own would be mounted."""
    with open("/proc/self/mountinfo") as mounts, open("/proc/self/cgroup") as membership:
        hierarchies = parse(mounts.read(), membership.read())
    offered = {name for hierarchy in hierarchies for name in hierarchy.options.split(",")}
    lacking = sorted(_NEEDED - offered)
    unwritable = [h.own_folder for h in hierarchies if not os.access(h.own_folder, os.W_OK)]
    if not lacking and not unwritable:
        return Detected("v1", hierarchies)
    why = f"cannot write {unwritable[0]}" if unwritable else f"no version 1 {', '.join(lacking)} in {_MOUNT}"
    os.makedirs(private_freezer, exist_ok=True)
    if in_private_mounts(lambda: mount_private_freezer(private_freezer)):
        return Detected("freezer", (Hierarchy(f"{_MOUNT}/freezer", "freezer", private_freezer),), why)
    return Detected("none", (), f"{why}, nor can a freezer be mounted")


def mount_private_freezer(folder: str) -> None:
    """In a private mount namespace: the version 1 freezer, at `folder`."""
    linux.mount("cgroup", folder, "cgroup", 0, "freezer")


def in_private_mounts(action: Callable[[], object]) -> bool:
    """Do it in a child with mounts of its own; whether it succeeded."""
    pid = os.fork()
    if pid == 0:
        try:
            linux.unshare(linux.CLONE_NEWNS)
            linux.make_mounts_private()
            action()
        except BaseException:  # the child has nobody to tell but us, by its status
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def tree_folders(hierarchies: Sequence[Hierarchy], name: str) -> tuple[str, ...]:
    """The cluster's own folder in each hierarchy."""
    return tuple(f"{hierarchy.own_folder}/{name}" for hierarchy in hierarchies)


def make_group(folders: Sequence[str], host: str = "") -> None:
    """Make the group (below it: of a host) in every hierarchy."""
    for folder in folders:
        path = os.path.join(folder, host) if host else folder
        os.mkdir(path)
        # A new cpuset is empty, and a process cannot enter an empty one.
        for knob in ("cpuset.cpus", "cpuset.mems"):
            if os.path.exists(f"{path}/{knob}"):
                with open(f"{os.path.dirname(path)}/{knob}") as parent:
                    _write(f"{path}/{knob}", parent.read().strip())


def enter(folders: Sequence[str], host: str) -> None:
    """Move the calling process into a host's groups."""
    for folder in folders:
        _write(f"{folder}/{host}/cgroup.procs", "0")


def mount_own(hierarchies: Sequence[Hierarchy]) -> None:
    """In fresh cgroup and mount namespaces: mount the hierarchies, so that our groups are the roots."""
    # Over a version 2 mount too: slurmd would take it for the one to use.
    linux.mount("tmpfs", _MOUNT, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755")
    for hierarchy in hierarchies:
        os.mkdir(hierarchy.mount_point, 0o755)
        linux.mount("cgroup", hierarchy.mount_point, "cgroup", 0, hierarchy.options)


def thaw(folders: Sequence[str]) -> None:
    """Thaw whatever is frozen in these groups or below: a frozen process does not even die."""
    for folder in folders:
        for path, _, files in os.walk(folder):
            if "freezer.state" in files:
                _write(f"{path}/freezer.state", "THAWED")


def remove(folders: Sequence[str], deadline_s: float = 5.0) -> list[str]:
    """Remove these groups and all below them; whatever still runs in them is killed. Return the rest."""
    limit = time.monotonic() + deadline_s
    remaining = [folder for folder in folders if os.path.isdir(folder)]
    while remaining:
        for folder in remaining:
            for path, _, _ in os.walk(folder, topdown=False):
                _remove_one(path)
        remaining = [folder for folder in remaining if os.path.isdir(folder)]
        if time.monotonic() > limit:
            break
        if remaining:
            time.sleep(0.02)
    return remaining


def _remove_one(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError:  # busy: something runs in it still
        for process in _members(path):
            send(process, 9)


def _members(path: str) -> list[ProcessId]:
    found: list[ProcessId] = []
    try:
        with open(f"{path}/cgroup.procs") as stream:
            pids = [int(line) for line in stream]
    except OSError:
        return found
    for pid in pids:
        try:
            found.append(identify(pid))
        except ProcessLookupError:
            continue
    return found


def _write(path: str, text: str) -> None:
    with open(path, "w") as stream:
        stream.write(text)
