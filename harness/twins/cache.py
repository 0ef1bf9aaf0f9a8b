"""Where the records of twins are kept: a folder for each key, put in place whole, and believed only if it verifies.

It is a cache: whatever is wrong with it costs a run of the twin, and nothing else. Entries go when there are too
many or they are too large, those first that were not used for longest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.model.case import content_id
from harness.rundir import private, sync_folder, write_json

VARIABLE = "HARNESS_TWINS"
OFF = "off"
MOST_ENTRIES = 200
MOST_BYTES = 2 << 30
LARGEST_ENTRY_BYTES = MOST_BYTES // 4
SOURCE = "source.json"
SCHEMA = 1

_STALE_S = 24 * 3600.0  # a folder that was never finished, or never removed: whoever made it died
_KEY = re.compile(r"[0-9a-f]{40}")
_FILE = re.compile(r"(attempts|events)\.jsonl|attempt-\d+\.\d+/[^/]+\.stream")
_CHUNK = 1 << 20


class Damaged(Exception):
    """An entry is not what it was when it was kept; the message says what differs."""


@dataclass(frozen=True)
class Entry:
    """What is kept of one twin."""

    path: Path
    source: Mapping[str, Any]

    def copy(self, target: Path) -> None:
        """Copy its records into a folder that is not there yet, synced, checked against lengths and digests.

        Raises:
            Damaged: they are not what they were.
            OSError: they cannot be written.
        """
        target.mkdir(mode=0o700, parents=True)
        for name, said in sorted(self.source["files"].items()):
            path = target / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _copied(self.path / name, path) != (said["bytes"], said["sha256"]):
                raise Damaged(f"{name} is not what was kept")
        for folder in {target, *(f for f in target.iterdir() if f.is_dir())}:
            sync_folder(folder)


class Cache:
    """The entries under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_user(cls) -> Cache | None:
        """The user's own: ``HARNESS_TWINS``, or in ``~/.cache``; None when that is "off", or there is no home."""
        given = os.environ.get(VARIABLE, "")
        if given == OFF:
            return None
        if given:
            return cls(Path(given).absolute())
        try:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:
            return None
        return cls(base / "hpc-harness" / "twins")

    def find(self, key: str, case_id: str) -> Entry | None:
        """What is kept under a key; None when there is nothing.

        Raises:
            Damaged: there is something, and it is not of this twin, or its description does not verify.
        """
        path = self.root / key
        try:
            data = json.loads((path / SOURCE).read_bytes())
        except FileNotFoundError:
            if path.exists():
                raise Damaged(f"{SOURCE} is missing") from None
            return None
        except (OSError, ValueError) as error:
            raise Damaged(f"{SOURCE} cannot be read ({error})") from None
        if not isinstance(data, dict) or data.pop("sha256", "") != content_id(data, length=64):
            raise Damaged(f"{SOURCE} is not what was written")
        if (data["schema"], data["key"], data["case_id"]) != (SCHEMA, key, case_id):
            raise Damaged(f"{SOURCE} is of another twin")
        if not all(_FILE.fullmatch(name) for name in data["files"]):
            raise Damaged(f"{SOURCE} names files that no twin has")
        return Entry(path, data)

    def used(self, entry: Entry) -> None:
        """Note that an entry was used now."""
        with contextlib.suppress(OSError):
            os.utime(entry.path)

    def add(self, key: str, facts: Mapping[str, Any], files: Mapping[str, Path | bytes]) -> bool:
        """Keep a twin, in the place of what was kept of it before; then make room.

        Args:
            key: of the twin.
            facts: where it comes from, JSON-ready.
            files: its records by name: a file to copy, or the content itself.

        Returns:
            Whether it was kept: one that is too large is not.

        Raises:
            OSError: it cannot be written or its records not be read; the cache is as it was.
        """
        size = sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in files.values())
        if size > LARGEST_ENTRY_BYTES:
            return False
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.root / f".new.{secrets.token_hex(8)}"
        new.mkdir(mode=0o700)
        try:
            self._fill(new, key, facts, files)
            self.remove(key)
            new.replace(self.root / key)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        sync_folder(self.root)
        self._make_room(key)
        return True

    def _fill(
        self, folder: Path, key: str, facts: Mapping[str, Any], files: Mapping[str, Path | bytes]
    ) -> None:
        written = {}
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            size, digest = _written(content, path) if isinstance(content, bytes) else _copied(content, path)
            written[name] = {"bytes": size, "sha256": digest}
        for inner in (f for f in folder.iterdir() if f.is_dir()):
            sync_folder(inner)
        source = {**facts, "schema": SCHEMA, "key": key, "kept_wall_ns": time.time_ns(), "files": written}
        write_json(folder / SOURCE, {**source, "sha256": content_id(source, length=64)})

    def remove(self, key: str) -> None:
        """Remove an entry: out of sight at once, then from storage. One that cannot be removed stays."""
        old = self.root / f".old.{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):
            (self.root / key).replace(old)
        shutil.rmtree(old, ignore_errors=True)

    def _make_room(self, newest: str) -> None:
        """Remove what is too much, never the newest; and what others began and did not finish."""
        entries = []
        for path in self.root.iterdir():
            with contextlib.suppress(OSError):
                changed_s = path.stat().st_mtime
                if _KEY.fullmatch(path.name):
                    entries.append((path.name != newest, changed_s, path.name, _size(path)))
                elif path.name.startswith((".new.", ".old.")) and time.time() - changed_s > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)
        entries.sort(key=lambda entry: (entry[0], -entry[1]))
        kept_bytes = 0
        for number, (_, _, key, size) in enumerate(entries):
            kept_bytes += size
            if number and (number >= MOST_ENTRIES or kept_bytes > MOST_BYTES):
                self.remove(key)


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _copied(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file, synced; its length and SHA-256 as read.

    Raises:
        Damaged: the source cannot be read.
        OSError: the target cannot be written.
    """
    try:
        reading = source.open("rb")
    except OSError as error:
        raise Damaged(f"{source.name} cannot be read ({error.strerror})") from None
    digest, size = hashlib.sha256(), 0
    with reading, open(target, "xb", opener=private) as writing:
        while chunk := _read(reading, source.name):
            digest.update(chunk)
            size += len(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return size, digest.hexdigest()


def _read(file: BinaryIO, name: str) -> bytes:
    try:
        return file.read(_CHUNK)
    except OSError as error:
        raise Damaged(f"{name} cannot be read ({error.strerror})") from None


def _written(content: bytes, target: Path) -> tuple[int, str]:
    with open(target, "xb", opener=private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return len(content), hashlib.sha256(content).hexdigest()
