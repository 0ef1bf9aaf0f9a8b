"""What is wrong with a parameter, told by the default that it stands in for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.model.fields import did_you_mean

MAX_PARAM = 1 << 40  # rows, bytes, ...; more than any machine holds


def no_parameter(name: object, owner: str, allowed: Iterable[str]) -> str:
    """That a name is no parameter of its owner, and which there are."""
    names = sorted(allowed)
    hint = did_you_mean(name, names, "remove it")
    return f"is no parameter of {owner}, allowed: {', '.join(names) or 'none'}; {hint}"


def wrong_value(value: object, default: object, allowed: tuple[Any, ...] = ()) -> str:
    """What is wrong with a value where its default is known; "" when nothing is.

    Args:
        value: of the parameter, or of one step of its axis.
        default: which it must resemble.
        allowed: texts, or the lowest and the highest number; nothing: any of the type.
    """
    if problem := wrong_type(value, default):
        return problem
    for part in value if isinstance(value, tuple) else (value,):
        if not allowed:
            break
        if isinstance(allowed[0], str):
            if part not in allowed:
                hint = did_you_mean(str(part), list(allowed), "choose one")
                return f"is not allowed, allowed: {', '.join(allowed)}; {hint}"
        elif not allowed[0] <= float(str(part)) <= allowed[1]:
            return f"is out of range, allowed: {allowed[0]} to {allowed[1]}; change it"
    return ""


def wrong_type(value: object, default: object) -> str:
    """What is wrong with a value's type where its default is known; "" when nothing is."""
    if isinstance(default, tuple):
        if not isinstance(value, tuple):
            return f"must be a list, like the default {list(default)}; write it in [ ]"
        parts, examples = value, default[:1]
    else:
        if isinstance(value, tuple):
            return f"must be one value, like the default {default}; remove the [ ]"
        parts, examples = (value,), (default,)
    for example in examples:
        for part in parts:
            if not _alike(part, example):
                return f"must be {_kind(example)}, like the default {example}; change it"
            if isinstance(part, int | float) and part < 0 <= float(str(example)):
                return f"is negative, allowed: 0 and above (default {example}); change it"
            if isinstance(part, int) and part > MAX_PARAM:
                return f"is too large, allowed: {MAX_PARAM} and below; lower it"
    return ""


def _alike(value: object, example: object) -> bool:
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(example, bool) and isinstance(value, bool)
    if isinstance(example, float):
        return isinstance(value, int | float)
    return type(value) is type(example)


def _kind(example: object) -> str:
    if isinstance(example, bool):
        return "true or false"
    return {int: "a whole number", float: "a number", str: "a text"}[type(example)]
