"""`harness trend`: runs of a folder in order of time, the last against those before it, and all outputs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import pytest

from analysis.compare import Asked
from analysis.trend import Trend, of_folder
from analysis.trend_words import headline
from harness.cli import main
from tests.unit import junit_schema
from tests.unit import results_factory as factory
from tests.unit.judging_factory import campaign

TIME = "step_time_ns"


def folder(tmp_path: Path, factors: list[float], last: dict[str, Any] | None = None, **every: Any) -> Path:
    """A run a day; ``last`` holds what the last one has otherwise."""
    for day, factor in enumerate(factors):
        more = {**every, **(last or {})} if last and day == len(factors) - 1 else every
        # Named so that the order of names is not that of time.
        path = tmp_path / f"{(day * 7) % len(factors):02}-{day}" / "results.h5"
        path.parent.mkdir(parents=True)
        campaign(factor, **{"repeats": 2, "seed": 5, "day": day, **more}).write(path)
    return tmp_path


def told(found: Trend, metric: str = TIME) -> list[tuple[str, str, str]]:
    return [(x.status, x.label, x.why) for x in found.lines if x.metric == metric]


@pytest.mark.parametrize(
    "factor, status, code", [(1.0, "within noise", 0), (1.2, "worse", 1), (0.8, "better", 0)]
)
def test_the_last_run_is_judged_by_time_and_not_by_name(
    factor: float, status: str, code: int, tmp_path: Path
) -> None:
    found = of_folder(folder(tmp_path, [1.0] * 9 + [factor]), Asked())
    assert told(found) == [(status, "halo/n2", "")]
    assert found.exit_status() == code
    assert [run.wall_ns for run in found.runs] == sorted(run.wall_ns for run in found.runs)


def test_few_runs_are_unknown(tmp_path: Path) -> None:
    found = of_folder(folder(tmp_path, [1.0] * 4), Asked())
    assert told(found) == [("unknown", "halo/n2", "3 earlier runs: 6 are needed")]
    assert found.exit_status() == 3


def test_a_change_of_level_is_told_and_the_history_begins_behind_it(tmp_path: Path) -> None:
    found = of_folder(folder(tmp_path, [1.3] * 8 + [1.0] * 8), Asked())
    (line,) = [x for x in found.lines if x.metric == TIME]
    assert (line.status, line.changed, line.expected and line.expected.runs) == ("within noise", (8,), 7)


def test_a_lasting_regression_is_worse_until_it_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path, [1.0] * 8 + [1.3] * 8)
    assert main(["trend", str(place), "--metric", TIME]) == 1
    said = capsys.readouterr().out
    assert "WORSE" in said
    assert "worse than the level before 2025-" in said
    assert f"to accept the level of halo/n2 {TIME}: harness trend {place} --accept run-5-8" in said
    assert main(["trend", str(place), "--metric", TIME, "--accept", "run-5-8"]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"the level of run run-5-8 is accepted, see {place / 'accepted.txt'}\n"
    assert "WITHIN NOISE" in shown.out and "to accept" not in shown.out
    assert main(["trend", str(place), "--metric", TIME]) == 0
    assert (place / "accepted.txt").read_text().split()[0] == "run-5-8"


def test_a_run_that_is_not_there_cannot_be_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path, [1.0] * 2)
    assert main(["trend", str(place), "--accept", "run-5-7"]) == 2
    said = capsys.readouterr().err
    assert f"--accept run-5-7: no run of that id or folder below {place}; did you mean" in said
    assert not (place / "accepted.txt").exists()


def test_runs_of_other_software_are_no_history_unless_told_otherwise(tmp_path: Path) -> None:
    place = folder(tmp_path, [1.0] * 9, last={"versions": {"torch": "2.5.0"}})
    ((status, _, why),) = told(of_folder(place, Asked()))
    assert status == "unknown"
    assert "8 runs not in the history: software differs: torch 2.4.1+cpu then, 2.5.0 now" in why
    assert told(of_folder(place, Asked(despite=frozenset({"software"}))))[0][0] == "within noise"


def test_emulated_runs_are_for_information(tmp_path: Path) -> None:
    found = of_folder(folder(tmp_path, [1.0] * 8 + [1.5], emulated=True), Asked(metric=TIME))
    assert ([x.verdict for x in found.lines], found.exit_status()) == ([None], 3)
    assert told(found)[0][0] == "worse"


def test_the_headline_says_what_judges_nothing(tmp_path: Path) -> None:
    found = of_folder(folder(tmp_path, [1.0] * 8 + [1.5], emulated=True), Asked())
    assert headline(found) == (
        "the last run is not worse, of what is judged: 1 within noise; for information, judging nothing: 1 worse"
    )


def test_what_ended_is_new_or_failed_is_told(tmp_path: Path) -> None:
    def failed(made: factory.Campaign) -> None:
        for row in (*made.tables["cases"], *made.tables["attempts"]):
            row["outcome"] = "failed"
            row["reason"] = "exit code 3"

    place = folder(tmp_path / "a", [1.0] * 8, nodes=(1, 2), last={"nodes": (2, 4)})
    assert told(of_folder(place, Asked())) == [
        ("missing in the last run", "halo/n1", "the last run has no figure of it"),
        ("within noise", "halo/n2", ""),
        ("new", "halo/n4", "no earlier run has it"),
    ]
    place = folder(tmp_path / "b", [1.0] * 8, last={"change": failed})
    ((status, _, why),) = told(of_folder(place, Asked()))
    assert (status, why.split(";")[0]) == ("failed in the last run", "halo/n2/r0: failed: exit code 3")


def test_times_that_no_clock_gives_are_no_figure(tmp_path: Path) -> None:
    def broken(made: factory.Campaign) -> None:
        times = made.samples["mpi.halo", "steps"][TIME]
        times[:] = [time * 0 for time in times]

    found = of_folder(folder(tmp_path, [1.0] * 8, last={"change": broken}), Asked())
    ((status, _, why),) = told(found)
    assert (status, found.exit_status()) == ("missing in the last run", 3)
    assert "halo/n2/r0: 34 of 34 step times are not above zero: no clock gives that" in why


def test_files_that_cannot_be_read_and_copies_are_named(tmp_path: Path) -> None:
    place = folder(tmp_path, [1.0] * 7)
    shutil.copytree(place / "00-0", place / "copy")
    (place / "bad").mkdir()
    (place / "bad" / "results.h5").write_bytes(b"no")
    newer = place / "newer" / "results.h5"
    newer.parent.mkdir()
    shutil.copy(place / "00-0" / "results.h5", newer)
    with h5py.File(newer, "r+") as file:
        file.attrs["schema_version"] = 99
    found = of_folder(place, Asked())
    assert len(found.runs) == 7
    assert sorted(note.split(": ")[0] for note in found.notes) == ["left out"] * 3
    assert any("is of the same run as" in note for note in found.notes)


def damaged(tmp_path: Path, written_ns: int | None = None) -> Path:
    """Eight good runs and a truncated one, written now or when told."""
    place = folder(tmp_path, [1.0] * 8)
    bad = place / "z9" / "results.h5"
    bad.parent.mkdir()
    bad.write_bytes((place / "00-0" / "results.h5").read_bytes()[:3000])
    if written_ns is not None:
        os.utime(bad, ns=(written_ns, written_ns))
    return place


def test_a_damaged_file_that_may_be_the_last_run_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, out = damaged(tmp_path / "runs"), tmp_path / "t.junit"
    assert main(["trend", str(place), "--json", "--junit", str(out)]) == 3
    data = json.loads(capsys.readouterr().out)
    assert data["headline"] == (
        "not everything could be told: 2 within noise; 1 file that may hold the last run cannot be read"
    )
    (lost,) = data["unread"]
    assert (lost["path"], lost["may_be_last"]) == (str(place / "z9" / "results.h5"), True)
    (entry,) = [e for e in ElementTree.parse(out).iter("testcase") if e.get("classname") == "trend.unread"]
    assert (entry.get("name"), [e.tag for e in entry]) == (lost["path"], ["error", "system-out"])
    assert junit_schema.problems(out.read_text()) == []


def test_a_damaged_file_older_than_the_last_run_is_named_and_judges_nothing(tmp_path: Path) -> None:
    found = of_folder(damaged(tmp_path, written_ns=factory.START_NS), Asked())
    assert ([x.may_be_last for x in found.unread], found.exit_status()) == ([False], 0)
    assert [note.split(": ")[0] for note in found.notes] == ["left out"]


def test_two_campaigns_in_one_folder_are_apart(tmp_path: Path) -> None:
    folder(tmp_path / "a", [1.0] * 7 + [1.0])
    folder(tmp_path / "b", [3.0] * 7 + [3.9], campaign="other", seed=6)
    found = of_folder(tmp_path, Asked())
    assert {(x.campaign, x.status) for x in found.lines if x.metric == TIME} == {
        ("quickstart", "within noise"),
        ("other", "worse"),
    }


def test_the_verb_writes_all_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder(tmp_path / "runs", [1.0] * 8 + [1.2])
    out = {name: str(tmp_path / f"t.{name}") for name in ("junit", "markdown", "html")}
    options = [part for name, path in out.items() for part in (f"--{name}", path)]
    assert main(["trend", str(place), "--json", *options]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["exit_code"], data["counts"]["worse"], len(data["runs"])) == (1, 1, 9)
    assert data["series"][0]["expected"]["verdict"] == "worse"
    assert junit_schema.problems(Path(out["junit"]).read_text()) == []
    assert Path(out["markdown"]).read_text().startswith("### Trend: the last run is worse: 1 worse")
    page = Path(out["html"]).read_text()
    assert page.count("<svg") == 2 and "<script" not in page


@pytest.mark.parametrize(
    "given, message", [("absent", "no such folder"), ("empty", "no results.h5 below it")]
)
def test_a_folder_without_results_is_bad_input(
    given: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["trend", str(tmp_path / given)]) == 2
    assert message in capsys.readouterr().err
