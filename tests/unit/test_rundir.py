"""Files of a run folder are whole or absent, and a torn line costs only itself."""

import json
import stat
from pathlib import Path

import pytest

from harness import ledger
from harness.rundir import RunDir, RunFolderError, append_line, read_lines, write_atomic, write_json


def test_a_file_written_atomically_is_private_and_leaves_no_other(tmp_path: Path) -> None:
    write_atomic(tmp_path / "token", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["token"]
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"a": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", {"a": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_lines_are_read_back_in_order_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2, "to')
    append_line(path, {"n": 3})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 3}]


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("{", "cannot be read"), ("[]", "not a JSON object")],
)
def test_a_folder_that_is_no_run_folder_says_so(tmp_path: Path, content: str | None, message: str) -> None:
    run = RunDir(tmp_path)
    if content is not None:
        run.plan.write_text(content)
    with pytest.raises(RunFolderError, match=message):
        run.read_json(run.plan)


def test_the_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    ledger.write(run, ledger.SUBMITTING, "0000")
    ledger.write(run, ledger.SUBMITTED, "0000", job_id="12")
    ledger.write(run, ledger.SUBMITTING, "0001")
    ledger.write(run, ledger.REFUSED, "0001", why="bad account")
    ledger.write(run, ledger.ENDED, "0000", facts={"state": "COMPLETED"})
    known = ledger.read(run)
    assert (sorted(known.submitting), known.submitted, known.refused, known.ended, known.tries) == (
        ["0000", "0001"],
        {"0000": "12"},
        {"0001": "bad account"},
        {"0000": {"state": "COMPLETED"}},
        {"0000": 1, "0001": 1},
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", '{"x": 1}', r"run.json: lacks run_id, campaign, .*; the run folder is damaged"),
        ("site.json", "{}", r"site.json: lacks name, kind, .*; the run folder is damaged"),
        ("plan.json", "{}", r"plan.json: lacks cases, submissions; the run folder is damaged"),
        (
            "plan.json",
            '{"cases": [{}], "submissions": []}',
            r"plan.json: cannot be understood \(TypeError: Case",
        ),
        ("plan.json", '{"cases": 5, "submissions": []}', r"plan.json: cannot be understood \(TypeError: "),
    ],
)
def test_a_damaged_document_is_named_with_what_it_lacks(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    run = RunDir(tmp_path)
    read = {"run.json": run.read_identity, "site.json": run.read_site, "plan.json": run.read_plan}[name]
    with pytest.raises(RunFolderError, match=message):
        read()
