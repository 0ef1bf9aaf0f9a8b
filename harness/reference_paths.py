"""Baselines and histories that gates name: meant from the file that names them, from an override the current folder.

Pure: a document in, one with absolute paths out. Whether anything is there is asked when it is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.document import Document
from harness.model.fields import Loc

KEYS = ("baseline", "history")


def named(data: Any) -> Iterator[tuple[Loc, str]]:
    """Every path that a gate names, with its place; the data may be anything that YAML can say."""
    groups = data.get("groups") if isinstance(data, Mapping) else None
    for number, group in enumerate(groups if isinstance(groups, (list, tuple)) else ()):
        gates = group.get("gates") if isinstance(group, Mapping) else None
        for index, gate in enumerate(gates if isinstance(gates, (list, tuple)) else ()):
            for key in KEYS if isinstance(gate, Mapping) else ():
                if isinstance(gate.get(key), str) and gate[key]:
                    yield ("groups", number, "gates", index, key), gate[key]


def _with(data: Any, loc: Loc, value: str) -> Any:
    if not loc:
        return value
    if isinstance(data, Mapping):
        return {**data, loc[0]: _with(data[loc[0]], loc[1:], value)}
    at = int(loc[0])
    return type(data)([*data[:at], _with(data[at], loc[1:], value), *data[at + 1 :]])


def found(document: Document) -> Document:
    """The document with each of these paths absolute."""
    if not document.files:
        return document
    data = document.data
    for loc, given in named(document.data):
        spot = document.spot(loc)
        near = Path(spot.path).parent if spot.line else Path()
        data = _with(data, loc, str((near / given).absolute()))
    return replace(document, data=data)
