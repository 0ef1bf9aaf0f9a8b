"""What Jenkins' junit-10.xsd allows, as far as an element may hold it: names of children and attributes. Not a test."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_SAID = ({"type", "message"}, set())
ALLOWED: dict[str, tuple[set[str], set[str], set[str]]] = {  # attributes, required ones, children
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id", "package",
         "file", "log", "url"},
        {"name", "tests", "failures", "errors"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"name"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (*_SAID, set()),
    "error": (*_SAID, set()),
    "skipped": (*_SAID, set()),
    "system-out": (set(), set(), set()),
}  # fmt: skip
TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


def problems(document: str) -> list[str]:
    """What in a document the schema does not allow, and totals that do not add up."""
    root = ElementTree.fromstring(document)
    found = [] if root.tag == "testsuites" else [f"root {root.tag}"]
    for element in root.iter():
        if element.tag not in ALLOWED:
            found.append(f"element {element.tag}")
            continue
        attributes, required, children = ALLOWED[element.tag]
        found += [f"{element.tag}: attribute {a}" for a in set(element.attrib) - attributes]
        found += [f"{element.tag}: no attribute {a}" for a in required - set(element.attrib)]
        found += [f"{element.tag}: child {c.tag}" for c in element if c.tag not in children]
        if (
            element.tag != "testcase"
            and "time" in element.attrib
            and not TIME.fullmatch(element.attrib["time"])
        ):
            found.append(f"{element.tag}: time {element.attrib['time']}")
    for suite in root:
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            if int(suite.attrib.get(name, "-1")) != len(suite.findall(f"testcase/{tag}")):
                found.append(f"{name} do not add up")
    return found
