"""A case's steps as one job: when each step of each attempt began and ended on the slowest rank, by wall clock."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.results import CampaignResults, Row, samples_of
from analysis.series import Floats
from analysis.stamps import clock_offsets
from harness.store import Table

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """Steps of one attempt in order, shape (n,): when the first rank began each, and when the last one ended it.

    ``slowest_s`` is the time of the slowest rank; ``blocked_s`` what a checkpoint before the step took, 0 without one.
    """

    attempt: int
    step: Integers
    begin_ns: Integers
    end_ns: Integers
    slowest_s: Floats
    blocked_s: Floats


def offsets(results: CampaignResults) -> NDArray[np.int64]:
    """Wall minus monotonic clock of each row of /nodes in ns; -1 where nobody of that host said."""
    known = clock_offsets(results)
    return np.array([known.get(host, -1) for host in results.nodes] + [-1], dtype=np.int64)


def of_case(results: CampaignResults, case: Row) -> list[Steps]:
    """Every attempt's steps; an attempt without steps, or with a rank whose clock is not known, is left out.

    Raises:
        StoreError: the samples are damaged.
    """
    return _of_case(results, case["case_id"])


@functools.lru_cache(maxsize=8)  # the faults of one case ask one after another
def _of_case(results: CampaignResults, case_id: str) -> list[Steps]:
    case = results.case(case_id)
    assert case is not None  # who asks has it from the file
    home = samples_of(case)
    if not results.has_samples(home, "steps"):
        return []
    samples = results.case_samples(case["case_id"], "steps", all_attempts=True)
    if not len(samples["step"]):
        return []
    by_node = offsets(results)
    index = results.attempt_index(samples["attempt"])
    saved, saved_index = None, None
    if results.has_samples(home, "checkpoints"):
        saved = results.case_samples(case["case_id"], "checkpoints", all_attempts=True)
        saved_index = results.attempt_index(saved["attempt"])
    found = []
    for attempt in np.unique(index[index >= 0]).tolist():
        own = {name: values[index == attempt] for name, values in samples.items()}
        node = np.where((own["node"] >= 0) & (own["node"] < len(by_node) - 1), own["node"], len(by_node) - 1)
        offset = by_node[node]
        if np.any(offset == -1):
            continue
        blocked = {} if saved is None else _blocked_s(saved, saved_index == attempt)
        found.append(_steps(attempt, own, offset, blocked))
    return found


def _blocked_s(saved: Table, mine: NDArray[np.bool_]) -> dict[int, float]:
    """Steps that were finished -> how long the slowest rank's checkpoint took."""
    found: dict[int, float] = {}
    for step, time_ns in zip(
        saved["step"][mine].tolist(), saved["checkpoint_time_ns"][mine].tolist(), strict=True
    ):
        found[step] = max(found.get(step, 0.0), time_ns / 1e9)
    return found


def _steps(attempt: int, own: Table, offset: Integers, blocked: dict[int, float]) -> Steps:
    step, place = np.unique(own["step"], return_inverse=True)
    begin = np.full(len(step), np.iinfo(np.int64).max)
    end = np.zeros(len(step), dtype=np.int64)
    slowest = np.zeros(len(step))
    starts = own["start_mono_ns"] + offset
    np.minimum.at(begin, place, starts)
    np.maximum.at(end, place, starts + own["step_time_ns"])
    np.maximum.at(slowest, place, own["step_time_ns"] / 1e9)
    waits = np.array([blocked.get(int(s), 0.0) for s in step])
    return Steps(attempt, step.astype(np.int64), begin, end, slowest, waits)
