"""Competitors in environments of their own, made once in `.harness/bench` and kept for the next time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.bench.bench_cluster import ROOT

FOLDER = ROOT / ".harness" / "bench"
# Fixed, so that two tables are of the same thing; the newest when it was written.
REFRAME = "reframe-hpc==4.10.4"
INSTALL_DEADLINE_S = 600


@dataclass(frozen=True)
class Installed:
    """A competitor's environment, or why there is none."""

    name: str
    version: str
    folder: Path
    why_not: str = ""

    def program(self, name: str) -> str:
        """Path of one of its programs."""
        return str(self.folder / "bin" / name)


def submitit() -> Installed:
    """submitit, in the version that the harness itself uses."""
    return _install("submitit", f"submitit=={metadata.version('submitit')}")


def reframe() -> Installed:
    """ReFrame."""
    return _install("reframe", REFRAME)


def _install(name: str, requirement: str) -> Installed:
    folder, version = FOLDER / name, requirement.partition("==")[2]
    stamp = folder / "installed.txt"  # written last: half an installation has none
    if stamp.exists() and stamp.read_text() == requirement and (folder / "bin" / "python").exists():
        return Installed(name, version, folder)
    print(f"installing {requirement} into {folder.relative_to(ROOT)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        requirement,
    ]
    for command in ([sys.executable, "-m", "venv", folder], pip):
        try:
            subprocess.run(
                [str(word) for word in command],
                check=True,
                capture_output=True,
                text=True,
                timeout=INSTALL_DEADLINE_S,
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip() or "nothing was said").splitlines()[-1]
            return Installed(name, version, folder, f"could not be installed: {last}")
        except subprocess.TimeoutExpired:
            return Installed(name, version, folder, f"could not be installed within {INSTALL_DEADLINE_S} s")
    stamp.write_text(requirement)
    return Installed(name, version, folder)
