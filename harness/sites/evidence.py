"""What ``harness site check`` gathered, for ``judge``: plain data, so that judging can be tested without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.sites.limits import Ceiling

OK, WRONG, UNKNOWN, NOTE = "ok", "wrong", "unknown", "note"


@dataclass(frozen=True)
class Line:
    """One line of the result: how it is, of which key of the site file, what was seen, and what to change."""

    status: str
    place: str
    said: str
    change: str = ""


@dataclass(frozen=True)
class Evidence:
    """Everything that was seen."""

    folder: str
    refused: str = ""  # what sbatch said, if it refused
    for_now: bool = False  # it said itself that it may take the job later
    submit_trouble: str = ""  # why nobody knows whether it took the job
    waited_s: float = 0.0
    deadline_s: float = 0.0
    job: Mapping[str, str] = field(default_factory=dict)  # scontrol show job, as it was last
    report: Mapping[str, Any] | None = None  # what the job wrote
    out: str = ""  # what its script printed
    seen: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # node -> when its file was seen here
    accounts: str = ""  # what sacct says of the job; "" for nothing
    accounts_trouble: str = ""
    power: Mapping[str, str] = field(default_factory=dict)  # node -> "on", "off", or "!" and a problem
    config: Mapping[str, str] = field(default_factory=dict)  # scontrol show config
    partition: Mapping[str, Any] = field(default_factory=dict)  # limits of the partition, None for none
    plugins: tuple[str, ...] = ()  # srun --mpi=list
    nodes: int = 0  # of the job
    ceilings: tuple[Ceiling, ...] = ()  # limits of the account and of the quality of service
    strange_names: tuple[
        str, ...
    ] = ()  # of account and qos, that the accounts do not know, with those they know
    folders: Mapping[str, str] = field(default_factory=dict)  # of paths.shared -> what is wrong with it
    strange_nodes: tuple[str, ...] = ()  # of exclude_nodes, that the cluster does not have
