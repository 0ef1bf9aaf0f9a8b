"""One mapped page a rank: how far it is, readable from outside while it is stuck in a collective.

The rank writes with plain stores as it goes; the agent on the same node reads. Standard library only.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

SIZE = 4096
# magic, pid, rank, state, step begun, step finished, last change (mono ns), steps in all
_LAYOUT = struct.Struct("<4sIiiqqqq")
_MAGIC = b"HPG2"
SILENT = -1  # steps in all, of a rank that says nothing of its progress: nobody waits for it to advance

STARTING, RUNNING, CLOSING, DONE, FAILED, UNRECORDED = range(6)
# The last one says by itself what no record can say.
STATES = (
    "starting", "running", "closing", "done", "failed", "its node's own disk takes no more records (full, or a quota)",
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """What a page said when it was read. ``begun`` and ``finished`` are step indices, -1 for none.

    ``of`` is the number of steps as the rank itself counts them: 0 when it does not say, ``SILENT`` when it says
    nothing of its progress.
    """

    pid: int
    rank: int
    state: int
    begun: int
    finished: int
    changed_mono_ns: int
    of: int = 0


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
        )

    def set(
        self,
        *,
        state: int | None = None,
        begun: int | None = None,
        finished: int | None = None,
        of: int | None = None,
    ) -> None:
        """Change some values and publish."""
        self.state = self.state if state is None else state
        self.begun = self.begun if begun is None else begun
        self.finished = self.finished if finished is None else finished
        self.of = self.of if of is None else of
        self.write()


def read(path: Path) -> Progress | None:
    """What the page says now; None when it is not there or not whole."""
    try:
        data = path.read_bytes()[: _LAYOUT.size]
    except OSError:
        return None
    if len(data) < _LAYOUT.size:
        return None
    magic, pid, rank, state, begun, finished, changed, of = _LAYOUT.unpack(data)
    if magic != _MAGIC or not 0 <= state < len(STATES):
        return None
    return Progress(pid, rank, state, begun, finished, changed, of)
