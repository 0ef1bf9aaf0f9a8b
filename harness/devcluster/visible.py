"""Show chosen trees, at their own paths, inside a private mount namespace.

Two things hide them there. An ordinary user cannot pass a folder such as /root (mode 0700), where
the interpreter may live; and each node has its own /tmp, where the project may live. Both are cured
in the same way: an empty tmpfs over the folder in the way, and the chosen trees bound back into it.
Only the calling process's own mount namespace changes; never use it outside a private one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.devcluster import linux
from harness.devcluster.errors import ClusterError

_MOST_ROUNDS = 16
# A tree that contains one of these would make a private place public again, or is the whole machine.
_NEVER = ("/", "/dev", "/dev/shm", "/proc", "/run", "/sys", "/tmp", "/var", "/var/tmp")


def resolve(paths: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The real folders behind `paths`, outermost first, and the symbolic links on the way to them."""
    folders: set[str] = set()
    links: dict[str, str] = {}
    pending = [os.path.abspath(path) for path in paths]
    while pending:
        path = pending.pop()
        link = _first_link(path)
        if link is None:
            folders.add(path)
            continue
        target = os.readlink(link)
        links[link] = target
        rest = os.path.relpath(path, link)
        pending.append(os.path.normpath(os.path.join(os.path.dirname(link), target, rest)))
    return tuple(sorted(folders)), links


def _first_link(path: str) -> str | None:
    current = "/"
    for part in Path(path).parts[1:]:
        current = os.path.join(current, part)
        if os.path.islink(current):
            return current
    return None


def first_blocked(path: str) -> str | None:
    """The first folder on the way to `path` (itself included) that an ordinary user cannot enter."""
    folders = [*reversed([str(parent) for parent in Path(path).parents]), path]
    for folder in folders:
        try:
            mode = os.stat(folder).st_mode
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(mode) and not mode & stat.S_IXOTH:
            return folder
    return None


def check_shareable(path: str) -> None:
    """Refuse a tree that cannot be shown to an ordinary user, or that is no tree of a project."""
    real = os.path.realpath(path)
    if real in _NEVER:
        raise ClusterError(f"--share {path}: {real} is not shared; name a folder below it", exit_status=2)
    try:
        mode = os.stat(real).st_mode
    except OSError as error:
        raise ClusterError(f"--share {path}: {error.strerror}", exit_status=2) from error
    if not stat.S_ISDIR(mode):
        raise ClusterError(f"--share {path}: not a folder", exit_status=2)
    if mode & 0o005 != 0o005:
        raise ClusterError(
            f"{real}: mode {stat.S_IMODE(mode):04o}, so that the cluster's ordinary user cannot read it;"
            f" run: chmod o+rx {real}"
        )


class Shown:
    """The trees to show, held open, so that they can be bound from beneath whatever covers them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.folders, self.links = resolve(paths)
        self._descriptors = {
            folder: os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for folder in self.folders
        }

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def cover(self, point: str, mode: int, source: str) -> None:
        """Mount an empty tmpfs called `source` at `point`, and show our trees in it again."""
        linux.mount(source, point, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"mode={mode:04o}")
        self.show_below(point)

    def show_below(self, point: str) -> None:
        """Bind the trees that belong below `point` back, outermost first."""
        for folder in self.folders:
            if _below(folder, point) and not self._is_shown(folder):
                os.makedirs(folder, mode=0o755, exist_ok=True)
                linux.bind(f"/proc/self/fd/{self._descriptors[folder]}", folder)
        for link, target in self.links.items():
            if _below(link, point) and not os.path.lexists(link):
                os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
                os.symlink(target, link)

    def open_ways(self, source: str) -> None:
        """Make every tree reachable by an ordinary user, covering what is in the way."""
        for _ in range(_MOST_ROUNDS):
            blocked = outermost(
                point
                for point in (first_blocked(path) for path in (*self.folders, *self.links))
                if point is not None
            )
            if not blocked:
                return
            for point in blocked:
                if point in self._descriptors:
                    raise ClusterError(f"{point}: an ordinary user cannot enter it; run: chmod o+rx {point}")
                self.cover(point, 0o755, source)
        raise ClusterError(f"no way for an ordinary user to {', '.join(self.folders)}; share fewer folders")

    def _is_shown(self, folder: str) -> bool:
        try:
            return os.path.samestat(os.stat(folder), os.fstat(self._descriptors[folder]))
        except FileNotFoundError:
            return False


def outermost(points: Iterable[str]) -> Sequence[str]:
    """Those points that lie below no other."""
    unique = sorted(set(points))
    return [point for point in unique if not any(_below(point, other) for other in unique)]


def _below(path: str, point: str) -> bool:
    return path != point and path.startswith(point.rstrip("/") + "/")
