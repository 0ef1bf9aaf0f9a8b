"""A file under HDF5 whose storage may fail without HDF5 noticing.

HDF5 that meets a full disk cannot close its file any more: its library stays in disorder, and the process may
abort when it ends. So errors are kept here, for the writer to raise between two calls; what storage did not take is
held in memory until HDF5 has closed, which is at most one call's worth.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path


class SteadyFile:
    """What ``h5py.File`` needs of a file object. ``error`` is the first thing that went wrong."""

    def __init__(self, path: Path) -> None:
        """Begin a file beside ``path``, under a name that nobody else uses.

        Raises:
            OSError: there can be none.
        """
        self.path, self._descriptor = _begin(path)
        self.error: BaseException | None = None
        self._held: list[tuple[int, bytes]] = []
        self._position = self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._position = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        )
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        data = bytearray(self._size - self._position if size < 0 else size)
        return bytes(data[: self.readinto(data)])

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer with what was written here, whether storage took it or not."""
        view = memoryview(buffer).cast("B")
        begin, end = self._position, min(self._position + len(view), self._size)
        done = begin
        try:
            while done < end:
                got = os.preadv(self._descriptor, [view[done - begin : end - begin]], done)
                if not got:
                    break  # a hole that only memory holds
                done += got
        except BaseException as error:
            self.error = self.error or error
        for offset, data in self._held:
            low, high = max(begin, offset), min(end, offset + len(data))
            if low < high:
                view[low - begin : high - begin] = data[low - offset : high - offset]
        self._position = max(begin, end)
        return max(0, end - begin)

    def write(self, data: bytes | memoryview) -> int:
        """Write; an error is kept, and the data too."""
        view = memoryview(data).cast("B")
        begin = self._position
        if self.error is None:
            try:
                done = 0
                while done < len(view):
                    done += os.pwrite(self._descriptor, view[done:], begin + done)
            except BaseException as error:
                self.error = error
        if self.error is not None:
            self._held.append((begin, bytes(view)))
        self._position = begin + len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """As of any file."""
        self._size = self._position if size is None else size
        if self.error is None:
            try:
                os.ftruncate(self._descriptor, self._size)
            except BaseException as error:
                self.error = error
        return self._size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def raise_error(self) -> None:
        """Raise what went wrong, if anything did.

        Raises:
            OSError: storage does not take it.
        """
        if self.error is not None:
            raise self.error

    def sync(self) -> None:
        """Put it on storage.

        Raises:
            OSError: storage does not take it.
        """
        self.raise_error()
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file, and of the lock on it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _begin(path: Path) -> tuple[Path, int]:
    """A new file, locked for as long as this process lives: so that others see that it is not abandoned."""
    _remove_abandoned(path)
    while True:
        own = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: then nobody removes anything either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return own, descriptor
        os.close(descriptor)  # before it was locked it looked abandoned, and was removed


def _remove_abandoned(path: Path) -> None:
    """Remove what writers of the same file left that were killed: files beside it that nobody has locked."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):  # not ours, locked, or gone already
            descriptor = os.open(left, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(descriptor)
