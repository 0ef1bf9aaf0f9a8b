"""Bandwidths of collectives, from elapsed times that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis import collectives, keyfigure
from analysis.collectives import Measurement, bus_factor
from analysis.results import load
from analysis.series import Summary
from tests.unit import results_factory as factory
from tests.unit.results_tables import S


def one_case(ranks: int) -> factory.Campaign:
    """4000 bytes; warm-up 1 step; then rank 0 takes 1 us and the last rank 2, 4 and 8 us."""
    campaign = factory.Campaign()
    case = campaign.case(
        "c",
        group="g",
        workload="torch.allreduce",
        nodes=1,
        ranks=ranks,
        ranks_per_node=ranks,
        steps=4,
        warmup_steps=1,
    )
    attempt = campaign.attempt(case, ["n1"], factory.START_NS, factory.START_NS + S)
    for rank in range(ranks):
        times = [99_000, 2000, 4000, 8000] if rank == ranks - 1 else [99_000, 1000, 1000, 1000]
        campaign.record(
            case, attempt, rank, "collectives", step=[0, 1, 2, 3], message_bytes=4000, elapsed_ns=times
        )
    return campaign


def measured(campaign: factory.Campaign, folder: Path) -> tuple[Measurement, ...]:
    with load(campaign.write(folder / "r.h5")) as results:
        return collectives.analyse(results)


def test_an_iteration_takes_as_long_as_its_slowest_rank(tmp_path: Path) -> None:
    assert measured(one_case(4), tmp_path) == (
        Measurement(
            "c", "g/n1/r0", "g", 1, 4, 0, "all-reduce", 4000, Summary(4e-6, 2e-6, 8e-6, 3),
            Summary(1e9, 0.5e9, 2e9, 3), Summary(1.5e9, 0.75e9, 3e9, 3), 0,
        ),
    )  # fmt: skip


def test_one_rank_sends_nothing_and_has_a_time_but_no_bandwidth(tmp_path: Path) -> None:
    found = measured(one_case(1), tmp_path)
    assert found == (
        Measurement(
            "c", "g/n1/r0", "g", 1, 1, 0, "all-reduce", 4000, Summary(4e-6, 2e-6, 8e-6, 3), None, None, 0
        ),
    )


def test_the_words_of_one_rank_hold_no_bandwidth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(one_case(1).write(tmp_path / "r.h5"))
    assert collectives.main([path]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "g/n1/r0", "all-reduce", "1", "1", "3.91", "KiB", "4.00", "µs", "-", "-", "nothing", "is", "sent", "3",
    ]  # fmt: skip
    with load(path) as results:
        figure = keyfigure.of_case(results, results.cases[0])
    assert figure == "one rank: nothing is sent; 4.00 µs a call at 3.91 KiB, n=3"


def test_an_iteration_that_a_rank_did_not_report_is_left_out_and_counted(tmp_path: Path) -> None:
    campaign = one_case(2)
    columns = campaign.samples["torch.allreduce", "collectives"]
    for name, arrays in columns.items():
        columns[name] = [arrays[0], arrays[1][:3]]
    (found,) = measured(campaign, tmp_path)
    assert (found.time_s.n, found.incomplete) == (2, 1)


@pytest.mark.parametrize(
    "operation, factor",
    [("all-reduce", 1.5), ("reduce-scatter", 0.75), ("all-gather", 0.75), ("all-to-all", 0.75), ("gather", 0.75),
     ("scatter", 0.75), ("broadcast", 1.0), ("reduce", 1.0), ("send-receive", 1.0)],
)  # fmt: skip
def test_bus_factors_are_those_of_metrics_md(operation: str, factor: float) -> None:
    assert (bus_factor(operation, 4), bus_factor(operation, 1)) == (factor, 0.0)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="no bus factor for 'sum'"):
        bus_factor("sum", 2)


def test_words_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(one_case(4).write(tmp_path / "r.h5"))
    assert collectives.main([path]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "g/n1/r0", "all-reduce", "1", "4", "3.91", "KiB", "4.00", "µs", "1.00", "GB/s", "1.50", "GB/s", "500", "MB/s",
        "to", "2.00", "GB/s", "3",
    ]  # fmt: skip
    assert collectives.main([path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measurements"][0]["time_s"]["median"] == 4e-6


def test_no_collectives_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collectives.main([str(factory.small().write(tmp_path / "r.h5"))]) == 0
    assert capsys.readouterr().out == "no collectives: no completed case recorded a table `collectives`\n"
