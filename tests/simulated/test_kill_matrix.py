"""kill -9 of the driver at every write and every call in turn; then the same command brings the run to its end.

Each point is tried in a process of its own, which kills itself there with SIGKILL: nothing is tidied up, and a
write may be cut in half. The model of Slurm lives in a file, so it goes on as Slurm would. The run has a group
that others need, an array of which one task loses its node and is done once more, a submission that is deferred,
and an sbatch whose answer is lost.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import ledger, rundir
from harness import reconcile as reconcile_module
from harness.driver import Driver
from harness.driving import submitting
from harness.model.case import Case, Job, Plan, Policy, Submission
from harness.rundir import RunDir, append_line, write_json
from harness.slurm.commands import CommandError, CommandTimeout
from harness.slurm.query import JobRow
from tests.simulated.test_schedules import IDENTITY, SITE

MAX_STEPS = 60

CHECK = Submission("0000", (Job("0000", 1, 1, 5, ("check",), False),), "mpi.sh.j2")
ARRAY = Submission(
    "0001",
    tuple(Job(f"0001_{i}", 1, 1, 5, (f"a{i}",), False) for i in range(3)),
    "mpi.sh.j2",
    needs=("check",),
)
LAST = Submission("0002", (Job("0002", 1, 1, 5, ("z",), False),), "mpi.sh.j2", after=("array",))


def _case(case_id: str, group: str) -> Case:
    return Case(case_id, group, "mpi.halo", 1, 1, 0, 1, 10, 1, {})


PLAN = Plan(
    (_case("check", "check"), *(_case(f"a{i}", "array") for i in range(3)), _case("z", "last")),
    (CHECK, ARRAY, LAST),
    Policy({"machine": 1}),
)


class Slurm:
    """A model of Slurm in a file: what is queued goes on whether or not a driver lives."""

    one_at_a_time = False
    free = False

    def __init__(self, run: RunDir, file: Path) -> None:
        self.run, self.file = run, file
        if not file.exists():
            self.save({"next": 10, "jobs": [], "executed": [], "deferred": False, "lost": False})

    def load(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())

    def save(self, state: dict[str, Any]) -> None:
        temporary = self.file.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        os.replace(temporary, self.file)

    def submit(self, submission: Submission, exclude: Sequence[str] = ()) -> str:
        state = self.load()
        if submission.name == "0002" and not state["deferred"]:
            self.save({**state, "deferred": True})
            raise CommandError("sbatch: exit code 1, said: sbatch: error: AssocMaxSubmitJobLimit", 1)
        job_id, state["next"] = str(state["next"]), state["next"] + 1
        for index, job in enumerate(submission.jobs):
            state["jobs"].append(
                {"id": submission.task_id(index, job_id), "name": submission.name, "key": job.key,
                 "round": submission.round, "state": "PENDING", "exclude": list(exclude)}
            )  # fmt: skip
        lost, state["lost"] = not state["lost"], True
        self.save(state)
        if lost:
            raise CommandTimeout("sbatch: no answer within 1 s")
        return job_id

    def rows(
        self, jobs: Mapping[str, str], finished: Collection[str], settled: Collection[str] = ()
    ) -> dict[str, JobRow]:
        state = self.load()
        for job in state["jobs"]:
            self.live(job, state)
        self.save(state)
        by_id = {job["id"]: job["state"] for job in state["jobs"]}
        return {k: JobRow(i, "", by_id[i], "0:0", "p1") for k, i in jobs.items() if i in by_id}

    def live(self, job: dict[str, Any], state: dict[str, Any]) -> None:
        if job["state"] == "PENDING":
            job["state"] = "RUNNING"
            claim = self.run.claim(job["key"], job["round"])
            claim.parent.mkdir(parents=True, exist_ok=True)
            if not claim.exists():
                claim.write_text(json.dumps({"job_id": job["id"]}))
            if json.loads(claim.read_text())["job_id"] == job["id"]:
                state["executed"].append([job["key"], job["round"], job["id"]])
            else:
                job["state"] = "COMPLETED"
        elif job["state"] == "RUNNING":
            if job["key"] == "0001_1" and not job["round"]:
                job["state"] = "NODE_FAIL"
                return
            job["state"] = "COMPLETED"
            case_id = next(j.case_ids[0] for s in PLAN.submissions for j in s.jobs if j.key == job["key"])
            ended = {"what": "case_ended", "case_id": case_id, "outcome": "completed", "reason": ""}
            with self.run.attempts(job["key"]).open("a") as file:
                file.write(json.dumps(ended) + "\n")
            last = {"wall_ns": time.time_ns(), "job_id": job["id"]}
            self.run.end(job["key"], job["round"]).write_text(json.dumps(last))

    def find(self, submissions: Sequence[Submission]) -> dict[str, str]:
        names = {s.name for s in submissions}
        return {j["name"]: j["id"].split("_")[0] for j in self.load()["jobs"] if j["name"] in names}

    def nodes(self, partition: str | None) -> dict[str, str]:
        return {"p1": "idle", "p2": "idle"}

    def reasons(self, jobs: Mapping[str, str]) -> dict[str, str]:
        return {}

    def starts(self, jobs: Mapping[str, str]) -> dict[str, list[JobRow]]:
        return {}

    def cancel(self, job_ids: Sequence[str]) -> None:
        raise AssertionError("nothing is cancelled here")


class Deadly:
    """Counts writes and calls, and kills its own process at one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def point(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.point()
            answer = function(*arguments, **options)
            self.point()
            return answer

        return wrapped

    def __getattr__(self, name: str) -> Any:  # stands in for the module `os` in harness.rundir
        real = getattr(os, name)
        if name == "write":
            return self.torn
        return self.around(real) if name in ("fsync", "replace", "link", "unlink") else real

    def torn(self, descriptor: int, data: bytes) -> int:
        self.point()
        self.count += 1
        if self.count == self.at:
            os.write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        written = os.write(descriptor, data)
        self.point()
        return written


def _drive(run: RunDir, file: Path, at: int) -> int:
    """One driver in a process of its own, killed at that point; returns its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        deadly = Deadly(at)
        rundir.os = deadly  # type: ignore[attr-defined,assignment]
        replace = Path.replace
        Path.replace = deadly.around(replace)  # type: ignore[method-assign]
        scheduler = Slurm(run, file)
        for name in ("submit", "rows", "find", "nodes"):
            setattr(scheduler, name, deadly.around(getattr(scheduler, name)))
        driver = Driver(run, scheduler, judge=lambda run, cases: dict.fromkeys(cases, "pass"))
        with driver.lease():
            for _ in range(MAX_STEPS):
                driver.step(ask=True)
                if driver.complete(ledger.read(run)):
                    driver.close()
                    os._exit(0)
                time.sleep(0.001)
        os._exit(1)
    except BaseException as error:
        print(f"point {at}: {type(error).__name__}: {error}", flush=True)
        os._exit(2)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(submitting, "LOOKUP_WAIT_S", 0.0)
    monkeypatch.setattr(reconcile_module, "DEFER_S", 0.0)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def _fresh(folder: Path) -> RunDir:
    run = RunDir(folder)
    folder.mkdir()
    write_json(run.plan, PLAN.to_json())
    write_json(run.site, SITE)
    write_json(run.identity, IDENTITY)
    return run


def _whole(run: RunDir, file: Path, point: str) -> None:
    """Every case ran to its end, each round of it by one job, and none once more after its end."""
    state, known = json.loads(file.read_text()), ledger.read(run)
    executed = [(key, round_) for key, round_, _ in state["executed"]]
    expected = [("0000", 0), ("0001_0", 0), ("0001_1", 0), ("0001_1", 1), ("0001_2", 0), ("0002", 0)]
    assert sorted(executed) == expected, f"{point}: executed {executed}"
    assert sorted(known.ended) == ["0000", "0001_0", "0001_1", "0001_2", "0002"], point
    assert {facts["state"] for facts in known.ended.values()} == {"COMPLETED"}, f"{point}: {known.ended}"
    assert known.suspects.keys() == {"p1"}, point
    again = [job for job in state["jobs"] if job["name"] == "0001.1"]
    assert [job["exclude"] for job in again] == [["p1"]] * len(again), (
        f"{point}: the lost node was asked for again"
    )


def test_a_driver_that_is_not_killed_does_all_of_it(memory: Path) -> None:
    run = _fresh(memory / "run")
    assert _drive(run, memory / "slurm.json", at=0) == 0
    _whole(run, memory / "slurm.json", "not killed")


@pytest.mark.timeout(300)
def test_killed_at_every_write_and_every_call_in_turn_it_goes_on(memory: Path) -> None:
    at, killed = 0, 0
    while True:
        at += 1
        folder = memory / str(at)
        folder.mkdir()
        run, file = _fresh(folder / "run"), folder / "slurm.json"
        status = _drive(run, file, at)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            killed += 1
            assert _drive(run, file, at=0) == 0, f"point {at}: did not go on"
        else:
            assert status == 0
        _whole(run, file, f"point {at}")
        shutil.rmtree(folder)
        if not os.WIFSIGNALED(status):
            break
    assert killed > 100  # so many points there are


@pytest.mark.timeout(300)
def test_killed_again_and_again_it_still_comes_to_its_end(memory: Path) -> None:
    rng = random.Random(20260101)
    killed = 0
    for number in range(5):
        folder = memory / f"many-{number}"
        folder.mkdir()
        run, file = _fresh(folder / "run"), folder / "slurm.json"
        for _ in range(400):
            if not os.WIFSIGNALED(_drive(run, file, at=rng.randint(3, 30))):
                break
            killed += 1
        _whole(run, file, f"many {number}")
    assert killed > 25


def test_a_line_that_was_cut_in_half_does_not_spoil_the_next(memory: Path) -> None:
    run = _fresh(memory / "run")
    run.ledger.write_text('{"what":"submitting","na')
    append_line(run.ledger, {"what": "submitted", "name": "0000", "wall_ns": 1, "job_id": "5"})
    assert dict(ledger.read(run).submitted) == {"0000": "5"}
