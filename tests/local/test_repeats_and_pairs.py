"""Repeats until they are enough, and pairs of settings, on site `local`: real processes, a driver that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import analysis
from analysis import paired, precision
from analysis.difference import Change

pytestmark = pytest.mark.timeout(300)

HARNESS = [sys.executable, "-m", "harness"]


def _program(more: str = "") -> str:
    """What it says is drawn by the case's seed, so that each run stops at the same repeat."""
    code = "import os, random; random.seed({seed}); "
    code += f"[print('latency', 95 + 10 * random.random(){more}) for _ in range(5)]"
    metric = (
        "{name: latency_us, unit: us, direction: lower, definition: made up, regex: 'latency (?P<value>.+)'}"
    )
    return f"""command: {{run: ["{{python}}", "-c", "{code}"], metrics: [{metric}]}}"""


CAMPAIGN = f"""
schema: 1
name: designs
seed: 11
groups:
  - name: narrow
    workload: command
    nodes: 1
    seed: 232
    repeats: {{min: 6, max: 14, step: 1, until: {{metric: latency_us, within: 4%}}}}
    {_program()}
  - name: poor
    workload: command
    nodes: 1
    repeats: {{min: 6, max: 1000, step: 2, max_node_hours: 0.00001, until: {{metric: latency_us, within: 0.1%}}}}
    {_program()}
  - name: pairs
    workload: command
    nodes: 1
    repeats: 6
    compare:
      metric: latency_us
      a: {{environment: {{EXTRA: "0"}}}}
      b: {{environment: {{EXTRA: "10"}}}}
    {_program(" + float(os.environ['EXTRA'])")}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A run folder, and what the command said that went on after its driver had been killed between two waves."""
    folder = tmp_path_factory.mktemp("designs")
    (folder / "c.yaml").write_text(CAMPAIGN)
    command = [*HARNESS, "run", "c.yaml", "--site", "local", "--folder", "run", "--plain"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as first:
        end = time.monotonic() + 120
        while not _weighed(folder / "run"):
            assert time.monotonic() < end, "nothing was weighed within two minutes"
            assert first.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
        first.kill()
    again = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=200)
    assert (again.returncode, again.stderr) == (0, "")
    yield folder / "run", again.stdout


def _weighed(run: Path) -> list[tuple[str, int, str]]:
    ledger = run / "ledger.jsonl"
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    said = [json.loads(line) for line in lines if '"weighed"' in line]
    return [(line["name"], line["wave"], line["answer"]) for line in said]


def test_repeats_are_added_until_the_interval_is_narrow_enough(finished: tuple[Path, str]) -> None:
    run, said = finished
    asked = [(wave, answer) for name, wave, answer in _weighed(run) if name == "narrow/n1"]
    assert asked == [(1, "more"), (2, "more"), (3, "enough")]
    with analysis.load(run / "results.h5") as results:
        ran = [case["repeat"] for case in results.cases if case["group"] == "narrow"]
        left = [case["repeat"] for case in results.not_needed if case["group"] == "narrow"]
        found = next(one for one in precision.analyse(results) if one.group == "narrow")
    assert (ran, left) == (list(range(8)), list(range(8, 14)))
    assert found.narrow
    assert f"not_needed   repeats 8 to 13: {found.words}" in said


def test_repeats_end_when_their_budget_is_spent(finished: tuple[Path, str]) -> None:
    run, _ = finished
    assert [answer for name, _, answer in _weighed(run) if name == "poor/n1"] == ["enough"]
    with analysis.load(run / "results.h5") as results:
        assert sum(case["group"] == "poor" for case in results.cases) == 6
        found = next(one for one in precision.analyse(results) if one.group == "poor")
    assert not found.narrow
    assert found.stopped.startswith("the budget is spent (")
    assert precision.reached(found) == "asked ±0.1 % at 95 %: not reached"


def test_pairs_ran_by_turns_in_one_allocation_and_their_difference_is_found(
    finished: tuple[Path, str],
) -> None:
    run, said = finished
    with analysis.load(run / "results.h5") as results:
        (found,) = paired.analyse(results)
    assert [pair.a_first for pair in found.pairs] == [False, True, False, True, False, True]
    assert found.left_out == ()
    assert found.verdict is Change.WORSE
    assert found.difference.ratio == pytest.approx(1.1, abs=0.005)
    assert "pairs/n1: median latency_us: b is +" in said


def test_what_was_not_needed_is_neither_failed_nor_unknown(finished: tuple[Path, str]) -> None:
    run, _ = finished
    judged = subprocess.run(
        [*HARNESS, "judge", str(run), "--json"], text=True, capture_output=True, timeout=60
    )
    summary = json.loads(judged.stdout)
    assert (judged.returncode, summary["counts"]["pass"], len(summary["cases"])) == (0, 26, 26)
    status = subprocess.run(
        [*HARNESS, "status", str(run), "--json"], text=True, capture_output=True, timeout=60
    )
    told = json.loads(status.stdout)
    assert told["counts"] == {"completed": 26, "not_needed": 1000}
    assert told["complete"] is True
