"""How a user's program is told where it is: its environment, and what placeholders stand for. Standard library only.

What the harness's own processes are told (the agent's step, its secrets) is not passed on: in a plain world
Slurm's variables of the agent's step would say to each rank that it is alone.
"""

from __future__ import annotations

import os
import pkgutil
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness.model import placeholders
from harness.model.case import Case
from harness.runtime import armed

if TYPE_CHECKING:
    from harness.runtime.rank import Context, Spec

# Of the step and the launcher around a process, not of the job.
_OF_A_STEP = re.compile(
    r"^(SRUN_|SBATCH_|PMI_|PMIX_|PMIX|MPI_LOCAL|HYDI?_|HYDRA_|OMPI_COMM_WORLD|SLURM_(PROCID|LOCALID|NODEID|GTIDS|NTASKS"
    r"|NPROCS|TASKS_PER_NODE|STEP|SRUN_|TASK_PID|LAUNCH_|CPU_BIND|DISTRIBUTION|MPI_TYPE|PMI|MEM_PER|OVERCOMMIT))"
)
_CODE = Path(harness.__file__).parent.parent  # where this code is, which no program is to import
# What a program imports of ours.
_PROGRAM = ("__init__.py", "armed.py", "checkpoints.py", "deeds.py", "digests.py", "faults.py", "lines.py")
_TORCHRUN = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
)


def case_values(case: Case, folder: str, case_folder: str) -> dict[str, str]:
    """What placeholders stand for that are the same on all ranks."""
    return {
        **{name: placeholders.as_text(value) for name, value in case.params.items()},
        "nodes": str(case.nodes),
        "ranks": str(case.ranks),
        "ranks_per_node": str(case.ranks_per_node),
        "seed": str(case.seed),
        "repeat": str(case.repeat),
        "steps": str(case.steps),
        "case": case.case_id,
        "folder": folder,
        "case_folder": case_folder,
        "checkpoints": str(checkpoints_of(case, case_folder)),
        "python": sys.executable,
    }


def checkpoints_of(case: Case, case_folder: str) -> Path:
    """Where the program keeps its checkpoints over all attempts."""
    return Path(case_folder, (case.command or {}).get("checkpoint_folder", "checkpoints"))


def values(spec: Spec, context: Context) -> dict[str, str]:
    """What placeholders stand for on one rank."""
    return {
        **case_values(spec.case, spec.program_folder, spec.case_folder),
        "rank": str(context.rank),
        "local_rank": str(context.local_rank),
        "node": context.node,
    }


def environment(spec: Spec, context: Context, filled: Mapping[str, str], said: Path) -> dict[str, str]:
    """The environment of the program on one rank."""
    case, command = spec.case, spec.case.command or {}
    kind = command["world"]
    node_rank = list(dict.fromkeys(spec.rank_nodes)).index(context.node)
    local_ranks = sum(node == context.node for node in spec.rank_nodes)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HARNESS_") and (kind == "mpi" or not _OF_A_STEP.match(name))
    }
    for name in _TORCHRUN:
        kept.pop(name, None)
    told = {
        "HARNESS_RANK": str(context.rank),
        "HARNESS_RANKS": str(case.ranks),
        "HARNESS_LOCAL_RANK": str(context.local_rank),
        "HARNESS_LOCAL_RANKS": str(local_ranks),
        "HARNESS_NODE_RANK": str(node_rank),
        "HARNESS_NODES": str(case.nodes),
        "HARNESS_NODE": context.node,
        "HARNESS_SEED": str(case.seed),
        "HARNESS_REPEAT": str(case.repeat),
        "HARNESS_STEPS": str(case.steps),
        "HARNESS_CASE": case.case_id,
        "HARNESS_FOLDER": spec.program_folder,
        "HARNESS_CASE_FOLDER": spec.case_folder,
        "HARNESS_CHECKPOINTS": filled["checkpoints"],
        "HARNESS_FAULTS": "0" if case.is_twin else "1",
        "HARNESS_ARMED": armed.told(armed.of_rank(spec, context.rank)),
        "HARNESS_RESTART_COUNT": str(spec.attempt),
        "HARNESS_METRICS": str(said),
        **{f"HARNESS_PARAM_{name}": placeholders.as_text(value) for name, value in case.params.items()},
    }
    if kind in ("plain", "torchrun"):
        told |= {
            "RANK": str(context.rank),
            "WORLD_SIZE": str(case.ranks),
            "LOCAL_RANK": str(context.local_rank),
            "LOCAL_WORLD_SIZE": str(local_ranks),
            "NODE_RANK": str(node_rank),
        }
    if kind == "torchrun":
        told |= {
            "MASTER_ADDR": spec.environment["MASTER_ADDR"],
            "MASTER_PORT": spec.environment["MASTER_PORT"],
            "GROUP_RANK": str(node_rank),
            "GROUP_WORLD_SIZE": str(case.nodes),
            "ROLE_NAME": "default",
            "ROLE_RANK": str(context.rank),
            "ROLE_WORLD_SIZE": str(case.ranks),
            "TORCHELASTIC_RUN_ID": case.case_id,
            "TORCHELASTIC_RESTART_COUNT": str(spec.attempt),
            "TORCHELASTIC_MAX_RESTARTS": str(case.max_restarts),
        }
    own = {name: placeholders.fill(text, filled) for name, text in command["environment"].items()}
    outer = f"{own.pop('PYTHONPATH', '')}:{os.environ.get('HARNESS_OUTER_PYTHONPATH', '')}".split(":")
    path = [str(module_folder(said)), *(p for p in outer if p and Path(p) != _CODE)]
    return {**kept, **told, **own, "PYTHONPATH": ":".join(path)}


def module_folder(said: Path) -> Path:
    """A folder for PYTHONPATH from which ``harness.program`` can be imported, and nothing else of ours.

    It has no ``__init__.py``: a package ``harness`` of the program's own is then found before it, wherever it is.
    """
    folder = said.with_suffix(".python")
    package = folder / "harness" / "program"
    if not package.exists():
        package.mkdir(parents=True)
        for name in _PROGRAM:
            source = pkgutil.get_data("harness.program", name)
            assert source is not None  # it is part of this code
            (package / name).write_bytes(source)
    return folder


def write_inputs(case: Case, folder: Path, case_folder: Path) -> None:
    """Make the program's folders, and write its script and its input files into them.

    Raises:
        OSError: they cannot be written.
    """
    command = case.command or {}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    case_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    checkpoints_of(case, str(case_folder)).mkdir(mode=0o700, parents=True, exist_ok=True)
    filled = case_values(case, str(folder), str(case_folder))
    files = {**command["programs"]}
    files |= {name: placeholders.fill(text, filled) for name, text in command["inputs"].items()}
    for name, text in files.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o700)
    if command["script"] is not None:
        script_of(folder).write_text(command["script"], encoding="utf-8")


def script_of(folder: Path) -> Path:
    """Where the text of ``script`` is, beside the program's folder and not in it."""
    return folder.with_name("script.sh")
