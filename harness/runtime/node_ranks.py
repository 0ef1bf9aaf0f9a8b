"""The ranks of one node in an attempt, as processes: started, held, looked at, struck, and ended to the last one.

It holds a pidfd of each and reads its mapped page, so it needs no help from a rank's Python main thread. What it
sees is told to the supervisor at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.rundir import brief
from harness.runtime import memory, processes, recorder
from harness.runtime.rank_told import Teller
from harness.runtime.segments import Segments
from harness.runtime.watched import STOPPED, Rank, state_of

HEAR_OUT_S = 0.5  # for what a program that is ended has said last
END_S = 5.0  # for processes that were killed to be gone


class NodeRanks:
    """The ranks of one node.

    Args:
        tell: of what is seen of them.
        root: the agent's folder, where shared memory that they have is noted.
        others: processes of the agent that are no rank's, and outlive the attempt.
    """

    def __init__(self, tell: Teller, root: Path, others: Callable[[], set[int]]) -> None:
        self.tell, self._others = tell, others
        self.folder: Path | None = None  # of the attempt, where their pages are
        self.programs = False  # whether they run somebody's program, which may leave processes behind
        self.alive: list[int] = []  # those of the last attempt that could not be ended
        self._ranks: dict[int, Rank] = {}
        self._segments = Segments(root)

    def begin(self, numbers: Sequence[int], *, programs: bool, by_step: bool) -> None:
        """An attempt begins with these ranks; ``by_step``: a step of their own starts them."""
        self.programs = programs
        if programs:
            processes.adopt_orphans()
        self._ranks = {number: Rank(number) for number in numbers}
        self._segments.begin(at_start=by_step)

    def spawn(self, number: int, spec: str, log: str, environment: Mapping[str, str]) -> None:
        """Start a rank as a process of its own: one that runs somebody's program."""
        try:
            with open(log, "ab") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "harness.runtime.rank", spec],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **environment},
                )
        except OSError as error:  # such as a disk that takes no more
            self._report(self._ranks[number], brief(error))
            return
        self._ranks[number].process = process
        self._hold(self._ranks[number], process.pid)

    # --- what the fork server says --------------------------------------------------------------------

    def forked(self, number: int, pid: int) -> None:
        """See ``harness.runtime.forks.Hears``."""
        if (rank := self._ranks.get(number)) is not None:
            self._hold(rank, pid)

    def exited(self, number: int, status: int) -> None:
        """See ``harness.runtime.forks.Hears``."""
        if (rank := self._ranks.get(number)) is not None:
            rank.exit_status = status
            if rank.reported:  # its end was told before anybody could know how
                self.tell.status(rank, status)

    def refused(self, number: int, why: str) -> None:
        """See ``harness.runtime.forks.Hears``."""
        if (rank := self._ranks.get(number)) is not None:
            self._report(rank, why)

    # --- what the supervisor asks for -----------------------------------------------------------------

    def command(self, number: int, word: int) -> None:
        """Write a word into a rank's page."""
        if (rank := self._ranks.get(number)) is not None:
            rank.command(word)

    def save_at(self, steps: int) -> None:
        """Ask all of them for a checkpoint after so many steps."""
        for rank in self._ranks.values():
            rank.save_at(steps)

    def signal(self, number: int, name: str, fault: int) -> None:
        """A fault, or its end: send a rank a signal; where it is the fault of this number, from 1, say when."""
        rank = self._ranks.get(number)
        if rank is None or rank.pidfd < 0 or rank.is_gone():
            return
        number_ = signal.Signals[name]
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(rank.pidfd, number_)
        if self.programs and number_ in (signal.SIGSTOP, signal.SIGCONT):  # the program is the rank's child
            for pid in processes.descendants(rank.pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, number_)
        if fault:
            rank.struck = fault
            self.tell.fault("fault_fired", rank, fault, time.time_ns())

    # --- what is seen of them -------------------------------------------------------------------------

    def strayed(self) -> list[int]:
        """Where each that has a page left its usual order of collectives."""
        return [r.progress.strayed for r in self._ranks.values() if r.progress is not None]

    def beat(self, now: float) -> None:
        """Tell how far they are."""
        self.tell.beat(self._ranks.values(), now)

    def look(self) -> None:
        """Read their pages, and tell what is new: faults that they did, ends."""
        if self.folder is None:
            return
        for rank in self._ranks.values():
            if rank.reported:
                continue
            path = self.folder / f"rank-{rank.number}.page"
            rank.look(path)
            if rank.progress is not None and rank.pidfd < 0 and not rank.gone:
                self._hold(rank, rank.progress.pid)
            gone = rank.pidfd >= 0 and rank.is_gone()
            if gone:
                rank.look(path)
            self._tell_faults(rank)
            if gone:
                self._report(rank, self._last_words(rank))

    def _tell_faults(self, rank: Rank) -> None:
        if (seen := rank.progress) is None:
            return
        if seen.fault and seen.fault != rank.struck:
            felt = seen.fault < 0
            if felt and rank.struck != -seen.fault:  # it was done and felt between two looks
                self.tell.fault("fault_fired", rank, -seen.fault, seen.fault_wall_ns)
            rank.struck = seen.fault
            kind = "fault_felt" if felt else "fault_fired"
            self.tell.fault(kind, rank, abs(seen.fault), seen.fault_wall_ns)
        if seen.due != rank.due:
            rank.due = seen.due
            if seen.due:
                self.tell.fault("fault_due", rank, seen.due, seen.fault_wall_ns)

    def look_for_shared(self) -> None:
        """Once in a while, learn what shared memory they have."""
        self._segments.look_if_due(self._pids)

    def _pids(self) -> list[int]:
        """Processes that run, those of their programs as well."""
        pids = [r.pid for r in self._ranks.values() if r.pidfd >= 0 and not r.gone]
        if self.programs:
            pids += [below for pid in pids for below in processes.descendants(pid)]
        return pids

    def _hold(self, rank: Rank, pid: int) -> None:
        try:
            if rank.pidfd < 0:
                rank.pidfd, rank.pid = os.pidfd_open(pid), pid
                rank.memory = memory.counter_of(pid)
                rank.memory_kills = memory.kills(rank.memory)
                asyncio.get_running_loop().add_reader(rank.pidfd, self._ended, rank)
        except ProcessLookupError:
            rank.gone = True
            rank.gone_wall_ns = time.time_ns()
            self._report(rank, self._last_words(rank))

    def _ended(self, rank: Rank) -> None:
        """A rank's process ended: looked at in the same moment, so that the first to end is reported first."""
        asyncio.get_running_loop().remove_reader(rank.pidfd)
        self.look()

    def _last_words(self, rank: Rank) -> str:
        """What the rank recorded of its own failure, if it did."""
        return recorder.last_words(self.folder / f"rank-{rank.number}.rec") if self.folder is not None else ""

    def _report(self, rank: Rank, words: str) -> None:
        if rank.reported:
            return
        rank.reported = True
        if not words and memory.kills(rank.memory) > rank.memory_kills:
            words = "killed for memory: its cgroup reached the job's limit on this node; ask for more (node.memory_mb)"
        self.tell.exited(rank, words)

    # --- ending them ----------------------------------------------------------------------------------

    def _running(self) -> list[Rank]:
        return [r for r in self._ranks.values() if r.pidfd >= 0 and not r.is_gone()]

    async def end(self) -> None:
        """End all of them, and remove what they leave; ``alive`` says who could not be ended."""
        if self.programs:
            await self._hear_out()
        self._segments.look(self._pids())
        for rank in self._ranks.values():
            if rank.pidfd >= 0 and not rank.is_gone():
                await asyncio.to_thread(self._kill, rank)  # it may take seconds
        until = time.monotonic() + END_S
        while self._running() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self.alive = [rank.number for rank in self._running()]
        for rank in self._ranks.values():
            if rank.pidfd >= 0:
                asyncio.get_running_loop().remove_reader(rank.pidfd)
                os.close(rank.pidfd)
            if rank.process is not None:
                rank.process.poll()
            rank.close()
        await asyncio.to_thread(self._sweep)
        self._segments.unlink()
        self._ranks = {}

    def end_at_once(self) -> None:
        """The same without a word, as where the node is lost."""
        for rank in self._ranks.values():
            if rank.pidfd >= 0:
                self._kill(rank)
        self._sweep()
        self._segments.unlink()

    async def _hear_out(self) -> None:
        """Have the ranks end their programs, record what these said last, and end; who cannot is made to."""
        asked = [rank for rank in self._running() if state_of(rank.pid) not in STOPPED]
        for rank in asked:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(rank.pidfd, signal.SIGUSR1)
        until = time.monotonic() + HEAR_OUT_S
        while any(not r.is_gone() for r in asked) and time.monotonic() < until:
            await asyncio.sleep(0.005)

    def _kill(self, rank: Rank) -> None:
        if self.programs:
            processes.end_tree(rank.pid, rank.pidfd)
        else:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(rank.pidfd, signal.SIGKILL)

    def _sweep(self) -> None:
        """End what a program left behind when its rank's process was killed: it was adopted by this one."""
        if self.programs:
            keep = self._others()
            processes.end_descendants(os.getpid(), keep)
            processes.reap(keep)
