"""Of two supervisors only one writes, and a node takes over only from one that is gone or cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case, Job, Plan, Submission
from harness.rundir import RunDir, read_lines
from harness.runtime import succession
from harness.runtime.attempt_blame import blamed_step
from harness.runtime.links import SILENT, Links
from harness.runtime.rank_view import RankView
from harness.runtime.supervisor import Supervisor

NODES = ("n1", "n2", "n3")
CASE = Case("c", "g", "mpi.halo", 2, 1, 0, 1, 50, 0, {}, recovery="new-step", max_restarts=3, spares=1)
JOB = Job("0000", 3, 1, 5, ("c",), False)
ATTEMPT = Attempt("c", 0, "0000", "7", 0, 0, NODES[:2], (), NODES[:2], 1, 1)


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    run = RunDir(tmp_path)
    run.job("0000").mkdir(parents=True)
    launcher: Any = SimpleNamespace(nodes=NODES, job_id="7", restart=0)
    plan = Plan((CASE,), (Submission("0000", (JOB,), "mpi.sh.j2"),))
    return Supervisor(run, JOB, plan, {"launcher": "slurm"}, launcher)


def written(supervisor: Supervisor) -> int:
    """Let it write all that it can; how many lines of it are on storage."""
    supervisor.event(ev.ATTEMPT_LEFT, "c", 0)
    supervisor.write_attempt(ATTEMPT)
    supervisor.progress(CASE, 0, 3, "running")
    run, key = supervisor.run, supervisor.job.key
    lines = [*read_lines(run.events(key)), *read_lines(run.attempts(key))]
    return len(lines) + run.progress(key).exists()


def test_a_supervisor_that_is_cut_off_writes_nothing_more(supervisor: Supervisor) -> None:
    supervisor.step_down()
    assert written(supervisor) == 0
    assert supervisor.signal.is_set() and "cut off" in supervisor.signal_name


def test_a_supervisor_that_stood_still_gives_way_to_who_took_over_meanwhile(supervisor: Supervisor) -> None:
    assert not supervisor.is_superseded()
    assert written(supervisor) == 3
    assert succession.claim(supervisor.run, "0000", 0, 1, "n2")
    assert written(supervisor) == 3
    assert supervisor.stepped_down and supervisor.signal.is_set()


def test_who_took_over_writes_although_its_own_claim_is_there(supervisor: Supervisor) -> None:
    assert succession.claim(supervisor.run, "0000", 0, 1, "n2")
    supervisor.generation = 1
    assert written(supervisor) == 3


@contextmanager
def changing(path: Path, for_s: float) -> Iterator[None]:
    """A sign of life that is given for so many seconds."""

    def say() -> None:
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            succession.say_alive(path)
            time.sleep(0.02)

    thread = threading.Thread(target=say)
    succession.say_alive(path)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(("for_s", "lives"), [(0.0, False), (0.2, False), (1.5, True)])
def test_a_supervisor_lives_whose_sign_still_changes_when_a_cut_off_one_would_have_gone(
    for_s: float, lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "SETTLE_S", 0.4)
    with changing(tmp_path / "alive", for_s):
        assert succession.lives(tmp_path / "alive", 0.3) is lives


@pytest.mark.parametrize(
    ("quiet_s", "lost", "may_be"),
    [
        ((0.1, 9.0), (False, True), False),  # one node is lost: the other beats
        ((1.5, 9.0), (False, True), True),  # the other has been quiet as well: it may be us
        ((9.0, 9.0), (True, True), False),  # that is known by now
    ],
)
def test_one_that_may_be_cut_off_waits_for_the_next_beats_before_it_blames_a_node(
    supervisor: Supervisor, quiet_s: tuple[float, ...], lost: tuple[bool, ...], may_be: bool
) -> None:
    links = Links(supervisor, 2.0)
    channel: Any = object()
    for node, quiet, is_lost in zip(NODES[1:], quiet_s, lost, strict=True):
        link = links.links[node]
        link.channel, link.heard = channel, time.monotonic() - quiet
        link.lost, link.lost_how = ("no beat", SILENT) if is_lost else ("", "")
    assert links.may_be_cut_off() is may_be


@pytest.mark.parametrize(
    ("blamed", "lost", "step"), [(1, "", 15), (None, "n2", 15), (None, "", -1), (0, "n2", 16)]
)
def test_the_step_of_a_failure_is_that_of_the_blamed_rank(blamed: int | None, lost: str, step: int) -> None:
    ranks = [RankView(node="n1", begun=16), RankView(node="n2", begun=15)]
    assert blamed_step(ranks, blamed, lambda node: "silent" if node == lost else "") == step
