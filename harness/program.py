"""For a user's own Python program: time its steps and record its figures, in three lines.

    from harness.program import steps, metric
    for step in steps(100):
        metric("loss", train(step), unit="1", direction="lower")

Under the harness (workload ``command``) each step and each figure becomes a raw sample, and the step is
the program's progress. Anywhere else nothing is recorded, and the program does what it did before.

This file runs in the program's own interpreter, which may be an old one: standard library only, nothing
newer than Python 3.6, nothing else of the harness. What is said goes to the file that HARNESS_METRICS
names, a JSON object a line, each written at once.
"""

import json
import math
import os
import re
import time
from typing import Any, Dict, Iterator, Optional

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}\Z")
_DIRECTIONS = ("higher", "lower", "neither")

_defined: Dict[str, Dict[str, Optional[str]]] = {}


class _Here:
    """Where this process is: its step, and the file it says things to."""

    step = 0
    file = -1
    pid = 0


def steps(count: int, first: int = 0) -> Iterator[int]:
    """Count the steps from ``first`` to ``count``, timing each and saying how far the program is.

    Args:
        count: steps of the whole program.
        first: step to begin with, for a program that resumes from its own files.

    Yields:
        The number of each step, from ``first`` to ``count - 1``.
    """
    for step in range(first, count):
        _Here.step = step
        _say({"begin": step, "of": count})
        start = _monotonic_ns()
        yield step
        end = _monotonic_ns()
        _say({"end": step, "start_mono_ns": start, "step_time_ns": end - start})


def metric(
    name: str,
    value: Any,
    unit: Optional[str] = None,
    direction: Optional[str] = None,
    definition: Optional[str] = None,
) -> None:
    """Record one figure, of the step that is being done.

    What the campaign declares (``from: program``) need not be said again.

    Args:
        name: a-z 0-9 _, its unit last: ``bandwidth_mb_per_s``.
        value: a finite number.
        unit: at the first use: its unit; "1", a plain number, unless told otherwise.
        direction: at the first use: which way is better, "higher", "lower" or "neither".
        definition: at the first use: what it is, in one sentence.

    Raises:
        ValueError: the name or the value cannot be recorded, or the metric was defined otherwise before.
    """
    said = {"unit": unit, "direction": direction, "definition": definition}
    if name not in _defined:
        if not _NAME.match(name):
            raise ValueError(
                f"{name!r} is no name of a metric, allowed: a-z 0-9 _, the first a letter; rename it"
            )
        if direction is not None and direction not in _DIRECTIONS:
            raise ValueError(f"metric {name}: direction {direction!r}, allowed: {', '.join(_DIRECTIONS)}")
        _defined[name] = said
        _say({"define": name, **said})
    for key, word in said.items():
        first = _defined[name][key]
        if word is not None and word != first:
            raise ValueError(
                f"metric {name}: {key} {word!r}, but at its first use {first!r}; one metric has one {key}"
            )
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"metric {name}: {value!r} is not a finite number")
    _say({"metric": name, "value": number, "step": _Here.step})


def check(name: str, passed: bool, expected: object = "", observed: object = "") -> None:
    """Record one check of the program's own answer. A failed one fails the case; it does not stop the program."""
    _say({"check": str(name), "passed": bool(passed), "expected": str(expected), "observed": str(observed)})


def _monotonic_ns() -> int:
    return int(time.monotonic() * 1e9)


def _say(message: Dict[str, Any]) -> None:
    path = os.environ.get("HARNESS_METRICS")
    if not path:
        return
    if _Here.pid != os.getpid():  # also in a process that was forked since
        _Here.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _Here.pid = os.getpid()
    os.write(_Here.file, json.dumps(message).encode("ascii") + b"\n")
