"""The driver and `collect` where files of jobs show late and out of order: they wait, or say what is missing.

The files are those of a real run; the double in ``delayed.py`` decides, by a seed, what shows when. A
failure names its seed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import analysis
from analysis.verdict import judge
from harness import ledger
from harness.collect import collect
from harness.driver import Driver
from harness.model.case import Submission
from harness.rundir import RunDir, write_json
from harness.slurm.query import JobRow
from harness.store import Results
from harness.views import views
from tests.simulated.delayed import DelayedFolder

pytestmark = pytest.mark.timeout(300)  # with the run that it needs

SEEDS = max(10, int(os.environ.get("HARNESS_SCHEDULES", "10000")) // 250)
TABLES = ("cases", "attempts", "faults", "events", "checks", "streams")
NEVER_MIND = ("collected_wall_ns",)


class Slurm:
    """Answers at once: everything is queued, and runs until it is told to be over."""

    one_at_a_time = False
    free = True

    def __init__(self) -> None:
        self.state = "RUNNING"

    def submit(self, submission: Submission, exclude: Sequence[str] = ()) -> str:
        assert submission.round == 0, f"{submission.name}: what was done would be done again"
        return str(100 + int(submission.name))

    def rows(
        self, jobs: Mapping[str, str], finished: Collection[str], settled: Collection[str] = ()
    ) -> dict[str, JobRow]:
        return {key: JobRow(job_id, "", self.state, "0:0") for key, job_id in jobs.items()}

    def find(self, submissions: Sequence[Submission]) -> dict[str, str]:
        return {}

    def nodes(self, partition: str | None) -> dict[str, str]:
        return {}

    def starts(self, jobs: Mapping[str, str]) -> dict[str, list[JobRow]]:
        return {}

    def cancel(self, job_ids: Sequence[str]) -> None:
        raise AssertionError("nobody asked for that")


class Reader:
    """A login node that sees the folder of jobs late."""

    def __init__(self, ended: Path, folder: Path, seed: int, visible_after_s: float) -> None:
        self.rng = random.Random(seed)
        shutil.copytree(ended, folder, ignore=shutil.ignore_patterns("work", "ledger.jsonl", "results.h5"))
        self.run = RunDir(folder)
        site = self.run.read_json(self.run.site)
        write_json(self.run.site, {**site, "paths": {**site["paths"], "visible_after_s": visible_after_s}})
        self.files = DelayedFolder(ended / "work", folder / "work", self.rng)
        self.slurm = Slurm()
        self.driver = Driver(self.run, self.slurm)
        self.driver.step(ask=True)

    def step(self) -> bool:
        """One look and what follows from it, as `run` and `status` do; whether the run has ended."""
        seen = self.driver.step(ask=True)
        known = ledger.read(self.run)
        views(self.run, self.driver.plan, known, seen.rows)
        return self.driver.complete(known)

    def verdicts(self) -> dict[str, str]:
        collect(self.run)
        with analysis.load(self.run.results) as loaded:
            return {v.label: v.verdict.value for v in judge(loaded)}


def rows(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    with Results(run.results) as results:
        return {name: results.rows(name) for name in TABLES}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder in memory: thousands of synced lines are written."""
    folder = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp") / f"harness-delayed-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def truth(ended_run: Path, place: Path) -> tuple[dict[str, str], dict[str, list[dict[str, Any]]]]:
    """Verdicts and rows of a reader who sees everything at once."""
    reader = Reader(ended_run, place / "truth", 0, 0.0)
    reader.files.show_all()
    reader.slurm.state = "COMPLETED"
    while not reader.step():
        pass
    verdicts = reader.verdicts()
    assert set(verdicts.values()) == {"pass"}
    return verdicts, rows(reader.run)


@pytest.mark.parametrize("chunk", range(2))
def test_a_run_ends_only_when_all_that_its_jobs_wrote_is_to_be_seen(
    chunk: int, ended_run: Path, place: Path, truth: Any
) -> None:
    """Whatever shows when: with time to wait, results are those of a reader who sees everything at once."""
    waited = 0
    for seed in range(chunk, SEEDS, 2):
        reader = Reader(ended_run, place / str(seed), seed, 600.0)
        over_at = reader.rng.random()
        while not (ended := reader.step()):
            if reader.rng.random() < over_at or reader.files.complete:
                reader.slurm.state = "COMPLETED"
            waited += reader.slurm.state == "COMPLETED"
            reader.files.show_more(reader.rng.choice((1, 2, 5, 20)))
        known = ledger.read(reader.run)
        assert {facts["reason"] for facts in known.ended.values()} == {""}, f"seed {seed}"
        assert {len(facts["failures"]) for facts in known.ended.values()} == {0}, f"seed {seed}"
        assert ended
        assert reader.verdicts() == truth[0], f"seed {seed}"
        early = rows(reader.run)
        reader.files.show_all()  # the stream of the node that was lost promised nothing, and was not waited for
        collect(reader.run)
        assert rows(reader.run) == truth[1], f"seed {seed}"
        assert [s for s in early["streams"] if s["status"] != "gap"] == [
            s for s in truth[1]["streams"] if s["status"] != "gap"
        ], f"seed {seed}"
        shutil.rmtree(reader.run.path)
    assert waited > SEEDS // 4  # the schedules are worth something: Slurm often knew before the files showed


@pytest.mark.parametrize("chunk", range(2))
def test_where_the_wait_is_over_too_early_nothing_wrong_is_said(
    chunk: int, ended_run: Path, place: Path, truth: Any
) -> None:
    """No pass and no fail that a later look would take back; and when all shows, `collect` gives the truth."""
    verdicts, final = truth
    unknown = 0
    for seed in range(1000 + chunk, 1000 + SEEDS, 2):
        reader = Reader(ended_run, place / str(seed), seed, 0.0)
        reader.files.show_more(reader.rng.randint(0, 60))
        reader.slurm.state = "COMPLETED"
        for _ in range(4):
            reader.step()
        for _ in range(3):
            said = reader.verdicts()
            wrong = {k: v for k, v in said.items() if v not in ("unknown", verdicts[k])}
            assert wrong == {}, f"seed {seed}"
            unknown += "unknown" in said.values()
            now = rows(reader.run)
            assert len(now["attempts"]) <= len(final["attempts"]), f"seed {seed}"
            assert sum(s["records"] for s in now["streams"]) <= sum(s["records"] for s in final["streams"])
            reader.files.show_more(reader.rng.randint(0, 20))
        reader.files.show_all()
        assert reader.verdicts() == verdicts, f"seed {seed}"
        shutil.rmtree(reader.run.path)
    assert unknown > SEEDS // 4


@pytest.mark.parametrize("name", ["end.json", "attempts.jsonl", "events.jsonl", "local0.stream"])
def test_one_file_that_stays_away_is_named(
    name: str, ended_run: Path, place: Path, truth: Any, tmp_path: Path
) -> None:
    reader = Reader(ended_run, tmp_path / "run", 3, 0.0)
    reader.files.show_all(but=name)
    reader.slurm.state = "COMPLETED"
    while not reader.step():
        pass
    verdicts = reader.verdicts()
    words = " ".join(c["evidence"] + c["reason"] for c in rows(reader.run)["cases"])
    if name == "end.json":  # it says nothing that the others do not prove
        assert verdicts == truth[0]
    else:
        assert set(verdicts.values()) == {"unknown"}
        assert (name if name != "local0.stream" else "stream of local0") in words


def test_a_run_that_is_collected_on_the_way_has_no_verdict_yet(ended_run: Path, tmp_path: Path) -> None:
    """Also where an attempt was lost and the next has not begun: it may still recover."""
    reader = Reader(ended_run, tmp_path / "run", 5, 0.0)
    reader.files.show_all(but="end.json")
    for path in reader.run.path.glob("work/*/attempts.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:2]))  # the first attempt, begun and ended
    reader.step()
    assert set(reader.verdicts().values()) == {"unknown"}
    reasons = {c["reason"] for c in rows(reader.run)["cases"] if c["attempts"]}
    assert reasons == {"its job has not ended"}
