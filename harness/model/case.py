"""Case, Job and Submission: what is to run, resolved. Standard library only, because jobs read these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Scalar = str | int | float | bool
Param = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Fault:
    """One declared fault of a case.

    ``kind`` is what will be done on this site; ``requested_kind`` is what the campaign asked for. They
    differ only where the campaign allowed a substitute (``instead:``) and the site lacks the means.
    """

    fault_id: str
    kind: str
    requested_kind: str
    target_node: int  # index into the allocation's nodes; 0 is the batch host
    at_step: int  # injected as soon as every rank has begun this step
    expect: str  # "recovered" or "failed"


@dataclass(frozen=True)
class Gate:
    """A limit on a statistic of one metric over a case's own samples, warm-up left out."""

    metric: str
    statistic: str  # "median", "mean", "min", "max", "p95"
    minimum: float | None = None
    maximum: float | None = None
    where: Mapping[str, Scalar] = field(default_factory=dict)  # column -> value the samples must have


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
    faults: tuple[Fault, ...] = ()
    recovery: str = "none"  # "none" or "requeue"
    max_restarts: int = 0
    gates: tuple[Gate, ...] = ()
    twin: str = ""  # case_id of the undisturbed run whose answer this one must equal
    is_twin: bool = False  # planned only because a faulted case needs it
    deterministic: bool = True
    time_limit_min: int = 5

    @property
    def ranks(self) -> int:
        """World size."""
        return self.nodes * self.ranks_per_node

    @property
    def label(self) -> str:
        """A name for people: group, nodes, repeat, and ``twin`` or ``fault`` where it matters."""
        role = "/fault" if self.faults else "/twin" if self.is_twin else ""
        return f"{self.group}/n{self.nodes}/r{self.repeat}{role}"

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
        values["faults"] = tuple(Fault(**f) for f in values.get("faults", ()))
        values["gates"] = tuple(Gate(**g) for g in values.get("gates", ()))
        values["params"] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["params"].items()}
        return cls(**values)


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

    def job_name(self, run_id: str) -> str:
        """Its name in Slurm: the key by which it is found again (comments are not always in the accounts)."""
        return f"hh.{run_id}.{self.name}"

    @property
    def is_array(self) -> bool:
        """Whether this is submitted with ``--array``."""
        return len(self.jobs) > 1


@dataclass(frozen=True)
class Plan:
    """Everything a campaign will run on a site, in order."""

    cases: tuple[Case, ...]
    submissions: tuple[Submission, ...]

    def case(self, case_id: str) -> Case:
        """The case of that id.

        Raises:
            KeyError: no case has it.
        """
        for case in self.cases:
            if case.case_id == case_id:
                return case
        raise KeyError(case_id)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-ready data."""
        return {
            "cases": [c.to_json() for c in self.cases],
            "submissions": [asdict(s) for s in self.submissions],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from ``to_json``'s data."""
        submissions = []
        for s in data["submissions"]:
            jobs = tuple(Job(**{**j, "case_ids": tuple(j["case_ids"])}) for j in s["jobs"])
            submissions.append(Submission(name=s["name"], jobs=jobs, template=s["template"]))
        return cls(cases=tuple(Case.from_json(c) for c in data["cases"]), submissions=tuple(submissions))


def content_id(content: Any, length: int = 12) -> str:
    """Hex digest of JSON-ready content, in a canonical form: equal content has an equal id."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:length]
