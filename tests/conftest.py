"""What all tests share: a clean environment, the project's folder, and emulated clusters.

`cluster` is the usual one; `cluster_without_accounting` has neither MariaDB nor slurmdbd; `clusters` brings up
others on demand. Each is brought up once for all tests, when the first asks for it, and taken down at the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLUSTER_NODES = 4

# Every wait in here ends; a test that needs longer says so itself.
UP_DEADLINE_S = 120
DOWN_DEADLINE_S = 120
COMMAND_DEADLINE_S = 100

# What a caller's shell may hold that would change what commands of Slurm, or ours, do.
_FOREIGN_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")
_FOREIGN_NAMES = ("HARNESS_CLUSTER", "SITE")


# slurmctld writes it in the head's private /run; its number there is one of the head's own processes.
_CONTROLLER = "$(cat /run/slurm/slurmctld.pid)"

# What Slurm's own daemons tell the controller, and what counting itself asks.
_OF_DAEMONS = frozenset(
    {
        "ACCOUNTING_UPDATE_MSG",
        "MESSAGE_EPILOG_COMPLETE",
        "MESSAGE_NODE_REGISTRATION_STATUS",
        "REQUEST_COMPLETE_BATCH_SCRIPT",
        "REQUEST_COMPLETE_PROLOG",
        "REQUEST_PERSIST_INIT",
        "REQUEST_STATS_INFO",
        "REQUEST_STEP_COMPLETE",
    }
)


@dataclass(frozen=True)
class Requests:
    """What clients asked: of slurmctld by type (REQUEST_*), of slurmdbd by type (DBD_*), and of both by user.

    One `squeue` is a REQUEST_JOB_INFO and a REQUEST_PARTITION_INFO; one `sacct` a DBD_GET_JOBS_COND. Slurm does
    not count by type and user together: root's part of a type is what root did in between, as in `run_as_root`.
    """

    controller: Counter[str]
    accounts: Counter[str]
    controller_by_user: Counter[str]
    accounts_by_user: Counter[str]


def read_requests(text: str) -> Requests:
    """From the output of `sdiag`, and of `sacctmgr show stats` after it."""
    tables: dict[tuple[str, str], Counter[str]] = {}
    program, now = "", Counter[str]()
    for line in text.splitlines():
        if found := re.match(r"(sdiag|sacctmgr show stats) output", line):
            program = found[1]
        elif found := re.match(r"Remote Procedure Call statistics by (message type|user)", line):
            now = tables[program, found[1]] = Counter()
        elif line and not line[0].isspace():
            now = Counter()  # another chapter
        elif found := re.match(r"\t(\S+)\s*\(\s*\d+\) count:(\d+)\s", line):
            now[found[1]] = int(found[2])
    controller, accounts = (
        tables.get(("sdiag", "message type")),
        tables.get(("sacctmgr show stats", "message type")),
    )
    return Requests(
        Counter({name: n for name, n in (controller or {}).items() if name not in _OF_DAEMONS}),
        Counter({name: n for name, n in (accounts or {}).items() if name.startswith("DBD_GET_")}),
        tables.get(("sdiag", "user"), Counter()),
        tables.get(("sacctmgr show stats", "user"), Counter()),
    )


@dataclass(frozen=True)
class ClusterUnderTest:
    """An emulated cluster that is up. `folder` is its state, `shared` is its user's shared folder."""

    folder: Path
    shared: Path
    accounting: bool = True

    def run_as_user(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node as the cluster's ordinary user; options as subprocess.run's."""
        return self.command(["exec", "--folder", str(self.folder), "login", "--", *argv], **options)

    def run_as_root(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node as root, who is Slurm's administrator there."""
        return self.command(["exec", "--root", "--folder", str(self.folder), "login", "--", *argv], **options)

    def on_head(self, script: str) -> str:
        """Run a line of shell as root on the head, where slurmctld and slurmdbd are; what it printed."""
        result = self.command(
            ["exec", "--root", "--folder", str(self.folder), "head", "--", "sh", "-c", script]
        )
        assert result.returncode == 0, f"{script}: {result.stdout}{result.stderr}"
        return result.stdout

    @contextlib.contextmanager
    def controller_stopped(self) -> Iterator[None]:
        """slurmctld killed; started again, and answering, at the end. Clients then fail at once or after 9 s."""
        self.on_head(f"kill -9 {_CONTROLLER}")
        try:
            yield
        finally:
            self.on_head("slurmctld")
            self._controller_answers()

    @contextlib.contextmanager
    def controller_frozen(self) -> Iterator[None]:
        """slurmctld takes connections and answers nothing; thawed at the end. Clients then fail after 10 s."""
        self.on_head(f"kill -STOP {_CONTROLLER}")
        try:
            yield
        finally:
            self.on_head(f"kill -CONT {_CONTROLLER}")
            self._controller_answers()

    def _controller_answers(self) -> None:
        end = time.monotonic() + 30
        while "is UP" not in self.run_as_user(["scontrol", "ping"]).stdout:
            assert time.monotonic() < end, "slurmctld does not answer 30 s after it was started again"
            time.sleep(0.1)

    @contextlib.contextmanager
    def limits(self, text: str) -> Iterator[None]:
        """Limits of the ordinary user's association, such as MaxSubmitJobs=5; gone at the end.

        They hold only in a cluster with --conf AccountingStorageEnforce=limits,qos.
        """
        names = [word.split("=", 1)[0] for word in text.split()]
        self.on_head(f"sacctmgr --immediate modify user alice set {text}")
        try:
            yield
        finally:
            self.on_head(f"sacctmgr --immediate modify user alice set {' '.join(f'{n}=-1' for n in names)}")

    def forget_requests(self) -> None:
        """Start counting anew what slurmctld and slurmdbd are asked."""
        self.on_head("sdiag --reset")
        if self.accounting:
            self.on_head("sacctmgr --immediate clear stats")

    def requests(self) -> Requests:
        """What slurmctld and slurmdbd were asked since `forget_requests`, as they counted it themselves."""
        accounts = self.on_head("sacctmgr show stats") if self.accounting else ""
        return read_requests(self.on_head("sdiag") + accounts)

    def site(self, *changes: tuple[str, str]) -> Path:
        """A site file of this cluster, which its user can read: emulated.yaml with texts replaced.

        Without accounting it says so.
        """
        text = (ROOT / "configs" / "sites" / "emulated.yaml").read_text()
        for old, new in [*changes, *([] if self.accounting else [("accounting: true", "accounting: false")])]:
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in emulated.yaml"
            text = text.replace(old, new)
        path = self.shared / f"site-{time.time_ns()}.yaml"
        path.write_text(text)
        return path

    def power(self, action: str, node: str) -> None:
        """Power a node `off` or `on`; returns when that is verified."""
        result = self.command(["power", "--folder", str(self.folder), action, node])
        assert result.returncode == 0, f"power {action} {node}: {result.stdout}{result.stderr}"

    def command(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb of `python -m harness.devcluster`."""
        return devcluster(arguments, **options)


def devcluster(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m harness.devcluster` with a time limit; its output is captured as text."""
    settings: dict[str, Any] = {
        "cwd": ROOT,
        "timeout": COMMAND_DEADLINE_S,
        "capture_output": True,
        "text": True,
    }
    settings |= options
    return subprocess.run([sys.executable, "-m", "harness.devcluster", *arguments], **settings)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


RECOVERING_CAMPAIGN = """\
schema: 1
name: small
seed: 5
groups:
  - {name: halo, workload: mpi.halo, nodes: 2, steps: 20, params: {rows: 64, columns: 64}}
  - name: train
    workload: torch.train
    nodes: 2
    steps: 30
    checkpoint: {every_steps: 5}
    recovery: {policy: requeue}
    faults:
      - {kind: node.power_off, instead: node.kill_processes, target: {node: 1}, at: {step: 12}, expect: recovered}
"""


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run on site `local` that has ended, in a folder whose name has spaces and quotes; its driver was killed once.

    Its folder, and how the command ended that brought it to its end. Three cases: one is recovered from a fault.
    """
    folder = tmp_path_factory.mktemp("local") / 'it\'s a "run" folder'
    campaign = folder.parent / "small.yaml"
    campaign.write_text(RECOVERING_CAMPAIGN)
    command = [
        sys.executable, "-m", "harness", "run", str(campaign), "--site", "local", "--folder", str(folder),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as first:
        end = time.monotonic() + 60
        while not list(folder.glob("work/*/attempts.jsonl")):
            assert time.monotonic() < end, "no attempt began within a minute"
            time.sleep(0.1)
        first.kill()
    result = subprocess.run(command, text=True, capture_output=True, timeout=200)
    shutil.copytree(folder, folder.parent / "as it ended", ignore=shutil.ignore_patterns("checkpoints"))
    return folder, result


@pytest.fixture(scope="session")
def ended_run(finished_run: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """The folder of `finished_run` as it was when it ended, without checkpoints; copy it before you change it."""
    return finished_run[0].parent / "as it ended"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of so much memory (as "64k"), which everybody may write; gone after the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root; `make test` as root has it")
    points: list[Path] = []

    def mount(size: str) -> Path:
        point = tmp_path / f"disk-{len(points)}"
        point.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "harness-test", str(point)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"this root may not mount: {done.stderr.strip()}")
        points.append(point)
        return point

    try:
        yield mount
    finally:
        for point in points:
            subprocess.run(["umount", "--lazy", str(point)], check=True)


def fill_up(disk: Path, free: int = 0) -> Path:
    """Fill a small disk until only so many bytes (of whole pages) are free; the file that does it."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while (room := os.statvfs(disk)).f_bavail * room.f_bsize > free:
            file.write(b"x" * (room.f_bavail * room.f_bsize - free))
    return filler


@contextlib.contextmanager
def cluster_up(*options: str) -> Iterator[ClusterUnderTest]:
    """A cluster with these options of `up`, for as long as the context lasts."""
    # Not pytest's own folder: its path is too long for the sockets of the cluster.
    folder = Path(tempfile.mkdtemp(prefix="harness-test-", dir="/tmp"))
    if "--nodes" not in options:
        options = ("--nodes", str(CLUSTER_NODES), *options)
    try:
        up = devcluster(["up", "--folder", str(folder), *options], timeout=UP_DEADLINE_S)
        if up.returncode != 0:
            pytest.fail(f"the emulated cluster did not come up:\n{up.stdout}{up.stderr}", pytrace=False)
        yield ClusterUnderTest(folder, folder / "shared", accounting="--no-accounting" not in options)
    finally:
        # Also after a KeyboardInterrupt; in a session of its own, so that a second one does not stop it.
        down = devcluster(
            ["down", "--purge", "--folder", str(folder)], timeout=DOWN_DEADLINE_S, start_new_session=True
        )
        if down.returncode != 0 or folder.exists():
            # What is left stays: `down` can be tried again, and the logs say what went wrong.
            pytest.fail(f"{folder} was not taken down completely:\n{down.stdout}{down.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def clusters() -> Iterator[Callable[..., ClusterUnderTest]]:
    """Brings clusters up by the options of `up`: the same options give the same cluster, for all tests."""
    up: dict[tuple[str, ...], ClusterUnderTest] = {}
    with contextlib.ExitStack() as stack:

        def bring_up(*options: str) -> ClusterUnderTest:
            if options not in up:
                up[options] = stack.enter_context(cluster_up(*options))
            return up[options]

        yield bring_up


@pytest.fixture(scope="session")
def cluster(clusters: Callable[..., ClusterUnderTest]) -> ClusterUnderTest:
    """A four-node Slurm cluster, brought up once for all tests; power back on what you power off."""
    return clusters()


@pytest.fixture(scope="session")
def cluster_without_accounting(clusters: Callable[..., ClusterUnderTest]) -> ClusterUnderTest:
    """As `cluster`, without accounting; `.site()` is its site file."""
    return clusters("--no-accounting")


def why_no_cluster() -> str | None:
    """What keeps this machine from having an emulated cluster, in words; None when nothing does."""
    if os.geteuid() != 0:
        return "that needs root"
    from harness.devcluster import packages

    absent = packages.missing_packages()
    if absent:
        return f"these Debian packages are missing: {' '.join(absent)}"
    return None


def pytest_configure() -> None:
    """No test depends on the shell, job or allocation that pytest was started from."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN_PREFIXES) or name in _FOREIGN_NAMES:
            del os.environ[name]
    os.environ["HARNESS_TWINS"] = "off"  # no test takes records of another one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in tests/cluster, or asks for the cluster, is marked `cluster`: nobody can forget it."""
    for item in items:
        in_folder = (ROOT / "tests" / "cluster") in item.path.parents
        if in_folder or "clusters" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without a cluster, a test that is marked for it is skipped; where one is required, it fails.

    First, so that a mark `skipif` cannot turn what is required into a skip.
    """
    if item.get_closest_marker("cluster") is None:
        return
    missing = why_no_cluster()
    if missing is None:
        return
    if os.environ.get("REQUIRE_CLUSTER", "0") not in ("", "0"):
        pytest.fail(f"REQUIRE_CLUSTER is set, but there is no emulated cluster: {missing}", pytrace=False)
    pytest.skip(f"needs the emulated cluster: {missing}; `make test` as root has it")
