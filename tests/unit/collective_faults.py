"""What can go wrong with a collective, done on purpose: changes of a workload of ``harness.workloads.collectives``.

They work on torch's buffers and on numpy's. Each is done by all ranks alike unless its name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STALE: dict[int, Any] = {}


def _after(workload: Any, spoil: Callable[[Any], None]) -> None:
    """Spoil what arrived, after the call."""
    prepare = workload.prepare

    def spoiled(sent: Any, received: Any) -> Callable[[], None]:
        call = prepare(sent, received)

        def both() -> None:
            call()
            if len(received):
                spoil(received)

        return both

    workload.prepare = spoiled


def last_part_dropped(workload: Any) -> None:
    """The last element never arrives."""

    def drop(received: Any) -> None:
        received[-1] = 0

    _after(workload, drop)


def parts_swapped(workload: Any) -> None:
    """The two halves of what arrives are in each other's place."""

    def swap(received: Any) -> None:
        half, kept = len(received) // 2, received[:]
        kept = kept.clone() if hasattr(kept, "clone") else kept.copy()
        received[:half], received[half:] = kept[half:], kept[:half]

    _after(workload, swap)


def one_rank_sends_anothers_part(workload: Any) -> None:
    """Rank 1 (of what only rank 0 sends: rank 0) puts in what its neighbour should have."""
    shape, rank = workload.shape, workload.context.rank
    guilty = 0 if shape.operation in ("broadcast", "scatter") else 1
    real = shape.sent

    def sent(rank: int, elements: int, weights: Any) -> Any:
        return real(rank, elements, [weights[1 - guilty]] * len(weights))

    if rank == guilty:
        object.__setattr__(shape, "sent", sent)


def result_of_the_call_before(workload: Any) -> None:
    """What arrives is what arrived a call earlier."""

    def keep(received: Any) -> None:
        new = received.clone() if hasattr(received, "clone") else received.copy()
        received[:] = STALE.get(len(new), new)
        STALE[len(new)] = new

    _after(workload, keep)


def left_out(workload: Any) -> None:
    """Nobody calls."""
    workload.prepare = lambda sent, received: lambda: None


def not_a_number(workload: Any) -> None:
    """Element 3 is NaN."""

    def spoil(received: Any) -> None:
        received[3] = float("nan")

    _after(workload, spoil)


def barrier_waits_for_nobody(workload: Any) -> None:
    """Every rank goes on at once."""
    workload.barrier = lambda: None


FAULTS: dict[str, Callable[[Any], None]] = {
    f.__name__: f
    for f in (
        last_part_dropped,
        parts_swapped,
        one_rank_sends_anothers_part,
        result_of_the_call_before,
        left_out,
        not_a_number,
        barrier_waits_for_nobody,
    )
}
