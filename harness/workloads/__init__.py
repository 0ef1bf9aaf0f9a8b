"""Workloads: one file each. The registry names them without importing any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    allowed: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Of parameters: the texts that are allowed, or the lowest and the highest number, both included."""
    later: tuple[str, ...] = ()
    """Parameters that came after the workload, whose defaults are what was so before: ids of cases stay the same."""
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Its tables of samples that have columns of its own, and those; its class has them from here."""


TIME_SPLIT = ("compute_ns", "communication_ns", "waiting_ns")  # what `timesplit.parts` tells of a step
OPERATIONS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "send-receive",
    "barrier",
)
PEERS = ("ring", "pairs")
SIZES_OF_MODELS: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("layers", "width", "heads", "sequence", "batch", "vocabulary"), (1, 1 << 20)
)

TIME_SPLIT = ("compute_ns", "communication_ns", "waiting_ns")  # see harness.workloads.timesplit
COLLECTIVE_TABLES: Mapping[str, tuple[str, ...]] = {"collectives": ("step", "message_bytes", "elapsed_ns")}
_COLLECTIVE_DEFAULTS: dict[str, Any] = {
    "operation": "all-reduce",
    "message_bytes": (65536, 1048576, 8388608),
    "dtype": "float32",
    "peers": "ring",
}


REGISTRY: dict[str, Entry] = {
    "torch.collectives": Entry(
        "harness.workloads.torch_collectives",
        "torch",
        30,
        5,
        _COLLECTIVE_DEFAULTS,
        False,
        "one collective of torch.distributed over every size in each step; each element compared with a formula",
        allowed={
            "operation": OPERATIONS,
            "dtype": ("float32", "float64", "int32", "bfloat16", "float16"),
            "peers": PEERS,
            "message_bytes": (2, 1 << 36),
        },
        tables=COLLECTIVE_TABLES,
    ),
    "mpi.collectives": Entry(
        "harness.workloads.mpi_collectives",
        "mpi",
        30,
        5,
        _COLLECTIVE_DEFAULTS,
        False,
        "one collective of MPI over every size in each step; each element compared with a formula",
        allowed={
            "operation": OPERATIONS,
            "dtype": ("float32", "float64", "int32"),
            "peers": PEERS,
            "message_bytes": (4, 1 << 36),
        },
        tables=COLLECTIVE_TABLES,
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
            "batch_of": "rank",
            "data": "tokens",
            "image_pixels": 32,
            "patch_pixels": 8,
            "classes": 10,
        },
        True,
        "a small transformer under DDP on tokens or images made from the seed",
        controls=CONTROLS,
        later=("batch_of", "data", "image_pixels", "patch_pixels", "classes"),
        allowed=SIZES_OF_MODELS
        | {
            "batch_of": ("rank", "world"),
            "data": ("tokens", "images"),
            "image_pixels": (1, 4096),
            "patch_pixels": (1, 4096),
            "classes": (2, 1 << 20),
        },
        tables={"steps": ("loss", "tokens", "images", "batch_id", *TIME_SPLIT)},
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
        allowed=SIZES_OF_MODELS | {"micro_batches": (1, 1 << 20)},
        tables={"steps": ("loss", "tokens", "batch_id")},
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
        allowed={"rows": (1, 1 << 40), "columns": (1, 1 << 40)},
        tables={"steps": ("residual", *TIME_SPLIT, "cell_updates")},
    ),
    "mpi.cg": Entry(
        "harness.workloads.mpi_cg",
        "mpi",
        100,
        5,
        {"rows": 128, "columns": 128, "planes": 1, "tolerance": 1e-8},
        True,
        "conjugate gradients on Poisson's equation in 2 or 3 dimensions; the answer is known beforehand",
        reshapes=True,
        controls=("position",),
        allowed={
            "rows": (1, 1 << 40),
            "columns": (1, 1 << 40),
            "planes": (1, 1 << 40),
            "tolerance": (1e-14, 0.5),
        },
        tables={"steps": ("relative_residual", "solve", *TIME_SPLIT, "cell_updates")},
    ),
    "torch.gemm": Entry(
        "harness.workloads.torch_gemm",
        "torch",
        30,
        5,
        {"matrix_size": (256, 512, 1024), "dtype": "float32"},
        False,
        "products of square matrices of whole numbers on each rank; each product proved by Freivalds' check",
        allowed={"dtype": ("float32", "float64", "bfloat16", "float16"), "matrix_size": (1, 65536)},
        tables={"products": ("step", "matrix_size", "product_ns", "flop_per_s")},
    ),
    "io.shards": Entry(
        "harness.workloads.io_shards",
        "mpi",
        10,
        1,
        {"shard_bytes": 16777216, "block_bytes": 1048576, "where": "shared", "cache": "drop", "fsync": True},
        False,
        "each rank writes a shard and reads another rank's, checked by its content",
        allowed={
            "shard_bytes": (1, 1 << 40),
            "block_bytes": (512, 1 << 30),
            "where": ("shared", "node-local"),
            "cache": ("drop", "direct", "keep"),
        },
        tables={
            "shards": (
                "step",
                "shard_bytes",
                "write_ns",
                "fsync_ns",
                "read_ns",
                "cached_bytes",
                "write_bytes_per_s",
                "read_bytes_per_s",
            )
        },
    ),
}
COLLECTIVES = [name for name, entry in REGISTRY.items() if entry.tables is COLLECTIVE_TABLES]


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


def modules_of(case: Case) -> list[str]:
    """What a forked rank of the case imports, so that its fork server can do it once for all."""
    engine = ["harness.workloads.torch_dcp"] if case.checkpoint_engine == "dcp" else []
    return ["harness.runtime.rank", REGISTRY[case.workload].module, *engine, "xxhash"]


def create(name: str) -> Any:
    """Import a workload's module and return a new instance of its ``WORKLOAD`` class.

    Raises:
        KeyError: no workload has that name.
    """
    return import_module(REGISTRY[name].module).WORKLOAD()
