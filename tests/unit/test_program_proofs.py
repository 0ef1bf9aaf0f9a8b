"""What proves a program's recovery: digests of its states, its batches and answers; and declared faults on its way."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.model import event as ev
from harness.model.fault import Fault
from harness.program import digests
from harness.runtime import armed, digest, page, world
from harness.runtime.recorder import Recorder, read_stream
from harness.runtime.said import Said

VALUES: list[Any] = [
    None, True, -3, 0.1, "ü", b"\x00", {"b": 1, "a": [1, 2.5]}, [1, [2]], np.arange(6).reshape(2, 3),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_programs_digest_is_that_of_the_harness(value: Any) -> None:
    assert digests.of(value) == digest.of(value)


def test_what_has_no_digest_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match="a set has no canonical encoding: convert it to dicts, lists"):
        digests.of({"x": {1, 2}})


def test_without_xxhash_a_program_has_the_digests_of_hashlib(tmp_path: Path) -> None:
    result = program("from harness.program import digests; print(digests.ALGORITHM)", tmp_path, "-S")
    assert result.stdout == "sha256\n"


def program(code: str, folder: Path, *options: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """A program as under the harness."""
    return subprocess.run(
        [sys.executable, *options, "-c", code], text=True, capture_output=True, timeout=30,
        env={
            "PYTHONPATH": str(world.module_folder(folder / "rank-0.said")), "HARNESS_FAULTS": "1",
            "HARNESS_METRICS": str(folder / "rank-0.said"), "HARNESS_CASE_FOLDER": str(folder),
            "HARNESS_CHECKPOINTS": str(folder / "checkpoints"), **more,
        },
    )  # fmt: skip


class Heard:
    """What the harness makes of what a program in this folder says, its declared faults included."""

    def __init__(self, folder: Path, **faults: Fault) -> None:
        self.folder = folder
        self.page = page.Page(folder / "rank-0.page", 0)
        self.armed = armed.Armed(
            {int(n[1:]): f for n, f in faults.items()}, folder / "rank-0.said", self.page
        )
        self.recorder = Recorder(folder / "rank-0.rec", 0)
        self.tries = 0
        to = self.recorder, {}, lambda *check: None, self.tell, "n1", "case", self.armed, self.one
        self.said = Said(folder / "rank-0.said", *to)
        self.events: list[tuple[str, dict[str, Any]]] = []

    def tell(self, kind: str, wall_ns: int, mono_ns: int, data: Any) -> None:
        self.events.append((kind, dict(data)))

    def one(self) -> None:
        self.tries += 1

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for one, data in self.events if one == kind]

    def say(self, *lines: dict[str, Any]) -> None:
        with (self.folder / "rank-0.said").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        self.said.read()


SAVES = """
import sys
from harness.program import *
folder = restore()
state = int((folder / "s").read_text()) + int(sys.argv[1]) if folder else 0
for step in steps(6, state=lambda: state, digest_every=2):
    batch([step])
    state += step
    if step == 3:
        with save(step) as folder: (folder / "s").write_text(str(state))
        if not folder.parent.name.endswith(".1"): break
"""


def ran(folder: Path, wrong: int = 0) -> Heard:
    """Of a program that saved after 4 steps, and was started again."""
    code = SAVES.replace("sys.argv[1]", str(wrong))
    for attempt in ("0", "1"):
        (folder / "rank-0.said").unlink(missing_ok=True)
        result = program(code, folder, HARNESS_RESTART_COUNT=attempt)
        assert result.returncode == 0, result.stderr
    heard = Heard(folder)
    heard.said.read()
    heard.said.finish()
    heard.said.close()
    return heard


def test_a_restored_state_has_the_digest_of_what_the_program_made_of_it(tmp_path: Path) -> None:
    heard = ran(tmp_path)
    (restored,) = heard.of(ev.CHECKPOINT_RESTORED)
    assert restored["digest"] == restored["committed_digest"] == digests.of(6)
    assert [(d["step"], d["digest"]) for d in heard.of(ev.STATE_DIGEST)] == [
        (4, digests.of(6)),
        (6, digests.of(15)),
    ]
    assert heard.of(ev.RESULT) == [{"name": "state", "value": "15"}]


def test_a_state_that_was_restored_wrongly_has_another_digest(tmp_path: Path) -> None:
    (restored,) = ran(tmp_path, wrong=1).of(ev.CHECKPOINT_RESTORED)
    assert (restored["digest"], restored["committed_digest"]) == (digests.of(7), digests.of(6))


def test_the_batches_of_each_step_are_recorded_as_numbers(tmp_path: Path) -> None:
    heard = ran(tmp_path)
    stream = read_stream((tmp_path / "rank-0.rec").read_bytes())[0][0]
    assert [c["name"] for c in stream.columns["steps"]] == [
        "step",
        "start_mono_ns",
        "step_time_ns",
        "batch_id",
    ]
    assert heard.said.finished == 5


def test_without_an_answer_of_its_own_its_last_checkpoint_is_one(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    saved = {"saved": 3, "path": "p", "digest": "abc", "bytes": 1, "time_ns": 1, "wall_ns": 1, "mono_ns": 1}
    heard.say(saved)
    heard.said.finish()
    assert heard.of(ev.RESULT) == [{"name": "checkpoint after 4 steps", "value": "abc"}]


def test_a_state_whose_digest_was_never_said_is_restored_without_one(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    heard.say({"restored": 3, "path": "p", "digest": "f", "state": "abc", "wall_ns": 1, "mono_ns": 1})
    assert heard.of(ev.CHECKPOINT_RESTORED) == []
    heard.said.close()
    assert [d["digest"] for d in heard.of(ev.CHECKPOINT_RESTORED)] == [""]


# --- declared faults ----------------------------------------------------------------------------------------


def fault(kind: str, **more: Any) -> Fault:
    return Fault("f", kind, kind, "recovered", **{"rank": 0, **more})


def test_only_what_is_armed_here_strikes_whatever_a_program_says(tmp_path: Path) -> None:
    heard = Heard(tmp_path, n2=fault("rank.kill"), n3=fault("checkpoint.truncate", rank=-1))
    heard.say({"strike": 1}, {"strike": 3}, {"due": 2}, {"felt": 7})
    assert (heard.page.fault, heard.page.due) == (0, 0)
    assert "is no fault that is armed here" in heard.said.strange
    heard.say({"strike": 2})
    assert heard.page.fault == 2


def armed_for(faults: dict[int, Fault]) -> str:
    return armed.told(faults)


@pytest.mark.parametrize(
    ("declared", "printed"),
    [
        (fault("rank.raise", at_step=2), "0\n1\n"),
        (fault("rank.raise", at_event="halo", at_count=2), "0\n1\n"),
        (fault("rank.raise", at_event="checkpoint.begin", at_count=3), "0\n1\n2\n"),
    ],
)
def test_a_declared_fault_strikes_at_its_step_or_place(declared: Fault, printed: str, tmp_path: Path) -> None:
    code = (
        "from harness.program import *\nfor s in steps(5):\n  if s: faults.at('halo')\n  print(s, flush=True)\n"
        "  with save(s) as f: (f / 'x').write_text('x')"
    )
    result = program(code, tmp_path, HARNESS_ARMED=armed_for({4: declared}))
    assert (result.returncode, result.stdout) == (1, printed), result.stderr
    assert '{"strike": 4}' in (tmp_path / "rank-0.said").read_text()


def test_a_rank_waits_at_a_place_until_what_comes_from_outside_is_done(tmp_path: Path) -> None:
    declared = fault("node.power_off", rank=-1, node=0, at_event="halo")
    heard = Heard(tmp_path, n1=declared)
    code = "from harness.program import *\nfaults.at('halo')\nprint('on', flush=True)"
    path = tmp_path / "rank-0.said"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(world.module_folder(path)), "HARNESS_METRICS": str(path),
             "HARNESS_ARMED": armed_for({1: declared})},
    ) as process:  # fmt: skip
        end = time.monotonic() + 20
        while not heard.page.due:
            assert time.monotonic() < end
            heard.said.read()
        time.sleep(0.2)
        heard.armed.look()
        assert process.poll() is None
        agent = page.View(tmp_path / "rank-0.page")
        agent.command(1 + page.GO_ON)
        heard.armed.look()
        assert process.communicate(timeout=20)[0] == "on\n"
    assert heard.page.due == 0


def test_a_fault_for_a_time_is_done_when_the_agent_asks(tmp_path: Path) -> None:
    heard = Heard(tmp_path, n3=fault("rank.raise", at_s=1.0))
    page.View(tmp_path / "rank-0.page").command(3)
    heard.armed.look()
    code = "from harness.program import *\nfor s in steps(5): pass"
    result = program(code, tmp_path, HARNESS_ARMED=armed_for({3: fault("rank.raise", at_s=1.0)}))
    assert result.returncode == 1 and "FaultRaised" in result.stderr
    assert not (tmp_path / "rank-0.said.do").exists()


def test_a_disk_that_is_full_is_felt_and_relieved(tmp_path: Path) -> None:
    code = (
        "from harness.program import *\nfor s in steps(2):\n  try:\n    with save(s) as f: (f / 'x').write_bytes(b'x' "
        "* 100000)\n    print('saved', s)\n  except OSError as error: print(error.strerror)"
    )
    declared = fault("storage.full", at_event="checkpoint.begin", params={"bytes": 20000})
    result = program(code, tmp_path, HARNESS_ARMED=armed_for({1: declared}))
    assert result.stdout == "File too large\nsaved 1\n", result.stderr
    heard = Heard(tmp_path, n1=declared)
    heard.said.read()
    assert heard.page.fault == -1


def test_a_program_can_ask_for_all_that_it_can_do_to_itself(tmp_path: Path) -> None:
    code = (
        "from harness.program import *\ntry:\n  with faults.inject('rank.out_of_memory', mb=32): pass\n"
        "except MemoryError: print('memory')"
    )
    assert program(code, tmp_path).stdout == "memory\n"
    full = (
        "from harness.program import *\ntry:\n  with faults.inject('storage.full', bytes=9000):\n"
        "    open('%s', 'wb').write(b'x' * 90000)\nexcept OSError: print('full')" % (tmp_path / "big")
    )
    assert program(full, tmp_path).stdout == "full\n"
    heard = Heard(tmp_path)
    heard.said.read()
    kinds = [(kind, data["kind"]) for kind, data in heard.events if kind == ev.FAULT_OBSERVED]
    assert kinds == [(ev.FAULT_OBSERVED, "storage.full")]


def test_a_program_that_tries_without_end_is_seen_to(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    said = {"fault": "rank.livelock", "id": "program-1", "rank": 0, "pid": os.getpid(), "step": 3, "at": "x"}
    heard.say({**said, "for_s": 0, "expect": "recovered", "wall_ns": 1, "mono_ns": 1}, *[{"tries": 1}] * 10)
    assert heard.tries == 10
    assert [data["evidence"] for data in heard.of(ev.FAULT_OBSERVED)] == [{"tries": 10}]
