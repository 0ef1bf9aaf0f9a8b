"""A generated soak: cases with many faults of several kinds under each recovery policy, with known truth. Not a test.

Every fault's stamps follow from the few constants below, so that tests can say what the figures must be.
"""

from __future__ import annotations

import json

from tests.unit import results_factory as factory
from tests.unit.results_tables import Campaign, Row, S, mono

STEP_NS = 50_000_000
EVERY = 10  # steps between checkpoints
CHECKPOINT_NS = 20_000_000
RANKS = 2
# policy -> to the first sign, to the end of the attempt, to the next process, to its first step's begin
LATENCIES_NS = {
    "warm-restart": (5_000_000, 30_000_000, 120_000_000, 180_000_000),
    "new-step": (8_000_000, 40_000_000, 900_000_000, 1_100_000_000),
    "requeue": (10_000_000, 50_000_000, 6_000_000_000, 6_500_000_000),
}
KINDS = ("rank.kill", "rank.freeze", "rank.hang", "node.power_off", "rank.segfault")
SAID = {"rank.freeze": "frozen", "rank.hang": "deadlock", "node.power_off": "silent"}


def _training(rank: int) -> Row:
    return {"loss": 5.0, "tokens": 256}


def soaked(
    campaign: Campaign, policy: str, faults: int, start_ns: int, between: int = 25, **values: str
) -> Row:
    """One case: a fault after each ``between`` steps; each is recovered from at the checkpoint before it."""
    case_id = values.pop("case_id", f"soak-{policy}")
    steps = (faults + 1) * between + 20
    kinds = [KINDS[i % len(KINDS)] for i in range(faults)]
    declared = [
        {"fault_id": f"{case_id}-f{i}", "kind": kind, "requested_kind": kind, "expect": "recovered", "rank": 1,
         "at_step": (i + 1) * between}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    case = campaign.case(
        case_id, group="soak", label=f"soak/n2/policy={policy}/r0/fault", nodes=RANKS, steps=steps, warmup_steps=0,
        faults=declared, recovery=policy, **values,
    )  # fmt: skip
    now, first, key = start_ns, 0, ""
    for number in range(faults + 1):
        last = (number + 1) * between - 1 if number < faults else steps - 1
        attempt = campaign.attempt(
            case, ["n1", "n2", "n3"], now, 0, first_step=first, last_step=last, world=RANKS,
            restored_step=first if number else -1, policy=policy if number else "first",
            outcome="node_lost" if number < faults else "completed",
            **({"job_key": key} if key else {}), restart=number if policy == "requeue" else 0,
            epoch=0 if policy == "requeue" else number,
        )  # fmt: skip
        key = attempt["job_key"]
        if policy == "requeue":
            factory.started(campaign, attempt, now)
        now = _attempt(campaign, case, attempt, now, first, last, number)
        if number == faults:
            attempt.update(end_wall_ns=now, duration_ns=now - attempt["start_wall_ns"])
            break
        now, first = _fault(
            campaign, case, attempt, kinds[number], declared[number]["fault_id"], now, last, policy
        )
    return case


def _attempt(
    campaign: Campaign, case: Row, attempt: Row, now: int, first: int, last: int, number: int
) -> int:
    """Processes, state and steps of one attempt; returns when its last step ended."""
    sign, end, running, begin = LATENCIES_NS[case["recovery"]]
    del sign, end
    for rank, host in enumerate(("n1", "n2")):
        campaign.event(case, number, rank, "rank.running", now + 10_000_000, host)
    now += begin - running
    for step in range(first, last + 1):
        for rank in range(RANKS):
            campaign.record(
                case, attempt, rank, "steps", step=[step], start_mono_ns=[mono(now)], step_time_ns=[STEP_NS],
                loss=5.0, tokens=256,
            )  # fmt: skip
        now += STEP_NS
        if (step + 1) % EVERY == 0 and step < last:
            for rank in range(RANKS):
                campaign.record(
                    case, attempt, rank, "checkpoints", step=[step + 1], checkpoint_time_ns=[CHECKPOINT_NS],
                    checkpoint_bytes=[4096],
                )  # fmt: skip
                _saved(campaign, case, number, rank, step + 1, "committed", now + CHECKPOINT_NS)
            now += CHECKPOINT_NS
    if number:
        for rank in range(RANKS):
            _saved(campaign, case, number, rank, first, "restored", attempt["start_wall_ns"] + 20_000_000)
    return now


def _saved(
    campaign: Campaign, case: Row, number: int, rank: int, step: int, event: str, wall_ns: int
) -> None:
    campaign.add(
        "checkpoints", case_id=case["case_id"], attempt=number, rank=rank, step=step, event=event, level="shared",
        engine="own", digest=f"d{step}r{rank}", bytes=4096, time_ns=CHECKPOINT_NS, wall_ns=wall_ns,
    )  # fmt: skip


def _fault(
    campaign: Campaign, case: Row, attempt: Row, kind: str, fault_id: str, now: int, last: int, policy: str
) -> tuple[int, int]:
    """Hit an attempt 10 ms after its last step; returns when the next one starts, and with which step."""
    sign, end, running, begin = LATENCIES_NS[policy]
    t1 = now + 10_000_000
    attempt.update(end_wall_ns=t1 + end, duration_ns=t1 + end - attempt["start_wall_ns"])
    first = (last + 1) // EVERY * EVERY
    first = first if (last + 1) % EVERY else first - EVERY  # no checkpoint is taken after the last step
    again = last + 2 - first
    node_fault = kind.startswith("node.")
    began = t1 + begin + 0
    saves = sum((s + 1) % EVERY == 0 for s in range(first, last + 1))
    campaign.add(
        "faults", fault_id=fault_id, case_id=case["case_id"], attempt=attempt["index"], kind=kind, requested_kind=kind,
        target="node n2" if node_fault else "rank 1", nodes='["n2"]', trigger=f"step {last + 1}", at_step=last + 1,
        expect="recovered", policy=policy, requested=True, observed=True, healed=node_fault,
        requested_wall_ns=t1 - 2_000_000, injected_wall_ns=t1, observed_wall_ns=t1 + 3_000_000,
        detected_wall_ns=t1 + sign, blamed_wall_ns=t1 + sign, blamed="rank 1 on n2", detector=SAID.get(kind, "dead"),
        left_wall_ns=t1 + end, running_wall_ns=t1 + running + 10_000_000, loaded_wall_ns=t1 + running + 20_000_000,
        first_step_wall_ns=began + STEP_NS, recovered_wall_ns=began + again * STEP_NS + saves * CHECKPOINT_NS,
        healed_wall_ns=t1 + S if node_fault else 0, evidence=json.dumps({"fault.observed": {"seen": "gone"}}),
    )  # fmt: skip
    campaign.add(
        "detections", case_id=case["case_id"], attempt=attempt["index"], wall_ns=t1 + sign, rank=1, node="n2",
        mono_ns=mono(t1 + sign), what=SAID.get(kind, "dead"), step=last + 1, evidence="{}", fault_id=fault_id,
    )  # fmt: skip
    return t1 + running, first


def soak(faults: int = 66) -> Campaign:
    """``faults`` faults under each of the three policies, a clean case, and a decoy that a detector fell for."""
    campaign = Campaign()
    campaign.attributes["campaign"] = "soak"
    factory.train(campaign, 0, factory.START_NS)
    for number, policy in enumerate(LATENCIES_NS):
        soaked(campaign, policy, faults, factory.START_NS + number * 2000 * S)
    decoy = campaign.case(
        "decoy", group="decoys", nodes=2, recovery="warm-restart",
        faults=[{"fault_id": "decoy-f0", "kind": "rank.slow_step", "requested_kind": "rank.slow_step",
                 "expect": "unharmed", "rank": 0, "at_step": 20}],
    )  # fmt: skip
    begin = factory.START_NS + 9000 * S
    attempt = campaign.attempt(decoy, ["n1", "n2"], begin, begin + 5 * S, world=2, policy="first")
    factory.steps(campaign, decoy, attempt, 0, 39, 100_000_000, begin, columns=_training)
    campaign.add(
        "faults", fault_id="decoy-f0", case_id="decoy", kind="rank.slow_step", requested_kind="rank.slow_step",
        target="rank 0", nodes='["n1"]', trigger="step 20", at_step=20, expect="unharmed", policy="warm-restart",
        requested=True, observed=True, requested_wall_ns=begin + 2 * S, injected_wall_ns=begin + 2 * S,
        observed_wall_ns=begin + 2 * S, duration_s=0.5,
    )  # fmt: skip
    campaign.add(
        "detections", case_id="decoy", wall_ns=begin + 2 * S + S // 2, what="hung", rank=0, node="n1", step=20,
        fault_id="decoy-f0", evidence="{}",
    )  # fmt: skip
    return campaign
