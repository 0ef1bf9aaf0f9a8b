"""`harness compare`: failures and wrong answers of repeats, compared as rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy.stats import fisher_exact

from analysis.compare import Comparison, compare
from analysis.compare_failures import fisher
from analysis.results import load
from tests.unit import results_factory as factory
from tests.unit.judging_factory import campaign

REPEATS = 14


def _made(
    seed: int, crashed: int, wrong: int, nodes: tuple[int, ...] = (2,), of_others: int = 0
) -> factory.Campaign:
    """``of_others``: repeats of the second setting that crashed, in the file of seed 1; 1 in the other."""

    def change(made: factory.Campaign) -> None:
        others = (of_others if seed else 1) if len(nodes) > 1 else 0
        for at in (*range(crashed), *range(REPEATS, REPEATS + others)):
            made.tables["cases"][at].update(outcome="failed", reason="exit code 3")
            made.tables["attempts"][at]["outcome"] = "failed"
        for at in range(crashed, crashed + wrong):
            made.tables["checks"][at]["passed"] = False

    return campaign(seed=seed, repeats=REPEATS, nodes=nodes, change=change)


def _compared(folder: Path, a: tuple[int, int], b: tuple[int, int], **more: Any) -> Comparison:
    """Each side as its repeats that crashed, and those that gave a wrong answer."""
    paths = [_made(seed, *side, **more).write(folder / f"{seed}.h5") for seed, side in enumerate((a, b))]
    with load(paths[0]) as one, load(paths[1]) as two:
        return compare(one, two)


def _failures(found: Comparison) -> list[tuple[str, str]]:
    return [(x.status, x.why.split(": ", 1)[0]) for x in found.lines() if not x.metric]


def test_half_of_b_crashes_and_one_flaky_repeat_of_a_does_not_hide_it(tmp_path: Path) -> None:
    found = _compared(tmp_path, (1, 0), (7, 0))
    said = "failures 1 of 14 in A, 7 of 14 in B, by chance with p = 0.016"
    assert (_failures(found), found.exit_status()) == ([("failed in B", said)], 1)


def test_more_failures_that_chance_could_explain_are_told_and_are_no_pass(tmp_path: Path) -> None:
    found = _compared(tmp_path, (1, 0), (3, 0))
    said = "failures 1 of 14 in A, 3 of 14 in B, by chance with p = 0.30, so not to be told apart"
    assert (_failures(found), found.exit_status()) == ([("more failed in B", said)], 3)


def test_wrong_answers_where_a_had_none_are_worse_whatever_else_failed_in_a(tmp_path: Path) -> None:
    found = _compared(tmp_path, (3, 0), (0, 1))
    said = "wrong answers 0 of 14 in A, 1 of 14 in B"
    assert (_failures(found), found.exit_status()) == ([("failed in B", said)], 1)


@pytest.mark.parametrize("a, b", [((2, 0), (2, 0)), ((5, 0), (1, 0)), ((0, 4), (0, 2)), ((0, 0), (0, 0))])
def test_as_many_or_fewer_are_no_line(a: tuple[int, int], b: tuple[int, int], tmp_path: Path) -> None:
    found = _compared(tmp_path, a, b)
    assert (_failures(found), found.exit_status()) == ([], 0)


def test_rates_of_many_series_are_one_family(tmp_path: Path) -> None:
    one, other = (_compared(tmp_path, (1, 0), (6, 0), nodes=(1, 2), of_others=n) for n in (1, 2))
    assert [status for status, _ in _failures(one)] == ["failed in B"]
    assert [status for status, _ in _failures(other)] == ["more failed in B"] * 2  # 0.038, as one of two


def test_fisher_is_scipys() -> None:
    for k_a, n_a, k_b, n_b in [(1, 14, 7, 14), (2, 5, 5, 5), (3, 9, 3, 200), (40, 300, 60, 300)]:
        theirs = fisher_exact([[k_b, n_b - k_b], [k_a, n_a - k_a]], alternative="greater").pvalue
        assert fisher(k_a, n_a, k_b, n_b) == pytest.approx(theirs, rel=1e-9)
