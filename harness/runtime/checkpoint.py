"""Checkpoints that are committed whole or not at all, and verified on every rank before they are used.

A checkpoint is a fresh folder. Every rank writes its part there; rank 0 gathers the digests of files
and of live states into a manifest, syncs, and renames the folder: only a renamed folder exists. The
name carries restart count and epoch, so what an old, cut-off rank commits late is never taken for new.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.rundir import sync_folder, write_json
from harness.runtime import digest
from harness.workloads.api import Workload

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8})\.(\d+)\.(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint. ``step`` is the number of steps that were finished when it was taken."""

    folder: Path
    step: int
    restart: int
    epoch: int


class CheckpointError(Exception):
    """A checkpoint cannot be used, or none can; the message says which and why."""


def committed(parent: Path) -> list[Checkpoint]:
    """Committed checkpoints, newest first."""
    found = []
    if parent.is_dir():
        for folder in parent.iterdir():
            match = _NAME.match(folder.name)
            if match:
                found.append(Checkpoint(folder, *(int(g) for g in match.groups())))
    return sorted(found, key=lambda c: (c.step, c.restart, c.epoch), reverse=True)


def save(
    workload: Workload, parent: Path, rank: int, step: int, restart: int, epoch: int, keep: int
) -> dict[str, Any]:
    """Take a checkpoint together with all ranks; return what this rank wrote.

    Args:
        step: steps finished, so the step to continue with.
        keep: committed checkpoints to keep; older ones are removed by rank 0 after the commit.

    Returns:
        ``{"step", "digest", "bytes", "path"}``; digest is that of this rank's live state.

    Raises:
        CheckpointError: rank 0 could not commit it.
        OSError: this rank's part cannot be written.
    """
    name = f"step-{step:08d}.{restart}.{epoch}"
    temporary = parent / f".{name}.tmp"
    if rank == 0:
        parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    workload.barrier()
    state = workload.state_digest()
    files = {}
    written = 0
    for path in workload.save(temporary):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        files[path.name] = {"bytes": size, "sha256": digest.of_file(path)}
        written += size
    parts = workload.gather({"rank": rank, "state_digest": state, "files": files})
    problem = ""
    if parts is not None:
        try:
            body = {"step": step, "restart": restart, "epoch": epoch, "ranks": parts}
            write_json(temporary / MANIFEST, {**body, "sha256": _manifest_digest(body)})
            temporary.replace(parent / name)
            sync_folder(parent)
        except OSError as error:
            problem = str(error)
    problem = workload.broadcast(problem)
    if problem:
        raise CheckpointError(f"checkpoint of step {step} was not committed: {problem}")
    if rank == 0:
        for old in committed(parent)[max(keep, 1) :]:
            shutil.rmtree(old.folder, ignore_errors=True)
    return {"step": step, "digest": state, "bytes": written, "path": name}


def _manifest_digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _verify(folder: Path, rank: int, world: int) -> dict[str, Any]:
    """The manifest's part of this rank, when all files this rank may load are as they were committed.

    Raises:
        CheckpointError: what is wrong.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        said = manifest.pop("sha256")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder.name}: its manifest cannot be read: {error}") from None
    if _manifest_digest(manifest) != said:
        raise CheckpointError(f"{folder.name}: its manifest is damaged")
    parts = {part["rank"]: part for part in manifest["ranks"]}
    if sorted(parts) != list(range(world)):
        raise CheckpointError(f"{folder.name}: of {len(parts)} ranks, but this world has {world}")
    for owner in {0, rank}:
        for name, facts in parts[owner]["files"].items():
            path = folder / name
            if not path.is_file():
                raise CheckpointError(f"{folder.name}: {name} of rank {owner} is missing")
            if path.stat().st_size != facts["bytes"] or digest.of_file(path) != facts["sha256"]:
                raise CheckpointError(f"{folder.name}: {name} of rank {owner} is damaged")
    part: dict[str, Any] = parts[rank]
    return part


def restore(
    workload: Workload, parent: Path, rank: int, world: int
) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest checkpoint that verifies on every rank, all ranks together.

    Returns:
        ``{"step", "digest", "committed_digest", "path"}`` (the second digest is the manifest's), or None when there is
        no checkpoint at all; and why any was refused.

    Raises:
        CheckpointError: there are checkpoints and none can be used, or the restored state has another
            digest than the one committed. Nothing is overwritten.
    """
    names = workload.broadcast([c.folder.name for c in committed(parent)] if rank == 0 else None)
    refused: list[str] = []
    for name in names:
        problem, part = "", None
        try:
            part = _verify(parent / name, rank, world)
        except CheckpointError as error:
            problem = f"rank {rank}: {error}"
        problems = workload.gather(problem)
        problems = workload.broadcast([p for p in problems if p] if problems is not None else None)
        if problems or part is None:
            refused += problems
            continue
        workload.restore(parent / name)
        state = workload.state_digest()
        if state != part["state_digest"]:
            raise CheckpointError(
                f"{name}: restored on rank {rank} with digest {state[:16]}, "
                f"but {part['state_digest'][:16]} was committed"
            )
        match = _NAME.match(name)
        assert match is not None  # names come from committed()
        return {
            "step": int(match.group(1)),
            "digest": state,
            "committed_digest": part["state_digest"],
            "path": name,
        }, refused
    if refused:
        raise CheckpointError("no checkpoint can be used: " + "; ".join(refused))
    return None, refused
