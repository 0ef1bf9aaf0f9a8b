"""A shared folder as another machine sees it: every file late, each at its own pace, in any order.

What jobs wrote is copied piece by piece from a run that has ended into a second folder, which is the
reader's view. Only one thing is kept of the true order: a file that grows, grows. A file may show before
one that was written earlier, a name before its content, a length before the bytes (zeros stand there,
as NFS shows them), and any file may stay away until the end.
"""

from __future__ import annotations

import random
from pathlib import Path

# Of these a reader sees the old or the new whole, or (here, to be strict) the new one cut short.
_PIECES = 4  # most pieces in which a file shows


class DelayedFolder:
    """The reader's view of ``source``, below ``target``, which holds what the reader wrote itself."""

    def __init__(self, source: Path, target: Path, rng: random.Random) -> None:
        self._source, self._target, self._rng = source, target, rng
        self._left: dict[
            Path, list[tuple[int, int]]
        ] = {}  # file -> (length that shows, of it whole), in order
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            size = path.stat().st_size
            cuts = sorted(rng.randint(0, size) for _ in range(rng.randint(0, _PIECES - 1)))
            shows = [(cut, cut) for cut in cuts]
            if rng.random() < 0.3:  # the length of the next piece is seen first, and zeros
                shows.append((size, shows[-1][1] if shows else 0))
            self._left[path.relative_to(source)] = [*shows, (size, size)]

    @property
    def complete(self) -> bool:
        """Whether everything shows."""
        return not self._left

    def show_more(self, pieces: int = 1, among: list[Path] | None = None) -> None:
        """Let some more of some files show."""
        for _ in range(pieces):
            names = [name for name in self._left if among is None or name in among]
            if not names:
                return
            self._show(self._rng.choice(names))

    def show_all(self, but: str = "") -> None:
        """Let everything show, but for files of that name."""
        for name in [name for name in self._left if not but or name.name != but]:
            self._left[name] = self._left[name][-1:]
            self._show(name)

    def _show(self, name: Path) -> None:
        length, whole = self._left[name].pop(0)
        if not self._left[name]:
            del self._left[name]
        path = self._target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((self._source / name).read_bytes()[:whole].ljust(length, b"\0"))
