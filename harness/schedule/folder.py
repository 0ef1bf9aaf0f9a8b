"""The folder of a schedule: what it is to do, what it did, one run folder each time. Standard library only.

Nothing else builds a path inside it. ``schedule.json`` names the campaign and site files by absolute path:
people go on editing them, and every run keeps the texts that it was planned from. The history is
append-only; what is true now is concluded from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.rundir import RunDir, append_line, read_lines, write_atomic, write_json
from harness.schedule.when import NAME, Moment, When

SCHEMA = 1
HOWS = ("cron", "scrontab", "self")
MAIL_ON = ("fail", "always", "never")
PREPARED, INSTALLED, REMOVED = "prepared", "installed", "removed"

# What of a run is left when newer ones have taken its place.
KEPT = frozenset(
    {"results.h5", "report.html", "junit.xml", "summary.json", "run.json", "campaign.yaml", "site.yaml"}
)
_LOG_BYTES = 4_000_000

# What a history line is about.
STARTED, ENDED, FAILED, SKIPPED, TROUBLE, TOLD = "started", "ended", "failed", "skipped", "trouble", "told"


class ScheduleError(Exception):
    """A schedule cannot be used; the message says which, why, and what to do."""


class Busy(Exception):
    """Another tick of the schedule is at work; the message says which."""


@dataclass(frozen=True)
class Spec:
    """What a schedule is to do: ``schedule.json``."""

    campaign: str
    """Absolute path of the campaign file."""
    site: str
    """Absolute path of the site file."""
    campaign_name: str
    site_name: str
    every: str
    at: str
    on: str
    zone: str
    """Name of the time zone that moments are meant in; "": that of whichever machine looks."""
    how: str
    keep: int
    """Whole run folders that are kept."""
    mail: str
    mail_on: str
    overrides: tuple[str, ...] = ()
    """As `-s` gives them to the other verbs."""
    job_minutes: int = 30
    """Time limit of a schedule's own job, where it has one."""
    job_options: tuple[str, ...] = ()
    """Options of sbatch for that job."""
    python: str = ""
    """Interpreter of the ticks."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that a tick sets before anything else: cron and Slurm give it hardly any."""
    needs: tuple[str, ...] = ()
    """Those of them that the interpreter needs to start at all."""
    since_s: float = 0.0
    """Moments before this are not due."""
    host: str = ""
    """Where it was installed: each login node has a crontab of its own."""
    state: str = PREPARED

    @property
    def when(self) -> When:
        """The moments."""
        return When(self.every, self.at, self.on)


# What may differ between two specs of the same schedule.
_INCIDENTAL = frozenset({"python", "environment", "needs", "since_s", "host", "state", "zone"})


def differences(old: Spec, new: Spec) -> list[str]:
    """What a person would call another schedule, in words."""
    return [
        f"{f.name.replace('_', ' ')}: {_words(getattr(old, f.name))} -> {_words(getattr(new, f.name))}"
        for f in fields(Spec)
        if f.name not in _INCIDENTAL and getattr(old, f.name) != getattr(new, f.name)
    ]


def _words(value: object) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value) or "none"


class ScheduleDir:
    """The paths of one schedule, and the ways its files are read and written."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(os.path.abspath(path))

    @property
    def file(self) -> Path:
        """What it is to do."""
        return self.path / "schedule.json"

    @property
    def history(self) -> Path:
        """Append-only: what it did."""
        return self.path / "history.jsonl"

    @property
    def log(self) -> Path:
        """What ticks print."""
        return self.path / "tick.log"

    @property
    def script(self) -> Path:
        """The job that submits itself again."""
        return self.path / "schedule.sh"

    @property
    def runs(self) -> Path:
        """One run folder each time."""
        return self.path / "runs"

    @property
    def latest(self) -> Path:
        """A link to the newest run folder."""
        return self.path / "latest"

    @property
    def id(self) -> str:
        """Tells this schedule from others of the same user: the same folder, the same id."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]

    def run(self, name: str) -> RunDir:
        """One of its run folders."""
        return RunDir(self.runs / name)

    # --- what it is to do -----------------------------------------------------------------------------

    def read(self) -> Spec:
        """``schedule.json``.

        Raises:
            ScheduleError: it is missing, damaged, or of another version.
        """
        try:
            data = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ScheduleError(
                f"{self.path}: is no folder of a schedule; `harness schedule list` shows those there are, and "
                "`harness schedule CAMPAIGN --site SITE --every day --install` makes one"
            ) from None
        except (OSError, ValueError) as error:
            raise ScheduleError(
                f"{self.file}: cannot be read ({error}); remove the schedule and add it again"
            ) from None
        try:
            if data.pop("schema") != SCHEMA:
                raise ValueError("its schema is not 1")
            for name in ("overrides", "job_options", "needs"):
                data[name] = tuple(data[name])
            return Spec(**data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ScheduleError(
                f"{self.file}: cannot be understood ({error}); it is damaged, or of another version of the harness: "
                "remove the schedule and add it again"
            ) from None

    def write(self, spec: Spec) -> None:
        """Put ``schedule.json`` in place, in a folder that only its user can read.

        Raises:
            ScheduleError: the folder cannot be made or written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_mode & 0o022:
                raise ScheduleError(
                    f"{self.path}: others can write into it, and so could have anything run as you; chmod go-w it first"
                )
            self.runs.mkdir(mode=0o700, exist_ok=True)
            write_json(self.file, {"schema": SCHEMA, **asdict(spec)})
        except OSError as error:
            raise ScheduleError(
                f"{self.path}: cannot be written ({error.strerror or error}); choose a --folder on shared storage "
                "that you can write to"
            ) from None

    def refuse_other(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            ScheduleError: it does.
        """
        if self.file.exists() or not os.path.lexists(self.path):
            return
        if not self.path.is_dir() or any(self.path.iterdir()):
            raise ScheduleError(
                f"{self.path}: exists and is no folder of a schedule; choose another --folder, or leave it out"
            )

    # --- what it did ----------------------------------------------------------------------------------

    def tell(self, what: str, **facts: Any) -> None:
        """Append one line to the history, durably."""
        append_line(self.history, {"what": what, "wall_s": round(time.time(), 3), **facts})

    def lines(self) -> list[dict[str, Any]]:
        """The history."""
        return [line for line in read_lines(self.history) if "what" in line]

    def point_latest(self, name: str) -> None:
        """Let ``latest`` name this run; replaced in one piece."""
        temporary = self.path / f".latest.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("runs") / name)
        temporary.replace(self.latest)

    # --- one tick at a time ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the schedule; the kernel gives it back when this process ends, however it ends.

        Raises:
            Busy: another tick holds it.
            ScheduleError: the folder cannot be written.
        """
        try:
            descriptor = os.open(self.path / "tick.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ScheduleError(
                f"{self.path}: cannot be written ({error.strerror}); a schedule is ticked by the user who made it"
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "on another machine"
                raise Busy(f"{self.path}: another tick is at work ({holder})") from None
            except OSError as error:
                raise ScheduleError(
                    f"{self.path}: its file system has no locks ({error.strerror}); choose a --folder on one that has"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    # --- keeping it small -----------------------------------------------------------------------------

    def prune(self, keep: int) -> list[str]:
        """Of all but the newest ``keep`` runs, leave results and reports only; what dead ticks left goes as well.

        May be interrupted and run again. Returns the runs that lost something.
        """
        if not self.runs.is_dir():
            return []
        found = sorted(p for p in self.runs.iterdir() if p.is_dir() and not p.is_symlink())
        for path in found:
            if path.name.startswith(".") and path.name.endswith(".tmp"):
                shutil.rmtree(path, ignore_errors=True)
        pruned = []
        for path in [p for p in found if NAME.fullmatch(p.name)][:-keep]:
            extra = [p for p in path.iterdir() if p.name not in KEPT]
            for one in extra:
                if one.is_dir() and not one.is_symlink():
                    shutil.rmtree(one, ignore_errors=True)
                else:
                    one.unlink(missing_ok=True)
            if extra:
                pruned.append(path.name)
        return pruned

    def rotate_log(self) -> None:
        """Begin a new ``tick.log`` when it has grown large; the old one is kept beside it, once."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))

    def write_script(self, text: str) -> None:
        """Put the schedule's own job in place."""
        write_atomic(self.script, text.encode(), mode=0o700)


def moment_facts(moment: Moment) -> dict[str, Any]:
    """A moment as history lines hold it."""
    return {"moment": moment.name, "moment_s": moment.epoch_s}
