"""The report's sections on where a campaign ran: nodes, environment and its differences, jobs, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from analysis import counters, heatmap, text, timelines
from analysis.casepage import as_object, attempt, short
from analysis.results import CampaignResults
from harness.model.event import RANK_STARTED

Words = dict[str, Any]

ROWS = 300  # of attempts and of jobs; the results file has all
SCRIPTS = 12  # shown in full
KINDS_OF_NODES = 8
NAMED_NODES = 24


def where(results: CampaignResults) -> Words:
    """Heat map and time line of the nodes, and the attempts."""
    labels = {case["case_id"]: case["label"] for case in results.cases}
    rows = [{**attempt(a), "label": labels.get(a["case_id"], a["case_id"])} for a in results.attempts[:ROWS]]
    found, lanes = heatmap.analyse(results), timelines.campaign(results)
    nodes = sorted(found.rows, key=lambda r: -(r.slower or -1.0)) if found else []
    return {
        "map": found,
        "figure": Markup(found.figure) if found else "",
        "nodes": nodes[:NAMED_NODES],
        "more_nodes": max(0, len(nodes) - NAMED_NODES),
        "compares": any(row.compared for row in nodes),
        "lanes": lanes,
        "when": Markup(lanes.figure) if lanes else "",
        "attempts": rows,
        "all_attempts": len(results.attempts),
    }


def telemetry(results: CampaignResults) -> Words:
    """Plots of counters, and what was not counted where, with the reason."""
    absent: dict[tuple[str, str], list[str]] = {}
    for row in results.telemetry_absent:
        absent.setdefault((row["what"], row["reason"]), []).append(row["node"])
    return {
        "counted": [
            {"legend": one.keys, "plots": [(words, Markup(drawn)) for words, drawn in one.plots]}
            for one in counters.telemetry(results)
        ],
        "absent": [(what, reason, nodes) for (what, reason), nodes in absent.items()],
    }


# --- environment ---------------------------------------------------------------------------------------------


def nodes(results: CampaignResults) -> list[Words]:
    """What nodes said of themselves and of what their ranks ran on; nodes that said the same stand together."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, facts in zip(results.nodes, results.node_facts, strict=True):
        groups.setdefault(tuple(_node(facts)), []).append(name)
    return [{"names": sorted(named, key=timelines.natural), "rows": rows} for rows, named in groups.items()]


def differences(kinds: Sequence[Words]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Facts on which nodes that said anything differ: fact, and each value with the nodes that have it."""
    said = [(kind["names"], dict(kind["rows"])) for kind in kinds if kind["rows"]]
    found = []
    for fact in dict.fromkeys(name for _, facts in said for name in facts):
        values: dict[str, list[str]] = {}
        for named, facts in said:
            values.setdefault(facts.get(fact, "not said"), []).extend(named)
        if len(values) > 1:
            found.append(
                (fact, [(value, sorted(named, key=timelines.natural)) for value, named in values.items()])
            )
    return found


def _node(facts: str) -> list[tuple[str, str]]:
    """Facts of one node in words; each GPU by its name, their UUIDs stay in the file."""
    found = as_object(facts)
    if found is None:
        return [("", facts)]
    rows = []
    for name, value in found.items():
        if name == "memory_bytes" and isinstance(value, int):
            rows.append(("memory", text.size(value)))
        elif name == "gpus" and isinstance(value, list):
            kinds = [str((as_object(gpu) or {}).get("name") or "unknown") for gpu in value]
            counted = [f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds)]
            rows.append(("GPUs", ", ".join(counted) or "none"))
        elif name == "versions" and isinstance(value, dict):
            rows += [(str(what), short(version)) for what, version in value.items() if what not in found]
        else:
            rows.append((str(name).replace("_", " "), short(value)))
    return rows


def versions(results: CampaignResults) -> list[tuple[str, str]]:
    """Versions on which the ranks disagree, as they themselves said: each value, by how many ranks and where."""
    seen: dict[str, dict[str, tuple[int, set[str]]]] = {}
    for event in results.events:
        if event["kind"] == RANK_STARTED:
            for name, value in (as_object((as_object(event["data"]) or {}).get("versions")) or {}).items():
                values = seen.setdefault(name, {})
                number, where_ = values.get(short(value), (0, set()))
                values[short(value)] = (number + 1, where_ | {event["host"]})
    return [(name, "; ".join(_by_whom(*said) for said in values.items())) for name, values in seen.items()
            if len(values) > 1]  # fmt: skip


def _by_whom(value: str, said: tuple[int, set[str]]) -> str:
    number, where_ = said
    places = sorted(where_, key=timelines.natural)
    more = f" and {len(places) - 6} more" if len(places) > 6 else ""
    return f"{value} ({text.count(number, 'rank')} on {', '.join(places[:6])}{more})"


# --- jobs ----------------------------------------------------------------------------------------------------


def jobs(results: CampaignResults) -> Words:
    """Jobs, and their scripts: equal ones once."""
    scripts: dict[str, Words] = {}
    for job in results.jobs:
        entry = scripts.setdefault(
            job["script"], {"script": job["script"], "sha": job["script_sha256"], "jobs": []}
        )
        entry["jobs"].append(job["job_key"])
    return {
        "rows": results.jobs[:ROWS],
        "all": len(results.jobs),
        "scripts": list(scripts.values())[:SCRIPTS],
        "more_scripts": max(0, len(scripts) - SCRIPTS),
    }


def provenance(results: CampaignResults) -> list[tuple[str, str]]:
    """Where the figures come from, in words."""
    created, collected = (results.attributes.get(n) for n in ("created_wall_ns", "collected_wall_ns"))
    return [
        ("campaign", results.text("campaign")),
        ("run", results.text("run_id")),
        ("site", f"{results.text('site')} ({results.text('site_kind')})"),
        ("launcher", results.text("launcher")),
        ("Slurm", results.text("slurm_version")),
        ("harness", results.text("harness_version")),
        ("git commit", results.text("git_commit")),
        ("planned", text.instant(created if isinstance(created, int) else 0)),
        ("collected", text.instant(collected if isinstance(collected, int) else 0)),
        ("file", f"{results.path.name}, schema version {results.text('schema_version')}"),
    ]
