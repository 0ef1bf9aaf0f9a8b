"""What a rank does to itself: each kind in a process of its own, seen from outside by its end and its page."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.model import fault as model
from harness.model.fault import Fault
from harness.runtime import page
from harness.runtime.page import GO_ON, Page
from harness.runtime.rank_faults import CONTROLS, RankFaults

WAIT_S = 20.0
Work = Callable[[RankFaults, Page], object]


def fault(kind: str, **more: Any) -> Fault:
    values = {"rank": 1, **({} if "at_event" in more else {"at_step": 2}), **more}
    return Fault("f0", kind, kind, "recovered", **values)


class Child:
    """Rank 1 of node 0 in a process of its own; what it returns is its exit status."""

    def __init__(
        self, tmp_path: Path, faults: tuple[Fault, ...], work: Work, *, rank: int = 1, leader: bool = False
    ):
        self.path, self.said, self.over = tmp_path / "1.page", tmp_path / "said", False
        self.pid = os.fork()
        if not self.pid:
            self._be_it(faults, work, rank, leader)
        self.view: page.View | None = None

    def _be_it(self, faults: tuple[Fault, ...], work: Work, rank: int, leader: bool) -> None:
        status = 77
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            position = Page(self.path, 1)
            armed = range(1, len(faults) + 1)
            answer = work(RankFaults(faults, armed, rank, 0, leader, position), position)
            self.said.write_text(repr(answer))
            status = 0
        except BaseException:
            self.said.write_text(traceback.format_exc())
            status = 1
        finally:
            os._exit(status)

    def until(self, true: Callable[[page.Progress], object], what: str) -> page.Progress:
        end = time.monotonic() + WAIT_S
        while True:
            self.view = self.view or page.view(self.path)
            seen = self.view.read() if self.view is not None else None
            if seen is not None and true(seen):
                return seen
            assert time.monotonic() < end, f"not within {WAIT_S:g} s: {what}; it said {seen}"
            time.sleep(0.002)

    def status(self, options: int = 0) -> int:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG | options)
            if pid and os.WIFSTOPPED(status):
                return -os.WSTOPSIG(status)
            if pid:
                self.over = True
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        raise AssertionError(f"still there after {WAIT_S:g} s")

    def kill(self) -> None:
        if not self.over:
            self.over = True
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def is_there(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Child] = []

    def one(faults: tuple[Fault, ...], work: Work, **who: Any) -> Child:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Child(folder, faults, work, **who))
        return started[-1]

    yield one
    for child in started:
        child.kill()


def three_steps(faults: RankFaults, position: Page) -> None:
    for step in range(4):
        position.set(begun=step)
        faults.step(step)
        position.set(finished=step)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("rank.kill", -9),
        ("rank.terminate", -15),
        ("rank.abort", -6),
        ("rank.segfault", -11),
        ("rank.raise", 1),
    ],
)
def test_a_rank_ends_at_its_step_and_says_before_that_it_does(kind: str, status: int, start: Start) -> None:
    before = time.time_ns()
    child = start((fault(kind),), three_steps)
    assert child.status() == status
    last = page.read(child.path)
    assert last is not None
    assert (last.begun, last.finished, last.fault) == (2, 1, 1)
    assert 0 < last.fault_wall_ns - before < WAIT_S * 1e9
    if kind == "rank.raise":
        assert (
            child.said.read_text().splitlines()[-1].endswith("InjectedFault: injected fault f0: rank.raise")
        )


@pytest.mark.parametrize("kind", ["rank.freeze", "rank.pause"])
def test_a_rank_is_stopped_and_goes_on_when_it_is_told(kind: str, start: Start) -> None:
    child = start((fault(kind, duration_s=0.1),), three_steps)
    assert child.status(os.WUNTRACED) == -signal.SIGSTOP
    assert child.until(lambda seen: seen.fault == 1, "it says so").finished == 1
    os.kill(child.pid, signal.SIGCONT)
    assert child.status() == 0
    last = page.read(child.path)
    assert last is not None
    assert last.finished == 3


def collectives(faults: RankFaults, position: Page) -> list[tuple[str, int]]:
    """Two steps of two collectives each, with the number that each had when it was done."""
    done: list[tuple[str, int]] = []
    for step in range(2, 4):
        faults.step(step)
        for name in (f"a{step}", f"b{step}"):
            faults.collective(lambda name=name: done.append((name, position.sequence)))  # type: ignore[misc]
    return done


def test_collectives_are_counted_before_they_begin(start: Start) -> None:
    child = start((), collectives)
    assert child.status() == 0
    assert child.said.read_text() == repr([("a2", 1), ("b2", 2), ("a3", 3), ("b3", 4)])


def test_one_collective_is_left_out_and_no_other(start: Start) -> None:
    child = start((fault("rank.skip_collective"),), collectives)
    assert child.status() == 0
    assert child.said.read_text() == repr([("b2", 1), ("a3", 2), ("b3", 3)])


def test_two_collectives_change_places(start: Start) -> None:
    child = start((fault("rank.reorder_collective"),), collectives)
    assert child.status() == 0
    assert child.said.read_text() == repr([("b2", 1), ("a2", 1), ("a3", 2), ("b3", 3)])


@pytest.mark.parametrize(("params", "sequence"), [({}, 0), ({"where": "step"}, 0)])
def test_a_rank_hangs_and_never_enters_its_collective(
    params: dict[str, Any], sequence: int, start: Start
) -> None:
    child = start((fault("rank.hang", params=params),), collectives)
    child.until(lambda seen: seen.fault == 1, "it says so")
    time.sleep(0.2)
    assert child.until(lambda seen: True, "").sequence == sequence
    assert child.is_there()


def test_a_livelock_counts_on_and_finishes_nothing(start: Start) -> None:
    child = start((fault("rank.livelock"),), three_steps)
    seen = child.until(lambda seen: seen.sequence > 20, "it tries and tries")
    assert (seen.begun, seen.finished) == (2, 1)


def test_memory_beyond_its_limit_ends_in_a_memory_error(start: Start) -> None:
    child = start((fault("rank.out_of_memory", params={"mb": 64}),), three_steps)
    assert child.status() == 1
    assert child.said.read_text().splitlines()[-1] == "MemoryError"


def test_a_slow_step_is_one_step(start: Start) -> None:
    def timed(faults: RankFaults, position: Page) -> list[bool]:
        found = []
        for step in range(4):
            start = time.monotonic()
            faults.step(step)
            found.append(time.monotonic() - start >= 0.2)
        return found

    child = start((fault("rank.slow_step", duration_s=0.2),), timed)
    assert child.status() == 0
    assert child.said.read_text() == "[False, False, True, False]"


def test_a_full_disk_is_full_for_one_checkpoint(start: Start, tmp_path: Path) -> None:
    def saves(faults: RankFaults, position: Page) -> list[str]:
        found = []
        for n in range(3):
            faults.at("checkpoint.begin")
            try:
                (tmp_path / f"shard{n}").write_bytes(bytes(1 << 20))
                found.append("saved")
            except OSError as error:
                found.append(os.strerror(error.errno or 0))
            faults.relieve(failed=found[-1] != "saved")
        return found

    full = fault("storage.full", at_event="checkpoint.begin", at_count=2)
    child = start((full,), saves)
    assert child.status() == 0
    assert child.said.read_text() == repr(["saved", "File too large", "saved"])


def test_a_slow_disk_slows_the_moment_that_is_meant(start: Start) -> None:
    def saves(faults: RankFaults, position: Page) -> list[bool]:
        found = []
        for moment in ("checkpoint.begin", "checkpoint.written", "checkpoint.written"):
            start = time.monotonic()
            faults.at(moment)
            found.append(time.monotonic() - start >= 0.2)
        return found

    slow = fault("storage.slow", at_event="checkpoint.written", duration_s=0.2)
    child = start((slow,), saves)
    assert child.status() == 0
    assert child.said.read_text() == "[False, True, False]"


@pytest.mark.parametrize("kind", sorted(CONTROLS))
def test_a_negative_control_strikes_when_state_was_restored_and_not_before(kind: str, start: Start) -> None:
    def restores(faults: RankFaults, position: Page) -> list[str]:
        found: list[str] = []
        faults.sabotage = found.append
        faults.at("restore.begin")
        found.append(f"before: {position.fault}")
        faults.restored()
        found.append(f"after: {position.fault}")
        return found

    child = start((fault(kind, at_event="restore.begin"),), restores)
    assert child.status() == 0
    assert child.said.read_text() == repr(["before: 0", kind.removeprefix("control."), "after: 1"])


@pytest.mark.parametrize("kind", [k for k, v in model.KINDS.items() if v.where == model.RANK])
def test_every_kind_of_a_rank_does_something(kind: str, start: Start) -> None:
    """None ends in "is no fault that a rank does"."""

    def all_moments(faults: RankFaults, position: Page) -> None:
        faults.sabotage = lambda what: None
        faults.step(2)
        faults.restored()

    child = start((fault(kind, duration_s=0.01, params={"where": "step", "mb": 32}),), all_moments)
    child.until(lambda seen: seen.fault == 1, "it says that it does it")
    if kind not in ("rank.hang", "rank.livelock", "rank.freeze", "rank.pause"):
        child.status()
    assert "is no fault" not in (child.said.read_text() if child.said.exists() else "")


# ---- whose, when, how often ----


def test_a_fault_of_another_rank_or_one_that_is_not_armed_does_nothing(start: Start, tmp_path: Path) -> None:
    child = start((fault("rank.kill", rank=0),), three_steps)
    assert child.status() == 0
    written = Page(tmp_path / "x", 1)
    three_steps(RankFaults((fault("rank.raise"),), (), 1, 0, True, written), written)
    assert written.fault == 0


def test_who_writes_checkpoints_is_rank_0(start: Start) -> None:
    writer = fault("rank.kill", rank=-1, role="checkpoint_writer")
    assert start((writer,), three_steps).status() == 0
    assert start((writer,), three_steps, rank=0).status() == -9


def test_a_fault_strikes_once(start: Start) -> None:
    def again(faults: RankFaults, position: Page) -> int:
        struck = 0
        for _ in range(3):
            try:
                faults.step(2)
            except RuntimeError:
                struck += 1
        return struck

    child = start((fault("rank.raise"),), again)
    assert child.status() == 0
    assert child.said.read_text() == "1"


def test_a_rank_obeys_its_agent_at_its_next_step(start: Start) -> None:
    def until_told(faults: RankFaults, position: Page) -> None:
        for step in range(10_000):
            position.set(begun=step)
            faults.step(step)
            time.sleep(0.001)

    later = fault("rank.raise", at_step=-1, at_s=1.0)
    child = start((fault("rank.kill", rank=0), later), until_told)
    child.until(lambda seen: seen.begun > 3, "it runs")
    assert child.view is not None
    child.view.command(2)
    assert child.status() == 1
    last = page.read(child.path)
    assert last is not None
    assert last.fault == 2


def moments(faults: RankFaults, position: Page) -> str:
    faults.at("checkpoint.begin")
    faults.at("checkpoint.begin")
    return "went on"


OUTSIDE = Fault(
    "f0", "node.power_off", "node.power_off", "recovered", node=0, at_event="checkpoint.begin", at_count=2
)


def test_the_first_rank_of_a_node_waits_at_a_moment_until_its_agent_says_go_on(start: Start) -> None:
    child = start((OUTSIDE,), moments, leader=True)
    child.until(lambda seen: seen.due == 1, "it waits")
    time.sleep(0.1)
    assert child.is_there()
    assert child.view is not None
    child.view.command(1 + GO_ON)
    assert child.status() == 0
    last = child.view.read()
    assert last is not None
    assert (last.due, last.fault, child.said.read_text()) == (0, 0, "'went on'")


def test_other_ranks_and_other_nodes_do_not_wait(start: Start) -> None:
    assert start((OUTSIDE,), moments).status() == 0
    elsewhere = Fault(
        "f0", "node.power_off", "node.power_off", "recovered", node=1, at_event="checkpoint.begin"
    )
    assert start((elsewhere,), moments, leader=True).status() == 0


def test_a_fault_of_the_job_is_waited_for_by_rank_0(start: Start) -> None:
    job = Fault("f0", "job.requeue", "job.requeue", "recovered", at_event="checkpoint.begin")
    assert start((job,), moments, leader=True).status() == 0
    child = start((job,), moments, rank=0)
    child.until(lambda seen: seen.due == 1, "it waits")


def test_each_rank_holds_at_the_step_of_a_fault_from_outside(start: Start) -> None:
    outside = Fault("f0", "node.power_off", "node.power_off", "recovered", node=1, at_step=2)
    child = start((outside, replace(outside, fault_id="f1", kind="controller.away")), three_steps)
    waits: list[Callable[[page.Progress], object]] = [lambda seen: seen.due == 1, lambda seen: seen.due == 2]
    for number, for_it in enumerate(waits, 1):  # one after the other
        seen = child.until(for_it, "it waits")
        assert (seen.begun, seen.finished, seen.section) == (2, 1, page.HELD)
        assert child.view is not None
        child.view.command(number + GO_ON)
    assert child.status() == 0
    last = child.view.read() if child.view is not None else None
    assert last is not None
    assert (last.due, last.finished, last.section) == (0, 3, page.SETUP)


def steps_then(faults: RankFaults, position: Page, *, steps: int = 8) -> list[int]:
    """Steps of two collectives each; in which step the rank strayed, as its page says after each step."""
    said = []
    for step in range(steps):
        faults.step(step)
        faults.collective(lambda: None)
        faults.collective(lambda: None)
        position.write()
        said.append(position.strayed)
    return said


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("", [-1] * 8),
        ("rank.skip_collective", [-1, -1, -1, -1, -1, 5, 5, 5]),
        ("rank.reorder_collective", [-1, -1, -1, -1, -1, 5, 5, 5]),
    ],
)
def test_a_rank_that_leaves_its_order_says_in_which_step(kind: str, said: list[int], start: Start) -> None:
    child = start((fault(kind, at_step=5),) if kind else (), steps_then)
    assert child.status() == 0
    assert child.said.read_text() == repr(said)


def test_moments_are_counted_on_from_earlier_attempts(tmp_path: Path) -> None:
    position = Page(tmp_path / "1.page", 1)
    third = replace(
        fault("storage.slow", duration_s=0.01), at_step=-1, at_event="checkpoint.begin", at_count=3
    )
    faults = RankFaults([third], [1], 1, 0, True, position, before={"checkpoint.begin": 1})
    struck = []
    for _ in range(3):
        faults.at("checkpoint.begin")
        struck.append(position.fault)
    assert struck == [0, 1, 1]
    assert position.moments == [0, 3, 0, 0]


def test_a_moment_that_was_missed_strikes_at_the_next_and_of_two_one_at_a_time(tmp_path: Path) -> None:
    position = Page(tmp_path / "1.page", 1)
    slow = replace(fault("storage.slow", duration_s=0.01), at_step=-1, at_event="checkpoint.begin")
    faults = RankFaults(
        [replace(slow, at_count=1), replace(slow, at_count=2)], [1, 2], 1, 0, True, position,
        before={"checkpoint.begin": 4},
    )  # fmt: skip
    struck = []
    for _ in range(2):
        faults.at("checkpoint.begin")
        struck.append(position.fault)
    assert struck == [1, 2]
