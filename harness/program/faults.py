"""Faults that a program does to itself, where it says: to see that it is recovered from what really happens to it.

    from harness.program import faults
    for step in steps(100):
        if step == 7:
            with faults.inject("rank.kill", rank=2):
                ...

or at a named place, which another part of the program arms, or the campaign (``at: {event: halo}``):

    faults.on("halo", "rank.freeze", rank=1, count=3, for_s=0.5)     # the third time that rank 1 comes by
    ...
    faults.at("halo")

Each strikes once in a case, also over restarts, and is said to the harness before it is done. Nothing is done
where HARNESS_FAULTS is not 1, which the harness sets (not for a twin), so a program may keep its faults: anywhere
else they do nothing. Those of ``KINDS`` are done to this process alone. What is done from outside (to nodes, to the
job, to committed checkpoints) must be known before the run, so that the site's rules hold and it is healed: the
campaign declares it for a named place, and ``at`` waits there until it is done. Standard library only, nothing
newer than Python 3.6.
"""

import contextlib
import hashlib
import os
import sys
from types import TracebackType
from typing import Dict, List, Mapping, Optional, Set, Tuple, Type

from harness.program import armed, lines
from harness.program.deeds import KINDS, FaultRaised, Undo

__all__ = ["KINDS", "Fault", "FaultRaised", "Injection", "at", "inject", "on"]

_EXPECT = ("recovered", "unharmed", "failed")
_LAST = ("rank.pause", "rank.slow_step", "storage.slow")  # these must end by themselves
_DEADLY = (
    "rank.kill", "rank.terminate", "rank.abort", "rank.segfault", "rank.raise", "rank.hang", "rank.livelock",
    "rank.out_of_memory",
)  # fmt: skip
_PARAMS = {"rank.out_of_memory": ("mb",), "storage.full": ("bytes",)}
_OUTSIDE = ("node.", "job.", "controller.", "checkpoint.", "storage.", "control.")


class Fault:
    """A fault with what it hits, for how long, and what is expected of it.

    Raises:
        ValueError: no such kind, or it cannot be so.
    """

    def __init__(
        self,
        kind: str,
        rank: Optional[int],
        for_s: Optional[float],
        expect: Optional[str],
        because: str,
        params: Mapping[str, int],
    ) -> None:
        self.kind, self.rank, self.for_s, self.params = kind, rank, for_s, params
        self.expect, self.because = expect or ("unharmed" if for_s else "recovered"), because
        _check(self)


_declared: Dict[str, List[Tuple[int, Fault]]] = {}
_passed: Dict[str, int] = {}
_struck: Set[str] = set()


class Injection:
    """A fault that is done when a ``with`` block is entered; see ``inject``."""

    def __init__(self, fault: Fault, where: str) -> None:
        self._fault, self._where = fault, where

    def __enter__(self) -> None:
        self._claimed, self._undo = _perhaps(self._fault, self._where)

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._undo is not None:
            self._undo()
            lines.say(lines.stamped({"fault_over": self._claimed, "felt": kind is not None}))


def inject(
    kind: str,
    rank: Optional[int] = None,
    for_s: Optional[float] = None,
    name: Optional[str] = None,
    expect: Optional[str] = None,
    because: str = "",
    **params: int,
) -> Injection:
    """A fault that this rank does to itself when it enters the ``with`` block; on other ranks nothing.

    Args:
        kind: one of ``KINDS``.
        rank: the rank that does it; unless told otherwise the first that comes here.
        for_s: rank.freeze: it goes on after so many seconds (never, without); rank.pause, rank.slow_step and
            storage.slow last so long.
        name: what it is called; the file and line unless told otherwise. The same name strikes once in a step.
        expect: what must come of it: "recovered"; "unharmed", the default where it ends by itself; or "failed".
        because: with "failed", and required there: words that the reason for which the case ends must hold.
        params: rank.out_of_memory: mb that may still be taken; storage.full: bytes that a file may have, until the
            block is left.

    Raises:
        ValueError: no such kind, or it cannot be so.
    """
    frame = sys._getframe(1)
    where = "%s:%d" % (os.path.basename(frame.f_code.co_filename), frame.f_lineno)
    return Injection(Fault(kind, rank, for_s, expect, because, params), name or where)


def on(
    name: str,
    kind: str,
    rank: Optional[int] = None,
    count: int = 1,
    for_s: Optional[float] = None,
    expect: Optional[str] = None,
    because: str = "",
    **params: int,
) -> None:
    """Arm the named place ``name``: the fault is done there when a rank passes it for the ``count``-th time.

    Raises:
        ValueError: as ``inject``; or the count is below 1.
    """
    if count < 1:
        raise ValueError("count = %d, allowed: 1 and above" % count)
    if kind == "storage.full":
        raise ValueError("storage.full ends with its block; use faults.inject, around what writes")
    _declared.setdefault(name, []).append((count, Fault(kind, rank, for_s, expect, because, params)))


def at(name: str) -> None:
    """A named place: does what was armed here, by ``on`` or by the campaign; waits for what is done from outside."""
    _passed[name] = _passed.get(name, 0) + 1
    for count, fault in _declared.get(name, ()):
        if count == _passed[name]:
            _perhaps(fault, "%s, time %d" % (name, count), stepped=False)
    armed.at(name)


# --- whether, and what is said ------------------------------------------------------------------------------


def _check(fault: Fault) -> None:
    kind, for_s = fault.kind, fault.for_s
    if kind not in KINDS:
        raise ValueError(_no_kind(kind))
    if fault.rank is not None and fault.rank < 0:
        raise ValueError("rank = %d, allowed: 0 and above" % fault.rank)
    if kind in _LAST and for_s is None:
        raise ValueError("%s must end by itself; say for_s, in seconds" % kind)
    if for_s is not None and kind not in ("rank.freeze", *_LAST):
        raise ValueError("for_s means nothing for %s, which does not end by itself; remove it" % kind)
    if for_s is not None and not 0 < for_s <= 600:
        raise ValueError("for_s = %r, allowed: above 0, at most 600 seconds" % for_s)
    if fault.expect not in _EXPECT:
        raise ValueError("expect = %r, allowed: %s" % (fault.expect, ", ".join(_EXPECT)))
    _check_expected(fault)
    for name, value in fault.params.items():
        known = _PARAMS.get(kind, ())
        if name not in known:
            raise ValueError("%s is no parameter of %s, allowed: %s" % (name, kind, known or "none"))
        if not isinstance(value, int) or value < 1:
            raise ValueError("%s = %r, allowed: whole numbers, 1 and above" % (name, value))


def _check_expected(fault: Fault) -> None:
    """As of faults that a campaign declares: what is expected must be able to come of it, and of nothing else."""
    kind, expect, because = fault.kind, fault.expect, fault.because
    if kind in _LAST and expect != "unharmed":
        raise ValueError(
            "expect = %r, but %s is a decoy, which must be unharmed; remove expect" % (expect, kind)
        )
    if kind in _DEADLY and expect == "unharmed":
        raise ValueError(
            "expect = %r, but no job rides %s out; write recovered, or failed with because" % (expect, kind)
        )
    if not isinstance(because, str) or len(because) > 200 or "\n" in because:
        raise ValueError("because = %r, allowed: one line of text, at most 200 characters" % (because,))
    if because and expect != "failed":
        raise ValueError("because means nothing with expect = %r; remove it" % expect)
    if expect == "failed" and not because:
        raise ValueError(
            "expect = 'failed' says nothing of why, so a case that ends for any other reason would pass; add because: "
            "words that the reason must hold"
        )


def _no_kind(kind: str) -> str:
    allowed = "allowed: %s" % ", ".join(sorted(KINDS))
    if kind.startswith(_OUTSIDE):
        return (
            "%r is not done by a program: it must be known before the run. Declare it in the campaign, for a named "
            'place: faults: [{kind: %s, at: {event: NAME}, ...}], and write faults.at("NAME") here; %s'
            % (kind, kind, allowed)
        )
    return "%r is no fault that a program can do, %s" % (kind, allowed)


def _perhaps(fault: Fault, where: str, stepped: bool = True) -> Tuple[str, Optional[Undo]]:
    """Do it, if it is this rank's and has not struck; its id, and what takes it back, where it must be."""
    mine = lines.rank()
    if os.environ.get("HARNESS_FAULTS") != "1" or fault.rank not in (None, mine):
        return "", None
    step = lines.step()
    claimed = _claim("%s %s %s %s" % (fault.kind, fault.rank, where, step if stepped else ""))
    if not claimed:
        return "", None
    said = {"fault": fault.kind, "id": claimed, "rank": mine, "pid": os.getpid(), "step": step, "at": where}
    said.update(for_s=fault.for_s or 0, expect=fault.expect, because=fault.because)
    lines.say(lines.stamped(said))
    undo = KINDS[fault.kind](fault.for_s or 0.0, fault.params)
    if undo is None:
        lines.say(lines.stamped({"fault_over": claimed}))
    return claimed, undo


def _claim(key: str) -> str:
    """An id for the fault of this key, "" when it has struck before in this case, whichever process that was."""
    if key in _struck:
        return ""
    _struck.add(key)
    kept = os.environ.get("HARNESS_CASE_FOLDER")
    if not kept:
        return "program-%d" % len(_struck)
    folder = os.path.join(kept, ".program-faults")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if not _make(os.path.join(folder, hashlib.sha256(key.encode()).hexdigest()[:16]), key):
        return ""
    number = 1
    while not _make(os.path.join(folder, "program-%d" % number), key):
        number += 1
    return "program-%d" % number


def _make(path: str, text: str) -> bool:
    """A new file, on storage; False where there is one."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        os.write(file, text.encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    return True
