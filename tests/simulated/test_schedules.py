"""The driver against a model of Slurm that is slow, forgetful and torn, killed at random moments.

Seeded: a failure names its seed, and the same seed gives the same schedule. The model loses answers
(before and after the effect), lets accounting lag behind, requeues, takes jobs away for good, forgets them,
refuses for a while, and starts jobs in any order; the driver is killed before or after any write and any
call. What must hold at the end: every round of every job was executed by exactly one Slurm job, no case is
lost or done twice at a time, and the driver knows how each ended. Repeats that are added in waves are asked for
only when those before have ended, and none is run once it was said that they are enough.
"""

import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import ledger
from harness import reconcile as reconcile_module
from harness.driver import Driver
from harness.driving import following, submitting
from harness.model.case import Case, Job, Plan, Policy, Submission
from harness.model.design import ENOUGH, MORE, NEVER, NOT_NEEDED, Lot, Question
from harness.rundir import RunDir, append_line, read_lines, write_json
from harness.slurm import query
from harness.slurm.commands import CommandError, CommandTimeout
from harness.slurm.query import JobRow
from harness.slurm.scheduler import SlurmScheduler

SCHEDULES = int(os.environ.get("HARNESS_SCHEDULES", "10000"))
CHUNKS = 20  # tests that share them
MAX_STEPS = 5000  # of one schedule: more means that the driver does not come to an end (idle ones are fast)

SITE = {
    "name": "model", "kind": "production", "launcher": "slurm", "node": {}, "mpi": {}, "network": {}, "paths": {},
    "accounting": True, "scheduler": {"poll_s": 0, "call_timeout_s": 1, "calls_per_minute": 10**9}, "power": None,
}  # fmt: skip
IDENTITY = dict.fromkeys(
    ("campaign", "description", "campaign_id", "created_wall_ns", "harness_version", "git_commit", "code_sha256",
     "scripts", "command", "environment", "slurm_version"), "") | {"run_id": "feed"}  # fmt: skip


class Killed(BaseException):
    """kill -9 of the driver."""


@dataclass
class SimJob:
    """One job, or one task of an array, in the model."""

    job_id: str
    name: str
    key: str
    round: int = 0
    state: str = "PENDING"
    accounted: str = ""  # what the accounts say of it; "" for nothing yet
    restart: int = 0


class Model:
    """A model of Slurm, patched in place of its clients."""

    def __init__(self, run: RunDir, plan: Plan, rng: random.Random) -> None:
        self.run, self.plan, self.rng = run, plan, rng
        self.jobs: list[SimJob] = []
        self.executed: dict[
            tuple[str, int], list[str]
        ] = {}  # (key, round) -> job ids whose supervisor worked on it
        self.running: dict[str, str] = {}  # key -> job id whose supervisor works on it now
        self.taken = self.forgotten = self.deferred = 0
        self.next_id = 100
        self.cases = {job.key: job.case_ids for s in plan.submissions for job in s.jobs}
        self.calls = 0

    # What the driver asks.

    def call(self) -> None:
        self.calls += 1
        self.live()
        if self.rng.random() < 0.12:
            raise CommandError("sacct: exit code 1, said: Connection refused", 1)

    def submit(self, submission: Submission) -> str:
        self.live()
        fate = self.rng.random()
        if fate > 0.97:
            self.deferred += 1
            raise CommandError("sbatch: exit code 1, said: sbatch: error: AssocMaxSubmitJobLimit", 1)
        if fate < 0.10:
            raise CommandError(
                "sbatch: exit code 1, said: sbatch: error: Unable to contact slurm controller", 1
            )
        job_id = str(self.next_id)
        self.next_id += 1
        for index, job in enumerate(submission.jobs):
            name = submission.job_name("feed")
            self.jobs.append(SimJob(submission.task_id(index, job_id), name, job.key, submission.round))
        if fate < 0.40:
            raise CommandTimeout("sbatch: no answer within 1 s")
        return job_id

    def ask(self, ids: Any, **_: Any) -> list[JobRow]:
        self.call()
        return [
            JobRow(j.job_id, j.name, j.accounted)
            for j in self.jobs
            if j.accounted and j.job_id.split("_")[0] in ids
        ]

    def in_queue(self, ids: Any, **_: Any) -> list[JobRow]:
        self.call()
        known = ("PENDING", "RUNNING", "COMPLETING", "CANCELLED", "NODE_FAIL", "PREEMPTED")
        return [JobRow(j.job_id, j.name, j.state) for j in self.jobs if j.state in known and j.job_id in ids]

    def find(self, names: Any, **_: Any) -> dict[str, str]:
        self.call()
        # A job that was queued a moment ago may not be listed yet: nothing obliges a busy controller.
        listed = [j for j in self.jobs if j.name in names and (j.accounted or self.rng.random() < 0.3)]
        return {j.name: j.job_id.split("_")[0] for j in listed}

    def weigh(self, run: RunDir, lot: Lot) -> tuple[str, str]:
        """Whether repeats are enough: asked when a wave has ended, and before anything of the next is submitted."""
        done = {line["case_id"] for key in self.cases for line in read_lines(run.attempts(key))}
        wave = ledger.read(run).weighed.get(lot.name, 0) + 1
        assert lot.before(wave) <= done, "asked too early"
        later = {s.name for s in self.plan.submissions if s.wave >= wave}
        assert not {job.name.split(".")[2] for job in self.jobs} & later, "asked too late"
        return self.rng.choice([MORE, MORE, ENOUGH, NEVER]), "for the model's reasons"

    # What happens meanwhile.

    def live(self) -> None:
        for job in self.jobs:
            if self.rng.random() < 0.5:
                self.advance(job)
            if self.rng.random() < 0.4 and job.state not in ("COMPLETING", "FORGOTTEN"):
                job.accounted = job.state

    def advance(self, job: SimJob) -> None:
        if job.state == "PENDING":
            job.state = "RUNNING"
            self.start(job)
        elif job.state == "RUNNING":
            if self.claims(job) and job.restart < 2 and self.rng.random() < 0.2:
                job.state, job.restart = "COMPLETING", job.restart + 1  # a node was lost: it will be requeued
                job.accounted = "NODE_FAIL"
                return
            fate = self.rng.random()
            if self.claims(job):
                self.running.pop(job.key, None)
            if self.claims(job) and job.round < 3 and fate < 0.15:  # taken away for good
                self.taken += 1
                job.state = self.rng.choice(["NODE_FAIL", "PREEMPTED", "FORGOTTEN"])
                if job.state == "FORGOTTEN":  # by controller and accounts
                    self.forgotten += 1
                    job.accounted = ""
                return
            if self.claims(job):
                write_json(
                    self.run.end(job.key, job.round), {"wall_ns": time.time_ns(), "job_id": job.job_id}
                )
                for case_id in self.cases[job.key]:
                    line = {"what": "case_ended", "case_id": case_id, "outcome": "completed", "reason": ""}
                    append_line(self.run.attempts(job.key), line)
            job.state = "COMPLETED"
        elif job.state == "COMPLETING":
            job.state = "PENDING"

    def claims(self, job: SimJob) -> bool:
        return bool(self.run.read_json(self.run.claim(job.key, job.round))["job_id"] == job.job_id)

    def start(self, job: SimJob) -> None:
        self.run.job(job.key).mkdir(parents=True, exist_ok=True)
        claim = self.run.claim(job.key, job.round)
        if not claim.exists():
            write_json(claim, {"job_id": job.job_id})
        if self.claims(job):
            assert self.running.setdefault(job.key, job.job_id) == job.job_id, (
                f"{job.key} runs twice at a time"
            )
            assert not job.round or self.run.round(job.key, job.round).exists(), (
                "a round that nobody explained"
            )
            self.executed.setdefault((job.key, job.round), []).append(job.job_id)


def _plan(rng: random.Random) -> Plan:
    cases, submissions = [], []
    for number in range(rng.randint(1, 3)):
        keys = (
            [f"{number:04}"] if rng.random() < 0.6 else [f"{number:04}_{i}" for i in range(rng.randint(2, 3))]
        )
        jobs = tuple(Job(key, 1, 1, 5, (f"case{key}",), True) for key in keys)
        cases += [_case(f"case{key}") for key in keys]
        submissions.append(Submission(f"{number:04}", jobs, "mpi.sh.j2"))
    retry = {"machine": 9, "preempted": 9, "unknown": 9}
    lots: tuple[Lot, ...] = ()
    if rng.random() < 0.5:
        lots, waves = _lot(rng, submissions[0], len(submissions))
        submissions += waves
        cases += [_case(c) for s in waves for job in s.jobs for c in job.case_ids]
    return Plan(tuple(cases), tuple(submissions), Policy(retry, rng.choice([None, 3])), lots)


def _case(case_id: str) -> Case:
    return Case(case_id, "g", "mpi.halo", 1, 1, 0, 1, 10, 1, {})


def _lot(rng: random.Random, first: Submission, number: int) -> tuple[tuple[Lot, ...], list[Submission]]:
    """Waves of more repeats behind one submission."""
    step, waves = rng.randint(1, 2), []
    for wave in range(1, rng.randint(1, 3) + 1):
        name = f"{number + wave - 1:04}"
        keys = [name] if step == 1 else [f"{name}_{i}" for i in range(step)]
        jobs = tuple(Job(key, 1, 1, 5, (f"case{key}",), True) for key in keys)
        waves.append(Submission(name, jobs, "mpi.sh.j2", lot="g/n1", wave=wave))
    series = tuple(c for s in (first, *waves) for job in s.jobs for c in job.case_ids)
    question = Question("step_time_ns", "median")
    most = len(series)
    lot = Lot("g/n1", "g", question, 0.02, 0.95, len(first.jobs), most, step, None, {"g/n1": series})
    return (lot,), waves


def _one(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, int]:
    """Run one schedule to its end; returns the model and how often the driver was killed."""
    rng = random.Random(seed)
    run, plan = RunDir(folder), _plan(rng)
    folder.mkdir()
    write_json(run.plan, plan.to_json())
    write_json(run.site, SITE)
    write_json(run.identity, IDENTITY)
    model = Model(run, plan, rng)
    monkeypatch.setattr(query, "ask", model.ask)
    monkeypatch.setattr(query, "in_queue", model.in_queue)
    monkeypatch.setattr(query, "find_by_name", model.find)
    mortal = rng.random() < 0.7
    kills = 0

    def perhaps_die() -> None:
        if mortal and rng.random() < 0.06:
            raise Killed

    write = ledger.write

    def dying_write(*arguments: Any, **facts: Any) -> None:
        perhaps_die()
        write(*arguments, **facts)
        perhaps_die()

    def dying_submit(self: SlurmScheduler, submission: Submission, exclude: Any = ()) -> str:
        perhaps_die()
        job_id = model.submit(submission)
        perhaps_die()
        return job_id

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "write", dying_write)
        patched.setattr(SlurmScheduler, "submit", dying_submit)
        driver = Driver(run, weigh=model.weigh)
        for _ in range(MAX_STEPS):
            try:
                driver.step(ask=True)
            except Killed:
                kills += 1
                driver = Driver(run, weigh=model.weigh)
            if driver.complete(ledger.read(run)):
                return model, kills
    raise AssertionError(f"seed {seed}: not complete after {MAX_STEPS} steps")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory: ten thousand schedules write a few hundred thousand synced lines."""
    monkeypatch.setattr(submitting, "LOOKUP_WAIT_S", 0.0)
    monkeypatch.setattr(submitting, "MAX_TRIES", 1000)
    monkeypatch.setattr(following, "SETTLED_S", 0.02)
    monkeypatch.setattr(reconcile_module, "SETTLE_S", 0.05)
    monkeypatch.setattr(reconcile_module, "DEFER_S", 0.0)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_job_is_executed_by_exactly_one_slurm_job_and_none_is_lost(
    chunk: int, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = resubmitted = requeued = taken = forgotten = deferred = spared = added = 0
    for seed in range(chunk, SCHEDULES, CHUNKS):
        model, killed = _one(seed, memory / str(seed), monkeypatch)
        known = ledger.read(model.run)
        keys = [job.key for s in model.plan.submissions for job in s.jobs]
        assert sorted(known.ended) == keys, f"seed {seed}"
        for (key, round_), ids in model.executed.items():
            assert len(set(ids)) == 1, f"seed {seed}: round {round_} of {key} was executed by {ids}"
        left_out = _left_out(model, known, seed)
        spared, added = spared + bool(left_out), added + bool(set(known.weighed) - set(known.closed))
        for key in keys:
            if key in left_out:
                continue
            submission, _ = known.current(model.plan)[key]
            assert model.run.end(key, submission.round).exists(), (
                f"seed {seed}: {key} was given up before its end: {known.ended[key]}"
            )
            assert known.ended[key]["reason"] == "", f"seed {seed}: {key}: {known.ended[key]}"
            rounds = sorted(r for k, r in model.executed if k == key)
            assert len(rounds) == 1 + sum(key in line["keys"] for line in known.rounds), f"seed {seed}: {key}"
        kills += killed
        first = [job for job in model.jobs if not job.round]
        resubmitted += len(first) > len(keys) - len(left_out)
        requeued += any(job.restart for job in model.jobs)
        taken, forgotten, deferred = (
            taken + model.taken,
            forgotten + model.forgotten,
            deferred + model.deferred,
        )
        shutil.rmtree(model.run.path)
    # The schedules are worth something: all of these things did happen (the rarest in one of forty).
    seen = kills, resubmitted, requeued, taken, forgotten, deferred, spared, added
    assert min(seen) >= SCHEDULES // CHUNKS // 100


def _left_out(model: Model, known: ledger.Ledger, seed: int) -> set[str]:
    """Jobs that were closed before they were submitted: exactly those of the waves from the last question on."""
    closed = {
        job.key
        for s in model.plan.submissions
        if s.wave and s.lot in known.closed and s.wave >= known.weighed[s.lot]
        for job in s.jobs
    }
    states = {key for key, facts in known.ended.items() if facts["state"] in (NOT_NEEDED, "SKIPPED")}
    assert states == closed, f"seed {seed}: closed {states}, and not {closed}"
    assert not closed & {job.key for job in model.jobs}, f"seed {seed}: run though closed"
    lines = [line for line in read_lines(model.run.ledger) if line["what"] == ledger.WEIGHED]
    asked = [(line["name"], line["wave"]) for line in lines]
    assert asked == sorted(set(asked)), f"seed {seed}: asked twice, or not in turn: {asked}"
    return closed


def test_the_model_can_tell_a_driver_that_gives_up_too_early(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control: without the look into the queue, requeued jobs are taken for ended, and this is noticed."""
    monkeypatch.setattr(
        SlurmScheduler,
        "rows",
        lambda self, jobs, finished, settled=(): {
            key: row
            for key, job_id in jobs.items()
            for row in query.ask([job_id.split("_")[0]])
            if row.job_id == job_id
        },
    )
    wrong = 0
    for seed in range(200):
        try:
            model, _ = _one(seed, memory / str(seed), monkeypatch)
        except AssertionError as error:  # the model saw a case run twice at a time
            assert "runs twice" in str(error) or "not complete" in str(error)
            wrong += 1
            continue
        known = ledger.read(model.run)
        wrong += any(facts["reason"] for facts in known.ended.values())
    assert wrong > 10


def test_a_ledger_line_is_json(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = _one(3, memory / "3", monkeypatch)
    assert all(json.loads(line)["what"] for line in model.run.ledger.read_text().splitlines())
