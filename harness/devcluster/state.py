"""What the cluster consists of, as recorded in ``state.json``: enough to take it down without it.

The daemon writes it before each thing comes into being, so that `down` can clear up after a daemon
that was killed at any moment. It never says more than was known then; what Slurm thinks is asked of
Slurm.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ClusterFolder, write_atomically
from harness.devcluster.processes import ProcessId

STATE_VERSION = 1


@dataclass(frozen=True)
class User:
    """The cluster's ordinary user; known only inside the cluster's own mount namespaces."""

    name: str
    uid: int
    account: str
    home: str


@dataclass(frozen=True)
class Host:
    """A node, or the head. Powered on exactly when `init` is not None."""

    name: str
    address: str
    link: str
    init: ProcessId | None = None


@dataclass(frozen=True)
class Cluster:
    """All that `down`, `exec` and `status` need to know."""

    version: int
    identity: str
    folder: str
    phase: str  # "starting" or "ready"
    nodes: tuple[Host, ...]
    head: Host
    daemon: ProcessId | None
    subnet: str
    prefix_length: int
    gateway: str
    bridge: str
    user: User
    cpus: int
    memory_mb: int
    gres: str
    cgroup: str  # "v1", "freezer" or "none": see cgroups.Detected
    cgroup_folders: tuple[str, ...]
    program_folder: str  # where `harness` and its python are, put first in PATH
    project: str
    shares: tuple[str, ...]
    since_wall_ns: int
    cgroup_why: str = ""  # why it is not "v1"
    accounting: bool = True  # MariaDB and slurmdbd; without them `sacct` says that accounting is disabled
    settings: tuple[str, ...] = ()  # lines of slurm.conf that were asked for with --conf

    @property
    def marker(self) -> str:
        """The mount source that marks this cluster's mount namespaces, and no others."""
        return f"harness-{self.identity}"

    @property
    def paths(self) -> ClusterFolder:
        return ClusterFolder(Path(self.folder))

    def host(self, name: str) -> Host:
        """The node called `name`, or the head."""
        for host in (*self.nodes, self.head):
            if host.name == name:
                return host
        raise ClusterError(
            f"no node {name!r} in {self.folder}; there are {self.nodes[0].name} to {self.nodes[-1].name}",
            exit_status=2,
        )


def write(cluster: Cluster) -> None:
    """Record it, atomically."""
    write_atomically(cluster.paths.state, json.dumps(asdict(cluster), indent=1) + "\n")


def read(folder: ClusterFolder) -> Cluster | None:
    """The recorded cluster, or None when there is none in this folder."""
    try:
        raw = json.loads(folder.state.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ClusterError(f"{folder.state}: not JSON ({error}); run: {folder.command('down')}") from error
    if not isinstance(raw, dict) or raw.get("version") != STATE_VERSION:
        version = raw.get("version") if isinstance(raw, dict) else raw
        raise ClusterError(
            f"{folder.state}: version {version!r}, but this harness reads {STATE_VERSION};"
            f" run: {folder.command('down')}"
        )
    try:
        nodes = tuple(_host(node) for node in raw.pop("nodes"))
        return Cluster(
            nodes=nodes,
            head=_host(raw.pop("head")),
            daemon=_process(raw.pop("daemon")),
            user=User(**raw.pop("user")),
            cgroup_folders=tuple(raw.pop("cgroup_folders")),
            shares=tuple(raw.pop("shares")),
            settings=tuple(raw.pop("settings", ())),
            **raw,
        )
    except (KeyError, TypeError) as error:
        raise ClusterError(
            f"{folder.state}: not a cluster's record ({error}); run: {folder.command('down')}"
        ) from error


def none_up(folder: ClusterFolder) -> ClusterError:
    """What to say when no cluster is up in this folder."""
    start = folder.command("up", "--nodes 4")
    return ClusterError(f"no cluster is up in {folder.root}; start one: {start}")


def read_up(folder: ClusterFolder) -> Cluster:
    """The cluster that is up in this folder; a ClusterError when none is."""
    cluster = read(folder)
    if cluster is None:
        raise none_up(folder)
    if cluster.daemon is None or not cluster.daemon.alive():
        raise ClusterError(f"the cluster in {folder.root} has lost its daemon; run: {folder.command('down')}")
    return cluster


def _process(raw: dict[str, int] | None) -> ProcessId | None:
    return None if raw is None else ProcessId(**raw)


def _host(raw: dict[str, object]) -> Host:
    process = raw["init"]
    assert process is None or isinstance(process, dict)
    return Host(str(raw["name"]), str(raw["address"]), str(raw["link"]), _process(process))
