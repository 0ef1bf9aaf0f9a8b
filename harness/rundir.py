"""Every path in a run folder, and the few ways its files are written. Standard library only.

Nothing else builds a path inside a run folder. The folder is private (0700): it holds scripts that
run as the user. Files that a job depends on are written whole, synced and renamed before ``sbatch``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.model.case import Plan

RUN_SCHEMA = 1
IDENTITY_KEYS = (
    "run_id",
    "campaign",
    "description",
    "campaign_id",
    "created_wall_ns",
    "harness_version",
    "git_commit",
    "code_sha256",
    "scripts",
    "command",
    "environment",
    "slurm_version",
)
SITE_KEYS = (
    "name",
    "kind",
    "launcher",
    "node",
    "mpi",
    "network",
    "paths",
    "accounting",
    "scheduler",
    "power",
)


class RunFolderError(Exception):
    """A run folder cannot be used; the message says which, why, and what to do."""


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader, or a machine that loses power, sees all of it or none of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, data: Any) -> None:
    """``write_atomic`` of a JSON document."""
    write_atomic(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Append one JSON line and sync it; a torn line after a crash is skipped by ``read_lines``."""
    line = json.dumps(data, separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # the last writer died in the middle of its line: begin a new one
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole JSON lines of a file, in order; a line torn by a crash is left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for line in content.split(b"\n"):
        if not line:
            continue
        with contextlib.suppress(ValueError):
            data = json.loads(line)
            if isinstance(data, dict):
                yield data


class RunDir:
    """The paths of one run folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()

    # What was planned; written once, before anything is submitted.
    @property
    def identity(self) -> Path:
        """Who planned what, when, with which code."""
        return self.path / "run.json"

    @property
    def campaign_text(self) -> Path:
        """The campaign file as it was."""
        return self.path / "campaign.yaml"

    @property
    def site_text(self) -> Path:
        """The site file as it was."""
        return self.path / "site.yaml"

    @property
    def site(self) -> Path:
        """The site, resolved, for the supervisor."""
        return self.path / "site.json"

    @property
    def plan(self) -> Path:
        """Cases, jobs and submissions."""
        return self.path / "plan.json"

    @property
    def code(self) -> Path:
        """The harness as it was when the run was planned; jobs import it from here."""
        return self.path / "harness.zip"

    def script(self, submission: str) -> Path:
        """The script that is submitted."""
        return self.path / "jobs" / f"{submission}.sh"

    # What the driver keeps.
    @property
    def ledger(self) -> Path:
        """Append-only: what the driver did."""
        return self.path / "ledger.jsonl"

    @property
    def lease(self) -> Path:
        """Held by the one driver at work."""
        return self.path / "driver.lock"

    @property
    def calls(self) -> Path:
        """How often which of Slurm's commands was run for this run, all drivers together."""
        return self.path / "scheduler.json"

    @property
    def driver_events(self) -> Path:
        """Events that the driver saw or caused."""
        return self.path / "driver-events.jsonl"

    @property
    def logs(self) -> Path:
        """What Slurm writes of each job's batch script."""
        return self.path / "logs"

    # What jobs write.
    def job(self, key: str) -> Path:
        """Folder of one job."""
        return self.path / "work" / key

    def claim(self, key: str) -> Path:
        """Which Slurm job may execute this key."""
        return self.job(key) / "claim.json"

    def token(self, key: str) -> Path:
        """Secret of the job's channel, 0600."""
        return self.job(key) / "token"

    def events(self, key: str) -> Path:
        """Events of the job's supervisors."""
        return self.job(key) / "events.jsonl"

    def attempts(self, key: str) -> Path:
        """Attempts of the job's cases: one line at each start, one at each end."""
        return self.job(key) / "attempts.jsonl"

    def progress(self, key: str) -> Path:
        """How far the running case is; replaced about once a second, never needed."""
        return self.job(key) / "progress.json"

    def end(self, key: str) -> Path:
        """Written last by the supervisor, when no case of the job is left to do."""
        return self.job(key) / "end.json"

    def case(self, key: str, case_id: str) -> Path:
        """Folder of one case of a job."""
        return self.job(key) / case_id

    def checkpoints(self, key: str, case_id: str) -> Path:
        """Committed checkpoints of a case."""
        return self.case(key, case_id) / "checkpoints"

    def attempt(self, key: str, case_id: str, folder: str) -> Path:
        """Folder of one attempt; only that attempt's processes write in it."""
        return self.case(key, case_id) / folder

    # Results.
    @property
    def results(self) -> Path:
        """Every raw sample and fact."""
        return self.path / "results.h5"

    def read_json(self, path: Path, *keys: str) -> dict[str, Any]:
        """Read one of the run's JSON documents, which must have these keys.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(
                f"{path}: no such file; {self.path} is not a run folder, or `harness run` was stopped before it "
                "had planned: run it again"
            ) from None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path}: cannot be read ({error}); the run folder is damaged") from None
        if not isinstance(data, dict):
            raise RunFolderError(f"{path}: not a JSON object; the run folder is damaged")
        missing = [key for key in keys if key not in data]
        if missing:
            raise RunFolderError(
                f"{path}: lacks {', '.join(missing)}; the run folder is damaged, or of another version"
            )
        return data

    def read_identity(self) -> dict[str, Any]:
        """``run.json``. Raises RunFolderError as ``read_json`` does."""
        return self.read_json(self.identity, *IDENTITY_KEYS)

    def read_site(self) -> dict[str, Any]:
        """``site.json``. Raises RunFolderError as ``read_json`` does."""
        return self.read_json(self.site, *SITE_KEYS)

    def read_plan(self) -> Plan:
        """``plan.json``. Raises RunFolderError as ``read_json`` does."""
        data = self.read_json(self.plan, "cases", "submissions")
        try:
            return Plan.from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunFolderError(
                f"{self.plan}: cannot be understood ({type(error).__name__}: {error}); the run folder is damaged, "
                "or of another version"
            ) from None
