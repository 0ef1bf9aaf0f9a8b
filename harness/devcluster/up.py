"""Bring a cluster up: check, plan, write every file, start the daemon, and tell how it goes.

All decisions are made here, before anything exists, and recorded; the daemon only carries them out.
A failure at any point takes everything down again.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.devcluster import cgroups, config, names, network, packages, settings, state, teardown
from harness.devcluster.errors import INTERRUPTED, ClusterError
from harness.devcluster.folder import ClusterFolder, claim, write_atomically
from harness.devcluster.power import request
from harness.devcluster.state import STATE_VERSION, Cluster, Host
from harness.devcluster.visible import check_shareable

ACCOUNT = "lab"
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}
_LOG_TAIL_LINES = 12
_LOGS_SHOWN = 2


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    nodes: int
    cpus: int
    gres: str
    shares: tuple[str, ...]
    reuse: bool
    accounting: bool = True
    settings: tuple[str, ...] = ()


def check_machine() -> None:
    """Refuse a machine that cannot hold a cluster, with what would help."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster needs root (namespaces, daemons); without it use site `local`, which has no Slurm",
            exit_status=3,
        )
    rights = _lacking_rights()
    if rights:
        raise ClusterError(
            f"root lacks {' and '.join(rights)} here, as in an unprivileged container, so it cannot make"
            " namespaces; run the container privileged, or use site `local`, which has no Slurm",
            exit_status=3,
        )
    lacking = packages.missing_packages()
    if lacking:
        raise ClusterError(
            f"Debian packages are missing: {' '.join(lacking)}; run `make setup`", exit_status=3
        )


def _lacking_rights() -> list[str]:
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]


def up(folder: ClusterFolder, wanted: Wanted, say: Callable[[str], None]) -> None:
    """The cluster, ready, or an error and nothing."""
    begin = time.monotonic()
    check_machine()
    every_node = names.node_names(wanted.nodes)
    config.parse_gres(wanted.gres)
    settings.check_nodes(settings.check(wanted.settings), every_node)
    for path in wanted.shares:
        check_shareable(path)
    identity = claim(folder)
    with teardown.lock(folder, wait_s=0.0):
        present = state.read(folder)
        if present is not None and present.daemon is not None and present.daemon.alive():
            _reuse(folder, present, wanted, say)
            return
        if present is not None:
            say("clearing up after a cluster whose daemon was killed")
        teardown.sweep(folder, identity)
        try:
            cluster = _plan(folder, identity, wanted, say)
            _write_files(cluster)
            _start_daemon(cluster, say)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # once is enough; what is undone is undone whole
            _undo(folder, identity)
            raise ClusterError(
                f"stopped; what had started was taken down again, and nothing is left of it in {folder.root}",
                exit_status=INTERRUPTED,
            ) from None
        except BaseException as error:
            tail = _log_tails(folder, str(error))
            _undo(folder, identity)
            if isinstance(error, ClusterError):
                raise ClusterError(f"{error}{tail}\nthe cluster was taken down again") from error
            raise
    say(f"cluster ready: {wanted.nodes} nodes in {time.monotonic() - begin:.1f} s")


def _undo(folder: ClusterFolder, identity: str) -> None:
    teardown.sweep(folder, identity)
    teardown.remove_files(folder, keep_logs=False, purge=False)


def _reuse(folder: ClusterFolder, present: Cluster, wanted: Wanted, say: Callable[[str], None]) -> None:
    if not wanted.reuse:
        raise ClusterError(
            f"a cluster of {len(present.nodes)} nodes is up in {folder.root};"
            f" use it with --reuse, or take it down: {folder.command('down')}"
        )
    answer = request(folder, {"verb": "status"}, timeout_s=10.0)
    asked = (wanted.nodes, wanted.cpus, wanted.gres, wanted.accounting, wanted.settings)
    there = (len(present.nodes), present.cpus, present.gres, present.accounting, present.settings)
    if asked != there:
        raise ClusterError(
            f"{folder.root}: --reuse asks for {_shape(*asked)}, but the cluster that is up has {_shape(*there)};"
            f" ask for that, or take it down: {folder.command('down')}"
        )
    off = sorted(name for name, power in answer["nodes"].items() if power != "on")
    if off or answer["phase"] != "ready":
        raise ClusterError(
            f"{folder.root}: the cluster that is up is not healthy (phase {answer['phase']}, without power:"
            f" {', '.join(off) or 'none'}); power the nodes on, or take it down: {folder.command('down')}"
        )
    say(f"cluster reused: {len(present.nodes)} nodes, up in {folder.root}")


def _shape(nodes: int, cpus: int, gres: str, accounting: bool, lines: tuple[str, ...]) -> str:
    return (
        f"{nodes} nodes of {cpus} CPUs and gres {gres or 'none'}, {'with' if accounting else 'without'} accounting"
        + "".join(f", --conf '{line}'" for line in lines)
    )


def _plan(folder: ClusterFolder, identity: str, wanted: Wanted, say: Callable[[str], None]) -> Cluster:
    subnet = names.choose_subnet(network.taken(), seed=int(identity, 16))
    user = config.choose_user(
        (entry.pw_name for entry in pwd.getpwall()),
        {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()},
        str(folder.home),
        ACCOUNT,
    )
    detected = cgroups.detect(str(folder.freezer))
    tree = cgroups.tree_folders(detected.hierarchies, teardown.group_name(identity))
    if detected.why:
        say(f"control groups: {detected.kind} ({detected.why})")
    return Cluster(
        version=STATE_VERSION,
        identity=identity,
        folder=str(folder.root),
        phase="starting",
        nodes=tuple(
            Host(name, str(names.node_address(subnet, index)), names.link_name(identity, name))
            for index, name in enumerate(names.node_names(wanted.nodes))
        ),
        head=Host(names.HEAD, str(names.head_address(subnet)), names.link_name(identity, names.HEAD)),
        daemon=None,
        subnet=str(subnet),
        prefix_length=subnet.prefixlen,
        gateway=str(names.gateway_address(subnet)),
        bridge=names.bridge_name(identity),
        user=user,
        cpus=wanted.cpus,
        memory_mb=_memory_mb(),
        gres=wanted.gres,
        cgroup=detected.kind,
        cgroup_why=detected.why,
        cgroup_folders=tree,
        program_folder=os.path.dirname(sys.executable),
        project=_project(),
        shares=_shares(folder, wanted.shares, say),
        since_wall_ns=time.time_ns(),
        accounting=wanted.accounting,
        settings=wanted.settings,
    )


def _project() -> str:
    assert harness.__file__ is not None
    return str(Path(harness.__file__).resolve().parents[1])


def _shares(folder: ClusterFolder, asked: Sequence[str], say: Callable[[str], None]) -> tuple[str, ...]:
    """The trees to show: what the harness itself needs, what was asked for, and the folder we are in."""
    needed = [_project(), sys.prefix, sys.base_prefix, str(folder.root), *map(os.path.abspath, asked)]
    for path in needed:
        check_shareable(path)
    here = os.getcwd()
    try:
        check_shareable(here)
        needed.append(here)
        # The way by which the caller came here, if symbolic links are part of it.
        named = os.environ.get("PWD", here)
        if os.path.isabs(named) and os.path.realpath(named) == here:
            needed.append(named)
    except ClusterError as error:
        say(f"not shown inside the cluster: {str(error).removeprefix('--share ')}")
    return tuple(dict.fromkeys(needed))


def _memory_mb() -> int:
    """Each node claims all of the machine's memory, as it claims CPUs that are not there."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _write_files(cluster: Cluster) -> None:
    paths = cluster.paths
    for path in (paths.etc, paths.run, paths.marker, paths.logs, paths.home, paths.shared, paths.devices):
        path.mkdir(mode=0o755, exist_ok=True)
        path.chmod(0o755)
    for path in (paths.database, paths.controller_state):
        path.mkdir(mode=0o700)
    home = Path(cluster.user.home)
    home.mkdir(mode=0o755, exist_ok=True)
    for path in (home, paths.shared):
        os.chown(path, cluster.user.uid, cluster.user.uid)
    for name in config.gres_files(cluster):
        # Slurm insists on a device: each is another /dev/null.
        os.mknod(paths.devices / name, stat.S_IFCHR | 0o666, os.stat("/dev/null").st_rdev)
    texts = {
        "slurm.conf": config.slurm_conf(cluster),
        "gres.conf": config.gres_conf(cluster),
        "cgroup.conf": config.cgroup_conf(cluster),
        "passwd": config.passwd(Path("/etc/passwd").read_text(), cluster.user),
        "group": config.group(Path("/etc/group").read_text(), cluster.user),
        "hosts": config.hosts(Path("/etc/hosts").read_text(), (cluster.head, *cluster.nodes)),
    }
    for name, text in texts.items():
        write_atomically(paths.etc / name, text)
    if cluster.accounting:
        write_atomically(paths.etc / "slurmdbd.conf", config.slurmdbd_conf(cluster), mode=0o600)
    paths.munge_key.touch(mode=0o400)
    paths.munge_key.write_bytes(secrets.token_bytes(128))
    state.write(cluster)


def _start_daemon(cluster: Cluster, say: Callable[[str], None]) -> None:
    reader, writer = os.pipe()
    with open(cluster.paths.log("daemon"), "ab") as log, os.fdopen(reader) as reports:
        try:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "harness.devcluster.daemon", cluster.folder, str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                start_new_session=True,
                cwd="/",
                env={
                    "PATH": packages.SYSTEM_PATH,
                    "LC_ALL": "C.UTF-8",
                    "PYTHONPATH": cluster.project,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "SLURM_CONF": str(cluster.paths.slurm_conf),
                },
            )
        finally:
            os.close(writer)
        for line in reports:
            message = json.loads(line)
            if "phase" in message:
                say(f"  {message['phase']:<24} {message['elapsed_s']:.2f} s")
            elif "error" in message:
                daemon.wait()
                raise ClusterError(message["error"])
            elif message.get("ready"):
                daemon.returncode = 0  # it outlives us on purpose: there is nothing to wait for
                return
        raise ClusterError(f"the cluster's daemon ended with {daemon.wait()} while it started")


def _log_tails(folder: ClusterFolder, message: str) -> str:
    """The ends of the logs that concern a failure: named in its message, or with a fatal error, or last."""
    ranked: list[tuple[bool, bool, float, str, list[str]]] = []
    for path in folder.logs.glob("*"):
        if path.suffix == ".out" and path.with_suffix(".log").exists():
            continue  # the same words, from standard error
        tail = path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        if tail and path.name != "daemon.log":
            fatal = any("fatal" in line for line in tail)
            ranked.append((str(path) in message, fatal, path.stat().st_mtime, path.name, tail))
    chosen = sorted(ranked, reverse=True)[:_LOGS_SHOWN]
    return "".join(f"\n--- last lines of {name}\n" + "\n".join(tail) for *_, name, tail in chosen)
