"""The rules of judgement, one function each: a case's records in, findings out. ``RULES`` is all of them.

A rule never looks at another rule's findings, and none decides alone: ``analysis.verdict`` takes the worst. A
finding without a verdict is information. Where evidence is missing a rule says so; it never assumes.
"""

from __future__ import annotations

import functools
import json

from analysis import gates, references, text, times
from analysis.lineage import batches, states
from analysis.proofs import checkpoints, faults, twin
from analysis.results import Row, names
from analysis.stamps import hit_nodes
from analysis.view import Finding, Rule, View, data, fault_name
from harness.model.attempt import COMPLETED, FAILED, LOST, NODE_LOST
from harness.model.event import RANK_RAISED, WORLD_WRONG
from harness.model.fault import CAUGHT, RECOVERED, RECOVERY
from harness.model.fault import FAILED as TO_FAIL
from harness.model.verdict import Verdict

# Beginnings of the states of a Slurm job that is not over: its case may still recover.
ALIVE = (
    "PENDING",
    "RUNNING",
    "REQUEUE",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "RESIZING",
    "SIGNALING",
    "STAGE",
)


def _cause(view: View) -> str:
    """The first words of the rank that raised in the last attempt, where one did."""
    for event in view.of_kind(RANK_RAISED):
        if event["attempt"] == view.attempts[-1]["index"]:
            return f"; rank {event['rank']} on {event['host']}: {data(event).get('error', 'no words')}"
    return ""


def _job_state(view: View) -> str:
    """Slurm's last word on the job of the last attempt, empty without one."""
    key = view.attempts[-1]["job_key"]
    return next((str(job["state"]) for job in view.results.jobs if job["job_key"] == key), "")


def _still_alive(view: View) -> bool:
    return _job_state(view).upper().startswith(ALIVE)


def _cancelled(view: View) -> str:
    """That its job was cancelled, in words; empty when it was not."""
    state = _job_state(view)
    return f"its job was cancelled (Slurm says {state})" if state.upper().startswith("CANCELLED") else ""


def _completed(view: View) -> Finding:
    last, to_fail = view.attempts[-1], view.observed(TO_FAIL)
    if to_fail:
        return Finding(Verdict.FAIL, f"{fault_name(to_fail[0])} was declared to fail it, but it completed")
    said = view.case["outcome"]
    if said != COMPLETED:
        words = f"its last attempt completed, but the case ended as {said or 'nobody knows'}: {view.case['reason']}"
        return Finding(Verdict.FAIL if said == FAILED else Verdict.UNKNOWN, words)
    final = view.case["steps"] - 1
    if 0 <= last["last_step"] < final:
        words = f"it says completed, but its last step is {last['last_step']} and not {final}"
        return Finding(Verdict.UNKNOWN, words)
    return Finding(
        None, f"completed in attempt {last['index']}, {text.count(len(view.attempts), 'attempt')} in all"
    )


def ended(view: View) -> list[Finding]:
    """How the last attempt ended, against what was declared."""
    if not view.attempts:
        reason = view.case["reason"].removeprefix("not run: ")
        return [Finding(Verdict.UNKNOWN, "it was not run" + (f": {reason}" if reason else ""))]
    if view.completed:
        return [_completed(view)]
    reason, said = (
        view.attempts[-1]["reason"],
        view.case["reason"],
    )  # the case's goes on where the attempt's ends
    reason = said if reason in said else f"{reason}; {said}" if said else reason
    reason = reason or "no reason recorded"
    cause = _cause(view)
    reason += "" if cause.removeprefix("; ") in reason else cause
    to_recover = view.observed(RECOVERED)
    if view.failed_as_declared:
        return [_as_declared(view, reason)]
    if view.outcome == FAILED:
        return [Finding(Verdict.FAIL, f"failed: {reason}")]
    cancelled = _cancelled(view)
    if cancelled and not any(f["observed"] for f in view.faults):
        return [Finding(Verdict.UNKNOWN, cancelled)]
    reason += f"; {cancelled}" if cancelled else ""
    if to_recover and view.outcome in (NODE_LOST, LOST) and not _still_alive(view):
        return [Finding(Verdict.FAIL, f"did not recover from {fault_name(to_recover[0])}: {reason}")]
    if view.outcome == NODE_LOST:
        return [Finding(Verdict.UNKNOWN, f"the machine took it: {reason}")]
    return [Finding(Verdict.UNKNOWN, f"{view.outcome.replace('_', ' ') or 'not ended'}: {reason}")]


def _as_declared(view: View, reason: str) -> Finding:
    """Whether it failed for what each fault that struck was declared to fail it for.

    One of them must be the reason of its end, and each the reason of an attempt: one that struck before may have
    ended an earlier one.
    """
    struck = view.observed(TO_FAIL)
    reasons = [reason, *(str(a["reason"]) for a in view.attempts)]
    reasons += [str(data(event).get("error", "")) for event in view.of_kind(RANK_RAISED)]
    for fault in struck:
        if not fault["because"]:
            words = (
                f"{fault_name(fault)} was declared to fail it, and nobody declared for what reason: {reason}"
            )
            return Finding(Verdict.UNKNOWN, words)
    unmet = [f for f in struck if not any(f["because"] in one for one in reasons)]
    if not unmet and not any(f["because"] in reason for f in struck):
        unmet = struck[-1:]
    if unmet:
        declared = f'{fault_name(unmet[0])} was declared to fail it for "{unmet[0]["because"]}"'
        return Finding(Verdict.FAIL, f"{declared}, but the reason is: {reason}")
    return Finding(Verdict.PASS, f"ended as declared after {', '.join(map(fault_name, struck))}: {reason}")


def where_it_ran(view: View) -> list[Finding]:
    """Whether the ranks of the completed attempt were as many, and on as many nodes, as the case asks."""
    wrong = view.of_kind(WORLD_WRONG)
    if wrong:
        said = data(wrong[0]).get("message", "no words")
        return [Finding(Verdict.FAIL, f"the world had the wrong size on rank {wrong[0]['rank']}: {said}")]
    hosts = json.loads(view.attempts[-1]["rank_nodes"] or "[]") if view.completed else []
    if not hosts:
        return []
    if len(hosts) < view.case["ranks"] and view.case["shrink"]:
        words = f"went on with {text.count(len(hosts), 'rank')} of {view.case['ranks']}, as was declared"
        return [Finding(None, f"{words}, on {', '.join(dict.fromkeys(hosts))}")]
    if len(hosts) != view.case["ranks"]:
        words = f"hosts are recorded for {text.count(len(hosts), 'rank')}, the case has {view.case['ranks']}"
        return [Finding(Verdict.UNKNOWN, words)]
    if view.results.text("launcher") == "slurm" and len(set(hosts)) != view.case["nodes"]:
        words = (
            f"its ranks ran on {text.count(len(set(hosts)), 'node')}, the case asks for {view.case['nodes']}"
        )
        return [Finding(Verdict.UNKNOWN, words)]
    return [Finding(None, f"{text.count(len(hosts), 'rank')} on {', '.join(dict.fromkeys(hosts))}")]


def checks(view: View) -> list[Finding]:
    """Every check the workload made of its own answer."""
    found = []
    for c in view.checks:
        if not c["passed"]:
            detail = f" ({c['detail']})" if c["detail"] else ""
            values = (
                f"expected {text.one_line(c['expected'], 120)}, observed {text.one_line(c['observed'], 120)}"
            )
            found.append(
                Finding(Verdict.FAIL, f'check "{c["name"]}" failed on rank {c["rank"]}: {values}{detail}')
            )
    if view.checks and not found:
        verb = "holds" if len(view.checks) == 1 else "hold"
        words = f"{text.count(len(view.checks), 'check')} of the answer {verb} {_by_whom(view)}"
        found.append(Finding(Verdict.PASS, words))
    return found


def _by_whom(view: View) -> str:
    """Which ranks recorded the checks; what one rank checks may well be the answer of all."""
    made: dict[int, set[str]] = {}
    for c in view.checks:
        made.setdefault(c["rank"], set()).add(c["name"])
    ranks, same = sorted(made), len({frozenset(names) for names in made.values()}) == 1
    if same and ranks == list(range(view.case["ranks"])):
        return {1: "on its one rank", 2: "on both ranks"}.get(len(ranks), f"on all {len(ranks)} ranks")
    return f"(recorded by {'rank' if len(ranks) == 1 else 'ranks'} {text.spans(ranks)})"


def answered(view: View) -> list[Finding]:
    """Whether anything says that the answer is right: a check, or a comparison with a twin either way."""
    if not view.completed or view.checks or view.case["twin"]:
        return []
    mine = view.answers()
    if not mine:
        return [Finding(Verdict.UNKNOWN, "no evidence that the answer is right: no check and no result")]
    for row in view.results.cases:
        if row["twin"] == view.case["case_id"]:
            other = View.of(view.results, row)
            if other.completed and other.answers() == mine:
                return [
                    Finding(
                        Verdict.PASS, f"{text.count(len(mine), 'answer')} equal to those of {row['label']}"
                    )
                ]
    words = f"no evidence that the answer is right: {text.count(len(mine), 'result')}, compared with nothing"
    return [Finding(Verdict.UNKNOWN, words)]


def measured(view: View) -> list[Finding]:
    """Whether its times can be times and its figures are numbers; what is neither was not measured."""
    if not view.completed:
        return []
    found = (times.not_measured(view.results, view.case), times.not_finite(view.results, view.case))
    return [Finding(Verdict.INVALID, why) for why in found if why]


def limits(view: View) -> list[Finding]:
    """The gates of the case."""
    if view.failed_as_declared:
        return []
    given = json.loads(view.case["gates"] or "[]")
    before = view.references or references.References(view.results)
    found = [
        before.check(view.case, gate) if references.asks(gate) else gates.check(view.results, view.case, gate)
        for gate in given
    ]
    if not view.whole:  # a figure of some of the samples is no figure of the case
        return [Finding(None, f"{result.words}, as far as its records are here") for result in found]
    return [Finding(result.verdict, result.words) for result in found]


def of_site(view: View) -> list[Finding]:
    """What the site expects of its collectives."""
    before = view.references or references.References(view.results)
    found = () if view.failed_as_declared else before.of_site.of_case.get(view.case["case_id"], ())
    return [Finding(compared.verdict, compared.words) for compared in found]


def evidence(view: View) -> list[Finding]:
    """Whether every record of the case arrived.

    A node that is lost takes up to two seconds of samples with it. That gap is as expected where a fault took
    the node, and harmless in an attempt that the machine ended and another one followed. A stray file is named.
    """
    taken = {
        (node, attempt)
        for f in view.faults
        if f["observed"]
        for node in hit_nodes(f)
        for attempt in _struck_attempts(view, f)
    }
    ended_so = {a["index"]: a["outcome"] for a in view.attempts}
    found, gaps = [], []
    strays = [s for s in view.streams if _stray(view, s)]
    own = [s for s in view.streams if s not in strays]
    for s in own:
        if s["status"] == "complete":
            continue
        what = f"samples of {s['node']} in attempt {s['attempt']}"
        if s["status"].startswith("gap") and (s["node"], s["attempt"]) in taken:
            gaps.append(Finding(None, f"{what} end early, as expected: the fault took the node"))
        elif s["status"].startswith("gap") and ended_so.get(s["attempt"]) not in (COMPLETED, FAILED):
            gaps.append(Finding(None, f"{what} end early: the machine took that attempt"))
        else:
            detail = f" ({s['detail']})" if s["detail"] else ""
            found.append(Finding(Verdict.UNKNOWN, f"{what} are not whole: {s['status']}{detail}"))
    said = view.case["evidence"]
    if said != "complete" and not found:
        words = said.removeprefix("unknown:").strip() or "the file does not say what is there"
        found.append(Finding(Verdict.UNKNOWN, f"evidence is not complete: {words}"))
    if not found and not gaps and own:
        found.append(Finding(None, f"{text.count(len(own), 'stream')} of samples, whole"))
    stray = [
        Finding(None, f"{s['node']}.stream in attempt {s['attempt']} does not count: {s['detail']}")
        for s in strays
    ]
    return found + gaps + stray


def _struck_attempts(view: View, fault: Row) -> tuple[int, ...]:
    """Attempts that a fault may have cut short: its own, and the next where it took a node between the two."""
    own = int(fault["attempt"])
    starts = [a["start_wall_ns"] for a in view.attempts if a["index"] == own + 1]
    between = fault["trigger"].startswith(RECOVERY) or any(fault["observed_wall_ns"] >= s > 0 for s in starts)
    return (own, own + 1) if between and fault["kind"].startswith("node.") else (own,)


def _stray(view: View, stream: Row) -> bool:
    """Whether a foreign file only lay beside the streams: no node of the attempt has its name, and none shipped it."""
    if stream["status"] != "foreign" or stream["expected_bytes"] >= 0:
        return False
    nodes = next((names(a["nodes"]) for a in view.attempts if a["index"] == stream["attempt"]), ())
    return bool(nodes) and stream["node"] not in nodes


# What a right answer is proved by. In a case with a negative control they must find something, and then say it there.
PROOFS: tuple[Rule, ...] = (states, batches, twin, checkpoints, checks)


def controls(view: View) -> list[Finding]:
    """Whether the proof noticed each negative control: a state, a batch, an answer or a check differs."""
    declared = {f["fault_id"] for f in view.declared if f["expect"] == CAUGHT}
    struck = [f for f in view.faults if f["fault_id"] in declared and f["observed"]]
    if not struck:
        return []  # `faults` says that it did not land
    name = fault_name(struck[0])
    noticed = [f.words for rule in PROOFS for f in rule(view) if f.verdict is Verdict.FAIL]
    if noticed:
        more = f" (and {len(noticed) - 1} more)" if len(noticed) > 1 else ""
        return [Finding(Verdict.PASS, f"the proof noticed {name}: {noticed[0]}{more}")]
    return [Finding(Verdict.FAIL, f"the proof did not notice {name}: nothing differs from its twin")]


def _where_right(rule: Rule) -> Rule:
    """The rule where the answer is meant to be right; in a case with a negative control ``controls`` asks it."""

    @functools.wraps(rule)
    def asked(view: View) -> list[Finding]:
        return [] if view.control else rule(view)

    return asked


# In the order in which their findings are told. What did not arrive comes first: others may be unknown for that alone.
RULES: tuple[Rule, ...] = (
    ended, evidence, where_it_ran, faults, controls, *map(_where_right, PROOFS), answered, measured, limits, of_site,
)  # fmt: skip
