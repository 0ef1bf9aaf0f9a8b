"""A tick in a job of its own: what it leaves behind it, when it leaves, and chains of such jobs."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from harness.rundir import RunDir
from harness.schedule import whole
from harness.schedule.folder import ScheduleDir, Spec
from harness.schedule.tick import Broken, Tick
from harness.schedule.whole import SlurmChain, Whole
from tests.unit.weekly import DAILY

SPEC = replace(DAILY, how="self")


def at(text: str) -> float:
    """2026-05-DD HH:MM:SS, UTC."""
    return datetime.strptime(f"2026-05-{text} +0000", "%Y-%m-%d %H:%M:%S %z").timestamp()


@pytest.fixture(autouse=True)
def few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer looks into run folders, which take most of the time of these tests."""
    monkeypatch.setattr(whole, "LOOK_S", 10.0)


class World:
    """A clock, runs that take their time, and a queue with the jobs that come after this one."""

    def __init__(self, path: Path, spec: Spec = SPEC, *, takes_s: float = 300.0, code: int = 0) -> None:
        self.folder = ScheduleDir(path)
        self.spec = replace(spec, since_s=at("01 12:00:00"))
        self.folder.write(self.spec)
        self.now_s, self.takes_s, self.code = 0.0, takes_s, code
        self.begun: dict[str, float] = {}
        self.moving = True
        self.next_jobs: list[float] = []
        self.away_until_s = 0.0
        self.advanced = 0

    # Runs
    def make(self, spec: Spec, run: RunDir) -> None:
        (run.path / "work" / "0000").mkdir(parents=True)
        run.identity.write_text("{}")
        self.begun[run.path.name] = self.now_s

    def advance(self, run: RunDir) -> int:
        self.advanced += 1
        if self.now_s < self.begun[run.path.name] + self.takes_s:
            return 4
        (run.path / "summary.json").write_text(
            json.dumps({"exit_code": self.code, "counts": {}, "cases": []})
        )
        return 0

    # Chain
    def ensure(self, begin_s: float) -> str:
        if self.now_s < self.away_until_s:
            return "squeue: no answer"
        if not self.next_jobs:
            self.next_jobs.append(begin_s)
        return ""

    def settle(self, begin_s: float | None) -> str:
        if self.now_s < self.away_until_s:
            return "squeue: no answer"
        self.next_jobs = [] if begin_s is None else [begin_s]
        return ""

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for run in self.begun:
            end = self.folder.run(run).path / "work" / "0000" / "end.json"
            if self.now_s >= self.begun[run] + self.takes_s and not end.exists():
                end.write_text("{}")
            if self.moving:
                progress = self.folder.run(run).path / "work" / "0000" / "progress.json"
                progress.write_text("{}")
                os.utime(progress, (self.now_s, self.now_s))

    def job(self, now: str, *, chained: bool = True) -> int:
        """One job of the schedule; an earlier one that was waiting is now this one."""
        self.now_s = at(now)
        self.next_jobs = self.next_jobs[1:]
        tick = Tick(self.folder, self.folder.read(), self, now=lambda: self.now_s, say=lambda text: None)
        return Whole(tick, self if chained else None, sleep=self.sleep).drive()

    def history(self) -> list[tuple[str, str]]:
        return [(x["what"], x.get("moment", "")[8:] or x["why"]) for x in self.folder.lines()]

    def elapsed_s(self, since: str) -> float:
        return self.now_s - at(since)


def test_a_run_is_driven_to_its_end_and_the_next_job_comes_at_the_next_moment(tmp_path: Path) -> None:
    world = World(tmp_path / "s", code=1)
    assert world.job("02 02:00:01") == 1
    assert world.history() == [("started", "02T0200"), ("ended", "02T0200")]
    assert world.next_jobs == [at("03 02:00:00")]
    assert 300 <= world.elapsed_s("02 02:00:01") <= 310  # a last word is seen at once
    assert world.advanced < 20


def test_a_job_that_finds_nothing_to_do_only_sees_to_the_next(tmp_path: Path) -> None:
    world = World(tmp_path / "s")
    assert world.job("01 13:00:00") == 0
    assert (world.next_jobs, world.advanced, world.elapsed_s("01 13:00:00")) == ([at("02 02:00:00")], 0, 0)


def test_a_job_that_begins_a_little_early_waits_for_its_moment(tmp_path: Path) -> None:
    world = World(tmp_path / "s")
    assert world.job("02 01:59:40") == 0
    assert world.history() == [("started", "02T0200"), ("ended", "02T0200")]


def test_a_run_that_is_longer_than_a_job_is_gone_on_with_by_the_next_which_was_there_from_the_start(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "s", takes_s=2500)
    assert world.job("02 02:00:00") == 0
    assert world.next_jobs == [at("02 02:32:00")]
    assert 28 * 60 < world.elapsed_s("02 02:00:00") <= 29 * 60 + 10
    assert world.job("02 02:32:00") == 0
    assert world.history() == [("started", "02T0200"), ("ended", "02T0200")]
    assert world.next_jobs == [at("03 02:00:00")]


def test_a_job_that_only_waits_for_the_queue_gives_its_place_back(tmp_path: Path) -> None:
    world = World(tmp_path / "s", takes_s=10_000)
    world.moving = False
    assert world.job("02 02:00:00") == 0
    assert 120 < world.elapsed_s("02 02:00:00") < 200
    assert world.next_jobs == [at("02 02:32:00")]


def test_where_no_next_job_is_known_to_come_it_stays_and_asks_again_to_its_end(tmp_path: Path) -> None:
    world = World(tmp_path / "s", takes_s=10_000)
    world.moving = False
    world.away_until_s = at("02 03:00:00")
    assert world.job("02 02:00:00") == 4
    assert world.elapsed_s("02 02:00:00") > 28 * 60
    assert world.history() == [
        ("trouble", "squeue: no answer"),
        ("started", "02T0200"),
        ("trouble", "squeue: no answer"),
    ]


def test_a_controller_that_comes_back_gets_the_next_job_submitted(tmp_path: Path) -> None:
    world = World(tmp_path / "s", takes_s=5)
    world.away_until_s = at("02 02:10:00")
    assert world.job("02 02:00:00") == 0
    assert world.next_jobs == [at("03 02:00:00")]


def test_a_chain_that_cannot_be_gone_on_with_says_so(tmp_path: Path) -> None:
    world = World(tmp_path / "s", takes_s=5)
    world.away_until_s = at("02 12:00:00")
    assert world.job("02 02:00:00") == 3
    assert "no job comes after this one, and the schedule has ended; to go on" in world.history()[-1][1]


def test_short_intervals_get_the_next_job_in_time(tmp_path: Path) -> None:
    world = World(tmp_path / "s", replace(SPEC, every="10m", at="00:00"), takes_s=1500)
    assert world.job("02 02:00:00") == 0
    assert world.history() == [
        ("started", "02T0200"),
        ("skipped", "02T0210"),
        ("skipped", "02T0220"),
        ("ended", "02T0200"),
    ]
    assert world.next_jobs == [at("02 02:30:00")]


def test_the_next_job_of_a_chain_begins_no_later_than_the_next_moment(tmp_path: Path) -> None:
    world = World(tmp_path / "s", replace(SPEC, every="10m", at="00:00"), takes_s=10_000)
    world.moving = False
    assert world.job("02 02:00:00") == 0
    assert world.next_jobs == [at("02 02:10:00")]


def test_a_job_of_scrontab_leaves_none_behind_it_once_its_run_has_ended(tmp_path: Path) -> None:
    world = World(tmp_path / "s", replace(SPEC, how="scrontab"), takes_s=2500)
    assert world.job("02 02:00:00") == 0
    assert world.next_jobs == [at("02 02:32:00")]
    assert world.job("02 02:32:00") == 0
    assert (world.next_jobs, world.history()[-1]) == ([], ("ended", "02T0200"))


def test_scrontab_that_begins_an_hour_early_when_the_clocks_change_leaves_a_job_for_the_moment(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "s", replace(SPEC, how="scrontab"))
    assert world.job("02 01:00:00") == 0
    assert (world.next_jobs, world.history()) == ([at("02 02:00:00")], [])
    assert world.job("02 02:00:00") == 0
    assert (world.next_jobs, world.history()) == ([], [("started", "02T0200"), ("ended", "02T0200")])


def test_scrontab_that_finds_nothing_to_do_otherwise_leaves_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "s", replace(SPEC, how="scrontab"))
    assert world.job("01 13:00:00") == 0
    assert (world.next_jobs, world.history()) == ([], [])


def test_outside_a_job_it_stays_until_the_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    world = World(tmp_path / "s", takes_s=2000, code=3)
    assert world.job("02 02:00:00", chained=False) == 3
    assert world.next_jobs == []


def test_a_broken_campaign_ends_the_job_and_not_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "s")

    def broken(spec: Spec, run: RunDir) -> None:
        raise Broken("weekly.yaml:1: no such key")

    monkeypatch.setattr(world, "make", broken)
    assert world.job("02 02:00:00") == 2
    assert world.next_jobs == [at("03 02:00:00")]


def test_a_step_that_another_tick_makes_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path / "s")
    with world.folder.held():
        real_sleep: Callable[[float], None] = world.sleep
        stack = []

        def sleep(seconds: float) -> None:
            real_sleep(seconds)
            stack.append(seconds)
            if len(stack) == 3:
                raise TimeoutError

        world.sleep = sleep  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            world.job("02 02:00:00")
    assert world.history() == []


SLURM = """\
#!/bin/sh
here=$(dirname "$0")
echo "$(basename "$0") $*" >>"$here/calls"
[ ! -e "$here/away" ] || { echo "slurm: error: Unable to contact slurm controller" >&2; exit 1; }
[ "$(basename "$0")" != squeue ] || cat "$here/queue" 2>/dev/null || true
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that write down what they were asked."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("squeue", "sbatch", "scancel", "scontrol"):
        (place / name).write_text(SLURM)
        (place / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(whole.time, "time", lambda: at("02 02:00:00"))
    return place


def _calls(slurm: Path) -> list[str]:
    return (slurm / "calls").read_text().splitlines()


SQUEUE = "squeue --noheader --states=PENDING --format=%i --name=hh.schedule.weekly.1 --user=ann"


@pytest.mark.parametrize(
    ("queue", "begin", "calls"),
    [
        ("", "03 02:00:00", ["sbatch --parsable --begin=now+86400 /s/schedule.sh"]),
        ("7\n", "02 02:00:05", ["sbatch --parsable --begin=now+60 /s/schedule.sh"]),
        ("7\n8\n", "03 02:00:00", []),
    ],
)
def test_the_next_job_is_submitted_only_where_the_queue_has_none(
    queue: str, begin: str, calls: list[str], slurm: Path
) -> None:
    (slurm / "queue").write_text(queue)
    assert SlurmChain(ScheduleDir("/s"), "hh.schedule.weekly.1").ensure(at(begin)) == ""
    assert _calls(slurm) == [SQUEUE, *calls]


@pytest.mark.parametrize(
    ("queue", "begin", "calls"),
    [
        ("", "03 02:00:00", ["sbatch --parsable --begin=now+86400 /s/schedule.sh"]),
        ("8\n", "03 02:00:00", ["scontrol update JobId=8 StartTime=now+86400"]),
        ("8\n9\n", "03 02:00:00", ["scontrol update JobId=8 StartTime=now+86400", "scancel 9"]),
        ("8\n9\n", None, ["scancel 8 9"]),
        ("", None, []),
    ],
)
def test_of_jobs_that_wait_one_is_left_with_the_right_begin(
    queue: str, begin: str | None, calls: list[str], slurm: Path
) -> None:
    (slurm / "queue").write_text(queue)
    chain = SlurmChain(ScheduleDir("/s"), "hh.schedule.weekly.1")
    assert chain.settle(at(begin) if begin is not None else None) == ""
    assert _calls(slurm) == [SQUEUE, *calls]


def test_a_controller_that_is_away_is_said(slurm: Path) -> None:
    (slurm / "away").touch()
    chain = SlurmChain(ScheduleDir("/s"), "hh.schedule.weekly.1")
    for why in (chain.ensure(at("03 02:00:00")), chain.settle(at("03 02:00:00"))):
        assert why == (
            "the next job of the schedule is not known to be in the queue: squeue: exit code 1, said: "
            "slurm: error: Unable to contact slurm controller"
        )
