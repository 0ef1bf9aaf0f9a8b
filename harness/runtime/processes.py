"""Processes below a process: adopted when their parent ends, found, and ended to the last one.

A user's program starts others, which may leave its session and outlive it. A process that adopts orphans
(prctl(2), PR_SET_CHILD_SUBREAPER) keeps all of them below itself, on any machine and without a cgroup, so
they can be found by their parents. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _parent(pid: int) -> int:
    """Parent of a live process by proc(5); -1 when it is gone or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return -1
    return -1 if state in (b"Z", b"X") else int(parent)


def descendants(root: int, keep: Collection[int] = ()) -> list[int]:
    """Live processes below ``root``, itself left out, and those in ``keep`` with all that is below them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_parent(int(name)), []).append(int(name))
    found, front = [], [root]
    while front:
        front = [pid for parent in front for pid in children.get(parent, ()) if pid not in keep]
        found += front
    return found


def end_descendants(root: int, keep: Collection[int] = (), deadline_s: float = 5.0) -> int:
    """Kill every process below ``root``, those that start meanwhile too; returns how many still live at the end.

    ``root`` must have adopted orphans, or those that leave it are not found.
    """
    end = time.monotonic() + deadline_s
    while found := descendants(root, keep):
        if time.monotonic() > end:
            return len(found)
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return 0


def end_tree(pid: int, pidfd: int) -> None:
    """End a process that started somebody's program, and all that is below it, to the last process."""
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)  # so that it does not take this for its program's end
        end_descendants(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def has_children() -> bool:
    """Whether this process has any child, ended ones included that nobody waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap(keep: Collection[int] = ()) -> None:
    """Wait for every child that has ended, but for those that somebody else waits for."""
    with contextlib.suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid in keep:
                return  # it hides those behind it until it was waited for; they can wait
            os.waitpid(found.si_pid, os.WNOHANG)
