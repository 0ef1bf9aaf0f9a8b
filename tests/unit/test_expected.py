"""Expected figures of collectives: how they are held against what repeats measured, and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import collectives, expected, report
from analysis.expected import Compared, Findings
from analysis.merge import merge
from analysis.results import load
from analysis.verdict import judge
from harness.model.verdict import Verdict
from harness.store import StoreError
from tests.unit import results_factory as factory
from tests.unit.results_tables import START_NS, S

SIZES = [1 << k for k in range(10, 25, 2)]
ALL_REDUCE = {"workload": "torch.collectives", "operation": "all-reduce"}
MIB = {**ALL_REDUCE, "message_bytes": 1 << 20}
BUS = 1.5 * (1 << 20) / (20e-6 + (1 << 20) / 1e9)  # of MIB, on four ranks


def campaign(
    entries: Any, repeats: int = 6, operation: str = "all-reduce", factors: Any = (), **attributes: Any
) -> factory.Campaign:
    """20 us + S / 1 GB/s on two nodes of two ranks; repeat r takes ``factors[r]`` times as long."""
    made = factory.Campaign()
    given = entries if isinstance(entries, dict) else {"": entries}
    made.attributes.update({"emulated": False, "expected": json.dumps(given), **attributes})
    for repeat in range(repeats):
        params = {"operation": operation, "message_bytes": SIZES, "dtype": "float32"}
        case = made.case(f"c{repeat}", group="g", workload="torch.collectives", nodes=2, ranks=4, ranks_per_node=2,
                         repeat=repeat, steps=10, warmup_steps=2, params=params)  # fmt: skip
        attempt = made.attempt(case, ["n1", "n2"], START_NS, START_NS + S)
        factor = factors[repeat] if len(factors) else 1.0
        for size in [0] if operation == "barrier" else SIZES:
            for rank in range(4):
                made.record(case, attempt, rank, "collectives", step=np.arange(10), message_bytes=size,
                            elapsed_ns=round((20_000 + size) * factor))  # fmt: skip
        made.check(case, 0, 0)
    return made


def found(made: factory.Campaign, folder: Path) -> Findings:
    with load(made.write(folder / "r.h5")) as results:
        return expected.of(results)


def only(made: factory.Campaign, folder: Path) -> Compared:
    (compared,) = found(made, folder).compared
    return compared


@pytest.mark.parametrize(
    "figure, verdict",
    [
        ({"bus_bandwidth_bytes_per_s": {"at_least": BUS * 0.99}}, Verdict.PASS),
        ({"bus_bandwidth_bytes_per_s": {"at_least": BUS * 1.01}}, Verdict.FAIL),
        ({"bus_bandwidth_bytes_per_s": BUS * 1.1, "within": "10%"}, Verdict.PASS),
        ({"bus_bandwidth_bytes_per_s": BUS * 1.2, "within": "10%"}, Verdict.FAIL),
        (
            {"bus_bandwidth_bytes_per_s": BUS / 2, "within": "10%"},
            Verdict.PASS,
        ),  # more than expected is no fault
        ({"algorithm_bandwidth_bytes_per_s": {"at_least": BUS / 1.5 * 1.01}}, Verdict.FAIL),
        ({"algorithm_bandwidth_bytes_per_s": {"at_most": BUS / 1.5 * 1.01}}, Verdict.PASS),
        ({"time_s": {"at_most": 1.07e-3}}, Verdict.PASS),
        ({"time_s": 0.95e-3, "within": "10%"}, Verdict.FAIL),
        ({"time_s": 0.98e-3, "within": "10%"}, Verdict.PASS),
        ({"time_s": {"at_least": 1e-3, "at_most": 1.06e-3}}, Verdict.FAIL),
    ],
)
def test_the_median_of_the_repeats_is_held_against_the_limit(
    figure: dict[str, Any], verdict: Verdict, tmp_path: Path
) -> None:
    assert only(campaign([{**MIB, **figure}]), tmp_path).verdict is verdict


@pytest.mark.parametrize(
    "figure, verdict",
    [
        ({"latency_s": {"at_most": 21e-6}}, Verdict.PASS),
        ({"latency_s": {"at_most": 19e-6}}, Verdict.FAIL),
        ({"asymptotic_bandwidth_bytes_per_s": {"at_least": 0.98e9}}, Verdict.PASS),
        ({"asymptotic_bandwidth_bytes_per_s": 1.2e9, "within": "10%"}, Verdict.FAIL),
    ],
)
def test_what_is_fitted_to_all_sizes_can_be_expected(
    figure: dict[str, Any], verdict: Verdict, tmp_path: Path
) -> None:
    assert only(campaign([{**ALL_REDUCE, **figure}]), tmp_path).verdict is verdict


@pytest.mark.parametrize("figure", ["time_s", "latency_s"])
def test_a_barrier_has_a_time(figure: str, tmp_path: Path) -> None:
    entry = {**ALL_REDUCE, "operation": "barrier", figure: {"at_most": 21e-6}}
    compared = only(campaign([entry], operation="barrier"), tmp_path)
    assert (compared.verdict, compared.expected, compared.measured) == (
        Verdict.PASS, pytest.approx(21e-6 if figure == "latency_s" else 21e3),
        pytest.approx(20e-6 if figure == "latency_s" else 20e3),
    )  # fmt: skip


def test_share_and_interval_are_told(tmp_path: Path) -> None:
    factors = [0.97, 0.98, 0.99, 1.01, 1.02, 1.03, 1.0]
    entry = {**MIB, "nodes": 2, "ranks_per_node": 2, "dtype": "float32", "time_s": {"at_most": 1e-3}}
    compared = only(campaign([entry], repeats=7, factors=factors), tmp_path)
    assert compared.share == pytest.approx(1.068576, rel=1e-6)
    assert compared.interval is not None
    assert compared.share_interval == pytest.approx([v / 1e6 for v in compared.interval])
    assert compared.words == (
        "expected time of all-reduce at 1 MiB (torch.collectives, 2 nodes, 2 ranks a node, float32): "
        "1.07 ms (95 %: 1.04 ms to 1.09 ms) over 7 repeats, 106.9 % of 1.00 ms, limit at most 1.00 ms: does not hold"
    )


@pytest.mark.parametrize(
    "factors, verdict",
    [
        ((0.97, 0.98, 0.99, 1.01, 1.02, 1.03, 1.0), Verdict.WITHIN_NOISE),
        ((1.0, 1.0, 1.0, 1.001, 1.001, 1.001, 1.0), Verdict.FAIL),
        ((0.9, 1.0, 1.1), Verdict.WITHIN_NOISE),  # too few for an interval: their range
        ((1.0, 1.1), Verdict.FAIL),
        ((1.0,), Verdict.FAIL),
    ],
)
def test_a_miss_that_the_repeats_cannot_tell_from_the_limit_is_within_noise(
    factors: tuple[float, ...], verdict: Verdict, tmp_path: Path
) -> None:
    entry = {**MIB, "bus_bandwidth_bytes_per_s": {"at_least": BUS * 1.005}}
    made = campaign([entry], repeats=len(factors), factors=factors)
    assert only(made, tmp_path).verdict is verdict
    with load(made.write(tmp_path / "r.h5")) as results:
        assert {v.verdict for v in judge(results)} == {verdict}


def test_every_case_of_the_setting_has_the_verdict_in_its_evidence(tmp_path: Path) -> None:
    made = campaign([{**MIB, "bus_bandwidth_bytes_per_s": 4e9, "within": "10%"}], repeats=2)
    with load(made.write(tmp_path / "r.h5")) as results:
        first, second = judge(results)
    assert first.verdict is second.verdict is Verdict.FAIL
    assert first.why == (
        "expected bus bandwidth of all-reduce at 1 MiB (torch.collectives): 1.47 GB/s (range: 1.47 GB/s to 1.47 GB/s) "
        "over 2 repeats, 36.8 % of 4.00 GB/s, limit at least 3.60 GB/s: does not hold"
    )


@pytest.mark.parametrize(
    "attributes, verdict, end",
    [
        ({"emulated": True}, None, "would not hold (emulated: for information)"),
        ({"oversubscribed": True}, None, "would not hold (more ranks than cores: for information)"),
        ({"emulated": "?"}, Verdict.UNKNOWN, "not known whether emulated, so it judges nothing"),
    ],
)
def test_where_figures_judge_nothing_they_are_shown(
    attributes: dict[str, Any], verdict: Verdict | None, end: str, tmp_path: Path
) -> None:
    compared = only(campaign([{**MIB, "time_s": {"at_most": 1e-3}}], **attributes), tmp_path)
    assert (compared.verdict, compared.says) == (verdict, end)


@pytest.mark.parametrize(
    "other",
    [
        {"nodes": 4}, {"ranks_per_node": 8}, {"dtype": "bfloat16"}, {"message_bytes": 77},
        {"workload": "mpi.collectives"}, {"operation": "broadcast"},
    ],
)  # fmt: skip
def test_what_no_case_measured_is_named_and_judges_nothing(other: dict[str, Any], tmp_path: Path) -> None:
    entry = {**MIB, "time_s": {"at_most": 1e-3}, **other}
    said = found(campaign([entry]), tmp_path)
    assert said.compared == ()
    assert said.missing.startswith("1 expected figure was measured by no case: time of ")


def test_a_partition_has_expected_figures_of_its_own(tmp_path: Path) -> None:
    slow, fast = ({**MIB, "time_s": {"at_most": t}} for t in (2e-3, 1e-3))
    made = campaign({"": [slow], "arm": [fast]}, repeats=2)
    made.tables["cases"][1]["partition"] = "arm"
    assert [c.verdict for c in found(made, tmp_path).compared] == [Verdict.PASS, Verdict.FAIL]


def test_a_setting_without_a_usable_repeat_is_unknown(tmp_path: Path) -> None:
    made = campaign([{**MIB, "time_s": {"at_most": 1e-3}}], repeats=1)
    made.tables["checks"][0]["passed"] = False
    compared = only(made, tmp_path)
    assert (compared.verdict, compared.measured, compared.says) == (
        Verdict.UNKNOWN, None, "cannot be judged: no repeat can be used",
    )  # fmt: skip


def test_disturbed_cases_are_left_out(tmp_path: Path) -> None:
    made = campaign([{**MIB, "time_s": {"at_most": 1e-3}}], repeats=1)
    made.tables["cases"][0]["faults"] = '[{"kind": "rank.slow", "expect": "unharmed"}]'
    assert found(made, tmp_path).compared == ()


def test_merged_files_that_expect_different_figures_judge_nothing(tmp_path: Path) -> None:
    paths = []
    for number, limit in enumerate((1e-3, 2e-3)):
        made = campaign([{**MIB, "time_s": {"at_most": limit}}], repeats=1, run_id=f"run-{number}")
        for table in made.tables.values():
            for row in table:
                if row.get("case_id"):
                    row["case_id"] += f"-{number}"
        paths.append(made.write(tmp_path / f"{number}.h5"))
    merge(tmp_path / "m.h5", paths)
    with load(tmp_path / "m.h5") as results:
        assert {(c.verdict, c.says) for c in expected.of(results).compared} == {
            (Verdict.UNKNOWN, "merged files expect different figures, so it judges nothing")
        }


@pytest.mark.parametrize(
    "text", ["[", '{"": [{}, 3]}', '{"": [{"time_s": 1}]}', '{"": [{"time_s": {}}]}', "[1]"]
)
def test_a_damaged_attribute_is_named(text: str, tmp_path: Path) -> None:
    made = campaign([], repeats=1)
    made.attributes["expected"] = text
    with pytest.raises(StoreError, match="its attribute expected is damaged"):
        found(made, tmp_path)


def test_the_command_shows_measured_beside_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        {**MIB, "bus_bandwidth_bytes_per_s": 1.6e9, "within": "10%"},
        {**MIB, "nodes": 9, "time_s": {"at_most": 1}},
    ]
    path = str(campaign(entries).write(tmp_path / "r.h5"))
    assert collectives.main([path]) == 0
    said = capsys.readouterr().out
    assert (
        "g/n2    bus bandwidth of all-reduce at 1 MiB (torch.collectives)  1.60 GB/s  at least 1.44 GB/s  1.47 GB/s"
        in said
    )
    assert (
        "1 expected figure was measured by no case: time of all-reduce at 1 MiB (torch.collectives, 9 nodes)"
        in said
    )
    assert collectives.main([path, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [c["share"] for c in data["expected"]] == [pytest.approx(BUS / 1.6e9)]
    assert data["expected_not_measured"] == ["time of all-reduce at 1 MiB (torch.collectives, 9 nodes)"]


def test_the_report_shows_and_draws_them(tmp_path: Path) -> None:
    entries = [
        {**MIB, "bus_bandwidth_bytes_per_s": 1.6e9, "within": "10%", "time_s": {"at_most": 1e-3}},
        {
            **ALL_REDUCE,
            "latency_s": {"at_most": 30e-6},
            "asymptotic_bandwidth_bytes_per_s": {"at_least": 1e9},
        },
        {**ALL_REDUCE, "nodes": 9, "latency_s": {"at_most": 30e-6}},
    ]
    page = report.write(campaign(entries).write(tmp_path / "r.h5")).report_html.read_text(encoding="utf-8")
    assert "bus bandwidth of all-reduce at 1 MiB" in page
    assert (
        "1 expected figure was measured by no case: latency of all-reduce (torch.collectives, 9 nodes)"
        in page
    )
    for words in (
        "expected 1.6 GB/s",
        "expected 1 ms",
        "expected latency 30 µs",
        "expected for large sizes 1.5 GB/s",
    ):
        assert f">{words}<" in page
