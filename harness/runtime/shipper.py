"""Moves whole records from a node's local files into one stream on shared storage. Standard library only.

The local files keep everything until the attempt is over, so storage that takes no more for a while loses
nothing: what was written in part is taken back, and the next shipping begins where the last whole one ended.
It decides nothing: what storage says is told to whoever asked.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.rundir import named, write_all
from harness.runtime import recorder

SYNC_S = 1.0


@dataclass
class Shipper:
    """Appends the whole frames of ``source``'s files to ``target``. Runs off the event loop; calls wait for each other.

    The last shipping of an attempt may meet one that its agent began a moment before: together they would ship twice.
    """

    source: Path
    target: Path
    offsets: dict[str, int] = field(default_factory=dict)
    length: int = 0
    records: int = 0
    synced: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ship(self, *, sync: bool) -> None:
        """Move what is new; ``sync`` forces it to storage at once.

        Raises:
            OSError: storage takes no more; the next call begins where the last whole file ended.
        """
        with self.lock:
            self._ship(sync=sync)

    def _ship(self, *, sync: bool) -> None:
        descriptor = os.open(self.target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with named(self.target):
                if os.fstat(descriptor).st_size > self.length:
                    os.ftruncate(descriptor, self.length)  # written in part, when storage was full
                for path in sorted(self.source.glob("*.rec")):
                    data, records = self._new(path)
                    write_all(descriptor, data)
                    self.offsets[path.name] = self.offsets.get(path.name, 0) + len(data)
                    self.length += len(data)
                    self.records += records
                now = time.monotonic()
                if sync or now - self.synced >= SYNC_S:
                    os.fsync(descriptor)
                    self.synced = now
        finally:
            os.close(descriptor)

    def recorded(self) -> tuple[int, int]:
        """Bytes and records that the stream must hold in the end: those shipped, and those that are not yet."""
        with self.lock:
            return self._recorded()

    def _recorded(self) -> tuple[int, int]:
        new = [self._new(path) for path in self.source.glob("*.rec")]
        return self.length + sum(len(data) for data, _ in new), self.records + sum(n for _, n in new)

    def _new(self, path: Path) -> tuple[bytes, int]:
        """Whole frames of a file that were not shipped, and their number."""
        with path.open("rb") as file:
            file.seek(self.offsets.get(path.name, 0))
            data = file.read()
        length, count = recorder.split(data)
        return data[:length], count
