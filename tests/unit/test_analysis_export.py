"""Every table as CSV and Parquet: the same values, units kept, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import export
from analysis.results import CampaignResults, load
from harness.store import TABLES, StoreError
from tests.unit import results_factory as factory
from tests.unit.hostile_factory import hostile


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> CampaignResults:
    return load(factory.quickstart(1).write(tmp_path_factory.mktemp("export") / "results.h5"))


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("form", export.FORMATS)
def test_every_table_is_there(results: CampaignResults, tmp_path: Path, form: str) -> None:
    paths = export.export(results, tmp_path / "o", form)
    wanted = [*TABLES, *(f"samples.{w}.{t}" for w, t in results.sample_tables)]
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == sorted(p.name for p in paths)
    assert sorted(p.stem for p in paths if p.name != "columns.csv") == sorted(wanted)


def test_samples_as_csv_are_those_of_the_file(results: CampaignResults, tmp_path: Path) -> None:
    (path, _) = export.export(results, tmp_path, "csv", ["samples/torch.train/steps"])
    rows, found = _csv(path), results.samples("torch.train", "steps")
    for column, values in found.items():
        assert [type(v)(row[column]) for row, v in zip(rows, values.tolist(), strict=True)] == values.tolist()
    assert {row["case_id"] for row in rows} == {"train-r0", "train-fault-r0"}
    assert (rows[0]["host"], rows[0]["attempt_index"]) == ("n1", "0")


def test_samples_as_parquet_are_those_of_the_file_with_their_units(
    results: CampaignResults, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (path,) = export.export(results, tmp_path, "parquet", ["samples/torch.train/steps"])
    table, found = parquet.read_table(path), results.samples("torch.train", "steps")
    for column, values in found.items():
        assert table[column].to_pylist() == values.tolist()
    assert table.schema.field("step_time_ns").metadata == {
        b"unit": b"ns", b"type": b"i8", b"direction": b"lower",
        b"definition": b"duration of one step on one rank, checkpoint left out",
    }  # fmt: skip
    assert table.schema.metadata[b"run_id"] == b"20251009-0853-7f3a"
    assert json.loads(table.schema.metadata[b"emulated"]) is True


def test_columns_of_csv_files_are_described_beside_them(results: CampaignResults, tmp_path: Path) -> None:
    export.export(results, tmp_path, "csv", ["attempts", "samples/torch.train/steps"])
    described = {(r["table"], r["column"]): r for r in _csv(tmp_path / "columns.csv")}
    assert described["attempts", "duration_ns"]["unit"] == "ns"
    assert described["samples/torch.train/steps", "step_time_ns"]["direction"] == "lower"
    header = next(csv.reader((tmp_path / "samples.torch.train.steps.csv").open()))
    assert [c for t, c in described if t == "samples/torch.train/steps"] == header


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),
        ("-3.5", "-3.5"),
        ("+7", "+7"),
        ("plain = text", "plain = text"),
        ("", ""),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str, cell: str) -> None:
    assert export.safe(text) == cell


def test_dangerous_text_of_a_file_is_made_safe_in_csv_and_left_alone_when_asked(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.find("cases", case_id="train-r0")["reason"] = '=HYPERLINK("http://evil","x")\n"two" lines'
    with load(campaign.write(tmp_path / "r.h5")) as results:
        export.export(results, tmp_path / "safe", "csv", ["cases"])
        export.export(results, tmp_path / "raw", "csv", ["cases"], raw_text=True)
    assert _csv(tmp_path / "safe/cases.csv")[0]["reason"] == '\'=HYPERLINK("http://evil","x")\n"two" lines'
    assert _csv(tmp_path / "raw/cases.csv")[0]["reason"] == '=HYPERLINK("http://evil","x")\n"two" lines'


def test_a_hostile_campaign_is_exported(tmp_path: Path) -> None:
    with load(hostile().write(tmp_path / "r.h5")) as results:
        for form in export.FORMATS:
            paths = export.export(results, tmp_path / form, form)
            assert {p.parent for p in paths} == {tmp_path / form}


def _command(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analysis.export", str(path), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_takes_conditions(results: CampaignResults, tmp_path: Path) -> None:
    table = "samples/torch.train/steps"
    where = (
        "--where",
        "case=train-fault-r0",
        "--where",
        "attempt=1",
        "--where",
        "rank=0",
        "--where",
        "step=20:23",
    )
    done = _command(results.path, "--to", str(tmp_path), "--table", table, *where)
    assert (done.returncode, done.stderr) == (0, "")
    rows = _csv(tmp_path / "samples.torch.train.steps.csv")
    assert [(r["case_id"], r["attempt_index"], r["rank"], r["step"]) for r in rows] == [
        ("train-fault-r0", "1", "0", step) for step in ("20", "21", "22")
    ]


def test_conditions_follow_one_another_and_a_case_may_be_named_by_its_label(
    results: CampaignResults, tmp_path: Path
) -> None:
    table = "samples/torch.train/steps"
    where = ("--where", "case=train-fault/n2/r0", "attempt=1", "--where", "rank=0", "step=20:23")
    done = _command(results.path, "--to", str(tmp_path), "--table", table, *where)
    assert (done.returncode, done.stderr) == (0, "")
    rows = _csv(tmp_path / "samples.torch.train.steps.csv")
    assert [(r["case_id"], r["step"]) for r in rows] == [("train-fault-r0", s) for s in ("20", "21", "22")]


@pytest.mark.parametrize("table", [(), ("--table", "samples/torch.train/steps")])
def test_no_rows_are_told_with_what_was_asked(
    results: CampaignResults, table: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--where", "case=train-r0", "attempt=7", "step=3:5")
    assert export.main([str(results.path), "--to", str(tmp_path), *table, *where]) == 0
    said = capsys.readouterr().err
    assert said.startswith("no rows with case=train-r0, attempt=7, step=3:5: samples/")
    assert "samples/torch.train/steps" in said and len(said.splitlines()) == 1


BAD = [
    (
        ("--where", "case=nobody"),
        "no case 'nobody'; a case is named by its label or by its id, in brackets here; ",
    ),
    (("--table", "samples/no/such"), "no table ['samples/no/such']; there are ['cases', "),
    (("--where", "colour=3"), "no table of samples has columns ['colour']"),
    (("--where", "step=soon"), "--where step=soon: 'soon' is no number, list of numbers, or range LOW:HIGH"),
    (
        ("--where", "rank=0", "rank=1"),
        "--where rank=1: rank is given twice; several values are rank=VALUE,VALUE",
    ),
    (("--where", "step"), "--where step: expected KEY=VALUE, KEY=VALUE,VALUE or KEY=LOW:HIGH"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_what_cannot_be_exported_is_one_line(
    results: CampaignResults,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export.main([str(results.path), "--to", str(tmp_path / "o"), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1
    assert not list(tmp_path.glob("o/*"))


def test_parquet_without_pyarrow_names_the_extra(
    results: CampaignResults,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert export.main([str(results.path), "--to", str(tmp_path / "o"), "--format", "parquet"]) == 2
    assert "pip install 'hpc-harness[frames]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("o/*"))


def test_a_disk_that_is_full_leaves_the_old_file(results: CampaignResults, tmp_path: Path) -> None:
    """Here a limit on the size of files."""
    (tmp_path / "samples.torch.train.steps.csv").write_text("of yesterday")
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from analysis import export; sys.exit(export.main(sys.argv[1:]))\n"
    )
    arguments = [str(results.path), "--to", str(tmp_path), "--table", "samples/torch.train/steps"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "File too large" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["samples.torch.train.steps.csv"]
    assert (tmp_path / "samples.torch.train.steps.csv").read_text() == "of yesterday"


@pytest.mark.parametrize("where", [{}, {"case": ["train-fault-r0"]}, {"case": "train-fault-r0"}])
def test_samples_have_the_names_of_their_cases_also_where_others_were_not_needed(
    tmp_path: Path, where
) -> None:
    with load(factory.spared().write(tmp_path / "r.h5")) as results:
        (path, _) = export.export(results, tmp_path / "o", "csv", ["samples/torch.train/steps"], where)
        found = results.samples("torch.train", "steps", None, where)
    called = {
        0: ("train-r0", "train/n2/r0"),
        2: ("train-fault-r0", "train-fault/n2/r0"),
    }
    assert [(row["case_id"], row["label"]) for row in _csv(path)] == [
        called[n] for n in found["case"].tolist()
    ]
    assert set(found["case"]) == ({2} if where else {0, 2})


def test_an_attempt_of_a_wrong_type_is_refused_for_every_table(
    results: CampaignResults, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="attempt"):
        export.export(results, tmp_path, "csv", ["checks"], {"attempt": ["0"]})
