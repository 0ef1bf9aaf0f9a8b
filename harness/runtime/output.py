"""A program's output, line by line, and its log: bounded in memory and on disk, whatever it writes.

A line ends at a line feed or a carriage return, as progress bars end theirs. Of a line longer than
LINE_BYTES only the beginning is looked at. The log keeps the first LOG_BYTES as they came and the last
TAIL_BYTES, and says what lies between. Bytes that are no UTF-8 become replacement characters in lines, and stay as
they are in the log. Standard library only.
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Callable
from pathlib import Path

LINE_BYTES = 1 << 16
LOG_BYTES = 64 << 20
TAIL_BYTES = 1 << 16
_ENDS = re.compile(rb"[\r\n]")


class Lines:
    """Cuts a stream of bytes into lines for ``heard``; one object for each of a program's streams."""

    def __init__(self, heard: Callable[[str], object]) -> None:
        self._heard = heard
        self._rest = b""
        self._skipping = False  # inside a line whose beginning was heard already

    def feed(self, data: bytes) -> None:
        """Take what was read; empty lines are heard of by nobody."""
        *lines, rest = _ENDS.split(self._rest + data)
        for line in lines:
            self._end(line)
        if len(rest) > LINE_BYTES:
            if not self._skipping:
                self._say(rest[:LINE_BYTES])
            self._skipping, rest = True, b""
        self._rest = rest

    def close(self) -> None:
        """Take the rest for a line: a program need not end its last one."""
        self._end(self._rest)
        self._rest = b""

    def _end(self, line: bytes) -> None:
        if line and not self._skipping:
            self._say(line[:LINE_BYTES])
        self._skipping = False

    def _say(self, line: bytes) -> None:
        self._heard(line.decode("utf-8", errors="replace"))


class Log:
    """The file that keeps what a program wrote."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._room = LOG_BYTES
        self._beyond = 0
        self._tail: collections.deque[bytes] = collections.deque()
        self._tail_bytes = 0
        self._at_start = True  # of a line

    def write(self, data: bytes) -> None:
        """Keep what was read."""
        if self._room > 0:
            part, data = data[: self._room], data[self._room :]
            self._room -= len(part)
            self._put(part)
        if data:
            self._beyond += len(data)
            self._tail.append(data)
            self._tail_bytes += len(data)
            while self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:
                self._tail_bytes -= len(self._tail.popleft())

    def note(self, words: str) -> None:
        """A line of the harness's own."""
        self._put((b"" if self._at_start else b"\n") + f"[harness] {words}\n".encode())

    def close(self) -> None:
        """Write the end of what was too long to be kept whole."""
        if self._beyond:
            tail = b"".join(self._tail)[-TAIL_BYTES:]
            left_out = self._beyond - len(tail)
            self._put(f"\n[harness] {left_out} bytes are not kept here; the last ones follow\n".encode())
            self._put(tail)
        os.close(self._descriptor)

    def _put(self, data: bytes) -> None:
        self._at_start = data.endswith(b"\n") if data else self._at_start
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
