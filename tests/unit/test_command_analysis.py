"""How a user's program is judged and shown, from a results file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis import gates, measured, scaling, text
from analysis.keyfigure import of_case
from analysis.report import html
from analysis.results import CampaignResults, load
from analysis.verdict import judge
from harness.model.verdict import Verdict
from tests.unit import results_factory as factory
from tests.unit.results_tables import S

METRIC = {"name": "latency_us", "unit": "us", "coordinates": {"message_bytes": "B"}}
COMMAND = {"run": ["prog", "--x"], "script": None, "world": "mpi", "metrics": [METRIC]}
FACTS = {
    "latency_us": {"unit": "us", "type": "f8", "direction": "lower", "definition": "half a round trip"},
    "score": {"unit": "1", "type": "f8", "direction": "higher", "definition": ""},
}


def _case(campaign: factory.Campaign, nodes: int = 1, **values: Any) -> tuple[factory.Row, factory.Row]:
    """A case of workload command that completed, with its exit code checked, and its attempt."""
    given = {
        "group": "osu",
        "workload": "command",
        "command": json.dumps(COMMAND),
        "steps": 1,
        "warmup_steps": 0,
    }
    case = campaign.case(f"c{len(campaign.tables['cases'])}", nodes=nodes, **{**given, **values})
    attempt = campaign.attempt(case, [f"n{i}" for i in range(nodes)], factory.START_NS, factory.START_NS + S)
    for rank in range(nodes):
        campaign.record(case, attempt, rank, "program", exit_code=0, program_time_ns=(8 // nodes + rank) * S)
        campaign.check(case, 0, rank, "exit code")
    return case, attempt


def _campaign(**attributes: Any) -> factory.Campaign:
    campaign = factory.Campaign(facts=dict(FACTS))
    campaign.attributes.update({"emulated": False, **attributes})
    return campaign


def _load(campaign: factory.Campaign, folder: Path) -> CampaignResults:
    return load(campaign.write(folder / "r.h5"))


def test_each_metric_is_measured_at_each_of_its_coordinates(tmp_path: Path) -> None:
    campaign = _campaign()
    case, attempt = _case(campaign)
    campaign.record(
        case, attempt, 0, "latency_us", message_bytes=[16, 8, 16, 16], latency_us=[3.0, 1.0, 2.0, 7.0]
    )
    campaign.record(case, attempt, 0, "score", step=[0, 0], score=[5.0, 6.0])
    with _load(campaign, tmp_path) as results:
        found = measured.of_case(results, results.cases[0])
        figure = of_case(results, results.cases[0])
    assert [(m.name, m.place, m.values.median, m.values.low, m.values.high, m.values.n) for m in found] == [
        ("latency_us", (("message_bytes", 8.0, "B"),), 1.0, 1.0, 1.0, 1),
        ("latency_us", (("message_bytes", 16.0, "B"),), 3.0, 2.0, 7.0, 3),
        ("score", (), 5.5, 5.0, 6.0, 2),
    ]
    assert (found[0].unit, found[0].direction, found[0].definition) == ("us", "lower", "half a round trip")
    assert figure == "latency_us 3.00 us, message_bytes = 16 B, n=3"


def test_a_program_without_figures_is_told_by_its_time(tmp_path: Path) -> None:
    campaign = _campaign()
    _case(campaign, nodes=2)
    with _load(campaign, tmp_path) as results:
        assert of_case(results, results.cases[0]) == "ran 5.00 s"


def test_two_groups_may_have_columns_of_one_name_and_other_units(tmp_path: Path) -> None:
    campaign = _campaign()
    for group, value in (("one", 1.0), ("two", 2.0)):
        case, attempt = _case(campaign, group=group)
        campaign.record(case, attempt, 0, "score", score=[value])
    with _load(campaign, tmp_path) as results:
        assert [measured.of_case(results, case)[0].values.median for case in results.cases] == [1.0, 2.0]
        assert {w for w, _ in results.sample_tables} == {"command.one", "command.two"}


def test_a_case_passes_only_if_every_criterion_holds(tmp_path: Path) -> None:
    campaign = _campaign()
    case, _ = _case(campaign)
    campaign.check(
        case, 0, 0, "output 'done'", passed=False, expected="a line like 'done'", observed="none of 3 lines"
    )
    _case(campaign, repeat=1)
    with _load(campaign, tmp_path) as results:
        bad, good = judge(results)
    assert (bad.verdict, good.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert bad.why == (
        "check \"output 'done'\" failed on rank 0: expected a line like 'done', observed none of 3 lines"
    )


def test_a_gate_on_a_programs_own_metric_judges_its_last_attempt(tmp_path: Path) -> None:
    campaign = _campaign()
    gate = {"metric": "score", "statistic": "min", "minimum": 4.0, "maximum": None, "where": {}}
    case, attempt = _case(campaign, gates=[gate])
    attempt["outcome"] = "node_lost"
    again = campaign.attempt(case, ["n0"], factory.START_NS + 2 * S, factory.START_NS + 3 * S)
    campaign.record(case, attempt, 0, "score", score=[1.0])
    campaign.record(case, again, 0, "score", score=[5.0])
    with _load(campaign, tmp_path) as results:
        result = gates.check(results, results.cases[0], gate)
    assert result.words == "gate min score: 5 over 1 sample, limit at least 4: holds"


@pytest.mark.parametrize(
    "unit", ["s", "us", "MB/s", "GFLOP/s", "Gflops", "GB/s", "tokens/s", "steps / s", "%", "W"]
)
def test_figures_of_the_machine_are_known_by_their_unit(unit: str) -> None:
    assert gates.is_performance(unit)


@pytest.mark.parametrize("unit", ["1", "", "K", "m", "residuals", "kJ/mol", "m/s2", "cells"])
def test_figures_of_the_answer_are_judged_everywhere(unit: str) -> None:
    assert not gates.is_performance(unit)


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1234.5, "MB/s", "1234 MB/s"),
        (0.00056, "TFLOP/s", "0.00056 TFLOP/s"),
        (12.3456, "us", "12.3 us"),
        (2.5e9, "B/s", "2.50 GB/s"),
        (1.5e7, "cells", "1.5e+07 cells"),
        (float("nan"), "us", "unknown"),
    ],
)
def test_a_unit_that_may_have_a_prefix_gets_none(value: float, unit: str, words: str) -> None:
    assert text.quantity(value, unit) == words


def test_a_program_that_says_nothing_of_steps_scales_by_its_time(tmp_path: Path) -> None:
    campaign = _campaign()
    for nodes in (1, 2):
        _case(campaign, nodes=nodes, scaling_mode="strong", scaling_base=1)
    with _load(campaign, tmp_path) as results:
        (series,) = scaling.analyse(results)
    assert [(p.nodes, p.median_s, p.efficiency) for p in series.points] == [(1, 8.0, 1.0), (2, 5.0, 0.8)]


def test_the_report_names_the_program_and_its_figures(tmp_path: Path) -> None:
    campaign = _campaign()
    case, attempt = _case(campaign)
    campaign.record(case, attempt, 0, "latency_us", message_bytes=[8], latency_us=[1.5])
    with _load(campaign, tmp_path) as results:
        page = html(results, judge(results))
    for words in (
        "prog --x",
        "Figures of the program",
        "half a round trip",
        "message_bytes = 8 B",
        "1.50 us",
    ):
        assert words in page
