"""JUnit documents are valid against the common schema, whatever is in them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis.junit import Entry, document
from analysis.results import load
from analysis.summary import junit
from analysis.verdict import judge
from harness.model.verdict import Verdict
from tests.unit import junit_schema
from tests.unit.hostile_factory import hostile


def test_each_verdict_has_its_element() -> None:
    verdicts = [Verdict.PASS, Verdict.FAIL, Verdict.WITHIN_NOISE, Verdict.INVALID, Verdict.UNKNOWN, None]
    made = document("suite", [Entry("c", str(v), v, "message", "details", "out", 1.5) for v in verdicts])
    assert junit_schema.problems(made) == []
    suite = ElementTree.fromstring(made)[0]
    assert [[e.tag for e in case] for case in suite] == [
        ["system-out"],
        ["failure", "system-out"],
        ["system-out"],
        ["error", "system-out"],
        ["error", "system-out"],
        ["skipped", "system-out"],
    ]
    assert suite.attrib == {
        "name": "suite", "tests": "6", "failures": "1", "errors": "2", "skipped": "1", "time": "9.000",
    }  # fmt: skip


def test_the_report_of_a_campaign_is_valid(tmp_path: Path) -> None:
    with load(hostile().write(tmp_path / "r.h5")) as results:
        assert junit_schema.problems(junit(results, judge(results))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        '<testsuites skipped="0"/>',
        "<testsuites><testsuite/></testsuites>",
        "<testsuites><case/></testsuites>",
    ],
)
def test_the_check_itself_finds_what_is_wrong(wrong: str) -> None:
    if "<testsuite/>" in wrong:
        wrong = wrong.replace(
            "<testsuite/>", '<testsuite name="x" tests="1" failures="1" errors="0" skipped="0"/>'
        )
    assert junit_schema.problems(wrong)
