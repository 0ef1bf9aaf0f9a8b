"""Levels that somebody accepted: lines of ``accepted.txt`` in a folder of runs, which people may write as well.

A line is the id of a run, and after a blank whatever else there is to say, such as who accepted it and why; ``#``
begins a remark. With a run, every change of level up to it is accepted, for all series of its campaign: the level it is
at is one that later runs are compared with. It is a file beside the runs, so that ``harness trend`` and the gates of a
campaign against that folder say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.text import one_line
from harness.store import StoreError

NAME = "accepted.txt"


def read(folder: Path | str) -> frozenset[str]:
    """Ids of the runs whose level is accepted; none where there is no such file.

    Raises:
        StoreError: it cannot be read.
    """
    path = Path(folder) / NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path}: {one_line(error)}; it has a run's id in each line, and is written by --accept"
        ) from None
    return frozenset(line.split()[0] for line in lines if line.split() and not line.lstrip().startswith("#"))


def add(folder: Path | str, run_id: str, remark: str) -> Path:
    """Accept the level of a run; returns the file.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(folder) / NAME
    if run_id not in read(folder):
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{run_id} {one_line(remark)}\n")
    return path


def last_of(run_ids: Sequence[str], accepted: frozenset[str]) -> int:
    """Index of the last of these runs that is accepted; -1 without one."""
    return max((i for i, run_id in enumerate(run_ids) if run_id in accepted), default=-1)
