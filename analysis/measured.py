"""What a user's program measured: each of its metrics at each of its coordinates, as a median with its range.

A metric is a table of its own, named as it is (``harness.store``). Nothing here knows what a figure means: unit,
direction and definition come from the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from analysis.results import CampaignResults, Row, samples_of
from analysis.series import Summary, summarise
from harness.store import SAMPLE_KEYS, Table

COMMAND = "command"  # the workload that is a program of the user's own
_KEYS = frozenset({"step", *(f.name for f in SAMPLE_KEYS)})
_OWN = ("steps", "progress", "program")  # tables that every program may have


@dataclass(frozen=True)
class Measured:
    """One metric at one place of its coordinates."""

    name: str
    unit: str
    direction: str  # "higher", "lower", or "" where neither is better
    definition: str
    place: tuple[tuple[str, float, str], ...]  # coordinate, value, unit
    values: Summary


def names(results: CampaignResults, case: Row) -> list[str]:
    """The metrics that a case's group recorded: as the campaign declares them, then those of the program alone."""
    home = samples_of(case)
    own = [t for w, t in results.sample_tables if w == home and t not in _OWN and t in results.facts(w, t)]
    declared = _declared(case["command"])
    return sorted(own, key=lambda t: (declared.index(t) if t in declared else len(declared), t))


def _declared(command: str) -> list[str]:
    """Names of the metrics that a command declares; none where the text is no command."""
    try:
        return [str(m["name"]) for m in json.loads(command or "{}").get("metrics", ())]
    except (ValueError, AttributeError, KeyError, TypeError):
        return []


def of_metric(results: CampaignResults, case: Row, name: str) -> list[Measured]:
    """One metric of a case over its judged samples, by ascending coordinates; none where it has no sample.

    Raises:
        StoreError: the samples are damaged.
    """
    home = samples_of(case)
    samples: Table = results.judged(case["case_id"], name)
    facts = results.facts(home, name)
    coordinates = [c for c in facts if c not in _KEYS and c != name]
    if not len(samples[name]):
        return []
    if not coordinates:
        return [_measured(name, facts, (), samples[name])]
    places = np.stack([np.asarray(samples[c], dtype=np.float64) for c in coordinates], axis=1)
    found = []
    for place in np.unique(places, axis=0):
        keep = np.all(places == place, axis=1)
        said = tuple((c, float(v), facts[c].get("unit", "")) for c, v in zip(coordinates, place, strict=True))
        found.append(_measured(name, facts, said, samples[name][keep]))
    return found


def _measured(
    name: str,
    facts: dict[str, dict[str, str]],
    place: tuple[tuple[str, float, str], ...],
    values: Row | object,
) -> Measured:
    own = facts[name]
    return Measured(
        name,
        own.get("unit", ""),
        own.get("direction", ""),
        own.get("definition", ""),
        place,
        summarise(np.asarray(values)),
    )


def of_case(results: CampaignResults, case: Row) -> list[Measured]:
    """Every metric of a case that completed, at every place; none for the harness's own workloads.

    Raises:
        StoreError: the samples are damaged.
    """
    if case["workload"] != COMMAND or results.completed(case["case_id"]) is None:
        return []
    return [m for name in names(results, case) for m in of_metric(results, case, name)]
