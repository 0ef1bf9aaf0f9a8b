"""collect: every kind of bad stream is named and stops nothing; again, while the run goes on, and through kill -9."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis import load
from analysis.verdict import judge
from harness import cli, collect_streams
from harness import collect as collecting
from harness.collect import collect
from harness.model.attempt import Attempt
from harness.model.verdict import Verdict
from harness.rundir import RunDir, append_line, read_lines
from harness.store import Results, StoreError
from tests.bench import big_run

SAMPLES = 50


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two cases on two nodes each."""
    return big_run.make(tmp_path / "run", 2, 2, SAMPLES)


def _stream(run: RunDir, node: str = "n1") -> Path:
    """A stream of the first case."""
    return run.path / f"work/00000/c00000/attempt-0.0/{node}.stream"


def _read(run: RunDir) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Streams of the first case, the cases, and how many samples there are."""
    with Results(collect(run)) as results:
        cases = results.rows("cases")
        streams = [row for row in results.rows("streams") if row["case_id"] == "c00000"]
        found = results.sample_tables()
        return streams, cases, len(results.samples(*found[0], ["step"])["step"]) if found else 0


def test_streams_without_damage_are_complete(run: RunDir) -> None:
    streams, cases, samples = _read(run)
    assert [(row["node"], row["status"], row["records"]) for row in streams] == [
        ("n1", "complete", 53),
        ("n2", "complete", 53),
    ]
    assert [case["evidence"] for case in cases] == ["complete", "complete"]
    assert samples == 4 * SAMPLES


def _missing(run: RunDir) -> None:
    _stream(run).unlink()


def _short(run: RunDir) -> None:
    os.truncate(_stream(run), 1000)


def _torn(run: RunDir) -> None:
    with _stream(run).open("r+b") as file:
        file.seek(1500)
        file.write(b"\xff\xfe")


def _of_another_case(run: RunDir) -> None:
    other = run.path / "work/00001/c00001/attempt-0.0/n1.stream"
    _stream(run).write_bytes(other.read_bytes())


def _of_another_attempt(run: RunDir) -> None:
    _stream(run).write_bytes(big_run.stream("c00000", 4, "n1", 0, SAMPLES, 1))


def _something_else(run: RunDir) -> None:
    _stream(run).write_bytes(b"#!/bin/bash\nexit\n" * 9)


def _a_folder(run: RunDir) -> None:
    _stream(run).unlink()
    _stream(run).mkdir()


BAD: list[tuple[Callable[[RunDir], None], str, str, int]] = [
    (_missing, "missing", "2940 bytes were shipped, and the file is not there", 0),
    (_short, "short", "1000 bytes of 2940", 7),
    (_torn, "torn", "1 damaged stretches", SAMPLES - 1),
    (_of_another_case, "foreign", "its records are of case c00001; it was left out", 0),
    (_of_another_attempt, "foreign", "its records are of attempt 4; it was left out", 0),
    (_something_else, "foreign", "no record of ours in 153 bytes; it was left out", 0),
    (_a_folder, "missing", "it cannot be read: Is a directory", 0),
]


@pytest.mark.parametrize(("spoil", "status", "detail", "left"), BAD, ids=[row[0].__name__ for row in BAD])
def test_a_bad_stream_is_named_and_the_others_are_read(
    run: RunDir, spoil: Callable[[RunDir], None], status: str, detail: str, left: int
) -> None:
    spoil(run)
    streams, cases, samples = _read(run)
    assert [(row["node"], row["status"]) for row in streams] == [("n1", status), ("n2", "complete")]
    assert streams[0]["detail"] == detail
    assert cases[0]["evidence"].startswith(f"unknown: stream of n1 in attempt 0 is {status}: {detail}")
    assert cases[1]["evidence"] == "complete"
    assert samples == 3 * SAMPLES + left


@pytest.mark.parametrize(("spoil", "status", "detail", "left"), BAD, ids=[row[0].__name__ for row in BAD])
def test_collect_tells_which_stream_is_bad_and_where_to_look(
    run: RunDir,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[RunDir], None],
    status: str,
    detail: str,
    left: int,
) -> None:
    spoil(run)
    assert cli.main(["collect", str(run.path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{run.results}\n"
    label = run.read_plan().cases[0].label
    path = _stream(run).relative_to(run.path)
    assert said.err.splitlines() == [
        f"note: {label}, attempt 0: the stream of n1 is {status}: {detail} ({path})",
        f"note: 1 of 4 streams is not as it should be; /streams of {run.results} has a row for each",
    ]


def test_collect_of_whole_streams_says_its_path_alone(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["collect", str(run.path)]) == 0
    assert capsys.readouterr() == (f"{run.results}\n", "")


def test_many_bad_streams_are_counted(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect_streams, "TOLD", 2)
    for path in run.path.glob("work/*/*/attempt-0.0/*.stream"):
        path.unlink()
    assert cli.main(["collect", str(run.path)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[2:] == [
        "note: and 2 more",
        f"note: 4 of 4 streams are not as they should be; /streams of {run.results} has a row for each",
    ]


def test_a_missing_stream_is_the_first_reason_of_its_case(run: RunDir) -> None:
    _missing(run)
    with load(collect(run)) as results:
        found = judge(results)[0]
    assert (found.verdict, found.why) == (
        Verdict.UNKNOWN,
        "samples of n1 in attempt 0 are not whole: missing (2940 bytes were shipped, and the file is not there) "
        "(and 1 more)",
    )


def test_a_stream_of_no_node_is_named_and_spoils_nothing(run: RunDir) -> None:
    _stream(run, "n9").write_bytes(_stream(run).read_bytes())
    streams, cases, samples = _read(run)
    assert [(row["node"], row["status"]) for row in streams] == [
        ("n1", "complete"),
        ("n2", "complete"),
        ("n9", "foreign"),
    ]
    assert streams[2]["detail"] == "no node of this attempt is called n9; it was left out"
    assert cases[0]["evidence"] == "complete"
    assert samples == 4 * SAMPLES


# --- again, and while it goes on ------------------------------------------------------------------------------


def _begin_again(run: RunDir) -> None:
    """The first case's job has not ended, nor has its attempt."""
    lines = [line for line in read_lines(run.ledger) if line["name"] != "00000" or line["what"] != "ended"]
    run.ledger.unlink()
    for line in lines:
        append_line(run.ledger, line)
    (said,) = [line["attempt"] for line in read_lines(run.attempts("00000")) if line["what"] == "attempt"]
    run.attempts("00000").unlink()
    begun = {**said, "outcome": "", "streams": (), "end_wall_ns": 0, "end_mono_ns": 0}
    append_line(run.attempts("00000"), {"what": "attempt", "attempt": Attempt.from_json(begun).to_json()})


def test_of_a_case_that_goes_on_is_read_what_there_is(run: RunDir) -> None:
    _begin_again(run)
    whole = _stream(run).read_bytes()
    _stream(run).write_bytes(whole[: len(whole) // 2])
    _stream(run, "n2").unlink()
    streams, cases, samples = _read(run)
    assert [(row["status"], row["detail"]) for row in streams] == [
        ("open", "its attempt had not ended; 19 records so far"),
        ("open", "nothing was shipped yet"),
    ]
    assert (cases[0]["outcome"], cases[0]["evidence"]) == ("unsettled", "unknown: its job has not ended")
    assert samples == 2 * SAMPLES + 17
    with Results(run.results) as results:
        assert [row["outcome"] for row in results.rows("attempts")] == ["unsettled", "completed"]
    _stream(run).write_bytes(whole)
    assert _read(run)[2] == 3 * SAMPLES  # what is new is added


def test_two_at_a_time_wait_for_each_other(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "WAIT_S", 0.3)
    with run.collecting.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(
            StoreError, match=r"another `harness collect` of this run has not ended within 0 s"
        ):
            collect(run)
    assert collect(run) == run.results


def test_kill_9_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """And the next collect removes what the killed one left."""
    run = big_run.make(tmp_path / "run", 6, 2, 10_000)
    program = "import sys; from harness.collect import collect; from harness.rundir import RunDir\n" + (
        "print('begun', flush=True); collect(RunDir(sys.argv[1])); print('done', flush=True)"
    )
    rng = random.Random(3)
    began = time.monotonic()
    collect(run)
    took_s = time.monotonic() - began
    with Results(run.results) as results:
        before = results.attributes["collected_wall_ns"]
    killed = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(run.path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.random() * took_s * 1.2)
        process.send_signal(signal.SIGKILL)
        done = b"done" in process.stdout.read()
        process.stdout.close()
        process.wait(timeout=30)
        killed += not done
        with Results(run.results) as results:
            results.verify()
            assert len(results.samples("mpi.halo", "steps", ["step"])["step"]) == 120_000
            after = results.attributes["collected_wall_ns"]
            assert after >= before and (after > before or not done)
            before = after
    assert killed >= 3
    collect(run)
    assert [p.name for p in run.path.glob(".*.tmp")] == []


def test_a_run_whose_folder_was_renamed_is_read(run: RunDir) -> None:
    moved = RunDir(run.path.rename(run.path.with_name("moved")))
    with Results(collect(moved)) as results:
        assert {row["path"].split("/")[0] for row in results.rows("streams")} == {"work"}
        assert results.attributes["run_folder"] == str(moved.path.absolute())
        assert json.loads(results.attributes["environment"]) == {}


def test_what_the_site_expects_travels_with_the_results(run: RunDir) -> None:
    own, arm = (
        [{"workload": "torch.collectives", "latency_s": {"at_most": 1.0}}],
        [{"workload": "mpi.collectives"}],
    )
    site = json.loads(run.site.read_text())
    site |= {"expected": own, "partitions": {"arm": {**site, "expected": arm}}}
    run.site.write_text(json.dumps(site))
    with Results(collect(run)) as results:
        assert json.loads(results.attributes["expected"]) == {"": own, "arm": arm}
