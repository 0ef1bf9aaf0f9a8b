"""Everything a results file says of one case, read once; and a finding, which is what a rule makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from analysis.results import OF_CASE, CampaignResults, Row
from analysis.stamps import short_id
from harness.model.attempt import COMPLETED, FAILED, INTERRUPTED, LOST, NODE_LOST
from harness.model.event import RESULT
from harness.model.fault import CAUGHT
from harness.model.fault import FAILED as TO_FAIL
from harness.model.verdict import Verdict

if TYPE_CHECKING:
    from analysis.references import References


@dataclass(frozen=True)
class Finding:
    """What one rule found; ``verdict`` is None for information."""

    verdict: Verdict | None
    words: str


@dataclass(frozen=True)
class View:
    """The records of one case."""

    results: CampaignResults
    case: Row
    attempts: tuple[Row, ...]  # by index
    faults: tuple[Row, ...]
    events: tuple[Row, ...]
    checks: tuple[Row, ...]
    streams: tuple[Row, ...]
    detections: tuple[Row, ...]
    checkpoints: tuple[Row, ...]
    digests: tuple[Row, ...]
    # The file's gates against other files; None where nobody asks.
    references: References | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, results: CampaignResults, case: Row, references: References | None = None) -> View:
        """The view of one case."""
        view = cls(results, case, *(tuple(results.of_case(name, case["case_id"])) for name in OF_CASE))
        return replace(view, references=references)

    @property
    def outcome(self) -> str:
        """Outcome of the last attempt, ``not_run`` without one."""
        return str(self.attempts[-1]["outcome"]) if self.attempts else "not_run"

    @property
    def completed(self) -> bool:
        """Whether the last attempt completed."""
        return self.outcome == COMPLETED

    @property
    def whole(self) -> bool:
        """Whether all that was recorded of it arrived: without that, what is not there proves nothing."""
        return bool(self.case["evidence"] == "complete")

    @property
    def declared(self) -> list[dict[str, Any]]:
        """Declared faults, as ``harness.model.case.Fault``."""
        return list(json.loads(self.case["faults"] or "[]"))

    def observed(self, expect: str) -> list[Row]:
        """The faults with that declared outcome whose effect was verified."""
        return [f for f in self.faults if f["observed"] and f["expect"] == expect]

    @property
    def failed_as_declared(self) -> bool:
        """It ended badly, and a fault that was observed was declared to end it so."""
        struck = self.observed(TO_FAIL)
        if not struck:
            return False
        # What takes the job, or the node of its supervisor, away leaves nobody who could call it failed.
        taken = any(f["kind"].startswith(("job.", "node.")) for f in struck)
        return self.outcome in ((FAILED, NODE_LOST, INTERRUPTED, LOST) if taken else (FAILED, NODE_LOST))

    @property
    def control(self) -> bool:
        """Whether it holds a negative control: its answer is meant to be wrong, and the proof to notice."""
        return any(f["expect"] == CAUGHT for f in self.declared)

    def of_kind(self, kind: str) -> list[Row]:
        """Events of one kind, by attempt and then oldest first."""
        return sorted(
            (e for e in self.events if e["kind"] == kind), key=lambda e: (e["attempt"], e["wall_ns"])
        )

    def answers(self) -> dict[tuple[str, int], Any]:
        """Results of the last attempt: (name, rank) -> value."""
        found = {}
        for event in self.of_kind(RESULT):
            if self.attempts and event["attempt"] == self.attempts[-1]["index"]:
                said = data(event)
                found[(str(said["name"]), int(event["rank"]))] = said.get("value")
        return found


Rule = Callable[[View], list[Finding]]


def data(event: Row) -> dict[str, Any]:
    """The data of an event.

    Raises:
        ValueError: it is not a JSON object.
    """
    found = json.loads(event["data"] or "{}")
    if not isinstance(found, dict):
        raise ValueError(f"data of event {event['kind']} is not an object")
    return found


def fault_name(fault: Row) -> str:
    """A fault for people, from its row of /faults."""
    on = f" on {fault['target']}" if fault["target"] else ""
    return f"fault {short_id(fault['fault_id'], fault['case_id'])} ({fault['kind']}{on})"
