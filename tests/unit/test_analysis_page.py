"""What the page tells beside verdicts, what it leaves out when there is too much, and its figures, on known data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import (
    casepage,
    counters,
    figures,
    heatmap,
    page,
    placepage,
    recoveries,
    recovery,
    report,
    svg,
    timelines,
)
from analysis.results import load
from analysis.verdict import judge
from harness.model.case import CACHED
from harness.model.design import Comparison, Lot, Question
from harness.model.event import COMPARISON_PLANNED, LOT_PLANNED, REPEATS_WEIGHED
from tests.unit import recovery_factory
from tests.unit import results_factory as factory
from tests.unit.results_tables import FACTS


def told(campaign: factory.Campaign, folder: Path) -> dict[str, Any]:
    """What the template is given."""
    with load(campaign.write(folder / "r.h5")) as results:
        return page.contents(results, judge(results))


def html(campaign: factory.Campaign, folder: Path) -> str:
    """The page."""
    return report.write(campaign.write(folder / "r.h5")).report_html.read_text(encoding="utf-8")


def real(campaign: factory.Campaign) -> factory.Campaign:
    """The same from a real cluster, whose figures judge."""
    campaign.attributes.update(emulated=False, site_kind="production")
    return campaign


# --- summary -------------------------------------------------------------------------------------------------


def test_a_campaign_that_passes_has_nothing_to_look_at(tmp_path: Path) -> None:
    found = told(factory.quickstart(repeats=1), tmp_path)
    assert (found["attention"], found["summary"]["cases"]) == ([], [])
    assert "Needs a look" not in html(factory.quickstart(repeats=1), tmp_path)


def test_cases_that_do_not_pass_are_named_above_everything(tmp_path: Path) -> None:
    campaign = factory.quickstart(repeats=1)
    campaign.find("checks", case_id="train-r0", rank=1).update(passed=False)
    source = html(campaign, tmp_path)
    number = [c["case_id"] for c in campaign.tables["cases"]].index("train-r0")
    head = source[: source.index('id="cases"')]
    assert f'<a href="#case-{number}"><bdi>train/n2/r0</bdi></a>' in head


def test_a_slow_node_is_named(tmp_path: Path) -> None:
    found = told(slow_node(real(factory.quickstart())), tmp_path)["attention"]
    assert found and {css for css, _, _ in found} == {"unknown"}
    assert all("node n4" in words and anchor in ("stability", "nodes") for _, words, anchor in found)


def test_a_case_that_drifts_is_told_with_what_to_try_and_drawn(tmp_path: Path) -> None:
    campaign = factory.Campaign()
    for repeat in range(2):
        case = campaign.case(f"long-r{repeat}", group="long", repeat=repeat, steps=1200)
        attempt = campaign.attempt(case, ["n1"], factory.START_NS, factory.START_NS + 9 * factory.S)
        noise = np.random.default_rng(repeat).standard_normal(1200)
        times = 1e6 * (1 + 0.01 * noise + (0.4 * np.arange(1200) / 1200 if repeat else 0))
        steps = {"step": np.arange(1200), "start_mono_ns": 0, "step_time_ns": times.astype("i8")}
        campaign.record(case, attempt, 0, "steps", **steps)
    found = told(real(campaign), tmp_path)
    (one,) = found["stability"]["cases"]
    assert (one["c"].case_id, one["anchor"], found["stability"]["steady"]) == ("long-r1", "case-1", 1)
    assert one["figure"].startswith("<svg") and len(one["figure"]) < 20_000
    source = html(campaign, tmp_path)
    assert "step time drifts by" in source and "Try: " in source


def test_an_emulated_node_is_never_called_slow(tmp_path: Path) -> None:
    assert told(slow_node(factory.quickstart()), tmp_path)["attention"] == []


def slow_node(campaign: factory.Campaign) -> factory.Campaign:
    """n4 computes 17 % longer, in everything that records how long it computes."""
    held, slow = campaign.samples["mpi.halo", "steps"], campaign.node("n4")
    for number, node in enumerate(held["node"]):
        if node[0] == slow:
            held["compute_ns"][number] = (held["compute_ns"][number] * 1.17).astype("i8")
    kept = {k: v for k, v in campaign.samples.items() if k[0] in ("mpi.halo",)}
    campaign.samples.clear()
    campaign.samples.update(kept)
    return campaign


# --- cases ---------------------------------------------------------------------------------------------------


def test_a_case_says_the_command_that_runs_it_again(tmp_path: Path) -> None:
    campaign = factory.small()
    assert '<pre class="command">harness replay RUN --case train-fault-r0</pre>' in html(campaign, tmp_path)
    campaign.attributes["run_folder"] = "/scratch/my runs/x"
    assert "harness replay &#39;/scratch/my runs/x&#39; --case train-r0" in html(campaign, tmp_path)
    campaign.attributes["run_folder"] = "/scratch/two\nlines"
    assert '<pre class="command">harness replay RUN --case train-fault-r0</pre>' in html(campaign, tmp_path)


def test_a_case_of_a_merged_file_is_run_again_from_its_own_run(tmp_path: Path) -> None:
    campaign = factory.small()
    for number, case in enumerate(campaign.tables["cases"]):
        folder = json.dumps({"run_folder": f"/runs/{number}"})
        campaign.add("sources", attributes=folder)
        case["source"] = number
    found = told(campaign, tmp_path)
    commands = [case["again"] for group in found["groups"] for case in group["cases"]]
    assert commands == [
        f"harness replay /runs/{number} --case {case['case_id']}"
        for number, case in enumerate(campaign.tables["cases"])
    ]
    assert not found["unknown_folder"]


def test_a_label_may_be_broken_between_its_words(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.tables["cases"][0]["label"] = "sweep/operation=<i>/r0"
    assert "<bdi>sweep/<wbr>operation=<wbr>&lt;i&gt;/<wbr>r0</bdi>" in html(campaign, tmp_path)


@pytest.mark.parametrize("oversubscribed", [False, True])
def test_the_banner_of_a_local_site_says_what_is_judged(oversubscribed: bool, tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.attributes.update(launcher="local", emulated=False, oversubscribed=oversubscribed)
    words = " ".join(html(campaign, tmp_path).split())
    judged = "Answers and figures of performance are judged, the figures as those of this machine"
    shown = "figures of performance are shown for information (more ranks than cores)"
    assert (judged in words, shown in words) == (not oversubscribed, oversubscribed)


def test_a_twin_from_the_cache_is_called_cached(tmp_path: Path) -> None:
    campaign = factory.small()
    key = campaign.find("attempts", case_id="train-r0")["job_key"]
    campaign.find("jobs", job_key=key).update(state=CACHED)
    found = told(campaign, tmp_path)["groups"]
    assert [(c["case_id"], c["cached"]) for g in found for c in g["cases"]] == [
        ("train-r0", True), ("train-fault-r0", False)
    ]  # fmt: skip


def test_repeats_that_were_not_needed_are_told_apart_and_not_judged(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.case(
        "spare", group="train", repeat=1, outcome="not_run", reason="not needed: ±1.4 % after 9 repeats"
    )
    found = told(campaign, tmp_path)
    assert found["not_needed"] == [("train/n1/r1", "±1.4 % after 9 repeats")]
    assert found["summary"]["headline"] == "All 2 cases pass"
    assert "1 planned case was not run" in html(campaign, tmp_path)


def test_of_many_cases_that_pass_the_first_are_told_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(casepage, "TOLD_IN_FULL", {True: 2, False: 0})
    found = [c for g in told(factory.quickstart(repeats=1), tmp_path)["groups"] for c in g["cases"]]
    assert [c["full"] for c in found] == [True, True] + [False] * (len(found) - 2)
    assert all(c["evidence_lines"] and c["again"] for c in found)


def test_a_large_group_begins_with_what_did_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(casepage, "OPEN_CASES", 2)
    campaign = factory.quickstart(repeats=2)
    campaign.find("checks", case_id="halo-weak-n4-r1").update(passed=False)
    groups = {g["name"]: g for g in told(campaign, tmp_path)["groups"]}
    assert groups["halo-weak"]["cases"][0]["case_id"] == "halo-weak-n4-r1"
    assert {name: g["open"] for name, g in groups.items()} == {
        "allreduce": False, "halo-strong": False, "halo-weak": True, "train": False, "train-fault": False
    }  # fmt: skip


def test_sections_with_nothing_to_tell_are_not_there(tmp_path: Path) -> None:
    campaign = factory.Campaign()
    factory.train(campaign, 0, factory.START_NS)
    found = told(campaign, tmp_path)
    assert [anchor for anchor, _ in found["sections"]] == ["cases", "times", "nodes", "environment", "jobs"]
    source = html(campaign, tmp_path)
    assert re.findall(r'<section id="([a-z]+)"', source) == ["cases", "times", "nodes", "environment", "jobs"]


# --- comparisons and precision -------------------------------------------------------------------------------


def paired_campaign(slower: float) -> factory.Campaign:
    """Eight pairs by turns, b slower than a, and a lot that was known well enough after six of twelve repeats."""
    campaign = factory.Campaign()
    campaign.attributes.update(emulated=False, site_kind="production")
    pairs = tuple((f"a{n}", f"b{n}") for n in range(8))
    for number in range(8):
        for side in "ab" if number % 2 == 0 else "ba":
            case = campaign.case(f"{side}{number}", group="g", workload="mpi.halo", steps=4, warmup_steps=1)
            begin = factory.START_NS + number * factory.S
            attempt = campaign.attempt(case, ["n1"], begin, begin + factory.S, job_key=f"{number:04}")
            taken = np.full(4, (100 + 0.1 * number) * (1 + slower * (side == "b")) * 1e6).astype("i8")
            campaign.record(case, attempt, 0, "steps", step=[0, 1, 2, 3], step_time_ns=taken)
    question = Question("step_time_ns", "median")
    comparison = Comparison("g/n1 <b>", "g", question, 0.02, "", "rows=<64>", pairs)
    cases = (*(f"a{n}" for n in range(6)), *(f"later{n}" for n in range(6)))
    for case_id in cases[6:]:
        campaign.case(case_id, group="g", workload="mpi.halo", outcome="not_run", reason="not needed: ±0.3 %")
    lot = Lot("g/n1 <i>", "g", question, 0.02, 0.95, 6, 12, 2, None, {"g/n1 <s>": cases})
    weighed = {"name": lot.name, "answer": "enough", "why": "interval ±0.3 % after 6 repeats"}
    for kind, said in (
        (COMPARISON_PLANNED, comparison.to_json()), (LOT_PLANNED, lot.to_json()), (REPEATS_WEIGHED, weighed)
    ):  # fmt: skip
        campaign.event(None, -1, -1, kind, factory.START_NS, "", **said)
    return campaign


def test_a_comparison_by_pairs_is_told_with_its_verdict_and_drawn(tmp_path: Path) -> None:
    campaign = paired_campaign(0.05)
    (item,) = told(campaign, tmp_path)["designs"]["pairs"]
    assert (item["verdict"], item["css"]) == ("worse", "fail")
    assert item["said"].startswith("+5.0 %")
    assert item["figure"].count("<path") > 5
    source = html(campaign, tmp_path)
    assert "rows=&lt;64&gt;" in source and "g/n1 &lt;b&gt;" in source
    assert "rows=<64>" not in source and "g/n1 <b>" not in source


@pytest.mark.parametrize(
    "slower, emulated, named", [(0.05, False, 1), (-0.05, False, 0), (0.0, False, 0), (0.05, True, 0)]
)
def test_a_setting_that_is_worse_needs_a_look(
    slower: float, emulated: bool, named: int, tmp_path: Path
) -> None:
    campaign = paired_campaign(slower)
    campaign.attributes.update(emulated=emulated)
    found = [item for item in told(campaign, tmp_path)["attention"] if item[2] == "designs"]
    assert len(found) == named
    for css, words, _ in found:
        assert css == "fail" and words.startswith("g/n1 <b>: b is +5.0 %") and words.endswith("worse")


def test_repeats_that_were_spared_are_counted_with_the_reason(tmp_path: Path) -> None:
    campaign = paired_campaign(0.0)
    found = told(campaign, tmp_path)
    (lot,) = found["designs"]["lots"]
    assert (lot["spared"], found["all_not_needed"]) == (6, 6)
    source = html(campaign, tmp_path)
    assert "6 repeats not needed: interval ±0.3 % after 6 repeats" in source
    assert "g/n1 <i>" not in source and "<s>" not in source


# --- environment ---------------------------------------------------------------------------------------------


def test_facts_on_which_nodes_differ_are_told_apart(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.find("nodes", name="n2")["facts"] = json.dumps({**FACTS, "kernel": "6.2.0"})
    campaign.find("nodes", name="n3")["facts"] = "{}"  # said nothing, so it does not differ
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = placepage.differences(placepage.nodes(results))
    assert found == [("kernel", [("6.1.0", ["n1"]), ("6.2.0", ["n2"])])]


# --- node by node --------------------------------------------------------------------------------------------


def test_the_heat_map_compares_a_node_with_the_others_of_its_case(tmp_path: Path) -> None:
    with load(slow_node(factory.quickstart()).write(tmp_path / "r.h5")) as results:
        found = heatmap.analyse(results)
    assert found is not None and found.what == ("compute_ns",)
    rows = {r.name: r for r in found.rows}
    assert rows["n4"].slower == pytest.approx(0.17, abs=1e-3)
    assert rows["n3"].slower == pytest.approx(0.0, abs=1e-3)
    assert [r.name for r in found.notable] == ["n4"]
    assert (rows["n2"].lost, rows["n4"].lost) == (3, 0)  # one attempt of each faulted training


def test_of_many_nodes_those_that_stand_out_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heatmap, "MAXIMUM_NODES", 1)
    monkeypatch.setattr(heatmap, "MAXIMUM_CASES", 4)
    campaign = factory.Campaign()
    for nodes in (1, 2, 4):
        for repeat in range(2):
            factory.halo(campaign, "weak", nodes, repeat, factory.START_NS)
    with load(slow_node(campaign).write(tmp_path / "r.h5")) as results:
        found = heatmap.analyse(results)
    assert found is not None and found.left_out == "3 of 4 nodes and 2 of 6 cases"
    assert ">n4</text>" in found.figure and ">n1</text>" not in found.figure


def test_a_campaign_in_which_nothing_ran_has_no_heat_map(tmp_path: Path) -> None:
    campaign = factory.Campaign()
    campaign.case("never", outcome="not_run")
    with load(campaign.write(tmp_path / "r.h5")) as results:
        assert (heatmap.analyse(results), timelines.campaign(results)) == (None, None)


# --- figures of recovery -------------------------------------------------------------------------------------


def test_the_figure_by_policy_has_a_dot_for_each_fault_that_the_table_counts(tmp_path: Path) -> None:
    campaign = recovery_factory.soak(6)
    decoy = campaign.find("faults", case_id="decoy")
    decoy["detected_wall_ns"] = decoy["injected_wall_ns"] + factory.S  # a false alarm, but with a latency
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = recovery.analyse(results)
    decoys = [r for r in found if r.expect == "unharmed"]
    assert decoys and recoveries.by_policy(decoys) == ""
    dots = [
        len(re.findall("h0", d))
        for d in re.findall(r'<path class="d [^>]*d="([^"]*)"', recoveries.by_policy(found))
    ]
    assert dots == [6] * 9  # three policies, three figures


def test_what_was_to_be_unharmed_has_nothing_to_come_back_from(tmp_path: Path) -> None:
    with load(recovery_factory.soak(2).write(tmp_path / "r.h5")) as results:
        decoy = next(r for r in recovery.analyse(results) if r.expect == "unharmed")
    assert decoy.stamp("t9").why == decoy.stamp("t8").why == "nothing to recover from was expected"


# --- drawing -------------------------------------------------------------------------------------------------


def test_hostile_words_do_not_leave_a_figure() -> None:
    plot = svg.Plot("</svg><script>", (100, 100), (10, 10, 10, 10))
    plot.text(1, 1, '</text><script x="y">', full="<b>\x1b[31m")
    plot.rows(["<i>&"])
    plot.rect(0, 0, 1, 1, "c1", "'\"<>")
    drawn = plot.svg()
    assert re.findall(r"<(/?[a-z]+)", drawn) == [
        "svg", "text", "title", "/title", "/text", "text", "/text", "rect", "title", "/title", "/rect", "/svg"
    ]  # fmt: skip
    assert "\x1b" not in drawn and drawn.count('"') % 2 == 0


def test_a_line_is_broken_where_nobody_measured() -> None:
    plot = svg.Plot("", (100, 100), (0, 0, 0, 0))
    plot.x_axis(0, 10)
    plot.line([0, 1, 2, 3, 4], [0, 1, np.nan, 1, 0], "c1")
    assert 'd="M0 100 10 0M30 0 40 100"' in plot.svg()


@pytest.mark.parametrize(
    "low, high, log, expected",
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3, 17, False, [5, 10, 15]),
        (5, 5, False, [5]),
        (1e-3, 10, True, [1e-3, 1e-2, 1e-1, 1, 10]),
        (2, 9, True, [2, 3, 4, 5, 7]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, expected: list[float]) -> None:
    ticks = svg.log_ticks(low, high) if log else svg.linear_ticks(low, high)
    assert ticks == pytest.approx(expected)


@pytest.mark.parametrize("values", [[5.0, 5.0], [0.0, 0.0]])
def test_a_constant_has_a_place(values: list[float]) -> None:
    plot = svg.Plot("", (100, 100), (0, 0, 0, 0))
    plot.x_axis(min(values), max(values))
    assert np.all(np.isfinite(plot.x(values)))


def test_a_running_counter_is_a_rate_and_starts_again_after_a_reboot() -> None:
    minutes, values = counters._line(np.arange(5) / 60, np.array([0.0, 10, 20, 5, 15]), True)
    assert minutes.tolist() == pytest.approx((np.arange(5) / 60).tolist())
    assert values.tolist() == pytest.approx([np.nan, 10, 10, np.nan, 10], nan_ok=True)


def test_many_nodes_are_drawn_as_a_spread(tmp_path: Path) -> None:
    campaign = factory.small()
    for number in range(40):
        campaign.node(f"m{number}")
    factory.telemetry(campaign)
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (drawn,) = counters.telemetry(results)
    assert drawn.keys == (("median of 43", "c1"), ("lowest to highest", "c1 faint"))
    assert all(len(plot) < 12_000 for _, plot in drawn.plots)


def test_repeats_stand_together_where_cases_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAXIMUM_ROWS", 4)
    with load(factory.quickstart(repeats=3).write(tmp_path / "r.h5")) as results:
        mine = [c for c in results.cases if c["group"] == "halo-weak"]
        drawn = figures.step_times(results, mine)
        few = figures.step_times(results, mine[:2])
    assert drawn is not None and few is not None
    assert (drawn.pooled, drawn.left_out, few.pooled) == (True, 0, False)
    assert re.findall(r">(halo-weak[^<]*)</text>", drawn.figure) == [
        "halo-weak/n1",
        "halo-weak/n2",
        "halo-weak/n4",
    ]
