"""Waits: each has a deadline and a name, so that a hang is an error message and not a silence."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.devcluster.errors import ClusterError


def wait_until(
    condition: Callable[[], bool], *, deadline_s: float, what: str, every_s: float = 0.01
) -> float:
    """Return the seconds it took until `condition` held; a ClusterError names `what` when it did not."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > deadline_s:
            raise ClusterError(f"waited {deadline_s:g} s in vain: {what}")
        time.sleep(every_s)
    return time.monotonic() - begin
