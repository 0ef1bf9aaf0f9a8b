"""Keys, values and comments -> the text of a YAML file that reads back as the same values. Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 110
_COLUMN = 34  # where comments begin, if the value leaves room
# Text that no reader of YAML, 1.1 or 1.2, takes for anything but text.
_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.+@-]*")
_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"))


@dataclass(frozen=True)
class Line:
    """One key with its value, or a block of further lines, and what is to be said of it."""

    key: str
    value: Any
    comment: str = ""


def document(lines: Sequence[Line], header: str) -> str:
    """The whole file; a value that is a tuple of lines is a block."""
    return "\n".join([*_comment(header, ""), *_lines(lines, "")]) + "\n"


def _lines(lines: Sequence[Line], indent: str) -> Iterator[str]:
    for line in lines:
        block = isinstance(line.value, tuple) and line.value and isinstance(line.value[0], Line)
        text = f"{indent}{line.key}:" if block else f"{indent}{line.key}: {scalar(line.value)}"
        said = " ".join(_printable(line.comment).split())
        beside = f"{text.ljust(_COLUMN - 1)} # {said}" if said else text
        if len(beside) <= WIDTH:
            yield beside
        else:
            yield from _comment(said, indent)
            yield text
        if block:
            yield from _lines(line.value, indent + "  ")


def _comment(text: str, indent: str) -> list[str]:
    lines: list[str] = []
    for paragraph in map(_printable, text.split("\n")):
        lines += textwrap.wrap(
            paragraph, WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return [f"{indent}# {line}".rstrip() for line in lines]


def scalar(value: Any) -> str:
    """A value on one line; lists and mappings in brackets."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(str(k))}: {scalar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(v) for v in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _escaped(json.dumps(value, ensure_ascii=False)) if isinstance(value, str) else json.dumps(value)


def _escaped(text: str) -> str:
    """YAML's escapes, which beyond the first 65,536 characters are not JSON's."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
