"""The text of every file the cluster's daemons read. Pure: values in, text out, nothing touched.

What is not said here is Slurm's default. Each setting that departs from it has its reason beside it,
most of them learned the hard way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from harness.devcluster import settings
from harness.devcluster.errors import ClusterError
from harness.devcluster.state import Cluster, Host, User

PARTITION = "batch"
DATABASE = "slurm_acct_db"
CONTROLLER_PORT = 6817
NODE_PORT = 6818
ACCOUNTING_PORT = 6819
CLUSTER_NAME = "emulated"
NODE_LOST_S = 10
# A job is requeued only when its old credential has expired (default 120 s). It must outlast the
# launch of the widest step, which two cores make slow: see credential_expiry_s.
_CREDENTIAL_EXPIRY_S = 6


def credential_expiry_s(nodes: int) -> int:
    """Short, so that requeue is quick, but longer than it takes to launch on every node."""
    return _CREDENTIAL_EXPIRY_S + nodes // 16


def slurm_conf(cluster: Cluster) -> str:
    """slurm.conf, the same file for head, nodes, login and the machine itself."""
    paths = cluster.paths
    nodes = cluster.nodes
    grouped = f"p[1-{len(nodes)}]"
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={cluster.head.name}({cluster.head.address})",
        f"SlurmctldPort={CONTROLLER_PORT}",
        f"SlurmdPort={NODE_PORT}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        f"AuthInfo=socket={paths.munge_socket},cred_expire={credential_expiry_s(len(nodes))}",
        f"StateSaveLocation={paths.controller_state}",
        "MailProg=/bin/true",
        # Node-local, in the node's private /run: a power-off destroys it.
        "SlurmdSpoolDir=/run/slurm/spool",
        "SlurmctldPidFile=/run/slurm/slurmctld.pid",
        "SlurmdPidFile=/run/slurm/slurmd.pid",
        f"SlurmctldLogFile={paths.log('slurmctld')}",
        f"SlurmdLogFile={paths.logs}/slurmd-%n.log",
        "SlurmctldDebug=info",
        "SlurmdDebug=info",
        # 2: a node that comes back after it was down serves again by itself, even after a reboot.
        "ReturnToService=2",
        f"SlurmdTimeout={NODE_LOST_S}",
        "SlurmctldTimeout=30",
        "MessageTimeout=10",
        "KillWait=10",
        # With less, healthy nodes are drained ("Kill task failed") after a step has lost nodes.
        "UnkillableStepTimeout=120",
        "MinJobAge=300",
        "MaxArraySize=10001",
        "MaxJobCount=20000",
        "JobRequeue=1",
        "MpiDefault=none",
        # For `harness schedule --how scrontab`; by default it is off.
        "ScronParameters=enable",
        # Nodes claim more CPUs than the machine has; without this they are drained for it.
        "SlurmdParameters=config_overrides",
        "SwitchType=switch/none",
        *_tracking(cluster),
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=10",
        "SchedulerType=sched/backfill",
        # Start jobs at once, and look again soon after whatever was missed.
        "SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,bf_continue",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        # A job that does not ask for memory gets its CPUs' share, so that two fit on a node.
        f"DefMemPerCPU={max(1, cluster.memory_mb // cluster.cpus)}",
        *_accounting(cluster),
        # For the fault `preempt`, which makes a partition above this one; with one partition nothing preempts.
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "PrivateData=none",
        *_gres_types(cluster.gres),
        *_nodes(cluster, grouped),
        f"PartitionName={PARTITION} Nodes={grouped} Default=YES MaxTime=1-00:00:00 DefaultTime=01:00:00"
        " OverSubscribe=NO State=UP",
    ]
    return "\n".join(settings.merge(lines, cluster.settings)) + "\n"


def _accounting(cluster: Cluster) -> tuple[str, ...]:
    if not cluster.accounting:
        return ("AccountingStorageType=accounting_storage/none",)
    return (
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={cluster.head.address}",
        f"AccountingStoragePort={ACCOUNTING_PORT}",
        # Not a password: the munge socket that this connection uses. AuthInfo alone is not enough.
        f"AccountingStoragePass={cluster.paths.munge_socket}",
        "AccountingStoreFlags=job_comment",
    )


def _nodes(cluster: Cluster, grouped: str) -> tuple[str, ...]:
    """One line for all nodes; a line for each where --conf tells them apart."""
    nodes = cluster.nodes
    special = settings.node_options(cluster.settings)
    if special:
        return tuple(_node(cluster, node.name, node.address, special.get(node.name, {})) for node in nodes)
    prefix, first = nodes[0].address.rsplit(".", 1)
    return (_node(cluster, grouped, f"{prefix}.[{first}-{int(first) + len(nodes) - 1}]", {}),)


def _node(cluster: Cluster, name: str, address: str, special: Mapping[str, str]) -> str:
    options = {"CPUs": str(cluster.cpus), "RealMemory": str(cluster.memory_mb)}
    if cluster.gres:
        options["Gres"] = cluster.gres
    words = [f"{key}={value}" for key, value in {**options, **special}.items()]
    return " ".join([f"NodeName={name}", f"NodeAddr={address}", *words, "State=UNKNOWN"])


def _tracking(cluster: Cluster) -> tuple[str, ...]:
    # By parents alone, processes that leave their session outlive the job: `status` says so.
    track = "linuxproc" if cluster.cgroup == "none" else "cgroup"
    # Limits need more than a freezer.
    task = "cgroup" if cluster.cgroup == "v1" else "none"
    return (f"ProctrackType=proctrack/{track}", f"TaskPlugin=task/{task}")


def _gres_types(gres: str) -> tuple[str, ...]:
    return (f"GresTypes={','.join(parse_gres(gres))}",) if gres else ()


def parse_gres(text: str) -> Mapping[str, int]:
    """'gpu:2,nic:1' as a mapping; refuses what slurm.conf would understand otherwise."""
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([a-z]+):([1-9][0-9]?)", part)
        if match is None or match[1] in found:
            raise ClusterError(
                f"--gres {text}: {part!r} is not NAME:COUNT (count 1 to 99, each name once), such as gpu:2",
                exit_status=2,
            )
        found[match[1]] = int(match[2])
    return found


def gres_files(cluster: Cluster) -> tuple[str, ...]:
    """Names of the files in the folder's gres/ that stand for devices."""
    return tuple(
        f"{name}{number}" for name, count in parse_gres(cluster.gres).items() for number in range(count)
    )


def gres_conf(cluster: Cluster) -> str:
    """gres.conf: each device is one more /dev/null, whose number becomes CUDA_VISIBLE_DEVICES."""
    lines = ["AutoDetect=off"]
    for name, count in parse_gres(cluster.gres).items():
        lines.append(f"Name={name} File={cluster.paths.devices}/{name}[0-{count - 1}]")
    return "\n".join(lines) + "\n"


def cgroup_conf(cluster: Cluster) -> str:
    """cgroup.conf; each node has a cgroup namespace, so that all may use the same path."""
    # Named even where it goes unused: slurmd otherwise looks for a version, and ends if there is none.
    common = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint=/sys/fs/cgroup\n"
    if cluster.cgroup != "v1":
        return common
    # The CPUs that a node claims do not exist, so jobs cannot be bound to them.
    return f"{common}ConstrainRAMSpace=yes\nConstrainCores=no\nConstrainDevices=no\n"


def slurmdbd_conf(cluster: Cluster) -> str:
    """slurmdbd.conf; slurmdbd insists on mode 600."""
    paths = cluster.paths
    return (
        "AuthType=auth/munge\n"
        f"AuthInfo=socket={paths.munge_socket}\n"
        f"DbdHost={cluster.head.name}\n"
        f"DbdAddr={cluster.head.address}\n"
        f"DbdPort={ACCOUNTING_PORT}\n"
        "SlurmUser=root\n"
        "DebugLevel=info\n"
        f"LogFile={paths.log('slurmdbd')}\n"
        "PidFile=/run/slurm/slurmdbd.pid\n"
        "StorageType=accounting_storage/mysql\n"
        "StorageHost=localhost\n"
        # localhost means MariaDB's usual socket, which is in the head's private /run.
        "StorageUser=root\n"
        f"StorageLoc={DATABASE}\n"
    )


def passwd(machine: str, user: User) -> str:
    """The machine's passwd and the cluster's user."""
    return _ended(machine) + f"{user.name}:x:{user.uid}:{user.uid}:{user.name}:{user.home}:/bin/bash\n"


def group(machine: str, user: User) -> str:
    """The machine's group and the cluster user's own."""
    return _ended(machine) + f"{user.name}:x:{user.uid}:\n"


def hosts(machine: str, everyone: Iterable[Host]) -> str:
    """The machine's hosts and the cluster's, which win: they come first."""
    ours = "".join(f"{host.address} {host.name}\n" for host in everyone)
    return ours + machine


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def choose_user(passwd_names: Iterable[str], taken_ids: Iterable[int], homes: str, account: str) -> User:
    """A user that this machine has not: alice, 61000, or the next free ones."""
    names, ids = set(passwd_names), set(taken_ids)
    name = next(name for name in ("alice", *(f"alice{n}" for n in range(2, 1000))) if name not in names)
    uid = next(uid for uid in range(61000, 62000) if uid not in ids)
    return User(name=name, uid=uid, account=account, home=f"{homes}/{name}")
