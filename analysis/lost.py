"""What a fault cost in work: steps that were done again, and how long step times stayed worse than before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import joblevel, text
from analysis.results import CampaignResults, Row, samples_of
from analysis.series import Floats
from analysis.stamps import clock_offsets
from harness.model.fault import CAUGHT, UNHARMED

WINDOW = 20  # steps whose rolling median must be as before
SHARE = 0.05
_COVS = 3.0


@dataclass(frozen=True)
class Lost:
    """Work that was done twice: steps, and rank-seconds by METRICS.md's definition; None when unknown."""

    steps: int | None
    first_step: int
    last_step: int
    rank_s: float | None
    words: str


def of_fault(results: CampaignResults, case: Row, fault: Row) -> Lost:
    """Steps of the attempt that was hit and that the next one did again, by the ranks' own samples."""
    attempts = results.of_case("attempts", case["case_id"])
    if fault["expect"] in (UNHARMED, CAUGHT):
        return Lost(None, -1, -1, None, "nothing to recover from was expected")
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


# --- t9 -----------------------------------------------------------------------------------------------------


def as_before_ns(results: CampaignResults, case: Row, fault: Row) -> tuple[int, str]:
    """t9: from when on the median of 20 steps was back within max(5 %, 3 robust CoV), not before t8; 0 with the reason.

    Before are the steps of the undisturbed twin where the file has them, else those of the attempt until it was hit,
    without the warm-up; 'back' is not slower, since nothing is wrong with faster steps.
    """
    if fault["recovered_wall_ns"] <= 0:
        return 0, "it never passed the step reached before"
    steps = joblevel.of_case(results, case)
    before = _before(results, case, fault, steps)
    if len(before) < WINDOW:
        return 0, f"fewer than {WINDOW} undisturbed steps to compare with"
    typical = float(np.median(before))
    spread = 1.4826 * float(np.median(np.abs(before - typical))) / typical
    limit = typical * (1 + max(SHARE, _COVS * spread))
    begun = fault["first_step_wall_ns"]
    later = [s for s in steps if s.attempt >= fault["attempt"]]
    times = np.concatenate([s.slowest_s[s.end_ns >= begun] for s in later]) if later else np.array([])
    ends = np.concatenate([s.end_ns[s.end_ns >= begun] for s in later]) if later else np.array([])
    if len(times) < WINDOW:
        return 0, f"fewer than {WINDOW} steps followed"
    rolling = np.median(np.lib.stride_tricks.sliding_window_view(times, WINDOW), axis=1)
    good = np.flatnonzero(rolling <= limit)
    if not len(good):
        return 0, f"step times stayed more than {text.percent(limit / typical - 1)} slower until the end"
    begun_ns = 0 if not good[0] else int(ends[good[0] - 1])
    return max(fault["recovered_wall_ns"], begun_ns), ""


def _before(results: CampaignResults, case: Row, fault: Row, steps: list[joblevel.Steps]) -> Floats:
    """Times of undisturbed steps in s, slowest rank."""
    twin = results.case(case["twin"]) if case["twin"] else None
    if twin is not None:
        found = [s.slowest_s[s.step >= case["warmup_steps"]] for s in joblevel.of_case(results, twin)]
        if sum(map(len, found)) >= WINDOW:
            return np.concatenate(found)
    hit = [s for s in steps if s.attempt == fault["attempt"]]
    keep = [(s.end_ns <= fault["injected_wall_ns"]) & (s.step >= case["warmup_steps"]) for s in hit]
    return np.concatenate([s.slowest_s[k] for s, k in zip(hit, keep, strict=True)] or [np.array([])])
