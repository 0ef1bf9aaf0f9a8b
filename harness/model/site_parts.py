"""What a site file is made of: the kinds of text in it, and its blocks of keys.

Frozen. Checked here is what can be said of one value or one block; what holds between blocks is with the
site (``harness.model.site``). A text that passes is safe to quote; whether a cluster knows it, ``harness
site check`` finds out.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.model.container import image_problem, mount_problem, option_problem
from harness.model.fields import Finding, Findings, Frozen, Line, Text, refuse_if_any

# Of Slurm and the harness; and names that bash keeps for itself, to which a script cannot give a value.
_RESERVED_PREFIXES = ("HARNESS_", "SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_", "BASH")
# fmt: off
_RESERVED = frozenset({
    "PYTHONPATH", "_", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS",
    "HISTCMD", "LINENO", "OLDPWD", "OPTARG", "OPTIND", "PIPESTATUS", "PPID", "PWD", "RANDOM", "SECONDS",
    "SHELLOPTS", "SHLVL", "SRANDOM", "UID",
})
# fmt: on
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACEHOLDERS = frozenset({"python", "action", "node"})


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise PydanticCustomError("text", "is not an absolute path; begin it with /")
    return value


def _directive(value: str) -> str:
    """Text for one option of sbatch; ``a : b`` is how heterogeneous jobs are written, which there are not."""
    if re.search(r"\s:\s", value):
        raise PydanticCustomError(
            "text",
            "asks for a heterogeneous job, which the harness does not submit: its parts have nodes, ranks and "
            "time limits of their own, so no case would have one shape; use two groups, or `partitions`",
        )
    return value


def _folder(value: str) -> str:
    if any(part in (".", "..") for part in value.split("/")):
        raise PydanticCustomError("text", "has a . or .. in it; write the folder's own path")
    return value


def _word(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", value):
        raise PydanticCustomError("text", "is one word, allowed: letters, digits and . _ + -; change it")
    return value


def _module(value: str) -> str:
    if value.startswith("-") or value.split() != [value]:
        raise PydanticCustomError(
            "text", "is no name of a module; `module avail` lists them, one to each entry"
        )
    return value


def _interface(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:@-]{1,32}", value):
        raise PydanticCustomError("text", "is no name of a network interface; `ip -brief link` lists them")
    return value


def _plugin(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,32}", value):
        raise PydanticCustomError("text", "is no name of an MPI plug-in; `srun --mpi=list` lists them")
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    found = []
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            found.append(
                Finding((name,), "is no name of a variable, allowed: letters, digits and _; rename it", text)
            )
        elif name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            found.append(Finding((name,), "is set by the harness, Slurm or bash itself; remove it", text))
    if found:
        raise Findings(found)
    return value


def _command(value: str) -> str:
    if value.lstrip().startswith("#"):
        raise PydanticCustomError("text", "is a comment; write it in the file as a comment of YAML")
    if (len(value) - len(value.rstrip("\\"))) % 2:
        raise PydanticCustomError(
            "text", "ends in a backslash, and each line is a command of its own; join them"
        )
    return value


Command = Annotated[Text, AfterValidator(_command)]
Directive = Annotated[Text, AfterValidator(_directive)]
Folder = Annotated[Text, AfterValidator(_absolute), AfterValidator(_folder)]
Path = Annotated[Text, AfterValidator(_absolute)]
Word = Annotated[Text, AfterValidator(_word)]
Module = Annotated[Text, AfterValidator(_module)]
Environment = Annotated[dict[str, Line], AfterValidator(_variables)]


class Limits(Frozen):
    """What one job may ask for."""

    max_nodes: Annotated[int, Field(ge=1, le=100_000)]
    """Most nodes of one job."""
    max_time_min: Annotated[int, Field(ge=3, le=43_200)]
    """Longest time limit of one job, in minutes."""
    max_array_size: Annotated[int, Field(ge=1, le=4_000_001)] = 1000
    """Most tasks of one job array: MaxArraySize less one, which is 1000 unless the site changed it; 1: no arrays."""
    max_jobs_in_queue: Annotated[int, Field(ge=1)] | None = None
    """Most jobs of yours queued or running at a time, each task of an array counted; null: no limit."""


class Node(Frozen):
    """One node, as far as jobs see it."""

    architecture: Word | None = None
    """What `uname -m` says on the nodes, such as x86_64 or aarch64; null: as where the run is planned."""
    cpus: Annotated[int, Field(ge=1, le=65_536)]
    """Processors of a node that a job can use."""
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    """GPUs that a job asks for on each node; with `mig`, slices of GPUs."""
    gpu_type: Word | None = None
    """Type of GPU to ask for, as Slurm calls it; null: any."""
    gpu_request: Literal["gpus-per-node", "gres", "none"] = "gpus-per-node"
    """How GPUs are asked for. gpus-per-node: --gpus-per-node. gres: --gres=gpu, where the former does not work.
    none: not at all, where whole nodes come with their GPUs."""
    mig: bool = False
    """Whether the GPUs are MIG slices. Each rank is then given one, by its UUID; NCCL joins no slices, so torch
    workloads of more than one rank are refused."""
    memory_mb: Annotated[int, Field(ge=0)] | None = None
    """Memory that a job asks for on each node, in MB; 0: all of it; null: what the site gives by default."""
    exclusive: bool
    """Whether a job has its nodes for itself. Measurements on shared nodes measure the neighbours too."""

    @model_validator(mode="after")
    def _rules(self) -> Node:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if not self.gpus:
            if self.gpu_type is not None:
                yield Finding(
                    ("gpu_type",), "means nothing without gpus; remove it or add gpus", self.gpu_type
                )
            if self.mig:
                yield Finding(("mig",), "means nothing without gpus; remove it or add gpus", self.mig)


class Mpi(Frozen):
    """How MPI ranks are started."""

    plugin: Annotated[Text, AfterValidator(_plugin)]
    """What follows `srun --mpi=`."""
    environment: Environment = Field(default_factory=dict)
    """Variables for jobs with MPI ranks."""


class Network(Frozen):
    """The network between the nodes."""

    interface: Annotated[Text, AfterValidator(_interface)] | None = None
    """Interface for torch.distributed (gloo and NCCL's bootstrap); null: they choose."""


class Paths(Frozen):
    """Folders on the nodes."""

    node_local: Path = "/tmp"
    """Fast, private to each node: sample files are written here first."""
    shared: tuple[Folder, ...] = ()
    """Folders that all nodes and the login node see alike; a run folder elsewhere is refused. Empty: not checked."""
    visible_after_s: Annotated[float, Field(ge=0, le=600)] = 60.0
    """How many seconds a file that one node wrote may stay unseen by others, which caches of NFS do."""


class Power(Frozen):
    """How a node's power is switched."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Program and arguments, no shell; {action} becomes off, on or status, {node} the node's name, {python}
    the job's interpreter. The first word it prints is off or on."""
    max_nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """staging only: most nodes that one run may have switched off at a time."""
    secret_file: Line = ""
    """File, readable by its owner alone, whose content the command finds in HARNESS_POWER_SECRET. A password belongs
    neither here nor among the arguments, which everybody can read."""

    @model_validator(mode="after")
    def _rules(self) -> Power:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        seen: set[str] = set()
        for index, part in enumerate(self.command):
            try:
                fields = [f[1:] for f in string.Formatter().parse(part) if f[1] is not None]
            except ValueError as error:
                yield Finding(
                    ("command", index),
                    f"has braces that do not match ({error}); write {{{{ for a brace",
                    part,
                )
                continue
            for name, spec, conversion in fields:
                if name not in _PLACEHOLDERS or spec or conversion:
                    yield Finding(
                        ("command", index),
                        "has another placeholder than {action}, {node} and {python}; remove it",
                        part,
                    )
                seen.add(str(name))
        for name in ("action", "node"):
            if name not in seen:
                yield Finding(("command",), f"never says {{{name}}}; add it")


class Scheduler(Frozen):
    """How the driver treats the scheduler."""

    poll_s: Annotated[float, Field(ge=0.2, le=3600)] = 10.0
    """Seconds between two questions to the scheduler."""
    call_timeout_s: Annotated[float, Field(ge=1, le=600)] = 30.0
    """Seconds after which a call to the scheduler is given up."""
    calls_per_minute: Annotated[int, Field(ge=4, le=6000)] = 60
    """Most calls to the scheduler in a minute, of all kinds together."""


class Container(Frozen):
    """The container in which agents and ranks run; the supervisor runs outside, where Slurm's commands are."""

    runtime: Literal["apptainer", "pyxis"]
    """apptainer: `apptainer exec` around each process. pyxis: srun's own --container-image."""
    image: Text
    """Image file, or for pyxis whatever --container-image takes."""
    python: Path
    """Interpreter inside the image, with the harness's dependencies."""
    mounts: tuple[Text, ...] = ()
    """Further folders, SOURCE or SOURCE:TARGET. Run folder and node-local folder are always mounted."""
    options: tuple[Text, ...] = ()
    """Further arguments of `apptainer exec` or of srun, such as --nv."""

    @model_validator(mode="after")
    def _rules(self) -> Container:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if problem := image_problem(self.image):
            yield Finding(("image",), problem, self.image)
        for index, text in enumerate(self.mounts):
            if problem := mount_problem(text):
                yield Finding(("mounts", index), problem, text)
        for index, text in enumerate(self.options):
            if problem := option_problem(self.runtime, text):
                yield Finding(("options", index), problem, text)
