"""What all tests share: a clean environment, the project's folder, and one emulated cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class ClusterUnderTest:
    """An emulated cluster that is up. `folder` is its state, `shared` is its user's shared folder."""

    folder: Path
    shared: Path

    def run_as_user(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node as the cluster's ordinary user; options as subprocess.run's."""
        return self.command(["exec", "--folder", str(self.folder), "login", "--", *argv], **options)

    def run_as_root(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node as root, who is Slurm's administrator there."""
        return self.command(["exec", "--root", "--folder", str(self.folder), "login", "--", *argv], **options)

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


@pytest.fixture(scope="session")
def cluster() -> Iterator[ClusterUnderTest]:
    """A four-node Slurm cluster, brought up once for all tests; power back on what you power off."""
    # Not pytest's own folder: its path is too long for the sockets of the cluster.
    folder = Path(tempfile.mkdtemp(prefix="harness-test-", dir="/tmp"))
    try:
        up = devcluster(["up", "--nodes", str(CLUSTER_NODES), "--folder", str(folder)], timeout=UP_DEADLINE_S)
        if up.returncode != 0:
            pytest.fail(f"the emulated cluster did not come up:\n{up.stdout}{up.stderr}", pytrace=False)
        yield ClusterUnderTest(folder, folder / "shared")
    finally:
        # Also after a KeyboardInterrupt; in a session of its own, so that a second one does not stop it.
        down = devcluster(
            ["down", "--purge", "--folder", str(folder)], timeout=DOWN_DEADLINE_S, start_new_session=True
        )
        if down.returncode != 0 or folder.exists():
            # What is left stays: `down` can be tried again, and the logs say what went wrong.
            pytest.fail(f"{folder} was not taken down completely:\n{down.stdout}{down.stderr}", pytrace=False)


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in tests/cluster, or asks for the cluster, is marked `cluster`: nobody can forget it."""
    for item in items:
        in_folder = (ROOT / "tests" / "cluster") in item.path.parents
        if in_folder or "cluster" in getattr(item, "fixturenames", ()):
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
