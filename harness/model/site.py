"""Site: a cluster as its users see it, as written in a site file.

Frozen. It refuses choices of an experiment. ``prologue``, ``templates`` and ``power.command`` are code of
whoever wrote the file: the harness runs them as they are. Everything else is data, and is quoted wherever
it goes. Partitions that differ from the rest stand under ``partitions``; ``Site.on`` gives the site as it
is there, so that nobody else has to know that there are several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from harness.model.fields import Finding, Frozen, Line, Slug, Text, refuse_if_any
from harness.model.site_expected import Expected
from harness.model.site_parts import (
    Command,
    Container,
    Directive,
    Environment,
    Limits,
    Module,
    Mpi,
    Network,
    Node,
    Path,
    Paths,
    Power,
    Scheduler,
)

Kind = Literal["emulated", "staging", "production", "workstation"]

_OF_THE_WHOLE_SITE = ("max_array_size", "max_jobs_in_queue")  # among the limits


class Partition(Frozen):
    """Nodes that differ from the rest: a group runs there with `partition: NAME`.

    A key that stands here takes the place of the site's whole key; one that is left out is the site's own.
    """

    partition: Directive | None = None
    """Slurm's name of it, passed to sbatch as it is, like the next ones; null: not passed."""
    account: Directive | None = None
    """Account that is charged."""
    qos: Directive | None = None
    """Quality of service."""
    reservation: Directive | None = None
    """Reservation to run in."""
    constraint: Directive | None = None
    """Features that the nodes must have."""
    gres: Directive | None = None
    """Generic resources of each node."""
    licenses: Directive | None = None
    """Licences that a job takes."""
    exclude_nodes: tuple[Text, ...] = ()
    """Nodes that no job gets; names that the cluster does not know are left out."""
    limits: Limits | None = None
    """What one job may ask for; max_array_size and max_jobs_in_queue are the whole site's, and stand there."""
    node: Node | None = None
    """One node, as far as jobs see it."""
    python: Path | None = None
    """Interpreter of the jobs."""
    container: Container | None = None
    """The container in which agents and ranks run; null: none."""
    environment: Environment | None = None
    """Variables for every job."""
    modules: tuple[Module, ...] | None = None
    """Environment modules that every job loads."""
    prologue: tuple[Command, ...] | None = None
    """Shell that every job runs first, as code."""
    mpi: Mpi | None = None
    """How MPI ranks are started."""
    network: Network | None = None
    """The network between the nodes."""
    paths: Paths | None = None
    """Folders on the nodes."""
    requeue: bool | None = None
    """Whether a job may be started again after it lost a node."""
    expected: tuple[Expected, ...] | None = None
    """What collectives reach there; null or left out: as on the rest of the site."""

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, all_of_it: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Left out and null differ here, so that what is left out stays so."""
        said = {k: v for k, v in all_of_it(self).items() if k in self.model_fields_set}
        if said.get("limits") is not None:
            said["limits"] = {k: v for k, v in said["limits"].items() if k not in _OF_THE_WHOLE_SITE}
        return said


# Of these null means none; of the other keys of a partition it means the same as leaving them out.
_NULLABLE = frozenset(
    ("partition", "account", "qos", "reservation", "constraint", "gres", "licenses", "python", "container")
)
_OPTIONS = ("partition", "account", "qos", "reservation", "constraint", "gres", "licenses")


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
    partition: Directive | None = None
    """Passed to sbatch as it is, like the next ones; null: not passed."""
    account: Directive | None = None
    """Account that is charged."""
    qos: Directive | None = None
    """Quality of service."""
    reservation: Directive | None = None
    """Reservation to run in."""
    constraint: Directive | None = None
    """Features that the nodes must have."""
    gres: Directive | None = None
    """Generic resources of each node; if it names gpu, GPUs are asked for by it alone."""
    licenses: Directive | None = None
    """Licences that a job takes."""
    limits: Limits
    """What one job may ask for."""
    node: Node
    """One node, as far as jobs see it."""
    python: Path | None = None
    """Interpreter of the jobs; null: the one that plans the run."""
    container: Container | None = None
    """The container in which agents and ranks run; null: none."""
    exclude_nodes: tuple[Text, ...] = ()
    """Nodes that no job gets; names that the cluster does not know are left out."""
    templates: Path | None = None
    """Folder of templates that override the harness's, relative to the site file. Templates are code."""
    environment: Environment = Field(default_factory=dict)
    """Variables for every job."""
    modules: tuple[Module, ...] = ()
    """Environment modules that every job loads before all else, in this order. One that fails ends the job."""
    prologue: tuple[Command, ...] = ()
    """Shell that every job runs then, as code: each line a complete command, such as `ulimit -l unlimited`.
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
    expected: tuple[Expected, ...] = ()
    """What collectives reach here. A run's verdicts hold what it measured against these, as against gates."""
    partitions: dict[Slug, Partition] = Field(default_factory=dict)
    """Nodes that differ from the rest, by a name that groups choose with `partition:`."""

    @model_validator(mode="after")
    def _rules(self) -> Site:
        return refuse_if_any(self, self._findings())

    def on(self, name: str) -> Site:
        """The site as it is in one of its ``partitions``, with none of its own; "" is the site itself.

        Raises:
            KeyError: it has none of that name.
        """
        if not name:
            return self
        chosen = self.partitions[name]
        said = {
            key: getattr(chosen, key)
            for key in chosen.model_fields_set
            if key in _NULLABLE or getattr(chosen, key) is not None
        }
        if chosen.limits is not None:
            whole = {key: getattr(self.limits, key) for key in _OF_THE_WHOLE_SITE}
            said["limits"] = chosen.limits.model_copy(update=whole)
        return self.model_copy(update={**said, "partitions": {}})

    @property
    def gres_request(self) -> str:
        """What follows --gres=; "" where it is not passed."""
        parts = [self.gres] if self.gres is not None else []
        if self.node.gpu_request == "gres" and self._asks_for_gpus:
            parts.insert(0, f"gpu:{self._gpus}")
        return ",".join(parts)

    @property
    def gpus_request(self) -> str:
        """What follows --gpus-per-node=; "" where it is not passed."""
        return self._gpus if self.node.gpu_request == "gpus-per-node" and self._asks_for_gpus else ""

    @property
    def _asks_for_gpus(self) -> bool:
        return self.node.gpus > 0 and not _names_gpu(self.gres)

    @property
    def _gpus(self) -> str:
        kind = "" if self.node.gpu_type is None else f"{self.node.gpu_type}:"
        return f"{kind}{self.node.gpus}"

    def _findings(self) -> Iterator[Finding]:
        yield from self._own_findings()
        yield from _expected_findings(self)
        told = {f.loc for f in self._own_findings()}
        for name, part in self.partitions.items():
            for finding in (*self._partition_findings(name, part), *self.on(name)._own_findings()):
                if finding.loc not in told or finding.loc[0] in part.model_fields_set:
                    yield Finding(("partitions", name, *finding.loc), finding.text, finding.value)

    def _partition_findings(self, name: str, part: Partition) -> Iterator[Finding]:
        for key in _OF_THE_WHOLE_SITE:
            if part.limits is not None and key in part.limits.model_fields_set:
                yield Finding(
                    ("limits", key),
                    "is a limit of the whole site; move it to the site's own limits",
                    getattr(part.limits, key),
                )
        theirs, ours = self.on(name), self
        if part.expected is not None:
            yield from _expected_findings(theirs)
        if theirs.node.architecture != ours.node.architecture and theirs.container is None:
            if "python" not in part.model_fields_set or theirs.python is None:
                yield Finding(
                    ("python",),
                    f"is missing: the nodes are {theirs.node.architecture or 'of another architecture'}, and the "
                    "site's own interpreter is for others; add it",
                )

    def _own_findings(self) -> Iterator[Finding]:
        if self.power is not None and self.kind not in ("emulated", "staging"):
            yield Finding(
                ("power",),
                f"but the site is {self.kind}, and only emulated and staging sites may have one; remove it",
            )
        if self.launcher == "local":
            for name in _OPTIONS:
                value = getattr(self, name)
                if value is not None:
                    yield Finding((name,), "means nothing with launcher: local; remove it", value)
        if self.launcher == "local" and self.accounting:
            yield Finding(
                ("accounting",), "there is no Slurm with launcher: local; write false", self.accounting
            )
        if self.launcher == "local" and self.power is not None:
            yield Finding(("power",), "there are no nodes to switch off with launcher: local; remove it")
        if self.launcher == "local" and self.partitions:
            yield Finding(("partitions",), "mean nothing with launcher: local; remove them")
        if _names_gpu(self.gres) and self.node.gpu_type is not None:
            yield Finding(
                ("gres",),
                f"asks for GPUs already, so node.gpu_type = {self.node.gpu_type} would not be; remove one of them",
                self.gres,
            )


def _expected_findings(site: Site) -> Iterator[Finding]:
    """Expected figures of jobs that the site does not allow, and those that are there twice."""
    first: dict[object, int] = {}
    for index, entry in enumerate(site.expected):
        if entry.nodes is not None and entry.nodes > site.limits.max_nodes:
            text = f"but limits.max_nodes = {site.limits.max_nodes}, so no job measures it; lower it"
            yield Finding(("expected", index, "nodes"), text, entry.nodes)
        if first.setdefault(entry.of, index) != index:
            text = f"is of the same as expected[{first[entry.of]}]; put their figures together"
            yield Finding(("expected", index), text)


def _names_gpu(gres: str | None) -> bool:
    """Whether a list of generic resources has GPUs in it."""
    return any(re.split(r"[:=]", part.strip())[0] in ("gpu", "gres/gpu") for part in (gres or "").split(","))
