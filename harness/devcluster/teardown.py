"""Take a cluster down, whatever is left of it, and leave nothing behind.

It works from the cookie's id alone when the daemon, or even the record, is gone: links are named
after the id, control groups too, and every process of the cluster is in a mount namespace that
carries it. A pid is killed only if it is certain whose it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from harness.devcluster import cgroups, network, state
from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ClusterFolder, read_cookie
from harness.devcluster.processes import ProcessId, carrying_marker, send, wait_gone
from harness.devcluster.state import Cluster

_DAEMON_S = 30.0
_GONE_S = 15.0
_LINKS_VANISH_S = 3.0


def group_name(identity: str) -> str:
    """What the cluster's folder in each control-group hierarchy is called."""
    return f"hh{identity}"


def stop_hosts(cluster: Cluster) -> None:
    """Kill every host, and remove links, bridge and control groups. For the daemon's own end, too."""
    inits = [host.init for host in (*cluster.nodes, cluster.head) if host.init is not None]
    _kill(inits, cluster.cgroup_folders)
    _remove_links(cluster.identity)
    cgroups.remove(cluster.cgroup_folders)


def _kill(processes: Sequence[ProcessId], cgroup_folders: Sequence[str]) -> None:
    for process in processes:
        send(process, signal.SIGKILL)
    cgroups.thaw(cgroup_folders)
    limit = time.monotonic() + _GONE_S
    lasting = [p.pid for p in processes if not wait_gone(p, max(0.0, limit - time.monotonic()))]
    if lasting:
        raise ClusterError(f"processes {lasting} were killed and have not ended within {_GONE_S:g} s")


def _links(identity: str) -> list[str]:
    pattern = re.compile(rf"hh{re.escape(identity)}(h|p[0-9]+)?")
    return [name for name in os.listdir("/sys/class/net") if pattern.fullmatch(name)]


def _remove_links(identity: str) -> None:
    # A cable goes with the network namespace of its far end: the kernel does that many at a time,
    # faster than we could one by one.
    bridge = group_name(identity)
    limit = time.monotonic() + _LINKS_VANISH_S
    while any(name != bridge for name in _links(identity)) and time.monotonic() < limit:
        time.sleep(0.02)
    network.delete_links(sorted(_links(identity)))


def _record(folder: ClusterFolder) -> Cluster | None:
    """The record, if it can be read; without it the cookie's id suffices."""
    try:
        return state.read(folder)
    except ClusterError:
        return None


def sweep(folder: ClusterFolder, identity: str) -> None:
    """Remove everything of this cluster from the machine, save the folder's own files."""
    cluster = _record(folder)
    if cluster is not None and cluster.daemon is not None and send(cluster.daemon, signal.SIGTERM):
        # The daemon takes its hosts down itself; if it does not, the kernel will, with it.
        if not wait_gone(cluster.daemon, _DAEMON_S):
            send(cluster.daemon, signal.SIGKILL)
    detected = cgroups.detect(str(folder.freezer))
    groups = (
        cluster.cgroup_folders
        if cluster is not None
        else cgroups.tree_folders(detected.hierarchies, group_name(identity))
    )
    # Twice: a process may have been about to fork.
    for _ in range(2):
        _kill(carrying_marker(f"harness-{identity}"), groups)
    _remove_links(identity)
    lasting = [*_links(identity), *_remove_groups(folder, groups, private=detected.kind == "freezer")]
    if lasting:
        raise ClusterError(f"could not remove {', '.join(lasting)}; try again: {folder.command('down')}")


def _remove_groups(folder: ClusterFolder, groups: Sequence[str], *, private: bool) -> list[str]:
    if not private:
        return cgroups.remove(groups)

    def remove() -> None:
        cgroups.mount_private_freezer(str(folder.freezer))
        if cgroups.remove(groups):
            raise ClusterError("some remain")

    return [] if cgroups.in_private_mounts(remove) else list(groups)


def down(folder: ClusterFolder, *, keep_logs: bool, purge: bool, say: Callable[[str], None]) -> None:
    """Take the cluster in this folder down; nothing there is no error."""
    identity = read_cookie(folder)
    if identity is None:
        say(f"nothing to take down in {folder.root}")
        return
    begin = time.monotonic()
    cluster = _record(folder)
    if cluster is not None and cluster.daemon is not None:
        send(cluster.daemon, signal.SIGTERM)  # also ends an `up` that holds the lock
    with lock(folder, wait_s=_DAEMON_S):
        had_state = folder.state.exists()
        sweep(folder, identity)
        kept = remove_files(folder, keep_logs=keep_logs, purge=purge)
    for path in kept:
        say(f"kept {path}")
    say(
        f"cluster down in {time.monotonic() - begin:.1f} s"
        if had_state
        else f"nothing to take down in {folder.root}"
    )


def remove_files(folder: ClusterFolder, *, keep_logs: bool, purge: bool) -> list[str]:
    """Remove what `up` made; return what is kept: the user's own files, and foreign ones."""
    ours = [
        folder.etc,
        folder.run,
        folder.database,
        folder.controller_state,
        folder.devices,
        folder.control_socket,
        *([] if keep_logs else [folder.logs, folder.power_log, folder.faults]),
        *([folder.home, folder.shared] if purge else []),
        *folder.root.glob(".*.json.new"),
    ]
    for path in ours:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if folder.home.is_dir() and not _visible_files(str(folder.home)):
        shutil.rmtree(folder.home)
    if folder.shared.is_dir() and not any(folder.shared.iterdir()):
        folder.shared.rmdir()
    # The record last: until here, `down` can be run again.
    folder.state.unlink(missing_ok=True)
    kept = sorted(str(path) for path in folder.root.iterdir() if path != folder.cookie)
    if not kept:
        folder.cookie.unlink()
        folder.root.rmdir()
    return kept


def _visible_files(top: str) -> bool:
    """Whether there is any file that is not hidden and in no hidden folder: caches are no loss."""
    for _, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(not name.startswith(".") for name in files):
            return True
    return False


@contextmanager
def lock(folder: ClusterFolder, wait_s: float) -> Iterator[None]:
    """Hold the folder against another `up` or `down`; the lock ends with its holder."""
    descriptor = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        limit = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= limit:
                    raise ClusterError(
                        f"{folder.root}: another `harness cluster up` or `down` is at work there; wait for it"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
