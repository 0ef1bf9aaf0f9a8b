"""What Slurm's commands print, and the facts that are read from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sites import texts
from harness.sites.texts import Bound, Gres, Limit, Mount, Node

TEXTS = Path(__file__).parent / "slurm_texts"


def text(name: str) -> str:
    return (TEXTS / f"{name}.txt").read_text()


def test_nodes_of_22_05_are_read() -> None:
    first, *_, last = texts.nodes(text("22.05-node"))
    gpus = (Gres("gpu", "", 2),)
    assert first == Node("p1", "x86_64", 4, 24105, gpus, (), "IDLE", ("batch",))
    assert last == Node("p4", "x86_64", 8, 900, gpus, ("fast",), "IDLE", ("batch", "low"))


def test_nodes_of_newer_versions_are_read() -> None:
    nodes = {n.name: n for n in texts.nodes(text("newer-node"))}
    assert nodes["gpu01"] == Node(
        "gpu01",
        "x86_64",
        220,  # CPUEfctv: those of CoreSpecCount are not for jobs
        2063000,
        (Gres("gpu", "h100", 8), Gres("nvme", "", 1)),
        ("h100", "ib"),
        "IDLE+DYNAMIC_NORM",
        ("gpu", "admin"),
    )
    assert nodes["gpu04"].gpus == (Gres("gpu", "h100", 4), Gres("gpu", "a100", 2))
    assert [n for n, node in nodes.items() if not node.in_service] == ["gpu03", "dead01"]
    assert [n for n, node in nodes.items() if any(g.mig for g in node.gpus)] == ["mig01"]


def test_a_reason_with_an_equals_sign_changes_nothing() -> None:
    assert {n.name: n for n in texts.nodes(text("newer-node"))}["gpu03"].cpus == 224


def test_partitions_of_22_05_are_read() -> None:
    batch, low = texts.partitions(text("22.05-partition"))
    assert (batch.name, batch.default, batch.max_nodes, batch.max_time_min, batch.total_nodes) == (
        "batch", True, None, 1440, 4,
    )  # fmt: skip
    assert (low.default, low.max_nodes, low.max_time_min, low.oversubscribe) == (False, 2, 120, "NO")


def test_partitions_of_newer_versions_are_read() -> None:
    known = {p.name: p for p in texts.partitions(text("newer-partition"))}
    gpu = known["gpu"]
    assert (gpu.allow_accounts, gpu.max_time_min, gpu.qos, gpu.oversubscribe) == (
        ("physics", "chem"), 3600, "gpu-limits", "EXCLUSIVE",
    )  # fmt: skip
    assert (known["mixed"].max_time_min, known["mixed"].max_nodes, known["mixed"].qos) == (None, None, "")
    assert known["slices"].max_cpus_per_node == 32
    assert known["admin"].root_only


def test_configuration_is_read_with_its_sections_and_odd_lines() -> None:
    config = texts.config(text("22.05-config"))
    assert config["SLURM_VERSION"] == "22.05.8"
    assert config["MaxArraySize"] == "10001"
    assert config["ConstrainRAMSpace"] == "yes"
    assert config["PowerPlugin"] == ""
    assert texts.first(config, "AccountingStorageBackupHost", "ClusterName") == "emulated"


def test_partitions_that_this_user_sees_are_counted() -> None:
    assert texts.visible_partitions(text("22.05-sinfo")) == {"batch": 4, "low": 2}
    assert texts.visible_partitions(text("newer-sinfo")) == {"gpu": 4, "mixed": 5, "slices": 1, "dead": 1}


def test_nodes_are_read_from_sinfo_where_scontrol_may_not_show_them() -> None:
    nodes = [n for n in texts.nodes_of_sinfo(text("newer-sinfo")) if "mixed" in n.partitions]
    assert [(n.cpus, n.memory_mb, n.architecture) for n in nodes] == [(72, 480000, "")] * 3 + [
        (96, 256000, "")
    ] * 2


def test_associations_of_the_cluster_alone_are_read() -> None:
    assert texts.associations(text("newer-assoc"), "BigCluster") == [
        Limit(
            "physics",
            "",
            "normal",
            (
                Bound("running", 20, "MaxJobs", "MaxJobs=20"),
                Bound("jobs", 50, "MaxSubmit", "MaxSubmit=50"),
                Bound("nodes", 8, "MaxTRES", "MaxTRES=node=8"),
            ),
        ),
        Limit("chem", "gpu", "long", (Bound("time_min", 1440, "MaxWall", "MaxWall is 1440 minutes"),)),
    ]


def test_qualities_of_service_are_read() -> None:
    assert texts.qualities(text("newer-qos"))["gpu-limits"] == Limit(
        "gpu-limits",
        "",
        "",
        (
            Bound("jobs", 40, "MaxSubmitPU", "MaxSubmitPU=40", True),
            Bound("time_min", 2160, "MaxWall", "MaxWall is 2160 minutes"),
            Bound("cpus", 1000, "MaxTRES", "MaxTRES=cpu=1000"),
            Bound("nodes", 12, "MaxTRES", "MaxTRES=node=12"),
            Bound("gpus", 64, "MaxTRESPU", "MaxTRESPU=gres/gpu=64", True),
            Bound("nodes", 6, "MaxTRESPU", "MaxTRESPU=node=6", True),
        ),
    )


@pytest.mark.parametrize(
    ("name", "plugins"),
    [
        ("22.05-mpi", ("pmix", "none", "cray_shasta", "pmi2")),
        ("newer-mpi", ("none", "cray_shasta", "pmi2", "pmix")),
        ("older-mpi", ("cray_shasta", "none", "pmi2", "pmix")),
    ],
)
def test_mpi_plugins_are_read_without_their_versions(name: str, plugins: tuple[str, ...]) -> None:
    assert texts.mpi_plugins(text(name)) == plugins


@pytest.mark.parametrize(
    ("given", "minutes"),
    [
        ("UNLIMITED", None), ("infinite", None), ("(null)", None), ("NONE", None), ("", None), ("nonsense", None),
        ("30", 30), ("30:00", 30), ("02:00:00", 120), ("1-00:00:00", 1440), ("2-12", 3600), ("1-06:30", 1830),
    ],
)  # fmt: skip
def test_times_of_all_forms_are_minutes(given: str, minutes: int | None) -> None:
    assert texts.minutes(given) == minutes


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("(null)", ()),
        ("gpu", (Gres("gpu", "", 1),)),
        ("gpu:2", (Gres("gpu", "", 2),)),
        ("gpu:h100:8(S:0-1)", (Gres("gpu", "h100", 8),)),
        ("gpu:a100(S:0,1)", (Gres("gpu", "a100", 1),)),
        ("gpu:1g.10gb:7,shard:4K", (Gres("gpu", "1g.10gb", 7), Gres("shard", "", 4096))),
    ],
)
def test_generic_resources_are_read(given: str, found: tuple[Gres, ...]) -> None:
    assert texts.gres(given) == found


@pytest.mark.parametrize(
    ("state", "in_service"),
    [
        ("IDLE", True), ("MIXED+PLANNED", True), ("IDLE+DYNAMIC_NORM", True), ("idle~", True),
        ("IDLE+POWERED_DOWN", True),
        ("IDLE*", False), ("DOWN*+CLOUD", False), ("IDLE+DRAIN", False), ("draining", False), ("FUTURE", False),
        ("ALLOCATED+COMPLETING", True), ("IDLE+MAINTENANCE+RESERVED", True), ("INVAL", False),
    ],
)  # fmt: skip
def test_nodes_are_in_service_unless_their_state_says_otherwise(state: str, in_service: bool) -> None:
    assert Node("n", "", 1, 1, (), (), state, ()).in_service is in_service


def test_mounts_are_told_apart_by_kind_and_later_ones_hide_earlier() -> None:
    known = texts.mounts(
        "/dev/sda / ext4 rw 0 0\n"
        "srv:/home /home nfs4 rw,acdirmax=30 0 0\n"
        "x /data ext4 rw 0 0\n"
        "10.0.0.1@o2ib:/scratch /data lustre rw,flock 0 0\n"
        "tmpfs /my\\040disk tmpfs rw 0 0\n"
    )
    assert {m.path: (m.type, m.network) for m in known} == {
        "/": ("ext4", False),
        "/home": ("nfs4", True),
        "/data": ("lustre", True),
        "/my disk": ("tmpfs", False),
    }
    assert texts.mount_of("/home/me/x", known) == Mount("srv:/home", "/home", "nfs4", ("rw", "acdirmax=30"))
    assert texts.mount_of("/homes", known) == Mount("/dev/sda", "/", "ext4", ("rw",))


@given(st.text())
def test_no_text_whatever_stops_the_reading(given: str) -> None:
    readers: list[Any] = [
        texts.nodes,
        texts.partitions,
        texts.config,
        texts.qualities,
        texts.mounts,
        texts.gres,
    ]
    for read in (*readers, texts.mpi_plugins, texts.minutes, texts.nodes_of_sinfo, texts.visible_partitions):
        read(given)
    texts.associations(given, "x")
