"""Reading a results file by case: effective samples, and words for files that cannot be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import analysis
from analysis.commandline import guarded
from analysis.results import CampaignResults, load, names
from harness.store import StoreError
from tests.unit import results_factory as factory


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> CampaignResults:
    """A training and its twin, the training with a second attempt."""
    return load(factory.small().write(tmp_path_factory.mktemp("load") / "results.h5"))


def test_importing_analysis_draws_nothing_and_needs_no_cluster() -> None:
    heavy = {"torch", "submitit", "mpi4py", "matplotlib", "scipy", "jinja2"}
    program = f"import sys, analysis; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_load_is_offered_by_the_package(results: CampaignResults) -> None:
    with analysis.load(results.path) as again:
        assert [case["case_id"] for case in again.cases] == ["train-r0", "train-fault-r0"]


def test_raw_samples_keep_steps_that_were_done_twice(results: CampaignResults) -> None:
    raw = results.case_samples("train-fault-r0", "steps")
    steps, times = np.unique(raw["step"][raw["rank"] == 0], return_counts=True)
    assert {int(s): int(n) for s, n in zip(steps, times, strict=True) if n > 1} == {20: 2, 21: 2, 22: 2}


def test_effective_samples_are_those_of_the_last_attempt_that_did_the_step(results: CampaignResults) -> None:
    effective = results.effective("train-fault-r0", "steps")
    mine = effective["rank"] == 1
    index = results.attempt_index(effective["attempt"][mine])
    found = dict(zip(effective["step"][mine].tolist(), index.tolist(), strict=True))
    assert found == {step: 0 if step < 20 else 1 for step in range(40)}


def test_judged_samples_leave_the_warm_up_out(results: CampaignResults) -> None:
    assert sorted(set(results.judged("train-r0", "steps")["step"].tolist())) == list(range(3, 40))


def test_a_case_that_never_completed_has_only_raw_samples(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.find("attempts", case_id="train-r0")["outcome"] = "failed"
    with load(campaign.write(tmp_path / "r.h5")) as results:
        assert len(results.case_samples("train-r0", "steps")["step"]) == 0
        assert len(results.case_samples("train-r0", "steps", all_attempts=True)["step"]) == 80


def test_samples_that_were_not_collected_in_order_are_found_by_case(tmp_path: Path) -> None:
    campaign = factory.small()
    for columns in campaign.samples.values():
        for name in columns:
            columns[name].reverse()
    with load(campaign.write(tmp_path / "r.h5")) as results:
        assert len(results.case_samples("train-r0", "steps")["step"]) == 80
        assert len(results.case_samples("train-fault-r0", "steps")["step"]) == 2 * (23 + 20)


def test_missing_attributes_are_unknown(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.attributes = {}
    with load(campaign.write(tmp_path / "r.h5")) as results:
        assert (results.text("site"), results.flag("emulated"), results.stamp) == (
            "unknown",
            None,
            "not known whether emulated",
        )


@pytest.mark.parametrize(
    "value, expected", [('["a","b"]', ("a", "b")), ("{", ()), ('{"a": 1}', ()), ("", ())]
)
def test_names_shows_what_is_a_list_and_nothing_else(value: str, expected: tuple[str, ...]) -> None:
    assert names(value) == expected


def truncated(path: Path) -> None:
    factory.small().write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing(path: Path) -> None:
    pass


def text_file(path: Path) -> None:
    path.write_text("not HDF5")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.mkdir()


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("cases")


def newer(path: Path) -> None:
    factory.small().write(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99


def odd_version(path: Path) -> None:
    factory.small().write(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = np.array([1, 2])


def without_a_table(path: Path) -> None:
    factory.small().write(path)
    with h5py.File(path, "r+") as file:
        del file["checks"]


def without_a_column(path: Path) -> None:
    factory.small().write(path)
    with h5py.File(path, "r+") as file:
        del file["cases/label"]


def table_that_is_a_number(path: Path) -> None:
    factory.small().write(path)
    with h5py.File(path, "r+") as file:
        del file["faults"]
        file["faults"] = 3


DAMAGE = [
    missing, truncated, text_file, empty, folder, foreign, newer, odd_version, without_a_table, without_a_column,
    table_that_is_a_number,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(damage, tmp_path: Path) -> None:
    path = tmp_path / "results.h5"
    damage(path)
    with pytest.raises(StoreError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


MODULES = ["verdict", "scaling", "collectives", "recovery", "report"]


@pytest.mark.parametrize("module", MODULES)
def test_a_truncated_file_is_exit_2_and_one_line_for_every_module(module: str, tmp_path: Path) -> None:
    path = tmp_path / "results.h5"
    truncated(path)
    done = subprocess.run(
        [sys.executable, "-m", f"analysis.{module}", str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert str(path) in done.stderr and "Traceback" not in done.stderr


def test_samples_that_are_damaged_inside_are_told_when_they_are_read(tmp_path: Path) -> None:
    path = factory.small().write(tmp_path / "results.h5")
    with h5py.File(path, "r+") as file:
        dataset = file["samples/torch.train/steps/step_time_ns"]
        offset = dataset.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset + 8)
        raw.write(b"\xff" * 16)
    with load(path) as results, pytest.raises(StoreError, match="damaged"):
        results.case_samples("train-r0", "steps")


def test_a_folder_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> int:
        raise PermissionError(13, "Permission denied", "/somewhere/report.html")

    assert guarded(act) == 2
    assert capsys.readouterr().err == "/somewhere/report.html: Permission denied\n"
