"""What a committed checkpoint is on storage: names, manifests, and who may still commit. Standard library only.

A checkpoint is a folder ``step-STEP.RESTART.EPOCH``; while it is written its name begins with a dot. Its
manifest holds an entry for each rank: the digest of the rank's live state, and size and digest of each file
that the rank wrote. Step, restart, epoch, rank and name go into a file's digest before its bytes do, and into
the entry, which has a digest of its own. So a file of another checkpoint is found out, also with its own entry.

Whoever begins to restore leaves a fence beside the checkpoints: which of them were there. What an earlier
start commits afterwards is refused, or, where it slipped through, is late and never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.rundir import write_json

MANIFEST = "manifest.json"
SCHEMA = 1
ALGORITHM = "xxh3_128"  # of the line that `bound` makes, followed by the file's bytes
SHARED, MEMORY = "shared", "memory"
LEVELS = (MEMORY, SHARED)  # the faster one is looked at first
_NAME = re.compile(r"step-(\d{8,})\.(\d+)\.(\d+)$")
_FENCE = re.compile(r"\.fence-(\d+)\.(\d+)\.json$")


class CheckpointError(Exception):
    """A checkpoint cannot be used, or none can; the message says which and why."""


class NotCommitted(CheckpointError):
    """A checkpoint was not committed, on any rank; those before it are as they were."""


NONE_USABLE = "no checkpoint can be used"


@dataclass(frozen=True, order=True)
class Stamp:
    """Which checkpoint: ``step`` is the number of steps that were finished when it was taken."""

    step: int
    restart: int
    epoch: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"step-{self.step:08d}.{self.restart}.{self.epoch}"

    @property
    def words(self) -> str:
        """For people."""
        return f"step {self.step}, restart {self.restart}, epoch {self.epoch}"

    @classmethod
    def of_name(cls, name: str) -> Stamp | None:
        """The stamp in a folder's name; None for other names."""
        match = _NAME.match(name)
        return cls(*(int(g) for g in match.groups())) if match else None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Stamp:
        """The stamp that a manifest, or one of its entries, bears."""
        return cls(data["step"], data["restart"], data["epoch"])


def committed(parent: Path) -> list[Stamp]:
    """Committed checkpoints, newest first; those that came late are left out.

    Raises:
        CheckpointError: the folder cannot be looked into: that is not the same as none.
    """
    names = _names(parent)
    stamps = [stamp for name in names if (stamp := Stamp.of_name(name))]
    late = {s.name for s in stamps if _is_late(parent, names, s)}
    return sorted((s for s in stamps if s.name not in late), reverse=True)


def _names(parent: Path) -> list[str]:
    try:
        return os.listdir(parent)
    except FileNotFoundError:
        if parent.parent.is_dir():
            return []
        raise CheckpointError(f"{parent.parent} is not there: is its storage away?") from None
    except OSError as error:
        raise CheckpointError(f"{parent} cannot be looked into: {error.strerror or error}") from None


# --- fences -------------------------------------------------------------------------------------------------


def newest_fence(parent: Path) -> tuple[int, int]:
    """Restart and epoch of the latest start that has begun to restore here; (-1, -1) before any has."""
    starts = [(int(m.group(1)), int(m.group(2))) for name in _names(parent) if (m := _FENCE.match(name))]
    return max(starts, default=(-1, -1))


def put_fence(parent: Path, restart: int, epoch: int) -> None:
    """From now on, what an earlier start commits here is not used. May be called again.

    Raises:
        OSError: it cannot be written.
        CheckpointError: as ``committed``.
    """
    path = parent / f".fence-{restart}.{epoch}.json"
    if path.name not in _names(parent):
        parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"committed": [stamp.name for stamp in committed(parent)]}))
        temporary.replace(path)  # not synced: whom it shuts out does not outlive a machine that loses power


def _is_late(parent: Path, names: Sequence[str], stamp: Stamp) -> bool:
    """Whether a later start had already begun, and this one was not there yet."""
    for name in names:
        match = _FENCE.match(name)
        if match and (int(match.group(1)), int(match.group(2))) > (stamp.restart, stamp.epoch):
            try:
                seen = json.loads((parent / name).read_text(encoding="utf-8"))["committed"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a damaged fence forbids nothing: the checkpoint must still verify
            if stamp.name not in seen:
                return True
    return False


# --- digests and manifests ----------------------------------------------------------------------------------


def bound(stamp: Stamp, rank: int, name: str) -> bytes:
    """What goes into a file's digest before its bytes: whose file it is, and of which checkpoint."""
    return f"{stamp.step}.{stamp.restart}.{stamp.epoch} {rank} {name}\n".encode()


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` with its own digest under "sha256"."""
    return {**body, "sha256": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}


def is_sealed(data: Mapping[str, Any]) -> bool:
    """Whether a document is as ``sealed`` made it."""
    return sealed({key: value for key, value in data.items() if key != "sha256"}) == data


def write_manifest(folder: Path, body: Mapping[str, Any]) -> None:
    """Write the manifest whole, synced."""
    write_json(folder / MANIFEST, sealed(body))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, when it is whole.

    Raises:
        CheckpointError: it is missing, torn, altered, or of another schema.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{MANIFEST} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{MANIFEST} is torn: {error}") from None
    if not isinstance(manifest, dict) or not is_sealed(manifest):
        raise CheckpointError(f"{MANIFEST} is torn or altered: its own digest does not fit")
    if manifest.get("schema") != SCHEMA or manifest.get("algorithm") != ALGORITHM:
        raise CheckpointError(
            f"{MANIFEST} has schema {manifest.get('schema')} with {manifest.get('algorithm')}; this version "
            f"reads schema {SCHEMA} with {ALGORITHM}: restore with the version that wrote it"
        )
    return manifest
