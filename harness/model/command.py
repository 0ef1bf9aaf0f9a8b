"""Command: a user's own program as a workload: how it is started, what of it is read, when it has succeeded.

Frozen. ``run``, ``script`` and ``programs`` are code of whoever wrote the campaign; the rest is data. It refuses
success by the exit code alone: a program that says nothing has not shown that it did anything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from harness.model import placeholders
from harness.model.fields import (
    NOTHING,
    Finding,
    Findings,
    Frozen,
    Line,
    Loc,
    Number,
    Text,
    did_you_mean,
    refuse_if_any,
)
from harness.model.metrics import METRICS, RESERVED

MAX_TEXT = 1 << 16  # characters of a script or an input file
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
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


def _variables(value: dict[str, str]) -> dict[str, str]:
    found = []
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
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


def _plugin(value: str) -> str:
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


def _pattern_findings(loc: Loc, text: str, groups: Iterable[str] = ()) -> Iterator[Finding]:
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
            yield from _pattern_findings(("regex",), self.regex, ("value", *self.coordinates))
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


class Success(Frozen):
    """What must hold for a case to pass, besides the metrics that are required."""

    exit_codes: Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(min_length=1)] = (0,)
    """Exit codes of every rank that are no failure."""
    output: Patterns = ()
    """Regular expressions, each of which some line must match."""
    ranks: Ranks | None = None
    """Whose lines: each rank's in a plain world, else the first rank's, unless told otherwise."""
    no_output: Patterns = ()
    """Regular expressions that no line of any rank may match."""
    files: Files = Field(default_factory=dict)
    """Files in the attempt's own folder that must be there at the end, and not empty; perhaps with regular expressions,
    each of which some line of the file must match. The first rank looks, or each where {rank} is in the name."""

    @model_validator(mode="after")
    def _rules(self) -> Success:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        for key in ("output", "no_output"):
            for index, text in enumerate(getattr(self, key)):
                yield from _pattern_findings((key, index), text)
        for name, texts in self.files.items():
            for index, text in enumerate(texts):
                yield from _pattern_findings(("files", name, index), text)


class Command(Frozen):
    """A program, unchanged."""

    run: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=1000)] | None = None
    """Program and arguments, no shell; {name} is filled in. Or give `script`."""
    script: Block | None = None
    """Text that bash runs: code. Its parameters are in the environment, as HARNESS_PARAM_name. Or give `run`."""
    programs: Inputs = Field(default_factory=dict)
    """Files that are written into the attempt's own folder as they are, and may be run from there: code."""
    inputs: Inputs = Field(default_factory=dict)
    """Files that are written into the attempt's own folder; {name} is filled in."""
    world: World = "plain"
    """plain: RANK, WORLD_SIZE, LOCAL_RANK, NODE_RANK in the environment. torchrun: as torchrun sets it.
    mpi: by `srun --mpi`."""
    mpi: Annotated[Text, AfterValidator(_plugin)] | None = None
    """Plug-in of srun that the program's MPI library speaks, such as pmix; the site's unless told otherwise."""
    environment: Annotated[dict[str, Line], AfterValidator(_variables)] = Field(default_factory=dict)
    """Variables of the program; {name} is filled in."""
    success: Success = Success()
    """What must hold for a case to pass."""
    metrics: Annotated[tuple[CommandMetric, ...], Field(max_length=100)] = ()
    """Figures that are read from the program."""
    progress: Text | None = None
    """Regular expression of a line that says how far the program is: (?P<step>...) steps finished, and perhaps
    (?P<steps>...) of how many."""
    time_limit_s: Annotated[Number, Field(gt=0)] | None = None
    """Seconds after which the program is ended and has failed; the case's time limit unless told otherwise."""
    restartable: bool = False
    """Whether it resumes from its own files in {case_folder}, so that a lost node or rank is worth another start: by
    harness.program's restore and save, or in its own way. With `progress` it says where it resumes before it says
    anything else."""
    checkpoint_folder: FileInside = "checkpoints"
    """Folder inside {case_folder} where it keeps what it resumes from: {checkpoints}, and HARNESS_CHECKPOINTS."""

    @model_validator(mode="after")
    def _rules(self) -> Command:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.run is None and self.script is None:
            yield Finding((), "says what to run neither by run nor by script; add one of them")
        elif self.run is not None and self.script is not None:
            yield Finding(("script",), "and run both say what to run; remove one of them")
        if self.run is not None and not self.run[0].strip():
            yield Finding(("run", 0), "is the program, and is empty; write its name or path")
        if self.mpi is not None and self.world != "mpi":
            yield Finding(("mpi",), "means nothing without world: mpi; remove it, or add that", self.mpi)
        for name in self.programs.keys() & self.inputs.keys():
            yield Finding(("inputs", name), "is a file of `programs` too; give each its own name")
        if self.progress is not None:
            yield from _pattern_findings(("progress",), self.progress, ("step",))
        first: dict[str, int] = {}
        for index, metric in enumerate(self.metrics):
            if metric.name in first:
                text = f"is the name of metrics[{first[metric.name]}] too; give each its own"
                yield Finding(("metrics", index, "name"), text, metric.name)
            first.setdefault(metric.name, index)
        if not (self.success.output or self.success.files or any(map(_is_evidence, self.metrics))):
            yield Finding(
                ("success",),
                "is left to the exit code alone; add output, files, or a metric that is required: "
                "something that the program says or leaves only when it did its work",
            )

    def texts(self) -> Iterator[tuple[Loc, str]]:
        """Every text in which placeholders are filled in, with its place."""
        for index, text in enumerate(self.run or ()):
            yield ("run", index), text
        for table in ("inputs", "environment"):
            for name, text in getattr(self, table).items():
                yield (table, name), text
        for key in ("output", "no_output"):
            for index, text in enumerate(getattr(self.success, key)):
                yield ("success", key, index), text
        for name, texts in self.success.files.items():
            yield ("success", "files", name), name
            for index, text in enumerate(texts):
                yield ("success", "files", name, index), text
        for index, metric in enumerate(self.metrics):
            yield ("metrics", index, "from"), metric.source
            if metric.regex is not None:
                yield ("metrics", index, "regex"), metric.regex
        if self.progress is not None:
            yield ("progress",), self.progress


def _is_evidence(metric: CommandMetric) -> bool:
    return metric.required and metric.source != "exit_code"


def findings(command: Command, params: Iterable[str], time_limit_min: int) -> Iterator[Finding]:
    """What is wrong between a command and its group: the names of its parameters, axes included, and its time."""
    if command.time_limit_s is not None and command.time_limit_s > time_limit_min * 60:
        yield Finding(
            ("command", "time_limit_s"),
            f"is more than the case's time_limit_min = {time_limit_min}, so it would never be reached; lower it, or "
            "raise that",
            command.time_limit_s,
        )
    names = list(params)
    for name in names:
        if name in placeholders.FACTS:
            yield Finding(
                ("params", name), f"is filled in by the harness ({placeholders.FACTS[name]}); rename it"
            )
        elif not _VARIABLE.fullmatch(name):
            yield Finding(
                ("params", name),
                "is a variable of the program's, HARNESS_PARAM_..., allowed: letters, digits and _; rename it",
            )
    known = [*names, *placeholders.FACTS]
    for loc, text in command.texts():
        for name in placeholders.names(text):
            if name not in known:
                otherwise = f"allowed: {', '.join(known)}; write {{{{{name}}}}} for the text {{{name}}}"
                yield Finding(
                    ("command", *loc),
                    f"has {{{name}}}, which is no parameter of the group; {did_you_mean(name, known, otherwise)}",
                    text if len(text) < 200 else NOTHING,
                )
            elif loc[0] == "inputs" and name in placeholders.OF_A_RANK:
                yield Finding(
                    ("command", *loc),
                    f"has {{{name}}}, but the file is written once for all ranks; read the environment instead",
                )
