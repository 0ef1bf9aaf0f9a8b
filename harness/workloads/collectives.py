"""One collective operation at every size in each step, each result compared with one written down from a formula.

What all ranks put in and what must arrive is in ``exchange``; torch and MPI supply buffers and the call. The time
is that of the call alone, after a barrier; the slowest rank's is the collective's (formed in analysis). It ends when
the rank's own part has: a root that gathers takes longer than a rank that sends and goes on.

A single call takes longer than the same call in a loop of them (tests/bench/overhead.py), for two reasons, and both are
answered. Before it, results are compared and records written: caches forget, and a library's threads fall
asleep. So each timed call follows WARM calls on the same buffers, each with its barrier, which are not timed; they
get the same numbers negated, so what they left over would be found wrong. After it, the rank that is done first
goes on computing, and takes the processor from the threads that still serve the others. So a barrier, which
is not timed, follows too.

A barrier carries nothing that could be wrong but its order. So it is called twice: once to be timed,
and once to be proved. For the proof one rank, drawn by the seed, comes late: each other rank looks at its clock, sends
the late one a word and enters; the late one waits for all words, then for LATE_S, and enters. Whoever leaves
less than LATE_S after it looked at its clock has left before the last had come, whatever the clocks of others say.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from harness.runtime import digest
from harness.workloads import COLLECTIVE_TABLES, exchange
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.exchange import Part, Shape

LATE_S = 0.002
WARM = 6  # calls before each that is timed


@dataclass
class _Tally:
    """What became of the results of one size."""

    steps: int = 0
    wrong: int = 0
    elements: int = 0  # compared in one step
    first: str = ""
    digest: str = ""  # of what arrived in the last step


class Collectives:
    """The workload on one rank, but for the library. It has no state: a step's input depends on its number alone."""

    tables = COLLECTIVE_TABLES
    controls: tuple[str, ...] = ()  # there is no state that a control could spoil
    context: RankContext
    shape: Shape

    # --- what the library supplies ------------------------------------------------------------------------

    @abstractmethod
    def join(self, context: RankContext) -> None:
        """Join the world."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for all ranks."""

    @abstractmethod
    def leave(self) -> None:
        """Leave the world."""

    @abstractmethod
    def of_host(self, array: Any) -> Any:
        """A numpy array as the library's own, on the device."""

    @abstractmethod
    def buffer(self, elements: int) -> Any:
        """Zeros of the type of ``shape``, on the device."""

    @abstractmethod
    def fill(self, buffer: Any, parts: Sequence[Part], values: Sequence[int]) -> None:
        """Write parts one behind the other; ``values`` are p by h(i) mod P."""

    @abstractmethod
    def wrong(self, observed: Any, expected: Any) -> tuple[int, int]:
        """How many elements differ, and the first that does. NaN differs from everything."""

    @abstractmethod
    def prepare(self, sent: Any, received: Any) -> Callable[[], object]:
        """The call, with nothing left to do but to call it; when it returns the device has done it too."""

    @abstractmethod
    def arm(self, sent: Any, received: Any) -> None:
        """Negate what is sent, in place, and clear what is received; what works in place gets what is sent."""

    @abstractmethod
    def tell(self, rank: int) -> None:
        """Send a word to ``rank``."""

    @abstractmethod
    def hear(self) -> None:
        """Wait for a word of every other rank."""

    # --- what is the same for all ---------------------------------------------------------------------------

    def setup(self, context: RankContext) -> None:
        """Refuse what cannot be checked exactly; join; allocate; rehearse."""
        params = cast(Mapping[str, Any], context.params)
        self.shape = Shape(params["operation"], params["dtype"], context.world, params["peers"])
        self.sizes = () if self.shape.operation == exchange.BARRIER else params["message_bytes"]
        for n, size in enumerate(self.sizes):
            if why := self.shape.why_not(size):
                raise ValueError(f"message_bytes[{n}] = {size} {why}")
        self.join(context)
        self.tallies = {size: _Tally() for size in self.sizes}
        self.early, self.proofs, self.first_early = 0, 0, ""
        self._elapsed_ns = 0
        most = max(self.sizes, default=0) // exchange.TYPES[self.shape.dtype].item_bytes
        self._hashes = self.of_host(exchange.hashes(most, self.shape.primes[0]))
        self._sent, self._received, self._expected = (self.buffer(most) for _ in range(3))
        self.rehearse()

    def rehearse(self) -> None:
        """Call once at each size; nothing of it counts. Libraries make their connections now."""
        for size in self.sizes:
            self._begin(-1, size)()

    def step(self, step: int) -> Mapping[str, int | float]:
        """Do the operation once at each size."""
        if self.shape.operation == exchange.BARRIER:
            self._measure(step, 0, self.barrier, lambda: None)
            self._prove(step)
        for size in self.sizes:
            call = self._begin(step, size)
            self._measure(step, size, call, lambda: self.arm(self.sent, self.received))
            self._compare(step, size)
        return {}

    def _begin(self, step: int, size: int) -> Callable[[], object]:
        """Fill the buffers of a step, and make its call."""
        elements, rank = size // exchange.TYPES[self.shape.dtype].item_bytes, self.context.rank
        draw = exchange.pattern(self.shape, self.context.seed, step, size)
        self.parts = self.shape.received(rank, elements, draw.weights)
        sent = self.shape.sent(rank, elements, draw.weights)
        self.sent, self.received, self.expected = (
            whole[: sum(part.length for part in parts)]
            for whole, parts in (
                (self._sent, sent),
                (self._received, self.parts),
                (self._expected, self.parts),
            )
        )
        self.fill(self.expected, self.parts, draw.values)
        self.fill(self.sent, sent, draw.values)
        self.arm(self.sent, self.received)  # for the calls that warm up
        return self.prepare(self.sent, self.received)

    def _measure(self, step: int, size: int, call: Callable[[], object], arm: Callable[[], None]) -> None:
        barrier, clock = self.barrier, time.monotonic_ns

        def measured() -> None:
            took = 0
            for left in range(WARM, -1, -1):  # one line for all: also the interpreter is faster the next time
                if not left:
                    arm()
                    barrier()
                barrier()
                start = clock()
                call()
                took = clock() - start
            barrier()
            self._elapsed_ns = took

        self._elapsed_ns = 0  # it stays so where a fault leaves the call out
        self.context.collective(measured)
        row = {"step": step, "message_bytes": size, "elapsed_ns": self._elapsed_ns}
        self.context.record("collectives", row)

    def _compare(self, step: int, size: int) -> None:
        """Count the elements that differ, and remember the first."""
        if not self.parts:
            return
        tally = self.tallies[size]
        wrong, at = self.wrong(self.received, self.expected)
        if wrong and not tally.wrong:
            values = f"expected {float(self.expected[at]):.9g}, got {float(self.received[at]):.9g}"
            tally.first = f"first at step {step}, element {at}: {values}; "
        tally.steps += 1
        tally.wrong += wrong
        tally.elements = len(self.received)
        if step + 1 == self.context.steps:
            tally.digest = digest.of(self.received)

    def _prove(self, step: int) -> None:
        """Let one rank come late to a barrier, and see that nobody leaves before it has come."""
        late = exchange.late_rank(self.context.seed, step, self.context.world)

        def word() -> None:
            if self.context.rank != late:
                self.tell(late)
            else:
                self.hear()
                time.sleep(LATE_S)

        start = time.monotonic_ns()
        self.context.collective(word)
        self.context.collective(self.barrier)
        took_s = (time.monotonic_ns() - start) / 1e9
        self.proofs += self.context.rank != late
        if self.context.rank != late and took_s < LATE_S:
            self.early += 1
            self.first_early = (
                self.first_early or f"first at step {step}, after {took_s:.6f} s, without rank {late}; "
            )

    def save(self, writer: CheckpointWriter) -> None:
        """Nothing to save."""

    def restore(self, reader: CheckpointReader) -> None:
        """Nothing to restore."""

    def sabotage(self, what: str) -> None:
        """There is nothing to spoil."""
        raise ValueError(f"{what!r} is no control of collectives, which have no state")

    def state_digest(self) -> str:
        """Digest of the state, which is empty."""
        return digest.of(None)

    def close(self) -> None:
        """One check for each size over all its steps, then leave. No step, no check: there is no evidence."""
        for size, tally in self.tallies.items():
            if not tally.steps:
                continue
            self.context.check(
                f"{self.shape.operation} of {size} bytes: wrong elements",
                tally.wrong == 0,
                0,
                tally.wrong,
                f"{tally.first}{tally.steps} steps of {tally.elements} elements compared",
            )
            self.context.result(f"digest_{size}", tally.digest)
        if self.proofs:
            self.context.check(
                "barrier: left before the last rank had come",
                not self.early,
                0,
                self.early,
                f"{self.first_early}{self.proofs} barriers with a rank that came {LATE_S} s late",
            )
        self.leave()
