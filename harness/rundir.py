"""Every path in a run folder, and the few ways its files are written. Standard library only.

Nothing else builds a path inside a run folder. The folder is private (0700): it holds scripts that
run as the user. Files that a job depends on are written whole, synced and renamed before ``sbatch``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.model.case import Plan

RUN_SCHEMA = 1
STALE_TRIES = 3
PROMISED_S = 90.0  # a file that another node says it wrote: NFS shows it within a minute
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


# What storage says when it takes no more, and what helps. A run goes on from where its files are.
_FULL = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your space there, or have your quota raised",
    errno.EFBIG: "have your limit on the size of files raised (ulimit -f)",
    errno.EROFS: "have the file system made writable again",
}


class RunFolderError(Exception):
    """A run folder cannot be used; the message says which, why, and what to do."""


def takes_no_more(error: OSError) -> bool:
    """Whether storage is full, at its quota, or read-only: nothing is wrong with what was to be written."""
    return error.errno in _FULL


def brief(error: OSError) -> str:
    """An error of the file system: where, and what."""
    return f"{error.filename or 'file'}: {error.strerror or error}"


def in_words(error: OSError) -> str:
    """An error of the file system for people: where, what, and what to do next where we know."""
    if not takes_no_more(error):
        return brief(error)
    advice = f"{_FULL[error.errno or 0]}, and give the same command again: nothing that was written is lost"
    return f"{brief(error)}; {advice}"


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors of the file system in this block say which file they are about."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def private(path: str, flags: int) -> int:
    """An ``opener`` for ``open``: a file that it makes is for this user alone."""
    return os.open(path, flags, 0o600)


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader, or a machine that loses power, sees all of it or none of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with named(path), os.fdopen(descriptor, "wb") as file:
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
    """Append one JSON line and sync it; a line torn by a crash or a full disk is skipped by ``read_lines``.

    Raises:
        OSError: not all of it is on storage; the same line may be appended again.
    """
    line = json.dumps(data, separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with named(path):
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # the last writer died in the middle of its line: begin a new one
            write_all(descriptor, line)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: a disk that is nearly full takes a part, and says so by no error, only by its number."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def content_of(path: Path, *, missing_ok: bool = True) -> bytes:
    """A file's content as it can be seen here; of one that is not there nothing, or FileNotFoundError.

    On NFS a file that another machine replaced in this moment is "stale"; opened again it is the new one.
    """
    for _ in range(STALE_TRIES):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if not missing_ok:
                raise
            return b""
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    raise OSError(errno.ESTALE, f"stale {STALE_TRIES} times, so that it cannot be read", str(path))


def read_promised(path: Path, deadline_s: float = PROMISED_S) -> bytes:
    """Content of a file that another node says it wrote whole: waited for, since it may show here later.

    Raises:
        FileNotFoundError: it does not show within the deadline.
        OSError: it cannot be read.
    """
    end = time.monotonic() + deadline_s
    while not (content := content_of(path)):
        if time.monotonic() > end:
            why = f"not to be seen here, {deadline_s:g} s after it was written on another node"
            raise FileNotFoundError(errno.ENOENT, why, str(path))
        time.sleep(0.05)
    return content


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole JSON lines of a file, in order; a line torn by a crash is left out."""
    yield from lines_of(content_of(path))


def lines_of(content: bytes) -> Iterator[dict[str, Any]]:
    """The whole JSON lines of a content, as ``read_lines``."""
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

    @property
    def templates(self) -> Path:
        """The templates that the scripts were made of, as they were."""
        return self.path / "templates.json"

    @property
    def twins(self) -> Path:
        """Under which keys twins are kept for later runs, and which of them an earlier run has made."""
        return self.path / "twins.json"

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
    def collecting(self) -> Path:
        """Held by the one `collect` at work."""
        return self.path / "collect.lock"

    @property
    def calls(self) -> Path:
        """How often which of Slurm's commands was run for this run, all drivers together."""
        return self.path / "scheduler.json"

    @property
    def driver_events(self) -> Path:
        """Events that the driver saw or caused."""
        return self.path / "driver-events.jsonl"

    @property
    def starts(self) -> Path:
        """Every start of every job as Slurm keeps it, asked once at the end."""
        return self.path / "slurm-starts.json"

    @property
    def logs(self) -> Path:
        """What Slurm writes of each job's batch script."""
        return self.path / "logs"

    # What jobs write.
    @property
    def work(self) -> Path:
        """Folder of all jobs."""
        return self.path / "work"

    def job(self, key: str) -> Path:
        """Folder of one job."""
        return self.work / key

    def round(self, key: str, round_: int) -> Path:
        """Why and from where a job is done once more: written by the driver before the job is submitted again."""
        return self.job(key) / f"round-{round_}.json"

    @property
    def allowed(self) -> Path:
        """Nodes that were named on the command line as ones that may be switched off."""
        return self.path / "may-power-off.json"

    def may_power_off(self) -> tuple[str, ...]:
        """Those nodes; none where the file is not there."""
        if not self.allowed.exists():
            return ()
        return tuple(self.read_json(self.allowed, "nodes")["nodes"])

    @property
    def powered_off(self) -> Path:
        """Which nodes are off now, by one file each."""
        return self.path / "powered-off"

    def alive(self, key: str) -> Path:
        """A running supervisor's sign of life."""
        return self.job(key) / "alive"

    def successor(self, key: str, restart: int, generation: int) -> Path:
        """Claim of whoever took over from a lost supervisor, within one start of the job."""
        return self.job(key) / f"successor-{restart}.{generation}.json"

    def claim(self, key: str, round_: int = 0) -> Path:
        """Which Slurm job may execute this key, in this round of its submission."""
        return self.job(key) / (f"claim-{round_}.json" if round_ else "claim.json")

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

    def end(self, key: str, round_: int = 0) -> Path:
        """Written last by the supervisor, when no case of the job is left to do in this round."""
        return self.job(key) / (f"end-{round_}.json" if round_ else "end.json")

    def case(self, key: str, case_id: str) -> Path:
        """Folder of one case of a job."""
        return self.job(key) / case_id

    def checkpoints(self, key: str, case_id: str) -> Path:
        """Committed checkpoints of a case."""
        return self.case(key, case_id) / "checkpoints"

    def attempt(self, key: str, case_id: str, folder: str) -> Path:
        """Folder of one attempt; only that attempt's processes write in it."""
        return self.case(key, case_id) / folder

    def program(self, key: str, case_id: str, folder: str) -> Path:
        """Where the program of a `command` case starts, in one attempt; its own, but for what `inputs` put there."""
        return self.attempt(key, case_id, folder) / "files"

    def program_case(self, key: str, case_id: str) -> Path:
        """A folder that the program of a `command` case keeps over all its attempts."""
        return self.case(key, case_id) / "files"

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
            data = json.loads(content_of(path, missing_ok=False))
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

    def read_site(self, partition: str = "") -> dict[str, Any]:
        """``site.json``, as it is in one of its partitions; "" is the site itself.

        Raises:
            RunFolderError: as ``read_json`` does; or it has no such partition.
        """
        site = self.read_json(self.site, *SITE_KEYS)
        if not partition:
            return site
        known = site.get("partitions", {})
        if partition not in known:
            raise RunFolderError(
                f"{self.site}: has no partition {partition!r}, only {', '.join(known) or 'none'}; the run folder is "
                "damaged, or of another version"
            )
        return dict(known[partition])

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
