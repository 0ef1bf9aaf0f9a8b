"""A rank or node that keeps others waiting is named with its cost; chance and costs of nothing are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import stragglers
from analysis.results import load
from analysis.stragglers import Straggler
from tests.unit import results_factory as factory
from tests.unit.results_tables import START_NS, S


def campaign(
    slow: float = 1.0, share: float = 1.0, cases: int = 1, waits: bool = False, seed: int = 1, hold: int = 1
) -> factory.Campaign:
    """Four ranks on two nodes, 400 steps of 10 ms; rank 3 on n2 computes ``slow`` times as long in ``share`` of them.

    Args:
        waits: all ranks take as long as the slowest, as with collectives, and compute_ns tells them apart.
        hold: steps for which noise stays the same.
    """
    made, generator = factory.Campaign(), np.random.default_rng(seed)
    for number in range(cases):
        case = made.case(f"c{number}", group="g", workload="mpi.halo", nodes=2, ranks=4, ranks_per_node=2,
                         repeat=number, steps=400, warmup_steps=0)  # fmt: skip
        attempt = made.attempt(case, ["n1", "n2"], START_NS, START_NS + 9 * S)
        times = 10e6 * np.repeat(1 + 0.02 * generator.standard_normal((400 // hold, 4)), hold, axis=0)
        times[:, 3] *= np.where(generator.random(400) < share, slow, 1.0)
        for rank in range(4):
            took = np.max(times, axis=1) if waits else times[:, rank]
            columns = {"compute_ns": times[:, rank].astype("i8")} if waits else {}
            made.record(case, attempt, rank, "steps", step=np.arange(400), start_mono_ns=0,
                        step_time_ns=took.astype("i8"), **columns)  # fmt: skip
    return made


def found(made: factory.Campaign, folder: Path) -> tuple[Straggler, ...]:
    with load(made.write(folder / "r.h5")) as results:
        return stragglers.analyse(results)


@pytest.mark.parametrize("waits", [False, True], ids=["step time", "all wait for it"])
def test_a_slow_rank_and_its_node_are_named_with_what_they_cost(waits: bool, tmp_path: Path) -> None:
    node, rank = found(campaign(1.2, waits=waits), tmp_path)
    assert (node.who, rank.who, rank.label) == ("node n2", "rank 3 on n2", "g/n2/r0")
    assert (node.expected, rank.expected, rank.steps) == (0.5, 0.25, 400)
    assert rank.slowest > 0.99 and rank.p < 1e-9
    # 12 ms instead of the slowest of three around 10 ms
    assert rank.cost_s == pytest.approx(400 * 1.8e-3, rel=0.1)
    assert rank.cost_share == pytest.approx(0.15, abs=0.02)
    assert rank.column == ("compute_ns" if waits else "step_time_ns")


def test_equal_ranks_are_not_named(tmp_path: Path) -> None:
    for seed in range(10):
        assert found(campaign(seed=seed, cases=3), tmp_path) == ()


def test_noise_that_lasts_is_not_taken_for_many_independent_steps(tmp_path: Path) -> None:
    for seed in range(10):
        assert found(campaign(seed=seed, hold=100), tmp_path) == ()


def test_a_rank_that_is_slow_now_and_then_is_named_too(tmp_path: Path) -> None:
    (straggler, *_) = [x for x in found(campaign(1.5, share=0.4), tmp_path) if x.who.startswith("rank")]
    assert straggler.who == "rank 3 on n2" and 0.4 < straggler.slowest < 0.65


def test_what_costs_less_than_a_hundredth_is_not_named(tmp_path: Path) -> None:
    assert found(campaign(1.015), tmp_path) == ()


def test_ties_are_shared(tmp_path: Path) -> None:
    made = campaign()
    late = np.where(np.arange(400) % 2, 12_000_000, 10_000_000)
    made.samples["mpi.halo", "steps"]["step_time_ns"] = [*(np.full(400, 10_000_000) for _ in range(3)), late]
    rank = next(x for x in found(made, tmp_path) if x.who == "rank 3 on n2")
    assert rank.slowest == 0.5 + 0.5 / 4


def test_ranks_that_are_always_equal_are_not_named(tmp_path: Path) -> None:
    made = campaign()
    made.samples["mpi.halo", "steps"]["step_time_ns"] = [np.full(400, 10_000_000) for _ in range(4)]
    assert found(made, tmp_path) == ()


def test_a_node_is_told_over_all_cases_of_its_group(tmp_path: Path) -> None:
    node = found(campaign(1.2, cases=5), tmp_path)[0]
    assert (node.who, node.label, node.steps) == ("node n2", "5 cases", 2000)


def test_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stragglers.main([str(campaign(1.2).write(tmp_path / "r.h5"))]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[2].startswith(
        "g, g/n2/r0: rank 3 on n2 was the slowest in 100.0 % of 400 steps, by chance 25.0 %"
    )
    assert stragglers.main([str(campaign().write(tmp_path / "r.h5"))]) == 0
    assert "no rank and no node was the slowest" in capsys.readouterr().out
