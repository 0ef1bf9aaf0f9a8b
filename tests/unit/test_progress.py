"""How far a case is said to be while a run is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from harness import views
from harness.model.case import Case
from harness.progress import _Lines
from harness.views import CaseView

CASE = Case("c", "g", "torch.train", 2, 1, 0, 1, 60, 0, {}, recovery="new-step")


def attempt(index: int, outcome: str = "", **more: int) -> dict[str, Any]:
    said = {"case_id": "c", "index": index, "outcome": outcome, "reason": "", "last_step": -1, **more}
    return {"what": "attempt", "attempt": said}


ENDED = {"what": "case_ended", "case_id": "c", "outcome": "failed", "reason": "no"}
NOW = {"case_id": "c", "attempt": 1, "step": 33}


@pytest.mark.parametrize(
    ("said", "now", "step"),
    [
        ([attempt(0)], {}, 0),
        ([attempt(0)], {**NOW, "attempt": 0}, 33),
        # One rank never got anywhere, the others did.
        ([attempt(0, "failed", last_begun=41), ENDED], {}, 41),
        ([attempt(0, "failed", last_step=40, last_begun=41), ENDED], {}, 41),
        # A newer attempt goes on where the newest checkpoint is, and is not behind it before it says so.
        ([attempt(0, "failed", last_step=24, last_begun=25, saved_step=20), attempt(1)], {}, 20),
        ([attempt(0, "failed", last_step=24, last_begun=25, saved_step=20), attempt(1)], NOW, 33),
        ([attempt(0, "failed", last_begun=25), attempt(1, "failed", last_begun=3), ENDED], {}, 25),
        ([attempt(0, "node_lost", last_step=9)], {}, 10),  # of an older harness
    ],
)
def test_the_highest_step_that_is_known_is_shown(
    said: list[dict[str, Any]], now: dict[str, Any], step: int
) -> None:
    assert views._fill(CaseView(CASE, "running"), said, now, None, "").step == step


def test_where_there_is_no_terminal_each_quarter_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines()
    for step in (0, 1, 14, 15, 16, 44, 45, 59):
        lines.tell([CaseView(CASE, "running", step, 1)], "")
    lines.tell([CaseView(CASE, "completed", 60, 1)], "")
    assert [line.split()[1:3] for line in capsys.readouterr().out.splitlines()] == [
        ["running", "0/60"],
        ["running", "15/60"],
        ["running", "44/60"],
        ["running", "45/60"],
        ["completed", "60/60"],
    ]
