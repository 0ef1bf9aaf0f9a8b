"""The ledger: append-only, what the driver did. A driver that was killed resumes from it.

``submitting`` is written before ``sbatch`` is called and ``submitted`` after it answered: a submission
that is only ``submitting`` may or may not be in the queue, and has to be looked up by its name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.rundir import RunDir, append_line, read_lines

SUBMITTING, SUBMITTED, REFUSED, ENDED, CANCELLED = "submitting", "submitted", "refused", "ended", "cancelled"


@dataclass(frozen=True)
class Ledger:
    """The ledger as read."""

    submitting: Mapping[str, int] = field(default_factory=dict)  # submission -> wall ns of the last try
    submitted: Mapping[str, str] = field(default_factory=dict)  # submission -> job id
    refused: Mapping[str, str] = field(default_factory=dict)  # submission -> what sbatch said, for good
    ended: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # job key -> state and what is known
    tries: Mapping[str, int] = field(default_factory=dict)  # submission -> times that sbatch was called
    cancelled: frozenset[str] = frozenset()  # submissions that a person cancelled


def read(run: RunDir) -> Ledger:
    """Read a run's ledger; a missing one is empty."""
    submitting: dict[str, int] = {}
    submitted: dict[str, str] = {}
    refused: dict[str, str] = {}
    ended: dict[str, Mapping[str, Any]] = {}
    tries: Counter[str] = Counter()
    cancelled: set[str] = set()
    for line in read_lines(run.ledger):
        what, name = line["what"], line.get("name", "")
        if what == SUBMITTING:
            submitting[name] = line["wall_ns"]
            tries[name] += 1
        elif what == SUBMITTED:
            submitted[name] = line["job_id"]
        elif what == REFUSED:
            refused[name] = line["why"]
        elif what == ENDED:
            ended[name] = line["facts"]
        elif what == CANCELLED:
            cancelled.add(name)
    return Ledger(submitting, submitted, refused, ended, tries, frozenset(cancelled))


def write(run: RunDir, what: str, name: str, **facts: Any) -> None:
    """Append one line, durably."""
    append_line(run.ledger, {"what": what, "name": name, "wall_ns": time.time_ns(), **facts})
