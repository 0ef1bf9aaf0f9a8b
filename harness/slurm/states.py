"""Every documented Slurm job state, mapped once. An unknown state is never "done"."""

from __future__ import annotations

from enum import Enum


class Kind(str, Enum):
    """What a state means for whoever waits for the job."""

    ALIVE = "alive"  # it may still run, or run again
    ENDED_WELL = "ended well"
    ENDED_BY_PROGRAM = "ended badly by the program"
    ENDED_BY_MACHINE = "ended badly by the machine"
    ENDED_BY_PERSON = "ended by somebody"
    UNKNOWN = "unknown"


# Job states and flags of squeue(1), sacct(1) and slurm.h, Slurm 20.02 to 25.11.
STATES: dict[str, Kind] = {
    "PENDING": Kind.ALIVE,
    "CONFIGURING": Kind.ALIVE,
    "RUNNING": Kind.ALIVE,
    "SUSPENDED": Kind.ALIVE,
    "STOPPED": Kind.ALIVE,
    "COMPLETING": Kind.ALIVE,
    "RESIZING": Kind.ALIVE,
    "SIGNALING": Kind.ALIVE,
    "STAGE_OUT": Kind.ALIVE,
    "REQUEUED": Kind.ALIVE,
    "REQUEUE_FED": Kind.ALIVE,
    "REQUEUE_HOLD": Kind.ALIVE,  # alive, but waits for a person: reported so
    "SPECIAL_EXIT": Kind.ALIVE,  # requeued and held, likewise
    "RESV_DEL_HOLD": Kind.ALIVE,
    "POWER_UP_NODE": Kind.ALIVE,
    "EXPEDITING": Kind.ALIVE,
    "UPDATE_DB": Kind.ALIVE,
    "COMPLETED": Kind.ENDED_WELL,
    "FAILED": Kind.ENDED_BY_PROGRAM,
    "OUT_OF_MEMORY": Kind.ENDED_BY_PROGRAM,
    "TIMEOUT": Kind.ENDED_BY_PROGRAM,
    "NODE_FAIL": Kind.ENDED_BY_MACHINE,
    "BOOT_FAIL": Kind.ENDED_BY_MACHINE,
    "LAUNCH_FAILED": Kind.ENDED_BY_MACHINE,
    "RECONFIG_FAIL": Kind.ENDED_BY_MACHINE,
    "PREEMPTED": Kind.ENDED_BY_MACHINE,
    "CANCELLED": Kind.ENDED_BY_PERSON,
    "DEADLINE": Kind.ENDED_BY_PERSON,
    "REVOKED": Kind.ENDED_BY_PERSON,
}


def kind_of(state: str) -> Kind:
    """Meaning of a state as a Slurm client prints it: ``CANCELLED by 1000`` and ``RUNNING+`` are understood."""
    word = state.strip().split(" ")[0].rstrip("+").upper()
    return STATES.get(word, Kind.UNKNOWN)


def is_over(state: str) -> bool:
    """Whether the job has certainly ended and will not run again."""
    return kind_of(state) not in (Kind.ALIVE, Kind.UNKNOWN)


# Node states in which Slurm uses a node, and flags that take it out of use: scontrol(1), "State".
_NODE_IN_USE = {"IDLE", "ALLOCATED", "MIXED", "COMPLETING"}
_NODE_FLAGS_FINE = {"PLANNED", "COMPLETING", "CLOUD", "RESERVED", "DYNAMIC_NORM", "DYNAMIC_FUTURE", "BLOCKED"}


def node_is_usable(state: str) -> bool:
    """Whether Slurm gives this node to jobs, by its state as scontrol prints it, such as ``IDLE+PLANNED``.

    A suffix (``*`` does not answer, ``~`` powered down, ``#`` powering up and so on) or an unknown flag
    means that it is not usable now.
    """
    base, *flags = state.split("+")
    return base in _NODE_IN_USE and set(flags) <= _NODE_FLAGS_FINE
