"""Damage to a committed checkpoint, as storage does it: one bit, a block, a length, a file, an old one in its place.

Pure functions of a folder and a source of chance, so that the same seed does the same damage. Each returns what
it did: which file of which rank, where, and size and SHA-256 before and after, read back from storage. Digests here
are SHA-256, other than the checkpoint's own: what judges the damage does not share code with what must find it.
Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from harness.faults import FaultError, program_checkpoints
from harness.rundir import sync_folder
from harness.runtime import checkpoint_files
from harness.runtime.checkpoint_files import MANIFEST, CheckpointError, read_manifest, write_manifest

BLOCK_BYTES = 4096
TRIES = 100  # to find a block that is not zeros already

Evidence = dict[str, Any]
Damage = Callable[[Path, Random], Evidence]


def committed(parent: Path) -> Sequence[checkpoint_files.Stamp | program_checkpoints.Stamp]:
    """Committed checkpoints, the harness's or a program's, newest first.

    Raises:
        CheckpointError, OSError: the folder cannot be looked into.
    """
    found = checkpoint_files.committed(parent)
    return found or (program_checkpoints.committed(parent) if parent.is_dir() else [])


def facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, read now; of a missing one -1 and ""."""
    try:
        with path.open("rb") as stream:
            sha = hashlib.sha256()
            size = 0
            while block := stream.read(1 << 20):
                sha.update(block)
                size += len(block)
    except FileNotFoundError:
        return {"bytes": -1, "sha256": ""}
    return {"bytes": size, "sha256": sha.hexdigest()}


def flip_bit(folder: Path, chance: Random) -> Evidence:
    """One bit of one shard is another."""
    rank, name = _shard(folder, chance)
    offset, bit = chance.randrange((folder / name).stat().st_size), chance.randrange(8)

    def change(path: Path) -> None:
        _write_at(path, offset, bytes([_read_at(path, offset, 1)[0] ^ 1 << bit]))

    return _done(folder, rank, name, change, offset=offset, bit=bit)


def zero_block(folder: Path, chance: Random) -> Evidence:
    """A block of one shard is zeros, as after a write that never arrived."""
    for _ in range(TRIES):
        rank, name = _shard(folder, chance)
        path = folder / name
        offset = chance.randrange(path.stat().st_size)
        block = _read_at(path, offset, BLOCK_BYTES)
        if any(block):
            change = partial(_write_at, offset=offset, data=bytes(len(block)))
            return _done(folder, rank, name, change, offset=offset, length=len(block))
    raise FaultError(f"{folder}: {TRIES} random blocks of its shards are zeros already")


def truncate(folder: Path, chance: Random) -> Evidence:
    """One shard is cut short."""
    rank, name = _shard(folder, chance)
    length = chance.randrange((folder / name).stat().st_size)

    def change(path: Path) -> None:
        with path.open("r+b") as stream:
            stream.truncate(length)
            os.fsync(stream.fileno())

    return _done(folder, rank, name, change, offset=length)


def missing_shard(folder: Path, chance: Random) -> Evidence:
    """One shard is gone."""
    rank, name = _shard(folder, chance)
    return _done(folder, rank, name, Path.unlink)


def stale_shard(folder: Path, chance: Random) -> Evidence:
    """All files of one rank are those of the checkpoint before, and so is its entry; the manifest's digest fits.

    Raises:
        FaultError: there is no checkpoint before.
    """
    older = _before(folder)
    if _is_programs(folder):
        return _stale_part(folder, older, chance)
    manifest, before = read_manifest(folder), read_manifest(older)
    rank, name = _shard(folder, chance)
    if rank >= before["world"]:
        raise FaultError(f"{older.name} has no shard of rank {rank}")
    old = before["ranks"][rank]
    differ = [file for file in sorted(old["files"]) if facts(older / file) != facts(folder / file)]
    name = differ[0] if differ else name

    def change(_: Path) -> None:
        for file in manifest["ranks"][rank]["files"]:
            (folder / file).unlink()
        for file in old["files"]:
            shutil.copyfile(older / file, folder / file)
        ranks = [old if part["rank"] == rank else part for part in manifest["ranks"]]
        body = {key: value for key, value in manifest.items() if key != "sha256"}
        write_manifest(folder, {**body, "ranks": ranks})

    return _done(folder, rank, name, change, instead=older.name)


def torn_manifest(folder: Path, chance: Random) -> Evidence:
    """The manifest ends somewhere in its middle."""
    rank, name = -1, MANIFEST
    if _is_programs(folder):
        rank = _shard(folder, chance)[0]
        name = f"rank-{rank}/{program_checkpoints.MANIFEST}"
    length = chance.randrange((folder / name).stat().st_size - 1)  # its last byte may be a line feed

    def change(path: Path) -> None:
        with path.open("r+b") as stream:
            stream.truncate(length)
            os.fsync(stream.fileno())

    return _done(folder, rank, name, change, offset=length)


def _stale_part(folder: Path, older: Path, chance: Random) -> Evidence:
    """The same of a program's: the part of one rank, manifest included."""
    rank, name = _shard(folder, chance)
    part = f"rank-{rank}"
    if not (older / part).is_dir():
        raise FaultError(f"{older.name} has no part of rank {rank}")
    name = f"{part}/{program_checkpoints.MANIFEST}"  # the one file that is never the same in two

    def change(_: Path) -> None:
        shutil.rmtree(folder / part)
        shutil.copytree(older / part, folder / part)

    return _done(folder, rank, name, change, instead=older.name)


def _is_programs(folder: Path) -> bool:
    return program_checkpoints.Stamp.of_name(folder.name) is not None


KINDS: Mapping[str, Damage] = {
    "flip_bit": flip_bit,
    "zero_block": zero_block,
    "truncate": truncate,
    "missing_shard": missing_shard,
    "stale_shard": stale_shard,
    "torn_manifest": torn_manifest,
}


def _shard(folder: Path, chance: Random) -> tuple[int, str]:
    """A rank and one of its files that is not empty."""
    if _is_programs(folder):
        if not (found := program_checkpoints.files(folder)):
            raise FaultError(f"{folder.name} has no files besides its manifests")
        return chance.choice(found)
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        raise FaultError(f"{folder.name} is damaged already: {error}") from None
    files = [
        (part["rank"], name)
        for part in manifest["ranks"]
        for name, said in sorted(part["files"].items())
        if said["bytes"]
    ]
    if not files:
        raise FaultError(f"{folder.name} has no files besides its manifest: this workload has no state")
    return chance.choice(files)


def _before(folder: Path) -> Path:
    newest_first = [stamp.name for stamp in committed(folder.parent)]
    older = newest_first[newest_first.index(folder.name) + 1 :] if folder.name in newest_first else []
    if not older:
        raise FaultError(f"{folder.name} is the only checkpoint: there is none before, to take a shard from")
    return folder.parent / older[0]


def _done(folder: Path, rank: int, name: str, change: Callable[[Path], None], **where: Any) -> Evidence:
    """Do it and say so, by what is on storage before and after."""
    path = folder / name
    before = facts(path)
    change(path)
    sync_folder(path.parent)
    evidence: Evidence = {"checkpoint": folder.name, "file": name, "rank": rank, **where}
    return {**evidence, "before": before, "after": facts(path)}


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
