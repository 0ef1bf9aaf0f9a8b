"""`harness.program` in a user's interpreter, and the reader of what it says."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.model import event as ev
from harness.model.command_parts import CommandMetric
from harness.runtime import page, processes, readings, world
from harness.runtime.armed import Armed
from harness.runtime.recorder import Recorder, read_stream
from harness.runtime.said import Said

ROOT = Path(__file__).resolve().parents[2]


def _python(code: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program as the harness would: with one folder to import from, and isolated from ours."""
    path = world.module_folder(folder / "rank-0.said")
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        text=True,
        capture_output=True,
        timeout=30,
        env={"PYTHONPATH": str(path), **environment},
        cwd=folder,
    )


def test_it_is_written_for_python_3_6() -> None:
    newer = (
        "dict[",
        "list[",
        "set[",
        "tuple[",
        " | None",
        "collections.abc",
    )  # said by annotations, run by 3.6
    files = sorted((ROOT / "harness/program").glob("*.py"))
    assert [path.name for path in files] == sorted(world._PROGRAM)
    for path in files:
        ast.parse(path.read_text(), feature_version=(3, 6))
        assert [word for word in newer if word in path.read_text()] == []


def test_without_the_harness_around_it_a_program_counts_and_nothing_else(tmp_path: Path) -> None:
    code = "from harness.program import *\nfor s in steps(3, first=1): metric('loss', s); print(s)\ncheck('x', 1 == 1)"
    result = _python(code, tmp_path)
    assert (result.stdout, result.stderr) == ("1\n2\n", "")
    assert not (tmp_path / "rank-0.said").exists()


def test_nothing_else_of_ours_can_be_imported(tmp_path: Path) -> None:
    assert "No module named 'harness.rundir'" in _python("import harness.rundir", tmp_path).stderr


def test_a_package_of_the_users_own_by_that_name_goes_first(tmp_path: Path) -> None:
    (tmp_path / "theirs/harness").mkdir(parents=True)
    (tmp_path / "theirs/harness/__init__.py").write_text("NAME = 'theirs'\n")
    path = world.module_folder(tmp_path / "rank-0.said")
    result = subprocess.run(
        [sys.executable, "-S", "-c", "import harness; print(harness.NAME)"],
        text=True,
        capture_output=True,
        timeout=30,
        env={"PYTHONPATH": f"{path}:{tmp_path / 'theirs'}"},
        cwd=tmp_path,
    )
    assert result.stdout == "theirs\n", result.stderr


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            "metric('Loss', 1)",
            "'Loss' is no name of a metric, allowed: a-z 0-9 _, the first a letter; rename it",
        ),
        ("metric('loss', float('nan'))", "metric loss: nan is not a finite number"),
        (
            "metric('loss', 1, unit='s'); metric('loss', 1, unit='ms')",
            "metric loss: unit 'ms', but at its first use 's'; one metric has one unit",
        ),
        (
            "metric('loss', 1, direction='up')",
            "metric loss: direction 'up', allowed: higher, lower, neither",
        ),
    ],
)
def test_what_cannot_be_recorded_is_an_error_in_words(tmp_path: Path, call: str, words: str) -> None:
    result = _python(f"from harness.program import *\n{call}", tmp_path)
    assert result.stderr.strip().splitlines()[-1] == f"ValueError: {words}"


class _Heard:
    """A reader of what is said, and what it recorded."""

    def __init__(self, folder: Path, **declared: Any) -> None:
        self.path, self._record = folder / "rank-0.said", folder / "rank-0.rec"
        self.recorder = Recorder(self._record, 0)
        self.checks: list[tuple[str, bool, object, object]] = []
        found = {}
        for name, more in declared.items():
            metric = CommandMetric.model_validate({"name": name, "from": "program", **more})
            (found[name],) = readings.readings([metric.model_dump(mode="json")], {}, False)
            self.recorder.define(name, found[name].columns)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.said = Said(
            self.path,
            self.recorder,
            found,
            lambda *check: self.checks.append(check),
            lambda kind, wall_ns, mono_ns, data: self.events.append((kind, dict(data))),
            "n1",
            "case",
            Armed({}, self.path, page.Page(folder / "rank-0.page", 0)),
            lambda: None,
        )

    def say(self, *lines: object) -> None:
        with self.path.open("ab") as file:
            for line in lines:
                file.write((line if isinstance(line, str) else json.dumps(line)).encode() + b"\n")

    def tables(self) -> dict[str, tuple[list[str], int]]:
        """Each table's columns and number of samples."""
        stream = read_stream(self._record.read_bytes())[0][0]
        return {
            table: ([c["name"] for c in columns], stream.count(table))
            for table, columns in stream.columns.items()
        }


def test_what_a_program_says_becomes_steps_samples_and_checks(tmp_path: Path) -> None:
    heard = _Heard(tmp_path)
    code = (
        "from harness.program import *\n"
        "for s in steps(3): metric('loss', s)\n"
        "metric('rate_hz', 5, unit='Hz', direction='higher')\n"
        "check('sum', 1 + 1 == 3, 3, 2)"
    )
    assert _python(code, tmp_path, HARNESS_METRICS=str(heard.path)).returncode == 0
    assert heard.said.read()
    heard.said.close()
    assert (heard.said.begun, heard.said.finished, heard.said.of) == (2, 2, 3)
    assert heard.checks == [("sum", False, "3", "2")]
    assert heard.tables() == {
        "steps": (["step", "start_mono_ns", "step_time_ns"], 3),
        "loss": (["step", "loss"], 3),
        "rate_hz": (["step", "rate_hz"], 1),
    }


def test_where_a_program_is_follows_from_what_it_says(tmp_path: Path) -> None:
    """A step, saving, and what comes behind the last step are waited for differently."""
    heard = _Heard(tmp_path)
    stamps = {"wall_ns": 5, "mono_ns": 4}
    end = {"start_mono_ns": 0, "step_time_ns": 1, **stamps}
    saved = {"saved": 0, "path": "step-0", "bytes": 9, "time_ns": 8, "digest": "d", **stamps}
    seen = [heard.said.section]
    for line in (
        {"begin": 0, "of": 2},
        {"end": 0, **end},
        {"saving": 0, **stamps},
        saved,
        {"begin": 1, "of": 2},
        {"end": 1, **end},
    ):
        heard.say(line)
        heard.said.read()
        seen.append(heard.said.section)
    assert seen == [None, page.STEP, page.STEP, page.SAVE, page.STEP, page.STEP, page.CLOSE]
    heard.said.close()
    assert heard.checks == []
    assert heard.events == [
        (ev.FIRST_STEP, {"step": 0}),
        (
            ev.CHECKPOINT_COMMITTED,
            {"step": 1, "digest": "d", "bytes": 9, "time_ns": 8, "path": "step-0", "engine": "program"},
        ),
    ]
    assert heard.tables()["checkpoints"] == (["step", "checkpoint_time_ns", "checkpoint_bytes"], 1)


def test_a_line_that_is_still_being_written_is_taken_when_it_ends(tmp_path: Path) -> None:
    heard = _Heard(tmp_path)
    with heard.path.open("ab") as file:
        file.write(b'{"begin": 0, "of"')
        file.flush()
        assert (heard.said.read(), heard.said.begun) == (False, -1)
        file.write(b": 5}\n")
    assert (heard.said.read(), heard.said.begun) == (True, 0)


def test_what_is_declared_need_not_be_said_and_may_not_be_said_otherwise(tmp_path: Path) -> None:
    heard = _Heard(tmp_path, loss={"unit": "1", "direction": "lower"}, rate={"unit": "Hz"})
    nothing = {"unit": None, "direction": None, "definition": None}
    heard.say({"define": "loss", **nothing}, {"metric": "loss", "value": 2, "step": 0})
    heard.say({"define": "rate", **nothing, "unit": "kHz"})
    heard.said.close()
    assert heard.checks == [
        ("metric rate has one definition", False, "as declared", "unit 'kHz', but it is declared with 'Hz'")
    ]
    assert heard.tables()["loss"] == (["step", "loss"], 1)


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '"text"',
        "[]",
        {"metric": "unknown", "value": 1, "step": 0},
        {"define": "rank", "unit": None, "direction": None, "definition": None},
        {"define": "../x", "unit": None, "direction": None, "definition": None},
        {"end": "x", "start_mono_ns": 0, "step_time_ns": 0},
        {"begin": 1e400, "of": 1},
        {"end": 10**30, "start_mono_ns": 0, "step_time_ns": 0},
        {"something": "else"},
        "{" * 100_000,
    ],
)
def test_what_is_not_understood_fails_a_check_and_what_follows_is_read(tmp_path: Path, line: object) -> None:
    heard = _Heard(tmp_path)
    heard.say(line, {"begin": 3, "of": 5})
    heard.said.close()
    assert (heard.said.begun, heard.said.of) == (3, 5)
    assert [c[:2] for c in heard.checks] == [("what the program says is understood", False)]


def test_a_value_that_is_no_number_fails_the_metric(tmp_path: Path) -> None:
    heard = _Heard(tmp_path)
    heard.say({"define": "x", "unit": "s", "direction": None, "definition": None})
    heard.say({"metric": "x", "value": "many", "step": 0})
    heard.said.close()
    assert heard.checks == [("metric x", False, "nothing but numbers", "1 of 1 are none: x = 'many'")]


def test_every_process_below_another_is_ended_also_one_that_left_its_session() -> None:
    code = (
        "import subprocess, time\nfrom harness.runtime import processes\nprocesses.adopt_orphans()\n"
        "subprocess.Popen(['sh', '-c', 'setsid sleep 4217.18 & (setsid sleep 4217.18 &) ; sleep 4217.18'])\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    ) as root:
        assert root.stdout is not None
        root.stdout.readline()
        end = time.monotonic() + 20
        while len(processes.descendants(root.pid)) < 4:  # the shell and three that sleep
            assert time.monotonic() < end, processes.descendants(root.pid)
            time.sleep(0.02)
        found = processes.descendants(root.pid)
        assert processes.descendants(os.getpid(), keep={root.pid}) == []
        assert processes.end_descendants(root.pid) == 0
        assert processes.descendants(root.pid) == []
        assert all(processes._parent(pid) == -1 for pid in found)
        root.send_signal(signal.SIGKILL)
