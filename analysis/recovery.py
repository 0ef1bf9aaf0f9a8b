"""Recovery: what each fault did to its case, when, and what it cost.

Stamps and durations are those of METRICS.md: everything is told relative to t1, when the call that produces
the effect returned. The stamps come from several hosts' wall clocks; a duration that is negative is shown as
invalid and never as a number. Nothing is inferred: a stamp that nobody recorded is unknown.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis import buckets, text
from analysis.buckets import QUEUE, Bucket
from analysis.commandline import main as run
from analysis.load import CampaignResults, Row, names, samples_of
from harness.model.event import FAULT_REFUSED, FAULT_UNHEALED

# Stamp, column of /faults, words.
STAMPS = (
    ("t0", "requested_wall_ns", "requested"),
    ("t1", "injected_wall_ns", "injected"),
    ("t1v", "observed_wall_ns", "effect observed"),
    ("t2", "detected_wall_ns", "detected"),
    ("t7", "first_step_wall_ns", "first new step"),
    ("t8", "recovered_wall_ns", "recovered: past the highest step before"),
    ("healed", "healed_wall_ns", "healed"),
)


@dataclass(frozen=True)
class Stamp:
    """One instant; ``after_s`` is relative to the recovery's origin, None with the reason in ``why``."""

    name: str
    words: str
    wall_ns: int
    after_s: float | None
    why: str


@dataclass(frozen=True)
class Lost:
    """Work that was done twice: steps, and rank-seconds by METRICS.md's definition; None when unknown."""

    steps: int | None
    first_step: int
    last_step: int
    rank_s: float | None
    words: str


@dataclass(frozen=True)
class Recovery:
    """One declared fault of one case, with what became of it.

    ``origin`` is the stamp that the others are relative to: t1, or t0 where whoever did it took the record of
    t1 with it (the node that ran the supervisor, for one). Then durations are unknown, and only bounded.
    """

    case_id: str
    label: str
    fault_id: str
    kind: str
    requested_kind: str
    target: str
    at_step: int
    expect: str
    requested: bool
    observed: bool
    healed: bool
    origin: str
    stamps: tuple[Stamp, ...]
    detection_s: float | None  # t2 - t1
    time_to_restart_s: float | None  # t7 - t1
    time_to_recover_s: float | None  # t8 - t1, MTTR
    time_to_recover_bound_s: float | None  # t8 - t0, where t1 is not recorded: it took at most this
    restarts: int  # attempts after the one that was hit
    hit_attempt: int
    lost: Lost
    buckets: tuple[Bucket, ...]  # they add up to t8 - t1
    evidence: tuple[tuple[str, str], ...]

    @property
    def queue_s(self) -> float | None:
        """How much of it was spent waiting for the job to run again."""
        return next(b.time_s for b in self.buckets if b.name == QUEUE)

    @property
    def restart_work_s(self) -> float | None:
        """Time to recover without the queue."""
        if self.time_to_recover_s is None or self.queue_s is None:
            return None
        return self.time_to_recover_s - self.queue_s

    @property
    def took(self) -> str:
        """Time to recover in words."""
        if self.time_to_recover_s is not None:
            return f"in {text.seconds(self.time_to_recover_s)}"
        if self.time_to_recover_bound_s is not None:
            return f"in at most {text.seconds(self.time_to_recover_bound_s)}"
        return "after an unknown time"

    def stamp(self, name: str) -> Stamp:
        """The stamp of that name."""
        return next(s for s in self.stamps if s.name == name)


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion, 95 % by default (Wilson 1927); (0, 1) when nothing was tried."""
    if trials <= 0:
        return 0.0, 1.0
    p, zz = successes / trials, z * z / trials
    centre = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / trials + zz / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def clock_offsets(results: CampaignResults) -> dict[str, int]:
    """For each host, wall minus monotonic clock in ns: the median over its events."""
    offsets: dict[str, list[int]] = {}
    for event in results.events:
        if event["wall_ns"] > 0 and event["mono_ns"] > 0:
            offsets.setdefault(event["host"], []).append(event["wall_ns"] - event["mono_ns"])
    return {host: int(np.median(np.asarray(values))) for host, values in offsets.items()}


def short_id(fault_id: str, case_id: str) -> str:
    """A fault's id without its case's, which a reader knows from where it stands: ``f0``."""
    return fault_id.removeprefix(f"{case_id}-")


def why_unhealed(said: Any) -> str:
    """Why healing could not be verified, from the data of ``fault.unhealed``."""
    evidence = said.get("evidence") if isinstance(said, dict) else None
    if isinstance(evidence, dict) and evidence.get("why"):
        return str(evidence["why"])
    return json.dumps(evidence) if evidence else "no reason recorded"


def why_refused(said: Any) -> str:
    """Why a fault could not be done, from the data of ``fault.refused``."""
    return str((said.get("why") if isinstance(said, dict) else "") or "no reason recorded")


def _facts(fault: Row) -> dict[str, Any] | None:
    """The fault's evidence: data by kind of event; None where it is no JSON object."""
    try:
        data = json.loads(fault["evidence"]) if fault["evidence"] else {}
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _not_recorded(name: str, facts: dict[str, Any]) -> str:
    """Why there is no such stamp, as far as somebody said."""
    if name in ("t1", "t1v") and FAULT_REFUSED in facts:
        return f"refused, it could not be done: {why_refused(facts[FAULT_REFUSED])}"
    if name == "healed" and FAULT_UNHEALED in facts:
        return f"unhealed, it was tried: {why_unhealed(facts[FAULT_UNHEALED])}"
    return "not recorded"


def _stamps(fault: Row) -> tuple[Stamp, ...]:
    facts = _facts(fault) or {}
    origin = fault["injected_wall_ns"] or fault["requested_wall_ns"]
    found = []
    for name, column, words in STAMPS:
        wall = int(fault[column])
        after: float | None = (wall - origin) / 1e9
        why = ""
        if wall <= 0:
            after, why = None, _not_recorded(name, facts)
        elif origin <= 0:
            after, why = None, "neither request nor injection is recorded"
        elif wall < origin and name != "t0":
            early = text.seconds((origin - wall) / 1e9)
            after, why = None, f"invalid: {early} before the fault, so the clocks disagree"
        found.append(Stamp(name, words, wall, after, why))
    return tuple(found)


def _lost(results: CampaignResults, case: Row, fault: Row) -> Lost:
    """Steps of the attempt that was hit and that the next one did again, by the ranks' own samples."""
    attempts = results.of_case("attempts", case["case_id"])
    if not any(a["index"] > fault["attempt"] for a in attempts) or fault["attempt"] < 0:
        return Lost(None, -1, -1, None, "no attempt followed")
    if not results.has_samples(samples_of(case), "steps"):
        return Lost(None, -1, -1, None, "no steps recorded")
    samples = results.case_samples(case["case_id"], "steps", all_attempts=True)
    index = results.attempt_index(samples["attempt"])
    hit, later = index == fault["attempt"], index > fault["attempt"]
    if not np.any(hit):
        return Lost(None, -1, -1, None, "no sample of the attempt that was hit")
    if not np.any(later):
        return Lost(None, -1, -1, None, "no attempt that followed did a step")
    again = int(np.min(samples["step"][later & (index == np.min(index[later]))]))
    broken = hit & (samples["step"] >= again)
    typical_s = float(np.median(samples["step_time_ns"][hit])) / 1e9
    partial_s, words = _partial_step_s(results, samples, index, case, fault)
    last = int(np.max(samples["step"][broken])) if np.any(broken) else again - 1
    return Lost(last - again + 1, again, last, int(np.sum(broken)) * typical_s + partial_s, words)


def _partial_step_s(
    results: CampaignResults, samples: dict[str, Any], index: Any, case: Row, fault: Row
) -> tuple[float, str]:
    """Rank-seconds between each rank's last finished step and t1, where the rank's host clock is known."""
    if fault["injected_wall_ns"] <= 0:
        return 0.0, "partial step not included: when it was injected is not recorded"
    offsets = clock_offsets(results)
    spent, missing = 0.0, 0
    for rank in range(case["ranks"]):
        mine = (index == fault["attempt"]) & (samples["rank"] == rank)
        if not np.any(mine):
            missing += 1
            continue
        node = int(samples["node"][mine][-1])
        host = results.nodes[node] if 0 <= node < len(results.nodes) else ""
        if host not in offsets:
            missing += 1
            continue
        end_ns = int(np.max(samples["start_mono_ns"][mine] + samples["step_time_ns"][mine])) + offsets[host]
        spent += max(0.0, (fault["injected_wall_ns"] - end_ns) / 1e9)
    words = "partial step included"
    return spent, words if not missing else f"{words}, but for {text.count(missing, 'rank')} without a clock"


def _evidence(fault: Row) -> tuple[tuple[str, str], ...]:
    data = _facts(fault)
    if data is None:
        return (("evidence", fault["evidence"]),)
    return tuple((str(k), v if isinstance(v, str) else json.dumps(v)) for k, v in data.items())


def of_fault(results: CampaignResults, case: Row, fault: Row) -> Recovery:
    """The story of one row of /faults."""
    stamps = _stamps(fault)
    after = {s.name: s.after_s for s in stamps}
    exact = fault["injected_wall_ns"] > 0
    attempts = results.of_case("attempts", case["case_id"])
    return Recovery(
        case_id=case["case_id"],
        label=case["label"],
        fault_id=short_id(fault["fault_id"], case["case_id"]),
        kind=fault["kind"],
        requested_kind=fault["requested_kind"],
        target=fault["target"],
        at_step=fault["at_step"],
        expect=fault["expect"],
        requested=fault["requested"],
        observed=fault["observed"],
        healed=fault["healed"],
        origin="t1" if exact else "t0",
        stamps=stamps,
        detection_s=after["t2"] if exact else None,
        time_to_restart_s=after["t7"] if exact else None,
        time_to_recover_s=after["t8"] if exact else None,
        time_to_recover_bound_s=None if exact else after["t8"],
        restarts=sum(a["index"] > fault["attempt"] for a in attempts),
        hit_attempt=fault["attempt"],
        lost=_lost(results, case, fault),
        buckets=buckets.of_fault(results, fault),
        evidence=_evidence(fault),
    )


def analyse(results: CampaignResults) -> tuple[Recovery, ...]:
    """Every fault of the file whose case the file knows, in the file's order."""
    pairs = ((results.case(fault["case_id"]), fault) for fault in results.faults)
    return tuple(of_fault(results, case, fault) for case, fault in pairs if case is not None)


def _words(results: CampaignResults, r: Recovery) -> str:
    asked = f" (asked for: {r.requested_kind})" if r.requested_kind != r.kind else ""
    facts = ", ".join(
        ("" if yes else "NOT ") + word
        for word, yes in (("requested", r.requested), ("observed", r.observed), ("healed", r.healed))
    )
    lines = [
        f"{r.label}: {r.fault_id}, {r.kind}{asked} on {r.target or 'nothing'} at step {r.at_step}, "
        f"expected: {r.expect}",
        f"  {facts}",
    ]
    for s in r.stamps:
        since = "" if r.origin == "t1" else " since the request"
        value = f"{s.after_s:+.3f} s{since}" if s.after_s is not None else s.why
        lines.append(f"  {s.name:<7}{s.words:<42}{value}")
    for name, value_s in (
        ("detection latency", r.detection_s),
        ("time to restart", r.time_to_restart_s),
        ("time to recover", r.time_to_recover_s),
    ):
        lines.append(f"  {name:<49}{text.seconds(value_s) if value_s is not None else 'unknown'}")
    if r.time_to_recover_bound_s is not None:
        lines.append(f"  {'':<49}at most {text.seconds(r.time_to_recover_bound_s)}, since the request")
    lines += [
        f"    {f'{b.name}: {b.words}':<47}{text.seconds(b.time_s) if b.time_s is not None else 'unknown'}"
        + (f" ({b.why})" if b.why else "")
        for b in r.buckets
    ]
    work = text.seconds(r.restart_work_s) if r.restart_work_s is not None else "unknown"
    lines.append(f"  {'restart work: all of it but the queue':<49}{work}")
    if r.lost.steps is not None and r.lost.rank_s is not None:
        lines.append(
            f"  {'lost work':<49}{text.count(r.lost.steps, 'step')}, {r.lost.rank_s:.3f} rank-seconds "
            f"({r.lost.words})"
        )
    else:
        lines.append(f"  {'lost work':<49}unknown {r.lost.words}")
    for a in results.of_case("attempts", r.case_id):
        done = f"steps {a['first_step']} to {a['last_step']}" if a["last_step"] >= 0 else "steps unknown"
        lines.append(
            f"  attempt {a['index']} (job {a['slurm_job_id'] or '-'}) on {','.join(names(a['nodes']))}: {done}, "
            f"{a['outcome']}{': ' if a['reason'] else ''}{a['reason']}"
        )
    return "\n".join(text.clean(line).replace("\n", " ") for line in lines)


def _spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """p50, p95, max and count of the known ones; None when there is none."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    return {
        "p50": float(np.percentile(known, 50)),
        "p95": float(np.percentile(known, 95)),
        "max": max(known),
        "n": len(known),
    }


def overview(found: Sequence[Recovery]) -> dict[str, Any]:
    """Over all faults: how many were observed, recovered (with Wilson interval), and times to recover in s.

    A fault that was not observed is not counted; one that never recovered is counted as censored. Of the times, one
    that is only bounded is left out; ``queue_s`` and ``restart_work_s`` are their two shares, where both are known.
    """
    counted = [r for r in found if r.observed and r.expect == "recovered"]
    recovered = [r for r in counted if r.stamp("t8").after_s is not None]
    low, high = wilson(len(recovered), len(counted))
    data: dict[str, Any] = {
        "faults": len(found),
        "counted": len(counted),
        "recovered": len(recovered),
        "never_recovered": len(counted) - len(recovered),
        "rate_95": [low, high],
    }
    apart = [r for r in recovered if r.restart_work_s is not None]
    for name, values in (
        ("time_to_recover_s", [r.time_to_recover_s for r in recovered]),
        ("queue_s", [r.queue_s for r in apart]),
        ("restart_work_s", [r.restart_work_s for r in apart]),
    ):
        spread = _spread(values)
        if spread is not None:
            data[name] = spread
    return data


def _overview_words(data: dict[str, Any]) -> str:
    low, high = (text.percent(share) for share in data["rate_95"])
    lines = [
        f"all faults: {data['recovered']} of {data['counted']} that were observed recovered "
        f"(95 %: {low} to {high}), {data['never_recovered']} never"
    ]
    for name, words in (
        ("time_to_recover_s", "time to recover"),
        ("queue_s", "queue: of it waiting"),
        ("restart_work_s", "restart work: the rest"),
    ):
        s = data.get(name)
        spread = "unknown"
        if s is not None:
            median, p95, longest = (text.seconds(s[key]) for key in ("p50", "p95", "max"))
            spread = f"median {median}, p95 {p95}, longest {longest}, n={s['n']}"
        lines.append(f"  {words:<49}{spread}")
    return "\n".join(lines)


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    over = overview(found)
    faults = [{**asdict(r), "queue_s": r.queue_s, "restart_work_s": r.restart_work_s} for r in found]
    data = {"overview": over, "faults": faults}
    if not found:
        return data, "no fault was declared, or none left a record", 0
    return data, "\n\n".join([*(_words(results, r) for r in found), _overview_words(over)]), 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.recovery results.h5 [--json]``."""
    return run("recovery", "Faults: the three facts, the time line, and what was lost.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
