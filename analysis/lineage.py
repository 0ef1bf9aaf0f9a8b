"""The proof step by step: every state equals the twin's, and every rank saw the twin's samples, none skipped or twice.

States are compared in every attempt, also in those that were broken later: a wrong one is wrong whether or not
it was thrown away. Samples are compared over the final lineage: of each step, the last attempt that did it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from analysis import text
from analysis.results import CampaignResults, Row, names, samples_of
from analysis.view import Finding, View
from harness.model.verdict import Verdict
from harness.store import Table

BATCH = "batch_id"


def _twin(view: View) -> Row | None:
    return view.results.case(view.case["twin"]) if view.case["twin"] else None


def _shrunk(view: View) -> list[int]:
    """Attempts that ran with fewer ranks than the case has: their states are divided otherwise."""
    return [a["index"] for a in view.attempts if 0 < a["world"] != view.case["ranks"]]


def states(view: View) -> list[Finding]:
    """Whether the digest of each live state equals the twin's after as many steps on the same rank."""
    twin = _twin(view)
    if twin is None or not view.digests:
        return []
    expected: dict[tuple[int, int], str] = {}
    for row in view.results.of_case("digests", twin["case_id"]):
        if expected.setdefault((row["rank"], row["step"]), row["digest"]) != row["digest"]:
            words = f"its twin {twin['label']} had two states after {row['step']} steps on rank {row['rank']}"
            return [Finding(Verdict.UNKNOWN, f"{words}: it is not deterministic, and proves nothing")]
    shrunk = _shrunk(view)
    compared, steps = 0, set()
    for row in sorted(view.digests, key=lambda d: (d["attempt"], d["step"], d["rank"])):
        wanted = expected.get((row["rank"], row["step"]))
        if wanted is None or row["attempt"] in shrunk:
            continue
        if row["digest"] != wanted:
            words = (
                f"the state after {text.count(row['step'], 'step')} on rank {row['rank']} in attempt {row['attempt']} "
                f"has digest {row['digest'][:16]}, its twin's has {wanted[:16]}"
            )
            return [Finding(Verdict.FAIL if view.case["deterministic"] else None, words)]
        compared += 1
        steps.add(row["step"])
    notes = [Finding(None, f"attempt {i} ran with fewer ranks: its states are not compared") for i in shrunk]
    if not compared:
        return [*notes, Finding(None, f"no state that its twin {twin['label']} recorded too")]
    words = f"{text.count(compared, 'state')} at {text.count(len(steps), 'step')} equal to those of its twin"
    return [*notes, Finding(Verdict.PASS, f"{words}, bit for bit")]


def _sequences(results: CampaignResults, case: Row) -> dict[int, list[tuple[int, int]]] | None:
    """Rank -> (step, batch) in order, over the final lineage; None where no batch is recorded."""
    home = samples_of(case)
    if not results.has_samples(home, "steps") or BATCH not in results.facts(home, "steps"):
        return None
    found: Table = results.effective(case["case_id"], "steps")
    order = np.lexsort((found["start_mono_ns"], found["step"], found["rank"]))
    ranks, steps, seen = (found[name][order].tolist() for name in ("rank", "step", BATCH))
    by_rank: dict[int, list[tuple[int, int]]] = {}
    for rank, step, batch in zip(ranks, steps, seen, strict=True):
        by_rank.setdefault(rank, []).append((step, batch))
    return by_rank


def _taken(view: View) -> dict[int, set[int]]:
    """Rank -> steps whose records its node may have taken with it: what it did last in an attempt that has a gap.

    These are the steps from the rank's last record of that attempt to where the next attempt began.
    """
    gaps = {(s["attempt"], s["node"]) for s in view.streams if s["status"].startswith("gap")}
    if not gaps:
        return {}
    samples = view.results.case_samples(view.case["case_id"], "steps")
    index = view.results.attempt_index(samples["attempt"])
    found: dict[int, set[int]] = {}
    for attempt, following in pairwise(view.attempts):
        for rank, node in enumerate(names(attempt["rank_nodes"])):
            if (attempt["index"], node) in gaps:
                own = samples["step"][(index == attempt["index"]) & (samples["rank"] == rank)]
                last = int(np.max(own)) if len(own) else attempt["first_step"] - 1
                found.setdefault(rank, set()).update(range(last + 1, following["first_step"]))
    return found


def _difference(mine: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> str:
    """The first difference between two sequences of (step, batch) of one rank; empty when there is none."""
    if mine == theirs:
        return ""
    steps = [step for step, _ in mine]
    twice = next((a for a, b in pairwise(steps) if a == b), None)
    if twice is not None:
        return f"did step {twice} twice in one attempt"
    wanted, done = dict(theirs), dict(mine)
    for step in sorted(wanted.keys() | done.keys()):
        if step not in done:
            return f"never did step {step}"
        if step not in wanted:
            return f"did step {step}, which its twin did not"
        if wanted[step] != done[step]:
            other = next((s for s, batch in theirs if batch == done[step]), None)
            where = f"that of its twin's step {other}" if other is not None else "one that its twin never saw"
            return f"saw another batch in step {step} than its twin: {where}"
    return "did its steps in another order than its twin"


def batches(view: View) -> list[Finding]:
    """Whether each rank saw exactly the twin's sequence of batches: none skipped, none twice."""
    twin = _twin(view)
    if twin is None or not view.completed or view.results.completed(twin["case_id"]) is None:
        return []
    mine, theirs = _sequences(view.results, view.case), _sequences(view.results, twin)
    if mine is None or theirs is None or not theirs:
        return []
    if _shrunk(view):
        return [Finding(None, "it went on with fewer ranks: batches are divided otherwise, and not compared")]
    taken = _taken(view)
    missing = 0
    for rank in sorted(mine.keys() | theirs.keys()):
        own, wanted = mine.get(rank, []), theirs.get(rank, [])
        # What a lost node took with it is in nobody's records; the states that followed prove those steps.
        unknown = taken.get(rank, set()) - {step for step, _ in own}
        missing += len(unknown)
        difference = _difference(own, [pair for pair in wanted if pair[0] not in unknown])
        if difference:
            return [Finding(Verdict.FAIL if view.whole else Verdict.UNKNOWN, f"rank {rank} {difference}")]
    number = text.count(sum(map(len, mine.values())), "batch", "batches")
    gone = f"; {missing} more the lost node took with it" if missing else ""
    return [Finding(Verdict.PASS, f"{number} as its twin's: none skipped, none twice{gone}")]
