"""Gates against a baseline file and against the history of a folder; `harness judge` with other ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.references import Given
from analysis.results import load
from analysis.verdict import judge
from harness.cli import main
from harness.config import ConfigError, load_campaign
from harness.model.verdict import Verdict
from tests.unit import results_factory as factory
from tests.unit.judging_factory import campaign


def gate(**more: Any) -> dict[str, Any]:
    given = {"metric": "step_time_ns", "statistic": "median", "minimum": None, "maximum": None, "where": {}}
    return {**given, "smallest": "5%", "despite": [], **more}


def judged(made: factory.Campaign, folder: Path, **given: Any) -> tuple[Verdict, str]:
    """Verdict of the first case, and what its gate says."""
    with load(made.write(folder / "now.h5")) as results:
        verdicts = judge(results, Given(**given))
    assert len({v.verdict for v in verdicts}) == 1  # the repeats are judged together
    said = next(e for e in verdicts[0].evidence if "gate " in e)
    return verdicts[0].verdict, said


@pytest.fixture
def base(tmp_path: Path) -> str:
    return str(campaign(seed=1).write(tmp_path / "base.h5"))


@pytest.mark.parametrize(
    "factor, verdict, word",
    [
        (1.12, Verdict.FAIL, "worse"),
        (0.88, Verdict.PASS, "better"),
        (1.0, Verdict.WITHIN_NOISE, "within noise"),
    ],
)
def test_a_gate_against_a_baseline(
    factor: float, verdict: Verdict, word: str, base: str, tmp_path: Path
) -> None:
    found, said = judged(campaign(factor, seed=2, gates=[gate(baseline=base)]), tmp_path)
    assert (found, said.endswith(f"smallest effect 5 %: {word}")) == (verdict, True)
    assert "against the baseline's 5.0" in said


def test_too_few_repeats_and_a_wide_interval_are_unknown(base: str, tmp_path: Path) -> None:
    few = judged(campaign(2.0, seed=2, repeats=3, gates=[gate(baseline=base)]), tmp_path)
    assert few[0] is Verdict.UNKNOWN
    assert "8 and 3 repeats: below 6 of each there is no interval" in few[1]
    wide = judged(campaign(1.0, seed=2, noise=0.3, gates=[gate(baseline=base)]), tmp_path)
    assert (wide[0], "the interval is too wide to tell" in wide[1]) == (Verdict.UNKNOWN, True)


def test_other_hardware_is_invalid_unless_the_gate_says_so(base: str, tmp_path: Path) -> None:
    other = {"seed": 2, "facts": {"cpus": 64}}
    found, said = judged(campaign(gates=[gate(baseline=base)], **other), tmp_path)
    assert (found, "hardware differs: cpus 2 in the baseline, 64 in this run" in said) == (
        Verdict.INVALID,
        True,
    )
    told = judged(campaign(gates=[gate(baseline=base, despite=["hardware"])], **other), tmp_path)
    assert told[0] is Verdict.WITHIN_NOISE
    on_the_way = judged(
        campaign(gates=[gate(baseline=base)], **other), tmp_path, despite=frozenset({"hardware"})
    )
    assert on_the_way[0] is Verdict.WITHIN_NOISE


def test_an_emulated_baseline_is_invalid_and_an_emulated_run_for_information(
    base: str, tmp_path: Path
) -> None:
    emulated = str(campaign(seed=1, emulated=True).write(tmp_path / "emulated.h5"))
    assert judged(campaign(seed=2, gates=[gate(baseline=emulated)]), tmp_path)[0] is Verdict.INVALID
    found, said = judged(campaign(1.5, seed=2, gates=[gate(baseline=base)], emulated=True), tmp_path)
    assert (found, "hardware differs: real in the baseline, emulated in this run" in said) == (
        Verdict.INVALID,
        True,
    )
    told_so = campaign(1.5, seed=2, gates=[gate(baseline=base, despite=["hardware"])], emulated=True)
    for made in (told_so, campaign(1.5, seed=2, gates=[gate(baseline=emulated)], emulated=True)):
        found, said = judged(made, tmp_path)
        assert (found, "(emulated: for information)" in said) == (Verdict.PASS, True)


@pytest.mark.parametrize("damage", ["absent", "foreign"])
def test_a_baseline_that_cannot_be_read_is_unknown(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "base.h5"
    if damage == "foreign":
        path.write_bytes(b"x")
    found, said = judged(campaign(gates=[gate(baseline=str(path))]), tmp_path)
    assert (found, "`harness judge --baseline FILE` names another" in said) == (Verdict.UNKNOWN, True)


def test_a_baseline_without_the_setting_is_unknown(tmp_path: Path) -> None:
    base = str(campaign(seed=1, nodes=(1,)).write(tmp_path / "base.h5"))
    found, said = judged(campaign(seed=2, gates=[gate(baseline=base)]), tmp_path)
    assert (found, said.split(": ")[-1]) == (Verdict.UNKNOWN, "the baseline has no figure of this setting")


def test_another_statistic_and_filter_are_those_of_the_gate(base: str, tmp_path: Path) -> None:
    chosen = gate(baseline=base, statistic="max", where={"rank": 1}, smallest="100000")
    found, said = judged(campaign(1.0, seed=2, gates=[chosen]), tmp_path)
    assert "gate max step_time_ns (rank = 1)" in said
    assert found in (Verdict.WITHIN_NOISE, Verdict.UNKNOWN)
    assert "smallest effect 100 µs" in said


# --- history -------------------------------------------------------------------------------------------


def past(tmp_path: Path, runs: int, **more: Any) -> str:
    for day in range(runs):
        path = tmp_path / "past" / f"r{day}" / "results.h5"
        path.parent.mkdir(parents=True)
        campaign(**{"repeats": 2, "seed": 5, "day": day, **more}).write(path)
    return str(tmp_path / "past")


@pytest.mark.parametrize(
    "factor, verdict", [(1.0, Verdict.WITHIN_NOISE), (1.2, Verdict.FAIL), (0.8, Verdict.PASS)]
)
def test_a_gate_against_the_history_of_a_folder(factor: float, verdict: Verdict, tmp_path: Path) -> None:
    folder = past(tmp_path, 8)
    found, said = judged(campaign(factor, repeats=1, seed=5, day=30, gates=[gate(history=folder)]), tmp_path)
    assert (found, "(n=1) against the history of 8 runs" in said) == (verdict, True)


def test_a_lasting_regression_fails_a_gate_until_it_is_accepted(tmp_path: Path) -> None:
    folder = past(tmp_path, 9)
    for day in range(9, 16):
        path = tmp_path / "past" / f"r{day}" / "results.h5"
        path.parent.mkdir()
        campaign(1.25, repeats=2, seed=5, day=day).write(path)
    now = campaign(1.25, seed=5, day=20, gates=[gate(history=folder)])
    found, said = judged(now, tmp_path)
    assert (found, "against the history of 9 runs" in said) == (Verdict.FAIL, True)
    assert "worse than the level before 2025-" in said and "8 runs since then" in said
    (tmp_path / "past" / "accepted.txt").write_text("# levels\nrun-5-9 by me\n")
    assert judged(now, tmp_path)[0] is Verdict.WITHIN_NOISE


def test_a_short_history_and_none_are_unknown(tmp_path: Path) -> None:
    folder = past(tmp_path, 3)
    found, said = judged(campaign(repeats=1, seed=5, day=30, gates=[gate(history=folder)]), tmp_path)
    assert (found, "3 earlier runs: 6 are needed" in said) == (Verdict.UNKNOWN, True)
    found, said = judged(campaign(repeats=1, day=30, gates=[gate(history="/nowhere")]), tmp_path)
    assert (found, "`harness judge --history FOLDER` names another" in said) == (Verdict.UNKNOWN, True)


def test_runs_of_other_hardware_and_later_ones_are_no_history(tmp_path: Path) -> None:
    folder = past(tmp_path, 8, facts={"cpus": 64})
    found, said = judged(campaign(repeats=1, seed=5, day=30, gates=[gate(history=folder)]), tmp_path)
    assert (found, "left out: hardware differs" in said) == (Verdict.UNKNOWN, True)
    early = judged(campaign(repeats=1, seed=6, day=0, gates=[gate(history=folder)]), tmp_path)
    assert "0 earlier runs" in early[1]


# --- the verb and the campaign file ------------------------------------------------------------------------


def test_the_verb_may_look_elsewhere(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = str(campaign(1.2, seed=2, gates=[gate(baseline="/gone/base.h5")]).write(tmp_path / "now.h5"))
    assert main(["judge", now]) == 3
    capsys.readouterr()
    assert main(["judge", now, "--baseline", base, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["fail"] == 8
    assert main(["judge", now, "--baseline", "/gone"]) == 2
    assert main(["judge", now, "--despite", "x"]) == 2


def test_an_option_that_changes_nothing_is_told(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", base, "--baseline", base]) == 0
    assert "no gate asks for a baseline" in capsys.readouterr().err


CAMPAIGN = """\
schema: 1
name: c
seed: 1
groups:
  - name: halo
    workload: mpi.halo
    nodes: 2
    repeats: 6
    gates:
      - {metric: step_time_ns, statistic: median, GATE}
"""


def written(tmp_path: Path, said: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(CAMPAIGN.replace("GATE", said))
    return path


def test_a_campaign_names_a_baseline_relative_to_its_own_file(tmp_path: Path) -> None:
    said = "baseline: ../base/results.h5, smallest: 3%, despite: [software]"
    loaded, text = load_campaign(written(tmp_path, said))
    (found,) = loaded.groups[0].gates
    where = str(tmp_path / "../base/results.h5")
    assert (found.baseline, found.smallest, found.despite) == (where, "3%", ("software",))
    again = tmp_path / "elsewhere" / "copy.yaml"
    again.parent.mkdir()
    again.write_text(text)
    assert load_campaign(again)[0] == loaded


@pytest.mark.parametrize(
    "said, message",
    [
        (
            "max: 3, baseline: b.h5",
            "says min or max and baseline, allowed: one of min or max, baseline, history",
        ),
        ("baseline: b.h5, history: runs", "says baseline and history, allowed: one of"),
        ("max: 3, smallest: 5%", 'smallest = "5%", means nothing without baseline or history'),
        ("history: runs, smallest: 500%", "must be a percentage above 0 % and below 100 %"),
        ("history: runs, smallest: 5%, smallest_change: 3.0", "and smallest say the same"),
        ("history: runs, despite: [weather]", "hardware"),
    ],
)
def test_a_gate_has_one_kind_of_limit(said: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_campaign(written(tmp_path, said))
    assert message in str(error.value)
