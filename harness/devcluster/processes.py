"""Processes, told apart for certain: a pid alone may by now be somebody else's.

A recorded process is a pid and its start time in ticks since boot. Processes that nobody recorded
(a shell on the login node, a job that outlived its node) are found by the marker that each of the
cluster's mount namespaces carries. Nothing is ever found, or killed, by its name.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessId:
    """One process, for ever: pids are reused, the pair is not."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat[1] == self.start_ticks and stat[0] not in "ZX"


def identify(pid: int) -> ProcessId:
    """The identity of a process that exists now."""
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(f"no process {pid}")
    return ProcessId(pid, stat[1])


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time from /proc/PID/stat."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            content = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = content[content.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


def send(process: ProcessId, number: int) -> bool:
    """Signal exactly this process; False when it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor holds the pid: if the start time fits now, it cannot change any more.
        if not process.alive():
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def state_letter(process: ProcessId) -> str:
    """R, S, D, T (stopped), and so on; "" when it has ended."""
    stat = _stat(process.pid)
    return stat[0] if stat is not None and stat[1] == process.start_ticks else ""


def children(parent: int, program: str) -> list[ProcessId]:
    """The children of a process that run this program, zombies left out, the oldest first."""
    found: list[ProcessId] = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", "rb") as stream:
                content = stream.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = content[content.rindex(b")") + 2 :].split()
        name = content[content.index(b"(") + 1 : content.rindex(b")")]
        if int(fields[1]) == parent and name == program.encode() and fields[0] not in (b"Z", b"X"):
            found.append(ProcessId(int(entry), int(fields[19])))
    return sorted(found, key=lambda process: process.start_ticks)


def wait_gone(process: ProcessId, deadline_s: float) -> bool:
    """Whether the process ended before the deadline."""
    limit = time.monotonic() + deadline_s
    while process.alive():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def carrying_marker(marker: str) -> list[ProcessId]:
    """Every process, save this one and its ancestors, in a mount namespace with our marker.

    `marker` is the mount source that only this cluster's namespaces have: harness-<cluster id>.
    """
    spared = _self_and_ancestors()
    needle = f" - tmpfs {marker} ".encode()
    found: list[ProcessId] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spared:
            continue
        try:
            with open(f"/proc/{entry}/mountinfo", "rb") as stream:
                if needle in stream.read():
                    found.append(identify(int(entry)))
        except (FileNotFoundError, ProcessLookupError, OSError):
            continue  # it ended, is a zombie, or is not ours to read: then it is not ours to kill
    return found


def _self_and_ancestors() -> frozenset[int]:
    pids: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                content = stream.read()
        except (FileNotFoundError, ProcessLookupError):
            break
        pid = int(content[content.rindex(b")") + 2 :].split()[1])
    return frozenset(pids)
