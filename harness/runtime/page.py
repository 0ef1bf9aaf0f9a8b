"""One mapped page a rank: how far it is, readable from outside while it is stuck in a collective.

The rank writes with plain stores as it goes; the agent on the same node reads, and can answer in a word of its
own. Standard library only.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

SIZE = 4096
# magic, pid, rank, state, step begun, step finished, last change (mono ns), steps in all,
# sequence number of collectives, section, section's begin (mono ns), fault it does, fault it waits for, when (wall ns),
# step in which it strayed from its routine, how many of each moment have come
_LAYOUT = struct.Struct("<4sIiiqqqqqiqiiqq4i")
_MAGIC = b"HPG4"
_COMMAND = struct.Struct("<i")
_COMMAND_AT = 2048  # written by the agent alone: the number of a fault, and GO_ON added to it for "go on"
GO_ON = 1 << 20
_SAVE = struct.Struct("<q")
_SAVE_AT = (
    2056  # written by the agent alone: after so many steps a checkpoint is wanted, whatever the interval
)
SILENT = -1  # steps in all, of a rank that says nothing of its progress: nobody waits for it to advance

STARTING, RUNNING, CLOSING, DONE, FAILED, UNRECORDED = range(6)
# The last one says by itself what no record can say.
STATES = (
    "starting", "running", "closing", "done", "failed", "its node's own disk takes no more records (full, or a quota)",
)  # fmt: skip

# HELD: at the beginning of a step, for a fault from outside. EARLY: one of an attempt's first EARLY_STEPS steps, which
# may take as long as a start: libraries connect, compile and tune themselves.
SETUP, LOAD, STEP, SAVE, CLOSE, HELD, EARLY = range(7)
SECTIONS = ("setup", "load", "step", "save", "close", "held", "early step")
EARLY_STEPS = 3


@dataclass(frozen=True)
class Progress:
    """What a page said when it was read. ``begun`` and ``finished`` are step indices, -1 for none.

    ``of`` is the number of steps as the rank itself counts them: 0 when it does not say, ``SILENT`` when it says
    nothing of its progress. ``sequence`` counts what the rank does in concert with others (each collective, each
    step begun); ``fault`` and ``due`` are numbers of faults counted from 1, 0 for none. ``strayed`` is of
    ``harness.runtime.routine``; ``moments`` counts those of ``harness.model.fault.MOMENTS`` in this attempt.
    """

    pid: int
    rank: int
    state: int
    begun: int
    finished: int
    changed_mono_ns: int
    of: int = 0
    sequence: int = 0
    section: int = SETUP
    section_mono_ns: int = 0
    fault: int = 0
    due: int = 0
    fault_wall_ns: int = 0
    strayed: int = -1
    moments: tuple[int, ...] = (0, 0, 0, 0)


class Page:
    """The writer's side; belongs to one rank."""

    def __init__(self, path: Path, rank: int) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(
                descriptor, 0, SIZE
            )  # a store to a page for which there is no room would kill us
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._rank = rank
        self._pid = os.getpid()
        self.state, self.begun, self.finished, self.of = STARTING, -1, -1, 0
        self.sequence, self.section, self._section_ns = 0, SETUP, time.monotonic_ns()
        self.fault, self.due, self._fault_ns = 0, 0, 0
        self.strayed, self.moments = -1, [0, 0, 0, 0]
        self.write()
        temporary.replace(path)  # a reader never sees an empty page

    def write(self) -> None:
        """Publish the present values."""
        _LAYOUT.pack_into(
            self._map,
            0,
            _MAGIC,
            self._pid,
            self._rank,
            self.state,
            self.begun,
            self.finished,
            time.monotonic_ns(),
            self.of,
            self.sequence,
            self.section,
            self._section_ns,
            self.fault,
            self.due,
            self._fault_ns,
            self.strayed,
            *self.moments,
        )

    def set(
        self,
        *,
        state: int | None = None,
        begun: int | None = None,
        finished: int | None = None,
        of: int | None = None,
        section: int | None = None,
    ) -> None:
        """Change some values and publish."""
        self.state = self.state if state is None else state
        self.begun = self.begun if begun is None else begun
        self.finished = self.finished if finished is None else finished
        self.of = self.of if of is None else of
        if section is not None:
            self.section, self._section_ns = section, time.monotonic_ns()
        self.write()

    def advance(self) -> None:
        """Count one more thing that is done in concert with other ranks."""
        self.sequence += 1
        self.write()

    def count(self, moment: int) -> None:
        """One of the moments has come, by its index."""
        self.moments[moment] += 1
        self.write()

    def strike(self, fault: int = 0, due: int = 0) -> None:
        """Say which fault this rank is doing, or waits for; the moment is now."""
        self.fault, self.due, self._fault_ns = fault, due, time.time_ns()
        self.write()

    def command(self) -> int:
        """What the agent wrote: 0, or the number of a fault, with ``GO_ON`` added once it was done."""
        return int(_COMMAND.unpack_from(self._map, _COMMAND_AT)[0])

    def save_at(self) -> int:
        """After how many steps a checkpoint is wanted besides those that are due; 0 for none."""
        return int(_SAVE.unpack_from(self._map, _SAVE_AT)[0])

    def obeyed(self) -> None:
        """Clear the agent's word."""
        _COMMAND.pack_into(self._map, _COMMAND_AT, 0)


class View:
    """The reader's side: a page mapped once and read often."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)

    def read(self) -> Progress | None:
        """What the page says now; None when it is not whole."""
        return _progress(self._map[: _LAYOUT.size])

    def command(self, word: int) -> None:
        """Tell the rank something; it looks at its named moments."""
        _COMMAND.pack_into(self._map, _COMMAND_AT, word)

    def save_at(self, steps: int) -> None:
        """Ask for a checkpoint after so many steps; the same number on all ranks, and ahead of them all."""
        _SAVE.pack_into(self._map, _SAVE_AT, steps)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


def view(path: Path) -> View | None:
    """A page to read often; None when it is not there yet."""
    try:
        return View(path)
    except (OSError, ValueError):  # ValueError: shorter than a page
        return None


def read(path: Path) -> Progress | None:
    """What the page says now; None when it is not there or not whole."""
    try:
        data = path.read_bytes()[: _LAYOUT.size]
    except OSError:
        return None
    return _progress(data)


def _progress(data: bytes) -> Progress | None:
    if len(data) < _LAYOUT.size:
        return None
    magic, *said = _LAYOUT.unpack(data)
    if magic != _MAGIC or not 0 <= said[2] < len(STATES):
        return None
    return Progress(*said[:-4], *[tuple(said[-4:])])
