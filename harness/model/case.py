"""Case, Job and Submission: what is to run, resolved. Standard library only, because jobs read these."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.model.design import AB, Comparison, Lot
from harness.model.fault import Fault as Fault

Scalar = str | int | float | bool
Param = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Gate:
    """A limit on a statistic of one metric over a case's own samples, warm-up left out.

    The limit is a number, or what was measured before: in a baseline file, or in the runs of a folder.
    """

    metric: str
    statistic: str  # "median", "mean", "min", "max", "p95"
    minimum: float | None = None
    maximum: float | None = None
    where: Mapping[str, Scalar] = field(default_factory=dict)  # column -> value the samples must have
    baseline: str = ""  # results.h5 or run folder to compare with
    history: str = ""  # folder of earlier runs to compare with
    smallest: str = ""  # change that matters: "5%", or a number in the metric's unit
    despite: tuple[str, ...] = ()  # differences that stop no comparison: "hardware", "software", "definition"


@dataclass(frozen=True)
class Case:
    """One cell of a campaign, repeat included. Does not know whether it ran."""

    case_id: str
    group: str
    workload: str
    nodes: int
    ranks_per_node: int
    repeat: int
    seed: int
    steps: int
    warmup_steps: int
    params: Mapping[str, Param]
    scaling_mode: str = "none"  # "none", "strong" or "weak"
    scaling_base: int = 0  # nodes for which the campaign's parameters are meant; 0 without scaling
    checkpoint_every: int = 0  # steps; 0 means never
    checkpoint_keep: int = 2
    checkpoint_engine: str = "own"  # "own", "torch.save" or "dcp"
    memory_every: int = 0  # steps between checkpoints in node memory; 0 means never
    digest_every: int = 0  # steps between digests of the live state; 0: at checkpoints only
    faults: tuple[Fault, ...] = ()
    recovery: str = "none"  # "none", "requeue", "new-step" or "warm-restart"
    max_restarts: int = 0
    spares: int = 0  # nodes that its job has beyond `nodes`, to replace lost ones
    shrink: bool = False  # goes on with fewer ranks when no spare is left
    detection: Mapping[str, float] = field(default_factory=dict)  # harness.model.campaign_faults.Detection
    gates: tuple[Gate, ...] = ()
    twin: str = ""  # case_id of the undisturbed run whose answer this one must equal
    is_twin: bool = False  # planned only because a faulted case needs it
    deterministic: bool = True
    time_limit_min: int = 5
    axes: Mapping[str, Param] = field(
        default_factory=dict
    )  # what this cell's axes say: the label's second part
    partition: str = ""  # which of the site's partitions; "": the site's own values
    command: Mapping[str, Any] | None = None  # workload "command": harness.model.command.Command as JSON
    environment: Mapping[str, str] = field(default_factory=dict)  # variables of every rank

    @property
    def ranks(self) -> int:
        """World size, while it has all its nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def in_place(self) -> bool:
        """Whether it is started again inside its allocation."""
        return self.recovery in IN_PLACE

    @property
    def label(self) -> str:
        """A name for people: group, nodes, axes, repeat, and ``twin`` or ``fault`` where it matters."""
        role = "/fault" if self.faults else "/twin" if self.is_twin else ""
        return f"{self.series}/r{self.repeat}{role}"

    @property
    def series(self) -> str:
        """What its repeats have in common: group, nodes, axes."""
        return self._named(*self.axes)

    @property
    def cell(self) -> str:
        """What both settings of a comparison have in common: ``series`` without the setting."""
        return self._named(*(name for name in self.axes if name != AB))

    def _named(self, *names: str) -> str:
        # JSON does not keep their order, and a label must stay the same.
        cell = "".join(f"/{name}={short(self.axes[name])}" for name in sorted(names) if name != "nodes")
        if len(cell) > _LABEL_AXES:
            cell = f"{cell[:_LABEL_AXES]}~{content_id(cell, 10)}"
        return f"{self.group}/n{self.nodes}{cell}"

    def to_json(self) -> dict[str, Any]:
        """The case as JSON-ready data; ``Case.from_json`` gives an equal value back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Case:
        """Rebuild a case from ``to_json``'s data.

        Raises:
            TypeError: a field is missing or unknown, so the data comes from another version.
        """
        values = dict(data)
        values["faults"] = tuple(Fault.from_json(f) for f in values.get("faults", ()))
        values["gates"] = tuple(
            Gate(**{**g, "despite": tuple(g.get("despite", ()))}) for g in values.get("gates", ())
        )
        for name in ("params", "axes"):
            values[name] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.get(name, {}).items()
            }
        return cls(**values)


IN_PLACE = ("new-step", "warm-restart")
CACHED = "CACHED"  # state of a job that is not run, because an earlier run kept its twin's records
_LABEL_VALUE, _LABEL_AXES = 24, 100  # characters
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]")


def short(value: Param) -> str:
    """A value as labels show it: safe in reports and on command lines; a long or odd one ends in its digest."""
    parts = value if isinstance(value, tuple) else (value,)
    text = "+".join(str(v).lower() if isinstance(v, bool) else str(v) for v in parts)
    plain = _UNSAFE.sub("_", text)
    if plain == text and len(text) <= _LABEL_VALUE:
        return text
    return f"{plain[:15]}~{content_id(text, 8)}"


@dataclass(frozen=True)
class Job:
    """One allocation: one ``sbatch`` or one task of an array, holding cases that run in turn."""

    key: str  # "0003" or, in an array, "0003_7"; unique in its run
    nodes: int
    ranks_per_node: int
    time_limit_min: int
    case_ids: tuple[str, ...]
    requeue: bool  # Slurm may start it again after a node failure


@dataclass(frozen=True)
class Submission:
    """One ``sbatch``: a single job, or an array of jobs of one shape."""

    name: str  # "0003"; the job's name in Slurm is "hh.<run id>.<name>"
    jobs: tuple[Job, ...]
    template: str  # file name under sbatch_templates
    partition: str = ""  # which of the site's partitions; "": the site's own values
    after: tuple[str, ...] = ()  # groups that must have ended before this is sent
    needs: tuple[str, ...] = ()  # groups that must have ended and passed
    round: int = 0  # above 0: some jobs of the submission `of` once more, after they failed
    of: str = ""  # the planned submission whose script this sends; "" for itself
    tasks: tuple[int, ...] = ()  # array indices of the jobs; () for 0, 1, 2 ...
    lot: str = ""  # what is repeated together until it is enough; "" for cases that are run in any case
    wave: int = 0  # above 0: waits until the lot's waves before have ended, and runs if they were not enough

    @property
    def script(self) -> str:
        """Name of the planned submission whose script is sent."""
        return self.of or self.name

    def task_id(self, index: int, job_id: str) -> str:
        """Slurm's id of ``jobs[index]``, given that of the submission: ``12``, or ``12_3`` in an array."""
        if not self.is_array:
            return job_id
        return f"{job_id}_{self.tasks[index] if self.tasks else index}"

    def again(self, round_: int, keys: Collection[str]) -> Submission:
        """Those of its jobs once more, in a later round."""
        chosen = [i for i, job in enumerate(self.jobs) if job.key in keys]
        return replace(
            self,
            name=f"{self.name}.{round_}",
            jobs=tuple(self.jobs[i] for i in chosen),
            after=(),
            needs=(),
            round=round_,
            of=self.name,
            tasks=tuple(chosen) if self.is_array else (),
        )

    def job_name(self, run_id: str) -> str:
        """Its name in Slurm: the key by which it is found again (comments are not always in the accounts)."""
        return f"hh.{run_id}.{self.name}"

    @property
    def is_array(self) -> bool:
        """Whether this is submitted with ``--array``."""
        return len(self.jobs) > 1 or bool(self.tasks)


@dataclass(frozen=True)
class Policy:
    """What the campaign tells the driver."""

    retry: Mapping[str, int] = field(default_factory=dict)  # class of failure -> times; one left out: 0
    max_jobs_in_queue: int | None = None  # the smaller of campaign's and site's


@dataclass(frozen=True)
class Plan:
    """Everything a campaign will run on a site, in order."""

    cases: tuple[Case, ...]
    submissions: tuple[Submission, ...]
    policy: Policy = Policy()
    lots: tuple[Lot, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    def lot(self, name: str) -> Lot | None:
        """The lot of that name; None in a plan that has none, such as a replay's."""
        return self._lots.get(name)

    @functools.cached_property
    def _lots(self) -> dict[str, Lot]:
        return {lot.name: lot for lot in self.lots}

    def case(self, case_id: str) -> Case:
        """The case of that id.

        Raises:
            KeyError: no case has it.
        """
        return self._by_id[case_id]

    @functools.cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.case_id: case for case in self.cases}

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-ready data."""
        return {
            "cases": [c.to_json() for c in self.cases],
            "submissions": [asdict(s) for s in self.submissions],
            "policy": asdict(self.policy),
            "lots": [lot.to_json() for lot in self.lots],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from ``to_json``'s data."""
        submissions = []
        for s in data["submissions"]:
            jobs = tuple(Job(**{**j, "case_ids": tuple(j["case_ids"])}) for j in s["jobs"])
            groups = {name: tuple(s.get(name, ())) for name in ("after", "needs", "tasks")}
            submissions.append(Submission(**{**s, "jobs": jobs, **groups}))
        return cls(
            cases=tuple(Case.from_json(c) for c in data["cases"]),
            submissions=tuple(submissions),
            policy=Policy(**data.get("policy", {})),
            lots=tuple(Lot.from_json(lot) for lot in data.get("lots", ())),
            comparisons=tuple(Comparison.from_json(c) for c in data.get("comparisons", ())),
        )


def content_id(content: Any, length: int = 12) -> str:
    """Hex digest of JSON-ready content, in a canonical form: equal content has an equal id."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:length]
