"""The script that `harness site check` submits, and what runs on the nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.resources import templates_dir
from harness.runtime import site_probe, site_probe_node
from harness.slurm.versions import NEWEST, features
from harness.templates import Templates, fill
from tests.unit.site_evidence import site


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
