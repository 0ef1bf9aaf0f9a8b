"""Declared faults that a user's program does to itself or waits for (``harness.program.armed``): the harness's side.

A program that cooperates is told what is armed on its rank. It says each fault before it does it, and does it when
this has put it into the rank's page, so that the agent, who outlives both, can say when. Nothing that it says is
trusted: only what is armed here can strike. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model import fault as model
from harness.model.case import Case
from harness.model.fault import Fault
from harness.runtime import processes
from harness.runtime.page import GO_ON, Page

if TYPE_CHECKING:
    from harness.runtime.rank import Spec

_STOPS = ("rank.freeze", "rank.pause")


def cooperates(case: Case) -> bool:
    """Whether the case's program counts its steps, saves and restores by ``harness.program``."""
    return case.command is not None and bool(case.command.get("cooperates"))


def of_rank(spec: Spec, rank: int) -> dict[int, Fault]:
    """Number -> fault, of those that the program of one rank does or waits for in this attempt."""
    if not cooperates(spec.case):
        return {}
    return {n: f for n in spec.armed if _is_of(f := spec.case.faults[n - 1], spec, rank)}


def is_own(fault: Fault) -> bool:
    """Whether a rank does it to itself, and does not wait for it."""
    return model.KINDS[fault.kind].where == model.RANK


def _is_of(fault: Fault, spec: Spec, rank: int) -> bool:
    if is_own(fault):
        return rank == (0 if fault.role == "checkpoint_writer" else fault.rank)
    if not fault.at_event or fault.at_event == model.RECOVERY:
        return False
    if fault.node < 0:
        return rank == 0
    leads = spec.rank_nodes.index(spec.rank_nodes[rank]) == rank
    return leads and spec.nodes.index(spec.rank_nodes[rank]) == fault.node


def told(faults: dict[int, Fault]) -> str:
    """The same for the program, as JSON."""
    return json.dumps(
        [
            {
                "number": number,
                "kind": fault.kind,
                "step": fault.at_step,
                "event": fault.at_event,
                "time": fault.at_count,
                "for_s": fault.duration_s,
                "params": dict(fault.params),
                "held": not is_own(fault),
            }
            for number, fault in faults.items()
        ]
    )


class Armed:
    """What of it has come, on one rank.

    Args:
        faults: what is armed here.
        said: the file to which the program appends; words for it stand beside.
        position: the rank's page.
    """

    def __init__(self, faults: dict[int, Fault], said: Path, position: Page) -> None:
        self._faults, self._position = faults, position
        self._word, self._order = said.with_name(f"{said.name}.word"), said.with_name(f"{said.name}.do")
        self._due = 0

    def struck(self, number: int) -> None:
        """The program is about to do a fault, and waits for a word."""
        fault = self._one(number, own=True)
        self._position.strike(fault=number)
        if fault.kind not in _STOPS:
            _write(self._word, f"struck {number}")
            return
        below = processes.descendants(os.getpid())  # it is stopped while it waits, and this with it
        _signal(below, signal.SIGSTOP)
        _write(self._word, f"struck {number}")
        os.kill(os.getpid(), signal.SIGSTOP)
        _signal(below, signal.SIGCONT)

    def due(self, number: int) -> None:
        """The program waits at a place for a fault from outside."""
        self._one(number, own=False)
        self._due = number
        self._position.strike(due=number)

    def felt(self, number: int) -> None:
        """What hindered the program's saving was felt."""
        self._one(number, own=True)
        self._position.strike(fault=-number)

    def look(self) -> None:
        """Pass on what the agent says."""
        word = self._position.command()
        if self._due and word == self._due + GO_ON:
            self._position.obeyed()
            self._position.strike()
            _write(self._word, f"go {self._due}")
            self._due = 0
        elif 0 < word < GO_ON:
            self._position.obeyed()
            _write(self._order, str(word))

    def _one(self, number: int, *, own: bool) -> Fault:
        fault = self._faults.get(number)
        if fault is None or is_own(fault) != own:
            raise ValueError("is no fault that is armed here")
        return fault


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="ascii")
    temporary.replace(path)


def _signal(pids: Collection[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)
