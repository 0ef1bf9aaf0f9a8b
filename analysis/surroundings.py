"""What a measurement depends on besides what was asked: machines and software. Where two differ, in words.

Hardware: processors, memory, GPUs and kind of machine of the nodes that a case ran on, and what its file is stamped
(emulated, more ranks than cores), since that decides what figures mean, whatever the nodes say of themselves. Software:
kernel, GPU driver and the versions of what its ranks ran on. What nobody recorded cannot be called equal. Other
circumstances (other nodes, site, Slurm, a newer harness) are told and stop nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import text
from analysis.results import CampaignResults, Row, names

MEMORY_ALIKE = 0.02  # equal nodes differ a little in what their kernel leaves
HARDWARE, SOFTWARE, DEFINITION = "hardware", "software", "definition"
KINDS = (HARDWARE, SOFTWARE, DEFINITION)


def kinds(given: str) -> frozenset[str]:
    """Kinds of differences that somebody names: ``hardware,software``.

    Raises:
        ValueError: there is no such kind.
    """
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            raise ValueError(f"{name}: no such difference; there are {', '.join(KINDS)}")
    return frozenset(names)


Facts = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Surroundings:
    """Kinds of machines and of software that cases of one setting ran on; empty where nobody said.

    ``stamp`` is that of their file: why figures of performance judge nothing, empty where they do.
    """

    nodes: frozenset[str]
    hardware: tuple[Facts, ...]
    software: tuple[Facts, ...]
    stamp: str


def _facts_of(recorded: str) -> dict[str, Any]:
    try:
        found = json.loads(recorded or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _hardware(facts: dict[str, Any]) -> Facts:
    held: dict[str, Any] = {
        name: facts[name] for name in ("machine", "cpus", "memory_bytes") if facts.get(name)
    }
    gpus = facts.get("gpus")
    if isinstance(gpus, list):
        kinds = [str(g.get("name")) if isinstance(g, dict) else str(g) for g in gpus]
        held["gpus"] = ", ".join(f"{kinds.count(k)} x {k}" for k in sorted(set(kinds))) or "none"
    return tuple(sorted(held.items()))


def _software(facts: dict[str, Any]) -> Facts:
    held = {name: str(facts[name]) for name in ("kernel", "nvidia_driver") if facts.get(name)}
    versions = facts.get("versions")
    if isinstance(versions, dict):
        held |= {str(name): str(version) for name, version in versions.items()}
    return tuple(sorted(held.items()))


def of_cases(results: CampaignResults, cases: Iterable[Row]) -> Surroundings:
    """What the attempts that completed these cases ran on."""
    hosts: set[str] = set()
    for case in cases:
        attempt = results.completed(case["case_id"])
        hosts |= set(names(attempt["rank_nodes"])) if attempt is not None else set()
    distinct = {
        facts
        for name, facts in zip(results.nodes, results.node_facts, strict=True)
        if name.partition("@")[0] in hosts
    }
    recorded = [_facts_of(facts) for facts in distinct]
    hardware = {h for f in recorded if (h := _hardware(f))}
    software = {s for f in recorded if (s := _software(f))}
    machines, versions = tuple(sorted(hardware, key=str)), tuple(sorted(software, key=str))
    return Surroundings(frozenset(hosts), machines, versions, results.stamp)


def _alike(one: Facts, two: Facts) -> bool:
    a, b = dict(one), dict(two)
    memory = a.pop("memory_bytes", None), b.pop("memory_bytes", None)
    if a != b or (memory[0] is None) != (memory[1] is None):
        return False
    return memory[0] is None or abs(memory[0] - memory[1]) <= MEMORY_ALIKE * max(memory[0], memory[1])


def _value(name: str, value: Any) -> str:
    if value is None:
        return "not recorded"
    return text.size(value) if name == "memory_bytes" else text.one_line(value, 60)


def _named(a: Sequence[Facts], b: Sequence[Facts]) -> str:
    """What differs between kinds of machines: ``cpus 64 in A, 128 in B``."""
    values: dict[str, tuple[set[str], set[str]]] = {}
    for side, kinds in enumerate((a, b)):
        for name in {n for kind in (*a, *b) for n, _ in kind}:
            held = values.setdefault(name, (set(), set()))
            held[side].update(_value(name, dict(kind).get(name)) for kind in kinds)
    found = [
        f"{name} {' and '.join(sorted(one))} in A, {' and '.join(sorted(two))} in B"
        for name, (one, two) in sorted(values.items())
        if one != two
    ]
    return text.one_line("; ".join(found), 400) or "other combinations of the same"


def _difference(what: str, a: Sequence[Facts], b: Sequence[Facts]) -> str:
    """How two sets of kinds differ, in words; empty where they do not."""
    if not a or not b:
        sides = " and ".join(f"in {n}" for n, kinds in (("A", a), ("B", b)) if not kinds)
        return f"{what} not recorded {sides}"
    there = all(any(_alike(x, y) for y in b) for x in a) and all(any(_alike(x, y) for x in a) for y in b)
    return "" if there else f"{what} differs: {_named(a, b)}"


def _stamps(a: Surroundings, b: Surroundings) -> str:
    """How the stamps of two files differ, in words; empty where they do not."""
    if a.stamp == b.stamp:
        return ""
    return f"hardware differs: {a.stamp or 'real'} in A, {b.stamp or 'real'} in B"


def differences(a: Surroundings, b: Surroundings) -> dict[str, str]:
    """HARDWARE and SOFTWARE where they differ, each with the difference in words."""
    hardware = [_stamps(a, b), _difference(HARDWARE, a.hardware, b.hardware)]
    found = {
        HARDWARE: "; ".join(words for words in hardware if words),
        SOFTWARE: _difference(SOFTWARE, a.software, b.software),
    }
    return {kind: words for kind, words in found.items() if words}


def sides(words: str, a: str, b: str) -> str:
    """A difference in words with what A and B are: ``cpus 2 in the baseline, 64 in this run``."""
    return re.sub(r"\bin ([AB])\b", lambda found: a if found[1] == "A" else b, words)


def circumstances(a: CampaignResults, b: CampaignResults) -> list[str]:
    """What differs between two files and stops no comparison."""
    found = []
    for name in (
        "campaign",
        "site",
        "launcher",
        "slurm_version",
        "harness_version",
        "git_commit",
        "schema_version",
    ):
        one, two = a.text(name), b.text(name)
        if one != two:
            found.append(text.one_line(f"{name.replace('_', ' ')}: {one} in A, {two} in B", 200))
    return found
