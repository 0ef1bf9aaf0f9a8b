"""``-s PATH=VALUE``: values of a campaign file that a command line changes, before they are checked. Pure.

    -s seed=3                           a key of the campaign
    -s limits.max_node_hours=5          made where it is missing
    -s groups[0].repeats=5              a group by its number
    -s groups.allreduce.repeats=5       a group by its name
    -s scaling.nodes=[1,2,4]            a key of groups: in every group that has it already

The value is YAML. Whether it is right is checked with everything else, and a message about it names the
override in the place of a file. Nothing is removed; ``null`` stands for a key that was left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from harness.document import Document, Spot
from harness.model.campaign import Campaign, Group
from harness.model.fields import NOTHING, Finding, Loc, did_you_mean, place
from harness.source import parse

_PART = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]{1,6})\]")
_SHOWN = 80  # characters of an override that a message quotes

_NEVER = ("schema_version", "include")  # done when a file is read
_OF_CAMPAIGNS = [name for name in Campaign.model_fields if name not in _NEVER]
_OF_GROUPS = [name for name in Group.model_fields if name not in _OF_CAMPAIGNS]


class _Wrong(Exception):
    """An override cannot be applied."""

    def __init__(self, text: str, loc: Loc = ()) -> None:
        super().__init__(text)
        self.text, self.loc = text, loc


def apply(document: Document, overrides: Sequence[str]) -> Document:
    """The document with the overrides in it, one after the other; those that are wrong are findings."""
    if not isinstance(document.data, dict):
        return Document(document.data, document.spots, document.findings, document.files, tuple(overrides))
    data, spots = document.data, dict(document.spots)
    findings = [*document.findings]
    for text in overrides:
        spot = Spot(_source(text))
        try:
            path, value = _split(text)
            for loc in _targets(path, data):
                data = _put(data, loc, value, ())
                for old in [old for old in spots if old[: len(loc)] == loc]:
                    del spots[old]
                for length in range(1, len(loc) + 1):  # keys on the way that were made are its own too
                    spots.setdefault(loc[:length], spot)
        except _Wrong as wrong:
            findings.append((spot, Finding(wrong.loc, wrong.text)))
    return Document(data, spots, tuple(findings), document.files, tuple(overrides))


def touched(document: Document, text: str) -> list[str]:
    """Names of the groups that an override of theirs has changed; none for one of the campaign itself."""
    groups = document.data.get("groups") if isinstance(document.data, dict) else ()
    spot = _source(text)
    return [
        str(group.get("name", index)) if isinstance(group, dict) else str(index)
        for index, group in enumerate(groups if isinstance(groups, tuple) else ())
        if any(loc[:2] == ("groups", index) and s.path == spot for loc, s in document.spots.items())
    ]


def _source(text: str) -> str:
    return f"-s {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}"


def _split(text: str) -> tuple[str, Any]:
    path, sign, written = text.partition("=")
    if not sign:
        raise _Wrong("is no override; write PATH=VALUE, such as groups.NAME.repeats=5")
    source = parse(written)
    if source.findings:
        raise _Wrong(source.findings[0][1].text)
    if source.data is NOTHING:
        raise _Wrong("has no value; write one behind the =, '' for an empty text")
    return path.strip(), source.data


def _targets(path: str, data: dict[str, Any]) -> list[Loc]:
    """The places that an override changes."""
    if path.startswith("groups."):
        return [_in_named_group(path.removeprefix("groups."), data)]
    loc = _parts(path)
    first = loc[0]
    if first in _OF_CAMPAIGNS:
        return [loc]
    if first not in _OF_GROUPS:
        names = [*_OF_CAMPAIGNS, *_OF_GROUPS]
        hint = did_you_mean(first, names, "begin with one of these")
        raise _Wrong(
            f"is no key of a campaign or of its groups, allowed: {', '.join(names)}; {hint}", (first,)
        )
    groups = data.get("groups")
    having = [
        ("groups", index, *loc)
        for index, group in enumerate(groups if isinstance(groups, tuple) else ())
        if isinstance(group, dict) and first in group
    ]
    if not having:
        raise _Wrong(f"is set in no group; name the group: -s groups.NAME.{path}=...", (first,))
    return having


def _in_named_group(rest: str, data: dict[str, Any]) -> Loc:
    """The place behind ``groups.``; a group's name may itself hold dots, and the longest that fits is meant."""
    groups = data.get("groups")
    names = {
        group["name"]: index
        for index, group in enumerate(groups if isinstance(groups, tuple) else ())
        if isinstance(group, dict) and isinstance(group.get("name"), str)
    }
    for name in sorted(names, key=len, reverse=True):
        if rest.startswith(f"{name}."):
            return ("groups", names[name], *_parts(rest[len(name) + 1 :]))
        if rest == name:
            return ("groups", names[name])
    given = rest.partition(".")[0]
    hint = did_you_mean(given, names, "choose one")
    raise _Wrong(
        f"is no group of this campaign, allowed: {', '.join(names) or 'none'}; {hint}", ("groups", given)
    )


def _parts(path: str) -> Loc:
    parts: list[str | int] = []
    position = 0
    while position < len(path):
        match = _PART.match(path, position)
        if match is None or (match.group().startswith(".") and not parts):
            break
        parts.append(match.group(1) if match.group(1) is not None else int(match.group(2)))
        position = match.end()
    if not parts or position < len(path) or not isinstance(parts[0], str):
        raise _Wrong("begins with no path of keys; write it as in groups[0].scaling.nodes=[1, 2]")
    return tuple(parts)


def _put(value: Any, loc: Loc, new: Any, done: Loc) -> Any:
    """A copy of a value with another one at a place in it; keys that are missing on the way are made."""
    if not loc:
        return new
    part, here = loc[0], (*done, loc[0])
    if isinstance(part, int):
        if not isinstance(value, tuple):
            raise _Wrong("is no list; leave the number out", done)
        if part >= len(value):
            raise _Wrong(f"is not there, allowed: numbers below {len(value)}; choose one", here)
        return (*value[:part], _put(value[part], loc[1:], new, here), *value[part + 1 :])
    if value is None:
        value = {}
    if isinstance(value, tuple):
        raise _Wrong(f"is a list; say which of its entries: {place(done)}[0].{part}", done)
    if not isinstance(value, dict):
        raise _Wrong(f"has no keys, so none called {part}; change it as a whole", done)
    return {**value, part: _put(value.get(part), loc[1:], new, here)}
