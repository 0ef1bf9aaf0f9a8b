"""Verdicts for machines: ``summary.json``, versioned, and ``junit.xml``; equal files give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from analysis.junit import Entry, document
from analysis.results import CampaignResults
from analysis.text import clean
from harness.model.verdict import Verdict, exit_code

if TYPE_CHECKING:
    from analysis.verdict import CaseVerdict

SCHEMA = 1  # of summary.json: schema, campaign, run_id, site, stamp, launcher, counts, exit_code, cases


def counts(verdicts: Sequence[CaseVerdict]) -> dict[str, int]:
    """How many cases have each verdict, in the order of ``Verdict``."""
    return {v.value: sum(c.verdict is v for c in verdicts) for v in Verdict}


def exit_status(verdicts: Sequence[CaseVerdict]) -> int:
    """Exit code of the whole campaign."""
    return exit_code(c.verdict for c in verdicts)


def summarise(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> dict[str, Any]:
    """The content of ``summary.json``: JSON-ready, without control characters."""
    return {
        "schema": SCHEMA,
        "campaign": clean(results.text("campaign")),
        "run_id": clean(results.text("run_id")),
        "site": clean(results.text("site")),
        "launcher": clean(results.text("launcher")),
        "stamp": results.stamp,
        "counts": counts(verdicts),
        "exit_code": exit_status(verdicts),
        "cases": [
            {
                "case_id": clean(c.case_id),
                "label": c.label,
                "verdict": c.verdict.value,
                "key_figure": c.key_figure,
                "why": c.why,
                "evidence": list(c.evidence),
            }
            for c in verdicts
        ],
    }


def _duration_s(results: CampaignResults, case_id: str) -> float:
    """Seconds that all attempts of a case took; those of unknown length count as 0."""
    return float(sum(max(0, a["duration_ns"]) for a in results.of_case("attempts", case_id))) / 1e9


def junit(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> str:
    """JUnit XML: one testcase a case; fail is a failure, unknown and invalid are errors, none is skipped."""
    name, tests = clean(results.text("campaign")), []
    for verdict in verdicts:
        case = results.case(verdict.case_id)
        details = "\n".join(verdict.evidence)
        tests.append(
            Entry(
                f"{name}.{case['workload'] if case else 'unknown'}",
                verdict.label,
                verdict.verdict,
                verdict.why,
                details,
                f"{verdict.key_figure}\n{details}",
                _duration_s(results, verdict.case_id),
            )
        )
    collected_ns, timestamp = results.attributes.get("collected_wall_ns"), ""
    if isinstance(collected_ns, int) and collected_ns > 0:
        collected = datetime.fromtimestamp(collected_ns // 10**9, timezone.utc)
        timestamp = collected.strftime("%Y-%m-%dT%H:%M:%S")
    return document(name, tests, timestamp)
