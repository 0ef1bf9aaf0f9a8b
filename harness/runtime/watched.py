"""One rank of a node as its agent sees it from outside: its process, its page, its memory. Standard library only."""

from __future__ import annotations

import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness.runtime import page

STOPPED = "Tt"  # /proc/PID/stat: stopped by a signal, or by a tracer


@dataclass
class Rank:
    """What is known of one rank."""

    number: int
    pidfd: int = -1
    pid: int = -1
    process: subprocess.Popen[bytes] | None = None  # where this agent started it itself
    progress: page.Progress | None = None
    exit_status: int | None = None
    memory: Path | None = None  # counter of kills for memory in its cgroup, and what it said at first
    memory_kills: int = 0
    gone: bool = False
    gone_wall_ns: int = 0
    reported: bool = False
    struck: int = 0  # the fault that it said it does, as far as the supervisor was told
    due: int = 0  # likewise the fault that it waits for
    _view: page.View | None = None
    _stopped_at: float = 0.0

    def look(self, path: Path) -> None:
        """Read its page, if it has one by now."""
        if self._view is None:
            self._view = page.view(path)
        if self._view is not None:
            self.progress = self._view.read() or self.progress

    def command(self, word: int) -> None:
        """Write a word into its page."""
        if self._view is not None:
            self._view.command(word)

    def save_at(self, steps: int) -> None:
        """Ask it for a checkpoint after so many steps."""
        if self._view is not None:
            self._view.save_at(steps)

    def is_gone(self) -> bool:
        """Whether its process has ended."""
        if not self.gone:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            self.gone = bool(poll.poll(0))
            if self.gone and self.process is not None:
                self.exit_status = self.process.wait()
        if self.gone and not self.gone_wall_ns:
            self.gone_wall_ns = time.time_ns()
        return self.gone

    def stopped_s(self, now: float) -> float:
        """For how long the kernel has called it stopped; 0 while it runs, sleeps or waits."""
        if self.pid < 0 or self.gone or state_of(self.pid) not in STOPPED:
            self._stopped_at = 0.0
            return 0.0
        self._stopped_at = self._stopped_at or now
        return max(now - self._stopped_at, 1e-3)

    def close(self) -> None:
        """Let its page go."""
        if self._view is not None:
            self._view.close()
            self._view = None


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does, from /proc/PID/stat; "X" when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "X"
    return text.rpartition(")")[2].split()[0]
