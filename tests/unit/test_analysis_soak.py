"""Figures over many faults, from a generated soak whose truth is known; and that its report stays readable."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis import detectors, recovery, report, saved, spread, usefultime
from analysis.results import CampaignResults, load
from tests.unit import recovery_factory
from tests.unit import results_factory as factory
from tests.unit.recovery_factory import CHECKPOINT_NS, LATENCIES_NS, STEP_NS

FAULTS = 10


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CampaignResults]:
    path = recovery_factory.soak(FAULTS).write(tmp_path_factory.mktemp("soak") / "r.h5")
    with load(path) as found:
        yield found


def test_policies_stand_side_by_side(results: CampaignResults) -> None:
    rows = {row.name: row for row in spread.table(recovery.analyse(results), lambda r: r.policy)}
    assert sorted(rows) == ["new-step", "requeue", "warm-restart"]
    for name, (sign, _, _, begin) in LATENCIES_NS.items():
        row = rows[name]
        assert (row.counted, row.recovered, row.censored) == (FAULTS, FAULTS, 0)
        detected, restarted = row.figures["detection_s"], row.figures["time_to_restart_s"]
        assert detected is not None and restarted is not None
        assert (detected["p50"], detected["n"]) == (pytest.approx(sign / 1e9), FAULTS)
        assert restarted["p50"] == pytest.approx((begin + STEP_NS) / 1e9)
    assert rows["warm-restart"].faults == FAULTS + 1  # the decoy, which is not to be recovered from


def test_a_fault_that_never_recovered_is_censored(tmp_path: Path) -> None:
    campaign = recovery_factory.soak(2)
    campaign.tables["faults"][0].update(first_step_wall_ns=0, recovered_wall_ns=0)
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (row,) = spread.table(
            [r for r in recovery.analyse(results) if r.policy == "warm-restart"], lambda r: r.policy
        )
    assert (row.counted, row.recovered, row.censored) == (2, 1, 1)


def test_detectors_are_scored_with_what_they_made_up(results: CampaignResults) -> None:
    score = detectors.score(results)
    assert (score.faults, score.noticed, score.blamed, score.detections) == (30, 30, 30, 31)
    assert (score.false_alarms, score.recall, score.precision) == (1, 1.0, pytest.approx(30 / 31))
    assert (score.decoys, score.clean_cases) == (1, 1)
    assert score.confusion == (
        ("node.power_off", "silent, the right target", 6),
        ("rank.freeze", "frozen, the right target", 6),
        ("rank.hang", "deadlock, the right target", 6),
        ("rank.kill", "dead, the right target", 6),
        ("rank.segfault", "dead, the right target", 6),
        ("rank.slow_step", "hung, a false alarm", 1),
    )


def test_checkpoints_are_counted_once_for_all_ranks(tmp_path: Path) -> None:
    campaign = recovery_factory.soak(2)
    for rank in (0, 1):
        campaign.add(
            "checkpoints", case_id="soak-requeue", attempt=1, rank=rank, step=-1, event="refused",
            why="step-00000030.0.0: rank-1.pt of rank 1 is damaged",
        )  # fmt: skip
    restored = campaign.find("checkpoints", case_id="soak-requeue", attempt=2, event="restored", rank=1)
    restored["digest"] = "other"
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = saved.of(results)
    assert (found.refused, found.restored, found.right) == (1, 6, 5)
    assert found.reasons == (("rank-1.pt of rank 1 is damaged", 1),)


@pytest.mark.parametrize("policy", list(LATENCIES_NS))
def test_buckets_add_up_to_the_wall_time(policy: str, results: CampaignResults) -> None:
    case = results.case(f"soak-{policy}")
    assert case is not None
    account = usefultime.of_case(results, case)
    attempts = results.of_case("attempts", case["case_id"])
    wall_s = (attempts[-1]["end_wall_ns"] - attempts[0]["start_wall_ns"]) / 1e9
    assert account.wall_s == pytest.approx(wall_s, abs=1e-6)
    assert account.buckets["productive"] == pytest.approx(case["steps"] * STEP_NS / 1e9)
    sign = LATENCIES_NS[policy][0]
    assert account.buckets["detect"] == pytest.approx(FAULTS * sign / 1e9)
    assert account.buckets["checkpoint"] == pytest.approx(len(account.checkpoints_s) * CHECKPOINT_NS / 1e9)
    assert (account.buckets["queue"] > 0) == (policy == "requeue")


def test_measured_useful_time_stands_beside_the_model(results: CampaignResults) -> None:
    found = {b.policy: b for b in usefultime.beside(results, recovery.analyse(results))}
    warm = found["warm-restart"]
    assert (warm.cost_s.value, warm.interval_s.value, warm.restart_s.value) == (
        pytest.approx(CHECKPOINT_NS / 1e9), pytest.approx(0.5), pytest.approx(0.23),
    )  # fmt: skip
    assert warm.account.ettr is not None and warm.modelled is not None
    assert warm.account.ettr == pytest.approx(warm.modelled, abs=0.1)
    requeue = found["requeue"].account
    assert requeue.ettr is not None and requeue.ettr_without_queue is not None
    assert requeue.ettr < requeue.ettr_without_queue


def test_useful_time_is_said_of_one_workload_and_that_the_model_knows_no_start(
    results: CampaignResults,
) -> None:
    _, words, _ = recovery._act(results)
    assert "useful time of torch.train with new-step: measured " in words
    assert "; the model, which knows no start-up of the job, says " in words


def test_step_times_as_before_end_the_tail_at_once(results: CampaignResults) -> None:
    first = recovery.analyse(results)[0]
    assert (first.degraded_tail_s, first.stamp("t9").wall_ns) == (0.0, first.stamp("t8").wall_ns)


def test_slower_steps_after_a_fault_are_its_tail(tmp_path: Path) -> None:
    campaign = recovery_factory.soak(1)
    columns = campaign.samples["torch.train", "steps"]
    begin = campaign.tables["faults"][0]["recovered_wall_ns"]
    row = campaign.tables["attempts"].index(campaign.find("attempts", case_id="soak-warm-restart", index=1))
    for number, attempt in enumerate(columns["attempt"]):
        if attempt[0] == row and columns["step"][number][0] < 40:
            columns["step_time_ns"][number] = [STEP_NS * 3 // 2]
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = recovery.analyse(results)[0]
    # Steps 20 to 39 were slow; of the 20 from step 30 on, half are as before.
    assert found.degraded_tail_s is not None and found.degraded_tail_s > 0.2
    assert found.stamp("t8").wall_ns == begin


def test_a_report_of_many_faults_is_short_and_soon_there(tmp_path: Path) -> None:
    path = recovery_factory.soak(66).write(tmp_path / "r.h5")
    begin = time.monotonic()
    page = report.write(path).report_html.read_text(encoding="utf-8")
    assert time.monotonic() - begin < 60
    assert len(page) < 4_000_000
    assert "The first 30 faults are drawn; of 169 more there are the figures alone." in page
    assert len(re.findall(r'aria-label="[^"]*steps over time around', page)) == 30
    assert (
        page.index("By recovery policy") < page.index("Useful time of") < page.index('class="panel faults"')
    )


def test_a_wait_between_two_steps_is_stall(tmp_path: Path) -> None:
    campaign = recovery_factory.soak(1)
    before = _account(campaign, tmp_path)
    row = campaign.tables["attempts"].index(campaign.find("attempts", case_id="soak-requeue", index=1))
    columns = campaign.samples["torch.train", "steps"]
    for number, attempt in enumerate(columns["attempt"]):
        if (
            attempt[0] == row and columns["step"][number][0] >= 60
        ):  # a checkpoint of 20 ms comes before step 60
            columns["start_mono_ns"][number] = columns["start_mono_ns"][number] + 300_000_000
    campaign.tables["attempts"][row]["end_wall_ns"] += 300_000_000
    after = _account(campaign, tmp_path)
    changed = {name: round(after[name] - before[name], 6) for name in after if after[name] != before[name]}
    assert changed == {"stall": 0.3}


def _account(campaign: factory.Campaign, folder: Path) -> dict[str, float]:
    with load(campaign.write(folder / "r.h5")) as results:
        case = results.case("soak-requeue")
        assert case is not None
        return usefultime.of_case(results, case).buckets
