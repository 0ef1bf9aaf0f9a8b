"""The text of the emulated cluster's configuration, and the choice of names, addresses and user."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address, IPv4Network

import pytest

from harness.devcluster import config, names
from harness.devcluster.errors import ClusterError
from harness.devcluster.neighbours import hardware_text, message
from harness.devcluster.state import STATE_VERSION, Cluster, Host, User

SUBNET = IPv4Network("10.120.0.0/16")


def cluster(nodes: int = 3, gres: str = "", cgroup: str = "v1") -> Cluster:
    return Cluster(
        version=STATE_VERSION,
        identity="1a2b3c4d",
        folder="/srv/c",
        phase="starting",
        nodes=tuple(
            Host(name, str(names.node_address(SUBNET, index)), names.link_name("1a2b3c4d", name))
            for index, name in enumerate(names.node_names(nodes))
        ),
        head=Host("head", "10.120.0.2", "hh1a2b3c4dh"),
        daemon=None,
        subnet=str(SUBNET),
        prefix_length=16,
        gateway="10.120.0.1",
        bridge="hh1a2b3c4d",
        user=User("alice", 61000, "lab", "/srv/c/home/alice"),
        cpus=4,
        memory_mb=8000,
        gres=gres,
        cgroup=cgroup,
        cgroup_why="",
        cgroup_folders=(),
        program_folder="/venv/bin",
        project="/project",
        shares=(),
        since_wall_ns=0,
    )


SLURM_CONF = """\
ClusterName=emulated
SlurmctldHost=head(10.120.0.2)
SlurmctldPort=6817
SlurmdPort=6818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=/srv/c/run/munge.sock,cred_expire=6
StateSaveLocation=/srv/c/slurmctld
MailProg=/bin/true
SlurmdSpoolDir=/run/slurm/spool
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd.pid
SlurmctldLogFile=/srv/c/logs/slurmctld.log
SlurmdLogFile=/srv/c/logs/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=30
MessageTimeout=10
KillWait=10
UnkillableStepTimeout=120
MinJobAge=300
MaxArraySize=10001
MaxJobCount=20000
JobRequeue=1
MpiDefault=none
ScronParameters=enable
SlurmdParameters=config_overrides
SwitchType=switch/none
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=10
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,bf_continue
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=2000
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=10.120.0.2
AccountingStoragePort=6819
AccountingStoragePass=/srv/c/run/munge.sock
AccountingStoreFlags=job_comment
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PrivateData=none
GresTypes=gpu
NodeName=p[1-3] NodeAddr=10.120.1.[1-3] CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=batch Nodes=p[1-3] Default=YES MaxTime=1-00:00:00 DefaultTime=01:00:00 OverSubscribe=NO State=UP
"""


def test_slurm_conf_is_exactly_this() -> None:
    assert config.slurm_conf(cluster(gres="gpu:2")) == SLURM_CONF


@pytest.mark.parametrize(
    ("cgroup", "track", "task"),
    [("v1", "cgroup", "cgroup"), ("freezer", "cgroup", "none"), ("none", "linuxproc", "none")],
)
def test_jobs_are_tracked_and_limited_as_far_as_there_are_control_groups(
    cgroup: str, track: str, task: str
) -> None:
    text = config.slurm_conf(cluster(cgroup=cgroup))
    assert f"ProctrackType=proctrack/{track}\nTaskPlugin=task/{task}\n" in text
    common = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint=/sys/fs/cgroup\n"
    limits = "ConstrainRAMSpace=yes\nConstrainCores=no\nConstrainDevices=no\n"
    assert config.cgroup_conf(cluster(cgroup=cgroup)) == common + (limits if cgroup == "v1" else "")


def test_the_munge_socket_is_named_twice() -> None:
    """AuthInfo alone leaves the connection to slurmdbd without a socket."""
    text = config.slurm_conf(cluster())
    assert "AuthInfo=socket=/srv/c/run/munge.sock,cred_expire=6\n" in text
    assert "AccountingStoragePass=/srv/c/run/munge.sock\n" in text


def test_slurmdbd_conf_is_exactly_this() -> None:
    assert config.slurmdbd_conf(cluster()) == (
        "AuthType=auth/munge\n"
        "AuthInfo=socket=/srv/c/run/munge.sock\n"
        "DbdHost=head\n"
        "DbdAddr=10.120.0.2\n"
        "DbdPort=6819\n"
        "SlurmUser=root\n"
        "DebugLevel=info\n"
        "LogFile=/srv/c/logs/slurmdbd.log\n"
        "PidFile=/run/slurm/slurmdbd.pid\n"
        "StorageType=accounting_storage/mysql\n"
        "StorageHost=localhost\n"
        "StorageUser=root\n"
        "StorageLoc=slurm_acct_db\n"
    )


def test_gres_conf_names_one_file_a_device() -> None:
    four = cluster(gres="gpu:4,nic:1")
    assert config.gres_conf(four) == (
        "AutoDetect=off\nName=gpu File=/srv/c/gres/gpu[0-3]\nName=nic File=/srv/c/gres/nic[0-0]\n"
    )
    assert config.gres_files(four) == ("gpu0", "gpu1", "gpu2", "gpu3", "nic0")


@pytest.mark.parametrize("text", ["gpu", "gpu:0", "gpu:two", "gpu:1,gpu:2", "gpu:100", "GPU:1", "gpu:1 "])
def test_odd_gres_is_refused_with_the_form_that_is_meant(text: str) -> None:
    with pytest.raises(ClusterError, match="is not NAME:COUNT"):
        config.parse_gres(text)


def test_credentials_outlast_the_launch_of_wide_steps() -> None:
    assert [config.credential_expiry_s(nodes) for nodes in (1, 4, 32, 128)] == [6, 6, 8, 14]


def test_users_and_hosts_are_the_machines_and_ours() -> None:
    user = cluster().user
    assert config.passwd("root:x:0:0::/root:/bin/sh", user) == (
        "root:x:0:0::/root:/bin/sh\nalice:x:61000:61000:alice:/srv/c/home/alice:/bin/bash\n"
    )
    assert config.group("root:x:0:\n", user) == "root:x:0:\nalice:x:61000:\n"
    assert (
        config.hosts("127.0.0.1 localhost\n", cluster().nodes[:1]) == "10.120.1.1 p1\n127.0.0.1 localhost\n"
    )


def test_the_user_is_one_that_the_machine_lacks() -> None:
    assert config.choose_user({"root"}, {0}, "/h", "lab") == User("alice", 61000, "lab", "/h/alice")
    assert config.choose_user({"alice"}, {61000, 61001}, "/h", "lab") == User(
        "alice2", 61002, "lab", "/h/alice2"
    )


# -- names and addresses ------------------------------------------------------------------------------


def test_nodes_are_counted_from_one() -> None:
    assert names.node_names(3) == ("p1", "p2", "p3")


@pytest.mark.parametrize("count", [0, -1, 251])
def test_impossible_numbers_of_nodes_are_refused(count: int) -> None:
    with pytest.raises(ClusterError, match="1 to 250 are possible"):
        names.node_names(count)


def test_addresses_of_250_nodes_differ_only_in_the_last_byte() -> None:
    assert str(names.node_address(SUBNET, 0)) == "10.120.1.1"
    assert str(names.node_address(SUBNET, 249)) == "10.120.1.250"
    assert "NodeAddr=10.120.1.[1-250]" in config.slurm_conf(cluster(nodes=250))


def test_every_link_name_fits_the_kernels_fifteen_characters() -> None:
    assert names.link_name("1a2b3c4d", "p250") == "hh1a2b3c4dp250"
    assert names.link_name("1a2b3c4d", "head") == "hh1a2b3c4dh"
    with pytest.raises(ValueError, match="at most 15"):
        names.link_name("1a2b3c4d5e6f", "p250")


def test_the_subnet_overlaps_nothing_that_is_in_use() -> None:
    taken = [IPv4Network("0.0.0.0/0"), IPv4Network("10.5.0.0/16"), IPv4Network("10.6.7.8/32")]
    assert names.choose_subnet(taken, seed=5) == IPv4Network("10.7.0.0/16")
    assert names.choose_subnet(taken, seed=256 + 4) == IPv4Network("10.4.0.0/16")


def test_a_machine_that_routes_all_of_ten_gets_another_range() -> None:
    assert names.choose_subnet([IPv4Network("10.0.0.0/8")], seed=1) == IPv4Network("172.16.0.0/16")
    full = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "198.18.0.0/15")]
    with pytest.raises(ClusterError, match="leave no /16 free"):
        names.choose_subnet(full, seed=1)


def test_routes_and_addresses_are_read_from_ip() -> None:
    routes = json.dumps(
        [{"dst": "default"}, {"dst": "10.0.0.0/8"}, {"dst": "fe80::/64"}, {"dst": "10.1.2.3"}]
    )
    addresses = json.dumps(
        [
            {"addr_info": [{"family": "inet", "local": "192.0.2.2", "prefixlen": 24}]},
            {"addr_info": [{"family": "inet6", "local": "::1", "prefixlen": 128}]},
            {},
        ]
    )
    assert names.taken_subnets(routes, addresses) == (
        IPv4Network("10.0.0.0/8"),
        IPv4Network("10.1.2.3/32"),
        IPv4Network("192.0.2.0/24"),
    )
    assert names.taken_subnets("", "") == ()


def test_hardware_addresses_follow_from_addresses() -> None:
    assert hardware_text(IPv4Address("10.120.1.3")) == "02:68:0a:78:01:03"


def test_a_neighbour_message_is_what_the_kernel_expects() -> None:
    known = message(True, 2, [IPv4Address("10.120.1.3")])
    assert known.hex() == (
        "30000000" "1c00" "0105" "00000000" "00000000"  # 48 bytes, RTM_NEWNEIGH; request, create, replace
        "02000000" "02000000" "8000" "00" "00"  # AF_INET, link 2, permanent
        "0800" "0100" "0a780103"  # the address
        "0a00" "0200" "02680a780103" "0000"  # its hardware address, padded
    )  # fmt: skip
    unknown = message(False, 2, [IPv4Address("10.120.1.3")])
    assert unknown[:6].hex() == "240000001d00"
    assert message(True, 2, []) == b""


def test_a_cluster_is_unchanged_by_its_record() -> None:
    """Every field is plain data: what `down` reads after a crash is what was written."""
    assert json.loads(json.dumps(dataclasses.asdict(cluster())))["nodes"][2]["name"] == "p3"
