"""What `harness site check` concludes from what it saw on the nodes, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.sites import check as checking
from harness.sites.evidence import Evidence, Line
from harness.sites.judge import exit_code, judge
from harness.sites.limits import Ceiling
from tests.unit.site_evidence import MS, bad, good, seen, site, world


def test_where_all_is_well_every_line_says_so() -> None:
    lines = judge(site(), good())
    assert [one.place for one in lines if one.status != "ok"] == ["srun --mpi=pmix"]
    assert exit_code(lines) == 0
    assert {one.place for one in lines if one.status == "ok"} == {
        "job", "nodes", "node.architecture", "node.cpus", "node.memory_mb", "python", "python: mpi4py",
        "python: pynvml", "python: torch", "python: numpy", "node.gpus", "network.interface", "modules", "paths.shared",
        "paths.node_local", "clocks", "mpi.plugin", "limits", "requeue", "accounting", "power.command",
    }  # fmt: skip


def test_delays_of_the_shared_folder_are_those_between_corrected_clocks() -> None:
    (line,) = (one for one in judge(site(), good()) if one.place == "paths.shared" and "n1" in one.said)
    # Written at 1000 there, which is 1005 here; seen at 1015. Answered at 1016, seen at 1040 there: 1045 here.
    assert line.said == (
        "n1 and this machine see each other's files in /shared/x: after 10 ms here, 29 ms there (each within 0.1 ms)"
    )


WRONG: list[tuple[tuple[tuple[str, str], ...], Evidence, tuple[str, str, str, str]]] = [
    (
        (("plugin: pmi2", "plugin: pmix"),),
        seen(),
        ("wrong", "mpi.plugin", "pmix: 4 worlds of 1 rank (MPICH Version: 5.0)", "write plugin: pmi2"),
    ),
    (
        (("plugin: pmi2", "plugin: pmx"),),
        seen("mpi.pmx", world(4, [], "srun: error: Couldn't find the specified plugin")),
        ("wrong", "mpi.plugin", "pmx: this Slurm has none of that name, only none, pmi2, pmix", "write plugin: pmi2"),
    ),
    (
        (),
        seen("mpi", {"pmi2": world(4, [4, 4], "srun: error: n2 died", [0, 1])}),
        (
            "wrong",
            "mpi.plugin",
            "pmi2: of 4 ranks, those that answered saw worlds of [4] (MPICH Version: 5.0): srun: error: n2 died",
            "none of this Slurm's plug-ins fits the MPI library of mpi4py: install one that speaks pmix or pmi2",
        ),
    ),
    (
        (),
        seen("mpi", {"pmi2": world(4, [4, 4, 4, 4], numbers=[0, 0, 1, 1])}),
        (
            "wrong",
            "mpi.plugin",
            "pmi2: of 4 ranks, those that answered saw worlds of [4] (MPICH Version: 5.0): their numbers are "
            "0, 0, 1, 1",
            "none of this Slurm's plug-ins fits the MPI library of mpi4py: install one that speaks pmix or pmi2",
        ),
    ),
    (
        (("cpus: 8", "cpus: 16"),),
        seen(),
        ("wrong", "node.cpus", "16, and Slurm gave n1, n2: 8", "write cpus: 8"),
    ),
    (
        (),
        seen("looked.n2.cpus_affinity", 1),
        (
            "wrong",
            "node.cpus",
            "a step on n2 may use 1 of the 8 processors that Slurm gave",
            "write cpus: 1, or ask what binds steps that say --cpu-bind=none",
        ),
    ),
    (
        (("interface: ib0", "interface: ib1"),),
        seen(),
        (
            "wrong",
            "network.interface",
            "ib1 is missing, or has no IPv4 address, on n1, n2; every node has eth0, ib0",
            "write interface: eth0",
        ),
    ),
    (
        (("architecture: x86_64", "architecture: aarch64"),),
        seen(),
        ("wrong", "node.architecture", "x86_64, and the file says aarch64", "write x86_64"),
    ),
    (
        (),
        seen("looked.n2.architecture", "aarch64"),
        (
            "wrong",
            "node.architecture",
            "the nodes differ: n1: x86_64; n2: aarch64",
            "give each a partition of its own in `partitions`, with a constraint",
        ),
    ),
    (
        (),
        seen("looked.n2", {"failed": 93, "said": ""}),
        (
            "wrong",
            "paths.shared",
            "n2 does not see /shared/x, which the batch host does",
            "give a --folder that all nodes see, and name such folders in paths.shared",
        ),
    ),
    (
        (),
        seen("looked.n2", {"failed": 92, "said": ""}),
        ("wrong", "python", "n2 has no /opt/env/bin/python", "name an interpreter that all nodes have"),
    ),
    (
        (),
        seen("looked.n2.imports.torch", {"problem": "killed by signal 4: it said nothing"}),
        (
            "wrong",
            "python: torch",
            "cannot be imported: n2: killed by signal 4: it said nothing",
            "pip install 'hpc-harness[torch]' in that interpreter, or say --without torch",
        ),
    ),
    (
        (),
        seen("looked.n2.node_local", {"problem": "Permission denied"}),
        ("wrong", "paths.node_local", "/tmp cannot be written: n2: Permission denied", "name a folder that can"),
    ),
    (
        (),
        seen("strangers", {"n1": ["n2"], "n2": ["n1"]}),
        (
            "wrong",
            "paths.node_local",
            "/tmp is not private: n1, n2 saw what another node wrote there",
            "name a folder on the node's own disk or memory",
        ),
    ),
    (
        (),
        seen("looked.n1.node_local", {"free_mb": 1, "type": "lustre"}),
        ("wrong", "paths.node_local", "/tmp lies on lustre", "name a folder on the node itself"),
    ),
    (
        (),
        seen("looked.n2.slurmd", "n9"),
        ("wrong", "nodes", "steps for n2 ran on n9", "ask the site"),
    ),
    (
        (("gpus: 1", "gpus: 4"),),
        seen(),
        ("wrong", "node.gpus", "n1: 4, and NVML shows 1 (H100)", "write gpus: 1"),
    ),
    (
        (),
        seen("looked.n1.gpus.slices", ["MIG-a", "MIG-b"]),
        ("wrong", "node.mig", "n1: 2 MIG slices of 1 GPUs (H100)", "write mig: true"),
    ),
    (
        (("gpus: 1", "gpus: 1, mig: true"),),
        seen(),
        ("wrong", "node.mig", "n1: 1 whole GPUs (H100), no slices", "write mig: false"),
    ),
    (
        (),
        seen("looked.n1.gpus", {"problem": "NVML: no driver", "slurm": "1", "visible": "0"}),
        (
            "unknown",
            "node.gpus",
            "n1: Slurm gave 1 (0), and NVML cannot be asked: NVML: no driver",
            "look on n1 whether there are 1",
        ),
    ),
    (
        (),
        seen("looked.n2.clock", {"problem": "10.0.0.1:4000: timed out"}),
        (
            "wrong",
            "network",
            "n2 cannot reach the batch host n1 by TCP: 10.0.0.1:4000: timed out",
            "agents reach their supervisor so: ask which ports are open between compute nodes",
        ),
    ),
    (
        (),
        seen("looked.n2.clock.offset_ns", 3600 * 10**9),
        (
            "wrong",
            "clocks",
            "n1 less n2: +3600000.000 ms, within 0.020 ms (the shortest of 16 round trips by TCP, halved)",
            "times of different machines cannot be compared: ask for NTP or chrony",
        ),
    ),
    (
        (),
        seen(seen={"n1": {"seen": 1015 * MS, "replied": 1016 * MS}}),
        (
            "wrong",
            "paths.shared",
            "a file that n2 wrote in /shared/x was not seen here: not seen in time",
            "give a --folder that all nodes see, and name such folders in paths.shared",
        ),
    ),
    (
        (),
        seen(job={"JobState": "COMPLETED", "Requeue": "0"}),
        ("wrong", "requeue", "Slurm did not take the job as one that may start again", "write requeue: false"),
    ),
    (
        (),
        seen(accounts="", accounts_trouble="sacct: accounting storage is disabled"),
        ("wrong", "accounting", "sacct: accounting storage is disabled", "write accounting: false"),
    ),
    (
        (),
        seen(accounts=""),
        ("unknown", "accounting", "sacct answers, and did not know the job yet", "try again"),
    ),
    (
        (),
        seen(power={"n1": "on", "n2": "off"}),
        ("wrong", "power.command", "says that n2 is off, on which the job ran", "correct the command"),
    ),
    (
        (),
        seen(partition={"nodes": 2, "max_nodes": None, "max_time_min": 60}),
        ("wrong", "limits.max_nodes", "4, and the partition's is 2", "write 2"),
    ),
    (
        (),
        seen(config={"MaxArraySize": "101"}),
        ("wrong", "limits.max_array_size", "1000, and MaxArraySize less one is 100", "write 100"),
    ),
    (
        (),
        seen(partition={"nodes": 2, "max_nodes": 1, "max_time_min": 60}),
        ("wrong", "limits.max_nodes", "4, and the partition's is 1", "write 1"),
    ),
    (
        (),
        seen(ceilings=(Ceiling("limits.max_nodes", 3, "sacctmgr show qos normal: MaxTRES=node=3"),)),
        (
            "wrong",
            "limits.max_nodes",
            "4, and it can be 3 at most (sacctmgr show qos normal: MaxTRES=node=3)",
            "write 3",
        ),
    ),
    (
        (),
        seen(ceilings=(Ceiling("limits.max_jobs_in_queue", 5, "sacctmgr show assoc, account a: MaxSubmit=5"),)),
        (
            "wrong",
            "limits.max_jobs_in_queue",
            "no limit, and it can be 5 at most (sacctmgr show assoc, account a: MaxSubmit=5)",
            "write 5",
        ),
    ),
    (
        (),
        seen(folders={"/nfs": "is no folder on this machine"}),
        (
            "wrong",
            "paths.shared",
            "/nfs is no folder on this machine",
            "name folders that all nodes see and that hold --folder, where runs will be; or write shared: []",
        ),
    ),
    (
        (("gpus: 1", "gpus: 2"), ("partition: batch", 'partition: batch\ngres: "gpu:2"')),
        seen("looked.n1.gpus", {"problem": "NVML: no driver", "slurm": "1", "visible": "0", "devices": 2}),
        ("wrong", "node.gpus", "n1: 2, and Slurm gave 1 (0)", "write gpus: 1, or ask for more by gres = gpu:2"),
    ),
    (
        (("gpus: 1", "gpus: 1, gpu_request: none"),),
        seen("looked.n1.gpus", {"problem": "NVML: no driver", "slurm": "", "visible": "", "devices": 0}),
        (
            "wrong",
            "node.gpus",
            "n1: 1, and Slurm gave none, and there is no /dev/nvidia0",
            "write gpus: 0, or ask for them by gpu_request",
        ),
    ),
    (
        (),
        seen("looked.n2.imports.numpy", {"problem": "exit code 1: it said nothing"}),
        (
            "wrong",
            "python: numpy",
            "cannot be imported: n2: exit code 1: it said nothing",
            "pip install 'numpy' in that interpreter",
        ),
    ),
    (
        (),
        seen(config={}),
        ("unknown", "limits", "the controller did not tell its own", "try again"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found", "line"), WRONG, ids=[f"{w[2][1]}-{n}" for n, w in enumerate(WRONG)]
)
def test_each_kind_of_wrongness_has_its_line(
    changes: tuple[tuple[str, str], ...], found: Evidence, line: tuple[str, str, str, str]
) -> None:
    lines = bad(site(*changes), found)
    assert Line(*line) in lines
    assert exit_code(lines) == (1 if "wrong" in {one.status for one in lines} else 3)
    assert len(lines) <= 2  # one cause, not a page of them


def test_a_file_that_shows_late_must_be_allowed_for() -> None:
    late = {n: {"seen": 13_015 * MS, "replied": 13_016 * MS} for n in ("n1", "n2")}
    found = seen(seen=late)
    told = "interface: ib0}\npaths: {visible_after_s: %d}"
    assert bad(site(("interface: ib0}", told % 0)), found) == [
        Line(
            "wrong",
            "paths.visible_after_s",
            "a file took 12.0 s to show, and the file says 0",
            "write at least 24",
        )
    ]
    assert bad(site(("interface: ib0}", told % 30)), found) == []


def test_without_tcp_to_here_the_clocks_are_those_of_a_round_trip_by_files() -> None:
    found = seen("clock", {"problem": "10.9.0.1: timed out"})
    (line,) = (one for one in judge(site(), found) if one.said.startswith("this machine less n1"))
    # Sent at 1000, answered between 1015 and 1016, back at 1040: the middle of the trip is 1020.
    assert line == Line(
        "ok",
        "clocks",
        "this machine less n1: -4.500 ms, within 20.000 ms (the shortest of 1 round trips by files, halved)",
    )


def test_folders_of_the_file_must_be_there_and_hold_the_runs(tmp_path: Path) -> None:
    there = str(tmp_path)
    assert checking._folders((there,), tmp_path / "runs") == {}
    assert checking._folders(("/none",), tmp_path) == {"/none": "is no folder on this machine"}
    assert checking._folders(("/usr",), tmp_path) == {"/usr": f"does not hold {there}, where runs will be"}


def test_names_that_the_accounts_do_not_know_are_a_note() -> None:
    found = seen(strange_names=("account: x, and sacctmgr knows lab",))
    assert Line(
        "note", "account", "account: x, and sacctmgr knows lab; jobs are taken all the same"
    ) in judge(site(), found)
