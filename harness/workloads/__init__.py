"""Workloads: one file each. The registry names them without importing any."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from harness.model.case import Case
from harness.model.fault import CONTROLS


@dataclass(frozen=True)
class Entry:
    """Where a workload lives and how its ranks are started."""

    module: str
    launcher: str  # "torch": forked by each node's fork server; "mpi": a step of its own by srun; "command": see below
    steps: int  # default number of steps
    warmup_steps: int
    defaults: dict[str, Any]  # parameters and their default values; their types are checked against these
    restartable: bool  # has save and restore
    help: str
    reshapes: bool = False  # its state can be restored by another number of ranks, with the same answer
    controls: tuple[str, ...] = ()  # negative controls that it can do


REGISTRY: dict[str, Entry] = {
    "torch.allreduce": Entry(
        "harness.workloads.torch_allreduce",
        "torch",
        30,
        5,
        {"message_bytes": (65536, 1048576, 8388608)},
        False,
        "all-reduce over every size in each step; each result compared with a sum computed apart",
    ),
    "torch.train": Entry(
        "harness.workloads.torch_train",
        "torch",
        40,
        3,
        {
            "layers": 2,
            "width": 64,
            "heads": 4,
            "sequence": 32,
            "batch": 8,
            "vocabulary": 128,
            "learning_rate": 0.001,
        },
        True,
        "a small transformer under DDP on data made from the seed",
        controls=CONTROLS,
    ),
    "torch.pipeline": Entry(
        "harness.workloads.torch_pipeline",
        "torch",
        40,
        3,
        {
            "layers": 4,
            "width": 64,
            "heads": 4,
            "sequence": 32,
            "batch": 8,
            "micro_batches": 4,
            "vocabulary": 128,
            "learning_rate": 0.001,
        },
        True,
        "a small transformer, its layers split over the ranks, micro-batches sent from stage to stage",
        controls=CONTROLS,
    ),
    "mpi.halo": Entry(
        "harness.workloads.mpi_halo",
        "mpi",
        60,
        5,
        {"rows": 512, "columns": 512},
        True,
        "2-D Jacobi with halo exchange; residual compared with a single-rank run's",
        reshapes=True,
        controls=("position",),
    ),
}


REGISTRY["command"] = Entry(
    "harness.runtime.command",
    "command",
    1,
    0,
    {},
    False,
    "a program of your own: binary, script or MPI program, unchanged; what it says is measured and judged",
)


def launcher_of(case: Case) -> str:
    """How the ranks of a case are started: "torch", "mpi", or "agent", as processes of each node's agent."""
    launcher = REGISTRY[case.workload].launcher
    if launcher != "command":
        return launcher
    return "mpi" if case.command is not None and case.command["world"] == "mpi" else "agent"


def create(name: str) -> Any:
    """Import a workload's module and return a new instance of its ``WORKLOAD`` class.

    Raises:
        KeyError: no workload has that name.
    """
    return import_module(REGISTRY[name].module).WORKLOAD()
