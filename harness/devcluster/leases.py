"""Faults of the cluster as leases: what was asked, until when at most, and what became of it. Values only.

A lease is on record before anything is done, with the time at which it ends by itself. There is no fault
without an end. The record is a file of lines in the cluster's folder; the last line of a serial number holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.devcluster.errors import ClusterError

MOST_S = 600.0
LEAST_S = 0.1
ARMED, ACTIVE, HEALING, HEALED, FAILED = "armed", "active", "healing", "healed", "failed"
ENDED = (HEALED, FAILED)
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}")


@dataclass(frozen=True)
class Lease:
    """One fault. ``serial`` is unique in the cluster's life; an ``identity`` may be used again when it has ended.

    State: armed (its end is arranged, nothing is done yet), active, healing, healed; failed when it could not
    be done, and what was done of it is undone.
    """

    serial: int
    identity: str
    kind: str
    nodes: tuple[str, ...]
    options: Mapping[str, Any]
    for_s: float
    asked_by: str
    requested_wall_ns: int
    until_wall_ns: int
    until_monotonic_ns: int
    state: str = ARMED
    hosts: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # process 1 of each host then
    effect_wall_ns: int = 0
    evidence: Mapping[str, Any] = field(default_factory=dict)
    healed_by: str = ""  # "timer", or who asked
    healed_wall_ns: int = 0
    healed: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def table(self) -> str:
        """A name for what it leaves in the kernel."""
        return f"harness_fault_{self.serial}"

    @property
    def reason(self) -> str:
        """What Slurm is told of a node that it takes away: only nodes with this very reason are given back."""
        return f"harness-fault {self.identity}"

    def to_json(self) -> dict[str, Any]:
        """For the ledger and for whoever asks."""
        until = datetime.fromtimestamp(self.until_wall_ns / 1e9, timezone.utc)
        record = asdict(self)
        record["id"] = record.pop("identity")
        return {**record, "until": until.isoformat(timespec="milliseconds")}


def check_duration(given: object) -> float:
    """The seconds of a lease; a ClusterError where there are none, or too many."""
    allowed = f"a fault lasts {LEAST_S:g} to {MOST_S:g} s; give --for SECONDS"
    if not isinstance(given, (int, float)) or isinstance(given, bool):
        raise ClusterError(f"no --for: {allowed}", exit_status=2)
    if not LEAST_S <= given <= MOST_S:  # also not a number
        raise ClusterError(f"--for {given:g}: {allowed}", exit_status=2)
    return float(given)


def check_identity(given: object, serial: int) -> str:
    """The id that was asked for, or one of ours."""
    if given is None:
        return f"fault-{serial}"
    if not isinstance(given, str) or _IDENTITY.fullmatch(given) is None:
        raise ClusterError(
            f"--id {given!r}: letters, digits and ._:/+- are allowed, 128 at most, a letter or digit first",
            exit_status=2,
        )
    return given


def record(path: Path, lease: Lease) -> None:
    """Append the lease as it is now, durably: what follows may be the fault."""
    with open(path, "a") as ledger:
        ledger.write(json.dumps(lease.to_json()) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
