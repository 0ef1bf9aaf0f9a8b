"""The worked examples run on a generated file, and what SCHEMA.md says to type is what h5dump understands."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analysis
from harness.store import TABLES
from tests.unit import judging_factory
from tests.unit import results_factory as factory
from tests.unit.hostile_factory import hostile

ANALYSIS = Path(analysis.__file__).parent
PAGE = (ANALYSIS / "SCHEMA.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of two campaigns, the second slower on four nodes, and of a hostile one."""
    folder = tmp_path_factory.mktemp("examples")
    factory.quickstart(repeats=6).write(folder / "results.h5")
    slower = factory.quickstart(repeats=6)
    steps = slower.samples["mpi.halo", "steps"]
    for number, case in enumerate(steps["case"]):
        if slower.tables["cases"][int(case[0])]["case_id"].startswith("halo-strong-n4"):
            steps["step_time_ns"][number] = (steps["step_time_ns"][number] * 1.2).astype("i8")
    slower.attributes["git_commit"] = "another"
    slower.write(folder / "after.h5")
    hostile().write(folder / "hostile.h5")
    return folder


def ran(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An example that has ended; warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(ANALYSIS / "examples" / name), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env={"PYTHONPATH": str(ANALYSIS.parent), "PYTHONUTF8": "1"},
    )  # fmt: skip


def example(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints that ends well, run in this process; warnings are errors."""
    out = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as there,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
    ):
        warnings.simplefilter("error")
        there.chdir(folder)
        there.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(ANALYSIS / "examples" / name), run_name="__main__")
    return out.getvalue()


def test_the_scaling_study_tells_the_law_of_the_generated_data(files: Path) -> None:
    said = example("scaling_study.py", files, "results.h5")
    assert "halo-strong: strong scaling, base 1 node" in said and "law: Amdahl" in said
    assert re.search(r"halo-strong/n4/r0 +slowest over fastest rank, median over steps: 1\.0", said)
    assert re.search(r"allreduce/n4/r0 +all-reduce +8 MiB", said)


def test_the_comparison_finds_the_series_that_was_made_slower(files: Path) -> None:
    lines = example("compare_two_runs.py", files, "results.h5", "after.h5").splitlines()
    apart = [line.split()[0] for line in lines if line.endswith("do not overlap")]
    assert apart == ["halo-strong/n4"]
    assert any(line.startswith("git commit: ") for line in lines)


@pytest.mark.parametrize(
    "other, words",
    [
        ({"params": {"rows": 1024}}, "parameters differ: rows 512 in A, 1024 in B"),
        ({"emulated": True}, "hardware differs: real in A, emulated in B"),
    ],
)
def test_the_comparison_names_what_cannot_be_compared(
    other: dict[str, Any], words: str, tmp_path: Path
) -> None:
    judging_factory.campaign(seed=1).write(tmp_path / "a.h5")
    judging_factory.campaign(1.2, seed=2, **other).write(tmp_path / "b.h5")
    lines = example("compare_two_runs.py", tmp_path, "a.h5", "b.h5").splitlines()
    assert [line.split(None, 1) for line in lines] == [
        ["halo/n2", f"not compared: {words} (A the first, B the second)"]
    ]


def test_what_happened_tells_the_fault_and_its_recovery(files: Path) -> None:
    said = example("what_happened_to_my_job.py", files, "results.h5", "train-fault/n2/r0")
    assert said.startswith("train-fault/n2/r0 (train-fault-r0): pass")
    for expected in ("attempt 0: node_lost", "node.power_off on node n2", "+9.00 s", "checkpoint.restored"):
        assert expected in said


def test_without_a_name_it_is_a_case_that_did_not_pass(files: Path) -> None:
    said = example("what_happened_to_my_job.py", files, "hostile.h5")
    assert "fail, " in said.splitlines()[0]


def test_a_case_that_is_not_there_is_told_and_no_other_is_shown(files: Path) -> None:
    done = ran("what_happened_to_my_job.py", files, "results.h5", "nosuchcase")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("no case 'nosuchcase' in this file; there are: allreduce/n1/r0, ")


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("compare_two_runs.py", ("results.h5", "cut.h5")),
        ("scaling_study.py", ("cut.h5",)),
        ("what_happened_to_my_job.py", ("cut.h5",)),
    ],
)
def test_a_truncated_file_is_told_in_a_line(name: str, arguments: tuple[str, ...], files: Path) -> None:
    (files / "cut.h5").write_bytes((files / "results.h5").read_bytes()[:3000])
    done = ran(name, files, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "cut.h5" in done.stderr


def test_the_scaling_study_never_mixes_steps(tmp_path: Path) -> None:
    """Steps take twice as long each; two ranks lack a sample of different steps, so the count still divides."""
    made = factory.Campaign()
    case = made.case("c-r0", group="c", workload="mpi.halo", nodes=2, steps=8, scaling_mode="strong")
    attempt = made.attempt(case, ["n1", "n2"], factory.START_NS, factory.START_NS + factory.S)
    for rank, missing in enumerate((3, 5)):
        steps = np.array([step for step in range(8) if step != missing])
        made.record(
            case, attempt, rank, "steps", step=steps, start_mono_ns=steps, cell_updates=100,
            step_time_ns=1_000_000 * 2**steps, residual=1 / (1 + steps),
        )  # fmt: skip
    made.write(tmp_path / "results.h5")
    (said,) = [x for x in example("scaling_study.py", tmp_path).splitlines() if "over fastest" in x]
    assert said.endswith("median over steps: 1.000 (2 steps left out, a rank's sample is missing)")


@pytest.mark.parametrize("name", ["scaling_study.py", "what_happened_to_my_job.py"])
def test_no_control_character_of_a_file_reaches_the_terminal(files: Path, name: str) -> None:
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", example(name, files, "hostile.h5")) == []


def test_the_page_names_every_table() -> None:
    told = set(re.findall(r"`([a-z_]+)`", PAGE[PAGE.index("## Tables") : PAGE.index("### Samples")]))
    assert set(TABLES) <= told


@pytest.mark.skipif(
    shutil.which("h5dump") is None, reason="needs h5dump, which `make test` as root installs (hdf5-tools)"
)
def test_h5dump_understands_every_command_of_the_page(files: Path, tmp_path: Path) -> None:
    found = re.search(r"## h5dump\n\n```sh\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    single = re.findall(r"^`(h5dump [^`]*)`", PAGE, re.MULTILINE)
    assert single
    shutil.copy(files / "results.h5", tmp_path)
    script = "\n".join([found.group(1), *(f"{line} > /dev/null" for line in single)])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (
        '"allreduce/n1/r0", "allreduce/n2/r0"',
        "by the batch host's monotonic clock",
        "FLETCHER32",
    ):
        assert expected in done.stdout
    with analysis.load(files / "results.h5") as results:
        case = next(c for c in results.cases if c["workload"] == "mpi.halo")
        times = results.case_samples(case["case_id"], "steps", ["step_time_ns"])["step_time_ns"]
        row = results.cases.index(case)
    means = {
        line.split()[0]: float(line.split()[1])
        for line in done.stdout.splitlines()
        if re.match(r"\d+ \S+ \d+$", line)
    }
    assert means[str(row)] == pytest.approx(times.mean(), rel=1e-5)
