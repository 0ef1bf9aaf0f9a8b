"""torch.allreduce: all-reduce over every size in each step, each result compared with a sum computed apart.

Element i of rank r's input is  w(r) * p(i),  with
    p(i) = 1 + (h(i) * m + k) mod 31,   h(i) = (i * 40503) >> 4,  m in 1..30
    w(r) = 1 + (r * u + v) mod 127,     u in 1..126
and (m, k, u, v) drawn anew from (seed, step, size). 31 and 127 are prime: any 127 neighbouring ranks
differ in weight, so a rank left out, counted twice or put in another's place changes the sum, and a
part that lands elsewhere meets another p. The sum over ranks is  p(i) * sum of w(r): every rank computes it
without another collective. All terms are positive integers, and while their sum stays below 2^24 float32
holds it, and each partial sum, exactly: whatever order the library adds in, the answer has one value.

S, ``message_bytes``, is the buffer of a rank in bytes, as nccl-tests counts it for all-reduce
(github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md). The time is that of the all-reduce alone, after a
barrier; the slowest rank's is the collective's (formed in analysis).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist

from harness.runtime import digest
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.torch_world import TorchWorld

POSITIONS, WEIGHTS = 31, 127  # the primes of the formula above
EXACT = 2**24  # float32 holds every integer up to here
ITEM_BYTES = 4


@dataclass
class _Tally:
    """What became of the results of one size."""

    steps: int = 0
    wrong: int = 0
    first: str = ""
    last: torch.Tensor | None = None  # kept for its digest, which is taken at close, outside of every step


class TorchAllReduce(TorchWorld):
    """The workload on one rank. It has no state: a step's input depends on its number alone."""

    tables: Mapping[str, tuple[str, ...]] = {
        "collectives": ("step", "message_bytes", "elapsed_ns"),
        "steps": (),
    }
    controls: tuple[str, ...] = ()  # there is no state that a control could spoil

    def setup(self, context: RankContext) -> None:
        """Refuse sizes and worlds that cannot be checked exactly; join; allocate."""
        self.sizes = cast(tuple[int, ...], context.params["message_bytes"])
        for n, size in enumerate(self.sizes):
            if size < ITEM_BYTES or size % ITEM_BYTES:
                raise ValueError(f"message_bytes[{n}] = {size} is not a multiple of {ITEM_BYTES} (float32)")
        if context.world * WEIGHTS * POSITIONS >= EXACT:
            most = (EXACT - 1) // (WEIGHTS * POSITIONS)
            raise ValueError(f"{context.world} ranks: above {most} the sum is no longer exact in float32")
        self.join(context)
        self.tallies = {size: _Tally() for size in self.sizes}
        self.hashes = {
            size: (torch.arange(size // ITEM_BYTES, dtype=torch.int64, device=self.device) * 40503 >> 4)
            .remainder_(POSITIONS)
            .to(torch.int32)
            for size in self.sizes
        }  # h(i) mod 31

    def pattern(self, step: int, size: int) -> tuple[torch.Tensor, list[int]]:
        """p(i) for each element and w(r) for each rank."""
        draw = digest.number(self.context.seed, "allreduce", step, size)
        m, k = 1 + draw % (POSITIONS - 1), draw // 2**15 % POSITIONS
        u, v = 1 + draw // 2**30 % (WEIGHTS - 1), draw // 2**45 % WEIGHTS
        values = [1.0 + (h * m + k) % POSITIONS for h in range(POSITIONS)]  # p depends on h(i) mod 31 alone
        p = torch.tensor(values, device=self.device).index_select(0, self.hashes[size])
        return p, [1 + (rank * u + v) % WEIGHTS for rank in range(self.context.world)]

    def step(self, step: int) -> Mapping[str, int | float]:
        """All-reduce each size once."""
        for size in self.sizes:
            p, weights = self.pattern(step, size)
            buffer = p * weights[self.context.rank]
            self.synchronize()
            self.context.collective(self.barrier)
            start = time.monotonic_ns()
            self._all_reduce(buffer)
            self.synchronize()
            elapsed = time.monotonic_ns() - start
            self.context.record("collectives", {"step": step, "message_bytes": size, "elapsed_ns": elapsed})
            self._compare(step, size, buffer, p * sum(weights))
        return {}

    def _all_reduce(self, buffer: torch.Tensor) -> None:
        self.context.collective(lambda: dist.all_reduce(buffer))

    def _compare(self, step: int, size: int, observed: torch.Tensor, expected: torch.Tensor) -> None:
        """Count the elements that differ, and remember the first; NaN differs from everything."""
        tally = self.tallies[size]
        differs = observed != expected
        wrong = int(torch.count_nonzero(differs))
        if wrong and not tally.wrong:
            at = int(differs.to(torch.uint8).argmax())
            values = f"expected {float(expected[at]):.9g}, got {float(observed[at]):.9g}"
            tally.first = f"first at step {step}, element {at}: {values}; "
        tally.steps += 1
        tally.wrong += wrong
        tally.last = observed

    def save(self, writer: CheckpointWriter) -> None:
        """Nothing to save."""

    def restore(self, reader: CheckpointReader) -> None:
        """Nothing to restore."""

    def sabotage(self, what: str) -> None:
        """There is nothing to spoil."""
        raise ValueError(f"{what!r} is no control of torch.allreduce, which has no state")

    def state_digest(self) -> str:
        """Digest of the state, which is empty."""
        return digest.of(None)

    def close(self) -> None:
        """One check for each size over all its steps, then leave. No step, no check: there is no evidence."""
        for size, tally in self.tallies.items():
            if tally.last is None:
                continue
            self.context.check(
                f"all-reduce of {size} bytes: wrong elements",
                tally.wrong == 0,
                0,
                tally.wrong,
                f"{tally.first}{tally.steps} steps of {size // ITEM_BYTES} elements compared",
            )
            self.context.result(f"digest_{size}", digest.of(tally.last))
        self.leave()


WORKLOAD = TorchAllReduce
