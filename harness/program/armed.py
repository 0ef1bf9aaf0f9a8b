"""Faults that the campaign declares for this rank: done at their step or named place, or waited for there.

Each is said to the harness, and done when the harness has put it on record. Of a fault that comes from outside (a
damaged checkpoint, a node that is switched off) the rank waits at its place until it is done: "while a checkpoint is
being written" is then true. What is armed stands in HARNESS_ARMED; without it nothing is done. Standard library
only, nothing newer than Python 3.6.
"""

import contextlib
import json
import os
import time
from typing import Any, Dict, List, Optional

from harness.program import deeds, lines

HOLD_S = 20.0  # how long a rank waits for a fault from outside
HEARD_S = 2.0  # how long it waits for the harness to hear of its own
LOOK_S = 0.002
_STOPS = ("rank.freeze", "rank.pause")  # by the harness, while this rank waits


_passed: Dict[str, int] = {}


class _Armed:
    """What is armed here, and what is going on."""

    faults: Optional[List[Dict[str, Any]]] = None
    undo: Optional[deeds.Undo] = None
    hindering = 0


def step(number: int) -> None:
    """A step begins."""
    for fault in _left():
        if fault["step"] == number and not fault["held"] and not _is_control(fault):
            _strike(fault)
    _obey()


def at(place: str) -> None:
    """A named place, or a moment of a checkpoint, is passed."""
    if not _left():
        return
    _passed[place] = _passed.get(place, 0) + 1
    for fault in _left():
        if (fault["event"], fault["time"]) != (place, _passed[place]) or _is_control(fault):
            continue
        if fault["held"]:
            _hold(fault)
        else:
            _strike(fault)
    _obey()


def controls() -> List[str]:
    """Negative controls of a restore, which strike now: what is to be restored wrongly on purpose."""
    found = [fault for fault in _left() if _is_control(fault)]
    for fault in found:
        _say_strike(fault)
    return [fault["kind"][len("control.") :] for fault in found]


def relieve(failed: bool) -> None:
    """Saving is over, one way or the other: what hindered it is taken back."""
    undo, _Armed.undo = _Armed.undo, None
    if undo is not None:
        undo()
        if failed:
            lines.say({"felt": _Armed.hindering})


def _left() -> List[Dict[str, Any]]:
    """Faults that have not struck."""
    if _Armed.faults is None:
        _Armed.faults = list(json.loads(os.environ.get("HARNESS_ARMED") or "[]"))
    return list(_Armed.faults)


def _is_control(fault: Dict[str, Any]) -> bool:
    return bool(fault["kind"].startswith("control."))


def _strike(fault: Dict[str, Any]) -> None:
    _say_strike(fault)
    if fault["kind"] in _STOPS:
        return  # it was stopped meanwhile
    undo = deeds.KINDS[fault["kind"]](fault["for_s"], fault["params"])
    if undo is not None:
        _Armed.undo, _Armed.hindering = undo, fault["number"]


def _say_strike(fault: Dict[str, Any]) -> None:
    assert _Armed.faults is not None  # it was one of them
    _Armed.faults.remove(fault)
    lines.say({"strike": fault["number"]})
    _wait("struck %d" % fault["number"], HEARD_S)


def _hold(fault: Dict[str, Any]) -> None:
    assert _Armed.faults is not None  # it was one of them
    _Armed.faults.remove(fault)
    lines.say({"due": fault["number"]})
    _wait("go %d" % fault["number"], HOLD_S)


def _wait(word: str, for_s: float) -> None:
    """Wait until the harness says a word, in the file beside the one that it listens to."""
    path = os.environ.get("HARNESS_METRICS", "") + ".word"
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            if file.read() == word:
                return
        time.sleep(LOOK_S)


def _obey() -> None:
    """Do what the harness asks for now: a fault that is declared for a time, and not for a step."""
    if not _Armed.faults:
        return
    path = os.environ.get("HARNESS_METRICS", "") + ".do"
    try:
        with open(path, encoding="ascii") as file:
            number = int(file.read())
        os.unlink(path)
    except (OSError, ValueError):
        return
    for fault in _left():
        if fault["number"] == number and not fault["held"]:
            _strike(fault)
