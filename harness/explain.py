"""What pydantic found, in our words: what is wrong, what is allowed, what to do next. Pure.

It knows the models only by their fields, so a new key needs nothing here.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic_core import ErrorDetails

from harness.model.fields import Finding, Findings, Frozen, Loc, bad_character, did_you_mean

_SHOWN = 60  # characters of a value that a message quotes


def quoted(value: Any) -> str:
    """A value as a message quotes it."""
    text = json.dumps(value, ensure_ascii=bool(isinstance(value, str) and bad_character(value)), default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + '..."'


def shape(value: object) -> str:
    """What kind of value it is: ``a list``, ``a mapping``, ``the value 3``."""
    if isinstance(value, tuple):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f"the value {quoted(value)}"


_TYPES = {
    "int_type": "must be a whole number; write digits only, without quotes",
    "int_from_float": "must be a whole number; write digits only, without quotes",
    "float_type": "must be a number; write it without quotes",
    "finite_number": "must be a finite number; change it",
    "string_type": "must be a text; put it in quotes",
    "bool_type": "must be true or false, without quotes (in YAML 1.2 yes and no are texts); change it",
    "tuple_type": "must be a list; write it in [ ]",
    "dict_type": "must be keys and values; write it in { } or indented below",
    "model_type": "must be keys and values; write it in { } or indented below",
}


# What pydantic puts into places that is in no file: its word for a key itself, and the tags of a union.
_NO_KEYS = ("[key]", "[number]", "[rule]")

_HETEROGENEOUS = re.compile(r"(het|pack)([-_]?(job|group|comp|erogen).*)?$", re.IGNORECASE)
_ONE_SHAPE = (
    "one job has one shape here, heterogeneous jobs are not supported: "
    "use two groups, or `partitions` of the site file"
)


def explain(error: ErrorDetails, model: type[Frozen]) -> Iterator[Finding]:
    """One of pydantic's errors in our words."""
    loc: Loc = tuple(part for part in error["loc"] if part not in _NO_KEYS)
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    inner = context.get("error")
    if isinstance(inner, Findings):
        for f in inner.findings:
            yield Finding((*loc, *f.loc), f.text, f.value, f.warning)
    elif kind == "missing":
        yield Finding(loc, f"is missing{_meaning(model, loc)}; add it")
    elif kind == "extra_forbidden" and _HETEROGENEOUS.match(str(loc[-1])):
        yield Finding(loc, f"is an unknown key: {_ONE_SHAPE}; remove it", value)
    elif kind == "string_type" and loc[-1] == "partition" and isinstance(value, tuple):
        yield Finding(loc, f"is a list, and {_ONE_SHAPE}; name one", value)
    elif kind == "extra_forbidden":
        names = _keys(_at(model, loc[:-1]))
        yield Finding(
            loc,
            f"is an unknown key, allowed: {', '.join(names)}; {did_you_mean(loc[-1], names, 'remove it')}",
            value,
        )
    elif kind == "literal_error":
        allowed = [str(a) for a in _literals(_at(model, loc))] or [str(context["expected"])]
        yield Finding(
            loc, f"allowed: {', '.join(allowed)}; {did_you_mean(value, allowed, 'choose one')}", value
        )
    elif kind in _TYPES:
        yield Finding(loc, f"{_was(value)}{_TYPES[kind]}", value)
    elif "ge" in context:
        yield Finding(loc, f"is too small, allowed: {context['ge']} and above; raise it", value)
    elif "gt" in context:
        yield Finding(loc, f"is too small, allowed: above {context['gt']}; raise it", value)
    elif "le" in context:
        yield Finding(loc, f"is too large, allowed: {context['le']} and below; lower it", value)
    elif kind == "too_short" and value:
        return  # none of its members was valid, which was said of each
    elif kind in ("too_short", "string_too_short"):
        yield Finding(loc, f"is empty, allowed: {context['min_length']} or more; add something", value)
    elif kind in ("too_long", "string_too_long"):
        yield Finding(loc, f"is too long, allowed: {context['max_length']}; shorten it", value)
    else:
        yield Finding(loc, error["msg"], value)


def without(data: dict[str, Any], locs: Iterable[Loc]) -> tuple[dict[str, Any], set[Loc]]:
    """The values without the keys that are wrong, so that the rest can be looked at; and what was left out.

    Members of lists stay where they are: a list that holds a wrong one is left out whole; a campaign's groups never.
    """
    gone: set[Loc] = set()
    for loc in locs:
        while loc and isinstance(loc[-1], int):
            loc = loc[:-1]
        if loc and loc != ("groups",) and not any(loc[: len(g)] == g for g in gone):
            shorter = _dropped(data, loc)
            if shorter is not None:
                data = shorter
                gone.add(loc)
    return data, gone


def _dropped(value: Any, loc: Loc) -> Any:
    """A copy without what is at ``loc``; None where nothing is."""
    head, *rest = loc
    if isinstance(value, dict) and head in value:
        if not rest:
            return {key: inner for key, inner in value.items() if key != head}
        inner = _dropped(value[head], tuple(rest))
        return None if inner is None else {**value, head: inner}
    if isinstance(value, tuple) and isinstance(head, int) and head < len(value) and rest:
        inner = _dropped(value[head], tuple(rest))
        return None if inner is None else (*value[:head], inner, *value[head + 1 :])
    return None


_ORDER = (
    "name",
    "role",
    "after",
    "needs",
)  # keys that mean nothing to the other keys of a group, and common words


def follows(f: Finding, gone: Iterable[Loc]) -> bool:
    """Whether a finding may be there only because keys were left out: it is of what holds one, or speaks of one."""
    words = re.findall(r"\w+", f.text)
    for loc in gone:
        near = (loc[0] != "groups" or loc[:2] == f.loc[:2]) and loc[-1] not in _ORDER
        if f.loc == loc[: len(f.loc)] or (near and get_close_matches(str(loc[-1]), words, 1, 0.75)):
            return True
    return False


def _was(value: object) -> str:
    return (
        f"is {shape(value)} and "
        if isinstance(value, dict | tuple)
        else "is empty and "
        if value is None
        else ""
    )


def _at(model: Any, loc: Loc) -> Any:
    """The type at a place of a model."""
    kind: Any = model
    for part in loc:
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, Frozen):
            fields = {f.alias or name: f for name, f in kind.model_fields.items()}
            if part not in fields:
                return None
            kind = fields[str(part)].annotation
        elif get_origin(kind) in (tuple, dict):
            kind = get_args(kind)[1 if get_origin(kind) is dict else 0]
        else:
            return None
    return _plain(kind)


def _plain(kind: Any) -> Any:
    """A type without ``Annotated`` and ``| None``."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            rest = [a for a in get_args(kind) if a is not type(None)]
            if len(rest) > 1:  # of a number and a mapping, only the mapping has keys
                rest = [a for a in map(_plain, rest) if isinstance(a, type) and issubclass(a, Frozen)]
            if len(rest) != 1:
                return kind
            kind = rest[0]
        else:
            return kind


def _keys(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, Frozen):
        return [f.alias or name for name, f in kind.model_fields.items()]
    return []


def _literals(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if kind is not None and str(get_origin(kind)) == "typing.Literal" else ()


def _meaning(model: Any, loc: Loc) -> str:
    parent = _at(model, loc[:-1])
    if isinstance(parent, type) and issubclass(parent, Frozen):
        for name, f in parent.model_fields.items():
            if loc[-1] in (name, f.alias) and f.description:
                return f" ({f.description.rstrip('.').splitlines()[0]})"
    return ""
