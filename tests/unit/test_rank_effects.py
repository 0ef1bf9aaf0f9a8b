"""Whether a fault that a rank did to itself landed: the second view, by its process and its page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.model import fault as model
from harness.runtime import page, rank_effects
from harness.runtime.detect import View
from harness.runtime.rank_effects import ENDS, STATUS_S, STILL_S, Effects, OtherEnd, gone


class Watched:
    """One rank as the supervisor knows it, and a clock that stands still unless told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.rank = SimpleNamespace(
            view=View(page.RUNNING, 7, 6, 50, 13, page.STEP), ended=False, status=None, words=""
        )
        monkeypatch.setattr(rank_effects.time, "monotonic", lambda: self.now)

    def struck(self, kind: str, duration_s: float = 0.0) -> Effects:
        self.run: Any = SimpleNamespace(ranks=[None, self.rank], felt=set(), own_loop=True)
        run = self.run
        return Effects(run, 1, 2, kind, duration_s)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.mark.parametrize("kind", ENDS)
def test_what_ends_a_rank_is_seen_when_its_process_has_ended(kind: str, watched: Watched) -> None:
    effects = watched.struck(kind)
    watched.now += 60
    assert effects.seen() is None
    watched.rank.ended, watched.rank.status, watched.rank.words = True, ENDS[kind][0], "w" * 300
    assert effects.seen() == {
        "process": "ended", "status": ENDS[kind][0], "expected": list(ENDS[kind]), "words": "w" * 200,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ENDS)
def test_a_rank_that_ended_in_another_way_was_not_ended_by_its_fault(kind: str, watched: Watched) -> None:
    effects = watched.struck(kind)
    watched.rank.ended, watched.rank.status, watched.rank.words = True, 3, "ValueError: no"
    with pytest.raises(OtherEnd) as refused:
        effects.seen()
    assert str(refused.value) == (
        f"it ended with status 3, and by {kind} it ends with {' or '.join(map(str, ENDS[kind]))}: ValueError: no"
    )
    watched.run.own_loop = False  # somebody's program, whose rank is the process around it
    assert effects.seen() is not None


def test_a_status_that_nobody_tells_is_waited_for_and_then_unknown(watched: Watched) -> None:
    effects = watched.struck("rank.kill")
    watched.rank.ended, watched.rank.status = True, None
    assert effects.seen() is None
    watched.now += STATUS_S
    assert effects.seen() == {"process": "ended", "status": None, "expected": [-9], "words": ""}


def test_a_rank_that_was_held_up_goes_on_when_its_page_moves(watched: Watched) -> None:
    effects = watched.struck("rank.pause", 2.0)
    watched.rank.view.stopped_s = 1.0
    assert effects.seen() is not None
    watched.rank.view.stopped_s = 0.0
    assert effects.moves_again() is None
    watched.rank.view.finished += 1
    assert effects.moves_again() == {"page": "moves again", "step": 7}


@pytest.mark.parametrize(
    ("ended", "alive", "lost", "proof"),
    [
        (True, None, "", {"process": "ended", "status": -9}),
        (False, [], "", {"process": "gone", "told_by": "the agent of n1"}),
        (False, [1], "", None),
        (False, None, "no beat", {"node": "n1 was lost with it: no beat"}),
        (False, None, "", None),
    ],
)
def test_a_process_is_said_to_be_gone_by_who_saw_it(
    ended: bool, alive: list[int] | None, lost: str, proof: dict[str, Any] | None, watched: Watched
) -> None:
    watched.struck("rank.freeze")
    watched.rank.ended, watched.rank.status, watched.rank.node = ended, -9, "n1"
    watched.run.finished = {} if alive is None else {"n1": {"alive": alive}}
    watched.run.s = SimpleNamespace(links=SimpleNamespace(lost=lambda node: lost))
    assert gone(watched.run, 1) == proof


def test_a_process_of_an_earlier_start_of_the_job_is_gone_with_it() -> None:
    assert gone(None, 1) == {"job": "was started again since, and with it every process of it"}


@pytest.mark.parametrize("kind", ["rank.freeze", "rank.pause"])
def test_what_stops_a_rank_is_seen_when_the_kernel_says_so(kind: str, watched: Watched) -> None:
    effects = watched.struck(kind, 2.0)
    watched.now += 60
    assert effects.seen() is None
    watched.rank.view.stopped_s = 0.25
    assert effects.seen() == {"kernel": "stopped", "for_s": 0.25}


@pytest.mark.parametrize(
    ("kind", "duration_s", "still_s"),
    [("rank.hang", 0.0, STILL_S), ("rank.slow_step", 0.5, 0.3), ("storage.slow", 9.0, STILL_S)],
)
def test_what_holds_a_rank_up_is_seen_when_nothing_moves(
    kind: str, duration_s: float, still_s: float, watched: Watched
) -> None:
    effects = watched.struck(kind, duration_s)
    watched.now += still_s * 0.9
    assert effects.seen() is None
    watched.rank.view.sequence += 1  # it still moved
    watched.now += still_s * 0.9
    assert effects.seen() is None
    watched.now += still_s + 0.001
    seen = effects.seen()
    assert seen == {"stands_still_s": round(still_s, 2), "step": 7, "section": "step"}


def test_a_livelock_is_seen_by_tries_that_finish_nothing(watched: Watched) -> None:
    effects = watched.struck("rank.livelock")
    watched.rank.view.sequence += 9
    assert effects.seen() is None
    watched.rank.view.sequence += 1
    assert effects.seen() == {"tries": 10, "finished": 6}
    watched.rank.view.finished += 1
    assert effects.seen() is None


@pytest.mark.parametrize(
    "kind",
    [
        "rank.skip_collective", "rank.reorder_collective", "control.random_state", "control.position",
        "control.stale_optimizer",
    ],
)  # fmt: skip
def test_of_what_only_consequences_show_the_rank_has_said_that_it_came_to_it(
    kind: str, watched: Watched
) -> None:
    assert watched.struck(kind).seen() == {"said": "the rank published that it did it", "step": 7}


def test_a_full_disk_is_seen_when_a_checkpoint_could_not_be_written(watched: Watched) -> None:
    effects = watched.struck("storage.full")
    assert effects.seen() is None
    watched.run.felt.add(1)  # another fault's effect proves nothing of this one
    assert effects.seen() is None
    watched.run.felt.add(2)
    assert effects.seen() == {"said": "the rank could not write its part of a checkpoint"}


def test_every_kind_of_a_rank_can_be_seen(watched: Watched) -> None:
    watched.rank.ended = True
    watched.rank.view.stopped_s = 1.0
    for kind in (k for k, v in model.KINDS.items() if v.where == model.RANK and k != "rank.livelock"):
        watched.now = 100.0
        effects = watched.struck(kind)
        watched.run.felt.add(2)
        watched.now = 200.0
        effects.seen()  # a status that nobody tells is waited for
        watched.now += STATUS_S
        assert effects.seen() is not None, kind
