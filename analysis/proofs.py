"""Rules that prove a recovery: each fault's three facts, the digest of what was restored, the twin's answer.

They are METRICS.md's ("A fault counts when", "Recovery is correct when"). Where a record is missing the
answer is unknown or invalid; nothing is inferred from another fact.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from analysis import joblevel, text
from analysis.recovery import of_fault
from analysis.results import Row
from analysis.stamps import facts, healable, short_id, why_refused, why_unhealed
from analysis.view import Finding, View, data, fault_name
from harness.model.attempt import COMPLETED
from harness.model.event import (
    CHECKPOINT_COMMITTED,
    CHECKPOINT_REFUSED,
    CHECKPOINT_RESTORED,
    FAULT_INJECTED,
    FAULT_REFUSED,
    FAULT_UNHEALED,
)
from harness.model.fault import RECOVERED, UNHARMED, Fault
from harness.model.verdict import Verdict

# Where a case is not declared deterministic, numbers of its answer may differ from the twin's by this share.
TOLERANCE = 1e-6
# How late a fault of a random process may strike: who does it looks at the clock between other things, and it must be
# known that the first step is finished.
LATE_S = 1.0
_MISSING = object()

# --- faults -------------------------------------------------------------------------------------------------


def _last(view: View, kind: str, fault_id: str) -> dict[str, Any] | None:
    """Data of the newest event of a kind about a fault, None without one."""
    found = sorted(view.of_kind(kind), key=lambda e: int(e["wall_ns"]))
    about = [said for said in map(data, found) if said.get("fault_id") == fault_id]
    return about[-1] if about else None


def _refusal(view: View, fault_id: str) -> str:
    """Why a fault could not be done, or empty."""
    said = _last(view, FAULT_REFUSED, fault_id)
    return "" if said is None else f"refused, it could not be done: {why_refused(said)}"


def _unhealed(view: View, fault_id: str) -> str:
    """Why healing a fault could not be verified, or empty when nobody recorded trying."""
    said = _last(view, FAULT_UNHEALED, fault_id)
    return "" if said is None else f": it is unhealed, {why_unhealed(said)}"


def _never_requested(view: View, declared: dict[str, Any]) -> list[Finding]:
    """What a fault means that was declared and is not on record."""
    fault = Fault.from_json(declared)
    name = f"fault {short_id(fault.fault_id, view.case['case_id'])} ({fault.kind} at {fault.trigger})"
    if refusal := _refusal(view, fault.fault_id):
        return [Finding(Verdict.INVALID, f"{name} was {refusal}")]
    if not view.attempts:
        return []
    if not view.completed:
        return [Finding(None, f"{name} was not due before it ended")]
    if not fault.may_miss:
        return [Finding(Verdict.INVALID, f"{name} was never requested")]
    lived_s = _lived_s(view)
    if lived_s is None or fault.at_s >= lived_s - LATE_S:
        return [
            Finding(None, f"{name} was not due before it ended, which a fault of a random process may be")
        ]
    if any(f["requested"] for f in view.faults):  # they strike one at a time, and this one's turn never came
        return [Finding(None, f"{name} was waiting for those before it to be over when the case ended")]
    words = f"{name} was never requested, though the case went on for {text.seconds(lived_s)} after its first step"
    return [Finding(Verdict.INVALID, words)]


def _lived_s(view: View) -> float | None:
    """Seconds from the end of the case's first step to that of its last; None where no steps are on record."""
    ends = [s.end_ns for s in joblevel.of_case(view.results, view.case) if len(s.end_ns)]
    return (max(int(e[-1]) for e in ends) - min(int(e[0]) for e in ends)) / 1e9 if ends else None


def _one_fault(view: View, fault: Row, may_miss: bool) -> list[Finding]:
    """The three facts of a fault that was requested, and what came of it."""
    fault_id, name = fault["fault_id"], fault_name(fault)
    found = []
    if fault["requested_kind"] != fault["kind"]:
        found.append(Finding(None, f"{name} stands in for {fault['requested_kind']}, as the campaign allows"))
    if not fault["observed"]:
        words = f"{name} was requested, but {_refusal(view, fault_id) or 'its effect was not observed'}"
        return [*found, Finding(Verdict.INVALID, words)]
    unhealed = _unhealed(view, fault_id)
    if not fault["healed"] and (unhealed or healable(fault["kind"])):
        words = f"{name} was not healed, which ends the campaign{unhealed}"
        found.append(Finding(Verdict.FAIL, words))
    if fault["expect"] == UNHARMED:
        return [*found, *_unharmed(view, fault, name)]
    if fault["expect"] != RECOVERED or not view.completed:
        return [
            *found,
            Finding(None, f"{name}: requested, observed" + (", healed" if fault["healed"] else "")),
        ]
    if fault["kind"].startswith("checkpoint.") and (unmet := _unmet(view, fault)):
        words = f"{name} was done, but no restore met the damage: {unmet}"
        return [*found, Finding(Verdict.INVALID, words)]
    if fault["recovered_wall_ns"] <= 0:
        if why := _nothing_to_pass(view, fault):
            return [*found, Finding(Verdict.PASS, f"{name} requested, observed; recovered: {why}")]
        if may_miss and _after_the_end(view, fault):
            words = f"{name} struck when the work was done: there was nothing left to recover"
            return [*found, Finding(None, words)]
        words = f"did not recover from {name}: it never passed the step reached before"
        if not view.whole:
            return [*found, Finding(Verdict.UNKNOWN, f"{words}, as far as its records are here")]
        return [*found, Finding(Verdict.FAIL, words)]
    if fault["healed"] or not any(f.verdict for f in found):
        story = of_fault(view.results, view.case, fault)
        facts = "requested, observed, healed" if fault["healed"] else "requested, observed"
        found.append(Finding(Verdict.PASS, f"{name} {facts}; recovered {story.took}"))
    return found


def _nothing_to_pass(view: View, fault: Row) -> str:
    """Why a later attempt that completed is the recovery: no step was reached before that it could pass; or empty."""
    until = [a for a in view.attempts if a["index"] <= fault["attempt"]]
    if view.attempts[-1]["index"] <= fault["attempt"] or any(a["last_step"] >= 0 for a in until):
        return ""
    return f"no step was reached before, and attempt {view.attempts[-1]['index']} completed"


def _after_the_end(view: View, fault: Row) -> bool:
    """Whether a fault left nothing to do again: its own attempt completed, with every answer of the twin."""
    if fault["attempt"] != view.attempts[-1]["index"]:
        return False
    answers = twin(view)
    return bool(answers) and all(f.verdict is Verdict.PASS for f in answers)


def _unmet(view: View, fault: Row) -> str:
    """Why no restore met what a fault damaged: it must have refused that checkpoint, afterwards. Empty if one did."""
    since = fault["injected_wall_ns"] or fault["requested_wall_ns"]
    refused = [str(data(e).get("why")) for e in view.of_kind(CHECKPOINT_REFUSED) if e["wall_ns"] > since]
    if not refused:
        return "nothing was refused after it"
    damaged = _damaged(fault)
    if not damaged:
        return "its evidence names no checkpoint that it damaged"
    if any(
        re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-]|\.\d)", why) for name in damaged for why in refused
    ):
        return ""
    return f"it damaged {', '.join(damaged)}, and what was refused after it is another: {refused[0]}"


def _damaged(fault: Row) -> list[str]:
    """Names of the checkpoints that a fault damaged, as its evidence says."""
    said = (facts(fault) or {}).get(FAULT_INJECTED)
    evidence = said.get("evidence") if isinstance(said, dict) else None
    done = evidence.get("damaged") if isinstance(evidence, dict) else None
    return [str(one["checkpoint"]) for one in done or () if isinstance(one, dict) and one.get("checkpoint")]


def _unharmed(view: View, fault: Row, name: str) -> list[Finding]:
    """Whether what was to be ridden out was: nothing detected, and no attempt that nothing else explains."""
    said = [d for d in view.detections if d["fault_id"] == fault["fault_id"]]
    if said:
        blamed = f"rank {said[0]['rank']}" if said[0]["rank"] >= 0 else f"node {said[0]['node']}"
        return [
            Finding(
                Verdict.FAIL, f"false alarm: {name} was harmless, but {blamed} was called {said[0]['what']}"
            )
        ]
    others = any(
        f["attempt"] == fault["attempt"] and f["observed"] and f["expect"] != UNHARMED for f in view.faults
    )
    if view.attempts[-1]["index"] > fault["attempt"] and not others:
        return [Finding(Verdict.FAIL, f"false alarm: {name} was harmless, but another attempt followed")]
    return [Finding(Verdict.PASS, f"{name} requested, observed, ridden out: no detection, no restart")]


def faults(view: View) -> list[Finding]:
    """The three facts of each fault: requested, observed, healed; and whether it recovered.

    First those that are declared, then those that a program did to itself, which nobody knew before it said them.
    """
    requested = {f["fault_id"]: f for f in view.faults if f["requested"]}
    found = []
    for declared in view.declared:
        row = requested.pop(declared["fault_id"], None)
        found += (
            _never_requested(view, declared)
            if row is None
            else _one_fault(view, row, bool(declared.get("may_miss")))
        )
    for row in requested.values():
        found += _one_fault(view, row, False)
    return found


# --- the twin -----------------------------------------------------------------------------------------------


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _equal(mine: Any, other: Any, exactly: bool) -> bool | None:
    """Whether two answers agree; None when that cannot be said (a digest without bit-exactness)."""
    if json.dumps(mine, sort_keys=True) == json.dumps(other, sort_keys=True):
        return True
    if exactly:
        return False
    a, b = _number(mine), _number(other)
    return None if a is None or b is None else math.isclose(a, b, rel_tol=TOLERANCE)


def _compared(key: tuple[str, int], a: Any, b: Any, label: str, exactly: bool) -> Finding | None:
    """What one answer says against the twin's, None when they agree."""
    name, rank = key
    if a is _MISSING or b is _MISSING:
        who = "it" if a is _MISSING else f"its twin {label}"
        return Finding(Verdict.UNKNOWN, f"{who} recorded no answer {name} of rank {rank}")
    same = _equal(a, b, exactly)
    if same:
        return None
    values = f"{text.one_line(json.dumps(a), 80)}, twin {label} has {text.one_line(json.dumps(b), 80)}"
    if same is None:
        words = f"{name} of rank {rank} differs, but the case is not deterministic: {values}"
        return Finding(Verdict.UNKNOWN, words)
    return Finding(Verdict.FAIL, f"{name} of rank {rank} differs from its twin: {values}")


def twin(view: View) -> list[Finding]:
    """Whether every answer equals that of the undisturbed twin: same name, same rank."""
    if not view.case["twin"] or not view.completed:
        return []
    row = view.results.case(view.case["twin"])
    if row is None:
        return [Finding(Verdict.UNKNOWN, f"its twin {view.case['twin']} is not in this file")]
    other = View.of(view.results, row)
    if not other.completed:
        return [Finding(Verdict.UNKNOWN, f"its twin {row['label']} did not complete ({other.outcome})")]
    mine, theirs = view.answers(), other.answers()
    if not mine and not theirs:
        return [Finding(Verdict.UNKNOWN, f"neither it nor its twin {row['label']} recorded an answer")]
    exactly = bool(view.case["deterministic"])
    compared = (
        _compared(key, mine.get(key, _MISSING), theirs.get(key, _MISSING), row["label"], exactly)
        for key in sorted(mine.keys() | theirs.keys())
    )
    found = [finding for finding in compared if finding is not None]
    if found:
        return found
    how = "bit for bit" if exactly else f"within {TOLERANCE:g}"
    words = f"{text.count(len(mine), 'answer')} equal to those of its twin {row['label']}, {how}"
    return [Finding(Verdict.PASS, words)]


# --- checkpoints --------------------------------------------------------------------------------------------


def _source(view: View, restored: Row) -> str:
    """Digest that was committed for what an event says was restored; empty when nobody recorded it.

    From the newest commit of that step and rank, of the same path where both name one; else from the manifest
    on shared storage, as far as the event quotes it (``committed_digest``).
    """
    wanted = data(restored)
    world = next((a["world"] for a in view.attempts if a["index"] == restored["attempt"]), 0)
    if wanted.get("world", world) != world:  # others had saved it: the digest is that of all ranks together
        return str(wanted.get("committed_digest") or "")
    found = [
        said
        for event in view.of_kind(CHECKPOINT_COMMITTED)
        if event["rank"] == restored["rank"] and event["attempt"] <= restored["attempt"]
        for said in [data(event)]
        if said.get("step") == wanted["step"]
    ]
    same_path = [said for said in found if wanted.get("path") and said.get("path") == wanted["path"]]
    if same_path or found:
        return str((same_path or found)[-1].get("digest") or "")
    return str(wanted.get("committed_digest") or "")


def checkpoints(view: View) -> list[Finding]:
    """Whether each state that was restored has the digest that was committed for that step and rank."""
    notes = [
        Finding(None, f"a checkpoint was refused, an older one was tried: {data(e).get('why', '')}")
        for e in view.of_kind(CHECKPOINT_REFUSED)
    ]
    found: list[Finding] = []
    proved: dict[int, set[int]] = {}
    for event in view.of_kind(CHECKPOINT_RESTORED):
        said = data(event)
        name = f"checkpoint of step {said['step']} on rank {event['rank']}"
        committed = _source(view, event)
        if not said.get("digest"):
            found.append(Finding(Verdict.UNKNOWN, f"{name} was restored without recording a digest"))
        elif not committed:
            found.append(Finding(Verdict.UNKNOWN, f"{name} was restored, but nobody recorded committing it"))
        elif said["digest"] != committed:
            words = f"{name}: restored digest {said['digest']}, committed {committed}"
            found.append(Finding(Verdict.FAIL, words))
        else:
            proved.setdefault(event["attempt"], set()).add(event["rank"])
    for attempt in view.attempts:
        if attempt["restored_step"] < 0 or attempt["outcome"] != COMPLETED or found:
            continue
        ranks = proved.get(attempt["index"], set())
        missing = sorted(set(range(attempt["world"] or view.case["ranks"])) - ranks)
        if missing:
            words = f"attempt {attempt['index']} began from a checkpoint, but rank {missing[0]} recorded none"
            found.append(Finding(Verdict.UNKNOWN, words))
        else:
            words = f"state of step {attempt['restored_step']} restored on {text.count(len(ranks), 'rank')}"
            found.append(Finding(Verdict.PASS, f"{words} with the digest that was committed"))
    return notes + found
