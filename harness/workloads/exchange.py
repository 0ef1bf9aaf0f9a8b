"""What the collective workloads send, and what must arrive: one home for torch and MPI. No library of either.

Element i of what rank r contributes is  w(r) * p(i),  i counted over the larger buffer of a rank, with
    p(i) = 1 + (h(i) * m + k) mod P,   h(i) = (i * 40503) >> 4,  m in 1..P-1
    w(r) = 1 + (r * u + v) mod W,      u in 1..W-1
and (m, k, u, v) drawn anew from (seed, operation, step, size). P and W are prime: any W neighbouring ranks
differ in weight, so a rank left out, counted twice or put in another's place changes what arrives, and a
part that lands elsewhere meets another p. What must arrive is written down from the formula, without another
collective. All terms are positive integers: a buffer that was not written, which holds zeros, differs everywhere.

P and W are 31 and 127 where the type holds every integer up to n * P * W, n the number of ranks whose
contributions are added; where it does not, the largest pair that it does. So each sum and each partial sum is
exact, and has one value whatever order the library adds in.

Layout, as nccl-tests counts (github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md): S, ``message_bytes``, is the larger
buffer of a rank, c = S / item elements, b = c / n of a block:
    all-reduce, reduce       c elements of each rank, added; on every rank, on rank 0
    broadcast                c elements of rank 0
    all-gather, gather       b elements of each rank, in the order of ranks; on every rank, on rank 0
    scatter                  block r of rank 0's c elements, on rank r
    reduce-scatter           block r of the sum of all ranks' c elements, on rank r
    all-to-all               on rank r block r of each rank's c elements, in the order of ranks
    send-receive             c elements of the rank before (ring), or of the rank half the world away (pairs), while
                             as many are sent
    barrier                  nothing: see ``Collectives``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.runtime import digest

BARRIER = "barrier"  # of `harness.workloads.OPERATIONS`
IN_BLOCKS = frozenset({"all-gather", "reduce-scatter", "all-to-all", "gather", "scatter"})
ADDING = frozenset({"all-reduce", "reduce-scatter", "reduce"})
ROOT = 0
PRIMES = ((31, 127), (31, 31), (13, 17), (7, 11), (5, 7), (3, 5))  # (P, W), the best first


class Type(NamedTuple):
    """A type of elements."""

    item_bytes: int
    exact: int  # it holds every integer up to here


TYPES = {
    "float32": Type(4, 2**24),
    "float64": Type(8, 2**53),
    "int32": Type(4, 2**31 - 1),
    "bfloat16": Type(2, 2**8),
    "float16": Type(2, 2**11),
}


class Part(NamedTuple):
    """Some elements of a buffer: p(first), p(first + 1), ..., each times ``weight``; zeros where that is 0."""

    first: int
    length: int
    weight: int


@dataclass(frozen=True)
class Shape:
    """One operation on one type in one world.

    Raises:
        ValueError: the operation needs more ranks, or the type cannot hold so many ranks' sum exactly.
    """

    operation: str
    dtype: str
    world: int
    peers: str = "ring"

    def __post_init__(self) -> None:
        if self.operation == "send-receive":
            if self.world < 2:
                raise ValueError("operation = send-receive needs two ranks; this world has one")
            if self.peers == "pairs" and self.world % 2:
                raise ValueError(f"peers = pairs needs an even number of ranks, this world has {self.world}")
        limit = TYPES[self.dtype].exact
        if self.operation in ADDING and self.world * PRIMES[-1][0] * PRIMES[-1][1] > limit:
            most = limit // (PRIMES[-1][0] * PRIMES[-1][1])
            raise ValueError(
                f"{self.operation} of {self.dtype} over {self.world} ranks cannot be checked: above {most} ranks "
                "the sum is no longer exact; choose another dtype"
            )

    @property
    def primes(self) -> tuple[int, int]:
        """P and W."""
        added = self.world if self.operation in ADDING else 1
        return next(p for p in PRIMES if added * p[0] * p[1] <= TYPES[self.dtype].exact)

    @property
    def unit_bytes(self) -> int:
        """What a size must be a multiple of."""
        return TYPES[self.dtype].item_bytes * (self.world if self.operation in IN_BLOCKS else 1)

    def why_not(self, message_bytes: int) -> str:
        """What is wrong with a size; "" when nothing is."""
        if message_bytes >= self.unit_bytes and message_bytes % self.unit_bytes == 0:
            return ""
        blocks = f"{self.world} ranks x " if self.operation in IN_BLOCKS else ""
        near = max(1, message_bytes // self.unit_bytes) * self.unit_bytes
        return (
            f"is not a multiple of {self.unit_bytes} ({blocks}{TYPES[self.dtype].item_bytes} bytes of "
            f"{self.dtype}); {near} is"
        )

    def peer(self, rank: int) -> tuple[int, int]:
        """Of send-receive: whom a rank sends to, and whom it receives from."""
        if self.peers == "pairs":
            other = (rank + self.world // 2) % self.world
            return other, other
        return (rank + 1) % self.world, (rank - 1) % self.world

    def sent(self, rank: int, elements: int, weights: Sequence[int]) -> tuple[Part, ...]:
        """What a rank puts in; zeros in what others will write."""
        block = elements // self.world
        if self.operation in ("all-gather", "gather"):
            return (Part(rank * block, block, weights[rank]),)
        if self.operation == "broadcast":
            return (Part(0, elements, weights[ROOT] if rank == ROOT else 0),)
        if self.operation == "scatter":
            return (Part(0, elements, weights[ROOT]),) if rank == ROOT else ()
        return (Part(0, elements, weights[rank]),)

    def received(self, rank: int, elements: int, weights: Sequence[int]) -> tuple[Part, ...]:
        """What a rank must then have; nothing where only the root gets anything."""
        block = elements // self.world
        if self.operation in ("reduce", "gather") and rank != ROOT:
            return ()
        if self.operation in ("all-reduce", "reduce"):
            return (Part(0, elements, sum(weights)),)
        if self.operation in ("all-gather", "gather"):
            return tuple(Part(r * block, block, weights[r]) for r in range(self.world))
        if self.operation == "reduce-scatter":
            return (Part(rank * block, block, sum(weights)),)
        if self.operation == "all-to-all":
            return tuple(Part(rank * block, block, weights[r]) for r in range(self.world))
        if self.operation == "scatter":
            return (Part(rank * block, block, weights[ROOT]),)
        giver = ROOT if self.operation == "broadcast" else self.peer(rank)[1]
        return (Part(0, elements, weights[giver]),)


@dataclass(frozen=True)
class Pattern:
    """One draw: p by h(i) mod P, and w by rank."""

    values: tuple[int, ...]
    weights: tuple[int, ...]


def pattern(shape: Shape, seed: int, step: int, message_bytes: int) -> Pattern:
    """p and w of one step and size."""
    positions, kinds = shape.primes
    draw = digest.number(seed, shape.operation, step, message_bytes)
    m, k = 1 + draw % (positions - 1), draw // 2**15 % positions
    u, v = 1 + draw // 2**30 % (kinds - 1), draw // 2**45 % kinds
    return Pattern(
        tuple(1 + (h * m + k) % positions for h in range(positions)),
        tuple(1 + (rank * u + v) % kinds for rank in range(shape.world)),
    )


def hashes(elements: int, positions: int) -> NDArray[np.int32]:
    """h(i) mod P of the first elements; the same for every size."""
    return ((np.arange(elements, dtype=np.int64) * 40503 >> 4) % positions).astype(np.int32)


def late_rank(seed: int, step: int, world: int) -> int:
    """Who comes late to the barrier that is proved in a step."""
    return digest.number(seed, BARRIER, step) % world
