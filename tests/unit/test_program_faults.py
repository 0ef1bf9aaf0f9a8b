"""`harness.program.faults`: what a program does to itself, when, and what it says before; on real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import collect_faults
from harness.model import event as ev
from harness.model import fault as model
from harness.model.event import Event
from harness.program import faults
from harness.runtime import world
from harness.runtime.said_faults import SaidFaults

ALLOWED = (
    "allowed: rank.abort, rank.freeze, rank.hang, rank.kill, rank.livelock, rank.out_of_memory, rank.pause, "
    "rank.raise, rank.segfault, rank.slow_step, rank.terminate, storage.full, storage.slow"
)


def run(code: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program as under the harness."""
    path = world.module_folder(folder / "rank-0.said")
    return subprocess.run(
        [sys.executable, "-S", "-c", "from harness.program import *\nimport time\n" + code],
        text=True,
        capture_output=True,
        timeout=30,
        env={
            "PYTHONPATH": str(path),
            "HARNESS_FAULTS": "1",
            "HARNESS_CASE_FOLDER": str(folder),
            "HARNESS_METRICS": str(folder / "said"),
            "HARNESS_RANK": "2",
            **environment,
        },
    )


def said(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "said").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("rank.kill", -signal.SIGKILL),
        ("rank.terminate", -signal.SIGTERM),
        ("rank.abort", -signal.SIGABRT),
        ("rank.segfault", -signal.SIGSEGV),
        ("rank.raise", 1),
    ],
)
def test_each_kind_ends_its_own_process_as_it_says_and_is_said_before(
    kind: str, code: int, tmp_path: Path
) -> None:
    before = time.time_ns()
    result = run(
        f"for s in steps(9):\n  if s == 4:\n    with faults.inject({kind!r}, rank=2): pass", tmp_path
    )
    assert result.returncode == code, result.stderr
    *_, begun, fault = said(tmp_path)
    assert begun["begin"] == 4
    assert before < fault.pop("wall_ns") < time.time_ns()
    assert fault.pop("mono_ns") > begun["mono_ns"]
    assert fault.pop("pid") > 0
    assert fault == {
        "fault": kind,
        "id": "program-1",
        "rank": 2,
        "step": 4,
        "at": "<string>:5",
        "for_s": 0,
        "expect": "recovered",
        "because": "",
    }


def test_a_rank_that_is_frozen_goes_on_by_itself(tmp_path: Path) -> None:
    code = (
        "a = time.monotonic()\nwith faults.inject('rank.freeze', rank=2, for_s=0.4): b = time.monotonic()\n"
        "print(b - a)"
    )
    result = run(code, tmp_path)
    assert 0.4 <= float(result.stdout) < 5
    assert [next(iter(line)) for line in said(tmp_path)] == ["fault", "fault_over"]


def test_the_shortest_pause_ends_too(tmp_path: Path) -> None:
    code = "for s in range(30):\n  with faults.inject('rank.freeze', for_s=1e-6, name='n%d' % s): pass"
    assert run(code, tmp_path).returncode == 0


def test_a_hanging_program_is_stuck_and_a_frozen_one_is_stopped(tmp_path: Path) -> None:
    path = world.module_folder(tmp_path / "rank-0.said")
    for kind, state in (("rank.hang", "S"), ("rank.freeze", "T")):
        with subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-c",
                f"from harness.program import faults\nwith faults.inject({kind!r}): print()",
            ],
            env={"PYTHONPATH": str(path), "HARNESS_FAULTS": "1"},
            stdout=subprocess.PIPE,
        ) as process:
            end = time.monotonic() + 20
            while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
                assert time.monotonic() < end, kind
                time.sleep(0.02)
            time.sleep(0.1)
            assert process.poll() is None
            process.kill()
            assert process.communicate()[0] == b""


@pytest.mark.parametrize(
    "environment", [{"HARNESS_RANK": "1"}, {"HARNESS_FAULTS": "0"}, {"HARNESS_FAULTS": ""}]
)
def test_other_ranks_twins_and_programs_outside_the_harness_are_left_alone(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code = "with faults.inject('rank.kill', rank=2): print('inside')"
    result = run(code, tmp_path, **environment)
    assert (result.returncode, result.stdout) == (0, "inside\n")
    assert [p.name for p in tmp_path.iterdir()] == ["rank-0.python"]


def test_a_fault_strikes_once_in_a_case_over_all_restarts_and_once_in_a_step(tmp_path: Path) -> None:
    code = "for s in steps(6):\n  if s in (2, 4):\n    with faults.inject('rank.kill'): pass\nprint('end')"
    codes = [run(code, tmp_path).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert [(f["id"], f["step"]) for f in said(tmp_path) if "fault" in f] == [
        ("program-1", 2),
        ("program-2", 4),
    ]


def test_a_named_place_does_what_was_armed_when_it_is_passed_for_the_nth_time(tmp_path: Path) -> None:
    code = (
        "faults.on('halo', 'rank.raise', rank=2, count=3)\n"
        "for n in range(5):\n  print(n, flush=True)\n  faults.at('halo')\n  faults.at('elsewhere')"
    )
    first, second = run(code, tmp_path), run(code, tmp_path)
    assert (first.returncode, first.stdout) == (1, "0\n1\n2\n")
    assert (second.returncode, second.stdout) == (0, "0\n1\n2\n3\n4\n")
    assert "FaultRaised: rank.raise, injected" in first.stderr
    assert [f["at"] for f in said(tmp_path)] == ["halo, time 3"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            "inject('node.power_off')",
            "'node.power_off' is not done by a program: it must be known before the run. Declare it in the campaign, "
            "for a named place: faults: [{kind: node.power_off, at: {event: NAME}, ...}], and write "
            'faults.at("NAME") here; ' + ALLOWED,
        ),
        (
            "inject('rank.kil')",
            "'rank.kil' is no fault that a program can do, " + ALLOWED,
        ),
        (
            "inject('rank.kill', mb=1)",
            "mb is no parameter of rank.kill, allowed: none",
        ),
        (
            "on('x', 'storage.full')",
            "storage.full ends with its block; use faults.inject, around what writes",
        ),
        (
            "inject('rank.kill', for_s=1)",
            "for_s means nothing for rank.kill, which does not end by itself; remove it",
        ),
        ("inject('rank.slow_step')", "rank.slow_step must end by itself; say for_s, in seconds"),
        ("inject('rank.freeze', for_s=0)", "for_s = 0, allowed: above 0, at most 600 seconds"),
        ("inject('rank.kill', rank=-1)", "rank = -1, allowed: 0 and above"),
        ("inject('rank.kill', expect='x')", "expect = 'x', allowed: recovered, unharmed, failed"),
        (
            "inject('rank.kill', expect='unharmed')",
            "expect = 'unharmed', but no job rides rank.kill out; write recovered, or failed with because",
        ),
        (
            "inject('rank.slow_step', for_s=1, expect='failed')",
            "expect = 'failed', but rank.slow_step is a decoy, which must be unharmed; remove expect",
        ),
        (
            "on('x', 'rank.raise', expect='failed')",
            "expect = 'failed' says nothing of why, so a case that ends for any other reason would pass; add because: "
            "words that the reason must hold",
        ),
        ("inject('rank.kill', because='x')", "because means nothing with expect = 'recovered'; remove it"),
        (
            "inject('rank.kill', expect='failed', because=1)",
            "because = 1, allowed: one line of text, at most 200 characters",
        ),
        ("on('x', 'rank.kill', count=0)", "count = 0, allowed: 1 and above"),
    ],
)
def test_what_is_no_fault_is_an_error_in_words_also_outside_the_harness(
    call: str, words: str, tmp_path: Path
) -> None:
    result = run(f"faults.{call}", tmp_path, HARNESS_FAULTS="0")
    assert result.stderr.splitlines()[-1] == f"ValueError: {words}"


def test_what_may_be_expected_of_a_kind_is_as_in_a_campaign() -> None:
    kinds = {name: model.KINDS[name] for name in faults.KINDS}
    assert set(faults._DEADLY) == set(kinds) & set(model.DEADLY)
    assert set(faults._LAST) == {name for name, kind in kinds.items() if kind.harmless}


def test_why_a_case_is_to_fail_goes_with_the_fault(tmp_path: Path) -> None:
    run("with faults.inject('rank.raise', expect='failed', because='rank 2 raised'): pass", tmp_path)
    (fault,) = said(tmp_path)
    events: list[Any] = []
    SaidFaults(lambda *event: events.append(event), "n1", "case").requested(fault)
    assert [e[3]["because"] for e in events] == ["rank 2 raised"] * 2
    requested = Event(
        source="agent", host="n1", wall_ns=1, mono_ns=1, kind=ev.FAULT_REQUESTED, data=events[0][3]
    )
    assert collect_faults._of_program([requested])[0].because == "rank 2 raised"


# --- the reader's side --------------------------------------------------------------------------------------


class Told:
    """The events that come of what a program says."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.faults = SaidFaults(self.tell, "n1", "case")

    def tell(self, kind: str, wall_ns: int, mono_ns: int, data: Any) -> None:
        self.events.append((kind, data["fault_id"], data.get("evidence")))

    def say(self, kind: str, for_s: float = 0) -> None:
        self.faults.requested(
            {
                "fault": kind, "id": "program-1", "rank": 1, "pid": os.getpid(), "step": 3, "at": "x.py:1",
                "for_s": for_s, "expect": "recovered", "wall_ns": 5, "mono_ns": 4,
            }
        )  # fmt: skip

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.events]


@pytest.mark.parametrize(
    ("kind", "code", "seen"),
    [
        ("rank.kill", -9, True),
        ("rank.kill", 137, True),
        ("rank.kill", 0, False),
        ("rank.segfault", -11, True),
        ("rank.abort", -9, False),
        ("rank.raise", 1, True),
        ("rank.raise", 0, False),
    ],
)
def test_a_fault_is_observed_when_the_program_ended_as_it_makes_it_end(
    kind: str, code: int, seen: bool
) -> None:
    told = Told()
    told.say(kind)
    told.faults.look()
    assert told.kinds == [ev.FAULT_REQUESTED, ev.FAULT_INJECTED]
    told.faults.ended(code)
    assert told.kinds[2:] == [ev.FAULT_OBSERVED] * seen + [ev.FAULT_HEALED]


def test_a_pause_is_observed_by_its_silence_and_healed_when_it_is_over() -> None:
    told = Told()
    told.say("rank.slow_step", 1.0)
    told.faults.look()
    time.sleep(0.35)
    told.faults.look()
    told.faults.over({"fault_over": "program-1", "wall_ns": 6, "mono_ns": 5})
    told.faults.ended(0)
    assert told.kinds == [ev.FAULT_REQUESTED, ev.FAULT_INJECTED, ev.FAULT_OBSERVED, ev.FAULT_HEALED]


def test_a_fault_that_a_program_survives_was_not_observed() -> None:
    """A SIGTERM that it minds: the fault did not have its effect, and the case is not judged by it."""
    told = Told()
    told.say("rank.terminate")
    told.faults.over({"fault_over": "program-1", "wall_ns": 6, "mono_ns": 5})
    told.faults.ended(0)
    assert told.kinds == [ev.FAULT_REQUESTED, ev.FAULT_INJECTED, ev.FAULT_HEALED]
