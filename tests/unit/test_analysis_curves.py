"""Curves of collectives over sizes: repeats together, latency and bandwidth fitted, figures for gates, same bits."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import collective_figures, collectives, curves
from analysis.collectives import NoFigure, bus_factor
from analysis.curves import Curve
from analysis.results import load
from tests.unit import results_factory as factory
from tests.unit.results_tables import START_NS, S

SIZES = [1 << k for k in range(10, 25, 2)]
OPERATIONS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast", "reduce", "gather", "scatter",
    "send-receive", "barrier",
)  # fmt: skip


def campaign(
    operation: str = "all-reduce", repeats: int = 6, ranks: int = 4, sizes: Sequence[int] = SIZES, seed: int = 1,
    workload: str = "mpi.collectives", digests: Any = None, **values: Any,
) -> factory.Campaign:  # fmt: skip
    """20 us + S / 1 GB/s, 1 % of noise; rank 0 takes half the time, warm-up ten times as long.

    Args:
        digests: repeat -> digest that rank 0 records.
    """
    made, generator = factory.Campaign(), np.random.default_rng(seed)
    for repeat in range(repeats):
        case = made.case(f"c{repeat}", group="g", workload=workload, nodes=1, ranks=ranks, ranks_per_node=ranks,
                         repeat=repeat, steps=10, warmup_steps=2,
                         params={"operation": operation, "message_bytes": list(sizes)}, **values)  # fmt: skip
        attempt = made.attempt(case, ["n1"], START_NS, START_NS + S)
        for size in [0] if operation == "barrier" else sizes:
            times = (
                (20_000 + size)
                * (1 + 0.01 * generator.standard_normal(10))
                * np.where(np.arange(10) < 2, 10, 1)
            )
            for rank in range(ranks):
                made.record(case, attempt, rank, "collectives", step=np.arange(10), message_bytes=size,
                            elapsed_ns=(times / (2 if rank == 0 and ranks > 1 else 1)).astype("i8"))  # fmt: skip
        if digests is not None:
            made.event(case, 0, 0, "result", START_NS, "n1", name="digest_1024", value=digests(repeat))
    return made


def curve(made: factory.Campaign, folder: Path) -> Curve:
    with load(made.write(folder / "r.h5")) as results:
        (found,) = collectives.curves(results)
    return found


@pytest.mark.parametrize("operation", OPERATIONS[:-1])
def test_every_operation_has_a_curve_with_latency_and_bandwidth(operation: str, tmp_path: Path) -> None:
    found = curve(campaign(operation), tmp_path)
    assert (found.operation, found.why_no_fit, len(found.places)) == (operation, "", len(SIZES))
    assert (
        found.line is not None
        and found.line.bandwidth_bytes_per_s is not None
        and found.latency_s is not None
    )
    latency, bandwidth = found.latency_s.interval, found.line.bandwidth_bytes_per_s.interval
    assert latency is not None and bandwidth is not None
    assert (
        latency[0] < 20e-6 * 1.01
        and latency[1] > 20e-6 * 0.99
        and 0.97e9 < bandwidth[0] < bandwidth[1] < 1.03e9
    )
    last = found.places[-1]
    assert last.algorithm_bandwidth_bytes_per_s == pytest.approx(SIZES[-1] / last.median_s)
    assert last.bus_bandwidth_bytes_per_s == pytest.approx(
        SIZES[-1] / last.median_s * bus_factor(operation, 4)
    )


def test_a_barrier_has_a_latency_only(tmp_path: Path) -> None:
    found = curve(campaign("barrier"), tmp_path)
    assert found.latency_s is not None and found.latency_s.value == pytest.approx(20e-6, rel=0.02)
    assert (found.line, found.why_no_fit) == (None, "")
    assert [p.bus_bandwidth_bytes_per_s for p in found.places] == [None]
    assert "latency 20.0 µs (95 %: " in found.words


@pytest.mark.parametrize(
    "made, why",
    [
        (lambda: campaign(ranks=1), "one rank sends nothing"),
        (lambda: campaign(sizes=SIZES[:3]), "3 sizes: a fit needs at least 4"),
        (lambda: campaign(sizes=[0, 0]), "no size above zero that every repeat measured"),
    ],
    ids=["one rank", "few sizes", "no bytes"],
)
def test_what_cannot_be_fitted_says_why(made: Any, why: str, tmp_path: Path) -> None:
    if why.startswith("no size"):
        broken = campaign(sizes=[0])
        assert curve(broken, tmp_path).why_no_fit == why
    else:
        assert curve(made(), tmp_path).why_no_fit == why


def test_one_repeat_has_a_fit_without_an_interval_and_says_so(tmp_path: Path) -> None:
    found = curve(campaign(repeats=1), tmp_path)
    assert found.latency_s is not None and found.latency_s.interval is None
    assert found.notes == ("one repeat only: how it varies from run to run is not known",)


def test_failed_wrong_and_disturbed_repeats_are_left_out_by_name(tmp_path: Path) -> None:
    made = campaign(repeats=4)
    made.find("attempts", case_id="c0")["outcome"] = "failed"
    made.find("cases", case_id="c0")["outcome"] = "failed"
    made.check(made.tables["cases"][1], 0, 0, passed=False)
    made.add("faults", case_id="c2", fault_id="f")
    found = curve(made, tmp_path)
    assert found.left_out == (
        "g/n1/r0: did not complete (failed)", "g/n1/r1: its answer was wrong", "g/n1/r2: a fault was injected",
    )  # fmt: skip
    assert {len(p.times_s) for p in found.places} == {1}


def test_calls_that_were_not_made_and_constants_are_told(tmp_path: Path) -> None:
    made = campaign(repeats=2)
    columns = made.samples["mpi.collectives", "collectives"]
    here = [size[0] == 1024 for size in columns["message_bytes"]]
    columns["elapsed_ns"] = [
        np.full(10, 5000) if same else t for same, t in zip(here, columns["elapsed_ns"], strict=True)
    ]
    zero = columns["elapsed_ns"][-1].copy()
    zero[:] = np.where(np.arange(10) == 5, 0, zero)
    columns["elapsed_ns"][-4:] = [zero] * 4
    assert curve(made, tmp_path).notes == (
        "g/n1/r1: 1 iteration left out, a rank's sample is missing or not above zero",
        "1 KiB: all 2 repeats took the same time to the last digit, as no independent runs do: look at where it comes "
        "from",
    )


@pytest.mark.parametrize(
    "digests, seeds, words",
    [
        (lambda r: "d", lambda r: 1, "yes, over 6 repeats with the same input"),
        (lambda r: f"d{r}", lambda r: 1, "no: digest_1024 on rank 0 differs between g/n1/r0 and g/n1/r1"),
        (lambda r: f"d{r}", lambda r: r, "not known: each repeat has an input of its own"),
        (None, lambda r: 1, ""),
    ],
    ids=["same", "differ", "seeds differ", "not recorded"],
)
def test_bits_are_compared_over_repeats_with_the_same_input(
    digests: Any, seeds: Any, words: str, tmp_path: Path
) -> None:
    made = campaign(digests=digests)
    for row in made.tables["cases"]:
        row["seed"] = seeds(row["repeat"])
    assert curve(made, tmp_path).same_bits.startswith(words)


def test_figures_for_gates(tmp_path: Path) -> None:
    with load(campaign(repeats=1).write(tmp_path / "r.h5")) as results:
        case = results.cases[0]
        assert collectives.figure(results, case, "latency_s", {}) == pytest.approx([20e-6], rel=0.03)
        assert collectives.figure(results, case, "asymptotic_bandwidth_bytes_per_s", {}) == pytest.approx(
            [1e9], rel=0.03
        )
        one = collectives.figure(results, case, "bus_bandwidth_bytes_per_s", {"message_bytes": 1024})
        times_s = collectives.all_iterations(results, case)[1024][0]
        assert one == pytest.approx(1024 / times_s * 1.5)


@pytest.mark.parametrize(
    "metric, where, why",
    [
        ("latency_s", {"message_bytes": 1024}, "latency_s is fitted to all sizes; it cannot be chosen by"),
        ("bus_bandwidth_bytes_per_s", {"rank": 1}, "chosen by message_bytes only"),
        ("bus_bandwidth_bytes_per_s", {}, "it has samples at message_bytes = .* which no figure pools"),
        ("bus_bandwidth_bytes_per_s", {"message_bytes": 7}, "no sample is left"),
    ],
)
def test_figures_that_cannot_be_had_say_why(metric: str, where: Any, why: str, tmp_path: Path) -> None:
    with load(campaign(repeats=1).write(tmp_path / "r.h5")) as results, pytest.raises(NoFigure, match=why):
        collectives.figure(results, results.cases[0], metric, where)


def test_a_barrier_has_a_figure_of_latency_and_none_of_bandwidth(tmp_path: Path) -> None:
    with load(campaign("barrier", repeats=1).write(tmp_path / "r.h5")) as results:
        case = results.cases[0]
        assert len(collectives.figure(results, case, "latency_s", {})) == 8
        with pytest.raises(NoFigure, match="a barrier carries nothing"):
            collectives.figure(results, case, "bus_bandwidth_bytes_per_s", {})
        assert [m.bus_bandwidth_bytes_per_s for m in collectives.analyse(results)] == [None]


def test_sizes_that_do_not_show_a_latency_give_no_figure_of_it(tmp_path: Path) -> None:
    made = campaign(repeats=1, sizes=[1 << k for k in range(22, 27)])
    with (
        load(made.write(tmp_path / "r.h5")) as results,
        pytest.raises(NoFigure, match="smaller sizes would show it"),
    ):
        collectives.figure(results, results.cases[0], "latency_s", {})


def test_old_files_name_no_operation(tmp_path: Path) -> None:
    made = campaign(workload="torch.allreduce")
    for row in made.tables["cases"]:
        row["params"] = "{}"
    assert curve(made, tmp_path).operation == "all-reduce"


def test_curves_are_told_in_words_and_in_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(campaign().write(tmp_path / "r.h5"))
    assert collectives.main([path]) == 0
    told = capsys.readouterr().out
    assert "g: mpi.collectives all-reduce, 4 ranks on 1 node [emulated]\n1 KiB to 16 MiB: latency 20." in told
    assert collectives.main([path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["curves"][0]["line"]["refused"] == ""


# ---- what several say alike; what tells them apart in figures ----


def several(folder: Path, *of: tuple[str, str, int, int]) -> tuple[Curve, ...]:
    """Curves of three sizes: group, workload, nodes, repeats."""
    made = factory.Campaign()
    for group, workload, nodes, repeats in of:
        for repeat in range(repeats):
            case = made.case(f"{group}{workload}{nodes}{repeat}", group=group, workload=workload, nodes=nodes,
                             ranks=nodes, repeat=repeat, steps=4, warmup_steps=0,
                             params={"operation": "all-reduce"})  # fmt: skip
            attempt = made.attempt(case, [f"n{n}" for n in range(nodes)], START_NS, START_NS + S)
            for size in SIZES[:3]:
                for rank in range(nodes):
                    made.record(case, attempt, rank, "collectives", step=range(4), message_bytes=size,
                                elapsed_ns=[size * nodes + 1000 * repeat + s for s in range(4)])  # fmt: skip
    with load(made.write(folder / "r.h5")) as results:
        return collectives.curves(results)


T, M = "torch.collectives", "mpi.collectives"


def test_what_several_curves_say_alike_is_said_once(tmp_path: Path) -> None:
    found = several(tmp_path, ("a", T, 2, 1), ("a", T, 4, 1), ("b", M, 2, 2))
    assert curves.told(found) == (
        [
            "all 3 series: no latency and bandwidth: 3 sizes: a fit needs at least 4",
            "2 of 3 series (group a): note: one repeat only: how it varies from run to run is not known",
        ],
        [],
    )
    assert curves.told(found[:1]) == ([], [tuple(found[0].words.split("\n"))])


def test_curves_of_one_operation_are_told_apart(tmp_path: Path) -> None:
    found = several(tmp_path, ("a", T, 2, 1), ("b", M, 2, 1), ("b", M, 4, 1), ("c", M, 4, 1))
    assert collective_figures.names(found) == [
        "torch.collectives, 2 nodes", "mpi.collectives, 2 nodes", "mpi.collectives, 4 nodes, b",
        "mpi.collectives, 4 nodes, c",
    ]  # fmt: skip
    for drawn in (collective_figures.bandwidth(found, "x"), collective_figures.time(found, "x")):
        assert re.findall(r'class="l (c\d[^"]*)" d="M[^"]*L?[^h"]*"', drawn)[:4] == ["c1", "c2", "c3", "c4"]
        assert re.findall(r"key\">([^<]*)<", drawn)[::-1] != []
        assert {name for name in collective_figures.names(found) if f">{name}<" in drawn} == set(
            collective_figures.names(found)
        )


def test_a_ninth_curve_has_a_dash(tmp_path: Path) -> None:
    found = several(tmp_path, *((f"g{n}", T, 2, 1) for n in range(10)))
    drawn = collective_figures.time(found, "x")
    assert [css for css in ("c1", "c8", "c1 dash", "c2 dash", "c3 dash") if f'class="l {css}"' in drawn] == [
        "c1", "c8", "c1 dash", "c2 dash",
    ]  # fmt: skip
