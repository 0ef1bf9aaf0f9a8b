"""Which series of two files belong together, and what stands against comparing them, in words.

Settings match by what was asked (group, workload, nodes, ranks ...), never by case id, which also holds seed and
repeat. Where parameters differ, what is left over of both files is paired if that can be done in one way only, and the
difference is named. Two cases of one id with different content are always named. Nothing is compared here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis import surroundings, text
from analysis.repeats import Block, Repeats, Setting, setting_of
from analysis.results import CampaignResults
from analysis.surroundings import DEFINITION

_CONTENT = ("steps", "warmup_steps", "seed", "repeat")  # of a case, besides its setting


@dataclass
class Pair:
    """One setting of A, of B, or of both, and how they differ: kind (``surroundings.KINDS``) -> words."""

    a: Repeats | None
    b: Repeats | None
    differences: dict[str, str] = field(default_factory=dict)

    @property
    def any(self) -> Repeats:
        """That of A, or else of B."""
        found = self.a or self.b
        assert found is not None  # a pair of nothing is never made
        return found


def _params(a: Setting, b: Setting) -> str:
    """How two settings differ in what was given, in words."""
    one, two = a.given, b.given
    found = []
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name):
            sides = [json.dumps(s[name]) if name in s else "absent" for s in (one, two)]
            found.append(text.one_line(f"{name} {sides[0]} in A, {sides[1]} in B", 160))
    return "; ".join(found)


def _agree(a: Setting, b: Setting) -> bool:
    """Whether what both say is equal; one of them may say more."""
    one, two = a.given, b.given
    return all(one[name] == two[name] for name in one.keys() & two.keys())


def _left_over(a: list[Repeats], b: list[Repeats]) -> list[Pair]:
    """Pairs of settings that ask the same question with different parameters; what has no one partner stays alone."""
    pairs, taken = [], set()
    for one in a:
        near = [i for i, two in enumerate(b) if _agree(one.setting, two.setting)]
        if len(near) != 1 and len(a) == len(b) == 1:
            near = [0]
        if len(near) == 1 and near[0] not in taken:
            taken.add(near[0])
            two = b[near[0]]
            words = f"parameters differ: {_params(one.setting, two.setting)}"
            pairs.append(Pair(one, two, {DEFINITION: words}))
        else:
            pairs.append(Pair(one, None))
    return pairs + [Pair(None, two) for i, two in enumerate(b) if i not in taken]


def pairs(a: Mapping[Setting, Repeats], b: Mapping[Setting, Repeats]) -> list[Pair]:
    """Every setting of both files, once, those of A first in their order."""
    found: dict[Setting, Pair] = {s: Pair(a[s], b[s]) for s in a if s in b}
    questions: dict[tuple[object, ...], tuple[list[Repeats], list[Repeats]]] = {}
    for side, settings in enumerate((a, b)):
        for setting, repeats in settings.items():
            if setting not in found:
                questions.setdefault(setting.question, ([], []))[side].append(repeats)
    rest: dict[Setting, Pair] = {}
    for one, two in questions.values():
        for pair in _left_over(one, two):
            rest[pair.any.setting] = pair
    of_a = [found.get(s) or rest[s] for s in a]
    return of_a + [pair for pair in rest.values() if pair.a is None]


def one_id_two_cases(a: CampaignResults, b: CampaignResults) -> dict[Setting, str]:
    """Settings of A with a case whose id stands for something else in B, each in words."""
    found: dict[Setting, str] = {}
    for case in a.cases:
        other = b.case(case["case_id"])
        if other is None:
            continue
        wrong = [f"{n} {case[n]} in A, {other[n]} in B" for n in _CONTENT if case[n] != other[n]]
        one, two = setting_of(case), setting_of(other)
        if one.question != two.question:
            wrong.append(f"{case['label']} in A, {other['label']} in B")
        if one.given != two.given:
            wrong.append(_params(one, two))
        if wrong:
            words = f"case {case['case_id']} is in both files, with another definition: {'; '.join(wrong)}"
            found.setdefault(one, text.one_line(words, 400))
    return found


def named(pair: Pair, a: CampaignResults, b: CampaignResults, changed: Mapping[Setting, str]) -> None:
    """Put into a pair of two usable settings how machines, software and content differ."""
    if pair.a is None or pair.b is None:
        return
    if pair.a.usable and pair.b.usable:
        sides = surroundings.of_cases(a, pair.a.usable), surroundings.of_cases(b, pair.b.usable)
        pair.differences |= surroundings.differences(*sides)
    if words := changed.get(pair.a.setting):
        said = pair.differences.get(DEFINITION)
        pair.differences[DEFINITION] = f"{said}; {words}" if said else words


def definition(a: Block, b: Block) -> tuple[str, str]:
    """How one metric is defined differently in two files: what can be overlooked, and what never."""
    never = [
        f"{name} {one or 'none'} in A, {two or 'none'} in B"
        for name, one, two in (("unit", a.unit, b.unit), ("direction", a.direction, b.direction))
        if one != two
    ]
    words = ""
    if a.definition != b.definition:
        words = f'definition differs: "{a.definition}" in A, "{b.definition}" in B'
    return text.one_line(words, 300), text.one_line("; ".join(never), 200)
