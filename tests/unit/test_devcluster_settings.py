"""A site's own lines for the emulated cluster's slurm.conf: what is taken, where it goes, what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from harness.devcluster import config, settings
from harness.devcluster.errors import ClusterError
from harness.devcluster.state import Cluster
from tests.unit.test_devcluster_config import SLURM_CONF, cluster


def conf(*lines: str, **fields: object) -> list[str]:
    changed: Cluster = dataclasses.replace(cluster(gres="gpu:2"), settings=settings.check(lines), **fields)  # type: ignore[arg-type]
    return config.slurm_conf(changed).splitlines()


def differences(lines: list[str]) -> tuple[list[str], list[str]]:
    ours = SLURM_CONF.splitlines()
    return [line for line in ours if line not in lines], [line for line in lines if line not in ours]


def test_a_setting_takes_the_place_of_ours_whatever_its_case() -> None:
    lines = conf("maxarraysize=11")
    assert differences(lines) == (["MaxArraySize=10001"], ["maxarraysize=11"])
    assert lines.index("maxarraysize=11") == SLURM_CONF.splitlines().index("MaxArraySize=10001")


def test_a_setting_that_we_have_not_is_added_at_the_end() -> None:
    assert conf("PriorityType=priority/multifactor")[-1] == "PriorityType=priority/multifactor"


def test_a_partition_takes_the_place_of_the_one_of_its_name_alone() -> None:
    low = "PartitionName=low Nodes=ALL PriorityTier=1"
    batch = "PartitionName=batch Nodes=p[1-2] Default=YES"
    ours = SLURM_CONF.splitlines()[-1]
    assert differences(conf(low, batch)) == ([ours], [batch, low])


def test_defaults_of_partitions_come_before_every_partition() -> None:
    lines = conf("PartitionName=DEFAULT MaxTime=10")
    assert lines[-2:] == ["PartitionName=DEFAULT MaxTime=10", SLURM_CONF.splitlines()[-1]]


def test_nodes_that_differ_have_a_line_each() -> None:
    lines = conf("NodeName=p[1-2] Feature=fast", "NodeName=p2 weight=5 CPUs=2")
    assert [line for line in lines if line.startswith("NodeName=")] == [
        "NodeName=p1 NodeAddr=10.120.1.1 CPUs=4 RealMemory=8000 Gres=gpu:2 Feature=fast State=UNKNOWN",
        "NodeName=p2 NodeAddr=10.120.1.2 CPUs=2 RealMemory=8000 Gres=gpu:2 Feature=fast Weight=5 State=UNKNOWN",
        "NodeName=p3 NodeAddr=10.120.1.3 CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN",
    ]


def test_without_accounting_slurm_conf_says_so_and_names_no_database() -> None:
    assert [line for line in conf(accounting=False) if "Accounting" in line] == [
        "AccountingStorageType=accounting_storage/none"
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("SlurmUser=alice", "the emulation stands on SlurmUser; leave it out"),
        ("statesavelocation=/x", "the emulation stands on statesavelocation"),
        ("SlurmctldPort=1", "the emulation stands on SlurmctldPort"),
        ("SlurmctldHost=a", "the emulation stands on SlurmctldHost"),
        ("AuthAltTypes=auth/jwt", "the emulation stands on AuthAltTypes"),
        ("SlurmdLogFile=/x", "the emulation stands on SlurmdLogFile"),
        ("AccountingStorageHost=a", "the emulation stands on AccountingStorageHost"),
        ("AccountingStorageType=accounting_storage/none", "use --no-accounting"),
        ("GresTypes=gpu", "use --gres NAME:COUNT"),
        ("TaskPlugin=task/none", "it follows from the machine's control groups"),
        ("SlurmdParameters=x", "keep config_overrides in it"),
        ("NodeName=p1 NodeAddr=1.2.3.4", "NodeAddr=1.2.3.4: of a node can be said CPUs"),
        ("NodeName=DEFAULT Weight=1", r"name one node \(p1\) or a range of them"),
        ("Include /etc/passwd", "is not KEY=VALUE"),
        ("MaxArraySize=", "is not KEY=VALUE"),
        ("MaxArraySize=1\nSlurmUser=alice", "is not KEY=VALUE on one line"),
    ],
)
def test_what_the_emulation_stands_on_is_refused_with_the_reason(line: str, why: str) -> None:
    with pytest.raises(ClusterError, match=why) as caught:
        settings.check([line])
    assert caught.value.exit_status == 2


def test_a_key_that_is_given_twice_is_refused_and_two_partitions_are_not() -> None:
    with pytest.raises(ClusterError, match="MINJOBAGE is given twice"):
        settings.check(["MinJobAge=2", "MINJOBAGE=3"])
    assert settings.check(["PartitionName=a Nodes=ALL", "PartitionName=b Nodes=ALL"])


def test_nodes_that_there_are_not_are_refused() -> None:
    with pytest.raises(ClusterError, match="NodeName=p3: there are p1 to p2"):
        settings.check_nodes(["NodeName=p[2-3] Weight=1"], ("p1", "p2"))


def test_a_harmless_setting_is_kept_as_it_was_given() -> None:
    lines = ("SlurmdParameters=config_overrides,l3cache_as_socket", "AccountingStorageEnforce=limits,qos")
    assert settings.check(lines) == lines
