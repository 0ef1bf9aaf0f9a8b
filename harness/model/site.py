"""Site: a cluster as its users see it, as written in a site file.

Frozen. It refuses choices of an experiment. ``prologue`` and ``power.command`` are code of whoever wrote
the file: the harness runs them as they are. Everything else is data, and is quoted wherever it goes.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.model.fields import Finding, Findings, Frozen, Line, Slug, Text, refuse_if_any

Kind = Literal["emulated", "staging", "production", "workstation"]

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
Path = Annotated[Text, AfterValidator(_absolute)]
Environment = Annotated[dict[str, Line], AfterValidator(_variables)]


class Limits(Frozen):
    """What one job may ask for."""

    max_nodes: Annotated[int, Field(ge=1, le=100_000)]
    """Most nodes of one job."""
    max_time_min: Annotated[int, Field(ge=3, le=43_200)]
    """Longest time limit of one job, in minutes."""
    max_array_size: Annotated[int, Field(ge=2, le=4_000_001)] = 1000
    """Most tasks of one job array (Slurm's MaxArraySize is 1001 unless the site changed it)."""


class Node(Frozen):
    """One node, as far as jobs see it."""

    cpus: Annotated[int, Field(ge=1, le=65_536)]
    """Processors of a node that a job can use."""
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    """GPUs that a job asks for on each node."""
    memory_mb: Annotated[int, Field(ge=0)] | None = None
    """Memory that a job asks for on each node, in MB; 0: all of it; null: what the site gives by default."""
    exclusive: bool
    """Whether a job has its nodes for itself. Measurements on shared nodes measure the neighbours too."""


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


class Power(Frozen):
    """How a node's power is switched."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Program and arguments, no shell; {action} becomes off, on or status, {node} the node's name, {python}
    the job's interpreter. The first word it prints is off or on."""

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


class Site(Frozen):
    """A site file."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this format: 1."""
    name: Slug
    """Short name of the cluster."""
    description: Line = ""
    """What it is, in one line."""
    kind: Kind
    """emulated and staging allow faults beyond the job's own processes; the others never do."""
    launcher: Literal["slurm", "local"]
    """slurm: jobs are submitted. local: plain processes on this machine, which plays all nodes."""
    partition: Text | None = None
    """Passed to sbatch as it is, like the next ones; null: not passed."""
    account: Text | None = None
    """Account that is charged."""
    qos: Text | None = None
    """Quality of service."""
    reservation: Text | None = None
    """Reservation to run in."""
    constraint: Text | None = None
    """Features that the nodes must have."""
    gres: Text | None = None
    """Generic resources of each node, in the place of --gpus-per-node."""
    licenses: Text | None = None
    """Licences that a job takes."""
    limits: Limits
    """What one job may ask for."""
    node: Node
    """One node, as far as jobs see it."""
    python: Path | None = None
    """Interpreter of the jobs; null: the one that plans the run."""
    environment: Environment = Field(default_factory=dict)
    """Variables for every job."""
    prologue: tuple[Command, ...] = ()
    """Shell that every job runs first, as code: each line a complete command, such as `module load cuda`.
    One that fails ends the job."""
    mpi: Mpi
    """How MPI ranks are started."""
    network: Network = Network()
    """The network between the nodes."""
    paths: Paths = Paths()
    """Folders on the nodes."""
    requeue: bool
    """Whether a job may be started again after it lost a node."""
    accounting: bool
    """Whether `sacct` works here."""
    power: Power | None = None
    """How a node's power is switched; null: it cannot be."""
    scheduler: Scheduler = Scheduler()
    """How the driver treats the scheduler."""

    @model_validator(mode="after")
    def _rules(self) -> Site:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.power is not None and self.kind not in ("emulated", "staging"):
            yield Finding(
                ("power",),
                f"but the site is {self.kind}, and only emulated and staging sites may have one; remove it",
            )
        if self.launcher == "local":
            for name in ("partition", "account", "qos", "reservation", "constraint", "gres", "licenses"):
                value = getattr(self, name)
                if value is not None:
                    yield Finding((name,), "means nothing with launcher: local; remove it", value)
        if self.launcher == "local" and self.accounting:
            yield Finding(
                ("accounting",), "there is no Slurm with launcher: local; write false", self.accounting
            )
        if self.launcher == "local" and self.power is not None:
            yield Finding(("power",), "there are no nodes to switch off with launcher: local; remove it")
