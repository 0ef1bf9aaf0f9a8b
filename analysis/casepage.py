"""The report's summary and its cases: plain values, arranged as the page tells them. Nothing is judged here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from analysis import measured, text
from analysis.results import CampaignResults, Row, names
from analysis.summary import counts, exit_status
from analysis.verdict import SEVERITY, CaseVerdict
from harness.model.case import CACHED
from harness.model.verdict import Verdict

Words = dict[str, Any]

SHOWN_CHECKS = 12  # of one case; those that failed first
SHOWN_FIGURES = 40  # of one case
REASON = 600  # characters of a reason in a row; the evidence behind it has all
SHOWN_ATTEMPTS = 20  # of one case; the first and the last
TOLD_IN_FULL = {True: 150, False: 350}  # cases that pass, or do not, with all of their details in the page
OPEN_CASES = 60  # with more cases than these, a group whose cases all pass is folded
UNKNOWN_FOLDER = "RUN"
LISTED = 5  # cases of one verdict that the summary names


def as_object(value: Any) -> Words | None:
    """A JSON object, given as text or as data; None where it is something else."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def short(value: Any) -> str:
    """A value of a JSON object in words."""
    if isinstance(value, dict) and value and all(isinstance(v, (str, int, float)) for v in value.values()):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def pretty(value: str) -> list[tuple[str, str]]:
    """A JSON object as names and short values; what is not one is shown as it is."""
    found = as_object(value)
    return [("", value)] if found is None else [(str(k), short(v)) for k, v in found.items()]


def hosts(rank_nodes: str) -> list[tuple[str, str]]:
    """Which ranks ran on which host: ``[("n1", "0-3"), ("n2", "4-7")]``, by first rank."""
    ranks: dict[str, list[int]] = {}
    for rank, host in enumerate(names(rank_nodes)):
        ranks.setdefault(host, []).append(rank)
    return [(host, text.spans(numbers)) for host, numbers in ranks.items()]


def css(verdict: Verdict) -> str:
    """Class of a verdict's colour."""
    return verdict.name.lower().replace("_", "-")


# --- summary -------------------------------------------------------------------------------------------------


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


def summary(verdicts: Sequence[CaseVerdict]) -> Words:
    """Headline, a tile for each verdict, and the cases that need a look."""
    number = counts(verdicts)
    total = max(1, len(verdicts))
    tiles = [
        {"verdict": v.value, "css": css(v), "count": number[v.value], "share": 100 * number[v.value] / total}
        for v in (Verdict.PASS, Verdict.FAIL, Verdict.INVALID, Verdict.UNKNOWN, Verdict.WITHIN_NOISE)
        if number[v.value] or v in (Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN)
    ]
    return {
        "headline": headline(number),
        "tiles": tiles,
        "exit_code": exit_status(verdicts),
        "total": len(verdicts),
        "cases": [
            _named(v, verdicts) for v in (Verdict.FAIL, Verdict.INVALID, Verdict.UNKNOWN) if number[v.value]
        ],
    }


def _named(verdict: Verdict, verdicts: Sequence[CaseVerdict]) -> Words:
    """The first cases of a verdict, and how many more there are."""
    mine = [(n, v) for n, v in enumerate(verdicts) if v.verdict is verdict]
    return {
        "verdict": verdict.value,
        "css": css(verdict),
        "rows": [
            {"anchor": f"case-{n}", "label": v.label, "why": text.one_line(v.why, REASON)}
            for n, v in mine[:LISTED]
        ],
        "more": max(0, len(mine) - LISTED),
    }


# --- cases ---------------------------------------------------------------------------------------------------


def attempt(row: Row) -> Words:
    """An attempt as the page shows it."""
    return {
        **row,
        "hosts": hosts(row["rank_nodes"]),
        "allocation": ", ".join(names(row["nodes"])),
        "steps": ", ".join(names(row["step_ids"])),
        "duration": text.seconds(row["duration_ns"] / 1e9) if row["duration_ns"] >= 0 else "unknown",
    }


def run_folder(results: CampaignResults, case: Row) -> str:
    """Where ``collect`` saw the run folder of a case; ``RUN`` where the file does not say, or nobody could type it."""
    said = results.attributes
    if results.sources:  # merged: each case is of one of several runs
        inside = 0 <= case["source"] < len(results.sources)
        said = (as_object(results.sources[case["source"]]["attributes"]) if inside else None) or {}
    folder = str(said.get("run_folder") or UNKNOWN_FOLDER)
    return folder if text.one_line(folder, len(folder)) == folder else UNKNOWN_FOLDER


def again(results: CampaignResults, case: Row) -> str:
    """The command that runs a case again, with the faults that struck it; a shell takes it as it is."""
    return f"harness replay {shlex.quote(run_folder(results, case))} --case {shlex.quote(case['case_id'])}"


def cached(results: CampaignResults) -> set[str]:
    """Cases that this run did not do: their records were an earlier run's."""
    keys = {job["job_key"] for job in results.jobs if job["state"] == CACHED}
    own = {a["case_id"] for a in results.attempts if a["job_key"] not in keys}
    return {a["case_id"] for a in results.attempts if a["job_key"] in keys} - own


def groups(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> list[Words]:
    """Cases by group and workload, in the file's order; in a large group those that do not pass come first."""
    found: dict[tuple[str, str], list[Words]] = {}
    from_cache = cached(results)
    jobs = {job["job_key"]: job for job in results.jobs}
    left = dict(TOLD_IN_FULL)
    for number, (case, verdict) in enumerate(zip(results.cases, verdicts, strict=True)):
        passes = verdict.verdict is Verdict.PASS
        told = _case(results, number, case, verdict, jobs, full=left[passes] > 0)
        left[passes] -= 1
        told["cached"] = case["case_id"] in from_cache
        found.setdefault((case["group"], case["workload"]), []).append(told)
    unknown = sum(v.verdict is Verdict.UNKNOWN for v in verdicts)
    few = OPEN_CASES if unknown <= OPEN_CASES else 0
    return [_group(name, workload, rows, len(verdicts), few) for (name, workload), rows in found.items()]


def _group(name: str, workload: str, rows: list[Words], total: int, few: int) -> Words:
    """A group with its cases; folded where there is much to read and nothing in it to see to."""
    order = {css(v): n for n, v in enumerate(SEVERITY)}
    number = {v: sum(row["verdict"] == v.value for row in rows) for v in SEVERITY}
    if len(rows) > OPEN_CASES:
        rows = sorted(rows, key=lambda row: order[row["css"]])
    return {
        "name": name,
        "workload": workload,
        "cases": rows,
        "counts": [{"css": css(v), "verdict": v.value, "count": n} for v, n in number.items() if n],
        "open": total <= OPEN_CASES
        or bool(number[Verdict.FAIL] + number[Verdict.INVALID])
        or 0 < number[Verdict.UNKNOWN] <= few,
    }


def _case(
    results: CampaignResults,
    number: int,
    case: Row,
    verdict: CaseVerdict,
    jobs: dict[str, Row],
    *,
    full: bool,
) -> Words:
    twin = results.case(case["twin"]) if case["twin"] else None
    attempts = results.of_case("attempts", case["case_id"])
    told: Words = {
        **case,
        "anchor": f"case-{number}",
        "verdict": verdict.verdict.value,
        "css": css(verdict.verdict),
        "label_words": text.breakable(case["label"]),
        "key_figure": verdict.key_figure,
        "why": text.one_line(verdict.why, REASON),
        "evidence_lines": [_evidence(line) for line in verdict.evidence],
        "twin_label": twin["label"] if twin else case["twin"],
        "again": again(results, case),
        "scripts": _scripts(attempts, jobs),
        "full": full,
        "attempt_rows": [],
        "more_attempts": 0,
        "check_rows": [],
        "more_checks": 0,
        "param_rows": [],
        "measured_rows": [],
    }
    return told | _details(results, case, attempts) if full else told


def _details(results: CampaignResults, case: Row, attempts: Sequence[Row]) -> Words:
    """What a reader opens a case for: attempts, checks, parameters and figures of a program."""
    checks = sorted(results.of_case("checks", case["case_id"]), key=lambda c: bool(c["passed"]))
    half = SHOWN_ATTEMPTS // 2
    shown = attempts if len(attempts) <= SHOWN_ATTEMPTS else [*attempts[:half], *attempts[-half:]]
    return {
        "attempt_rows": [attempt(a) for a in shown],
        "more_attempts": len(attempts) - len(shown),
        "check_rows": checks[:SHOWN_CHECKS],
        "more_checks": max(0, len(checks) - SHOWN_CHECKS),
        "param_rows": [*_program(case), *pretty(case["params"])],
        "measured_rows": [_measured(m) for m in measured.of_case(results, case)[:SHOWN_FIGURES]],
    }


def _scripts(attempts: Sequence[Row], jobs: dict[str, Row]) -> list[tuple[str, str]]:
    """The jobs that held a case, each with the digest of the script that was submitted."""
    keys = dict.fromkeys(a["job_key"] for a in attempts)
    return [(key, str(jobs[key]["script_sha256"]) if key in jobs else "") for key in list(keys)[:4]]


def _program(case: Row) -> list[tuple[str, str]]:
    """What a case of workload ``command`` runs, and in which world."""
    command = as_object(case["command"])
    if not command:
        return []
    words = command.get("run") or str(command.get("script")).splitlines()[:1]
    shown = " ".join(map(str, words)) if isinstance(words, list) else short(words)
    return [("program", text.one_line(shown, 200)), ("world", short(command.get("world")))]


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
            return css(verdict), line.removeprefix(f"{verdict.value}: ")
    return "info", line
