"""Placeholders: ``{name}`` in a command's words stands for a parameter or a fact of the case. Standard library only.

Only whole names in braces are placeholders; ``{{name}}`` gives ``{name}``, and every other brace stays as it is,
so JSON, ``awk '{print $1}'`` and ``\\d{3}`` need no care. What is filled in is never looked at again, and
nothing here writes shell: a script reads its parameters from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_PLACEHOLDER = re.compile(r"\{\{(" + _NAME + r")\}\}|\{(" + _NAME + r")\}")

# What the harness fills in itself; no parameter may have such a name.
FACTS = {
    "nodes": "nodes of the case",
    "ranks": "ranks of the case, all nodes together",
    "ranks_per_node": "ranks on each node",
    "rank": "this rank's number, from 0",
    "local_rank": "this rank's number on its node, from 0",
    "node": "name of this rank's node",
    "seed": "the case's seed",
    "repeat": "the repeat's number, from 0",
    "steps": "the case's steps",
    "case": "the case's id",
    "folder": "the attempt's own folder on shared storage, where the program starts",
    "case_folder": "a folder on shared storage that all attempts of the case share",
    "checkpoints": "where the program keeps its checkpoints: command.checkpoint_folder in {case_folder}",
    "python": "the interpreter that runs the harness",
}

OF_A_RANK = ("rank", "local_rank", "node")


def names(text: str) -> Iterator[str]:
    """The names for which something is filled in, in order."""
    for match in _PLACEHOLDER.finditer(text):
        if match.group(2) is not None:
            yield match.group(2)


def fill(text: str, values: Mapping[str, str], quote: Callable[[str], str] = str) -> str:
    """The text with its placeholders filled in.

    Args:
        text: with placeholders.
        values: what they stand for.
        quote: applied to each value, such as ``re.escape``.

    Raises:
        KeyError: a name has no value.
    """
    return _PLACEHOLDER.sub(
        lambda m: "{" + m.group(1) + "}" if m.group(1) is not None else quote(values[m.group(2)]), text
    )


def as_text(value: object) -> str:
    """A parameter as a program gets it: true and false in small letters, a list joined by commas."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(as_text(v) for v in value)
    return str(value)
