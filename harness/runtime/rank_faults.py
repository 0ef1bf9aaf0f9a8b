"""Faults that a rank does to itself, at named moments of the loop, and where it waits for one from outside.

Each is published in the rank's page before it is done, so that the agent, who outlives the rank, can say when it
was. A rank knows only the faults that have not struck yet: the supervisor leaves out those that are on record.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from harness.model import fault as model
from harness.model.fault import Fault
from harness.runtime.page import GO_ON, HELD, Page
from harness.runtime.routine import Routine

T = TypeVar("T")

HOLD_S = 20.0  # how long a rank waits at a moment or step for a fault from outside
LOOK_S = 0.002
FULL_BYTES = 2048  # storage.full: what a rank's own records may still grow by
SIGNALS = {
    "rank.kill": "SIGKILL",
    "rank.terminate": "SIGTERM",
    "rank.freeze": "SIGSTOP",
    "rank.pause": "SIGSTOP",
}
CONTROLS = {"control.random_state", "control.position", "control.stale_optimizer"}


class InjectedFault(RuntimeError):
    """What the fault rank.raise raises."""


class RankFaults:
    """The faults of one rank in one attempt.

    Args:
        faults: of the attempt, in the supervisor's order: fault number n is ``faults[n - 1]``.
        armed: numbers of those that may strike now.
        rank: this rank.
        node_index: index of its node in the attempt.
        leader: whether it is the first rank of its node, which waits for faults that hit the node.
        position: its page.
        records: its own file of records, which `storage.full` leaves room to grow a little.
        first_start: whether this is the case's first attempt.
        before: how many of each moment the case has had in earlier attempts.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        armed: Sequence[int],
        rank: int,
        node_index: int,
        leader: bool,
        position: Page,
        records: Path | None = None,
        first_start: bool = False,
        before: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._page, self._records, self._first_start = position, records, first_start
        self._count = dict(before)
        self._routine = Routine()
        mine = [(n, faults[n - 1]) for n in armed]
        self._faults = faults
        self._own = [(n, f) for n, f in mine if _is_rank(f) and _rank_of(f) == rank]
        self._held = [
            (n, f)
            for n, f in mine
            if not _is_rank(f)
            and f.at_event in model.MOMENTS
            and (rank == 0 if f.node < 0 else leader and f.node == node_index)
        ]
        self._held_at_step = [(n, f) for n, f in mine if not _is_rank(f) and f.at_step >= 0]  # by all ranks
        self._collective = ""  # what the next collective meets
        self._kept: Callable[[], Any] | None = None
        self._slow_until = 0.0
        self._limit: tuple[int, int] | None = None
        self._hindering = 0
        self.sabotage: Callable[[str], None] = lambda what: None

    def step(self, step: int) -> None:
        """A step begins."""
        self._routine.begin(step)
        self._page.strayed = self._routine.strayed
        if held := [n for n, f in self._held_at_step if f.at_step == step]:
            section = self._page.section
            self._page.set(section=HELD)
            for n in held:
                self._hold(n)
            self._page.set(section=section)
        for n, fault in self._own:
            if fault.at_step == step and fault.kind not in CONTROLS:
                self._strike(n, fault)
        self._obey()

    def at(self, moment: str) -> None:
        """A named moment has come. A case's very first start restores nothing."""
        if moment == "restore.begin" and self._first_start:
            return
        self._count[moment] = self._count.get(moment, 0) + 1
        self._page.count(model.MOMENTS.index(moment))
        own = [(n, f) for n, f in self._own if self._has_come(f, moment) and f.kind not in CONTROLS]
        for n, fault in own[:1]:  # at one moment one of them
            self._strike(n, fault)
        held = [n for n, f in self._held if self._has_come(f, moment)]
        for n in held[:1]:
            self._hold(n)
        self._obey()

    def _has_come(self, fault: Fault, moment: str) -> bool:
        """Whether its time has come; it may have passed where a rank was lost and with it how far it was."""
        return fault.at_event == moment and fault.at_count <= self._count.get(moment, 0)

    def relieve(self, *, failed: bool) -> None:
        """Saving is over, one way or the other: what hindered it is taken back."""
        if self._limit is not None:
            if failed:
                self._page.strike(fault=-self._hindering)  # it was felt
            resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)
            self._limit = None

    def restored(self) -> None:
        """State was restored and has its committed digest: negative controls strike here."""
        for n, fault in self._own:
            if fault.kind in CONTROLS and (not fault.at_event or self._has_come(fault, fault.at_event)):
                self._page.strike(fault=n)
                self.sabotage(fault.kind.removeprefix("control."))

    def collective(self, call: Callable[[], T]) -> T:
        """Run one collective, counted before it begins, or what the fault makes of it."""
        what, self._collective = self._collective, ""
        if what == "rank.hang":
            self._for_ever()
        if what == "rank.skip_collective":
            return None  # type: ignore[return-value]  # this is the fault
        if what == "rank.reorder_collective":
            self._kept = call
            return None  # type: ignore[return-value]  # this is the fault
        self._note(call)
        answer = call()
        if self._kept is not None:
            kept, self._kept = self._kept, None
            self._routine.do(kept)
            kept()
        return answer

    def _note(self, call: Callable[[], Any]) -> None:
        self._routine.do(call)
        self._page.strayed = self._routine.strayed
        self._page.advance()

    # --- doing it ---------------------------------------------------------------------------------------

    def _hold(self, number: int) -> None:
        self._held = [(n, f) for n, f in self._held if n != number]
        self._page.strike(due=number)
        end = time.monotonic() + HOLD_S
        while self._page.command() != number + GO_ON and time.monotonic() < end:
            time.sleep(LOOK_S)
        self._page.obeyed()
        self._page.strike()

    def _obey(self) -> None:
        number = self._page.command()
        if 0 < number < GO_ON:
            self._page.obeyed()
            self._strike(number, self._faults[number - 1])

    def _strike(self, number: int, fault: Fault) -> None:
        self._own = [(n, f) for n, f in self._own if n != number]
        self._page.strike(fault=number)
        kind = fault.kind
        if kind in SIGNALS:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a rank that waits for its job's end ignores it
            os.kill(os.getpid(), getattr(signal, SIGNALS[kind]))
        elif kind == "rank.abort":
            os.abort()
        elif kind == "rank.segfault":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            ctypes.string_at(0)
        elif kind == "rank.raise":
            raise InjectedFault(f"injected fault {fault.fault_id}: rank.raise")
        elif kind in ("rank.hang", "rank.skip_collective", "rank.reorder_collective"):
            self._collective = kind
            if kind == "rank.hang" and fault.params.get("where") == "step":
                self._for_ever()
        elif kind == "rank.livelock":
            while True:
                self._page.advance()  # it goes on trying, and comes to nothing
                time.sleep(0.01)
        elif kind in ("rank.slow_step", "storage.slow"):
            time.sleep(fault.duration_s)
        elif kind == "storage.full":
            self._limit, self._hindering = resource.getrlimit(resource.RLIMIT_FSIZE), number
            room = FULL_BYTES + (self._records.stat().st_size if self._records is not None else 0)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (int(fault.params.get("bytes") or room), self._limit[1])
            )
        elif kind == "rank.out_of_memory":
            _eat_memory(int(fault.params.get("mb", 256)))
        else:
            raise InjectedFault(f"{kind} is no fault that a rank does")

    @staticmethod
    def _for_ever() -> None:
        while True:
            time.sleep(3600)


def _eat_memory(mb: int) -> None:
    """Ask for more than a limit of this process allows (RLIMIT_AS, a little above what it has now)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (mb << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
    held = []
    while True:
        held.append(bytearray(16 << 20))  # ends with MemoryError


def _is_rank(fault: Fault) -> bool:
    return model.KINDS[fault.kind].where == model.RANK


def _rank_of(fault: Fault) -> int:
    return 0 if fault.role == "checkpoint_writer" else fault.rank
