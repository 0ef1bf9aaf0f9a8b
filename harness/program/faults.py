"""Faults that a program does to itself, where it says: to see that it is recovered from what really happens to it.

    from harness.program import faults
    for step in steps(100):
        if step == 7:
            with faults.inject("rank.kill", rank=2):
                ...

or at a named place, which another part of the program arms:

    faults.on("halo", "rank.freeze", rank=1, count=3, for_s=0.5)     # the third time that rank 1 comes by
    ...
    faults.at("halo")

Each strikes once in a case, also over restarts, and is said to the harness before it is done. Nothing is done
where HARNESS_FAULTS is not 1, which the harness sets (not for a twin), so a program may keep its faults: anywhere
else they do nothing. They are done to this process alone. Standard library only, nothing newer than Python 3.6.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from harness.program import lines

_EXPECT = ("recovered", "unharmed", "failed")


class FaultRaised(RuntimeError):
    """What rank.raise raises."""


class Fault:
    """A fault with what it hits, for how long, and what is expected of it.

    Raises:
        ValueError: no such kind, or it cannot be so.
    """

    def __init__(self, kind: str, rank: Optional[int], for_s: Optional[float], expect: Optional[str]) -> None:
        self.kind, self.rank, self.for_s = kind, rank, for_s
        self.expect = expect or ("unharmed" if for_s else "recovered")
        _check(self)


_declared: Dict[str, List[Tuple[int, Fault]]] = {}
_passed: Dict[str, int] = {}
_struck: Set[str] = set()


class Injection:
    """A fault that is done when a ``with`` block is entered; see ``inject``."""

    def __init__(self, fault: Fault, where: str) -> None:
        self._fault, self._where = fault, where

    def __enter__(self) -> None:
        _perhaps(self._fault, self._where)

    def __exit__(self, *_: Any) -> None:
        pass


def inject(
    kind: str,
    rank: Optional[int] = None,
    for_s: Optional[float] = None,
    name: Optional[str] = None,
    expect: Optional[str] = None,
) -> Injection:
    """A fault that this rank does to itself when it enters the ``with`` block; on other ranks nothing.

    Args:
        kind: one of ``KINDS``.
        rank: the rank that does it; unless told otherwise the first that comes here.
        for_s: rank.freeze: it goes on after so many seconds (never, without); rank.slow_step: it sleeps so long.
        name: what it is called; the file and line unless told otherwise. The same name strikes once in a step.
        expect: what must come of it: "recovered"; "unharmed", the default where it ends by itself; or "failed".

    Raises:
        ValueError: no such kind, or it cannot be so.
    """
    frame = sys._getframe(1)
    where = "%s:%d" % (os.path.basename(frame.f_code.co_filename), frame.f_lineno)
    return Injection(Fault(kind, rank, for_s, expect), name or where)


def on(
    name: str,
    kind: str,
    rank: Optional[int] = None,
    count: int = 1,
    for_s: Optional[float] = None,
    expect: Optional[str] = None,
) -> None:
    """Arm the named place ``name``: the fault is done there when a rank passes it for the ``count``-th time.

    Raises:
        ValueError: as ``inject``; or the count is below 1.
    """
    if count < 1:
        raise ValueError("count = %d, allowed: 1 and above" % count)
    _declared.setdefault(name, []).append((count, Fault(kind, rank, for_s, expect)))


def at(name: str) -> None:
    """A named place: does what was armed here by ``on``."""
    _passed[name] = _passed.get(name, 0) + 1
    for count, fault in _declared.get(name, ()):
        if count == _passed[name]:
            _perhaps(fault, "%s, time %d" % (name, count), stepped=False)


# --- whether, and what is said ------------------------------------------------------------------------------


def _check(fault: Fault) -> None:
    kind, for_s = fault.kind, fault.for_s
    if kind not in KINDS:
        raise ValueError(
            "%r is no fault that a program can do, allowed: %s" % (kind, ", ".join(sorted(KINDS)))
        )
    if fault.rank is not None and fault.rank < 0:
        raise ValueError("rank = %d, allowed: 0 and above" % fault.rank)
    if kind == "rank.slow_step" and for_s is None:
        raise ValueError("rank.slow_step must end by itself; say for_s, in seconds")
    if for_s is not None and kind not in ("rank.freeze", "rank.slow_step"):
        raise ValueError("for_s means nothing for %s, which does not end by itself; remove it" % kind)
    if for_s is not None and not 0 < for_s <= 600:
        raise ValueError("for_s = %r, allowed: above 0, at most 600 seconds" % for_s)
    if fault.expect not in _EXPECT:
        raise ValueError("expect = %r, allowed: %s" % (fault.expect, ", ".join(_EXPECT)))


def _perhaps(fault: Fault, where: str, stepped: bool = True) -> None:
    mine = lines.rank()
    if os.environ.get("HARNESS_FAULTS") != "1" or fault.rank not in (None, mine):
        return
    step = lines.step()
    claimed = _claim("%s %s %s %s" % (fault.kind, fault.rank, where, step if stepped else ""))
    if not claimed:
        return
    said = {"fault": fault.kind, "id": claimed, "rank": mine, "pid": os.getpid(), "step": step, "at": where}
    lines.say(lines.stamped({**said, "for_s": fault.for_s or 0, "expect": fault.expect}))
    KINDS[fault.kind](fault.for_s)
    lines.say(lines.stamped({"fault_over": claimed}))


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


# --- doing it -----------------------------------------------------------------------------------------------


def _signal(number: int) -> Callable[[Optional[float]], None]:
    def send(for_s: Optional[float]) -> None:
        os.kill(os.getpid(), number)

    return send


def _freeze(for_s: Optional[float]) -> None:
    """Stopped by SIGSTOP; a child that was made before lets it go on."""
    if for_s is None:
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    frozen = os.getpid()
    timer = os.fork()
    if not timer:
        try:
            os.closerange(0, 3)  # whoever reads this program's output does not wait for the timer
            time.sleep(for_s)
            while os.getppid() == frozen:  # it ends this child as soon as it goes on
                os.kill(frozen, signal.SIGCONT)
                time.sleep(0.05)
        finally:
            os._exit(0)
    os.kill(frozen, signal.SIGSTOP)
    os.kill(timer, signal.SIGKILL)
    os.waitpid(timer, 0)


def _segfault(for_s: Optional[float]) -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def _abort(for_s: Optional[float]) -> None:
    os.abort()


def _raise(for_s: Optional[float]) -> None:
    raise FaultRaised("rank.raise, injected by the program itself")


def _hang(for_s: Optional[float]) -> None:
    while True:
        time.sleep(3600)


def _sleep(for_s: Optional[float]) -> None:
    time.sleep(for_s or 0.0)


KINDS: Dict[str, Callable[[Optional[float]], None]] = {
    "rank.kill": _signal(signal.SIGKILL),
    "rank.terminate": _signal(signal.SIGTERM),
    "rank.abort": _abort,
    "rank.segfault": _segfault,
    "rank.freeze": _freeze,
    "rank.raise": _raise,
    "rank.hang": _hang,
    "rank.slow_step": _sleep,
}
"""Kinds, by their names in campaigns, and how each is done."""
