"""YAML text -> plain values, the line of each, and everything wrong with the text; and back. No effects.

Built on the parser's events, so that no object is ever constructed: a tag does nothing but be refused.
Bounded: nesting, the number of values with aliases written out, and the length of a line, so that a
hostile file is refused quickly and never hangs. YAML 1.2: ``yes``, ``on`` and ``1:30`` are text. It does
not know what the values mean.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from harness.model.fields import NOTHING, Finding, Loc

MAX_DEPTH = 32
MAX_VALUES = 10_000  # with every alias written out
MAX_LINE = 65_536  # characters: some of the scanner's loops are quadratic in the length of a line
MAX_DIGITS = 40

# The core schema of YAML 1.2 (chapter 10.3).
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})


@dataclass(frozen=True)
class Source:
    """What a text holds, mappings as dict and sequences as tuple, and what is wrong with it."""

    data: Any
    lines: Mapping[Loc, int]
    findings: tuple[tuple[int, Finding], ...]  # with their lines

    def line(self, loc: Loc) -> int:
        """Line of a place; of the nearest thing around it where the place itself is not in the text."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)


@dataclass
class _Open:
    """A mapping or sequence whose end has not come yet."""

    loc: Loc
    line: int
    anchor: str | None
    first: int  # count of values before it
    items: list[Any] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)  # key -> line
    is_mapping: bool = False
    key: str | None = None  # read, and waiting for its value
    skip: bool = False  # the value that comes next belongs to no valid key

    def next_loc(self) -> Loc:
        return (*self.loc, self.key if self.is_mapping and self.key is not None else len(self.items))


class _Enough(Exception):
    """Reading on is pointless or dangerous."""


class _Builder:
    def __init__(self) -> None:
        self.data: Any = NOTHING
        self.lines: dict[Loc, int] = {}
        self.findings: list[tuple[int, Finding]] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open_anchors: set[str] = set()
        self._count = 0
        self._documents = 0

    def find(self, line: int, loc: Loc, text: str, value: Any = NOTHING) -> None:
        self.findings.append((line, Finding(loc, text, value)))

    def feed(self, event: Event) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent):
            self._document(event, line)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._end()
        elif isinstance(event, NodeEvent):
            self._node(event, line)

    def _document(self, event: DocumentStartEvent, line: int) -> None:
        self._documents += 1
        if self._documents > 1:
            self.find(line, (), "a second document begins here, allowed: one a file; remove the line '---'")
            raise _Enough
        if event.version is not None and tuple(event.version) != (1, 2):
            version = ".".join(str(part) for part in event.version)
            self.find(line, (), f"asks for YAML {version}, allowed: YAML 1.2; remove the line '%YAML'")

    def _node(self, event: NodeEvent, line: int) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and top.is_mapping and top.key is None and not top.skip:
            self._key(top, event, line)
            return
        loc = top.next_loc() if top is not None else ()
        if loc not in self.lines and not (top is not None and top.skip):
            self.lines[loc] = line
        if (tag := getattr(event, "tag", None)) is not None:
            self.find(line, loc, f"carries the tag {_short(str(tag))}, and tags are not allowed; remove it")
        if isinstance(event, AliasEvent):
            self._alias(event, line, loc)
        elif isinstance(event, ScalarEvent):
            self._count_values(1, line, loc)
            value = self._scalar(event, line, loc)
            if event.anchor:
                self._anchors[event.anchor] = (value, 1)
            self._put(value)
        else:
            self._count_values(1, line, loc)
            if len(self._stack) >= MAX_DEPTH:
                self.find(line, loc, f"is nested deeper than {MAX_DEPTH} levels; make it flatter")
                raise _Enough
            if event.anchor:
                self._anchors.pop(event.anchor, None)
                self._open_anchors.add(event.anchor)
            self._stack.append(
                _Open(loc, line, event.anchor, self._count, is_mapping=isinstance(event, MappingStartEvent))
            )

    def _key(self, top: _Open, event: NodeEvent, line: int) -> None:
        if not isinstance(event, ScalarEvent):
            self.find(
                line, top.loc, "has a key that is not plain text; write every key as a word and a colon"
            )
            if isinstance(event, MappingStartEvent | SequenceStartEvent):
                raise _Enough
            top.skip = True
            return
        key = str(event.value)
        self._count_values(1, line, top.loc)
        if event.tag is not None:
            self.find(
                line,
                (*top.loc, key),
                f"carries the tag {_short(str(event.tag))}, and tags are not allowed; remove it",
            )
        if event.anchor:
            self._anchors[event.anchor] = (key, 1)
        if key in top.keys:
            self.find(
                line, (*top.loc, key), f"is written twice, first on line {top.keys[key]}; keep one of the two"
            )
            top.skip = True
            return
        top.keys[key] = line
        top.key = key
        self.lines[(*top.loc, key)] = line

    def _alias(self, event: AliasEvent, line: int, loc: Loc) -> None:
        name = str(event.anchor)
        if name not in self._anchors:
            wrong = "contains itself" if name in self._open_anchors else "has no anchor before it"
            self.find(line, loc, f"the alias *{_short(name)} {wrong}; write the value out")
            self._put(None)
            return
        value, size = self._anchors[name]
        self._count_values(size, line, loc)
        self._put(value)

    def _scalar(self, event: ScalarEvent, line: int, loc: Loc) -> Any:
        text = str(event.value)
        if event.style or not event.implicit[0]:
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if text[0] not in "+-.0123456789":
            return text
        is_number = any(p.fullmatch(text) for p in (_INT, _OCTAL, _HEX, _FLOAT))
        if is_number and len(text) > MAX_DIGITS:
            self.find(line, loc, f"is a number of {len(text)} characters, allowed: {MAX_DIGITS}; shorten it")
            return 0
        if _INT.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text):
            return int(text[2:], 8)
        if _HEX.fullmatch(text):
            return int(text[2:], 16)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _INF.fullmatch(text):
            return float(text.replace(".", ""))
        return float("nan") if text in _NAN else text

    def _count_values(self, more: int, line: int, loc: Loc) -> None:
        self._count += more
        if self._count > MAX_VALUES:
            self.find(
                line,
                loc,
                f"more than {MAX_VALUES} values, aliases written out; split the file or use fewer aliases",
            )
            raise _Enough

    def _end(self) -> None:
        done = self._stack.pop()
        value: Any = dict(done.items) if done.is_mapping else tuple(done.items)
        if done.anchor:
            self._open_anchors.discard(done.anchor)
            self._anchors[done.anchor] = (value, self._count - done.first + 1)
        self._put(value)

    def _put(self, value: Any) -> None:
        if not self._stack:
            self.data = value
            return
        top = self._stack[-1]
        if not top.is_mapping:
            top.items.append(value)
        elif top.skip:
            top.skip = False
        else:
            top.items.append((top.key, value))
            top.key = None


def parse(text: str) -> Source:
    """Read one YAML document; ``data`` is ``NOTHING`` where the text holds none, or broke off."""
    builder = _Builder()
    for number, content in enumerate(text.split("\n"), 1):
        if len(content) > MAX_LINE:
            builder.find(
                number, (), f"the line has {len(content)} characters, allowed: {MAX_LINE}; break it up"
            )
            return Source(NOTHING, {}, tuple(builder.findings))
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.feed(event)
    except _Enough:
        builder.data = NOTHING
    except MarkedYAMLError as error:
        builder.data = NOTHING
        mark = error.problem_mark or error.context_mark
        builder.find(mark.line + 1 if mark else 1, (), f"not valid YAML: {_reason(error)}; correct it")
    except (
        YAMLError,
        ValueError,
        RecursionError,
        IndexError,
        AttributeError,
        TypeError,
        AssertionError,
    ) as error:
        # What the parser raises on hostile text besides its own errors. Nothing of it is worth a traceback.
        builder.data = NOTHING
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        builder.find(line, (), f"not valid YAML: {_reason(error)}; correct it")
    return Source(builder.data, builder.lines, tuple(builder.findings))


def _reason(error: Exception) -> str:
    if isinstance(error, MarkedYAMLError):
        parts = [str(error.problem or error.context or "it cannot be read")]
        if error.problem and error.context:
            parts.append(str(error.context))
        return ", ".join(" ".join(part.split()) for part in parts)
    reason = getattr(error, "reason", "")
    return str(reason) or type(error).__name__


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


# ---- writing ----

_WIDTH = 100  # characters of a line, where something can be broken up
_LONG_KEY = 200  # characters; YAML takes a key for one only in the first 1024 of a line
_LINES = re.compile(
    r"[\t\x20-\x7e\xa1-\u1fff]*(?!\s)[\x21-\x7e\xa1-\u1fff][\t\x20-\x7e\xa1-\u1fff]*\n(?:[\t\x20-\x7e\xa1-\u1fff]|\n)*"
)  # kept as it is
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*")
_QUOTED = frozenset(
    {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
)  # here, or to older readers
_ESCAPED = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def dump(value: Any) -> str:
    """YAML that ``parse`` reads back as an equal value, within its bounds: for people, and for a later run."""
    return "\n".join(_block(value)) + "\n"


def _block(value: Any) -> Iterator[str]:
    """The lines of a value that stands below its key."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            written = _text(key)
            if len(written) > _LONG_KEY:
                yield f"? {written}"
                written = ""
            yield from _entry(f"{written}:", inner)
    elif isinstance(value, tuple | list) and not _is_flat(value):
        for inner in value:
            nested = list(_block(inner))
            yield f"- {nested[0]}"
            yield from (f"  {line}" for line in nested[1:])
    else:
        yield from _flow(value)


def _entry(key: str, value: Any) -> Iterator[str]:
    if (isinstance(value, dict) and value) or (isinstance(value, tuple | list) and not _is_flat(value)):
        yield key
        yield from (f"  {line}" for line in _block(value))
        return
    if isinstance(value, str) and _LINES.fullmatch(value):
        yield f"{key} |2{'-' if not value.endswith(chr(10)) else '+' if value.endswith(chr(10) * 2) else ''}"
        yield from (f"  {line}" for line in value.removesuffix("\n").split("\n"))
        return
    first, *rest = _flow(value)
    yield f"{key} {first}"
    yield from (f"  {line}" for line in rest)


def _is_flat(value: Any) -> bool:
    """Whether a list is written in [ ]: nothing in it has keys."""
    return not any(
        v if isinstance(v, dict) else isinstance(v, tuple | list) and not _is_flat(v) for v in value
    )


def _flow(value: Any) -> Iterator[str]:
    if not isinstance(value, tuple | list):
        yield _scalar_text(value)
        return
    line = "["
    for index, inner in enumerate(value):
        piece = " ".join(_flow(inner)) + ("," if index < len(value) - 1 else "")
        if len(line) > 1 and len(line) + len(piece) > _WIDTH:
            yield line
            line = " "
        line += piece if line in ("[", " ") else f" {piece}"
    yield line + "]"


def _scalar_text(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _QUOTED:
        return text
    return _ESCAPED.sub(lambda m: f"\\u{ord(m.group()):04x}", json.dumps(text, ensure_ascii=False))
