"""Site files that are written from what a cluster says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import config
from harness.model.site import Site
from harness.plan import expand
from harness.sites import probe as probing
from harness.sites import texts
from harness.sites.facts import Facts, NoPartition
from harness.sites.yaml_text import Line, document
from harness.slurm.commands import CommandError
from harness.source import parse

TEXTS = Path(__file__).parent / "slurm_texts"
MOUNTS = (
    "/dev/sda / ext4 rw 0 0\nsrv:/home /home nfs4 rw,acdirmax=30 0 0\nsrv:/sw /sw nfs4 ro 0 0\n"
    "x@o2ib:/s /scratch lustre rw 0 0\nx@o2ib:/a /archive lustre rw 0 0\n"
)


def text(name: str) -> str:
    return (TEXTS / f"{name}.txt").read_text()


class Told:
    """Answers of a cluster's commands, and what was asked."""

    def __init__(self, version: str, **failing: str) -> None:
        self.version, self.failing = version, failing
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.asked.append(tuple(command))
        words = " ".join(command)
        if (why := self.failing.get(command[0])) is not None:
            raise CommandError(f"{command[0]}: exit code 1, said: {why}", 1)
        for sign, name in (
            ("show config", "config"), ("show partition", "partition"), ("show node", "node"), ("sinfo", "sinfo"),
            ("show assoc", "assoc"), ("show qos", "qos"), ("--mpi=list", "mpi"),
        ):  # fmt: skip
            if sign in words:
                path = TEXTS / f"{self.version}-{name}.txt"
                return path.read_text() if path.exists() else ""
        return ""


def facts(told: Told, **changes: Any) -> Facts:
    found, _ = probing.gather(told)
    known: dict[str, Any] = {
        "mounts": tuple(texts.mounts(MOUNTS)),
        "mpi_library": "",
        "environment": {"HOME": "/home/me", "SCRATCH": "/scratch/me"},
        "python": "/home/me/env/bin/python",
        "machine": "x86_64",
        "gpus_here": "",
    }
    return replace(found, **{**known, **changes})


def written(
    told: Told, *wanted: str, name: str = "", kind: str = "production", **changes: Any
) -> tuple[str, Site]:
    return probing.probe(
        facts(told, **changes), wanted=wanted, name=name, kind=kind, command="harness site probe"
    )


def line(of: str, key: str) -> str:
    """The line of a key, and the comment above it, if there is one."""
    lines = of.splitlines()
    index = next(i for i, one in enumerate(lines) if one.strip().startswith(f"{key}:"))
    first = index
    while lines[first - 1].strip().startswith("#") and "#" not in lines[index]:
        first -= 1
    return " ".join(" ".join(lines[first : index + 1]).split())


CAMPAIGN = (
    "schema: 1\nname: c\nseed: 1\ngroups:\n  - {name: g, workload: mpi.halo, nodes: 2}\n"
    "  - {name: t, workload: torch.train, nodes: 1}\n"
)


def test_a_cluster_of_22_05_becomes_a_site_file_that_a_campaign_fits() -> None:
    _, site = written(Told("22.05"))
    assert site.model_dump(mode="json", exclude_defaults=True) == {
        "schema": 1,
        "name": "emulated",
        "description": "emulated, Slurm 22.05.8",
        "kind": "production",
        "launcher": "slurm",
        "partition": "batch",
        "limits": {"max_nodes": 4, "max_time_min": 1440, "max_array_size": 10000},
        "node": {"architecture": "x86_64", "cpus": 4, "gpus": 2, "memory_mb": 0, "exclusive": True},
        "python": "/home/me/env/bin/python",
        "mpi": {"plugin": "pmix"},
        "paths": {"shared": ["/home", "/scratch"], "visible_after_s": 30.0},
        "requeue": True,
        "accounting": True,
    }
    campaign = config.parse_campaign(CAMPAIGN)
    assert config.check(campaign, site, text=CAMPAIGN) == []
    assert len(expand(campaign, site).cases) == 2


def test_every_value_says_where_it_came_from() -> None:
    said, _ = written(Told("newer"))
    bare = [
        one
        for index, one in enumerate(said.splitlines())
        if "#" not in one
        and not said.splitlines()[index - 1].lstrip().startswith("#")
        and not one.rstrip().endswith(":")
        and one.split(":")[0] not in ("schema", "launcher")
    ]
    assert bare == []


def test_limits_are_the_smallest_of_partition_association_and_quality_of_service() -> None:
    said, site = written(Told("newer"))
    assert (site.limits.max_nodes, site.limits.max_time_min) == (3, 1440)
    assert (site.limits.max_array_size, site.limits.max_jobs_in_queue) == (1000, 40)
    assert line(said, "max_nodes").endswith("# sinfo: 3 of 4 nodes can be used now")
    assert line(said, "max_time_min").endswith("# sacctmgr show assoc, account chem: MaxWall is 1440 minutes")
    assert line(said, "max_jobs_in_queue") == (
        "# sacctmgr show qos gpu-limits: MaxSubmitPU=40; at most 20 run at a time (MaxJobs=20) max_jobs_in_queue: 40"
    )


NONE = "||||||"  # the seven limits of an association, none of them set


def _told_limits(own: str, above: str, quality: str) -> Site:
    """What is written on a cluster with these limits of the association, its account, and its quality of service."""

    def ask(command: Sequence[str]) -> str:
        if command[0] != "sacctmgr":
            return Told("22.05")(command)
        if "qos" in command:
            return f"normal|{quality}"
        return f"emulated|lab|root|||{above}" if "user=" in command else f"emulated|lab||||{own}"

    found, _ = probing.gather(ask)
    enforced = replace(found, config={**found.config, "AccountingStorageEnforce": "limits"})
    return probing.probe(enforced, wanted=(), name="", kind="production", command="x")[1]


@pytest.mark.parametrize(
    ("own", "above", "quality", "limits"),
    [
        (NONE, NONE, "|||||||", (4, 1440, None)),
        ("|||node=3|||", NONE, "|||||||", (3, 1440, None)),
        (NONE, "||||node=2||9", "|||||||", (2, 1440, 9)),
        ("|||cpu=8|||", NONE, "|||||||", (2, 1440, None)),
        (NONE, "||||gres/gpu=6||", "|||||||", (3, 1440, None)),
        (NONE, NONE, "|6|01:00:00||node=3|||", (3, 60, 6)),
        (NONE, NONE, "|||node=1||||3", (1, 1440, 3)),
        (NONE, "7|5|60|node=1|||", "|||||||", (4, 1440, None)),  # those of each job are in the user's own row
    ],
)
def test_each_kind_of_limit_is_found(
    own: str, above: str, quality: str, limits: tuple[int, int, int | None]
) -> None:
    said = _told_limits(own, above, quality).limits
    assert (said.max_nodes, said.max_time_min, said.max_jobs_in_queue) == limits


def test_a_partition_that_is_down_is_told() -> None:
    told = facts(Told("22.05"))
    down = replace(told, partitions=tuple(replace(p, up=False, state="DRAIN") for p in told.partitions))
    said, _ = probing.probe(down, wanted=("batch",), name="", kind="production", command="x")
    assert "it is DRAIN now, so that jobs would wait or be refused" in line(said, "partition")


def test_limits_that_slurm_does_not_enforce_are_not_applied() -> None:
    told = facts(Told("newer"))
    loose = replace(told, config={**told.config, "AccountingStorageEnforce": "associations"})
    said, site = probing.probe(loose, wanted=(), name="", kind="production", command="x")
    assert (site.limits.max_time_min, site.limits.max_jobs_in_queue) == (3600, None)
    assert "none are enforced" in line(said, "max_jobs_in_queue")


def test_gpus_are_those_that_every_node_has_of_one_type() -> None:
    said, site = written(Told("newer"))
    assert (site.node.gpus, site.node.gpu_type, site.node.cpus) == (4, "h100", 220)
    assert "the smallest: 4 on 1, 8 on 2" in line(said, "gpus")
    assert site.gpus_request == "h100:4"


def test_what_newer_configurations_say_is_used() -> None:
    said, site = written(Told("newer"))
    assert (site.name, site.paths.node_local, site.requeue, site.mpi.plugin) == (
        "bigcluster", "/local", False, "pmix",
    )  # fmt: skip
    assert "private to each job" in line(said, "node_local")
    assert "check this line" in line(said, "requeue")
    assert "rl_enable" in line(said, "calls_per_minute")
    assert "matlab:20" in line(said, "licenses")
    assert "as the partition gives them anyway" in line(said, "exclusive")


def test_nodes_of_two_architectures_become_two_partitions() -> None:
    said, site = written(Told("newer"), "mixed")
    other = site.on("mixed-x86_64")
    assert (site.node.architecture, site.constraint, site.node.cpus) == ("aarch64", "grace", 72)
    assert (other.node.architecture, other.constraint, other.node.cpus) == ("x86_64", None, 96)
    assert (site.python, other.python) == ("/name/an/interpreter/of/these/nodes", "/home/me/env/bin/python")
    assert "no feature tells them apart; check this line" in said
    assert (site.node.exclusive, other.node.gpus) == (False, 0)  # OverSubscribe=FORCE; only one has GPUs
    assert "only 1 of 2 nodes have GPUs" in said


def test_mig_slices_are_recognised_by_their_type() -> None:
    _, site = written(Told("newer"), "slices")
    assert (site.node.mig, site.node.gpus, site.node.cpus) == (True, 14, 32)


def test_further_partitions_go_under_partitions() -> None:
    said, site = written(Told("newer"), "gpu", "slices")
    assert list(site.partitions) == ["slices"]
    assert site.on("slices").limits.max_time_min == 30
    assert site.on("slices").limits.max_array_size == site.limits.max_array_size
    assert "# Other partitions here: dead, mixed." in said


def test_the_mpi_plugin_is_one_that_the_library_speaks() -> None:
    def plugin(library: str) -> str:
        return written(Told("newer"), mpi_library=library)[1].mpi.plugin

    assert [plugin(name) for name in ("Open MPI v5.0.6", "MPICH Version: 4.3.0", "CRAY MPICH 8.1", "")] == [
        "pmix", "pmi2", "cray_shasta", "pmix",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("partition", "says"),
    [
        ("nope", "this cluster has none of that name; there are: dead, gpu, mixed, slices"),
        ("dead", "has no node that jobs can use now"),
    ],
)
def test_a_partition_that_cannot_be_used_is_refused(partition: str, says: str) -> None:
    with pytest.raises(NoPartition, match=says):
        written(Told("newer"), partition)


def test_accounts_that_do_not_answer_are_a_comment_and_no_end() -> None:
    said, site = written(Told("22.05", sacctmgr="Connection refused", sacct="accounting storage is disabled"))
    assert (site.accounting, site.account, site.limits.max_jobs_in_queue) == (False, None, None)
    assert "said: Connection refused; check this line" in line(said, "max_jobs_in_queue")
    assert "accounting storage is disabled; check this line" in line(said, "accounting")


def test_without_accounting_nobody_asks_for_accounts() -> None:
    told = Told("22.05")

    def ask(command: Sequence[str]) -> str:
        return told(command).replace("accounting_storage/slurmdbd", "accounting_storage/none")

    found, calls = probing.gather(ask)
    assert calls == len(told.asked) == 5
    assert {c[0] for c in told.asked} == {"scontrol", "sinfo", "sh"}
    said, site = probing.probe(found, wanted=(), name="", kind="production", command="x")
    assert site.accounting is False
    assert "AccountingStorageType names none" in line(said, "accounting")


def test_at_most_nine_commands_are_run() -> None:
    told = Told("newer")
    _, calls = probing.gather(told)
    assert calls == len(told.asked) == 9


def test_a_controller_that_says_nothing_is_an_error() -> None:
    with pytest.raises(CommandError, match="Unable to contact slurm controller"):
        probing.gather(Told("22.05", scontrol="Unable to contact slurm controller"))
    with pytest.raises(CommandError, match="`scontrol ping` says whether the controller is up"):
        probing.gather(Told("22.05", scontrol="Socket timed out"))


def test_without_slurm_a_login_node_is_advised() -> None:
    with pytest.raises(CommandError) as told:
        probing.gather(Told("22.05", scontrol="command not found; or use --site local"))
    assert str(told.value) == (
        "scontrol: command not found; probe on a login node of the cluster, with Slurm's module loaded"
    )


def test_nodes_that_may_not_be_shown_are_taken_from_sinfo() -> None:
    def ask(command: Sequence[str]) -> str:
        if "node" in command:
            raise CommandError("scontrol: exit code 1, said: Access denied", 1)
        return Told("22.05")(command)

    found, _ = probing.gather(ask)
    _, site = probing.probe(found, wanted=(), name="", kind="production", command="x")
    assert (site.node.cpus, site.node.architecture, site.limits.max_nodes) == (4, None, 4)


VALUES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=30)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,12}", fullmatch=True), VALUES | st.lists(VALUES, max_size=4), max_size=6
    ),
    st.text(),
)
def test_what_is_written_reads_back_whatever_the_values_and_comments(
    data: dict[str, Any], comment: str
) -> None:
    said = document([Line(key, value, comment) for key, value in data.items()], comment)
    source = parse(said)
    assert not source.findings
    read = source.data if data else {}
    assert read == {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
