"""How a step's time is told apart into computing, communication and waiting: one home for torch and MPI.

Without looking at other hosts' clocks. Calls that block on others are timed on each rank, and ranks tell each
other how long they took, in a reduction that the step does anyway or in one more, small one. The rank
that spent least in such calls is the one that the others waited for, and hardly waited itself: what it spent is
taken for the transfer (``communication_ns``, alike on all ranks but for that last reduction), and what another rank
spent beyond it for waiting (``waiting_ns``). The three parts add up to the workload's own time of the step.

What cannot be told: a rank whose transfers are longer than the others' (the middle of a chain has two neighbours,
its ends one) seems to wait; where all ranks wait for one another in turn, even the least holds waiting; the wait
in the last reduction itself counts as communication; and what a library sends behind computing costs no time here.
"""

from __future__ import annotations


def parts(total_ns: int, spent_ns: int, least_ns: int, last_ns: int) -> dict[str, int]:
    """The three columns.

    Args:
        total_ns: the step on this rank.
        spent_ns: of it in calls that block on others, the last reduction left out.
        least_ns: the smallest ``spent_ns`` of all ranks.
        last_ns: of the step in the last reduction.
    """
    least_ns = min(least_ns, spent_ns)  # a rank whose reduction a fault left out knows only its own
    return {
        "compute_ns": total_ns - spent_ns - last_ns,
        "communication_ns": least_ns + last_ns,
        "waiting_ns": spent_ns - least_ns,
    }
