"""Twins of an earlier run on site ``local``: taken instead of run, and only where they are the same and whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.rundir import RunDir, read_lines
from harness.store import Results

pytestmark = pytest.mark.timeout(240)

CAMPAIGN = """\
schema: 1
name: tiny
seed: 5
groups:
  - name: halo
    workload: mpi.halo
    nodes: 1
    ranks_per_node: 2
    steps: 20
    digest_every_steps: 5
    params: {rows: 32, columns: 32}
    checkpoint: {every_steps: 5}
    recovery: {policy: new-step}
    faults:
      - {kind: rank.kill, target: {rank: 1}, at: {step: 12}, expect: recovered}
"""
LABELS = {"halo/n1/r0/fault": "PASS", "halo/n1/r0/twin": "PASS"}


def copy_code(root: Path, target: Path) -> None:
    """The harness as it is now: what is edited while tests run must not make other code of it."""
    for name in ("harness", "analysis", "configs", "sbatch_templates"):
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", target)


def environment(folder: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of a command on the campaign of a folder: its cache, and the copy of the code that its files name."""
    code = (folder / "code").resolve()
    return {
        **os.environ,
        "HARNESS_TWINS": str(folder / "twins"),
        "PYTHONPATH": str(code),
        **(variables or {}),
    }


def harness(
    folder: Path, *arguments: object, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A verb on the campaign of a folder, with the cache that lies beside it."""
    verb, *more = arguments
    return subprocess.run(
        [sys.executable, "-m", "harness", str(verb), str(folder / "tiny.yaml"), "--site", "local", *map(str, more)],
        env=environment(folder, variables),
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=200,
    )  # fmt: skip


def verdicts(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {
        line.split()[1]: line.split()[0]
        for line in result.stdout.splitlines()
        if line.startswith(("PASS ", "FAIL ", "UNKNOWN "))
    }


def submitted(run: Path) -> list[str]:
    return [line["name"] for line in read_lines(RunDir(run).ledger) if line["what"] == "submitted"]


def twin_of(results: Results) -> str:
    (twin,) = [c["case_id"] for c in results.rows("cases") if c["is_twin"]]
    return str(twin)


def digests(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    """State digests of the case with the fault and of its twin."""
    with Results(RunDir(run).results) as results:
        labels = {c["case_id"]: c["label"] for c in results.rows("cases")}
        found: dict[str, list[tuple[Any, ...]]] = {}
        for row in results.rows("digests"):
            key = (row["step"], row["rank"], row["digest"])
            found.setdefault(labels[row["case_id"]], []).append(key)
    return {label: sorted(rows) for label, rows in found.items()}


def entry_of(folder: Path) -> Path:
    (entry,) = (folder / "twins").iterdir()
    return entry


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A folder with a campaign, its cache of twins, and a run that filled it."""
    folder = tmp_path_factory.mktemp("twins")
    (folder / "tiny.yaml").write_text(CAMPAIGN)
    copy_code(project_root, folder / "code")
    result = harness(folder, "run", "--folder", folder / "first")
    assert (result.returncode, result.stderr, verdicts(result)) == (0, "", LABELS)
    assert submitted(folder / "first") == ["0000", "0001"]
    return folder


@pytest.fixture
def again(ran: Path, tmp_path: Path) -> Path:
    """A copy of the campaign and of the cache after the first run, to be changed."""
    shutil.copy(ran / "tiny.yaml", tmp_path)
    (tmp_path / "code").symlink_to(ran / "code")
    shutil.copytree(ran / "twins", tmp_path / "twins")
    return tmp_path


def test_a_second_run_submits_no_twin_and_has_the_firsts_records(ran: Path, again: Path) -> None:
    result = harness(again, "run", "--folder", again / "run")
    assert (result.returncode, result.stderr, verdicts(result)) == (0, "", LABELS)
    assert submitted(again / "run") == ["0000"]
    assert f"halo/n1/r0/twin is from the cache: run {ran / 'first'} of " in result.stdout
    before, now = digests(ran / "first"), digests(again / "run")
    assert now["halo/n1/r0/twin"] == before["halo/n1/r0/twin"] != []
    assert {d for _, _, d in now["halo/n1/r0/fault"]} <= {d for _, _, d in now["halo/n1/r0/twin"]}

    source = RunDir(ran / "first").read_identity()["run_id"]
    with Results(again / "run" / "results.h5") as results:
        twin = twin_of(results)
        (case,) = [c for c in results.rows("cases") if c["is_twin"]]
        assert (case["outcome"], case["attempts"], case["evidence"]) == ("completed", 1, "complete")
        jobs = {j["job_key"]: (j["state"], j["slurm_job_id"], j["script"]) for j in results.rows("jobs")}
        assert jobs["twin-0000"] == ("CACHED", "", "")
        (event,) = [e for e in results.rows("events") if e["kind"] == "twin.cached"]
        said = json.loads(event["data"])
        assert (event["case_id"], said["run"], said["run_id"]) == (twin, str(ran / "first"), source)
        assert 0 <= said["age_s"] < 3600
        # Another run's clock is not this one's: its hosts have names of their own.
        assert {n["name"] for n in results.rows("nodes")} == {"local0", f"local0@{source}"}
        (stream,) = [s for s in results.rows("streams") if s["case_id"] == twin]
        assert stream["path"] == f"work/twin-0000/{twin}/attempt-0.0/local0.stream"
        assert stream["status"] == "complete"
    # What came from the cache is not kept once more as if it had been run.
    assert json.loads((entry_of(again) / "source.json").read_text())["run_id"] == source


def test_a_plan_says_what_it_would_take_and_not_after_a_change_of_code(ran: Path, again: Path) -> None:
    plain = json.loads(harness(again, "plan", "--json", variables={"HARNESS_TWINS": "off"}).stdout)
    here = json.loads(harness(again, "plan", "--json").stdout)
    (twin,) = [c["case_id"] for c in here["cases"] if c["is_twin"]]
    assert [(case_id, said["run"]) for case_id, said in here["cached_twins"].items()] == [
        (twin, str(ran / "first"))
    ]
    assert {**here, "cached_twins": {}} == plain  # ids, jobs and cost are the same on every machine

    other = again / "other"
    copy_code(ran / "code", other)
    with (other / "harness" / "runtime" / "page.py").open("a") as file:
        file.write("\n# changed\n")
    changed = harness(again, "plan", "--json", variables={"PYTHONPATH": str(other)})
    assert json.loads(changed.stdout) == plain


def test_fresh_twins_are_run_and_kept_in_the_place_of_the_old(ran: Path, again: Path) -> None:
    result = harness(again, "run", "--folder", again / "run", "--fresh-twins")
    assert (result.returncode, verdicts(result)) == (0, LABELS)
    assert submitted(again / "run") == ["0000", "0001"]
    assert digests(again / "run")["halo/n1/r0/twin"] == digests(ran / "first")["halo/n1/r0/twin"]
    assert json.loads((entry_of(again) / "source.json").read_text())["run"] == str(again / "run")


def test_a_damaged_entry_is_not_believed_and_the_twin_is_run(ran: Path, again: Path) -> None:
    entry = entry_of(again)
    stream = entry / "attempt-0.0" / "local0.stream"
    content = bytearray(stream.read_bytes())
    content[len(content) // 2] ^= 1
    stream.write_bytes(content)
    result = harness(again, "run", "--folder", again / "run")
    assert (result.returncode, verdicts(result)) == (0, LABELS)
    assert result.stderr == (
        f"note: halo/n1/r0/twin is run again: {entry} is damaged (attempt-0.0/local0.stream is not what was kept), "
        "and removed\n"
    )
    assert submitted(again / "run") == ["0000", "0001"]
    assert not (again / "run" / "work" / "twin-0000").exists()
    assert stream.read_bytes() != content  # the new run's, in its place


@pytest.mark.parametrize("moment", ["Entry.copy", "write_json", "_note"])
def test_a_kill_while_twins_are_taken_leaves_no_run_folder(again: Path, moment: str) -> None:
    """Killed after the records were copied, before the plan is written, and after the end is on record."""
    program = f"""\
import os, signal, sys
from harness import cli
from harness.twins import cache, taking
holder, name = (cache.Entry, "copy") if {moment!r} == "Entry.copy" else (taking, {moment!r})
real = getattr(holder, name)
def killed(*arguments, **options):
    real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(holder, name, killed)
cli.main(sys.argv[1:])
"""
    command = ["run", again / "tiny.yaml", "--site", "local", "--folder", again / "run", "--detach"]
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)],
        env=environment(again),
        cwd=again,
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, (again / "run").exists()) == (-9, False)
    here = json.loads(harness(again, "plan", "--json").stdout)
    assert len(here["cached_twins"]) == 1
