"""Checkpoints that a user's program saved by ``harness.program``, as ``damage`` needs to know them.

A folder ``step-STEP.ATTEMPT`` with a part ``rank-N`` for each rank, each with a manifest of its own; marked when all
are there. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.faults import FaultError

MANIFEST = "manifest.json"
_COMPLETE = "complete.json"
_NAME = re.compile(r"step-(\d{8,})\.(\d+)$")


@dataclass(frozen=True, order=True)
class Stamp:
    """Which checkpoint."""

    step: int
    attempt: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"step-{self.step:08d}.{self.attempt}"

    @classmethod
    def of_name(cls, name: str) -> Stamp | None:
        """The stamp in a folder's name; None for other names."""
        match = _NAME.match(name)
        return cls(*(int(g) for g in match.groups())) if match else None


def committed(parent: Path) -> list[Stamp]:
    """Checkpoints of which every part is committed, newest first.

    Raises:
        OSError: the folder cannot be looked into.
    """
    found = [stamp for name in os.listdir(parent) if (stamp := Stamp.of_name(name)) is not None]
    return sorted((s for s in found if (parent / s.name / _COMPLETE).exists()), reverse=True)


def files(folder: Path) -> list[tuple[int, str]]:
    """Rank and name, within the checkpoint, of each file that is not empty.

    Raises:
        FaultError: a manifest cannot be read: it is damaged already.
    """
    found = []
    for part in sorted(folder.glob("rank-*")):
        rank = int(part.name.removeprefix("rank-"))
        found += [
            (rank, f"{part.name}/{name}") for name, said in sorted(_manifest(part).items()) if said["bytes"]
        ]
    return found


def _manifest(part: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((part / MANIFEST).read_text(encoding="ascii"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FaultError(f"{part.parent.name} is damaged already: {part.name}: {error}") from None
    return manifest
