"""What the report's template is given: plain values, arranged in the order in which the page tells them.

Nothing is computed or judged here. Text is as the results file has it; the template escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from analysis import (
    casepage,
    collectives_page,
    designs_page,
    figures,
    placepage,
    recovery_page,
    scaling,
    scaling_figures,
    scaling_words,
    stability_page,
    text,
)
from analysis.difference import Change
from analysis.results import CampaignResults, Row
from analysis.verdict import CaseVerdict
from harness.model.design import WORDS

Words = dict[str, Any]

GROUPS = 24  # whose step times are drawn
NOT_NEEDED = 200  # cases that were not needed and are named
ATTENTION = 8  # things beside verdicts that the summary names
ATTENTION_OF_PAIRS = 3


def _scaling(results: CampaignResults) -> list[Words]:
    return [
        {
            "series": s,
            "drawn": [
                Markup(drawn)
                for draw, fewest in (  # over one node count there is nothing to see, beside its parts
                    (scaling_figures.time, 2),
                    (scaling_figures.efficiency, 2),
                    (scaling_figures.parts, 1),
                )
                if len(s.points) >= fewest and (drawn := draw(s))
            ],
            "fits": [
                {"fit": f, "words": scaling_words.parameter_words(f), "best": f.law == s.best} for f in s.fits
            ],
            "cell": ", ".join(f"{name} {value}" for name, value in casepage.pretty(s.cell)),
            "laws": scaling_words.law_words(s) if s.fits or s.why_no_fit else [],
            "points": [
                (p, scaling_words.efficiency_words(p), scaling_words.karp_flatt_words(p)) for p in s.points
            ],
            "predictions": [scaling_words.prediction_words(p) for p in s.predictions],
            "has_intervals": any(p.interval_s for p in s.points),
        }
        for s in scaling.analyse(results)
    ]


def _step_times(results: CampaignResults) -> Words:
    groups: dict[str, list[Row]] = {}
    for case in results.cases:
        groups.setdefault(case["group"], []).append(case)
    found = []
    for name, cases in list(groups.items())[:GROUPS]:
        drawn = figures.step_times(results, cases)
        if drawn:
            found.append(
                {"name": name, "figure": Markup(drawn.figure), "more": drawn.left_out, "pooled": drawn.pooled}
            )
    return {"rows": found, "more": max(0, len(groups) - GROUPS)}


def _attention(told: Words) -> list[tuple[str, str, str]]:
    """What a reader should know beside the verdicts: css class, words, and where the page tells it."""
    found: list[tuple[str, str, str]] = []
    stories = told["recovery"]["stories"]
    for outcome, words in (("not healed", "was not healed"), ("never", "was never recovered from")):
        mine = [s["r"] for s in stories if s["outcome"] == outcome]
        if mine:
            more = f", and {len(mine) - 1} more" if len(mine) > 1 else ""
            found.append(
                ("fail", f"{mine[0].fault_id} of {mine[0].label} ({mine[0].kind}) {words}{more}", "recovery")
            )
    alarms = told["recovery"]["score"].false_alarms
    if alarms:
        found.append(("unknown", f"{text.count(alarms, 'false alarm')} of the detectors", "recovery"))
    if not told["stamp"]:
        found += [
            ("fail", text.one_line(f"{item['p'].name}: {item['p'].words}"), "designs")
            for item in told["designs"]["pairs"]
            if item["p"].verdict is Change.WORSE
        ][:ATTENTION_OF_PAIRS]
        found += _slow(told)
    for name, value in told["versions"][:3]:
        found.append(("unknown", f"ranks disagree on {name}: {value}", "environment"))
    for fact, values in told["differences"][:3]:
        found.append(("info", f"nodes differ in {fact}: {text.count(len(values), 'value')}", "environment"))
    return found[:ATTENTION]


def _slow(told: Words) -> list[tuple[str, str, str]]:
    """Stragglers, slow nodes and unstable cases, of a cluster whose figures judge."""
    found = [("unknown", s.words, "stability") for s in told["stability"]["stragglers"][:2]]
    named = {s.node for s in told["stability"]["stragglers"][:2]}
    where = told["where"]["map"]
    for row in where.notable[:3] if where else ():
        if row.name not in named:
            longer, cases = text.percent(row.slower or 0.0), text.count(row.compared, "case")
            words = f"node {row.name} takes {longer} longer than its peers, median of {cases}"
            found.append(("unknown", words, "nodes"))
    if told["stability"]["unstable"]:
        words = text.count(told["stability"]["unstable"], "case is", "cases are")
        found.append(
            ("info", f"{words} unstable: drift, jitter, tails, leaks or too short a warm-up", "stability")
        )
    return found


def _sections(told: Words) -> list[tuple[str, str, Any]]:
    """Sections of the page: anchor, words, and whether there is anything to tell."""
    return [
        ("cases", "Cases", True),
        ("scaling", "Scaling", told["scaling"]),
        ("collectives", "Collectives", told["collectives"]["panels"]),
        ("designs", "Comparisons", told["designs"]["pairs"] or told["designs"]["lots"]),
        ("recovery", "Recovery", told["recovery"]["stories"]),
        ("stability", "Stability", told["stability"]["cases"] or told["stability"]["stragglers"]),
        ("times", "Step times", told["step_times"]["rows"]),
        ("nodes", "Nodes", told["where"]["attempts"]),
        ("telemetry", "Telemetry", told["telemetry"]["counted"] or told["telemetry"]["absent"]),
        ("environment", "Environment", True),
        ("jobs", "Jobs", told["jobs"]["rows"]),
    ]


def contents(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> Words:
    """Everything the template shows.

    Raises:
        StoreError: samples of the file are damaged.
    """
    collected = results.attributes.get("collected_wall_ns")
    kinds = placepage.nodes(results)
    told: Words = {
        "campaign": results.text("campaign"),
        "description": str(results.attributes.get("description") or ""),
        "run_id": results.text("run_id"),
        "site": results.text("site"),
        "collected": text.instant(collected if isinstance(collected, int) else 0),
        "slurm_version": results.text("slurm_version"),
        "local": results.text("launcher") == "local",
        "emulated": bool(results.flag("emulated")),
        "oversubscribed": bool(results.flag("oversubscribed")),
        "stamp": results.stamp,
        "summary": casepage.summary(verdicts),
        "groups": casepage.groups(results, verdicts),
        "not_needed": [
            (row["label"], row["reason"].removeprefix(WORDS)) for row in results.not_needed[:NOT_NEEDED]
        ],
        "all_not_needed": len(results.not_needed),
        "unknown_folder": any(
            casepage.run_folder(results, case) == casepage.UNKNOWN_FOLDER for case in results.cases
        ),
        "scaling": _scaling(results),
        "collectives": collectives_page.contents(results),
        "designs": designs_page.contents(results),
        "recovery": recovery_page.contents(results, casepage.attempt),
        "stability": stability_page.contents(results),
        "step_times": _step_times(results),
        "where": placepage.where(results),
        "telemetry": placepage.telemetry(results),
        "jobs": placepage.jobs(results),
        "provenance": placepage.provenance(results),
        "nodes": kinds[: placepage.KINDS_OF_NODES],
        "more_nodes": max(0, len(kinds) - placepage.KINDS_OF_NODES),
        "differences": placepage.differences(kinds),
        "versions": placepage.versions(results),
        "environment": casepage.pretty(str(results.attributes.get("environment") or "")),
        "command": results.text("command"),
        "campaign_yaml": str(results.attributes.get("campaign_yaml") or ""),
        "site_yaml": str(results.attributes.get("site_yaml") or ""),
    }
    told["sections"] = [(anchor, words) for anchor, words, there in _sections(told) if there]
    known = {anchor for anchor, _ in told["sections"]}
    told["attention"] = [(c, w, anchor if anchor in known else "cases") for c, w, anchor in _attention(told)]
    return told
