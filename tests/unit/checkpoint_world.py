"""A world of ranks that are threads, for tests of checkpoints: they meet at barriers and pass values through memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.runtime import digest
from harness.runtime.checkpoint import Checkpoints
from harness.runtime.checkpoint_io import Reader, Writer

DEADLINE_S = 10.0


class World:
    """What the ranks of one world share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=DEADLINE_S)
        self.values: list[Any] = [None] * size


class Rank:
    """A workload whose state is a bytes object, of which rank 0 holds a shared part too."""

    reshapes = False

    def __init__(self, world: World, rank: int, state: bytes = b"") -> None:
        self.world, self.rank, self.state = world, rank, state
        self.shared = b"alike"

    def save(self, writer: Writer) -> None:
        with writer.open(f"rank-{self.rank}.bin") as stream:
            stream.write(self.state)
        if writer.writes_shared:
            with writer.open("shared.bin", everyone=True) as stream:
                stream.write(self.shared)

    def restore(self, reader: Reader) -> None:
        with reader.open(f"rank-{self.rank}.bin") as stream:
            self.state = stream.read()
        with reader.open("shared.bin") as stream:
            self.shared = stream.read()

    def state_digest(self) -> str:
        return digest.of([self.state, self.shared])

    def gather(self, value: Any) -> list[Any] | None:
        self.world.values[self.rank] = value
        self.world.barrier.wait()
        found = list(self.world.values) if self.rank == 0 else None
        self.world.barrier.wait()
        return found

    def broadcast(self, value: Any) -> Any:
        if self.rank == 0:
            self.world.values[0] = value
        self.world.barrier.wait()
        found = self.world.values[0]
        self.world.barrier.wait()
        return found


def together(
    size: int,
    do: Callable[[Rank, Checkpoints], Any],
    shared: Path,
    *,
    memory: Callable[[str], Path] | None = None,
    nodes: tuple[str, ...] = (),
    start: tuple[int, int] = (0, 0),
    kind: type[Rank] = Rank,
    **options: Any,
) -> list[Any]:
    """What ``do`` returns, or the exception that it raises, on each rank."""
    world = World(size)

    def one(rank: int) -> Any:
        workload = kind(world, rank)
        node = nodes[rank] if nodes else ""
        folder = memory(node) if memory is not None else None
        try:
            checkpoints = Checkpoints(
                workload,
                shared,
                folder,
                rank,
                size,
                *start,
                node=node,
                **options,  # type: ignore[arg-type]
            )
            return do(workload, checkpoints)
        except Exception as error:
            world.barrier.abort() if isinstance(error, threading.BrokenBarrierError) else None
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
