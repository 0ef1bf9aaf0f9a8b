"""A campaign on site ``local``: real ranks, real MPI, real gloo, plain processes; no Slurm and no root."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import analysis
from harness.store import Results

pytestmark = pytest.mark.timeout(240)

HARNESS = [sys.executable, "-m", "harness"]


def harness(*arguments: object, cwd: Path | None = None, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*HARNESS, *map(str, arguments)], cwd=cwd, text=True, capture_output=True, timeout=200, **more
    )


@pytest.fixture
def finished(finished_run: Any) -> Any:
    """Its folder, and how the command ended that went on with it."""
    return finished_run


def test_a_killed_driver_goes_on_and_ends_with_exit_code_0(finished: Any) -> None:
    folder, result = finished
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"going on with {folder}\n")
    assert [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("PASS")] == [
        ["PASS", "halo/n2/r0"],
        ["PASS", "train/n2/r0/fault"],
        ["PASS", "train/n2/r0/twin"],
    ]


def test_every_case_ran_exactly_once_to_its_end(finished: Any) -> None:
    folder, _ = finished
    with Results(folder / "results.h5") as results:
        cases = [(c["label"], c["outcome"], c["attempts"], c["evidence"]) for c in results.rows("cases")]
    assert sorted(cases) == [
        ("halo/n2/r0", "completed", 1, "complete"),
        ("train/n2/r0/fault", "completed", 2, "complete"),
        ("train/n2/r0/twin", "completed", 1, "complete"),
    ]


def test_the_fault_fired_where_it_was_aimed_and_has_its_three_facts(finished: Any) -> None:
    folder, _ = finished
    with Results(folder / "results.h5") as results:
        (fault,) = results.rows("faults")
        attempts = [a for a in results.rows("attempts") if a["case_id"] == fault["case_id"]]
    assert (fault["kind"], fault["requested_kind"], fault["target"]) == (
        "node.kill_processes",
        "node.power_off",
        "node local1",
    )
    assert (fault["requested"], fault["observed"], fault["healed"]) == (True, True, True)
    assert fault["requested_wall_ns"] <= fault["injected_wall_ns"] < fault["observed_wall_ns"]
    assert fault["injected_wall_ns"] < fault["first_step_wall_ns"] <= fault["recovered_wall_ns"]
    assert [(a["outcome"], a["restart"]) for a in attempts] == [("node_lost", 0), ("completed", 1)]
    assert attempts[1]["restored_step"] == attempts[1]["first_step"] >= 10


def test_the_recovered_parameters_equal_the_twins_bit_for_bit(finished: Any) -> None:
    folder, _ = finished
    with Results(folder / "results.h5") as results:
        labels = {c["case_id"]: c["label"] for c in results.rows("cases")}
        digests: dict[str, set[str]] = {}
        for event in results.rows("events"):
            data = json.loads(event["data"])
            if event["kind"] == "result" and data["name"] == "params_digest":
                digests.setdefault(labels[event["case_id"]], set()).add(data["value"])
    assert sorted(digests) == ["train/n2/r0/fault", "train/n2/r0/twin"]
    assert digests["train/n2/r0/fault"] == digests["train/n2/r0/twin"]
    assert len(digests["train/n2/r0/twin"]) == 1


def test_every_sample_is_there_once(finished: Any) -> None:
    folder, _ = finished
    with Results(folder / "results.h5") as results:
        steps = results.samples("mpi.halo", "steps", ["step"])
        seen = sorted(zip(steps["rank"].tolist(), steps["step"].tolist(), strict=True))
    assert seen == [(rank, step) for rank in (0, 1) for step in range(20)]


def test_nothing_of_the_run_is_left_running(finished: Any) -> None:
    folder, _ = finished
    left = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes():
                left.append(entry)
        except OSError:
            continue
    assert left == []
    assert list(Path("/tmp").glob(f"hh-{os.getuid()}-*{folder.name[-8:].replace(' ', '_')}*")) == []


def test_status_logs_and_judge_read_the_finished_run(finished: Any) -> None:
    folder, _ = finished
    status = json.loads(harness("status", folder, "--json").stdout)
    assert (status["complete"], {c["state"] for c in status["cases"]}) == (True, {"completed"})
    assert harness("logs", folder, "--case", "train/n2/r0/fault").returncode == 0
    assert harness("judge", folder).returncode == 0
    assert harness("logs", folder, "--case", "nobody").returncode == 2


def test_collecting_again_gives_the_same_rows(finished: Any) -> None:
    folder, _ = finished
    with Results(folder / "results.h5") as results:
        before = {name: results.rows(name) for name in ("cases", "attempts", "faults", "streams", "checks")}
    assert harness("collect", folder).returncode == 0
    with Results(folder / "results.h5") as results:
        assert {name: results.rows(name) for name in before} == before


def test_another_campaign_is_refused_the_folder(finished: Any, tmp_path: Path) -> None:
    folder, _ = finished
    other = tmp_path / "other.yaml"
    other.write_text((folder.parent / "small.yaml").read_text().replace("seed: 5", "seed: 6"))
    result = harness("run", other, "--site", "local", "--folder", folder)
    assert result.returncode == 2
    assert "belongs to campaign 'small'" in result.stderr


def test_a_stream_that_lost_its_end_makes_the_case_unknown(finished: Any, tmp_path: Path) -> None:
    folder, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
    with Results(copy / "results.h5") as results:
        halo = next(c["case_id"] for c in results.rows("cases") if c["group"] == "halo")
    stream = next(copy.glob(f"work/*/{halo}/attempt-0.0/local1.stream"))
    stream.write_bytes(stream.read_bytes()[:-30])
    assert harness("collect", copy).returncode == 0
    with analysis.load(copy / "results.h5") as loaded:
        from analysis.verdict import judge

        (verdict,) = [v for v in judge(loaded) if v.case_id == halo]
    assert verdict.verdict.value == "unknown"
    assert "samples of local1 in attempt 0 are not whole: short" in verdict.why
    assert harness("judge", copy).returncode == 3


def test_what_a_run_folder_holds_is_for_its_user_alone(ended_run: Path) -> None:
    assert stat.S_IMODE(ended_run.stat().st_mode) == 0o700
    to_be_shown = {"results.h5", "report.html", "junit.xml", "summary.json"}  # to be copied as they are
    modes: dict[str, Any] = {
        str(p.relative_to(ended_run)): oct(stat.S_IMODE(p.stat().st_mode))
        for p in (*ended_run.iterdir(), *(p for p in ended_run.rglob("*") if p.is_file()))
        if p.name not in to_be_shown and stat.S_IMODE(p.stat().st_mode) & 0o077
    }
    assert modes == {}
