"""A rank's files of a checkpoint: hashed while they are written, hashed again before they are loaded."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from harness.rundir import sync_folder
from harness.runtime import digest
from harness.runtime.checkpoint_files import ALGORITHM, Stamp, bound

BLOCK_BYTES = 1 << 20  # hashed and written, or read and hashed, while it is in a core's cache


class Writer:
    """What a workload saves through: see ``harness.workloads.api.CheckpointWriter``."""

    def __init__(self, folder: Path, stamp: Stamp, rank: int, level: str, engine: str, keeper: int) -> None:
        """``keeper``: the rank that writes what all ranks hold alike, for this rank to read."""
        self.folder, self.engine, self.level = folder, engine, level
        self.writes_shared = keeper == rank
        self.files: dict[str, dict[str, Any]] = {}  # of those that are closed: name -> what the manifest says
        self.problem = ""  # the first that storage made; libraries hide it behind errors of their own
        self._stamp, self._rank = stamp, rank

    @property
    def bytes(self) -> int:
        """In all files that are closed."""
        return sum(int(facts["bytes"]) for facts in self.files.values())

    def open(self, name: str, everyone: bool = False) -> BinaryIO:
        """A new file of this rank's; ``everyone``: all who look into this folder load it.

        Raises:
            OSError: it cannot be made; a file that exists is refused.
        """
        path = self.folder / name
        if path.parent != self.folder:
            path.parent.mkdir(exist_ok=True)
        try:
            stream = path.open("xb")
        except OSError as error:
            self._keep(error)
            raise
        return cast(
            BinaryIO,
            _Hashed(stream, bound(self._stamp, self._rank, name), self._closed(name, everyone), self._keep),
        )

    def sync_folders(self) -> None:
        """Make the names of files in folders of their own durable."""
        for inner in {(self.folder / name).parent for name in self.files} - {self.folder}:
            sync_folder(inner)

    def _closed(self, name: str, everyone: bool) -> Callable[[int, str], None]:
        def keep(size: int, said: str) -> None:
            self.files[name] = {"bytes": size, ALGORITHM: said, "everyone": everyone}

        return keep

    def _keep(self, error: OSError) -> None:
        self.problem = self.problem or f"{error.filename or self.folder}: {error.strerror or error}"


class _Hashed(io.RawIOBase):
    """A new file, written from front to back, hashed on the way, and on disk when it is closed."""

    def __init__(
        self,
        stream: BinaryIO,
        first: bytes,
        closed: Callable[[int, str], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self._stream, self._closed_with, self._failed = stream, closed, failed
        self._hash = digest.hasher(first)
        self._size = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        """All of ``data``; libraries rely on it."""
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), BLOCK_BYTES):
                block = view[start : start + BLOCK_BYTES]
                self._hash.update(block)
                self._stream.write(block)
        except OSError as error:
            self._failed(error)
            raise
        self._size += len(view)
        return len(view)

    def flush(self) -> None:
        """Not before it is closed: one fsync a file."""

    def close(self) -> None:
        """Flush, sync, and say how it came out."""
        if self.closed:
            return
        super().close()
        try:
            with self._stream:
                self._stream.flush()
                os.fsync(self._stream.fileno())
        except OSError as error:
            self._failed(error)
            raise
        self._closed_with(self._size, self._hash.hexdigest())


class Reader:
    """What a workload restores from: see ``harness.workloads.api.CheckpointReader``. Its files are verified."""

    def __init__(self, folder: Path, level: str, engine: str, world: int) -> None:
        self.folder, self.level, self.engine, self.world = folder, level, engine, world

    def open(self, name: str) -> BinaryIO:
        """A file of the checkpoint, to read."""
        return (self.folder / name).open("rb")


def what_is_wrong(folder: Path, stamp: Stamp, rank: int, name: str, facts: Mapping[str, Any]) -> str:
    """What is wrong with one file of a checkpoint, "" when it is as it was committed; reads all of it."""
    try:
        with (folder / name).open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            if size != facts["bytes"]:
                return f"wrong length: {size} bytes, {facts['bytes']} were committed"
            said = _digest_of(stream, bound(stamp, rank, name))
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return "" if said == facts[ALGORITHM] else f"wrong digest: {said}, {facts[ALGORITHM]} was committed"


def _digest_of(stream: io.FileIO, first: bytes) -> str:
    state = digest.hasher(first)
    block = bytearray(BLOCK_BYTES)
    view = memoryview(block)
    while count := stream.readinto(block):
        state.update(view[:count])
    return str(state.hexdigest())
