"""``exec``: run a command on a node, on the head or in the login environment, as if logged in there.

The command gets the caller's terminal, standard streams, working folder and Ctrl-C directly; its exit
status is ours. On a node it is part of the node: it dies with its power.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.devcluster import linux, node, state
from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ENVIRONMENT_NAME, ClusterFolder
from harness.devcluster.names import LOGIN
from harness.devcluster.packages import SYSTEM_PATH
from harness.devcluster.state import Cluster, Host

# In this order: each needs only rights that the ones before leave us, and the mounts change our view
# of /proc.
_NAMESPACES = (
    ("cgroup", linux.CLONE_NEWCGROUP),
    ("ipc", linux.CLONE_NEWIPC),
    ("uts", linux.CLONE_NEWUTS),
    ("net", linux.CLONE_NEWNET),
    ("pid", linux.CLONE_NEWPID),
    ("mnt", linux.CLONE_NEWNS),
)
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run(folder: ClusterFolder, where: str, command: Sequence[str], *, as_root: bool) -> int:
    """Run the command there; for `login` this process becomes the command and does not return."""
    if os.geteuid() != 0:
        raise ClusterError("`exec` enters namespaces, which needs root", exit_status=3)
    if not command:
        raise ClusterError(
            f"exec: no command; for example: {folder.command('exec', 'login -- sinfo')}", exit_status=2
        )
    cluster = state.read_up(folder)
    assert cluster.daemon is not None
    working_folder = _caller_folder()
    if where == LOGIN:
        linux.setns(f"/proc/{cluster.daemon.pid}/ns/mnt", linux.CLONE_NEWNS)
        _become(cluster, command, working_folder, as_root)
    host = cluster.host(where)
    if host.init is None or not host.init.alive():
        raise ClusterError(f"{where} has no power; first: {folder.command('power', f'on {where}')}")
    groups = _join(cluster, where, host.init.pid)
    sys.stdout.flush()
    sys.stderr.flush()
    # A process namespace takes in children only, so the command is our child, in our process group.
    pid = os.fork()
    if pid == 0:
        # Only the command is part of the node, not we who wait for it.
        for group in groups:
            os.write(group, b"0")
        _become(cluster, command, working_folder, as_root)
    return _accompany(pid)


def start(cluster: Cluster, host: Host, command: list[str]) -> None:
    """Start one of the cluster's daemons on a host, by the cluster's daemon: process 1 there adopts it."""
    assert host.init is not None
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            groups = _join(cluster, host.name, host.init.pid)
            # The child of one who is inside: an orphan of ours would fall to the machine's process 1.
            middle = os.fork()
            if middle == 0:
                node.spawn(cluster, command, host.name, lambda: [os.write(group, b"0") for group in groups])
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1]))
        except BaseException as error:  # there is no caller to raise to: the host's log is read
            with open(cluster.paths.logs / f"{host.name}.out", "a") as log:
                log.write(f"{command[0]} was not started: {error}\n")
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise ClusterError(
            f"{host.name}: {command[0]} was not started; see {cluster.paths.logs}/{host.name}.out"
        )


def _join(cluster: Cluster, where: str, init: int) -> list[int]:
    """Enter the host's namespaces; return the doors to its control groups, which are hidden then."""
    assert cluster.daemon is not None
    # As the daemon sees them: a freezer of our own is mounted only there.
    view = f"/proc/{cluster.daemon.pid}/root"
    groups = [
        os.open(f"{view}{folder}/{where}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        for folder in cluster.cgroup_folders
    ]
    descriptors = [
        (os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY), flag, name) for name, flag in _NAMESPACES
    ]
    for descriptor, flag, name in descriptors:
        linux.setns_fd(descriptor, flag, f"{where}'s {name} namespace")
        os.close(descriptor)
    return groups


def _caller_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _become(cluster: Cluster, command: Sequence[str], working_folder: str, as_root: bool) -> None:
    """Turn this process into the command; never returns."""
    user = pwd.getpwuid(0 if as_root else cluster.user.uid)  # the cluster's own passwd: we are inside
    if not as_root:
        os.setgroups([user.pw_gid])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    os.umask(0o022)
    environment = login_environment(cluster, user.pw_name, user.pw_dir, dict(os.environ))
    try:
        os.chdir(working_folder)
    except OSError as error:
        print(
            f"harness cluster exec: {working_folder}: {error.strerror} inside the cluster;"
            f" starting in {user.pw_dir} (to show a folder there: up --share)",
            file=sys.stderr,
        )
        os.chdir(user.pw_dir)
    environment["PWD"] = os.getcwd()
    # sbatch from such a folder fails without a word: its log cannot be written.
    if not os.access(".", os.W_OK) and (os.isatty(0) or os.isatty(1)):
        print(
            f"note: {user.pw_name} cannot write in {os.getcwd()}; her folder is {cluster.paths.shared}",
            file=sys.stderr,
        )
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        print(f"harness cluster exec: {command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def login_environment(cluster: Cluster, name: str, home: str, inherited: dict[str, str]) -> dict[str, str]:
    """The caller's environment, less what belongs to his own session or to another Slurm."""
    dropped = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_", "XDG_", "SUDO_", "SSH_", "DBUS_")
    kept = {key: value for key, value in inherited.items() if not key.startswith(dropped)}
    for key in ("MAIL", "OLDPWD", "TMPDIR", "BASH_ENV", "ENV"):
        kept.pop(key, None)
    # Ours first: `harness` is then the one that the caller started, also on a cluster of another checkout.
    ours = str(Path(sys.executable).parent)
    path = [ours, cluster.program_folder, *kept.get("PATH", SYSTEM_PATH).split(":"), *SYSTEM_PATH.split(":")]
    kept |= {
        "PATH": ":".join(dict.fromkeys(filter(None, path))),
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/bash",
        "SLURM_CONF": str(cluster.paths.slurm_conf),
        ENVIRONMENT_NAME: cluster.folder,
    }
    return kept


def _accompany(pid: int) -> int:
    """Wait for the command. The terminal's signals reach it by itself; ours are passed on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(pid, received))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
