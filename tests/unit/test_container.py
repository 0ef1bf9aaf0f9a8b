"""Containers: the command lines around agents and ranks, what reaches the inside, and what is refused."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.model.case import Case, Job, Plan, Submission
from harness.model.container import mount_problem, option_problem, path_problem
from harness.model.site import Site
from harness.render import RenderError, render
from harness.resources import templates_dir
from harness.runtime import container as module
from harness.runtime.container import NO_PYXIS, Container
from harness.slurm.commands import CommandError

RUN = "/shared/it's a run"


def site(**changes: Any) -> dict[str, Any]:
    """As in site.json, as far as containers go."""
    return {
        "paths": {"node_local": "/tmp"},
        "environment": {"NCCL_DEBUG": "WARN", "PATH": "/site/bin"},
        "mpi": {"plugin": "pmix", "environment": {"OMPI_MCA_pml": "ucx"}},
        "container": {
            "runtime": "apptainer",
            "image": "/images/a b.sif",
            "python": "/usr/bin/python3",
            "mounts": ["/data", "/work/x:/x"],
            "options": ["--nv"],
            **changes,
        },
    }


def container(**changes: Any) -> Container:
    made = Container.of_site(site(**changes), RUN)
    assert made is not None
    return made


def test_a_site_without_a_container_has_none() -> None:
    assert Container.of_site({**site(), "container": None}, RUN) is None


def test_apptainer_is_put_around_the_process_and_srun_gets_no_more_arguments() -> None:
    more, command = container().arguments(["harness.runtime.rank", "/spec"], {})
    assert more == []
    assert command[:2] == ["sh", "-c"]
    assert command[3:] == [
        "apptainer",
        "--bind", RUN, "--bind", "/tmp", "--bind", "/data", "--bind", "/work/x:/x",
        "--pwd", RUN,
        "--nv",
        "/images/a b.sif",
        "/usr/bin/python3", "-m", "harness.runtime.rank", "/spec",
    ]  # fmt: skip


def entered(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    """Run such a command with an apptainer that prints its arguments, a line each."""
    stub = tmp_path / "apptainer"
    stub.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    stub.chmod(0o755)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, env={"PATH": f"{tmp_path}:/bin:/usr/bin", **environment}
    )  # fmt: skip


def test_the_folder_of_slurms_pmix_server_is_mounted_where_the_task_has_one(tmp_path: Path) -> None:
    _, command = container(mounts=[], options=[]).arguments(["m"], {})
    tail = ["--bind", RUN, "--bind", "/tmp", "--pwd", RUN, "/images/a b.sif", "/usr/bin/python3", "-m", "m"]
    with_pmix = entered(command, {"PMIX_SERVER_TMPDIR": "/spool/a b/pmix.1.0/"}, tmp_path)
    assert with_pmix.stdout.splitlines() == ["exec", "--bind", "/spool/a b/pmix.1.0/", *tail]
    assert entered(command, {}, tmp_path).stdout.splitlines() == ["exec", *tail]


def test_a_node_without_apptainer_says_so(tmp_path: Path) -> None:
    _, command = container().arguments(["m"], {})
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=20,
        env={"PATH": str(tmp_path), "SLURMD_NODENAME": "n7"}, executable="/bin/sh",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        127,
        "apptainer: not found on n7; load its module in the site file (modules)\n",
    )


def test_pyxis_is_asked_by_arguments_of_srun() -> None:
    pyxis = container(runtime="pyxis", image="/images/a b.sqsh", options=["--no-container-mount-home"])
    more, command = pyxis.arguments(["harness.runtime.agent"], {"HARNESS_NODE": "n1", "HOME": "/h"})
    names = more.pop(3).removeprefix("--container-env=").split(",")
    assert more == [
        "--container-image=/images/a b.sqsh",
        f"--container-mounts={RUN}:{RUN},/tmp:/tmp,/data:/data,/work/x:/x",
        f"--container-workdir={RUN}",
        "--no-container-mount-home",
    ]
    assert command == ["/usr/bin/python3", "-m", "harness.runtime.agent"]
    assert {"HARNESS_NODE", "NCCL_DEBUG", "OMPI_MCA_pml", "PYTHONPATH"} <= set(names)
    assert not {"PATH", "HOME"} & set(names)


def test_our_variables_win_over_an_images_in_apptainer() -> None:
    outside = {
        "HARNESS_NODE": "n1", "PYTHONPATH": "/run/harness.zip", "NCCL_DEBUG": "WARN", "PATH": "/bin", "X": "y",
        "APPTAINER_CLEANENV": "1", "APPTAINER_BIND": "/site", "SINGULARITY_CONTAINALL": "1",
    }  # fmt: skip
    assert container().environment(outside) == {
        "HARNESS_NODE": "n1", "PYTHONPATH": "/run/harness.zip", "NCCL_DEBUG": "WARN", "PATH": "/bin", "X": "y",
        "APPTAINER_BIND": "/site",
        "PYTHONNOUSERSITE": "1",
        "APPTAINERENV_HARNESS_NODE": "n1",
        "APPTAINERENV_PYTHONPATH": "/run/harness.zip",
        "APPTAINERENV_NCCL_DEBUG": "WARN",
        "APPTAINERENV_PYTHONNOUSERSITE": "1",
    }  # fmt: skip


def test_every_variable_that_the_templates_export_is_one_that_reaches_the_inside() -> None:
    texts = [path.read_text() for path in templates_dir().glob("*.j2")]
    exported = {name for text in texts for name in re.findall(r"^export ([A-Za-z_]+)=", text, re.MULTILINE)}
    assert {n for n in exported if not n.startswith("HARNESS_")} <= set(module._OURS)


@pytest.mark.parametrize(
    ("help_text", "problem"),
    [("  --container=PATH\n", NO_PYXIS), ("  --container-image=IMAGE [pyxis] the image\n", "")],
)
def test_an_srun_without_pyxis_is_told_from_one_with_it(
    help_text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_command", lambda *a, **k: help_text)
    assert container(runtime="pyxis").problem() == problem
    assert container().problem() == ""


def test_where_pyxis_is_absent_the_agents_log_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.runtime import launcher

    monkeypatch.setattr(launcher, "run_command", lambda *a, **k: "n1\n")
    monkeypatch.setattr(module, "run_command", lambda *a, **k: "usage\n")
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"}
    slurm = launcher.SlurmLauncher(job, "pmix", container=container(runtime="pyxis"))

    async def ended() -> int:
        return await (await slurm.agent("n1", {}, tmp_path / "log")).wait()

    assert asyncio.run(ended()) == 1
    assert (tmp_path / "log").read_text() == f"{NO_PYXIS}\n"


# ---- what is refused ----


@pytest.mark.parametrize("text", ["/data", "/data:/d", "/da ta:/d't"])
def test_mounts_that_runtimes_understand(text: str) -> None:
    assert mount_problem(text) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/a:/b:ro", "is one mount, SOURCE or SOURCE:TARGET, without another colon or comma"),
        ("/a,/b", "is one mount, SOURCE or SOURCE:TARGET, without another colon or comma"),
        ("data", "has a path that is not absolute; begin each with /"),
        ("/a:b", "has a path that is not absolute; begin each with /"),
    ],
)
def test_mounts_that_they_would_misunderstand(text: str, problem: str) -> None:
    assert mount_problem(text).startswith(problem)


@pytest.mark.parametrize("path", ["/a,b", "/a:b"])
def test_folders_that_cannot_be_mounted(path: str) -> None:
    assert path_problem(path).startswith(f"holds a {path[2]!r}, by which containers take mounts apart")


@pytest.mark.parametrize(
    ("runtime", "option", "problem"),
    [
        ("apptainer", "--nv", ""),
        ("apptainer", "-B", ""),
        ("apptainer", "/etc/slurm", ""),
        ("apptainer", "pid", ""),
        ("apptainer", "--env=A=b", ""),
        ("apptainer", "--containall", "asks for --containall: an agent could not see its ranks; remove it"),
        ("apptainer", "-e", "asks for --cleanenv: ranks would not hear of Slurm and MPI; remove it"),
        ("apptainer", "-wC", "asks for --containall: an agent could not see its ranks; remove it"),
        ("apptainer", "--pid=true", "asks for --pid: an agent could not see its ranks; remove it"),
        ("apptainer", "--net", "asks for --net: agents could not reach their supervisor; remove it"),
        ("apptainer", "--pwd=/x", "is written by the harness; use image and mounts"),
        ("pyxis", "--no-container-mount-home", ""),
        ("pyxis", "--container-image=x", "is written by the harness; use image and mounts"),
        ("pyxis", "--container-unshare=ipc", "sets the container apart: ranks could not share memory, or not be "
         "reached; remove it"),
    ],
)  # fmt: skip
def test_options_that_would_part_agents_from_their_ranks(runtime: str, option: str, problem: str) -> None:
    assert option_problem(runtime, option) == problem


def test_a_site_file_is_told_all_of_it_with_lines(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(
        "schema: 1\nname: s\nkind: production\nlauncher: slurm\nlimits: {max_nodes: 2, max_time_min: 9}\n"
        "node: {cpus: 4, exclusive: true}\nmpi: {plugin: pmix}\nrequeue: true\naccounting: true\n"
        "container:\n  runtime: apptainer\n  image: -x.sif\n  python: /usr/bin/python3\n"
        "  mounts:\n    - /ok\n    - /a:/b:ro\n  options: [--containall]\n"
    )
    with pytest.raises(config.ConfigError) as caught:
        config.load_site(path)
    assert [str(p).removeprefix(f"{path}:")[:45] for p in caught.value.problems] == [
        '12: container.image = "-x.sif", begins with -',
        '16: container.mounts[1] = "/a:/b:ro", is one ',
        '17: container.options[0] = "--containall", as',
    ]


def test_a_container_that_got_past_the_site_file_is_refused_in_the_job() -> None:
    with pytest.raises(CommandError) as caught:
        Container.of_site(site(mounts=["/a,b"]), "/run:1")
    assert str(caught.value) == (
        "container: '/run:1': holds a ':', by which containers take mounts apart, and which cannot be quoted; use "
        "another path; mount '/a,b': is one mount, SOURCE or SOURCE:TARGET, without another colon or comma; write "
        "each as its own entry"
    )


def test_a_run_folder_that_cannot_be_mounted_is_refused_when_it_is_planned() -> None:
    with pytest.raises(RenderError, match="run folder '/a,b': holds a ',', by which containers take"):
        script("/a,b", launcher="slurm", kind="production", accounting=True)


def test_a_container_without_slurm_is_refused() -> None:
    with pytest.raises(RenderError, match="container: needs srun, and launcher: local has none"):
        script("/a", launcher="local", kind="workstation", accounting=False)


def script(run_folder: str, **where: Any) -> str:
    """The script of a job on a site with a container."""
    values = {
        "schema": 1,
        "name": "s",
        "limits": {"max_nodes": 8, "max_time_min": 60},
        "node": {"cpus": 4, "exclusive": True},
        "mpi": {"plugin": "pmix"},
        "requeue": True,
        "container": {"runtime": "apptainer", "image": "/i.sif", "python": "/usr/bin/python3"},
    }
    case = Case("c0", "g", "w", 2, 2, 0, 1, 10, 2, {})
    job = Job("0000", 2, 2, 7, ("c0",), requeue=False)
    plan = Plan((case,), (Submission("0000", (job,), "torch.sh.j2"),))
    return render(
        plan.submissions[0], plan, Site.model_validate({**values, **where}),
        run_id="0", run_folder=run_folder, python="/p", code_path="/c", templates=templates_dir(),
    )  # fmt: skip
