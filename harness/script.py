"""A script's text: how a value gets into it, and whether what must stand in it does. Pure.

``shell`` quotes for bash, ``directive`` for sbatch's own parser of ``#SBATCH`` lines, ``code`` lets through
what a site's author wrote as shell. ``verify`` reads a finished script as sbatch does: a template of a
person's own may add what it likes, and drop nothing that driver and supervisor count on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from harness.model.fields import bad_character

_PLAIN = re.compile(r"[A-Za-z0-9_./:,=+@%^-]+")
_HET_JOB = re.compile(r"(packjo|hetjo)(b)", re.IGNORECASE)


class RenderError(ValueError):
    """A script cannot be written; the message names the value or the template, and says what to change."""


# ---- values into a script ----


def shell(value: Any) -> Markup:
    """Quote a value for bash, as one word."""
    return Markup(shlex.quote(_clean(value)))


def directive(value: Any) -> Markup:
    """Quote a value for sbatch, whose parser of ``#SBATCH`` lines is not a shell.

    It groups by single and double quotes, takes a backslash before any character, in quotes too, and ends a
    line at a bare ``#``. Whatever stands around them, it takes "packjob" and "hetjob" for its own words
    (src/sbatch/opt.c, _get_argument), so a backslash breaks those up.
    """
    text = _clean(value)
    if _PLAIN.fullmatch(text) and not _HET_JOB.search(text):
        return Markup(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return Markup('"' + _HET_JOB.sub(r"\1\\\2", escaped) + '"')


def code(value: Any) -> Markup:
    """Let one line of shell through as it is: it is code, and its author answers for it."""
    return Markup(_clean(value))


def _clean(value: Any) -> str:
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, and names the variable
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RenderError(
            f"{value!r}: only texts and whole numbers can be written into a script; change the template"
        )
    text = str(value)
    if bad := bad_character(text):
        raise RenderError(f"{short(text)}: holds the control character {bad}, which no script may; rename it")
    return text


def short(text: str) -> str:
    """A value as messages quote it."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


# ---- a script as sbatch reads it ----


@dataclass(frozen=True)
class Option:
    """One option of one ``#SBATCH`` line."""

    line: int
    name: str  # long, without dashes
    value: str | None


_SHORT = {
    "J": "job-name", "N": "nodes", "t": "time", "o": "output", "a": "array", "k": "no-kill", "n": "ntasks",
    "M": "clusters", "W": "wait",
}  # fmt: skip
# Of those below: a value only after "=", never as the next word.
_NO_NEXT_WORD = frozenset(("no-kill", "requeue", "no-requeue", "parsable", "test-only", "wait"))


def words(line: str) -> list[str]:
    """The words that sbatch reads from one ``#SBATCH`` line: its ``_get_argument`` (src/sbatch/opt.c)."""
    found: list[str] = []
    rest = line.removeprefix("#SBATCH")
    word, quote, escaped, started = "", "", False, False
    for c in rest:
        if escaped:
            escaped, word = False, word + c
        elif c == "\\":
            escaped = started = True
        elif quote:
            quote, word = ("", word) if c == quote else (quote, word + c)
        elif c.isspace():
            if started:
                found.append(word)
            word, started = "", False
        elif c in "\"'":
            quote, started = c, True
        elif c == "#":
            return found + [word] * started
        else:
            started, word = True, word + c
    return found + [word] * started


def options(text: str) -> Iterator[Option]:
    """The options of a script's ``#SBATCH`` lines, in order; a later one wins over an earlier one.

    Raises:
        RenderError: a line stands where sbatch does not read it any more.
    """
    command = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#SBATCH") and command:
            raise RenderError(
                f"line {number} of the script is {short(line)}, below a command (line {command}): sbatch would "
                "not read it; move it into the block `directives`"
            )
        if line.startswith("#SBATCH"):
            yield from _options(number, words(line))
        elif line.strip() and not line.startswith("#"):
            command = command or number


def _options(number: int, parts: list[str]) -> Iterator[Option]:
    index = 0
    while index < len(parts):
        part = parts[index]
        index += 1
        value: str | None = None
        if part.startswith("--"):
            name, equals, text = part[2:].partition("=")
            value = text if equals else None
        elif part.startswith("-") and len(part) > 1:
            name, value = _SHORT.get(part[1], part[1]), part[2:] or None
        else:
            name = part
        following = parts[index] if index < len(parts) else "-"
        if value is None and part.startswith("-") and name not in _NO_NEXT_WORD and following[:1] != "-":
            value = following
            index += 1
        yield Option(number, name, value)


# ---- what must stand in a script ----

_HET_REFUSED = (
    "a line `#SBATCH hetjob`, and heterogeneous jobs are not supported: a case has one shape, and agents, ranks "
    "and recovery count on one allocation; use two groups, or a partition of the site for each kind of node"
)
_NEVER = {
    "clusters": "the driver asks this cluster's controller",
    "hetjob": "",
    "packjob": "",
    "parsable": "the job's number is read from what sbatch says otherwise",
    "test-only": "nothing would be submitted",
    "wait": "sbatch would not return before the job has ended",
    "wrap": "the script is the job",
}


@dataclass(frozen=True)
class Essential:
    """What driver and supervisor count on in one script. ``options``: name -> value and why; None: not at all."""

    options: Mapping[str, tuple[str | None, str]]
    lines: Mapping[str, str]  # a line of shell -> why it must be there; the first one sets PYTHONPATH
    last: str  # the last command


def verify(text: str, essential: Essential, *, slurm: bool) -> None:
    """Refuse a script that lacks something essential.

    Raises:
        RenderError: what is missing or different, why it must not be, and what to do.
    """
    lines = text.split("\n")
    if not lines[0].startswith("#!"):
        raise RenderError(
            f"the script begins with {short(lines[0])}: sbatch takes no script without #!/bin/bash; keep that line"
        )
    if slurm:
        _verify_options(list(options(text)), essential.options)
    commands = [line for line in lines if line.strip() and not line.startswith("#")]
    for line, why in essential.lines.items():
        if line not in commands:
            raise RenderError(
                f"the script lacks the line {short(line)}: {why}; keep the block `launch` with {{{{ super() }}}}"
            )
    if not commands or commands[-1] != essential.last:
        raise RenderError(
            f"the last command of the script is {short(commands[-1] if commands else '')}, "
            f"not {short(essential.last)}: signals and exit code must be the supervisor's; keep the block `launch`, "
            "and put nothing behind it"
        )
    ours = next(iter(essential.lines))
    for line in commands[commands.index(ours) + 1 :]:
        if re.match(r"\s*(export\s+)?PYTHONPATH=", line):
            raise RenderError(
                f"the script sets PYTHONPATH again by {short(line)}: jobs run the code of their run folder; remove it"
            )


def _verify_options(found: list[Option], wanted: Mapping[str, tuple[str | None, str]]) -> None:
    for option in found:
        if option.name in ("hetjob", "packjob"):
            raise RenderError(f"the script has {_HET_REFUSED}")
        if option.name in _NEVER:
            raise RenderError(
                f"line {option.line} of the script asks for --{option.name}: {_NEVER[option.name]}; remove it"
            )
        for name in wanted:
            if name != option.name and len(option.name) > 2 and name.startswith(option.name):
                raise RenderError(
                    f"line {option.line} of the script has --{option.name}, which sbatch takes for --{name}; "
                    "write it out"
                )
    last = {option.name: option for option in found}
    for name, (value, why) in wanted.items():
        given = last.get(name)
        if value is None and given is not None:
            raise RenderError(f"line {given.line} of the script asks for --{name}: {why}; remove it")
        if value is None:
            continue
        written = f"#SBATCH --{name}{'=' if value else ''}{value}"
        if given is None:
            raise RenderError(
                f"the script lacks {short(written)}: {why}; keep the block `directives` with {{{{ super() }}}}"
            )
        same = (given.value or "") == value
        if name == "array":  # a limit of how many run at a time is the template's business
            same = re.fullmatch(re.escape(value) + r"(%\d+)?", given.value or "") is not None
        if not same:
            raise RenderError(
                f"line {given.line} of the script says --{name}={given.value or ''}, not {short(written)}: {why}; "
                "remove it, and change the campaign or the site file where that is meant"
            )
