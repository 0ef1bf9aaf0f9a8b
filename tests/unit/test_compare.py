"""`harness compare`: matching series of two files, what is refused, what is told of what is not there, all outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from analysis import compare_words as words
from analysis.compare import Asked, Comparison, compare
from analysis.difference import Smallest
from analysis.results import load
from harness.cli import main
from tests.unit import junit_schema
from tests.unit import results_factory as factory
from tests.unit.hostile_factory import hostile
from tests.unit.judging_factory import campaign

TIME = "step_time_ns"


def compared(a: factory.Campaign, b: factory.Campaign, folder: Path, **asked: Any) -> Comparison:
    with load(a.write(folder / "a.h5")) as one, load(b.write(folder / "b.h5")) as two:
        return compare(one, two, Asked(**asked))


def told(found: Comparison, metric: str = TIME) -> list[tuple[str, str, str]]:
    """Status, series and reason of every line of one metric, and of lines of whole settings."""
    return [(x.status, x.label, x.why) for x in found.lines() if x.metric in (metric, "")]


@pytest.mark.parametrize(
    "factor, status, code", [(1.12, "worse", 1), (0.88, "better", 0), (1.0, "within noise", 0)]
)
def test_a_series_is_worse_better_or_the_same(factor: float, status: str, code: int, tmp_path: Path) -> None:
    found = compared(campaign(seed=1), campaign(factor, seed=2), tmp_path)
    assert told(found) == [(status, "halo/n2", "")]
    assert found.exit_status() == code


def test_direction_and_unit_come_from_the_file(tmp_path: Path) -> None:
    def upward(made: factory.Campaign) -> None:
        made.facts[TIME] = {"unit": "updates/s", "type": "i8", "direction": "higher", "definition": "a rate"}

    found = compared(campaign(seed=1, change=upward), campaign(1.12, seed=2, change=upward), tmp_path)
    (line,) = [x for x in found.lines() if x.metric == TIME]
    assert (line.status, line.unit) == ("better", "updates/s")


def test_case_ids_do_not_matter(tmp_path: Path) -> None:
    found = compared(campaign(seed=1), campaign(seed=9), tmp_path)
    assert {x.status for x in found.lines()} == {"within noise"}


@pytest.mark.parametrize("workload, table, place, time", [
    ("torch.gemm", "products", {"matrix_size": (256, 1024)}, "product_ns"),
    ("io.shards", "shards", {"shard_bytes": (1024,)}, "write_ns"),
])  # fmt: skip
def test_the_slowest_rank_at_each_place_is_compared(
    workload: str, table: str, place: dict[str, tuple[int, ...]], time: str, tmp_path: Path
) -> None:
    ((column, sizes),) = place.items()

    def made(factor: float, seed: int) -> factory.Campaign:
        """Rank 1 is 5 times as slow as rank 0 at the smallest place, and slower by ``factor`` there."""
        campaign, random = factory.Campaign(), np.random.default_rng(seed)
        campaign.attributes["emulated"] = False
        for repeat in range(8):
            case = campaign.case(
                f"c{seed}-{repeat}", group="g", workload=workload, nodes=2, repeat=repeat, steps=9
            )
            attempt = campaign.attempt(case, ["n1", "n2"], factory.START_NS, factory.START_NS + factory.S)
            noise = np.exp(0.01 * random.standard_normal())
            for rank in range(2):
                for size in sizes:
                    slow = 5 * factor if rank and size == sizes[0] else 1
                    took = np.full(9, 1e6 * size * slow * noise).astype("i8")
                    campaign.record(case, attempt, rank, table, step=range(9), **{column: size, time: took})
            campaign.check(case, 0, 0)
        return campaign

    found = compared(made(1.0, 1), made(5.0, 2), tmp_path, metric=time)
    expected = ["worse", *("within noise" for _ in sizes[1:])]
    assert [x.status for x in found.lines() if x.metric == time] == expected
    (line,) = [x for x in found.lines() if x.metric == time and x.status == "worse"]
    assert line.difference is not None
    assert line.difference.median_a == pytest.approx(5e6 * sizes[0], rel=0.02)


def test_every_node_is_compared_with_itself(tmp_path: Path) -> None:
    def slow(made: factory.Campaign) -> None:
        for column in ("step_time_ns",):
            for part in made.samples["mpi.halo", "steps"][column][1::2]:
                part *= 2

    def own(made: factory.Campaign) -> None:
        samples = made.samples["mpi.halo", "steps"]
        samples[TIME] = [v.copy() for v in samples[TIME]]
        slow(made)

    found = compared(campaign(seed=1), campaign(seed=2, change=own), tmp_path, by_node=True, metric=TIME)
    assert [(x.status, x.node) for x in found.lines()] == [("worse", "n2"), ("within noise", "n1")]


# --- what is not there --------------------------------------------------------------------------------


def test_missing_and_new_settings_are_told(tmp_path: Path) -> None:
    found = compared(campaign(seed=1, nodes=(1, 2)), campaign(seed=2, nodes=(2, 4)), tmp_path)
    assert told(found) == [
        ("missing in B", "halo/n1", "8 repeats in A alone"),
        ("within noise", "halo/n2", ""),
        ("new in B", "halo/n4", "8 repeats in B alone"),
    ]
    assert found.exit_status() == 3


def test_a_metric_that_b_does_not_have_is_told(tmp_path: Path) -> None:
    def without(made: factory.Campaign) -> None:
        del made.samples["mpi.halo", "steps"]["residual"]

    found = compared(campaign(seed=1), campaign(seed=2, change=without), tmp_path)
    assert told(found, "residual")[0] == ("missing in B", "halo/n2", "B has no figure of it")
    back = compared(campaign(seed=1, change=without), campaign(seed=2), tmp_path)
    assert ("new in B", "halo/n2", "A has no figure of it") in told(back, "residual")


def _failing(count: int) -> Any:
    def change(made: factory.Campaign) -> None:
        for case, attempt in list(zip(made.tables["cases"], made.tables["attempts"], strict=True))[:count]:
            case.update(outcome="failed", reason="exit code 3")
            attempt["outcome"] = "failed"

    return change


def test_repeats_that_failed_in_b_are_a_fail_and_the_others_are_compared(tmp_path: Path) -> None:
    found = compared(campaign(seed=1), campaign(seed=2, change=_failing(1)), tmp_path)
    reason = "1 of 8 repeats without a figure: halo/n2/r0: failed: exit code 3"
    assert told(found) == [
        ("failed in B", "halo/n2", f"failures 0 of 8 in A, 1 of 8 in B: {reason}"),
        ("within noise", "halo/n2", f"in B {reason}"),
    ]
    assert found.exit_status() == 1


def test_a_failed_baseline_is_no_baseline(tmp_path: Path) -> None:
    found = compared(campaign(seed=1, change=_failing(8)), campaign(seed=2), tmp_path)
    ((status, _, why),) = told(found)
    assert (status, found.exit_status()) == ("failed in A", 3)
    assert why.endswith("(and 5 more)")


def test_a_wrong_answer_has_no_figure(tmp_path: Path) -> None:
    def wrong(made: factory.Campaign) -> None:
        made.tables["checks"][0]["passed"] = False

    found = compared(campaign(seed=1), campaign(seed=2, change=wrong), tmp_path)
    assert told(found)[0][0] == "failed in B"
    assert 'its answer was wrong (check "sum" on rank 0)' in told(found)[0][2]


def test_one_repeat_is_unknown_and_says_how_many_are_needed(tmp_path: Path) -> None:
    found = compared(campaign(seed=1), campaign(1.5, seed=2, repeats=1), tmp_path)
    why = "8 and 1 repeats: below 6 of each there is no interval; about 6 of each would tell"
    assert told(found) == [("unknown", "halo/n2", why)]
    assert found.exit_status() == 3


def test_infinite_and_missing_values_are_told(tmp_path: Path) -> None:
    def broken(value: float) -> Any:
        def change(made: factory.Campaign) -> None:
            made.samples["mpi.halo", "steps"]["residual"][0] = np.full(20, value)
            made.samples["mpi.halo", "steps"]["residual"][1] = np.full(20, value)

        return change

    for value in (np.inf, np.nan):
        found = compared(campaign(seed=1), campaign(seed=2, change=broken(value)), tmp_path)
        assert told(found, "residual") == [("unknown", "halo/n2", "not finite: 1 of 8 repeats of B")]


@pytest.mark.parametrize("time_ns", [0, -5])
@pytest.mark.parametrize("by_node", [False, True])
def test_times_that_no_clock_gives_are_no_figure_and_never_better(
    time_ns: int, by_node: bool, tmp_path: Path
) -> None:
    def broken(made: factory.Campaign) -> None:
        times = made.samples["mpi.halo", "steps"]["step_time_ns"]
        times[:] = [np.full(20, time_ns) for _ in times]

    found = compared(campaign(seed=1), campaign(seed=2, change=broken), tmp_path, by_node=by_node)
    ((status, _, why),) = told(found)
    assert (status, found.exit_status()) == ("missing in B", 3)
    words = "step times are not above zero: no clock gives that"
    assert why.startswith(f"8 of 8 repeats without a figure: halo/n2/r0: 34 of 34 {words}; halo/n2/r1: ")
    found = compared(campaign(seed=1, change=broken), campaign(seed=2), tmp_path, by_node=by_node)
    assert [status for status, _, _ in told(found)] == ["failed in A"]


# --- what differs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, words_",
    [
        (
            {"facts": {"cpus": 64}},
            "hardware differs: cpus 2 in A, 64 in B (--despite hardware compares all the same)",
        ),
        (
            {"facts": {"memory_bytes": 2**34}},
            "hardware differs: memory_bytes 8 GiB in A, 16 GiB in B (--despite hardware compares all the same)",
        ),
        (
            {"facts": {"gpus": [{"name": "H200", "uuid": "x"}] * 4}},
            "hardware differs: gpus not recorded in A, 4 x H200 in B (--despite hardware compares all the same)",
        ),
        (
            {"versions": {"torch": "2.5.0"}},
            "software differs: torch 2.4.1+cpu in A, 2.5.0 in B (--despite software compares all the same)",
        ),
        (
            {"params": {"rows": 1024}},
            "parameters differ: rows 512 in A, 1024 in B (--despite definition compares all the same)",
        ),
    ],
)
def test_what_differs_is_refused_by_name_or_compared_when_told_so(
    changed: dict[str, Any], words_: str, tmp_path: Path
) -> None:
    kind = words_.split("--despite ")[1].split()[0]
    found = compared(campaign(seed=1), campaign(1.2, seed=2, **changed), tmp_path)
    assert (told(found), found.exit_status()) == ([("refused", "halo/n2", words_)], 3)
    told_so = compared(
        campaign(seed=1), campaign(1.2, seed=2, **changed), tmp_path, despite=frozenset({kind})
    )
    difference = words_.split(" (--")[0]
    assert told(told_so) == [("worse", "halo/n2", f"compared although {difference}")]


def test_equal_nodes_may_differ_a_little_in_memory(tmp_path: Path) -> None:
    found = compared(campaign(seed=1), campaign(seed=2, facts={"memory_bytes": 8 * 2**30 - 2**26}), tmp_path)
    assert told(found) == [("within noise", "halo/n2", "")]


def test_hardware_that_nobody_recorded_is_not_equal(tmp_path: Path) -> None:
    def unknown(made: factory.Campaign) -> None:
        for node in made.tables["nodes"]:
            node["facts"] = "{}"

    found = compared(campaign(seed=1, change=unknown), campaign(seed=2), tmp_path)
    assert "hardware not recorded in A" in told(found)[0][2]


def test_a_parameter_that_one_file_alone_knows_pairs_the_settings(tmp_path: Path) -> None:
    def sweep(extra: dict[str, Any]) -> factory.Campaign:
        made = campaign(seed=3, params={"rows": 1, **extra})
        more = campaign(seed=4, params={"rows": 2, **extra}, nodes=(2,))
        for name in ("cases", "attempts", "checks", "streams"):
            made.tables[name] += more.tables[name]
        return made

    found = compared(sweep({}), sweep({"border": 1}), tmp_path)
    assert [(s, w.split("; ")[0]) for s, _, w in told(found)] == [
        ("refused", "parameters differ: border absent in A, 1 in B")
    ] * 2


@pytest.mark.parametrize("name, value", [("unit", "us"), ("direction", "higher")])
def test_another_unit_or_direction_is_never_compared(name: str, value: str, tmp_path: Path) -> None:
    facts = {"unit": "ns", "type": "i8", "direction": "lower", "definition": "a time"}

    def given(facts: dict[str, str]) -> Any:
        return lambda made: made.facts.__setitem__(TIME, facts)

    a, b = campaign(seed=1, change=given(facts)), campaign(seed=2, change=given({**facts, name: value}))
    found = compared(a, b, tmp_path, despite=frozenset({"definition"}))
    ((status, _, why),) = told(found)
    assert (status, why) == (
        "refused",
        f"{name} {facts[name]} in A, {value} in B: a change would mean nothing",
    )


def test_another_definition_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    facts = {"unit": "ns", "type": "i8", "direction": "lower", "definition": "with the checkpoint"}
    other = campaign(seed=2, change=lambda made: made.facts.__setitem__(TIME, facts))
    found = compared(campaign(seed=1), other, tmp_path)
    assert told(found)[0][0] == "refused"
    assert '"with the checkpoint" in B' in told(found)[0][2]
    assert (
        told(compared(campaign(seed=1), other, tmp_path, despite=frozenset({"definition"})))[0][0]
        == "within noise"
    )


def test_one_case_id_with_two_definitions_is_told(tmp_path: Path) -> None:
    def longer(made: factory.Campaign) -> None:
        made.tables["cases"][0]["steps"] = 40

    found = compared(campaign(seed=1), campaign(seed=1, day=1, change=longer), tmp_path)
    ((status, _, why),) = told(found)
    assert status == "refused"
    assert "case halo-n2-r0-s1 is in both files, with another definition: steps 20 in A, 40 in B" in why


@pytest.mark.parametrize("stamp", ["emulated", "oversubscribed"])
def test_stamped_figures_are_shown_and_judge_nothing(stamp: str, tmp_path: Path) -> None:
    a, b = campaign(seed=1, **{stamp: True}), campaign(1.5, seed=2, **{stamp: True})
    found = compared(a, b, tmp_path, metric=TIME)
    (line,) = found.lines()
    assert (line.status, line.verdict, found.exit_status(), found.series) == ("worse", None, 3, 0)
    assert words.headline(found).startswith("for information (")


def test_real_figures_are_not_compared_with_emulated_ones_unless_told_so(tmp_path: Path) -> None:
    a, b = campaign(seed=1), campaign(1.5, seed=2, emulated=True)
    found = compared(a, b, tmp_path)
    why = "hardware differs: real in A, emulated in B (--despite hardware compares all the same)"
    assert (told(found), found.exit_status()) == ([("refused", "halo/n2", why)], 3)
    told_so = compared(a, b, tmp_path, despite=frozenset({"hardware"}))
    said = "compared although hardware differs: real in A, emulated in B"
    assert [(x.status, x.verdict is None, x.why) for x in told_so.lines()] == [
        ("worse", True, said),
        ("within noise", False, said),
    ]


def test_the_headline_says_what_judges_nothing(tmp_path: Path) -> None:
    found = compared(campaign(seed=1, emulated=True), campaign(1.5, seed=2, emulated=True), tmp_path)
    assert words.headline(found) == (
        "nothing is worse of what is judged: 1 within noise; for information (emulated), judging nothing: 1 worse"
    )


def test_an_answer_is_judged_where_performance_is_not(tmp_path: Path) -> None:
    found = compared(campaign(seed=1, emulated=True), campaign(1.5, seed=2, emulated=True), tmp_path)
    assert [(x.metric, x.verdict) for x in found.lines()][1][1] is not None


def test_an_older_schema_is_compared_and_told(tmp_path: Path) -> None:
    old, new = campaign(seed=1).write(tmp_path / "a.h5"), campaign(seed=2).write(tmp_path / "b.h5")
    with h5py.File(old, "r+") as file:
        file.attrs["schema_version"] = 3
    with load(old) as one, load(new) as two:
        found = compare(one, two)
    assert told(found) == [("within noise", "halo/n2", "")]
    assert any(note.startswith("schema version: 3 in A") for note in found.notes)


def test_many_series_are_one_family(tmp_path: Path) -> None:
    """Without a change, at most one comparison in twenty has any alarm at all; here seeded ones."""
    nodes = (1, 2, 3, 4)
    alarms = 0
    for seed in range(6):
        a = campaign(seed=2 * seed, nodes=nodes, noise=0.05, repeats=6)
        b = campaign(seed=2 * seed + 1, nodes=nodes, noise=0.05, repeats=6)
        alarms += compared(a, b, tmp_path).counts()["worse"] > 0
    assert alarms <= 1


# --- the verb --------------------------------------------------------------------------------------------


def files(folder: Path, factor: float = 1.12) -> list[str]:
    return [
        str(campaign(seed=1).write(folder / "a.h5")),
        str(campaign(factor, seed=2).write(folder / "b.h5")),
    ]


def test_the_verb_writes_all_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = {name: str(tmp_path / f"out/c.{name}") for name in ("junit", "markdown", "html")}
    options = [part for name, path in out.items() for part in (f"--{name}", path)]
    assert main(["compare", *files(tmp_path), "--json", *options]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["exit_code"], data["counts"]["worse"], len(data["lines"])) == (1, 1, 2)
    assert data["lines"][0]["difference"]["verdict"] == "worse"
    assert junit_schema.problems(Path(out["junit"]).read_text()) == []
    first = Path(out["markdown"]).read_text().splitlines()
    assert first[0] == "### Performance: something is worse: 1 worse, 1 within noise"
    assert first[6].startswith("| worse | halo/n2 | step\\_time\\_ns | 5.0")
    page = Path(out["html"]).read_text()
    assert "<svg" in page and "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_the_verb_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *files(tmp_path, 1.0), "--metric", TIME]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "nothing is worse: 1 within noise"
    assert lines[6].split()[:4] == ["WITHIN", "NOISE", "halo/n2", TIME]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--smallest", "much"], "--smallest: 'much' is no effect; write 5%"),
        (
            ["--despite", "weather"],
            "--despite weather: no such difference; there are hardware, software, definition",
        ),
    ],
)
def test_wrong_options_are_told(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *files(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["compare", "trend"])
@pytest.mark.parametrize(
    "metric, why",
    [
        ("step_time", 'no such metric; did you mean "step_time_ns"?; metrics: residual, step_time_ns'),
        (
            "cell_updates",
            "of it neither higher nor lower is better; metrics: residual, step_time_ns",
        ),
    ],
)
def test_a_metric_that_is_not_there_is_told_with_those_that_are(
    metric: str, why: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = files(tmp_path)
    Path(a).rename(tmp_path / "results.h5")
    given = [str(tmp_path)] if verb == "trend" else [str(tmp_path), b]
    assert main([verb, *given, "--metric", metric]) == 2
    assert f"--metric {metric}: {why}" in capsys.readouterr().err


def test_the_shift_is_said_to_be_an_estimate_and_no_ratio_of_medians(tmp_path: Path) -> None:
    found = compared(campaign(seed=1), campaign(1.12, seed=2), tmp_path)
    for shown in (words.words(found), words.markdown(found)):
        assert "estimated shift (95 %)" in shown
        assert shown.count("Hodges and Lehmann's estimate") == 1


def test_times_that_are_equal_to_the_last_digit_are_named(tmp_path: Path) -> None:
    found = compared(campaign(seed=1), campaign(seed=2, noise=0.0), tmp_path)
    assert [(x.metric, x.why) for x in found.lines()] == [
        ("residual", ""),
        (TIME, "all 8 of B are the same to the last digit, as no independent repeats are"),
    ]


@pytest.mark.parametrize("damage", ["absent", "truncated", "foreign", "newer"])
def test_a_bad_file_is_told(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (Path(p) for p in files(tmp_path))
    if damage == "absent":
        b.unlink()
    elif damage == "truncated":
        b.write_bytes(b.read_bytes()[:3000])
    else:
        with h5py.File(b, "r+") as file:
            file.attrs["schema" if damage == "foreign" else "schema_version"] = (
                "x" if damage == "foreign" else 99
            )
    assert main(["compare", str(a), str(b)]) == 2
    assert str(b) in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, written",
    [
        ("<img src=x>&lt;", "&lt;img src=x&gt;&amp;lt;"),
        ("@everyone a@b.org", "@&#8203;everyone a@&#8203;b.org"),
        (
            "#12 o/r#3 gh-4 !5 # head",
            "\\#&#8203;12 o/r\\#&#8203;3 gh&#8203;-4 !&#8203;5 \\# head",
        ),
        (
            "https://github.com/o/r/issues/1 www.x.org",
            "https:&#8203;//github.com/o/r/issues/1 www&#8203;.x.org",
        ),
        ("a|b `c` [x](y) _z_ \\|", "a\\|b \\`c\\` \\[x\\](y) \\_z\\_ \\\\\\|"),
        ("- item", "\\- item"),
        ("+12.1 % (−1 to +2)", "+12.1 % (−1 to +2)"),
    ],
)
def test_markdown_escapes_each_sign_once_and_mentions_nobody(given: str, written: str) -> None:
    assert words.escape(given) == written


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    a, b = hostile(), hostile()
    found = compared(a, b, tmp_path)
    assert junit_schema.problems(words.xml(found)) == []
    from analysis.compare_page import page

    assert "<script" not in page(found) and "<img" not in page(found)
    assert "<script" not in words.markdown(found)
    assert "\x1b" not in words.words(found)


def test_smallest_in_the_metrics_own_unit(tmp_path: Path) -> None:
    a, b = campaign(seed=1), campaign(1.02, seed=2, noise=0.002)
    a = campaign(seed=1, noise=0.002)
    assert told(compared(a, b, tmp_path, smallest=Smallest(50_000, False)))[0][0] == "worse"  # 100 µs slower
    assert told(compared(a, b, tmp_path))[0][0] == "within noise"
