"""NVIDIA's ft_launcher in an environment of its own, with torch of the version that the harness is measured with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tests.bench.environments import Installed

# Fixed, so that two tables are of the same thing; the newest on PyPI when it was written.
NVRX = "nvidia-resiliency-ext==0.4.1"
TORCH_CPU_INDEX = (
    "https://download.pytorch.org/whl/cpu"  # its small builds; where it cannot be reached, PyPI's
)
INSTALL_DEADLINE_S = 1800


def ft_launcher(parent: Path) -> Installed:
    """Make it in ``parent``, once; says why where that failed.

    Args:
        parent: folder of environments; this one is `nvidia-resiliency-ext` there.
    """
    folder, version = parent / "nvidia-resiliency-ext", NVRX.partition("==")[2]
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    requirements = [NVRX, torch, "numpy"]
    stamp = folder / "installed.txt"  # written last: half an installation has none
    if stamp.exists() and stamp.read_text() == "\n".join(requirements):
        return Installed("ft_launcher", version, folder)
    print(f"installing {NVRX} and {torch} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), *pip, "--extra-index-url", TORCH_CPU_INDEX, *requirements],
        [str(folder / "bin" / "ft_launcher"), "--help"],
    ):
        why_not = _failure(command)
        if why_not:
            return Installed("ft_launcher", version, folder, why_not)
    stamp.write_text("\n".join(requirements))
    return Installed("ft_launcher", version, folder)


def _failure(command: list[str]) -> str:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "nothing was said").splitlines()[-1]
        return f"could not be installed: {command[0]}: {last}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be installed: {error}"
    return ""
