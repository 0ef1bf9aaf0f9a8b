"""What `harness site check` concludes from what it saw, line by line, and the script that it submits."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.model.site import Site
from harness.resources import templates_dir
from harness.runtime import site_probe, site_probe_node
from harness.sites import check as checking
from harness.sites.evidence import Evidence, Line
from harness.sites.judge import exit_code, judge, will_not_start
from harness.sites.limits import Ceiling
from harness.slurm.commands import CommandError
from harness.slurm.versions import NEWEST, features
from harness.templates import Templates, fill

SITE = """\
schema: 1
name: tiny
kind: staging
launcher: slurm
partition: batch
limits: {max_nodes: 4, max_time_min: 30, max_array_size: 1000}
node: {cpus: 8, gpus: 1, architecture: x86_64, exclusive: true}
python: /opt/env/bin/python
modules: [cuda]
mpi: {plugin: pmi2}
network: {interface: ib0}
requeue: true
accounting: true
power: {command: [bmc, "{action}", "{node}"]}
"""
MS = 1_000_000


def node(name: str) -> dict[str, Any]:
    """A node on which all is well; its clock is 5 ms behind that of this machine, and 1 ms behind the batch host's."""
    return {
        "node": name, "slurmd": name, "host": name, "architecture": "x86_64", "python": "3.11.7",
        "cpus_machine": 8, "cpus_affinity": 8, "memory_mb": 64000, "memory_limit_mb": 60000, "hello": True,
        "addresses": {"lo": "127.0.0.1", "eth0": "10.0.0.1", "ib0": "10.1.0.1"},
        "clock": {"offset_ns": 1 * MS, "uncertainty_ns": 20_000, "round_trips": 16, "interface": "eth0"},
        "imports": {
            "torch": {"version": "2.13"}, "mpi4py": {"version": "4.1"},
            "pynvml": {"version": ""}, "numpy": {"version": "2.4"},
        },
        "gpus": {"count": 1, "slices": [], "gpus": [{"name": "H100"}], "slurm": "1", "visible": "0", "devices": 1},
        "node_local": {"free_mb": 1000, "type": "ext4"}, "modules": ["cuda/12.8"],
        "answer": {"sent": 1000 * MS, "back": 1040 * MS, "seen": 1015 * MS},
    }  # fmt: skip


def world(ranks: int, sizes: list[int], said: str = "", numbers: list[int] | None = None) -> dict[str, Any]:
    return {
        "ranks": ranks, "code": 0, "sizes": sizes, "numbers": list(range(len(sizes))) if numbers is None else numbers,
        "library": "MPICH  Version:   5.0" if sizes else "", "said": said,
    }  # fmt: skip


def good() -> Evidence:
    return Evidence(
        folder="/shared/x",
        job={"JobState": "COMPLETED", "Requeue": "1", "ExitCode": "0:0"},
        report={
            "job_id": "7", "batch": "n1", "nodes": ["n1", "n2"], "slurm_cpus": {"n1": 8, "n2": 8}, "problem": "",
            "clock": {"offset_ns": 4 * MS, "uncertainty_ns": 30_000, "round_trips": 16, "how": "TCP"},
            "looked": {"n1": node("n1"), "n2": node("n2")},
            "strangers": {"n1": [], "n2": []},
            "mpi": {"pmi2": world(4, [4, 4, 4, 4]), "pmix": world(4, [1, 1, 1, 1], numbers=[0, 0, 0, 0])},
        },
        seen={n: {"seen": 1015 * MS, "replied": 1016 * MS} for n in ("n1", "n2")},
        accounts="COMPLETED",
        power={"n1": "on", "n2": "on"},
        config={"MaxArraySize": "1001", "JobRequeue": "1"},
        partition={"nodes": 10, "max_nodes": None, "max_time_min": 60},
        plugins=("none", "pmi2", "pmix"),
    )  # fmt: skip


def site(*changes: tuple[str, str]) -> Site:
    text = SITE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return config.parse_site(text)


def seen(path: str = "", value: Any = None, **changes: Any) -> Evidence:
    """The good evidence with one value changed: ``looked.n1.cpus_affinity`` of the report, or a field of it all."""
    found = copy.deepcopy(good())
    if path:
        *parents, last = path.split(".")
        place: Any = found.report
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return replace(found, **changes)


def bad(given: Site, found: Evidence) -> list[Line]:
    return [one for one in judge(given, found) if one.status in ("wrong", "unknown")]


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


@pytest.mark.parametrize(
    ("said", "place", "change"),
    [
        ("Invalid account or account/partition combination specified", "account", "name one: the file has no account"),
        ("invalid partition specified: batch", "partition", "correct partition = batch"),
        ("Invalid qos specification", "qos", "name one: the file has no qos"),
        ("Invalid feature specification", "constraint", "name one: the file has no constraint"),
        ("Memory specification can not be satisfied", "node.memory_mb", "name one: the file has no node.memory_mb"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "limits.max_time_min",
         "correct limits.max_time_min = 30"),
    ],
)  # fmt: skip
def test_a_refused_job_names_the_key_that_sbatch_means(said: str, place: str, change: str) -> None:
    text = f"sbatch: exit code 1, said: sbatch: error: {said}"
    lines = judge(site(), Evidence(folder="/x", refused=text, config={"MaxArraySize": "1001"}))
    assert lines[0] == Line("wrong", place, f"sbatch refused the job: sbatch: error: {said}", change)
    assert exit_code(lines) == 1


@pytest.mark.parametrize(
    ("job", "out", "line"),
    [
        (
            {"JobState": "PENDING", "Reason": "Resources"}, "",
            Line("unknown", "job", "still waiting (Resources) after 600 s, and cancelled",
                 "try again with a longer --wait-min than 10"),
        ),
        (
            {"JobState": "PENDING", "Reason": "PartitionTimeLimit"}, "",
            Line("wrong", "limits.max_time_min", "the job will not start: PartitionTimeLimit",
                 "correct limits.max_time_min = 30"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "93:0"}, "",
            Line("wrong", "paths.shared", "the job's node does not see /shared/x, or cannot write in it",
                 "give a --folder that all nodes see, and name such folders in paths.shared"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "92:0"}, "",
            Line("wrong", "python", "there is no such interpreter on the job's node: /opt/env/bin/python",
                 "name one that all nodes have"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "1:0"}, "Lmod: unknown\nmodule cuda of the site file cannot be loaded\n",
            Line("wrong", "modules", "cuda cannot be loaded: Lmod: unknown | module cuda of the site file cannot be "
                 "loaded", "`module avail` on a node lists them"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "1:0"}, "/usr/bin/python3.6: No module named 'harness'\n",
            Line("wrong", "python", "/opt/env/bin/python cannot run the harness: /usr/bin/python3.6: No module named "
                 "'harness'", "name a Python of 3.10 or newer"),
        ),
        (
            {"JobState": "NODE_FAIL", "ExitCode": "0:0"}, "",
            Line("unknown", "job", "the job is NODE_FAIL (exit code 0:0) and left no report; it printed nothing into "
                 "/shared/x", "run again with --keep and look into the folder"),
        ),
    ],
)  # fmt: skip
def test_a_job_that_left_no_report_says_why(job: dict[str, str], out: str, line: Line) -> None:
    found = seen(report=None, job={"Requeue": "1", **job}, out=out, waited_s=600.0, deadline_s=600.0)
    assert judge(site(), found)[0] == line


def test_a_refusal_for_now_is_unknown_and_says_so() -> None:
    for said, place in (
        ("AssocMaxSubmitJobLimit sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
         "limits.max_jobs_in_queue"),
        ("Required partition not available (inactive or drain)", "partition"),
    ):  # fmt: skip
        lines = judge(
            site(), Evidence(folder="/x", refused=f"sbatch: exit code 1, said: {said}", for_now=True)
        )
        assert lines[0] == Line(
            "unknown", place, f"sbatch does not take the job now: {said}", "try again when that has passed"
        )
        assert exit_code(lines) == 3


def test_only_keys_that_the_file_sets_are_blamed() -> None:
    given = site(
        ("gpus: 1", "gpus: 0"), ("partition: batch", "partition: batch\ngres: nvme:1\nexclude_nodes: [n1]")
    )

    def told(said: str) -> Line:
        return judge(given, Evidence(folder="/x", refused=f"sbatch: exit code 1, said: {said}"))[0]

    said = "Requested node configuration is not available"
    keys = ["limits.max_nodes", "gres", "exclude_nodes"]
    assert told(said) == Line(
        "wrong",
        ", ".join(keys),
        f"sbatch refused the job: {said}",
        "correct limits.max_nodes = 4 or gres = nvme:1 or exclude_nodes = n1",
    )
    assert told("Invalid generic resource (gres) specification").change == "correct gres = nvme:1"
    assert told("QOSMaxNodePerJobLimit: Job violates accounting/QOS policy").place == "limits.max_nodes"


def test_words_that_nobody_knows_blame_no_key() -> None:
    (line, *_) = judge(site(), Evidence(folder="/x", refused="sbatch: exit code 1, said: the moon is full"))
    assert line == Line(
        "wrong",
        "job",
        "sbatch refused the job: the moon is full",
        "see what it says; the file says partition = batch",
    )


def test_a_limit_of_all_jobs_together_is_waited_for_unless_one_job_is_beyond_it() -> None:
    def hopeless(reason: str, most: int) -> bool:
        limit = Ceiling("limits.max_nodes", most, "GrpTRES", shared=True)
        return will_not_start(reason, Evidence(folder="/x", nodes=2, ceilings=(limit,)))

    assert [hopeless("AssocGrpNodeLimit", most) for most in (1, 2)] == [True, False]
    assert [hopeless(one, 9) for one in ("QOSMaxNodePerJobLimit", "BadConstraints", "Priority")] == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "submit_trouble",
        ),
        ("sbatch: error: invalid partition specified: x", "refused"),
    ],
)
def test_only_a_plain_refusal_is_taken_as_one(
    said: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sbatch(command: Any, **_: Any) -> str:
        raise CommandError(f"sbatch: exit code 1, said: {said}", 1)

    monkeypatch.setattr(checking, "run_command", sbatch)
    monkeypatch.setattr(checking, "_cancel_lost", lambda name: f"looked for {name}")
    number, problem = checking._submit(site(), tmp_path / "job.sh", "hh.x", (), lambda text: None)
    assert (number, [key for key in problem if key != "for_now"]) == ("", [found])
    assert ("looked for hh.x" in str(problem)) == (found == "submit_trouble")


def test_a_lost_job_is_cancelled_when_the_controller_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["", None, "41", "", ""]
    cancelled: list[str] = []

    def answer(command: Any, **_: Any) -> str:
        if command[0] == "scancel":
            cancelled.extend(command[1:])
            return ""
        assert command[:4] == ["squeue", "--noheader", "--name", "hh.x"] or command[3] == "hh.x"
        if (said := answers.pop(0)) is None:
            raise CommandError("squeue: exit code 1, said: Socket timed out", 1)
        return said

    monkeypatch.setattr(checking, "run_command", answer)
    monkeypatch.setattr("time.sleep", lambda s: None)
    assert checking._cancel_lost("hh.x") == "job 41 was queued and is cancelled"
    assert cancelled == ["41"]
    assert checking._cancel_lost("hh.x", 0.0) == (
        "a job may be queued: when the controller answers, `scancel --name hh.x`"
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


def test_a_controller_that_did_not_answer_leaves_it_unknown() -> None:
    lines = judge(site(), Evidence(folder="/x", submit_trouble="sbatch: no answer within 30 s"))
    assert (lines[0].status, exit_code(lines)) == ("unknown", 3)


# ---- what runs on the nodes ----


def _script(folder: Path, python: str = "/opt/env/bin/python", **changes: Any) -> str:
    given = site(("modules: [cuda]", "modules: []"))
    context = {
        "site": given, "has": features(NEWEST).__getitem__, "submission": "site-check", "job_name": "hh.site-check.1",
        "nodes": 2, "ranks_per_node": 2, "min_cpus": 1, "time_limit_min": 5, "requeue": True, "exclusive": True,
        "array_last": None, "log": "/dev/null", "out": f"{folder}/job.out", "late_s": 1, "threads": 1, "yields": True,
        "run_folder": str(folder), "python": python, "code_path": f"{folder}/harness.zip",
    }  # fmt: skip
    return fill("site_check.sh.j2", Templates(templates_dir()), {**context, **changes})


def test_the_job_asks_for_what_the_site_says_and_bash_and_shellcheck_have_nothing_to_say(
    tmp_path: Path,
) -> None:
    text = _script(tmp_path / "it's $HOME")
    path = tmp_path / "job.sh"
    path.write_text(text)
    assert [one for one in text.splitlines() if one.startswith("#SBATCH")] == [
        "#SBATCH --job-name=hh.site-check.1", "#SBATCH --nodes=2", "#SBATCH --exclusive",
        "#SBATCH --gpus-per-node=1", "#SBATCH --time=5", "#SBATCH --output=/dev/null", "#SBATCH --open-mode=append",
        "#SBATCH --requeue", "#SBATCH --signal=B:USR2@60", "#SBATCH --export=ALL", "#SBATCH --partition=batch",
    ]  # fmt: skip
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=20)
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert shellcheck is not None
    done = subprocess.run(
        [shellcheck, "--shell=bash", "--exclude=SC2016", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == ""


def test_a_folder_or_interpreter_that_is_missing_is_told_by_the_exit_code(tmp_path: Path) -> None:
    def run(text: str) -> int:
        path = tmp_path / "job.sh"
        path.write_text(text)
        return subprocess.run(["bash", str(path)], capture_output=True, timeout=20).returncode

    assert run(_script(tmp_path / "none")) == site_probe.NO_FOLDER
    assert run(_script(tmp_path)) == site_probe.NO_PYTHON


@pytest.mark.parametrize(
    ("text", "counts"), [("4", [4]), ("4(x2),8", [4, 4, 8]), ("", []), ("2,2(x1)", [2, 2])]
)
def test_processors_node_by_node(text: str, counts: list[int]) -> None:
    assert site_probe.cpus_per_node(text) == counts


def test_what_steps_say_is_found_among_what_libraries_print() -> None:
    output = 'hello\n0: SITE-CHECK {"size": 2}\nSITE-CHECK {"size"SITE-CHECK {"size": 1}\nbye'
    assert site_probe.marked(output) == [{"size": 2}]


def test_the_memory_limit_is_the_smallest_of_the_groups_above(tmp_path: Path) -> None:
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)

    def limit(group: str, name: str, value: str) -> None:
        (root / group).mkdir(parents=True, exist_ok=True)
        (root / group / name).write_text(value)

    (proc / "self" / "cgroup").write_text("5:memory:/slurm/job_1/step_0\n2:cpu:/x\n")
    limit("memory/slurm/job_1", "memory.limit_in_bytes", str(1 << 30))
    limit("memory/slurm/job_1/step_0", "memory.limit_in_bytes", "9223372036854771712\n")
    assert site_probe_node.memory_limit_mb(proc, root) == 1024
    limit("memory/slurm/job_1", "memory.limit_in_bytes", "9223372036854771712\n")  # how version 1 says none
    assert site_probe_node.memory_limit_mb(proc, root) is None
    (proc / "self" / "cgroup").write_text("0::/system.slice/job_1\n")
    limit("system.slice", "memory.max", str(1 << 29))
    limit("system.slice/job_1", "memory.max", "max")
    assert site_probe_node.memory_limit_mb(proc, root) == 512


def test_an_import_that_crashes_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing.py").write_text("import os\nos.abort()\n")
    (tmp_path / "raising.py").write_text("raise ImportError('libcuda.so.1 is missing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert site_probe_node.imported("crashing")["problem"].startswith("killed by signal 6: ")
    assert site_probe_node.imported("raising") == {
        "problem": "exit code 1: ImportError: libcuda.so.1 is missing"
    }
    assert site_probe_node.imported("json")["version"] == json.__version__  # type: ignore[attr-defined]


def test_the_node_local_folder_is_written_and_marked(tmp_path: Path) -> None:
    assert site_probe_node.node_local(str(tmp_path), "7", "n1").keys() == {"free_mb", "type"}
    assert [p.name for p in tmp_path.iterdir()] == ["hh-site-check-7-n1"]
    assert site_probe_node.node_local(f"{tmp_path}/none", "7", "n1") == {
        "problem": "No such file or directory"
    }
