"""Command: a user's own program as a workload: how it is started, what of it is read, when it has succeeded.

Frozen. ``run``, ``script`` and ``programs`` are code of whoever wrote the campaign; the rest is data. It refuses
success by the exit code alone: a program that says nothing has not shown that it did anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from harness.model import placeholders
from harness.model.command_parts import (
    VARIABLE,
    Argument,
    Block,
    CommandMetric,
    FileInside,
    Files,
    Inputs,
    Name,
    Patterns,
    Ranks,
    World,
    checked_plugin,
    checked_variables,
    pattern_findings,
)
from harness.model.fields import (
    NOTHING,
    Finding,
    Frozen,
    Line,
    Loc,
    Number,
    Text,
    did_you_mean,
    refuse_if_any,
)

# Faults of ranks that a program does to itself, by harness.program, where it cooperates.
OWN_FAULTS = (
    "rank.kill", "rank.terminate", "rank.abort", "rank.segfault", "rank.freeze", "rank.pause", "rank.raise",
    "rank.hang", "rank.livelock", "rank.out_of_memory", "rank.slow_step", "storage.slow", "storage.full",
    "control.position",
)  # fmt: skip


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
                yield from pattern_findings((key, index), text)
        for name, texts in self.files.items():
            for index, text in enumerate(texts):
                yield from pattern_findings(("files", name, index), text)


class Answers(Frozen):
    """What of a program must be that of its undisturbed twin, bit for bit."""

    metrics: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    """Metrics of `metrics`, the last value of each, on every rank that says it."""
    files: Annotated[tuple[FileInside, ...], Field(max_length=100)] = ()
    """Files in the attempt's own folder, each by its digest. The first rank's; each's where {rank} is in the name."""


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
    mpi: Annotated[Text, AfterValidator(checked_plugin)] | None = None
    """Plug-in of srun that the program's MPI library speaks, such as pmix; the site's unless told otherwise."""
    environment: Annotated[dict[str, Line], AfterValidator(checked_variables)] = Field(default_factory=dict)
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
    cooperates: bool = False
    """Whether it counts its steps by harness.program's steps, and saves and restores by its save and restore. Faults of
    all kinds then strike exactly at a step, at a moment of a checkpoint, or at a place that it names by faults.at; and
    its states and answers are compared with an undisturbed twin's."""
    answers: Answers = Answers()
    """What must be that of an undisturbed twin, besides what it records itself by harness.program."""

    @model_validator(mode="after")
    def _rules(self) -> Command:
        return refuse_if_any(self, self._findings())

    @model_serializer(mode="wrap")
    def _brief(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Later additions are left out where they say nothing, so that older cases keep their ids."""
        found: dict[str, Any] = whole(self)
        later = {"cooperates": False, "answers": Answers().model_dump(mode="json")}
        return {k: v for k, v in found.items() if k not in later or v not in (later[k], Answers())}

    @property
    def comparable(self) -> bool:
        """Whether something of it can be compared with an undisturbed twin's."""
        return self.cooperates or bool(self.answers.metrics or self.answers.files)

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
            yield from pattern_findings(("progress",), self.progress, ("step",))
        first: dict[str, int] = {}
        for index, metric in enumerate(self.metrics):
            if metric.name in first:
                text = f"is the name of metrics[{first[metric.name]}] too; give each its own"
                yield Finding(("metrics", index, "name"), text, metric.name)
            first.setdefault(metric.name, index)
        for index, name in enumerate(self.answers.metrics):
            if name not in first:
                hint = did_you_mean(name, first, "declare it under metrics")
                yield Finding(("answers", "metrics", index), f"is none of its metrics; {hint}", name)
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
        for index, name in enumerate(self.answers.files):
            yield ("answers", "files", index), name
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
        elif not VARIABLE.fullmatch(name):
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
