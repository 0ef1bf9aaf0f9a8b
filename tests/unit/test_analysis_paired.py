"""Two settings by pairs: a real difference is found, an A/A is within noise, a drift cancels and is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import paired
from analysis.difference import Change
from analysis.results import load
from harness.model.design import Comparison, Question
from harness.model.event import COMPARISON_PLANNED
from tests.unit import results_factory as factory
from tests.unit.results_tables import S

Times = Callable[[int, str, bool], float]  # repeat, setting, whether it is the second of its pair -> ms


def campaign_of(
    times_ms: Times, repeats: int, metric: str = "step_time_ns", **attributes: Any
) -> factory.Campaign:
    """Pairs by turns, each in an allocation of its own."""
    campaign = factory.Campaign()
    campaign.attributes.update({"emulated": False, **attributes})
    pairs = tuple((f"a{n}", f"b{n}") for n in range(repeats))
    for number in range(repeats):
        for place, side in enumerate("ab" if number % 2 == 0 else "ba"):
            case = campaign.case(
                f"{side}{number}", group="g", steps=4, warmup_steps=1, workload="mpi.halo", repeat=number
            )
            begin = factory.START_NS + (2 * number + place) * 40 * S
            attempt = campaign.attempt(case, ["n1"], begin, begin + 36 * S, job_key=f"{number:04}")
            taken = np.full(4, times_ms(number, side, bool(place)) * 1e6).astype("i8")
            campaign.record(case, attempt, 0, "steps", step=[0, 1, 2, 3], step_time_ns=taken)
    comparison = Comparison("g/n1", "g", Question(metric, "median"), 0.02, "", "rows=64", pairs)
    campaign.event(None, -1, -1, COMPARISON_PLANNED, factory.START_NS, "", **comparison.to_json())
    return campaign


def found(campaign: factory.Campaign, folder: Path) -> paired.Pairing:
    with load(campaign.write(folder / "r.h5")) as results:
        (pairing,) = paired.analyse(results)
    return pairing


def noisy(effect: float, seed: int, drift: float = 0.0) -> Times:
    """b is slower by ``effect``, the second of a pair by ``drift``; allocations differ by half, pairs by 0.5 %."""
    generator = np.random.default_rng(seed)
    levels: dict[int, float] = {}

    def time_ms(repeat: int, side: str, second: bool) -> float:
        level = levels.setdefault(repeat, float(generator.uniform(100, 150)))
        own = level * (1 + effect * (side == "b")) * (1 + drift * second)
        return own * float(np.exp(generator.normal(0, 0.005)))

    return time_ms


def test_a_real_difference_is_found_though_allocations_differ_more(tmp_path: Path) -> None:
    pairing = found(campaign_of(noisy(0.05, seed=1), 12), tmp_path)
    assert pairing.verdict is Change.WORSE
    assert pairing.difference.ratio == pytest.approx(1.05, abs=0.01)
    assert pairing.words.startswith("b is +5.") or pairing.words.startswith("b is +4.")
    assert pairing.words.endswith("against a over 12 pairs: worse")
    better = found(campaign_of(noisy(-0.05, seed=1), 12), tmp_path)
    assert better.verdict is Change.BETTER


def test_the_same_figures_without_their_pairs_show_nothing(tmp_path: Path) -> None:
    """A control: what the pairing is for."""
    from analysis.difference import compare

    pairing = found(campaign_of(noisy(0.05, seed=1), 12), tmp_path)
    apart = compare(
        [p.a for p in pairing.pairs], [p.b for p in pairing.pairs], smallest=0.02, direction="lower"
    )
    assert apart.verdict is Change.UNKNOWN


def test_two_settings_that_are_the_same_are_within_noise(tmp_path: Path) -> None:
    verdicts = [found(campaign_of(noisy(0.0, seed), 12), tmp_path).verdict for seed in range(5)]
    assert verdicts == [Change.WITHIN_NOISE] * 5


def test_a_drift_within_pairs_cancels_and_is_told_apart(tmp_path: Path) -> None:
    pairing = found(campaign_of(noisy(0.0, seed=3, drift=0.04), 24), tmp_path)
    assert pairing.difference.ratio == pytest.approx(1.0, abs=0.015)
    order = pairing.order
    assert order.change == pytest.approx(0.04, abs=0.006)
    assert (order.real, order.balanced, order.a_first, order.b_first) == (True, True, 12, 12)
    assert paired.order_words(order).endswith("which cancels")


def test_with_few_pairs_the_order_has_no_interval(tmp_path: Path) -> None:
    order = found(campaign_of(noisy(0.0, seed=3, drift=0.04), 7), tmp_path).order
    assert (order.a_first, order.b_first, order.interval, order.balanced) == (4, 3, None, True)
    assert paired.order_words(order).endswith("of too few pairs for an interval")


def test_fewer_than_six_pairs_have_no_verdict(tmp_path: Path) -> None:
    pairing = found(campaign_of(noisy(0.05, seed=1), 5), tmp_path)
    assert (pairing.verdict, pairing.difference.interval) == (Change.UNKNOWN, None)


@pytest.mark.parametrize(
    "attributes, stamp",
    [({"emulated": True}, "emulated"), ({"oversubscribed": True}, "more ranks than cores")],
)
def test_a_stamped_file_judges_nothing(attributes: dict[str, Any], stamp: str, tmp_path: Path) -> None:
    pairing = found(campaign_of(noisy(0.05, seed=1), 12, **attributes), tmp_path)
    assert (pairing.verdict, pairing.stamp) == (None, stamp)
    assert pairing.words.endswith(f"over 12 pairs: {stamp}, so it judges nothing")


def test_pairs_that_were_torn_apart_are_left_out_and_named(tmp_path: Path) -> None:
    campaign = campaign_of(noisy(0.05, seed=1), 10)
    campaign.find("attempts", case_id="b0")["restart"] = 1
    campaign.find("attempts", case_id="a1")["rank_nodes"] = json.dumps(["n2"])
    for case_id in ("b2", "a3", "b3"):
        campaign.find("attempts", case_id=case_id)["outcome"] = "failed"
    pairing = found(campaign, tmp_path)
    assert [pair.repeat for pair in pairing.pairs] == [4, 5, 6, 7, 8, 9]
    assert pairing.left_out == (
        "repeat 0: a and b did not run in one allocation",
        "repeat 1: a and b did not run on the same nodes",
        "repeat 2: no figure of b: the case did not complete",
        "repeat 3: no figure of a: the case did not complete",
    )


def test_pairs_that_were_not_needed_are_no_pairs(tmp_path: Path) -> None:
    campaign = campaign_of(noisy(0.05, seed=1), 8)
    for case_id in ("a7", "b7"):
        case = campaign.find("cases", case_id=case_id)
        case["outcome"], case["reason"] = "not_run", "not needed: interval ±1 % after 7 repeats"
        campaign.tables["attempts"].remove(campaign.find("attempts", case_id=case_id))
    for name, columns in list(campaign.samples.items()):
        keep = [i for i, cases in enumerate(columns["case"]) if cases[0] < 14]
        campaign.samples[name] = {column: [values[i] for i in keep] for column, values in columns.items()}
    pairing = found(campaign, tmp_path)
    assert ([pair.repeat for pair in pairing.pairs], pairing.left_out) == (list(range(7)), ())


def test_of_a_rate_more_is_better(tmp_path: Path) -> None:
    campaign = campaign_of(noisy(0.05, seed=1), 8)
    campaign.facts["step_time_ns"] = {
        "unit": "1/s", "type": "i8", "direction": "higher", "definition": "made up"
    }  # fmt: skip
    assert found(campaign, tmp_path).verdict is Change.BETTER


def test_words_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = campaign_of(lambda repeat, side, second: 100.0 + 10 * (side == "b"), 6).write(tmp_path / "r.h5")
    assert paired.main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "g/n1: median step_time_ns",
        "  a: the group as it is",
        "  b: rows=64",
        "  b is +10.0 % (+10.0 % to +10.0 %) against a over 6 pairs: worse; 2 % matters",
        "  order: 3 with a first, 3 with b first; being second made +0.0 %, of too few pairs for an interval",
    ]
    assert paired.main([str(path), "--json"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert (data["verdict"], len(data["pairs"]), data["pairs"][1]["a_first"]) == ("worse", 6, False)


def test_a_file_without_a_comparison_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert paired.main([str(factory.small().write(tmp_path / "r.h5"))]) == 0
    assert capsys.readouterr().out == "nothing was compared in this file\n"


def test_a_damaged_plan_of_a_comparison_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = campaign_of(noisy(0.0, seed=1), 6)
    campaign.find("events", kind=COMPARISON_PLANNED)["data"] = "{}"
    assert paired.main([str(campaign.write(tmp_path / "r.h5"))]) == 2
    assert "an event comparison.planned is not as it should be" in capsys.readouterr().err
