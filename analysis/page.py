"""What the report's template is given: plain values, arranged in the order in which the page tells them.

Nothing is computed or judged here. Text is as the results file has it; the template escapes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from analysis import collectives, figures, measured, recovery_page, scaling, text, timelines
from analysis.load import CampaignResults, Row, names
from analysis.summary import counts, exit_status
from analysis.verdict import CaseVerdict
from harness.model.event import RANK_STARTED
from harness.model.verdict import Verdict

Words = dict[str, Any]

SHOWN_CHECKS = 12  # of one case; those that failed first
SHOWN_FIGURES = 40  # of one case


def _object(value: Any) -> Words | None:
    """A JSON object, given as text or as data; None where it is something else."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _short(value: Any) -> str:
    """A value of a JSON object in words."""
    if isinstance(value, dict) and value and all(isinstance(v, (str, int, float)) for v in value.values()):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pretty(value: str) -> list[tuple[str, str]]:
    """A JSON object as names and short values; what is not one is shown as it is."""
    found = _object(value)
    return [("", value)] if found is None else [(str(k), _short(v)) for k, v in found.items()]


def hosts(rank_nodes: str) -> list[tuple[str, str]]:
    """Which ranks ran on which host: ``[("n1", "0-3"), ("n2", "4-7")]``, by first rank."""
    ranks: dict[str, list[int]] = {}
    for rank, host in enumerate(names(rank_nodes)):
        ranks.setdefault(host, []).append(rank)
    return [(host, text.spans(numbers)) for host, numbers in ranks.items()]


# --- summary and cases ---------------------------------------------------------------------------------------


def headline(number: dict[str, int]) -> str:
    """The one sentence above everything."""
    total = sum(number.values())
    if not total:
        return "No case in this file"
    if number[Verdict.FAIL.value]:
        return f"{number[Verdict.FAIL.value]} of {text.count(total, 'case')} failed"
    open_ = number[Verdict.UNKNOWN.value] + number[Verdict.INVALID.value]
    if open_:
        return f"Nothing failed, but {open_} of {text.count(total, 'case')} cannot be called a pass"
    return "The case passes" if total == 1 else f"All {total} cases pass"


def _attempt(attempt: Row) -> Words:
    return {
        **attempt,
        "hosts": hosts(attempt["rank_nodes"]),
        "allocation": ", ".join(names(attempt["nodes"])),
        "steps": ", ".join(names(attempt["step_ids"])),
        "duration": text.seconds(attempt["duration_ns"] / 1e9) if attempt["duration_ns"] >= 0 else "unknown",
    }


def _case(results: CampaignResults, number: int, case: Row, verdict: CaseVerdict) -> Words:
    checks = results.of_case("checks", case["case_id"])
    ordered = sorted(checks, key=lambda c: bool(c["passed"]))
    twin = results.case(case["twin"]) if case["twin"] else None
    return {
        **case,
        "anchor": f"case-{number}",
        "verdict": verdict.verdict.value,
        "css": verdict.verdict.name.lower().replace("_", "-"),
        "key_figure": verdict.key_figure,
        "why": verdict.why,
        "evidence_lines": [_evidence(line) for line in verdict.evidence],
        "attempt_rows": [_attempt(a) for a in results.of_case("attempts", case["case_id"])],
        "check_rows": ordered[:SHOWN_CHECKS],
        "more_checks": max(0, len(ordered) - SHOWN_CHECKS),
        "param_rows": [*_program(case), *_pretty(case["params"])],
        "measured_rows": [_measured(m) for m in measured.of_case(results, case)[:SHOWN_FIGURES]],
        "twin_label": twin["label"] if twin else case["twin"],
    }


def _program(case: Row) -> list[tuple[str, str]]:
    """What a case of workload ``command`` runs, and in which world."""
    command = _object(case["command"])
    if not command:
        return []
    words = command.get("run") or str(command.get("script")).splitlines()[:1]
    shown = " ".join(map(str, words)) if isinstance(words, list) else _short(words)
    return [("program", text.one_line(shown, 200)), ("world", _short(command.get("world")))]


def _measured(m: measured.Measured) -> Words:
    """One figure of a program in words."""
    return {
        "name": m.name,
        "place": ", ".join(f"{name} = {text.quantity(value, unit)}" for name, value, unit in m.place),
        "better": {"higher": "higher", "lower": "lower"}.get(m.direction, "–"),
        "unit": m.unit,
        "n": m.values.n,
        "median": text.quantity(m.values.median, m.unit),
        "low": text.quantity(m.values.low, m.unit),
        "high": text.quantity(m.values.high, m.unit),
        "definition": m.definition,
    }


def _evidence(line: str) -> tuple[str, str]:
    """A line of evidence as css class and words."""
    for verdict in Verdict:
        if line.startswith(f"{verdict.value}: "):
            return verdict.name.lower().replace("_", "-"), line.removeprefix(f"{verdict.value}: ")
    return "info", line


def _groups(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> list[Words]:
    groups: dict[tuple[str, str], list[Words]] = {}
    for number, (case, verdict) in enumerate(zip(results.cases, verdicts, strict=True)):
        groups.setdefault((case["group"], case["workload"]), []).append(_case(results, number, case, verdict))
    return [{"name": name, "workload": workload, "cases": rows} for (name, workload), rows in groups.items()]


def _summary(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> Words:
    number = counts(verdicts)
    total = max(1, len(verdicts))
    tiles = [
        {
            "verdict": v.value,
            "css": v.name.lower().replace("_", "-"),
            "count": number[v.value],
            "share": 100 * number[v.value] / total,
        }
        for v in (Verdict.PASS, Verdict.FAIL, Verdict.INVALID, Verdict.UNKNOWN, Verdict.WITHIN_NOISE)
        if number[v.value] or v in (Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN)
    ]
    return {
        "headline": headline(number),
        "tiles": tiles,
        "exit_code": exit_status(verdicts),
        "total": len(verdicts),
    }


# --- figures with their tables -------------------------------------------------------------------------------


def _scaling(results: CampaignResults) -> list[Words]:
    return [
        {
            "series": s,
            "time": Markup(figures.scaling_time(s)) if s.points else "",
            "efficiency": Markup(figures.scaling_efficiency(s)) if s.points else "",
            "fits": [
                {"fit": f, "words": scaling.parameter_words(f), "best": f.law == s.best} for f in s.fits
            ],
            "has_intervals": any(p.interval_s for p in s.points),
        }
        for s in scaling.analyse(results)
    ]


def _collectives(results: CampaignResults) -> Words:
    found = collectives.analyse(results)
    curves = [
        (name, Markup(draw(found, name)))
        for name in dict.fromkeys(m.operation for m in found)
        for draw in (figures.collective_bandwidth, figures.collective_time)
    ]
    return {"rows": found, "curves": curves}


def _step_times(results: CampaignResults) -> list[Words]:
    groups: dict[str, list[Row]] = {}
    for case in results.cases:
        groups.setdefault(case["group"], []).append(case)
    found = []
    for name, cases in groups.items():
        drawn = figures.step_times(results, cases)
        if drawn:
            found.append(
                {"name": name, "figure": Markup(drawn), "more": max(0, len(cases) - figures.MAXIMUM_CASES)}
            )
    return found


# --- where, telemetry, provenance ----------------------------------------------------------------------------


def _where(results: CampaignResults) -> Words:
    labels = {case["case_id"]: case["label"] for case in results.cases}
    rows = [{**_attempt(a), "label": labels.get(a["case_id"], a["case_id"])} for a in results.attempts]
    undrawn = max(0, len({a["case_id"] for a in results.attempts}) - timelines.MAXIMUM_COLUMNS)
    return {"figure": Markup(timelines.where_it_ran(results)), "attempts": rows, "undrawn": undrawn}


def _telemetry(results: CampaignResults) -> Words:
    absent: dict[tuple[str, str], list[str]] = {}
    for row in results.telemetry_absent:
        absent.setdefault((row["what"], row["reason"]), []).append(row["node"])
    return {
        "plots": [(words, Markup(drawn)) for words, drawn in timelines.telemetry(results)],
        "absent": [(what, reason, nodes) for (what, reason), nodes in absent.items()],
    }


def _nodes(results: CampaignResults) -> list[Words]:
    """What nodes said of themselves and of what their ranks ran on; nodes that said the same stand together."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, facts in zip(results.nodes, results.node_facts, strict=True):
        groups.setdefault(tuple(_node(facts)), []).append(name)
    return [{"names": sorted(named, key=timelines.natural), "rows": rows} for rows, named in groups.items()]


def _node(facts: str) -> list[tuple[str, str]]:
    """Facts of one node in words; each GPU by its name, their UUIDs stay in the file."""
    found = _object(facts)
    if found is None:
        return [("", facts)]
    rows = []
    for name, value in found.items():
        if name == "memory_bytes" and isinstance(value, int):
            rows.append(("memory", text.size(value)))
        elif name == "gpus" and isinstance(value, list):
            kinds = [str((_object(gpu) or {}).get("name") or "unknown") for gpu in value]
            counted = [f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds)]
            rows.append(("GPUs", ", ".join(counted) or "none"))
        elif name == "versions" and isinstance(value, dict):
            rows += [(str(what), _short(version)) for what, version in value.items() if what not in found]
        else:
            rows.append((str(name).replace("_", " "), _short(value)))
    return rows


def _versions(results: CampaignResults) -> list[tuple[str, str]]:
    """Versions on which the ranks disagree, as they themselves said: each value, with how many ranks said it."""
    seen: dict[str, dict[str, int]] = {}
    for event in results.events:
        if event["kind"] == RANK_STARTED:
            for name, value in (_object((_object(event["data"]) or {}).get("versions")) or {}).items():
                values = seen.setdefault(name, {})
                values[_short(value)] = values.get(_short(value), 0) + 1
    return [
        (name, "; ".join(f"{value} ({text.count(number, 'rank')})" for value, number in values.items()))
        for name, values in seen.items()
        if len(values) > 1
    ]


def _jobs(results: CampaignResults) -> Words:
    scripts: dict[str, Words] = {}
    for job in results.jobs:
        entry = scripts.setdefault(
            job["script"], {"script": job["script"], "sha": job["script_sha256"], "jobs": []}
        )
        entry["jobs"].append(job["job_key"])
    return {"rows": results.jobs, "scripts": list(scripts.values())}


def _provenance(results: CampaignResults) -> list[tuple[str, str]]:
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


def contents(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> Words:
    """Everything the template shows.

    Raises:
        StoreError: samples of the file are damaged.
    """
    collected = results.attributes.get("collected_wall_ns")
    return {
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
        "summary": _summary(results, verdicts),
        "groups": _groups(results, verdicts),
        "scaling": _scaling(results),
        "collectives": _collectives(results),
        "recovery": recovery_page.contents(results, _attempt),
        "step_times": _step_times(results),
        "where": _where(results),
        "telemetry": _telemetry(results),
        "jobs": _jobs(results),
        "provenance": _provenance(results),
        "nodes": _nodes(results),
        "versions": _versions(results),
        "environment": _pretty(str(results.attributes.get("environment") or "")),
        "command": results.text("command"),
        "campaign_yaml": str(results.attributes.get("campaign_yaml") or ""),
        "site_yaml": str(results.attributes.get("site_yaml") or ""),
    }
