"""Faults that a program did to itself (``harness.program.faults``): what it said before, and what of it was seen.

It says a fault before it does it, so what it says is a request. That it had its effect is seen from outside: how the
program ended, that the kernel calls it stopped, that it says nothing for a while. Standard library only.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from harness.model import event as ev
from harness.runtime.watched import state_of

Tell = Callable[[str, int, int, Mapping[str, Any]], None]  # kind, wall_ns, mono_ns, data

QUIET_S = 0.3  # a program that hangs or sleeps has said nothing for so long
_SIGNALS = {
    "rank.kill": signal.SIGKILL,
    "rank.terminate": signal.SIGTERM,
    "rank.abort": signal.SIGABRT,
    "rank.segfault": signal.SIGSEGV,
}
_QUIET = ("rank.hang", "rank.slow_step", "storage.slow")
_STOPS = ("rank.freeze", "rank.pause")
_ENDS = ("rank.raise", "rank.out_of_memory", *_SIGNALS)
KINDS = (*_ENDS, *_QUIET, *_STOPS, "rank.livelock", "storage.full")
TRIES = 10  # a program that tries so often, and does nothing else, is in a livelock


class SaidFaults:
    """The faults of one rank's program."""

    def __init__(self, tell: Tell, node: str, case_id: str) -> None:
        self._tell, self._node, self._case_id = tell, node, case_id
        self._pending: dict[str, dict[str, Any]] = {}  # requested, their effect not seen yet
        self._open: dict[str, dict[str, Any]] = {}  # requested, not known to be over
        self._tried = 0
        self._since = 0.0  # when the last of them was heard of

    def requested(self, said: Mapping[str, Any]) -> None:
        """A line that says a fault, just before it is done.

        Raises:
            KeyError, ValueError, TypeError: it is no such line.
        """
        kind, rank = str(said["fault"]), int(said["rank"])
        if kind not in KINDS:
            raise ValueError("is no fault that a program can do")
        fault: dict[str, Any] = {
            "fault_id": self._id(said["id"]),
            "kind": kind,
            "requested_kind": kind,
            "target": f"rank {rank}",
            "rank": rank,
            "node": self._node,
            "step": int(said["step"]),
            "at": str(said["at"])[:200],
            "duration_s": float(said["for_s"]),
            "expect": str(said["expect"])[:20],
            "because": str(said.get("because", ""))[:200],
            "by": "program",
            "pid": int(said["pid"]),
        }
        stamps = int(said["wall_ns"]), int(said["mono_ns"])
        self._tell(ev.FAULT_REQUESTED, *stamps, fault)
        self._tell(ev.FAULT_INJECTED, *stamps, {**fault, "evidence": {"said": "by the program, just before"}})
        self._pending[fault["fault_id"]] = self._open[fault["fault_id"]] = fault
        self._since, self._tried = time.monotonic(), 0

    def over(self, said: Mapping[str, Any]) -> None:
        """A line that says that a fault is over, and the program goes on."""
        fault = self._open.pop(self._id(said["fault_over"]), None)
        if fault is None:
            return
        stamps = int(said["wall_ns"]), int(said["mono_ns"])
        evidence = {"said": "by the program, which goes on"}
        felt = fault["duration_s"] or said.get("felt")
        if self._pending.pop(fault["fault_id"], None) and felt:
            self._tell(ev.FAULT_OBSERVED, *stamps, {**fault, "evidence": evidence})
        self._tell(ev.FAULT_HEALED, *stamps, {**fault, "evidence": evidence})

    def look(self) -> None:
        """See whether the effect of a fault shows while the program lives."""
        for fault in list(self._pending.values()):
            if fault["kind"] in _STOPS and state_of(fault["pid"]) == "T":
                self._observe(fault, {"state": "T", "pid": fault["pid"]})
            quiet_s = time.monotonic() - self._since
            if fault["kind"] in _QUIET and quiet_s > QUIET_S:
                self._observe(fault, {"quiet_s": round(quiet_s, 3)})

    def tries(self) -> None:
        """The program says that it tries once more."""
        self._tried += 1
        for fault in [f for f in self._pending.values() if f["kind"] == "rank.livelock"]:
            if self._tried >= TRIES:
                self._observe(fault, {"tries": self._tried})

    def heard(self) -> None:
        """The program has said something else."""
        self._since = time.monotonic()

    def ended(self, code: int) -> None:
        """The program has ended with this return code (minus its signal), and nothing of it is left."""
        for fault in list(self._open.values()):
            number = _SIGNALS.get(fault["kind"])
            as_meant = code in (-number, 128 + number) if number is not None else code > 0
            if fault["kind"] in _ENDS and as_meant:
                self._observe(fault, {"return_code": code})
            evidence = {"ended": "with the program, of which nothing is left"}
            self._tell(ev.FAULT_HEALED, time.time_ns(), time.monotonic_ns(), {**fault, "evidence": evidence})
        self._open.clear()

    def _id(self, said: object) -> str:
        return f"{self._case_id}-{str(said)[:100]}"

    def _observe(self, fault: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
        if self._pending.pop(fault["fault_id"], None) is not None:
            data = {**fault, "evidence": dict(evidence)}
            self._tell(ev.FAULT_OBSERVED, time.time_ns(), time.monotonic_ns(), data)
