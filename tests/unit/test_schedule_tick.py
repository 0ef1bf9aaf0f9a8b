"""Ticks: what is started, gone on with, skipped and made up for; kills, two at once, rolling folders, mail."""

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness.rundir import RunDir
from harness.schedule import folder as folders
from harness.schedule.folder import Busy, ScheduleDir, ScheduleError, Spec, differences
from harness.schedule.tick import Broken, Tick
from harness.slurm.commands import CommandError
from tests.unit.weekly import DAILY as SPEC


def at(text: str) -> float:
    """2026-05-DD HH:MM, UTC."""
    return datetime.strptime(f"2026-05-{text} +0000", "%Y-%m-%d %H:%M %z").timestamp()


class FakeRuns:
    """Runs that need some steps, then end with an exit code."""

    def __init__(self, steps: int = 1, code: int = 0) -> None:
        self.steps, self.code = steps, code
        self.made: list[str] = []
        self.done: dict[str, int] = {}
        self.before_make: Callable[[], None] = lambda: None
        self.before_advance: Callable[[], None] = lambda: None

    def make(self, spec: Spec, run: RunDir) -> None:
        self.before_make()
        self.made.append(run.path.name)
        run.path.mkdir(parents=True)
        for name in ("plan.json", "results.h5", "campaign.yaml"):
            (run.path / name).write_text("x")
        (run.path / "work").mkdir()
        (run.path / "work" / "file").write_text("x")
        run.identity.write_text("{}")

    def advance(self, run: RunDir) -> int:
        self.before_advance()
        self.done[run.path.name] = self.done.get(run.path.name, 0) + 1
        if self.done[run.path.name] < self.steps:
            return 4
        case = {"label": "halo/n1", "verdict": "fail", "key_figure": "3 ms", "why": "too\nslow"}
        summary = {"exit_code": self.code, "counts": {"pass": 3, "fail": 1, "unknown": 0}, "cases": [case]}
        (run.path / "summary.json").write_text(json.dumps(summary))
        return 0


class Schedule:
    """A schedule under test, with a clock."""

    def __init__(self, path: Path, runs: FakeRuns | None = None, spec: Spec = SPEC) -> None:
        self.folder, self.runs, self.spec = ScheduleDir(path), runs or FakeRuns(), spec
        self.folder.write(replace(spec, since_s=at("01 12:00")))
        self.said: list[str] = []

    def tick(self, now: str, *, start_now: bool = False) -> int:
        tick = Tick(self.folder, self.folder.read(), self.runs, now=lambda: at(now), say=self.said.append)
        return tick.step(start_now=start_now)

    def history(self) -> list[tuple[str, str]]:
        """What happened to which moment, in short."""
        return [(x["what"], x.get("moment", x.get("why", ""))[8:]) for x in self.folder.lines()]


@pytest.fixture
def schedule(tmp_path: Path) -> Schedule:
    return Schedule(tmp_path / "s")


def test_nothing_is_due_before_the_first_moment_and_nothing_is_written(schedule: Schedule) -> None:
    assert [schedule.tick("01 13:00"), schedule.tick("02 01:59")] == [0, 0]
    assert (schedule.history(), schedule.said) == ([], [])


def test_a_due_run_is_started_and_driven_by_steps_to_its_own_exit_code(tmp_path: Path) -> None:
    schedule = Schedule(tmp_path / "s", FakeRuns(steps=3, code=1))
    assert [schedule.tick(f"02 02:{m:02d}") for m in (0, 5, 10, 15)] == [4, 4, 1, 0]
    started, ended = schedule.folder.lines()
    assert (started["what"], started["run"], started["moment_s"]) == (
        "started",
        "2026-05-02T0200",
        at("02 02:00"),
    )
    assert started["by"]["process"] == os.getpid()
    del ended["wall_s"]
    assert ended == {
        "what": "ended",
        "run": "2026-05-02T0200",
        "moment": "2026-05-02T0200",
        "moment_s": at("02 02:00"),
        "exit": 1,
        "counts": {"pass": 3, "fail": 1},
        "report": str(tmp_path / "s/runs/2026-05-02T0200/report.html"),
    }
    assert schedule.runs.made == ["2026-05-02T0200"]
    assert os.readlink(schedule.folder.latest) == "runs/2026-05-02T0200"


def test_moments_that_were_missed_are_made_up_for_once(schedule: Schedule) -> None:
    assert schedule.tick("09 17:00") == 0
    assert schedule.tick("09 17:05") == 0
    assert schedule.history() == [("started", "09T0200"), ("ended", "09T0200")]


def test_a_moment_that_comes_while_a_run_is_unfinished_is_skipped_with_the_reason(tmp_path: Path) -> None:
    schedule = Schedule(tmp_path / "s", FakeRuns(steps=4))
    codes = [schedule.tick(now) for now in ("02 02:00", "03 02:00", "03 02:05", "03 02:10", "03 03:00")]
    assert codes == [4, 4, 4, 0, 0]
    assert schedule.history() == [("started", "02T0200"), ("skipped", "03T0200"), ("ended", "02T0200")]
    assert schedule.folder.lines()[1]["why"] == "the run of 2026-05-02T0200 has not ended"
    assert schedule.tick("04 02:00") == 4


def test_a_run_that_only_its_driver_kept_unfinished_ends_first_and_costs_no_moment(tmp_path: Path) -> None:
    schedule = Schedule(tmp_path / "s", FakeRuns(steps=2))
    assert [schedule.tick(now) for now in ("02 02:00", "03 02:00", "03 02:05", "03 02:10")] == [4, 0, 4, 0]
    assert schedule.history() == [
        ("started", "02T0200"),
        ("ended", "02T0200"),
        ("started", "03T0200"),
        ("ended", "03T0200"),
    ]


def test_a_run_can_be_started_now_and_that_moment_counts(schedule: Schedule) -> None:
    assert schedule.tick("05 09:30", start_now=True) == 0
    assert schedule.history() == [("started", "05T0930"), ("ended", "05T0930")]
    assert schedule.tick("05 09:31") == 0
    with pytest.raises(ScheduleError, match=r"2026-05-05T0930: a run of this minute is there; wait"):
        schedule.tick("05 09:30", start_now=True)
    assert len(schedule.history()) == 2


def test_a_campaign_that_cannot_be_planned_is_written_down_once_and_tried_again_at_the_next_moment(
    schedule: Schedule,
) -> None:
    def broken() -> None:
        raise Broken("weekly.yaml:3: seed = x, must be a number; write it without quotes")

    schedule.runs.before_make = broken
    assert [schedule.tick(now) for now in ("02 02:00", "02 02:05", "03 02:00")] == [2, 0, 2]
    assert schedule.history() == [
        ("started", "02T0200"),
        ("failed", "02T0200"),
        ("started", "03T0200"),
        ("failed", "03T0200"),
    ]
    assert schedule.folder.lines()[1]["why"].startswith("weekly.yaml:3: seed = x")
    schedule.runs.before_make = lambda: None
    assert schedule.tick("04 02:00") == 0


def test_a_scheduler_that_does_not_answer_is_written_down_once_and_asked_again(schedule: Schedule) -> None:
    def away() -> None:
        raise CommandError("sbatch: no answer within 30 s")

    schedule.runs.before_make = away
    assert [schedule.tick(f"02 02:{m:02d}") for m in (0, 5, 10)] == [3, 3, 3]
    assert [x["what"] for x in schedule.folder.lines()] == ["started", "trouble"]
    schedule.runs.before_make = lambda: None
    assert schedule.tick("02 02:15") == 0
    assert [x["what"] for x in schedule.folder.lines()] == ["started", "trouble", "ended"]


class Killed(BaseException):
    """kill -9, as far as a test can have it: no handler of ours sees it."""


@pytest.mark.parametrize("nth", range(1, 15))
def test_a_tick_that_is_killed_before_or_after_any_effect_is_gone_on_with_and_nothing_is_done_twice(
    nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Schedule(tmp_path / "s", FakeRuns(steps=2))
    left = [nth]

    def maybe() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    real_append, real_point = folders.append_line, ScheduleDir.point_latest
    real_make, real_advance = schedule.runs.make, schedule.runs.advance

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any) -> Any:
            maybe()
            answer = real(*given)
            maybe()
            return answer

        return wrapped

    monkeypatch.setattr(folders, "append_line", around(real_append))
    monkeypatch.setattr(ScheduleDir, "point_latest", around(real_point))
    monkeypatch.setattr(schedule.runs, "make", around(real_make))
    monkeypatch.setattr(schedule.runs, "advance", around(real_advance))
    codes: list[int | None] = []
    for minute in range(0, 50, 5):
        try:
            codes.append(schedule.tick(f"02 02:{minute:02d}"))
        except Killed:
            codes.append(None)
    assert codes.count(None) == 1, "the kill never came: fewer effects than this test thinks"
    assert schedule.history() == [("started", "02T0200"), ("ended", "02T0200")]
    assert schedule.runs.made == ["2026-05-02T0200"]
    assert schedule.runs.done["2026-05-02T0200"] in (2, 3)  # an ended run may be looked at once more
    assert os.readlink(schedule.folder.latest) == "runs/2026-05-02T0200"


def _hold(path: str, held: Any, let_go: Any) -> None:
    with ScheduleDir(path).held():
        held.set()
        let_go.wait(30)
        os._exit(9)


def test_of_two_ticks_one_does_nothing_and_one_that_dies_holds_nobody_up(schedule: Schedule) -> None:
    context = multiprocessing.get_context("fork")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(schedule.folder.path), held, let_go))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(Busy, match=rf"another tick is at work \(process {other.pid} on "):
            schedule.tick("02 02:00")
        assert schedule.history() == []
    finally:
        let_go.set()
        other.join(30)
    assert schedule.tick("02 02:00") == 0


def test_only_the_newest_runs_are_kept_whole_and_what_dead_ticks_left_goes(schedule: Schedule) -> None:
    (schedule.folder.runs / ".2026-05-01T0200.77.tmp" / "work").mkdir(parents=True)
    (schedule.folder.runs / "mine").mkdir()
    (schedule.folder.runs / "mine" / "notes").write_text("not a run of ours")
    outside = schedule.folder.path.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    for day in ("02", "03", "04"):
        assert schedule.tick(f"{day} 02:00") == 0
        (schedule.folder.runs / f"2026-05-{day}T0200" / "link").symlink_to(outside)
    assert schedule.tick("05 02:00") == 0
    left = {p.name: sorted(x.name for x in p.iterdir()) for p in sorted(schedule.folder.runs.iterdir())}
    whole = ["campaign.yaml", "plan.json", "results.h5", "run.json", "summary.json", "work"]
    kept = ["campaign.yaml", "results.h5", "run.json", "summary.json"]
    assert left == {
        "2026-05-02T0200": kept,
        "2026-05-03T0200": kept,
        "2026-05-04T0200": sorted([*whole, "link"]),
        "2026-05-05T0200": whole,
        "mine": ["notes"],
    }
    assert [p.name for p in outside.iterdir()] == ["file"]


MAILER = """\
#!/bin/sh
for word; do echo "argument $word"; done >>"$(dirname "$0")/mails"
cat >>"$(dirname "$0")/mails"
exit %d
"""


def _mailing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, code: int = 0) -> Path:
    place = tmp_path / "bin"
    place.mkdir()
    (place / program).write_text(MAILER % code)
    (place / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    monkeypatch.setattr("harness.schedule.programs._MORE_PATH", str(place))
    return place / "mails"


def test_whoever_asked_is_mailed_how_it_ended_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mails = _mailing(tmp_path, monkeypatch, "sendmail")
    schedule = Schedule(tmp_path / "s", FakeRuns(code=1), replace(SPEC, mail="ann@example.org"))
    assert [schedule.tick("02 02:00"), schedule.tick("02 02:05")] == [1, 0]
    root = schedule.folder.path
    assert mails.read_text() == (
        "argument -i\nargument -t\n"
        "To: ann@example.org\n"
        "Subject: harness: weekly on alps: fail (3 pass, 1 fail)\n"
        "Auto-Submitted: auto-generated\n"
        'Content-Type: text/plain; charset="utf-8"\n'
        "Content-Transfer-Encoding: 8bit\n"
        "MIME-Version: 1.0\n\n"
        "weekly on alps, due 2026-05-02T0200: fail (3 pass, 1 fail)\n\n"
        "fail          halo/n1                      3 ms  [too?slow]\n\n"
        f"report    {root}/runs/2026-05-02T0200/report.html\n"
        f"schedule  {root}\n"
        "campaign  /files/weekly.yaml\n\n"
        f"The history:   harness schedule history {root}\n"
        f"To end this:   harness schedule remove {root}\n"
    )
    assert schedule.folder.lines()[-1]["of"] == "ended 2026-05-02T0200"


@pytest.mark.parametrize(
    ("mail_on", "code", "mailed"),
    [("fail", 0, 0), ("fail", 1, 1), ("fail", 3, 1), ("always", 0, 1), ("never", 1, 0)],
)
def test_mail_is_sent_when_it_was_asked_for(
    mail_on: str, code: int, mailed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails = _mailing(tmp_path, monkeypatch, "sendmail")
    spec = replace(SPEC, mail="ann@example.org", mail_on=mail_on)
    assert Schedule(tmp_path / "s", FakeRuns(code=code), spec).tick("02 02:00") == code
    assert (mails.read_text().count("Subject:") if mails.exists() else 0) == mailed


def test_a_skipped_moment_and_a_broken_campaign_are_mailed_through_mail_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails = _mailing(tmp_path, monkeypatch, "mail")
    schedule = Schedule(tmp_path / "s", FakeRuns(steps=99), replace(SPEC, mail="ann"))
    assert [schedule.tick("02 02:00"), schedule.tick("03 02:00")] == [4, 4]
    assert mails.read_text().splitlines()[:5] == [
        "argument -s",
        "argument harness: weekly on alps: not started",
        "argument ann",
        "weekly on alps, due 2026-05-03T0200: not started",
        "the run of 2026-05-02T0200 has not ended",
    ]


def test_a_mail_that_a_kill_prevented_is_sent_by_the_next_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails = _mailing(tmp_path, monkeypatch, "sendmail")
    schedule = Schedule(tmp_path / "s", FakeRuns(code=1), replace(SPEC, mail="ann@example.org"))

    def killed(*_: object) -> str:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("harness.schedule.mail.send", killed)
        schedule.tick("02 02:00")
    assert not mails.exists()
    assert [schedule.tick("02 02:05"), schedule.tick("02 02:10")] == [0, 0]
    assert mails.read_text().count("Subject:") == 1


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        ("sendmail", 75, "the mail program ended with exit code 75, and said: nothing"),
        ("other", 0, f"neither sendmail nor mail is on {os.uname().nodename}"),
    ],
)
def test_a_mail_that_cannot_be_sent_is_written_down_and_stops_nothing(
    program: str, code: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mailing(tmp_path, monkeypatch, program, code)
    schedule = Schedule(tmp_path / "s", FakeRuns(code=1), replace(SPEC, mail="ann@example.org"))
    assert [schedule.tick("02 02:00"), schedule.tick("03 02:00")] == [1, 1]
    told = [x for x in schedule.folder.lines() if x["what"] == "told"]
    assert [x["why"] for x in told] == [why, why]


def test_a_large_log_is_begun_anew_and_the_old_one_is_kept_beside_it(schedule: Schedule) -> None:
    schedule.folder.log.write_bytes(b"x" * 4_000_001)
    assert schedule.tick("02 02:00") == 0
    assert [p.name for p in sorted(schedule.folder.path.glob("tick.log*"))] == ["tick.log.1"]


def test_a_folder_of_another_version_is_refused_with_what_to_do(schedule: Schedule) -> None:
    data = json.loads(schedule.folder.file.read_text())
    for change in ({"schema": 2}, {"keep": 1, "unheard": 2}):
        schedule.folder.file.write_text(json.dumps({**data, **change}))
        with pytest.raises(
            ScheduleError, match=r"schedule\.json: cannot be understood .* remove the schedule and add"
        ):
            schedule.folder.read()


def test_a_schedule_reads_back_as_it_was_written(tmp_path: Path) -> None:
    spec = replace(SPEC, overrides=("seed=3",), job_options=("--qos=low",), environment={"PATH": "/bin"})
    folder = ScheduleDir(tmp_path / "s")
    folder.write(spec)
    assert folder.read() == spec
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o775)
    with pytest.raises(ScheduleError, match=r"others can write into it, .* chmod go-w it first"):
        ScheduleDir(tmp_path / "s").write(SPEC)


def test_what_makes_it_another_schedule_is_named() -> None:
    assert differences(SPEC, replace(SPEC, since_s=5.0, python="/bin/python", host="a")) == []
    other = replace(SPEC, every="week", on="sunday", overrides=("seed=3",))
    assert differences(SPEC, other) == [
        "every: day -> week",
        "on: none -> sunday",
        "overrides: none -> seed=3",
    ]
