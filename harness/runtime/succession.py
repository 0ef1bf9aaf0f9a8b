"""Who goes on when the node of the supervisor is lost: one surviving agent becomes the supervisor's successor.

The allocation lives on (``--no-kill``), so nobody has to wait for the queue. Three rules keep it to one:

- A supervisor says in a file on shared storage that it lives, as long as it hears its agents. An agent that
  hears nothing for a lease looks at that file: if it goes on changing, it is the agent that is cut off, and it goes.
- A supervisor that at once hears none of several others is itself cut off: it stops saying so, ends its ranks and goes
  without a last word: it writes nothing more, also when its link is back, and so does one that finds itself succeeded.
- The successor is whoever makes the claim of the next generation, a hard link that only one can make. What an older
  generation commits late is fenced by its attempt\'s epoch.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from harness.rundir import RunDir, private, write_json

ALIVE_S = 0.25  # between two words of a supervisor
SETTLE_S = 0.75  # within which a supervisor that is cut off when its agents are notices that too
TURN_S = 0.3  # between two candidates, so that the first survivor is usually the one


def say_alive(path: Path) -> None:
    """A supervisor\'s sign of life; lost without harm."""
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii", opener=private) as file:
        file.write(str(time.time_ns()))


def is_alive(path: Path, within_s: float) -> bool:
    """Whether the sign of life changes within so many seconds; clocks are not compared."""
    first, end = _content(path), time.monotonic() + within_s
    while time.monotonic() < end:
        time.sleep(0.05)
        if _content(path) != first:
            return True
    return False


def lives(path: Path, within_s: float) -> bool:
    """Whether a supervisor goes on: its sign of life changes, and still does when a cut-off one would have gone."""
    if not is_alive(path, within_s):
        return False
    time.sleep(SETTLE_S)
    return is_alive(path, within_s)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def variables(run: RunDir, key: str, submission: str, restart: int, generation: int) -> dict[str, str]:
    """What an agent is told, so that it can succeed its supervisor."""
    return {
        "HARNESS_RUN": str(run.path),
        "HARNESS_KEY": key,
        "HARNESS_SUBMISSION": submission,
        "HARNESS_RESTART": str(restart),
        "HARNESS_GENERATION": str(generation),
    }


def succeed(environment: Mapping[str, str], node: str, place: int, lease_s: float) -> None:
    """Become the supervisor of this job, in this process, if it has none and nobody else does; else return.

    Args:
        environment: of this agent, with ``variables``.
        node: this node.
        place: of this node among those of the allocation: the first waits least.
        lease_s: how long a supervisor may be silent.
    """
    if "HARNESS_SUBMISSION" not in environment:
        return
    run, key = RunDir(environment["HARNESS_RUN"]), environment["HARNESS_KEY"]
    if lives(run.alive(key), max(0.8, min(lease_s, 4 * ALIVE_S))):
        print("the supervisor lives: this node is cut off from it", file=sys.stderr, flush=True)
        return
    time.sleep(place * TURN_S)
    generation = int(environment["HARNESS_GENERATION"]) + 1
    if not claim(run, key, int(environment["HARNESS_RESTART"]), generation, node):
        print("another node has taken over", file=sys.stderr, flush=True)
        return
    print(f"this node takes over as generation {generation}", file=sys.stderr, flush=True)
    lost = {*environment.get("HARNESS_LOST", "").split(","), environment["HARNESS_SUPERVISOR_NODE"]} - {""}
    inherited = {
        **environment, "HARNESS_GENERATION": str(generation), "HARNESS_LOST": ",".join(sorted(lost)),
    }  # fmt: skip
    os.execve(
        sys.executable,
        [
            sys.executable,
            "-m",
            "harness.runtime.supervisor",
            str(run.path),
            environment["HARNESS_SUBMISSION"],
        ],
        inherited,
    )


def claim(run: RunDir, key: str, restart: int, generation: int, node: str) -> bool:
    """Whether this node is the one that takes over; only one is."""
    mine = run.job(key) / f".successor.{os.getpid()}.{node}"
    try:
        write_json(mine, {"node": node, "wall_ns": time.time_ns()})
        os.link(mine, run.successor(key, restart, generation))
    except OSError:  # it is taken, or storage takes no word of ours
        return False
    finally:
        with contextlib.suppress(OSError):
            mine.unlink()
    return True
