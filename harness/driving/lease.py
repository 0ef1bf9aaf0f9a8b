"""One driver at a time: whoever drives a run holds its lock, which ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from harness.rundir import RunDir, RunFolderError, takes_no_more


class RunIsDriven(RunFolderError):
    """Another driver holds the run."""


@contextlib.contextmanager
def lease(run: RunDir) -> Iterator[None]:
    """Hold the run; the kernel gives it back when this process ends, however it ends.

    Raises:
        RunIsDriven: another driver holds it.
        RunFolderError: the folder cannot be written.
    """
    try:
        descriptor = os.open(run.lease, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if takes_no_more(error):
            raise
        raise RunFolderError(
            f"{run.path}: cannot be written ({error.strerror}); a run is driven by the user who planned it"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RunIsDriven(
            f"{run.path}: another `harness run` (or resume, or advance) drives it; "
            f"watch it with `harness status {run.path}`"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
