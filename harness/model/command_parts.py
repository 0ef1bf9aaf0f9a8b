"""Command's parts: checked text of a user's program, and one figure that is read from it.

Frozen, as all of ``harness.model.command``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from harness.model import placeholders
from harness.model.fields import Finding, Findings, Frozen, Line, Loc, Text, refuse_if_any
from harness.model.metrics import METRICS, RESERVED

MAX_TEXT = 1 << 16  # characters of a script or an input file
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLUGIN = re.compile(r"[a-z0-9_]{1,32}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SOURCES = "output, exit_code, program, file:NAME"


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise PydanticCustomError(
            "text", "is no name of a metric, allowed: a-z 0-9 _, the first a letter, its unit last; rename it"
        )
    if value in RESERVED:
        raise PydanticCustomError("text", "is a name that the harness uses itself; choose another one")
    return value


def _lines(value: str) -> str:
    for index, character in enumerate(value):
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs"):
            raise PydanticCustomError(
                "text",
                "holds the control character {bad}; remove it",
                {"bad": f"{character!r} at position {index + 1}"},
            )
    return value


def _filled(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("text", "is empty; write a text or leave the key out")
    return value


def _inside(value: str) -> str:
    if value.startswith("/") or ".." in value.split("/"):
        raise PydanticCustomError(
            "text", "is not inside the attempt's own folder; give its name there, without .."
        )
    return value


def _inputs(value: dict[str, str]) -> dict[str, str]:
    found = [
        Finding((name,), "is no plain name of a file, allowed: letters, digits and . _ -; rename it")
        for name in value
        if not _FILE_NAME.fullmatch(name)
    ]
    if found:
        raise Findings(found)
    return value


def checked_variables(value: dict[str, str]) -> dict[str, str]:
    """Variables of a program's environment, none of which is the harness's."""
    found = []
    for name, text in value.items():
        if not VARIABLE.fullmatch(name):
            found.append(
                Finding((name,), "is no name of a variable, allowed: letters, digits and _; rename it", text)
            )
        elif name.startswith("HARNESS_"):
            found.append(Finding((name,), "is set by the harness itself; remove it", text))
    if found:
        raise Findings(found)
    return value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _by_name(value: Any) -> Any:
    if isinstance(value, tuple) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value, ())
    return value


def checked_plugin(value: str) -> str:
    """Name of an MPI plug-in of srun."""
    if not _PLUGIN.fullmatch(value):
        raise PydanticCustomError("text", "is no name of an MPI plug-in; `srun --mpi=list` lists them")
    return value


Name = Annotated[Text, AfterValidator(_name)]
Argument = Annotated[str, AfterValidator(_lines), Field(max_length=MAX_TEXT)]
Block = Annotated[str, AfterValidator(_lines), AfterValidator(_filled), Field(max_length=MAX_TEXT)]
FileInside = Annotated[Text, AfterValidator(_inside)]
Patterns = Annotated[
    tuple[Text, ...],
    BeforeValidator(_one_or_more),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}}]}
    ),
]
Files = Annotated[
    dict[FileInside, Patterns],
    BeforeValidator(_by_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {
                    "type": "object",
                    "additionalProperties": {
                        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
                    },
                },
            ]
        }
    ),
]
Inputs = Annotated[dict[str, Block], AfterValidator(_inputs)]
Ranks = Literal["first", "last", "all"]
World = Literal["plain", "torchrun", "mpi"]


def pattern_findings(loc: Loc, text: str, groups: Iterable[str] = ()) -> Iterator[Finding]:
    """What is wrong with a regular expression; ``groups`` must be named in it."""
    try:
        compiled = re.compile(
            placeholders.fill(text, dict.fromkeys(placeholders.names(text), "0"), re.escape)
        )
    except re.error as error:
        where = f" at position {error.pos + 1}" if error.pos is not None else ""
        yield Finding(loc, f"is no regular expression of Python: {error.msg}{where}; correct it", text)
        return
    for group in groups:
        if group not in compiled.groupindex:
            yield Finding(loc, f"has no group (?P<{group}>...), which says what is read; add it", text)


class CommandMetric(Frozen):
    """One figure that is read from a program; each match is a raw sample."""

    name: Name
    """Name, unit last: bandwidth_mb_per_s."""
    unit: Text
    """Its unit; "1" for a plain number."""
    direction: Literal["higher", "lower", "neither"] = "neither"
    """Which way is better; of a metric that the harness has, its own unless told otherwise."""
    definition: Line = ""
    """What it is, in one sentence."""
    source: Text = Field("output", alias="from")
    """output; file:NAME in the attempt's own folder, read when the program has ended; exit_code; or program: the
    program records it itself, by harness.program."""
    regex: Text | None = None
    """Regular expression of Python, looked for in each line; its group (?P<value>...) is the number."""
    key: Text | None = Field(None, alias="json")
    """Key of the number in lines that are JSON objects; a.b is b inside a."""
    coordinates: dict[Name, Text] = Field(default_factory=dict)
    """Further groups or keys that say of what the number is, such as a message size, each with its unit. A key is
    looked for beside the number, then at the top of the object."""
    ranks: Ranks | None = None
    """Whose output is read: all of a plain world, else that of the first rank, unless told otherwise."""
    required: bool = True
    """Whether a program that never says it has failed."""

    @model_validator(mode="after")
    def _rules(self) -> CommandMetric:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        kind, _, name = self.source.partition(":")
        ways = [way for way, given in (("regex", self.regex), ("json", self.key)) if given is not None]
        if kind not in ("output", "exit_code", "program", "file") or (kind == "file") != bool(name):
            yield Finding(("from",), f"is no source, allowed: {_SOURCES}; choose one", self.source)
            return
        if name.startswith("/") or ".." in name.split("/"):
            yield Finding(("from",), "is not inside the attempt's own folder; give its name there", name)
        if len(ways) > 1:
            yield Finding(("json",), "and regex both say how it is read; remove one of them", self.key)
        elif kind == "output" and not ways:
            yield Finding((), "says neither by regex nor by json how it is read; add one of them")
        elif kind in ("exit_code", "program") and ways:
            yield Finding((ways[0],), f"means nothing with from: {kind}; remove it")
        elif self.regex is not None:
            yield from pattern_findings(("regex",), self.regex, ("value", *self.coordinates))
        if self.coordinates and not ways:
            yield Finding(("coordinates",), "are read by regex or json, and there is neither; remove them")
        for name_, unit in ((self.name, self.unit), *self.coordinates.items()):
            known = METRICS.get(name_)
            loc = ("unit",) if name_ == self.name else ("coordinates", name_)
            if known is not None and known.unit != unit:
                yield Finding(
                    loc, f"but {name_} is a metric of the harness, in {known.unit}; rename it", unit
                )
        known = METRICS.get(self.name)
        theirs = (known.direction or "neither") if known is not None else self.direction
        if self.direction != theirs and "direction" in self.model_fields_set:
            text = f"but {self.name} is a metric of the harness, whose direction is {theirs}"
            yield Finding(
                ("direction",), f"{text}; write direction: {theirs}, or rename the metric", self.direction
            )
        if self.name in self.coordinates:
            yield Finding(("coordinates", self.name), "is the metric itself; remove it")
