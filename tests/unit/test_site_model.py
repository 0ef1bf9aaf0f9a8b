"""What a site file can say of a cluster, and what becomes of it: partitions, GPUs, folders, modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness import config
from harness.model.case import Case, Job, Plan, Submission
from harness.model.site import Site
from harness.model.site_expected import Bounds
from harness.prepare import Input, open_or_make, site_for_jobs
from harness.render import RenderError, render
from harness.resources import templates_dir
from harness.rundir import RunDir, RunFolderError
from harness.runtime.launcher import SlurmLauncher
from harness.slurm.commands import CommandError

SITE = """\
schema: 1
name: tiny
kind: production
launcher: slurm
qos: high
limits: {max_nodes: 4, max_time_min: 30, max_array_size: 50, max_jobs_in_queue: 7}
node: {cpus: 4, gpus: 2, exclusive: true}
environment: {A: "1"}
mpi: {plugin: pmix}
requeue: true
accounting: true
"""
ARM = """\
partitions:
  arm:
    partition: grace
    qos: null
    limits: {max_nodes: 2, max_time_min: 10}
    node: {cpus: 72, architecture: aarch64, exclusive: true}
    python: /opt/arm/python
"""


def site(text: str = "", **changes: str) -> Site:
    whole = SITE
    for old, new in changes.items():
        assert whole.count(f"{old}: ") >= 1
        whole = (
            "\n".join(f"{old}: {new}" if one.startswith(f"{old}:") else one for one in whole.splitlines())
            + "\n"
        )
    return config.parse_site(whole + text, "s.yaml")


def errors(text: str) -> str:
    with pytest.raises(config.ConfigError) as caught:
        config.parse_site(SITE + text, "s.yaml")
    return str(caught.value)


def script(given: Site, partition: str = "") -> str:
    case = Case("c", "g", "mpi.halo", 1, 1, 0, 1, 5, 1, {})
    job = Job("0000", 1, 1, 5, ("c",), False)
    submission = Submission("0000", (job,), "base.sh.j2", partition=partition)
    return render(
        submission,
        Plan((case,), (submission,)),
        given,
        run_id="0123abcd",
        run_folder="/shared/run",
        python="/usr/bin/python3",
        code_path="/shared/run/harness.zip",
        templates=templates_dir(),
    )


# ---- partitions ----


def test_a_partition_is_the_site_with_its_own_keys_in_place() -> None:
    whole = site(ARM)
    arm = whole.on("arm")
    assert (arm.partition, arm.qos, arm.python, arm.partitions) == ("grace", None, "/opt/arm/python", {})
    assert (arm.node.cpus, arm.node.gpus, arm.environment, arm.mpi) == (72, 0, {"A": "1"}, whole.mpi)
    assert whole.on("") is whole


def test_limits_of_the_whole_site_hold_in_its_partitions_and_stand_there_alone() -> None:
    limits = site(ARM).on("arm").limits
    assert (limits.max_nodes, limits.max_array_size, limits.max_jobs_in_queue) == (2, 50, 7)
    assert errors(ARM.replace("max_time_min: 10", "max_time_min: 10, max_jobs_in_queue: 3")) == (
        "s.yaml:16: partitions.arm.limits.max_jobs_in_queue = 3, is a limit of the whole site; "
        "move it to the site's own limits"
    )


def test_left_out_and_null_differ_also_after_json() -> None:
    whole = site(ARM)
    again = Site.model_validate_json(whole.model_dump_json())
    assert again == whole
    assert again.on("arm") == whole.on("arm")
    assert whole.model_dump(mode="json")["partitions"]["arm"].keys() == {
        "partition", "qos", "limits", "node", "python",
    }  # fmt: skip


def test_another_architecture_needs_its_own_interpreter() -> None:
    assert errors(ARM.replace("    python: /opt/arm/python\n", "")) == (
        "s.yaml:13: partitions.arm.python, is missing: the nodes are aarch64, and the site's own interpreter is for "
        "others; add it"
    )


def test_what_is_wrong_in_a_partition_is_told_in_its_place() -> None:
    assert errors("partitions: {a: {node: {cpus: 0, exclusive: true}, qoss: x}}\n") == (
        "s.yaml:12: partitions.a.node.cpus = 0, is too small, allowed: 1 and above; raise it\n"
        's.yaml:12: partitions.a.qoss = "x", is an unknown key, allowed: partition, account, qos, reservation, '
        "constraint, gres, licenses, exclude_nodes, limits, node, python, container, environment, modules, prologue, "
        'mpi, network, paths, requeue, expected; did you mean "qos"?'
    )


def test_jobs_read_each_partition_as_a_whole_site(tmp_path: Path) -> None:
    data = site_for_jobs(site(ARM), "/usr/bin/python3")
    run = RunDir(tmp_path)
    run.site.write_text(json.dumps(data))
    assert run.read_site()["python"] == "/usr/bin/python3"
    arm = run.read_site("arm")
    assert (arm["partition"], arm["python"], arm["node"]["cpus"], arm["mpi"]) == (
        "grace", "/opt/arm/python", 72, data["mpi"],
    )  # fmt: skip
    with pytest.raises(RunFolderError, match="has no partition 'x', only arm"):
        run.read_site("x")


def test_a_script_of_a_partition_asks_for_it() -> None:
    whole = site(ARM)
    assert "--partition=grace" in script(whole, "arm")
    assert "--gpus-per-node" not in script(whole, "arm")
    assert "--partition" not in script(whole)
    assert "--gpus-per-node=2" in script(whole)


CAMPAIGN = (
    "schema: 1\nname: c\nseed: 1\ngroups:\n  - {name: g, workload: mpi.halo, nodes: 3, partition: %s}\n"
)


def test_a_group_is_checked_against_its_partition() -> None:
    def said(partition: str, whole: Site) -> list[str]:
        text = CAMPAIGN % partition
        return [str(p) for p in config.check(config.parse_campaign(text), whole, path="c.yaml", text=text)]

    assert said("arm", site(ARM)) == [
        'c.yaml:5: groups[0].nodes = 3, but site "tiny" allows at most 2; lower it or choose another site'
    ]
    assert said("amr", site(ARM)) == [
        'c.yaml:5: groups[0].partition = "amr", is none of the partitions of site "tiny", allowed: arm; '
        'did you mean "arm"?'
    ]
    assert said("arm", site()) == [
        'c.yaml:5: groups[0].partition = "arm", is none of the partitions of site "tiny", allowed: none; '
        "remove it, or add `partitions` to the site file"
    ]


# ---- GPUs ----


@pytest.mark.parametrize(
    ("node", "gres", "lines"),
    [
        ("gpus: 2", "", ["--gpus-per-node=2"]),
        ("gpus: 2, gpu_type: h100", "", ["--gpus-per-node=h100:2"]),
        ("gpus: 2, gpu_type: h100, gpu_request: gres", "", ["--gres=gpu:h100:2"]),
        ("gpus: 2, gpu_request: gres", "nvme:1", ["--gres=gpu:2,nvme:1"]),
        ("gpus: 2", "nvme:1", ["--gres=nvme:1", "--gpus-per-node=2"]),
        ("gpus: 2, gpu_request: none", "", []),
        ("gpus: 2", "nvme:1,gpu:h200:2", ["--gres=nvme:1,gpu:h200:2"]),
        ("gpus: 0", "", []),
    ],
)
def test_gpus_are_asked_for_in_the_sites_own_way(node: str, gres: str, lines: list[str]) -> None:
    given = site(f"gres: '{gres}'\n" if gres else "", node=f"{{cpus: 4, exclusive: true, {node}}}")
    asked = [
        one.removeprefix("#SBATCH ") for one in script(given).splitlines() if "gres" in one or "gpus" in one
    ]
    assert asked == lines


def test_slices_are_told_to_the_jobs() -> None:
    assert "export HARNESS_MIG=1\n" in script(site(node="{cpus: 4, exclusive: true, gpus: 7, mig: true}"))
    assert "HARNESS_MIG" not in script(site())


def test_torch_of_several_ranks_on_slices_is_refused_with_the_reason() -> None:
    slices = site(node="{cpus: 4, exclusive: true, gpus: 7, mig: true}")

    def said(group: str) -> list[str]:
        text = f"schema: 1\nname: c\nseed: 1\ngroups:\n  - {{name: g, {group}}}\n"
        return [str(p) for p in config.check(config.parse_campaign(text), slices, path="c.yaml", text=text)]

    why = (
        'but the GPUs of site "tiny" are MIG slices, and NCCL joins no slices: there is no path from one to another; '
        "make it one rank (nodes: 1, ranks_per_node: 1), or choose a partition with whole GPUs"
    )
    assert said("workload: torch.train, nodes: 2") == [f'c.yaml:5: groups[0].workload = "torch.train", {why}']
    assert said("workload: torch.train, nodes: 1, ranks_per_node: 2") == [
        f"c.yaml:5: groups[0].ranks_per_node = 2, {why}"
    ]
    assert said("workload: torch.train, nodes: 1") == []
    assert said("workload: mpi.halo, nodes: 2, ranks_per_node: 4") == []


# ---- heterogeneous jobs ----


def test_heterogeneous_jobs_are_refused_wherever_they_could_be_asked_for() -> None:
    assert "asks for a heterogeneous job, which the harness does not submit" in errors(
        "partition: 'gpu : cpu'\n"
    )
    for name in ("account", "constraint", "gres", "licenses"):
        assert "use two groups, or `partitions`" in errors(f"{name}: '1 : 2'\n")


def test_a_template_that_asks_for_a_heterogeneous_job_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    shutil.copytree(templates_dir(), folder)
    base = folder / "base.sh.j2"
    base.write_text(
        base.read_text().replace("#SBATCH --export=ALL\n", "#SBATCH --export=ALL\n#SBATCH hetjob\n")
    )
    case = Case("c", "g", "mpi.halo", 1, 1, 0, 1, 5, 1, {})
    submission = Submission("0000", (Job("0000", 1, 1, 5, ("c",), False),), "base.sh.j2")
    with pytest.raises(RenderError, match="heterogeneous jobs are not supported"):
        render(
            submission, Plan((case,), (submission,)), site(), run_id="0", run_folder="/r", python="/p",
            code_path="/z", templates=folder,
        )  # fmt: skip


def test_a_supervisor_in_a_heterogeneous_job_refuses() -> None:
    with pytest.raises(CommandError, match=r"SLURM_HET_SIZE=2.*use two groups"):
        SlurmLauncher({"SLURM_HET_SIZE": "2", "SLURM_JOB_ID": "1"}, "pmix")


# ---- modules and folders ----

MODULE = 'module() { echo "module $*"; case "$2" in bad*) return 1;; esac; }; export -f module\n'


def _modules(text: str, before: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the part of a script that loads modules."""
    start = text.index("set -euo pipefail")
    end = text.index("# Last, so that nothing")
    path = tmp_path / "part.sh"
    path.write_text(before + text[start:end] + "echo done\n")
    clean = {k: v for k, v in os.environ.items() if k not in ("LMOD_PKG", "MODULESHOME")}
    return subprocess.run(["bash", str(path)], capture_output=True, text=True, timeout=20, env=clean)


def test_modules_are_loaded_in_order_as_data(tmp_path: Path) -> None:
    text = script(site("modules: [cuda/12.8, \"a;$(touch${IFS}x)\"]\nprologue: ['echo prologue']\n"))
    done = _modules(text, MODULE, tmp_path)
    assert done.stdout.splitlines() == [
        "module load cuda/12.8",
        "module load a;$(touch${IFS}x)",
        "prologue",
        "done",
    ]
    assert not (tmp_path / "x").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("$`'\"\\;&|<>(){}[]*?!~#%=ä x-/.:"), min_size=1, max_size=12))
def test_no_name_of_a_module_reaches_the_shell_unquoted(tmp_path: Path, name: str) -> None:
    try:
        given_site = Site.model_validate({**site().model_dump(), "modules": (name,)})
    except ValidationError:
        return
    shown = 'module() { printf "%s\\0" "$@"; }\n'
    done = _modules(script(given_site), shown, tmp_path)
    assert done.stdout == f"load\0{name}\0done\n"


def test_a_module_that_fails_ends_the_job_and_is_named(tmp_path: Path) -> None:
    done = _modules(script(site("modules: [bad/1, cuda]\n")), MODULE, tmp_path)
    assert (done.returncode, done.stdout) == (1, "module load bad/1\n")
    assert done.stderr == "module bad/1 of the site file cannot be loaded\n"


def test_the_module_command_is_looked_for_where_it_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text(MODULE)
    before = f"export MODULESHOME={tmp_path}\n"
    assert _modules(script(site("modules: [cuda]\n")), before, tmp_path).stdout == "module load cuda\ndone\n"


def test_names_of_modules_are_names() -> None:
    assert "is no name of a module" in errors("modules: [--force]\n")
    assert "is no name of a module" in errors("modules: ['a b']\n")


def _given(whole: Site) -> Input:
    return Input(config.parse_campaign(CAMPAIGN.replace(", partition: %s", "")), "", whole, "", ["harness"])


def test_a_run_folder_that_nodes_do_not_see_is_refused(tmp_path: Path) -> None:
    whole = site(f"paths: {{shared: [/shared, {tmp_path}/all]}}\n")
    plan = Plan((), (Submission("0000", (), "base.sh.j2"),))
    with pytest.raises(RunFolderError) as caught:
        open_or_make(tmp_path / "run", _given(whole), plan)
    assert str(caught.value) == (
        f"{tmp_path}/run: lies in none of the folders that all nodes see (site tiny, paths.shared: /shared, "
        f"{tmp_path}/all); choose a --folder in one of them"
    )


def test_a_link_does_not_hide_where_a_run_folder_lies(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "link").symlink_to(tmp_path / "elsewhere")
    whole = site(f"paths: {{shared: [{tmp_path}/all]}}\n")
    with pytest.raises(RunFolderError, match="lies in none of the folders"):
        open_or_make(tmp_path / "all" / "link" / "run", _given(whole), Plan((), (Submission("0", (), "b"),)))


def test_nodes_of_another_architecture_need_an_interpreter_of_their_own(tmp_path: Path) -> None:
    other = "aarch64" if os.uname().machine != "aarch64" else "x86_64"
    whole = site(node=f"{{cpus: 4, exclusive: true, architecture: {other}}}")
    with pytest.raises(RunFolderError, match=f"its nodes are {other}, and the interpreter that plans"):
        open_or_make(tmp_path / "run", _given(whole), Plan((), (Submission("0", (), "b"),)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("paths: {shared: [home]}\n", "is not an absolute path; begin it with /"),
        ("paths: {shared: [/home/../etc]}\n", "has a . or .. in it"),
        ("paths: {visible_after_s: -1}\n", "is too small, allowed: 0.0 and above"),
        ("gres: gpu:2\nnode2: 1\n", "node2 = 1, is an unknown key"),
    ],
)
def test_odd_values_are_told_with_what_to_do(text: str, says: str) -> None:
    assert says in errors(text)


def test_a_type_of_gpu_without_gpus_is_refused() -> None:
    with pytest.raises(config.ConfigError, match="means nothing without gpus"):
        site(node="{cpus: 4, exclusive: true, gpu_type: h100}")


def test_partitions_mean_nothing_without_slurm() -> None:
    with pytest.raises(config.ConfigError, match="partitions, mean nothing with launcher: local"):
        config.parse_site(
            "schema: 1\nname: l\nkind: workstation\nlauncher: local\nlimits: {max_nodes: 1, max_time_min: 9}\n"
            "node: {cpus: 1, exclusive: false}\nmpi: {plugin: none}\nrequeue: true\naccounting: false\n"
            "partitions: {a: {}}\n"
        )


def test_every_key_has_a_description_for_editors() -> None:
    schema = config.site_json_schema()
    lacking = [
        f"{name}.{key}"
        for name, model in {"Site": schema, **schema["$defs"]}.items()
        for key, value in model.get("properties", {}).items()
        if "description" not in value and "$ref" not in value  # a block says it itself
    ]
    assert lacking == []


# ---- what collectives are to reach ----

REACH = "expected:\n  - {workload: torch.collectives, operation: all-reduce, "


def test_what_a_site_expects_is_read() -> None:
    whole = site(
        REACH + "nodes: 2, message_bytes: 1024, time_s: {at_most: 1.0e-3}, latency_s: 2.0e-5, within: 10%}\n"
    )
    (entry,) = whole.expected
    assert entry.figures == {"time_s": Bounds(at_most=1e-3), "latency_s": 2e-5}
    arm = site(REACH + "latency_s: {at_most: 1}}\n" + ARM + "    expected: []\n")
    assert (len(arm.expected), arm.on("arm").expected) == (1, ())
    assert site(REACH + "latency_s: {at_most: 1}}\n" + ARM).on("arm").expected == arm.expected


@pytest.mark.parametrize(
    "text, said",
    [
        ("}", ", expects nothing, allowed: bus_bandwidth_bytes_per_s, algorithm_bandwidth_bytes_per_s, time_s, "
              "latency_s, asymptotic_bandwidth_bytes_per_s; add one of them"),
        ("latency_s: 1}", ".latency_s = 1.0, is a number, and nothing says how near is near enough; "
                          "add within: 10%, or write {at_least: …}"),
        ("within: 10%, latency_s: {at_most: 1}}",
         '.within = "10%", is of figures that are numbers, and there is none; remove it, or write a figure without '
         "at_least"),
        ("latency_s: {}}",
         ".latency_s, has neither at_least nor at_most, so it would pass everything; add one of them"),
        ("latency_s: {at_most: 0}}", ".latency_s.at_most = 0, is too small, allowed: above 0.0; raise it"),
        ("latency_s: {at_least: 3, at_most: 2}}",
         ".latency_s.at_least = 3.0, is above at_most = 2.0, so nothing can pass; exchange them"),
        ("latency_s: {min: 3}}",
         ".latency_s.min = 3, is an unknown key, allowed: at_least, at_most; remove it"),
        ("latency: {at_most: 1}}",
         ".latency, is an unknown key, allowed: workload, operation, nodes, ranks_per_node, message_bytes, dtype, "
         "within, bus_bandwidth_bytes_per_s, algorithm_bandwidth_bytes_per_s, time_s, latency_s, "
         'asymptotic_bandwidth_bytes_per_s; did you mean "latency_s"?'),
        ("time_s: {at_most: 1}}", ".message_bytes, is missing: time_s differs from size to size; add it"),
        ("message_bytes: 8, latency_s: {at_most: 1}}",
         ".message_bytes = 8, means nothing for latency_s, fitted to all sizes; remove it"),
        ("nodes: 1, ranks_per_node: 1, latency_s: {at_most: 1}}",
         ".nodes = 1, with ranks_per_node: 1 is one rank, which sends nothing; raise one"),
        ("nodes: 5, latency_s: {at_most: 1}}",
         ".nodes = 5, but limits.max_nodes = 4, so no job measures it; lower it"),
        ("dtype: float, latency_s: {at_most: 1}}",
         '.dtype = "float", allowed with torch.collectives: float32, float64, int32, bfloat16, float16; '
         'did you mean "float64"?'),
    ],
)  # fmt: skip
def test_expected_figures_that_cannot_be_are_refused(text: str, said: str) -> None:
    assert errors(REACH + text + "\n") == f"s.yaml:13: expected[0]{said}"


@pytest.mark.parametrize(
    "entry, said",
    [
        ("workload: mpi.halo, operation: all-reduce",
         '.workload = "mpi.halo", measures no collective, allowed: torch.collectives, mpi.collectives; choose one'),
        ("workload: mpi.collectives, operation: allreduce",
         '.operation = "allreduce", allowed with mpi.collectives: all-reduce, all-gather, reduce-scatter, all-to-all, '
         'broadcast, reduce, gather, scatter, send-receive, barrier; did you mean "all-reduce"?'),
    ],
)  # fmt: skip
def test_expected_figures_are_of_collectives_that_there_are(entry: str, said: str) -> None:
    assert (
        errors("expected:\n  - {" + entry + ", latency_s: {at_most: 1}}\n") == f"s.yaml:13: expected[0]{said}"
    )


def test_a_barrier_has_no_bandwidth_to_expect() -> None:
    entry = "workload: torch.collectives, operation: barrier, asymptotic_bandwidth_bytes_per_s: {at_least: 1}"
    assert errors("expected: [{" + entry + "}]\n") == (
        "s.yaml:12: expected[0].asymptotic_bandwidth_bytes_per_s, and a barrier carries nothing, so it has no "
        "bandwidth; write time_s or latency_s"
    )


def test_two_entries_of_the_same_are_refused() -> None:
    entry = "latency_s: {at_most: 1}}\n"
    again = "  - {workload: torch.collectives, operation: all-reduce, nodes: 2, " + entry
    assert errors(REACH + entry + again + again) == (
        "s.yaml:15: expected[2], is of the same as expected[1]; put their figures together"
    )


def test_what_a_partition_expects_is_checked_in_its_place() -> None:
    text = "    expected:\n" + REACH.removeprefix("expected:\n").replace("  -", "      -")
    text += "nodes: 3, latency_s: {at_most: 1}}\n"
    assert errors(ARM + text) == (
        "s.yaml:20: partitions.arm.expected[0].nodes = 3, but limits.max_nodes = 2, so no job measures it; lower it"
    )
