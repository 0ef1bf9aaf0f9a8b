"""JUnit XML, as continuous integration reads it: valid against Jenkins' ``junit-10.xsd``, the common schema.

A fail is a failure; unknown and invalid are errors; what judges nothing is skipped, with the reason. Text is made
legal XML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from analysis.text import clean
from harness.model.verdict import Verdict


@dataclass(frozen=True)
class Entry:
    """One test case; ``verdict`` is None where it was for information."""

    classname: str
    name: str
    verdict: Verdict | None
    message: str
    details: str
    out: str
    time_s: float = 0.0


def _add(suite: ElementTree.Element, test: Entry) -> None:
    attributes = {"classname": clean(test.classname), "name": clean(test.name), "time": f"{test.time_s:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    message, details = clean(test.message), clean(test.details)
    if test.verdict is Verdict.FAIL:
        ElementTree.SubElement(element, "failure", {"type": "fail", "message": message}).text = details
    elif test.verdict in (Verdict.UNKNOWN, Verdict.INVALID):
        kind = {"type": test.verdict.value, "message": message}
        ElementTree.SubElement(element, "error", kind).text = details
    elif test.verdict is None:
        ElementTree.SubElement(element, "skipped", {"message": message})
    ElementTree.SubElement(element, "system-out").text = clean(test.out)


def document(name: str, tests: Sequence[Entry], timestamp: str = "") -> str:
    """One suite as a document; equal tests give equal bytes.

    Args:
        timestamp: when, in UTC, as ``2025-10-09T08:53:20``; left out where it is not known.
    """
    seen = [t.verdict for t in tests]
    totals = {
        "name": clean(name),
        "tests": str(len(tests)),
        "failures": str(seen.count(Verdict.FAIL)),
        "errors": str(seen.count(Verdict.UNKNOWN) + seen.count(Verdict.INVALID)),
        "time": f"{sum(t.time_s for t in tests):.3f}",
    }
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", {**totals, "skipped": str(seen.count(None))})
    if timestamp:
        suite.set("timestamp", timestamp)
    for test in tests:
        _add(suite, test)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
