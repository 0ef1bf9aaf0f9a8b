"""What `make demo` runs: the quickstart campaign, from nothing to a report, and nothing left behind.

On site `emulated` it brings up a Slurm cluster on this machine, submits as the cluster's ordinary
user, and takes the cluster down, whatever happened in between. On site `local` it runs the same
campaign as plain processes, and ends them when it is stopped. It never falls back from one to the
other, and never submits to a cluster that it did not start. It works in a checkout; a wheel has no
use for it.

The run folder is in the checkout from the start, so what a killed demo had is still there. The
cluster's user makes it: for as long as the cluster is up, that folder of folders is lent to him.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.devcluster import state
from harness.devcluster.folder import ClusterFolder

NODES = 4
CAMPAIGN = Path("configs/campaigns/quickstart.yaml")
# For the cluster of a checkout whose path slurm.conf could not hold.
ELSEWHERE = Path("/var/lib/hpc-harness-demo")
REFUSED = 3  # the exit code of "unknown": nothing was judged

# How long each step may take before it is given up; the campaign itself has its own limits.
UP_DEADLINE_S = 120
CAMPAIGN_DEADLINE_S = 3600
DOWN_DEADLINE_S = 120
CANCEL_DEADLINE_S = 120
STOP_GRACE_S = 30
DOWN_ATTEMPTS = 2
RUNNERS = {b"harness.local", b"harness.runtime.supervisor"}  # modules, as a run's processes name them

NEEDS_ROOT = """\
The emulated cluster needs root: it starts Slurm's daemons, and a network for each node.
Choose one of the two:
  - as root, on a machine of your own:                make demo
  - as you are, plain processes instead of Slurm:     SITE=local make demo"""

ABOUT_EMULATED = """\
This demo
  1. brings up an emulated Slurm cluster of {nodes} nodes on this machine, in {cluster}
  2. runs {campaign} there, as its ordinary user
     results and report go to {run}
  3. takes the cluster down
It touches no other cluster. About five minutes on two cores; Ctrl-C stops it and cleans up.
"""

ABOUT_LOCAL = """\
This demo runs {campaign} as plain processes of this machine, without Slurm;
the report says so. What only a cluster can show is missing: jobs, nodes of their own, requeue.
Results go to {run}. About five minutes on two cores; Ctrl-C ends it all.
"""

STOPPED_EMULATED = """
Stopped. The cluster is gone and its jobs with it: nothing goes on, and nothing is left to cancel.
`make demo` starts afresh."""

STOPPED_LOCAL = """
Stopped. The run's processes are ended: nothing goes on, and nothing is left to cancel.
`SITE=local make demo` starts afresh."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the campaign's exit code, or 128 and the signal's number when stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.demo", description="Run the quickstart campaign."
    )
    parser.add_argument("--site", choices=("emulated", "local"), default="emulated")
    site = parser.parse_args(argv).site

    root = Path(__file__).resolve().parent.parent
    if not (root / CAMPAIGN).is_file():
        _complain(f"{root / CAMPAIGN} is missing: the demo runs in a checkout of hpc-harness.")
        return REFUSED
    if site == "emulated" and os.geteuid() != 0:
        _complain(NEEDS_ROOT)
        return REFUSED

    runs = root / ".harness" / "runs"
    _make_folder(root / ".harness")
    _make_folder(runs)
    name = time.strftime("quickstart-%Y%m%d-%H%M%S")
    with _one_demo_at_a_time(root / ".harness" / "demo.lock") as free, _Stop() as stop:
        if not free:
            _complain(f"Another demo is running in {root}; wait for it, or stop it.")
            return REFUSED
        code = _emulated(root, runs / name, stop) if site == "emulated" else _local(root, runs / name, stop)
        _say_where(runs / name)
        return code if stop.number is None else 128 + stop.number


def _local(root: Path, run: Path, stop: _Stop) -> int:
    print(ABOUT_LOCAL.format(campaign=CAMPAIGN, run=_shown(run)), flush=True)
    try:
        return stop.run(_harness_run(root, "local", run), CAMPAIGN_DEADLINE_S)
    finally:
        if _end_processes(run, stop) and stop.number is not None:
            print(STOPPED_LOCAL, flush=True)


def _end_processes(run: Path, stop: _Stop) -> bool:
    """End what a run without results may have left: its processes outlive the command that started them."""
    if not (run / "run.json").is_file() or (run / "results.h5").is_file():
        return True
    command = [sys.executable, "-m", "harness", "cancel", str(run)]
    code = stop.run_whatever_happens(command, CANCEL_DEADLINE_S)
    # What was told to end writes down how it ended, and may do so after the command has returned.
    end = time.monotonic() + STOP_GRACE_S
    while (left := _processes_of(run)) and time.monotonic() < end:
        time.sleep(0.1)
    if code == 0 and not left:
        return True
    lasting = f" (processes {', '.join(map(str, left))} run on)" if left else ""
    _complain(f"Not all of the run was ended{lasting}; try again with\n  {shlex.join(command)}")
    return False


def _processes_of(run: Path) -> list[int]:
    """Its runners and supervisors; a supervisor ends after its agents and ranks."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(run) in words and not RUNNERS.isdisjoint(words):
                    found.append(int(entry.name))
    return found


def _emulated(root: Path, run: Path, stop: _Stop) -> int:
    cluster = _cluster_folder(root)
    print(
        ABOUT_EMULATED.format(nodes=NODES, campaign=CAMPAIGN, cluster=_shown(cluster), run=_shown(run)),
        flush=True,
    )
    if (cluster / "cookie.json").exists():
        print("An earlier cluster is in that folder; it is taken down first.", flush=True)
        if not _down(cluster, stop):
            return REFUSED
    _take_back(run.parent)  # a demo that was killed could not
    run.parent.chmod(0o755)
    try:
        up = _devcluster("up", "--nodes", str(NODES), "--folder", str(cluster), "--share", str(run.parent))
        if stop.run(up, UP_DEADLINE_S, cwd=root) != 0:
            if stop.number is None:
                _complain("The cluster did not come up, so nothing was run.")
            return REFUSED
        print(flush=True)
        _lend(run.parent, state.read_up(ClusterFolder(cluster)).user.uid)
        command = _harness_run(root, "emulated", run)
        campaign = _devcluster("exec", "--folder", str(cluster), "login", "--", *command)
        return stop.run(campaign, CAMPAIGN_DEADLINE_S, cwd=run.parent)
    finally:
        if _down(cluster, stop):
            _take_back(run.parent)
            if stop.number is not None:
                print(STOPPED_EMULATED, flush=True)


def _down(cluster: Path, stop: _Stop) -> bool:
    """Take the cluster down; signals wait until that is done."""
    command = _devcluster("down", "--folder", str(cluster))
    for _ in range(DOWN_ATTEMPTS):
        if stop.run_whatever_happens(command, DOWN_DEADLINE_S) == 0:
            if cluster.parent == ELSEWHERE and ELSEWHERE.is_dir() and not any(ELSEWHERE.iterdir()):
                ELSEWHERE.rmdir()
            return True
    _complain(
        f"The cluster in {cluster} was not taken down completely; try again with\n  {shlex.join(command)}"
    )
    return False


def _lend(runs: Path, uid: int) -> None:
    """Let the cluster's user, whose group has his number, make folders here, and touch no one else's.

    Mode and group of `runs` say that it is lent, and to whom, also to the next demo when this one is killed.
    """
    runs.chmod(0o1775)
    os.chown(runs, -1, uid)


def _take_back(runs: Path) -> None:
    """What the cluster's user made belongs to whoever called; only once no process of that user is left."""
    lent = runs.stat()
    if not lent.st_mode & stat.S_ISVTX:
        return
    for folder, folders, files in os.walk(runs):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.lstat().st_uid == lent.st_gid:
                _give_to_caller(path)
    _give_to_caller(runs)
    runs.chmod(0o755)


def _harness_run(root: Path, site: str, folder: Path) -> list[str]:
    campaign = str(root / CAMPAIGN)
    return [sys.executable, "-m", "harness", "run", campaign, "--site", site, "--folder", str(folder)]


def _devcluster(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness.devcluster", *arguments]


def _cluster_folder(root: Path) -> Path:
    """Inside the checkout; elsewhere only when slurm.conf or a socket could not hold such a path."""
    inside = root / ".harness" / "cluster"
    text = str(inside)
    if len(os.fsencode(text)) <= 80 and not any(c.isspace() or c in "\"'#\\,=" for c in text):
        return inside
    return ELSEWHERE / hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(parents=True)
        _give_to_caller(path)


def _give_to_caller(path: Path) -> None:
    """With sudo, what the demo leaves belongs to whoever typed the command."""
    if os.geteuid() == 0:
        uid = int(os.environ.get("SUDO_UID", os.getuid()))
        gid = int(os.environ.get("SUDO_GID", os.getgid()))
        os.chown(path, uid, gid, follow_symlinks=False)


def _say_where(run: Path) -> None:
    if not run.is_dir():
        return
    latest = run.parent / "latest"
    fresh = run.parent / ".latest.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(run.name)
    _give_to_caller(fresh)
    fresh.replace(latest)
    print(f"\nAll of it is in {run}, also called {_shown(latest)}:")
    for label, file in (("results", "results.h5"), ("report", "report.html")):
        path = run / file
        print(f"{label:8} {path if path.is_file() else f'none: the run ended before it wrote {file}'}")
    sys.stdout.flush()


def _shown(path: Path) -> str:
    """As short as it can be typed from here."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _one_demo_at_a_time(path: Path) -> Iterator[bool]:
    with path.open("w") as lock:
        _give_to_caller(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class _Stop:
    """Remembers that the demo is to stop, and passes that on to what is running, once.

    Children run in sessions of their own, so that a Ctrl-C reaches them through us alone: exactly once
    for a campaign, which then ends in good order, and never for the clean-up.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}
        self._on_terminal = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]

    def __enter__(self) -> _Stop:
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.SIGNALS:
            signal.signal(number, self._before[number])  # type: ignore[arg-type]  # what signal() returned

    def _note(self, number: int, _frame: object) -> None:
        again = self.number is not None
        self.number = self.number or number
        if number == signal.SIGHUP:
            # The terminal has gone: what cleans up must not fail because it cannot talk to it.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in self._on_terminal:
                os.dup2(nowhere, descriptor)
            os.close(nowhere)
        # os.write: a print could be interrupted by its own handler.
        os.write(2, b"\nAlready stopping; cleaning up.\n" if again else b"\nStopping, then cleaning up.\n")

    def run(self, command: Sequence[str], deadline_s: float, cwd: Path | None = None) -> int:
        """Run to its end, to the deadline, or until we are stopped; returns its exit code."""
        if self.number is not None:
            return 128 + self.number
        child = subprocess.Popen(command, start_new_session=True, cwd=cwd)
        end = time.monotonic() + deadline_s
        asked = False
        while (code := _wait(child)) is None:
            late = time.monotonic() > end
            if asked and late:
                _signal_group(child, signal.SIGKILL)
            elif not asked and (late or self.number is not None):
                if self.number is None:
                    _complain(f"Gave up after {deadline_s:.0f} s: {' '.join(command)}")
                asked = True
                end = time.monotonic() + STOP_GRACE_S
                _signal_group(child, signal.SIGINT)
        return code

    def run_whatever_happens(self, command: Sequence[str], deadline_s: float) -> int:
        """Run to its end or to the deadline, also when we were told to stop."""
        child = subprocess.Popen(command, start_new_session=True)
        end = time.monotonic() + deadline_s
        while (code := _wait(child)) is None:
            if time.monotonic() > end:
                _signal_group(child, signal.SIGKILL)
        return code


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    """Its exit code, or None when it still runs after a moment."""
    try:
        return child.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return None


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass  # it ended meanwhile


if __name__ == "__main__":
    sys.exit(main())
