"""How a process does each fault to itself: one function for each kind. Whether, and what is said, others decide.

Standard library only, nothing newer than Python 3.6.
"""

import contextlib
import ctypes
import os
import resource
import signal
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, Optional

from harness.program import lines

FULL_BYTES = 2048  # storage.full: what the file that the harness listens to may still grow by
MB = 256  # rank.out_of_memory: what may still be taken
TRY_S = 0.01

Undo = Callable[[], None]


class FaultRaised(RuntimeError):
    """What rank.raise raises."""


def _signal(number: int) -> Callable[[float, Mapping[str, Any]], None]:
    def send(for_s: float, params: Mapping[str, Any]) -> None:
        if number == signal.SIGTERM and threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return send


def _freeze(for_s: float, params: Mapping[str, Any]) -> None:
    """Stopped by SIGSTOP; a child that was made before lets it go on."""
    if not for_s:
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


def _segfault(for_s: float, params: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def _abort(for_s: float, params: Mapping[str, Any]) -> None:
    os.abort()


def _raise(for_s: float, params: Mapping[str, Any]) -> None:
    raise FaultRaised("rank.raise, injected")


def _hang(for_s: float, params: Mapping[str, Any]) -> None:
    while True:
        time.sleep(3600)


def _livelock(for_s: float, params: Mapping[str, Any]) -> None:
    while True:
        lines.say({"tries": 1})  # it goes on trying, and comes to nothing
        time.sleep(TRY_S)


def _sleep(for_s: float, params: Mapping[str, Any]) -> None:
    time.sleep(for_s)


def _eat_memory(for_s: float, params: Mapping[str, Any]) -> None:
    """Ask for more than a limit of this process allows (RLIMIT_AS, a little above what it has now)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    more = int(params.get("mb", MB)) << 20
    resource.setrlimit(resource.RLIMIT_AS, (now + more, resource.getrlimit(resource.RLIMIT_AS)[1]))
    held: List[bytearray] = []
    while True:
        held.append(bytearray(16 << 20))  # ends with MemoryError


def _full(for_s: float, params: Mapping[str, Any]) -> Undo:
    """No file of this process may grow beyond so many bytes (RLIMIT_FSIZE), until it is undone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = FULL_BYTES
    with contextlib.suppress(OSError):
        room += os.stat(os.environ.get("HARNESS_METRICS", "")).st_size
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(room, int(params.get("bytes", 0))), before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


KINDS: Dict[str, Callable[[float, Mapping[str, Any]], Optional[Undo]]] = {
    "rank.kill": _signal(signal.SIGKILL),
    "rank.terminate": _signal(signal.SIGTERM),
    "rank.abort": _abort,
    "rank.segfault": _segfault,
    "rank.freeze": _freeze,
    "rank.pause": _freeze,
    "rank.raise": _raise,
    "rank.hang": _hang,
    "rank.livelock": _livelock,
    "rank.out_of_memory": _eat_memory,
    "rank.slow_step": _sleep,
    "storage.slow": _sleep,
    "storage.full": _full,
}
"""Kinds, by their names in campaigns, and how each is done; what it returns, if anything, takes it back."""
