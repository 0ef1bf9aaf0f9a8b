"""io.shards: in each step every rank writes a shard and reads one that another rank wrote, checked by its content.

``where`` is shared storage (the attempt's folder in the run folder) or node-local storage. On shared storage a rank
reads what a rank of another node wrote, where there is one; on node-local storage what the next rank of its
own node wrote, and its own where it is alone there. Shards are deleted once they were read.

What is timed. Write: from open to close, in calls of ``block_bytes``, ``fsync`` included where it is asked for; without
it the figure is that of memory. Read: from open to close. Making and comparing contents is not timed, nor are the
barriers before each. All ranks write at once, and all read at once.

The page cache. ``cache: drop`` has the writer write back and forget its shard (posix_fadvise DONTNEED) before it is
read; ``direct`` passes the cache by (O_DIRECT), and is refused where the file system takes it not;
``keep`` leaves the cache alone. Each row says how many bytes of the shard were in the reader's cache all the same
(``cached_bytes``): those were not read from storage, and on a file system in memory it is all. What a disk's or a
server's own cache holds cannot be told from here.

A shard is a stream of random numbers made from (seed, step, rank), so a part that is missing, old, or in another's
place differs. It is held in memory twice, once written and once read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from harness.runtime import digest
from harness.workloads import REGISTRY, page_cache
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.mpi_world import MpiWorld

DIRECT_BYTES = 4096  # what O_DIRECT's sizes and places must be multiples of, everywhere
Bytes = NDArray[np.uint8]


def content(seed: int, step: int, rank: int, size: int) -> Bytes:
    """What a rank writes in a step."""
    numbers = np.random.PCG64(digest.number(seed, "shard", step, rank)).random_raw(-(-size // 8))
    return numbers.view(np.uint8)[:size]


def source_of(rank: int, places: list[str], where: str) -> int:
    """Whose shard a rank reads; each shard is read once.

    Args:
        rank: the reader.
        places: of all ranks, in their order: the node and its node-local folder.
        where: shared or node-local.
    """
    if where == "node-local":
        mates = [r for r, place in enumerate(places) if place == places[rank]]
        return mates[(mates.index(rank) + 1) % len(mates)]
    shift = places.count(places[0]) if len(set(places)) > 1 else 1
    return (rank + shift) % len(places)


class IoShards(MpiWorld):
    """The workload on one rank. It has no state: a step's shard depends on its number alone."""

    tables = REGISTRY["io.shards"].tables
    controls: tuple[str, ...] = ()  # there is no state that a control could spoil

    def setup(self, context: RankContext) -> None:
        """Join, find out who reads whose, make the folder, try O_DIRECT where it is asked for."""
        params = cast(Mapping[str, Any], context.params)
        self.bytes, self.block = int(params["shard_bytes"]), int(params["block_bytes"])
        self.where, self.cache, self.fsync = str(params["where"]), str(params["cache"]), bool(params["fsync"])
        if self.cache == "direct":
            for name, value in (("shard_bytes", self.bytes), ("block_bytes", self.block)):
                if value % DIRECT_BYTES:
                    raise ValueError(
                        f"{name} = {value} is not a multiple of {DIRECT_BYTES}, which cache: direct needs"
                    )
        self.join(context)
        told = self.gather([socket.gethostname(), str(context.folders["node-local"])])
        self.places = [str(place) for place in self.broadcast(told)]
        self.source = source_of(context.rank, self.places, self.where)
        self.folder = Path(context.folders[self.where]) / "shards"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.flags = os.O_DIRECT if self.cache == "direct" else 0
        if self.flags:
            self._try_direct()
        # Page by page from the kernel, as O_DIRECT wants it, and touched before anything is timed.
        self.out, self.back = (np.frombuffer(mmap.mmap(-1, self.bytes), dtype=np.uint8) for _ in range(2))
        self.wrong, self.shards, self.first, self.cached = 0, 0, "", 0

    def _try_direct(self) -> None:
        path = self.folder / f"direct-{self.context.rank}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | self.flags, 0o600)
            try:
                os.write(descriptor, mmap.mmap(-1, DIRECT_BYTES))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ValueError(
                f"cache = direct: {self.folder} takes no O_DIRECT ({error.strerror}); choose cache: drop"
            ) from error
        finally:
            path.unlink(missing_ok=True)

    def path(self, step: int, rank: int) -> Path:
        """Of the shard that a rank writes in a step."""
        return self.folder / f"step-{step}.rank-{rank}"

    def step(self, step: int) -> Mapping[str, int | float]:
        """Write, forget, read, compare, delete."""
        rank = self.context.rank
        own, others = self.path(step, rank), self.path(step, self.source)
        self.out[:] = content(self.context.seed, step, rank, self.bytes)
        self.back[:] = 0
        self.context.collective(self.barrier)
        write_ns, fsync_ns = self.write(own)
        if self.cache == "drop":
            page_cache.drop(own)
        self.context.collective(self.barrier)
        cached = page_cache.cached_bytes(others)
        self.context.collective(self.barrier)
        read_ns = self.read(others)
        self.context.collective(self.barrier)
        own.unlink()
        self.context.record(
            "shards",
            {
                "step": step,
                "shard_bytes": self.bytes,
                "write_ns": write_ns,
                "fsync_ns": fsync_ns,
                "read_ns": read_ns,
                "cached_bytes": cached,
                "write_bytes_per_s": self.bytes * 1e9 / write_ns,
                "read_bytes_per_s": self.bytes * 1e9 / read_ns,
            },
        )
        self._compare(step, cached)
        return {}

    def write(self, path: Path) -> tuple[int, int]:
        """Write this rank's shard; nanoseconds in all, and of them in fsync."""
        start = time.monotonic_ns()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | self.flags, 0o600)
        try:
            self._in_blocks(lambda begin, end: os.write(descriptor, self.out[begin:end].data))
            before = time.monotonic_ns()
            if self.fsync:
                os.fsync(descriptor)
            synced = time.monotonic_ns()
        finally:
            os.close(descriptor)
        return time.monotonic_ns() - start, synced - before if self.fsync else 0

    def read(self, path: Path) -> int:
        """Read a shard; nanoseconds."""
        start = time.monotonic_ns()
        descriptor = os.open(path, os.O_RDONLY | self.flags)
        try:
            self._in_blocks(lambda begin, end: os.readv(descriptor, [self.back[begin:end].data]))
        finally:
            os.close(descriptor)
        return time.monotonic_ns() - start

    def _in_blocks(self, move: Callable[[int, int], int]) -> None:
        begin = 0
        while begin < self.bytes:
            moved = move(begin, min(begin + self.block, self.bytes))
            if not moved:  # the file is short: what is missing differs
                return
            begin += moved

    def _compare(self, step: int, cached: int) -> None:
        expected = content(self.context.seed, step, self.source, self.bytes)
        self.shards += 1
        self.cached += max(0, cached)
        if digest.of(self.back) == digest.of(expected):
            return
        self.wrong += 1
        differs = self.back != expected
        self.first = self.first or (
            f"first at step {step}: {int(np.count_nonzero(differs))} bytes differ, from byte {int(differs.argmax())}; "
        )

    def save(self, writer: CheckpointWriter) -> None:
        """Nothing to save."""

    def restore(self, reader: CheckpointReader) -> None:
        """Nothing to restore."""

    def sabotage(self, what: str) -> None:
        """There is nothing to spoil."""
        raise ValueError(f"{what!r} is no control of io.shards, which has no state")

    def state_digest(self) -> str:
        """Digest of the state, which is empty."""
        return digest.of(None)

    def close(self) -> None:
        """One check over all shards read, then leave."""
        if self.shards:
            self.context.check(
                "shards read back: wrong",
                not self.wrong,
                0,
                self.wrong,
                f"{self.first}{self.shards} shards of {self.bytes} bytes on {self.where} storage, written by rank "
                f"{self.source}{', this rank itself' if self.source == self.context.rank else ''}, cache: "
                f"{self.cache}, fsync: {str(self.fsync).lower()}; {self.cached} of {self.shards * self.bytes} bytes "
                "were in the reader's page cache",
            )
        self.barrier()
        with contextlib.suppress(OSError):  # another rank was faster, or something is left in it
            self.folder.rmdir()
        self.leave()


WORKLOAD = IoShards
