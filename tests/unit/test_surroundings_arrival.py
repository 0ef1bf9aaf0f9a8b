"""What the records of a job promise, against what of them is to be seen here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import arrival
from harness.ledger import Ledger
from harness.model.attempt import Attempt, StreamEnd
from harness.model.case import Case, Job, Plan, Submission
from harness.rundir import RunDir, append_line, read_promised, write_json
from harness.runtime.recorder import Recorder

KEY, CASE = "0000", "c0"
PLAN = Plan(
    (Case(CASE, "g", "mpi.halo", 1, 1, 0, 1, 10, 1, {}),),
    (Submission(KEY, (Job(KEY, 1, 1, 5, (CASE,), False),), "mpi.sh.j2"),),
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose one job has ended, all of it to be seen."""
    run = RunDir(tmp_path)
    folder = run.attempt(KEY, CASE, "attempt-0.0")
    folder.mkdir(parents=True)
    records = Recorder(folder / "p1.stream", 0)
    records.close()
    append_line(run.events(KEY), {"kind": "job.started"})
    stream = StreamEnd("p1", str((folder / "p1.stream").relative_to(run.path)), 60, 1)
    size = (folder / "p1.stream").stat().st_size
    attempt = Attempt(
        CASE, 0, KEY, "7", 0, 0, ("p1",), (), ("p1",), 1, 1, outcome="completed",
        streams=(StreamEnd("p1", stream.path, size, 1), StreamEnd("p2", "gone", None, None)),
    )  # fmt: skip
    append_line(run.attempts(KEY), {"what": "attempt", "attempt": attempt.to_json()})
    append_line(run.attempts(KEY), ending(run))
    write_json(
        run.end(KEY),
        {
            "wall_ns": 1,
            "job_id": "7",
            "attempts_bytes": run.attempts(KEY).stat().st_size,
            "events_bytes": run.events(KEY).stat().st_size,
        },
    )
    return run


def ending(run: RunDir, round_: int = 0) -> dict[str, Any]:
    return {
        "what": "case_ended", "case_id": CASE, "outcome": "completed", "reason": "", "round": round_,
        "events_bytes": run.events(KEY).stat().st_size,
    }  # fmt: skip


def cut(path: Path, by: int, *, hole: bool = False) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-by] + (b"\0" * by if hole else b""))


def test_a_last_word_whose_promises_are_here_is_believed(run: RunDir) -> None:
    said = arrival.last_word(run, KEY, 0)
    assert said is not None and said["job_id"] == "7"


@pytest.mark.parametrize("hole", [False, True], ids=["cut short", "zeros at the end"])
@pytest.mark.parametrize("name", ["attempts.jsonl", "events.jsonl", "c0/attempt-0.0/p1.stream"])
def test_a_last_word_waits_for_what_it_promises_and_says_what_that_is(
    run: RunDir, name: str, hole: bool
) -> None:
    cut(run.job(KEY) / name, 5, hole=hole)
    assert arrival.last_word(run, KEY, 0) is None
    (words,) = arrival.lacking(run, KEY, run.read_json(run.end(KEY)))
    assert words.startswith(f"work/{KEY}/{name}: ")


def test_a_last_word_of_an_older_harness_promises_nothing(run: RunDir) -> None:
    write_json(run.end(KEY), {"wall_ns": 1, "job_id": "7"})
    cut(run.events(KEY), 5)
    assert arrival.last_word(run, KEY, 0) is not None


def test_a_stream_that_its_node_could_not_write_is_not_waited_for(run: RunDir) -> None:
    attempt = Attempt(
        CASE, 1, KEY, "7", 0, 1, ("p1",), (), ("p1",), 1, 1, outcome="failed",
        streams=(StreamEnd("p1", "nowhere.stream", 500, 3, "No space left on device"),),
    )  # fmt: skip
    append_line(run.attempts(KEY), {"what": "attempt", "attempt": attempt.to_json()})
    assert arrival.last_word(run, KEY, 0) is not None


# ---- cases ----

DONE = {KEY: {"state": "COMPLETED"}}
AGAIN = {"of": KEY, "round": 1, "keys": [KEY], "why": {CASE: "machine"}}


def settled(run: RunDir, known: Ledger, line: dict[str, Any] | None, *, begun: bool = True) -> str:
    return arrival.unsettled(run, known, known.current(PLAN), CASE, line, begun=begun)


@pytest.mark.parametrize(
    ("ended", "has_ending", "begun", "words"),
    [
        ({}, False, True, "its job has not ended"),
        ({}, False, False, ""),  # not run, which says itself
        ({}, True, True, ""),
        (DONE, True, True, ""),
        (DONE, False, False, "its job came to its end, and"),
        ({KEY: {"state": "TIMEOUT"}}, False, True, "its job came to its end, and"),  # it said its last word
        ({KEY: {"state": "REFUSED"}}, False, False, "its job came to its end, and"),
    ],
)
def test_how_a_case_ended_is_known_or_not(
    run: RunDir, ended: dict[str, Any], has_ending: bool, begun: bool, words: str
) -> None:
    found = settled(run, Ledger(ended=ended), ending(run) if has_ending else None, begun=begun)
    assert found.startswith(words) and bool(found) == bool(words)


@pytest.mark.parametrize(
    ("state", "begun", "unsettled"),
    [
        ("COMPLETED", False, True),
        ("FAILED", True, True),
        ("FAILED", False, False),
        ("TIMEOUT", True, False),
        ("REFUSED", False, False),
    ],
)
def test_without_a_last_word_the_jobs_state_says_whether_there_must_be_one(
    run: RunDir, state: str, begun: bool, unsettled: bool
) -> None:
    run.end(KEY).unlink()
    assert bool(settled(run, Ledger(ended={KEY: {"state": state}}), None, begun=begun)) is unsettled


def test_an_end_whose_events_are_not_all_here_is_not_known_yet(run: RunDir) -> None:
    line = ending(run)
    cut(run.events(KEY), 3)
    assert settled(run, Ledger(ended=DONE), line).startswith(f"work/{KEY}/events.jsonl: ")


def test_how_an_earlier_round_ended_does_not_count(run: RunDir) -> None:
    known = Ledger(ended=DONE, rounds=(AGAIN,))
    assert settled(run, known, ending(run)).startswith("its job came to its end, and")
    assert settled(run, known, ending(run, 1)) == ""


# ---- files that another node says it wrote ----


def test_a_promised_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "attempt.json"
    looks = iter([None, b"", b"{}"])

    def appear(seconds: float) -> None:
        content = next(looks)
        if content is not None:
            path.write_bytes(content)

    monkeypatch.setattr("harness.rundir.time.sleep", appear)
    assert read_promised(path, deadline_s=60) == b"{}"


def test_a_promised_file_that_never_shows_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"not to be seen here, 0.1 s after it was written") as caught:
        read_promised(tmp_path / "attempt.json", deadline_s=0.1)
    assert caught.value.filename == str(tmp_path / "attempt.json")
