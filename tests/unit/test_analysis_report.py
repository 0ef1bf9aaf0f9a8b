"""The report: what it holds, that nothing in a results file can do more than be read, and that a browser likes it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import casepage, page, report, text
from analysis.report import Paths
from analysis.results import CampaignResults, load
from analysis.verdict import CaseVerdict, judge
from harness.model.verdict import Verdict
from harness.store import StoreError
from tests.unit import hostile_factory
from tests.unit import results_factory as factory
from tests.unit.results_tables import FACTS


class Reader(HTMLParser):
    """What a browser would make of a page: its elements with attributes, its scripts, its text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        if tag in ("td", "th", "dt"):
            self.text += " "  # a browser shows them apart

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


def wrong() -> factory.Campaign:
    """One case of each verdict: pass, fail, invalid, unknown."""
    campaign = factory.quickstart(repeats=2)
    campaign.attributes["description"] = ""
    rows = campaign.tables["cases"]
    rows[:] = [c for c in rows if c["workload"] == "torch.train"]  # samples keep their old row numbers
    campaign.samples.clear()
    campaign.find("checks", case_id="train-r1", rank=1).update(passed=False, observed="batch 7 in step 8")
    campaign.find("faults", case_id="train-fault-r0").update(observed=False)
    campaign.find("cases", case_id="train-fault-r1").update(
        evidence="unknown: rank 1 did not close its records"
    )
    return campaign


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The report of a campaign in which every case passes."""
    folder = tmp_path_factory.mktemp("report")
    return report.write(factory.quickstart().write(folder / "results.h5"), folder / "out")


def test_three_files_are_written_into_a_folder_that_is_made(quickstart: Paths) -> None:
    folder = quickstart.report_html.parent
    assert sorted(p.name for p in folder.iterdir()) == ["junit.xml", "report.html", "summary.json"]
    assert quickstart == Paths(folder / "report.html", folder / "junit.xml", folder / "summary.json")


def test_the_same_file_gives_the_same_bytes(quickstart: Paths, tmp_path: Path) -> None:
    again = report.write(factory.quickstart().write(tmp_path / "results.h5"))
    for a, b in (
        (quickstart.report_html, again.report_html),
        (quickstart.junit_xml, again.junit_xml),
        (quickstart.summary_json, again.summary_json),
    ):
        assert a.read_bytes() == b.read_bytes()


def test_the_page_asks_for_nothing_outside_itself(quickstart: Paths) -> None:
    source = quickstart.report_html.read_text(encoding="utf-8")
    read = Reader(source)
    links = {v for _, attrs in read.elements for n, v in attrs.items() if n in ("href", "src", "xlink:href")}
    assert re.findall(r"https?://", source) == []
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    assert {tag for tag, _ in read.elements} & {"img", "iframe", "object", "embed", "form", "base"} == set()


def test_ids_are_unique_and_every_link_of_the_page_arrives(quickstart: Paths) -> None:
    read = Reader(quickstart.report_html.read_text(encoding="utf-8"))
    ids = [attrs["id"] for _, attrs in read.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in read.elements if (a.get("href") or "").startswith("#")}  # type: ignore[index]
    assert targets <= set(ids)


def test_the_page_tells_what_a_reader_looks_for(quickstart: Paths) -> None:
    words = " ".join(Reader(quickstart.report_html.read_text(encoding="utf-8")).text.split())
    for expected in (
        "All 33 cases pass",
        "Emulated cluster.",
        "train-fault/n2/r0 recovered from 1 fault in 9.00 s (5.83 s of it in the queue), 1 restart",
        "5.83 sof it waiting for Slurm, median of 3 3.17 srestart work, the rest, median of 3",
        "Where the time to recover went: restart work 3.17 s, the queue 5.83 s",
        "768 ms detect: until the broken attempt had ended 5.83 s queue: waiting for Slurm to run the job again "
        "2.04 s start: start and load, to the first new step 360 ms recompute: until past the highest step before",
        "n1, n2, n3, n4 4 nodes, as they said while the campaign ran kernel 6.1.0 cpus 2 memory 8 GiB torch 2.4.1+cpu",
        "one rank: nothing is sent;",
        "4 answers equal to those of its twin train/n2/r0, bit for bit",
        "Amdahl has the lowest AICc",
        "requested −80.0 ms",
        "observed +900 ms",
        "healed +12.0 s",
        "0 node lost 129 129.0, 129.1 n1 (0), n2 (1) 0 to 22",
        "gpu absent on 4 nodes (n1, n2, n3, n4): NVML: Driver Not Loaded",
        "harness run configs/campaigns/quickstart.yaml --site emulated",
        "exec python -m harness.runtime.supervisor '/shared/my runs' 0001",
        "git commit 3f9c1d2e4b5a69788796a5b4c3d2e1f001122334",
    ):
        assert expected in words, expected


def test_a_campaign_of_local_processes_says_so(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.attributes.update(launcher="local", emulated=False, site_kind="local")
    paths = report.write(campaign.write(tmp_path / "r.h5"))
    words = Reader(paths.report_html.read_text(encoding="utf-8")).text
    assert "Local processes: no Slurm." in words and "Emulated cluster." not in words


def test_a_real_cluster_has_no_banner(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.attributes.update(emulated=False, site_kind="production")
    source = report.write(campaign.write(tmp_path / "r.h5")).report_html.read_text(encoding="utf-8")
    assert 'class="banner"' not in source


def test_a_campaign_without_a_case_has_a_report(tmp_path: Path) -> None:
    campaign = factory.Campaign(attributes={})
    paths = report.write(campaign.write(tmp_path / "r.h5"))
    assert "No case in this file" in paths.report_html.read_text(encoding="utf-8")
    assert json.loads(paths.summary_json.read_text())["exit_code"] == 3


def test_cases_that_never_ran_have_a_report(tmp_path: Path) -> None:
    campaign = factory.quickstart(repeats=1)
    for name in ("attempts", "events", "checks", "streams", "faults", "nodes", "jobs", "telemetry_absent"):
        campaign.tables[name].clear()
    campaign.samples.clear()
    words = Reader(
        report.write(campaign.write(tmp_path / "r.h5")).report_html.read_text(encoding="utf-8")
    ).text
    assert "Nothing failed, but 11 of 11 cases cannot be called a pass" in words


@pytest.mark.parametrize(
    "counts, words",
    [
        ({"pass": 2, "fail": 1, "within noise": 0, "invalid": 1, "unknown": 0}, "1 of 4 cases failed"),
        (
            {"pass": 2, "fail": 0, "within noise": 0, "invalid": 1, "unknown": 1},
            "Nothing failed, but 2 of 4 cases cannot be called a pass",
        ),
        ({"pass": 1, "fail": 0, "within noise": 0, "invalid": 0, "unknown": 0}, "The case passes"),
        ({"pass": 0, "fail": 0, "within noise": 0, "invalid": 0, "unknown": 0}, "No case in this file"),
    ],
)
def test_the_headline(counts: dict[str, int], words: str) -> None:
    assert casepage.headline(counts) == words


def tiles(path: Path) -> list[tuple[str, str]]:
    """Verdict and count of each tile; as many cases as it counts are there to be filtered by it."""
    source = path.read_text(encoding="utf-8")
    found = re.findall(r'data-filter="([^"]+)"[^>]*>\s*<b>(\d+)</b>', source)
    for css, count in found:
        assert len(re.findall(rf'data-verdict="{css}"', source)) == int(count)
    return found


def test_every_verdict_that_a_case_has_got_a_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickstart: Paths
) -> None:
    assert tiles(quickstart.report_html) == [("pass", "33"), ("fail", "0"), ("unknown", "0")]
    path = wrong().write(tmp_path / "r.h5")
    one_each = [("pass", "1"), ("fail", "1"), ("invalid", "1"), ("unknown", "1")]
    assert tiles(report.write(path).report_html) == one_each

    def near(results: CampaignResults) -> tuple[CaseVerdict, ...]:
        first, *others = judge(results)
        return replace(first, verdict=Verdict.WITHIN_NOISE), *others

    monkeypatch.setattr(report, "judge", near)
    assert tiles(report.write(path).report_html) == [("pass", "0"), *one_each[1:], ("within-noise", "1")]


def test_nodes_that_said_the_same_stand_together(tmp_path: Path) -> None:
    campaign = factory.small()
    gpus = [
        {"name": "NVIDIA H200", "uuid": "GPU-1"},
        {"name": "NVIDIA H200", "uuid": "GPU-2"},
        {"name": None},
    ]
    facts = {
        "kernel": "6.1.0",
        "nvidia_driver": None,
        "gpus": gpus,
        "versions": {"kernel": "6.1.0", "mpi": "4.1"},
    }
    campaign.find("nodes", name="n2")["facts"] = json.dumps(facts)
    campaign.find("nodes", name="n3")["facts"] = "{}"
    campaign.add("nodes", name="n4", facts=json.dumps(FACTS))
    campaign.add("nodes", name="n5", facts="[broken")
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = page.contents(results, judge(results))["nodes"]
    told = [("kernel", "6.1.0"), ("cpus", "2"), ("memory", "8 GiB"), ("torch", "2.4.1+cpu")]
    said = [("kernel", "6.1.0"), ("nvidia driver", "unknown"), ("GPUs", "2 of NVIDIA H200, 1 of unknown"),
            ("mpi", "4.1")]  # fmt: skip
    assert [(group["names"], list(group["rows"])) for group in found] == [
        (["n1", "n4"], told), (["n2"], said), (["n3"], []), (["n5"], [("", "[broken")]),
    ]  # fmt: skip


def test_versions_are_told_apart_where_ranks_disagree(tmp_path: Path) -> None:
    campaign = factory.small()
    case = campaign.find("cases", case_id="train-r0")
    for rank, torch in ((0, "2.4.1"), (1, "2.5.0")):
        versions = {"python": "3.11.2", "torch": torch}
        campaign.event(case, 0, rank, "rank.started", factory.START_NS, "n1", versions=versions)
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = page.contents(results, judge(results))["versions"]
    assert found == [("torch", "2.4.1 (1 rank on n1); 2.5.0 (1 rank on n1)")]


def test_ranks_of_a_host_are_told_in_spans() -> None:
    assert casepage.hosts('["a","a","b","a","b","b"]') == [("a", "0-1, 3"), ("b", "2, 4-5")]


# --- for machines --------------------------------------------------------------------------------------------

SUMMARY = {
    "schema": 1, "campaign": "quickstart", "run_id": "20251009-0853-7f3a", "site": "emulated", "launcher": "slurm",
    "stamp": "emulated", "exit_code": 1,
    "counts": {"pass": 1, "fail": 1, "within noise": 0, "invalid": 1, "unknown": 1},
    "cases": [
        {"case_id": "train-r0", "label": "train/n2/r0", "verdict": "pass",
         "key_figure": "no figure: no steps recorded", "why": "2 checks of the answer hold on both ranks",
         "evidence": ["completed in attempt 0, 1 attempt in all", "2 streams of samples, whole", "2 ranks on n1, n2",
                      "pass: 2 checks of the answer hold on both ranks"]},
        {"case_id": "train-fault-r0", "label": "train-fault/n2/r0", "verdict": "invalid",
         "key_figure": "0 of 1 fault known to have been recovered from, 1 restart",
         "why": "fault f0 (node.power_off on node n2) was requested, but its effect was not observed",
         "evidence": ["completed in attempt 1, 2 attempts in all",
                      "samples of n2 in attempt 0 end early: the machine took that attempt", "2 ranks on n1, n3",
                      "invalid: fault f0 (node.power_off on node n2) was requested, but its effect was not observed",
                      "pass: 4 answers equal to those of its twin train/n2/r0, bit for bit",
                      "pass: state of step 20 restored on 2 ranks with the digest that was committed",
                      "pass: 2 checks of the answer hold on both ranks"]},
        {"case_id": "train-r1", "label": "train/n2/r1", "verdict": "fail",
         "key_figure": "no figure: no steps recorded",
         "why": "check \"every batch once\" failed on rank 1: expected batch n in step n, observed batch 7 in step 8",
         "evidence": ["completed in attempt 0, 1 attempt in all", "2 streams of samples, whole", "2 ranks on n1, n2",
                      "fail: check \"every batch once\" failed on rank 1: expected batch n in step n, "
                      "observed batch 7 in step 8"]},
        {"case_id": "train-fault-r1", "label": "train-fault/n2/r1", "verdict": "unknown",
         "key_figure": "recovered from 1 fault in 9.00 s (5.83 s of it in the queue), 1 restart",
         "why": "evidence is not complete: rank 1 did not close its records",
         "evidence": ["completed in attempt 1, 2 attempts in all",
                      "unknown: evidence is not complete: rank 1 did not close its records",
                      "samples of n2 in attempt 0 end early, as expected: the fault took the node", "2 ranks on n1, n3",
                      "pass: fault f0 (node.power_off on node n2) requested, observed, healed; recovered in 9.00 s",
                      "pass: 4 answers equal to those of its twin train/n2/r1, bit for bit",
                      "pass: state of step 20 restored on 2 ranks with the digest that was committed",
                      "pass: 2 checks of the answer hold on both ranks"]},
    ],
}  # fmt: skip


def test_summary_json_is_whole(tmp_path: Path) -> None:
    paths = report.write(wrong().write(tmp_path / "r.h5"))
    assert json.loads(paths.summary_json.read_text(encoding="ascii")) == SUMMARY


def test_junit_xml_is_whole(tmp_path: Path) -> None:
    paths = report.write(wrong().write(tmp_path / "r.h5"))
    root = ElementTree.fromstring(paths.junit_xml.read_bytes())
    totals = {
        "name": "quickstart",
        "tests": "4",
        "failures": "1",
        "errors": "2",
        "time": "30.000",
    }
    assert (root.tag, root.attrib) == ("testsuites", totals)
    (suite,) = root
    assert (suite.tag, suite.attrib) == (
        "testsuite",
        {**totals, "skipped": "0", "timestamp": "2025-10-09T08:57:20"},
    )
    element = {"fail": ("failure", "fail"), "unknown": ("error", "unknown"), "invalid": ("error", "invalid")}
    cases: list[dict[str, object]] = SUMMARY["cases"]  # type: ignore[assignment]
    for test, case, seconds in zip(suite, cases, ("6.000", "9.000", "6.000", "9.000"), strict=True):
        assert test.attrib == {"classname": "quickstart.torch.train", "name": case["label"], "time": seconds}
        details = "\n".join(case["evidence"])  # type: ignore[arg-type]
        expected = [("system-out", {}, f"{case['key_figure']}\n{details}")]
        if case["verdict"] != "pass":
            tag, kind = element[str(case["verdict"])]
            expected.insert(0, (tag, {"type": kind, "message": case["why"]}, details))
        assert [(e.tag, e.attrib, e.text) for e in test] == expected


def test_the_command_prints_the_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(factory.small().write(tmp_path / "r.h5"))
    assert report.main([path, "--out", str(tmp_path / "o"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "report": str(tmp_path / "o/report.html"),
        "junit": str(tmp_path / "o/junit.xml"),
        "summary": str(tmp_path / "o/summary.json"),
    }


def test_nothing_half_done_is_left_where_the_folder_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = factory.small().write(tmp_path / "r.h5")
    (tmp_path / "o").write_text("in the way")
    assert report.main([str(path), "--out", str(tmp_path / "o")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o", "r.h5"]


def test_damaged_samples_leave_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise StoreError("samples are damaged")

    path = factory.small().write(tmp_path / "r.h5")
    monkeypatch.setattr(CampaignResults, "_read", damaged)
    assert report.main([str(path), "--out", str(tmp_path / "o")]) == 2
    assert not (tmp_path / "o").exists()


# --- hostile input -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The report of a campaign in which every text is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    return report.write(hostile_factory.hostile().write(folder / "results.h5"))


def test_a_hostile_campaign_is_judged_as_usual(tmp_path: Path) -> None:
    with load(hostile_factory.hostile().write(tmp_path / "r.h5")) as results:
        found = {v.case_id: v.verdict for v in judge(results)}
    assert found["train-r0"] is Verdict.FAIL  # the hostile check failed
    assert found["halo-strong-n1-r0"] is Verdict.PASS


def test_hostile_text_is_text(hostile: Paths) -> None:
    read = Reader(hostile.report_html.read_text(encoding="utf-8"))
    template = Path(report.__file__).parent / "templates" / "report.js"
    assert read.scripts == [template.read_text(encoding="utf-8")]
    assert [n for _, attrs in read.elements for n in attrs if n.startswith("on")] == []
    assert {tag for tag, _ in read.elements} & {"img", "iframe", "object", "embed", "form", "base"} == set()
    assert "<script>document.documentElement.dataset.pwned='1'</script>" in read.text
    assert "{{ 7*7 }} {% raw %}" in read.text and "Größe 数 😀" in read.text


def test_hostile_text_does_not_leave_its_figure(hostile: Paths) -> None:
    source = hostile.report_html.read_text(encoding="utf-8")
    assert source.count("<svg") == source.count("</svg>")
    labels = [a["aria-label"] or "" for tag, a in Reader(source).elements if tag == "svg"]
    assert any("<img" in label for label in labels)  # as the value of an attribute, which is text


@pytest.mark.parametrize("name", ["report_html", "junit_xml", "summary_json"])
def test_no_control_character_arrives_anywhere(hostile: Paths, name: str) -> None:
    content = getattr(hostile, name).read_text(encoding="utf-8")
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ufffe]", content) == []


def test_hostile_junit_is_xml(hostile: Paths) -> None:
    root = ElementTree.fromstring(hostile.junit_xml.read_bytes())
    assert len(root.findall(".//testcase")) == 5


def test_clean_keeps_lines_and_replaces_controls() -> None:
    assert text.clean("a\tb\r\nc\x1b[0m\u202ed\ud800") == "a\tb\nc\ufffd[0m\ufffdd\ufffd"
