"""Several campaigns in one file: read as any other, provenance kept, contradictions refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from analysis import merge, report, verdict
from analysis.results import load
from harness.store import ADDED, StoreError
from tests.unit import results_factory as factory
from tests.unit.results_tables import ATTRIBUTES, Campaign


def _other() -> Campaign:
    """Another campaign: an all-reduce on two nodes, in a job and on hosts of the same names."""
    campaign = Campaign()
    factory.allreduce(campaign, 2, 0, factory.START_NS + 900 * factory.S)
    campaign.attributes.update(
        campaign="other", run_id="20251010-0900-1111", created_wall_ns=1, git_commit="other"
    )
    return campaign


def _again(**attributes: object) -> Campaign:
    """The first campaign, run again: the same definitions, other results."""
    campaign = factory.small()
    campaign.attributes.update(run_id="20251011-0900-2222", **attributes)
    for name in ("start_wall_ns", "end_wall_ns"):
        for row in campaign.tables["attempts"]:
            row[name] += 5000 * factory.S
    return campaign


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return factory.small().write(tmp_path / "a.h5"), _other().write(tmp_path / "b.h5")


def test_cases_of_both_are_there_with_where_they_came_from(two: tuple[Path, Path], tmp_path: Path) -> None:
    assert merge.merge(tmp_path / "m.h5", two).notes == []
    with load(tmp_path / "m.h5") as merged, load(two[0]) as a, load(two[1]) as b:
        assert [(c["case_id"], c["source"]) for c in merged.cases] == [
            *((c["case_id"], 0) for c in a.cases),
            *((c["case_id"], 1) for c in b.cases),
        ]
        assert [(s["file"], s["run_id"], s["cases"]) for s in merged.sources] == [
            ("a.h5", "20251009-0853-7f3a", 2),
            ("b.h5", "20251010-0900-1111", 1),
        ]
        assert [json.loads(s["attributes"])["git_commit"] for s in merged.sources] == [
            a.attributes["git_commit"],
            "other",
        ]
        shown = {
            n: merged.attributes.get(n) for n in ("campaign", "git_commit", "site", "emulated", "merged")
        }
        assert shown == {
            "campaign": "quickstart + other", "git_commit": None, "site": "emulated", "emulated": True, "merged": 2,
        }  # fmt: skip


def test_every_case_is_read_and_judged_as_in_its_own_file(two: tuple[Path, Path], tmp_path: Path) -> None:
    merge.merge(tmp_path / "m.h5", two)
    with load(tmp_path / "m.h5") as merged:
        found = {v.case_id: (v.verdict, v.why) for v in verdict.judge(merged)}
        for path in two:
            with load(path) as own:
                assert {v.case_id: (v.verdict, v.why) for v in verdict.judge(own)}.items() <= found.items()
                for case in own.cases:
                    for _, table in own.sample_tables:
                        if own.has_samples(case["workload"], table):
                            mine, theirs = (r.case_samples(case["case_id"], table) for r in (own, merged))
                            for column in set(mine) - {"case", "attempt", "node"}:
                                assert mine[column].tolist() == theirs[column].tolist()
                            assert [own.nodes[n] for n in mine["node"]] == [
                                merged.nodes[n].partition("@")[0] for n in theirs["node"]
                            ]
                            assert own.attempt_index(mine["attempt"]).tolist() == (
                                merged.attempt_index(theirs["attempt"]).tolist()
                            )


def test_what_two_runs_call_alike_is_told_apart(two: tuple[Path, Path], tmp_path: Path) -> None:
    merge.merge(tmp_path / "m.h5", two)
    with load(tmp_path / "m.h5") as merged:
        keys = [job["job_key"] for job in merged.jobs]
        assert len(keys) == len(set(keys)) and "0001@20251010-0900-1111" in keys
        assert {"n1", "n1@20251010-0900-1111"} <= set(merged.nodes)
        assert len(merged.nodes) == len(set(merged.nodes))
        assert {a["job_key"] for a in merged.attempts} <= set(keys)
        assert {e["host"] for e in merged.events} <= set(merged.nodes)


def test_a_report_of_a_merged_file_is_written(two: tuple[Path, Path], tmp_path: Path) -> None:
    merge.merge(tmp_path / "m.h5", two)
    assert report.main([str(tmp_path / "m.h5"), "--out", str(tmp_path / "o")]) in (0, 1)
    assert "quickstart + other" in (tmp_path / "o" / "report.html").read_text()


def test_the_same_case_with_the_same_content_is_taken_once(tmp_path: Path) -> None:
    a = factory.small().write(tmp_path / "a.h5")
    both = factory.small()
    both.attributes["run_id"] = "another"
    factory.allreduce(both, 2, 0, factory.START_NS)
    b = both.write(tmp_path / "b.h5")
    assert merge.merge(tmp_path / "m.h5", [a, b]).notes == [
        f"{b}: 2 cases are in another file too, with the same content; taken once"
    ]
    with load(tmp_path / "m.h5") as merged:
        assert [c["source"] for c in merged.cases] == [0, 0, 1]
        assert [s["cases"] for s in merged.sources] == [2, 1]


def test_one_id_with_two_definitions_is_refused_by_name(tmp_path: Path) -> None:
    a = factory.small().write(tmp_path / "a.h5")
    other = _again()
    other.find("cases", case_id="train-r0")["steps"] = 41
    b = other.write(tmp_path / "b.h5")
    with pytest.raises(StoreError) as caught:
        merge.merge(tmp_path / "m.h5", [a, b], keep_both=True)
    assert str(caught.value) == (
        f"one id, and another definition of the case: train-r0 (train/n2/r0): steps in {b} and {a}"
    )
    assert not (tmp_path / "m.h5").exists()


def test_a_campaign_that_was_run_twice_is_refused_or_both_are_kept(tmp_path: Path) -> None:
    a, b = factory.small().write(tmp_path / "a.h5"), _again().write(tmp_path / "b.h5")
    with pytest.raises(
        StoreError, match=r"other results \(its campaign was run again\): train-r0 \(.*--keep-both"
    ):
        merge.merge(tmp_path / "m.h5", [a, b])
    merge.merge(tmp_path / "m.h5", [a, b], keep_both=True)
    with load(tmp_path / "m.h5") as merged:
        at = "@20251011-0900-2222"
        assert [c["case_id"] for c in merged.cases] == [
            "train-r0", "train-fault-r0", f"train-r0{at}", f"train-fault-r0{at}",
        ]  # fmt: skip
        assert [c["twin"] for c in merged.cases[1::2]] == ["train-r0", f"train-r0{at}"]
        assert len(merged.case_samples(f"train-r0{at}", "steps")["step"]) == 80
        assert len({v.verdict for v in verdict.judge(merged)}) == 1


def test_of_a_run_that_was_collected_twice_the_last_one_counts(tmp_path: Path) -> None:
    a = factory.small().write(tmp_path / "a.h5")
    later = _again()
    later.attributes.update(run_id=ATTRIBUTES["run_id"], collected_wall_ns=factory.START_NS * 2)
    b = later.write(tmp_path / "b.h5")
    assert merge.merge(tmp_path / "m.h5", [a, b]).notes == [
        f"{a}: run 20251009-0853-7f3a as it was collected earlier than in {b}; left out"
    ]
    with load(tmp_path / "m.h5") as merged:
        assert [c["source"] for c in merged.cases] == [1, 1]
        assert merged.attempts[0]["start_wall_ns"] == later.tables["attempts"][0]["start_wall_ns"]


def test_emulated_and_real_figures_are_merged_only_when_told_so_and_then_all_are_stamped(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    real = _other()
    real.attributes["emulated"] = False
    b = real.write(tmp_path / "real.h5")
    with pytest.raises(
        StoreError, match=r"these files do not count alike: .*a\.h5: emulated; .*real\.h5: real figures"
    ):
        merge.merge(tmp_path / "m.h5", [two[0], b])
    merge.merge(tmp_path / "m.h5", [two[0], b], mixed=True)
    with load(tmp_path / "m.h5") as merged:
        assert merged.stamp == "emulated"


def test_a_table_that_is_defined_otherwise_is_refused_with_its_columns(tmp_path: Path) -> None:
    a = factory.small().write(tmp_path / "a.h5")
    b = _again().write(tmp_path / "b.h5")
    with h5py.File(b, "r+") as file:
        file["samples/torch.train/steps/step_time_ns"].attrs["unit"] = "us"
    with pytest.raises(
        StoreError, match=r"samples torch\.train/steps: columns \['step_time_ns'\] are not the same"
    ):
        merge.merge(tmp_path / "m.h5", [a, b], keep_both=True)
    assert not (tmp_path / "m.h5").exists()


def test_a_file_of_an_older_version_is_merged(two: tuple[Path, Path], tmp_path: Path) -> None:
    with h5py.File(two[1], "r+") as file:
        file.attrs["schema_version"] = 2
        for version in (3, 4):
            for table, column in ADDED[version]:
                del file[f"{table}/{column}" if column else table]
    merge.merge(tmp_path / "m.h5", two)
    with load(tmp_path / "m.h5") as merged:
        assert [s["schema_version"] for s in merged.sources] == [4, 2]
        assert [c["source"] for c in merged.cases] == [0, 0, 1]


def test_merged_files_can_be_merged_and_every_source_is_kept(two: tuple[Path, Path], tmp_path: Path) -> None:
    merge.merge(tmp_path / "m.h5", two)
    c = _again().write(tmp_path / "c.h5")
    merge.merge(tmp_path / "all.h5", [c, tmp_path / "m.h5"], keep_both=True)
    with load(tmp_path / "all.h5") as merged:
        assert [s["file"] for s in merged.sources] == ["c.h5", "m.h5", "a.h5", "b.h5"]
        assert [merged.sources[case["source"]]["file"] for case in merged.cases] == [
            "c.h5", "c.h5", "a.h5", "a.h5", "b.h5",
        ]  # fmt: skip


def test_a_file_that_is_there_is_not_replaced_by_mistake(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As when the name of the new file was forgotten."""
    before = two[0].read_bytes()
    assert merge.main([str(path) for path in two]) == 2
    assert capsys.readouterr().err == (
        f"{two[0]}: is there already; choose another name, or give --force to replace it\n"
    )
    assert two[0].read_bytes() == before


@pytest.mark.parametrize("link", [False, True])
def test_a_file_that_is_merged_is_never_replaced(
    link: bool, two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = two[0].read_bytes(), two[0]
    if link:
        out = tmp_path / "link.h5"
        out.symlink_to(two[0])
    assert merge.main([str(out), *map(str, two), "--force"]) == 2
    assert capsys.readouterr().err == (
        f"{out}: is one of the files to merge, and would be lost; choose another name\n"
    )
    assert two[0].read_bytes() == before


def test_a_file_given_twice_or_copied_is_taken_once(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, out = tmp_path / "copy.h5", tmp_path / "m.h5"
    copy.write_bytes(two[0].read_bytes())
    assert merge.main([str(out), str(two[0]), str(two[0]), str(copy)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{two[0]}: given more than once; taken once",
        f"{copy}: a copy of {two[0]}; left out",
        f"{out}: 2 cases from 1 file",
    ]


def test_repeats_that_were_not_needed_stay_so_and_others_keep_their_samples(tmp_path: Path) -> None:
    paths = [factory.spared().write(tmp_path / "a.h5"), _other().write(tmp_path / "b.h5")]
    merge.merge(tmp_path / "m.h5", paths)
    with load(tmp_path / "m.h5") as merged, load(paths[0]) as own:
        assert [c["case_id"] for c in merged.not_needed] == ["train-r1"]
        assert [c["case_id"] for c in merged.cases] == ["train-r0", "train-fault-r0", "allreduce-n2-r0"]
        assert [s["cases"] for s in merged.sources] == [3, 1]
        for case in own.cases:
            mine, theirs = (r.case_samples(case["case_id"], "steps") for r in (own, merged))
            assert {n: mine[n].tolist() for n in set(mine) - {"node", "attempt"}} == {
                n: theirs[n].tolist() for n in set(theirs) - {"node", "attempt"}
            }
            assert len(mine["step"])


def test_a_case_not_needed_in_one_run_and_run_in_another_is_refused_or_kept_twice(tmp_path: Path) -> None:
    ran = factory.spared()
    ran.attributes.update(run_id="20251011-0900-2222")
    ran.find("cases", case_id="train-r1").update(outcome="failed", reason="no memory")
    paths = [factory.spared().write(tmp_path / "a.h5"), ran.write(tmp_path / "b.h5")]
    with pytest.raises(StoreError, match=r"other results .*: train-r1 \(train/n2/r1\)"):
        merge.merge(tmp_path / "m.h5", paths)
    merge.merge(tmp_path / "m.h5", paths, keep_both=True)
    with load(tmp_path / "m.h5") as merged:
        assert [c["case_id"] for c in merged.not_needed] == ["train-r1"]
        assert [c["case_id"] for c in merged.cases][2:] == ["train-r1@20251011-0900-2222"]
