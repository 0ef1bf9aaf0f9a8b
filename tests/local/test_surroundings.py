"""Real ranks on disks that become full: the run stops in clear words, or its case fails with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.store import Results
from tests.conftest import ROOT, fill_up

pytestmark = pytest.mark.timeout(200)

CAMPAIGN = """\
schema: 1
name: long
seed: 5
groups:
  - {name: halo, workload: mpi.halo, nodes: 2, steps: 20000, params: {rows: 64, columns: 64}}
"""


def command(campaign: Path, site: str, folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "harness", "run", str(campaign), "--site", site, "--folder", str(folder), "--plain",
    ]  # fmt: skip


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    path = tmp_path / "long.yaml"
    path.write_text(CAMPAIGN)
    return path


def evidence(run: Path) -> str:
    (case,) = json.loads((run / "summary.json").read_text())["cases"]
    return f"{case['verdict']}: " + " ".join(case["evidence"])


def test_a_shared_disk_that_fills_up_stops_the_run_in_clear_words_and_it_goes_on(
    campaign: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("6m")
    run = disk / "run"
    with subprocess.Popen(command(campaign, "local", run), stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not list(run.glob("work/*/*/attempt-*/*.stream")):
            assert time.monotonic() < end, "nothing was recorded within a minute"
            time.sleep(0.05)
        filler = fill_up(disk)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert errors.endswith(
        ": No space left on device; free some space there, and give the same command again: nothing that was written "
        "is lost\n"
    )
    assert errors.startswith(f"{run}/")
    filler.unlink()
    again = subprocess.run(command(campaign, "local", run), capture_output=True, text=True, timeout=120)
    assert again.returncode == 3, again.stdout + again.stderr  # what could not be recorded is no pass
    assert again.stdout.startswith(f"going on with {run}\n")
    with Results(run / "results.h5") as results:
        results.verify()
        (case,) = results.rows("cases")
    assert case["evidence"] != "complete" or case["outcome"] != "completed"


def test_a_nodes_own_disk_that_is_full_fails_the_case_with_that_reason(
    campaign: Path, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    """In the middle, and from the start."""
    for size, full in (("300k", False), ("32k", True)):
        disk = small_disk(size)
        if full:
            fill_up(disk)
        site = tmp_path / f"site-{size}.yaml"
        text = (ROOT / "configs/sites/local.yaml").read_text()
        assert "node_local: /tmp" in text
        site.write_text(text.replace("node_local: /tmp", f"node_local: {disk}"))
        run = tmp_path / f"run-{size}"
        done = subprocess.run(
            command(campaign, str(site), run), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 1, done.stdout + done.stderr
        words = evidence(run)
        assert words.startswith("fail: "), words
        expected = "No space left on device" if full else "its node's own disk takes no more records"
        assert expected in words


def test_a_run_folder_for_which_there_is_no_room_is_said_and_nothing_is_left(
    campaign: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("600k")
    done = subprocess.run(
        command(campaign, "local", disk / "run"), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{disk}/run: cannot be made (No space left on device); choose a --folder on shared storage that you can write "
        "to and that has room\n"
    )
    assert list(disk.iterdir()) == []
