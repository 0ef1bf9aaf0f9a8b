"""What a program says to the harness: JSON lines, each written at once, to the file that HARNESS_METRICS names.

Also which rank this is, and which step is being done. Standard library only, nothing newer than Python 3.6.
"""

import json
import os
import time
from typing import Any, Dict, Optional

_RANK = ("HARNESS_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


class _Here:
    """Where this process is: its step, when that began, and the file it says things to."""

    step = -1
    start = 0
    is_open = False  # the step has begun and its end is not said
    batch: Optional[int] = None  # which data the step used, as a number
    file = -1
    pid = 0


def say(message: Dict[str, Any]) -> None:
    """Write one line; nothing where no harness listens."""
    path = os.environ.get("HARNESS_METRICS")
    if not path:
        return
    if _Here.pid != os.getpid():  # also in a process that was forked since
        _Here.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _Here.pid = os.getpid()
    os.write(_Here.file, json.dumps(message).encode("ascii") + b"\n")


def stamped(message: Dict[str, Any]) -> Dict[str, Any]:
    """The message with the time, by both clocks."""
    return {**message, "wall_ns": int(time.time() * 1e9), "mono_ns": monotonic_ns()}


def monotonic_ns() -> int:
    """Of the host's monotonic clock."""
    return int(time.monotonic() * 1e9)


def begin(step: int, count: int) -> None:
    """A step begins."""
    say(stamped({"begin": step, "of": count}))
    _Here.step, _Here.start, _Here.is_open, _Here.batch = step, monotonic_ns(), True, None


def end() -> None:
    """The step has ended; said once, also where it was saved before."""
    if _Here.is_open:
        took = monotonic_ns() - _Here.start
        of_batch = {} if _Here.batch is None else {"batch": _Here.batch}
        say(stamped({"end": _Here.step, "start_mono_ns": _Here.start, "step_time_ns": took, **of_batch}))
    _Here.is_open = False


def used(batch: int) -> None:
    """The step that is being done uses the data of this number."""
    _Here.batch = batch


def step() -> int:
    """The step that is being done, or was last; -1 before the first."""
    return _Here.step


def rank() -> int:
    """This process's rank as its launcher says it; 0 where none does."""
    for name in _RANK:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def number(name: str) -> Optional[int]:
    """A whole number of the environment."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else None
