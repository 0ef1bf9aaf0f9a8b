"""The emulated cluster of a bench: up before, down after, whatever happens in between.

A guard in a session of its own takes it down. It waits at the end of a pipe, which closes when the bench
ends, however it ends: by itself, by Ctrl-C, or by SIGKILL. A bench that is killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NODES, CPUS = 4, 4
UP_DEADLINE_S, DOWN_DEADLINE_S, COMMAND_DEADLINE_S = 120, 120, 60
EMPTY_DEADLINE_S, QUIET_DEADLINE_S = 120, 10
QUIET_SHARE = 0.15  # of the processors: what the daemons may still do when the next one begins
_TIMED = Path(__file__).with_name("timed.py")


class BenchError(Exception):
    """A premise of the bench does not hold; the message says which."""


@dataclass(frozen=True)
class Cost:
    """What one command cost where it ran: the command, its children and theirs."""

    user_s: float
    system_s: float
    wall_s: float
    peak_mb: float
    """Of the largest single process."""
    exit_code: int
    timed_out: bool

    @property
    def cpu_s(self) -> float:
        """Processor time."""
        return self.user_s + self.system_s


@dataclass(frozen=True)
class BenchCluster:
    """An emulated cluster that is up. Its ordinary user may write in `shared`."""

    folder: Path

    @property
    def shared(self) -> Path:
        """The user's folder that all nodes see."""
        return self.folder / "shared"

    def as_root(self, argv: Sequence[str]) -> str:
        """Output of a command of Slurm's administrator on the login node."""
        done = _devcluster(
            "exec", "--root", "--folder", self.folder, "login", "--", *argv, timeout_s=COMMAND_DEADLINE_S
        )
        if done.returncode:
            raise BenchError(f"{argv[0]}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def timed(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        timeout_s: float,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Cost:
        """Run a command on the login node as the ordinary user, in a folder of hers, and measure it there."""
        result = self.shared / f".cost-{time.monotonic_ns()}.json"
        command = [sys.executable, "-I", str(_TIMED), str(result), str(timeout_s), "--", *argv]
        with log.open("wb") as out:
            subprocess.run(
                _argv("exec", "--folder", self.folder, "login", "--", *command),
                cwd=folder or self.shared,
                env={**os.environ, "PYTHONPATH": "", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout_s + COMMAND_DEADLINE_S,
                check=False,
            )
        try:
            cost = Cost(**json.loads(result.read_text()))
        except FileNotFoundError:
            raise BenchError(f"{argv[0]} could not be run: {log.read_text()[-2000:]}") from None
        result.unlink()
        return cost

    def new_folder(self, name: str) -> Path:
        """An empty folder that all nodes see; ours until it is given to the user."""
        folder = self.shared / name
        folder.mkdir()
        return folder

    def give(self, folder: Path) -> None:
        """Make a folder, and what lies in it, the user's."""
        owner = self.shared.stat()
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)

    def settle(self) -> None:
        """Wait until no job is left and the processors are idle, so that nobody pays for the one before."""
        end = time.monotonic() + EMPTY_DEADLINE_S
        while self.as_root(["squeue", "-h", "-o", "%i"]).strip():
            if time.monotonic() > end:
                self.as_root(["scancel", "--state=PENDING,RUNNING,SUSPENDED", "--user=alice"])
                raise BenchError(f"jobs were left in the queue for {EMPTY_DEADLINE_S} s")
            time.sleep(0.5)
        end = time.monotonic() + QUIET_DEADLINE_S
        while busy_share(1.0) > QUIET_SHARE and time.monotonic() < end:
            pass  # on a machine that others use too, this ends at its deadline, and the load is said


def busy_share(seconds: float) -> float:
    """Which share of the machine's processors was busy during this time."""

    def ticks() -> tuple[int, int]:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        values = [int(word) for word in words]
        return sum(values), values[3] + values[4]

    total, idle = ticks()
    time.sleep(seconds)
    total_then, idle_then = ticks()
    return 1 - (idle_then - idle) / max(1, total_then - total)


@contextlib.contextmanager
def bench_cluster() -> Iterator[BenchCluster]:
    """A cluster of four nodes with four CPUs each, for as long as the block lasts."""
    # Not in the checkout: its path may be too long for the sockets of the cluster.
    folder = Path(tempfile.mkdtemp(prefix="harness-bench-", dir="/tmp"))
    guard = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench_cluster", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C at the terminal is not for it
    )
    try:
        up = _devcluster("up", "--nodes", NODES, "--cpus", CPUS, "--folder", folder, timeout_s=UP_DEADLINE_S)
        if up.returncode:
            raise BenchError(f"the emulated cluster did not come up:\n{up.stdout}{up.stderr}")
        yield BenchCluster(folder)
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        if guard.wait(timeout=DOWN_DEADLINE_S + 10):
            print(f"{folder} was not taken down completely", file=sys.stderr)


def alone(part: Callable[[BenchCluster], None]) -> None:
    """Run one part of the bench on a cluster of its own; says in words why it cannot, or that it was stopped."""
    from tests.conftest import why_no_cluster

    missing = why_no_cluster()
    if missing is not None:
        print(f"not measured: the emulated cluster is needed, and {missing}")
        return
    try:
        with bench_cluster() as cluster:
            part(cluster)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        print("\nstopped; the cluster is taken down", file=sys.stderr)
        sys.exit(130)


def _argv(*words: object) -> list[str]:
    return [sys.executable, "-m", "harness.devcluster", *map(str, words)]


def _devcluster(*words: object, timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            _argv(*words), cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(map(str, words))}: no answer within {timeout_s} s") from error


def _guard(folder: Path) -> int:
    sys.stdin.buffer.read()  # until the bench has ended
    down = _devcluster("down", "--purge", "--folder", folder, timeout_s=DOWN_DEADLINE_S)
    shutil.rmtree(folder, ignore_errors=True)  # where it never came up, the empty folder
    if down.returncode and folder.exists():
        print(down.stdout + down.stderr, file=sys.stderr)
    return int(folder.exists())


if __name__ == "__main__":
    sys.exit(_guard(Path(sys.argv[1])))
