"""Samples by case, attempt, rank, step: what is given back, and that no more of the file is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import analysis
from analysis import slices
from analysis.results import CampaignResults, load
from harness.store import Results, StoreError
from tests.bench import big_results
from tests.unit import results_factory as factory

TRAIN = ("torch.train", "steps")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> CampaignResults:
    """A training and its twin, the training with a second attempt."""
    return load(factory.small().write(tmp_path_factory.mktemp("where") / "results.h5"))


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"case": "train-r0"}, lambda s, i: s["case"] == 0),
        ({"case": ["train-fault/n2/r0"]}, lambda s, i: s["case"] == 1),
        ({"case": ["train-fault-r0", "train-r0"]}, lambda s, i: s["case"] >= 0),
        ({"case": []}, lambda s, i: s["case"] < 0),
        ({"attempt": 1}, lambda s, i: i == 1),
        ({"attempt": [0, 1], "case": "train-fault-r0"}, lambda s, i: s["case"] == 1),
        ({"rank": 1}, lambda s, i: s["rank"] == 1),
        ({"rank": [0, 7]}, lambda s, i: s["rank"] == 0),
        ({"rank": range(1, 9)}, lambda s, i: s["rank"] == 1),
        ({"step": range(4, 9, 2)}, lambda s, i: (s["step"] >= 4) & (s["step"] < 9) & (s["step"] % 2 == 0)),
        ({"rank": np.arange(1, 3)}, lambda s, i: s["rank"] == 1),
        ({"rank": np.int32(1)}, lambda s, i: s["rank"] == 1),
        ({"rank": np.array(1)}, lambda s, i: s["rank"] == 1),
        ({"case": np.array(["train-r0"])}, lambda s, i: s["case"] == 0),
        ({"step_time_ns": {0.5}}, lambda s, i: s["rank"] < 0),
        ({"rank": []}, lambda s, i: s["rank"] < 0),
        ({"step": 5, "rank": 0}, lambda s, i: (s["step"] == 5) & (s["rank"] == 0)),
        ({"case": "train-fault-r0", "attempt": 0, "step": range(20, 99)},
         lambda s, i: (s["case"] == 1) & (i == 0) & (s["step"] >= 20)),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_given_back_and_nothing_else(results: CampaignResults, where, wanted) -> None:
    everything = results.samples(*TRAIN)
    keep = wanted(everything, results.attempt_index(everything["attempt"]))
    found = results.samples(*TRAIN, None, where)
    assert {n: v.tolist() for n, v in found.items()} == {n: v[keep].tolist() for n, v in everything.items()}
    pieces = list(results.pieces(*TRAIN, None, where))
    assert np.concatenate([p["step"] for p in pieces]).tolist() == found["step"].tolist()


def test_columns_are_those_asked_for_and_the_keys(results: CampaignResults) -> None:
    where = {"step": 3}
    assert list(results.samples(*TRAIN, ["step_time_ns"], where)) == [
        "case", "attempt", "rank", "node", "step_time_ns",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["case_samples", "effective", "judged"])
def test_some_columns_are_the_same_as_in_all(results: CampaignResults, method: str) -> None:
    for case in ("train-r0", "train-fault-r0"):
        every = getattr(results, method)(case, "steps")
        some = getattr(results, method)(case, "steps", ["step_time_ns"])
        assert list(some) == ["case", "attempt", "rank", "node", "step_time_ns"]
        assert {n: v.tolist() for n, v in some.items()} == {n: every[n].tolist() for n in some}


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (
            {"case": "train/n2/r7"},
            r"no case 'train/n2/r7'; a case is named by its label or by its id, in brackets here; like it are "
            r".*train/n2/r0 \(train-r0\)",
        ),
        ({"colour": 1}, r"torch\.train/steps has no column \['colour'\]; it has \['case', 'attempt'"),
        ({"rank": "0"}, "where rank = '0': .* a number, a list of numbers, or a range$"),
        ({"rank": ["0", 1]}, r"where rank = \['0', 1\]: "),
        ({"rank": None}, "where rank = None: "),
        ({"step": slice(1, 3)}, r"where step = slice\(1, 3, None\): .* or a range"),
        ({"step": lambda step: step > 1}, "where step = <function "),
        ({"step": {1: 2}}, "where step = {1: 2}: "),
        ({"attempt": "1"}, "where attempt = '1': "),
        ({"case": 0}, "where case = 0: expected a case_id or a list of them"),
        ({"case": slice(1, 3)}, r"where case = slice\(1, 3, None\): expected a case_id"),
        ({"case": range(2)}, r"where case = range\(0, 2\): expected a case_id"),
    ],
)
def test_what_is_not_there_is_said(results: CampaignResults, where, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        results.samples(*TRAIN, None, where)


def test_of_a_large_table_only_the_slice_of_a_case_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big_results.make(tmp_path / "r.h5", 40, 400_000)
    read: list[tuple[str, int]] = []
    column = Results.column

    def counted(self: Results, workload: str, table: str, name: str, part: slice = slice(None)) -> object:
        values = column(self, workload, table, name, part)
        read.append((name, len(values)))
        return values

    monkeypatch.setattr(Results, "column", counted)
    monkeypatch.setattr(slices, "BLOCK", 4000)
    with load(tmp_path / "r.h5") as results:
        case = next(c for c in results.cases[5:] if c["workload"] == "mpi.halo")
        found = results.judged(case["case_id"], "steps", ["step_time_ns"])
        assert set(found["case"]) == {results.cases.index(case)}
        assert {name for name, _ in read} == {"case", "attempt", "rank", "node", "step_time_ns", "step"}
        assert sum(n for _, n in read) < 6 * (4 * case["steps"] + 8000)
        again = len(read)
        results.judged(case["case_id"], "steps", ["step_time_ns"])
        assert len(read) == again  # it is remembered


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big_results.make(tmp_path / "r.h5", 40, 400_000)
    monkeypatch.setattr(slices, "BLOCK", 1000)
    monkeypatch.setattr(slices, "MEMORY_BYTES", 50_000)
    with load(tmp_path / "r.h5") as results:
        whole = results.samples("mpi.halo", "steps")
        for number, case in enumerate(results.cases):
            if case["workload"] == "mpi.halo":
                mine = whole["step_time_ns"][whole["case"] == number]
                assert (
                    results.case_samples(case["case_id"], "steps")["step_time_ns"].tolist() == mine.tolist()
                )
        assert results._samples._bytes <= 50_000


def test_a_frame_has_names_beside_the_numbers(results: CampaignResults) -> None:
    frame = results.frame(*TRAIN, ["step_time_ns"], {"case": "train-fault-r0", "step": 21, "rank": 1})
    assert list(frame.columns) == [
        "case_id", "label", "group", "nodes", "attempt_index", "host", "case", "attempt", "rank", "node",
        "step_time_ns",
    ]  # fmt: skip
    assert frame[["case_id", "label", "nodes", "attempt_index", "host"]].values.tolist() == [
        ["train-fault-r0", "train-fault/n2/r0", 2, 0, "n2"],
        ["train-fault-r0", "train-fault/n2/r0", 2, 1, "n3"],
    ]
    assert frame.attrs["units"]["step_time_ns"] == "ns"


def test_frames_without_pandas_name_the_extra(
    results: CampaignResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(StoreError, match=r"pip install 'hpc-harness\[frames\]'"):
        results.frame(*TRAIN)


def test_the_package_loads_files_whatever_was_imported_before(results: CampaignResults) -> None:
    """And is imported without numpy, h5py or pandas."""
    program = (
        "import sys, analysis\n"
        "assert not {'numpy', 'h5py', 'pandas'} & set(sys.modules)\n"
        "from analysis.results import CampaignResults, load\n"
        "import analysis.results, analysis.report\n"
        f"with analysis.load({str(results.path)!r}) as found: print(len(found.cases), 'pandas' in sys.modules)\n"
        "assert analysis.CampaignResults is CampaignResults\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("2 False\n", "")
    assert callable(analysis.load)
