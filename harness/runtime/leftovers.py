"""What a killed process leaves on its node, and who takes it away: shared memory of MPI, node-local folders.

An agent that ends by itself leaves nothing. One that was killed leaves its folder, with the names of the shared memory
that its ranks had, and the kernel gives back the lock that it held on it: that is how a folder of ours that nobody
needs is told from one in use. Nothing else is touched. Standard library only.

Run as ``python -m harness.runtime.leftovers`` on a node, by the supervisor at the end of its job.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

SHM = Path("/dev/shm")
_LOCK, _SEGMENTS = "agent.lock", "segments"
# Shared memory that libraries make by themselves, and that is nothing worth once its processes are gone. What a
# program keeps there under a name of its own (a data set, a checkpoint) is not ours to remove.
_OF_LIBRARIES = re.compile(
    r"(mpich_|vader_segment|sm_segment|smcuda_segment|osc_rdma|ucx_shm|ucx_shm_posix|psm[23]_shm|nccl-|"
    r"cray-shared-mem|Intel_MPI_)"
)
_AT_ONCE = re.compile(r"mpich_(shm|vci)_")  # who is in the world has it mapped, and nobody opens it later


def job_name(run: Path, key: str) -> str:
    """The part of a node-local folder's name that says of which job of which run it is.

    By the run's whole path: two runs in folders of the same name may be on one machine.
    """
    path = zlib.crc32(os.fsencode(run.absolute()))
    return f"{os.getuid()}-{run.name[-16:].replace(' ', '_')}-{path:08x}-{key}"


def folder_of(job: str, generation: str, node: str) -> str:
    """Name of the node-local folder of one agent."""
    return f"hh-{job}-{generation}-{node}"


def memory_of(root: Path) -> Path:
    """Where the ranks of an agent with that folder keep checkpoints in the node's memory."""
    return (SHM if SHM.is_dir() else root) / f"{root.name}-memory"


def take(root: Path) -> int:
    """Make an agent's folder anew, and hold it until this process ends; returns the lock's descriptor."""
    shutil.rmtree(root, ignore_errors=True)
    unborn = root.with_name(f".{root.name}.{os.getpid()}")  # never seen without its lock
    unborn.mkdir(mode=0o700, parents=True)
    lock = os.open(unborn / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: then nobody else removes it
        fcntl.flock(lock, fcntl.LOCK_EX)
    unborn.rename(root)
    return lock


def segments_of(pids: Iterable[int]) -> frozenset[Path]:
    """Shared memory of libraries that any of these processes has mapped, and that still has a name."""
    found = set()
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            path = line.partition(" /dev/shm/")[2]
            if path and not path.endswith(" (deleted)") and _OF_LIBRARIES.match(path):
                found.add(SHM / path)
    return frozenset(found)


def note(root: Path, segments: Iterable[Path]) -> None:
    """Keep the names of what the ranks have, for whoever cleans up if this agent cannot."""
    with contextlib.suppress(OSError), open(root / _SEGMENTS, "a", encoding="utf-8") as file:
        file.writelines(f"{segment.name}\n" for segment in segments)


def unlink(segments: Iterable[Path]) -> None:
    """Remove shared memory; what is gone already, or is another user's, stays as it is."""
    for segment in segments:
        with contextlib.suppress(OSError):
            segment.unlink()


def forget_names() -> None:
    """Take away the names of this process's own MPICH segments once every rank of the world has them mapped.

    The memory itself then ends with its last process, however that ends.
    """
    unlink(s for s in segments_of([os.getpid()]) if _AT_ONCE.match(s.name))


def remove(root: Path) -> None:
    """Remove an agent's folder and all that belongs to it."""
    with contextlib.suppress(OSError):
        names = (root / _SEGMENTS).read_text(encoding="utf-8").split("\n")
        unlink(SHM / name for name in names if _OF_LIBRARIES.match(name) and "/" not in name)
    shutil.rmtree(memory_of(root), ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


def sweep(node_local: Path, job: str = "", node: str = "") -> list[str]:
    """Remove this user's folders whose agent is gone; returns their names.

    Args:
        node_local: the site's folder.
        job: those of which job, as ``job_name`` has it (with the key "": of which run); "" for all.
        node: those of which node; "" for all, where one machine plays them.
    """
    removed = []
    prefix, end = f"hh-{job or f'{os.getuid()}-'}", f"-{node}" if node else ""
    for root in sorted(r for r in _ours(node_local, prefix) if r.name.endswith(end)):
        try:
            lock = os.open(root / _LOCK, os.O_RDWR)
        except OSError:
            continue  # not made by `take`, or gone meanwhile
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(root)
            removed.append(root.name)
        except OSError:
            pass  # its agent lives
        finally:
            os.close(lock)
    return removed


def _ours(node_local: Path, prefix: str) -> list[Path]:
    """Folders of this user with such a name; links are none."""
    try:
        entries = list(os.scandir(node_local))
    except OSError:
        return []
    return [
        Path(entry.path)
        for entry in entries
        if entry.name.startswith(prefix)
        and entry.is_dir(follow_symlinks=False)
        and entry.stat(follow_symlinks=False).st_uid == os.getuid()
    ]


def main(environment: Mapping[str, str]) -> None:
    """Sweep up after one node's agent, of the environment that the agent had."""
    node_local, node = Path(environment["HARNESS_NODE_LOCAL"]), environment["HARNESS_NODE"]
    for name in sweep(node_local, f"{environment['HARNESS_JOB']}-", node):
        print(f"removed {name}, which its agent left", flush=True)


if __name__ == "__main__":
    main(os.environ)
