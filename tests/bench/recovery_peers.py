"""Faults on a job under torchrun or NVIDIA's ft_launcher: started, struck, watched and taken away again.

Two agents, each with two ranks, on this machine's loopback; they meet by c10d. Whoever strikes notes the time just
after the signal was sent; all other times are what the ranks and the agents wrote, by the same clock.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.bench_cluster import BenchError

AGENTS, RANKS_PER_AGENT = 2, 2
WORLD = AGENTS * RANKS_PER_AGENT
TARGET = 2  # the rank that is struck, as on our side
STEPS_BETWEEN = 15  # from a recovery, or the start, to the next fault
START_S, RECOVER_S = 120.0, 150.0
LOOK_S = 0.002
_SCRIPT = Path(__file__).with_name("recovery_train.py")
_LIBC = ctypes.CDLL(None, use_errno=True)
# What an agent says first of a worker that ended or fell silent.
_NOTICED = ("failed (exitcode", "Did not get subsequent heartbeat", "Worker group FAILED", "Sending process")

Line = dict[str, Any]


@dataclass(frozen=True)
class Launcher:
    """How one of the peers is started.

    Args:
        argv: program and options, before those that say who meets whom.
        environment: what is added to the environment.
        group_timeout_s: time-out of the process group in which the steps are made.
    """

    argv: tuple[str, ...]
    group_timeout_s: float
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """Of one fault, in s after it was done; None for what was not seen."""

    detected_s: float | None
    """The first sign: an error in a rank, or what an agent said."""
    begun_s: float
    """The last of the new processes ran its first line."""
    imported_s: float
    running_s: float
    restored_s: float | None
    first_step_s: float
    """The last rank had finished its first new step."""


class _Job:
    """The agents, their ranks' lines and their own."""

    def __init__(self, folder: Path, launcher: Launcher, every: int) -> None:
        self.folder, self.said = folder, []
        self._offsets = dict.fromkeys(range(WORLD), 0)
        self.lines: dict[int, list[Line]] = {rank: [] for rank in range(WORLD)}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        where = [
            f"--nnodes={AGENTS}", f"--nproc-per-node={RANKS_PER_AGENT}", "--rdzv-backend=c10d",
            f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-id={folder.name}", "--local-addr=127.0.0.1",
        ]  # fmt: skip
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
            "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "GLOO_SOCKET_IFNAME": "lo", "TMPDIR": str(folder),
            # Else both find stale addresses of ranks in the store of the round before, and restart for ever.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            **launcher.environment,
        }  # fmt: skip
        script = [str(_SCRIPT), str(folder), str(launcher.group_timeout_s), str(every)]
        self.agents = []
        for number in range(AGENTS):
            host = ["--rdzv-conf", f"is_host={'true' if number == 0 else 'false'}"]
            agent = subprocess.Popen(
                [*launcher.argv, *where, *host, *script],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            self.agents.append(agent)
            threading.Thread(target=self._hear, args=(number, agent), daemon=True).start()

    said: list[tuple[int, int, str]]  # wall ns, agent, line

    def _hear(self, number: int, agent: subprocess.Popen[str]) -> None:
        assert agent.stdout is not None
        with open(self.folder / f"agent-{number}.log", "w", encoding="utf-8") as log:
            for line in agent.stdout:
                now = time.time_ns()
                self.said.append((now, number, line.rstrip()))
                log.write(f"{now} {line}")

    def look(self) -> None:
        """Read what the ranks have written since."""
        for rank in self.lines:
            with (
                contextlib.suppress(FileNotFoundError),
                open(self.folder / f"rank-{rank}.jsonl", "rb") as file,
            ):
                file.seek(self._offsets[rank])
                data = file.read()
                whole = data[: data.rfind(b"\n") + 1]
                self._offsets[rank] += len(whole)
                self.lines[rank].extend(json.loads(line) for line in whole.splitlines())

    def wait(self, what: str, ready: Callable[[], bool], deadline_s: float, look_s: float) -> None:
        """Until ``ready``; a job that ended or takes too long is an error."""
        end = time.monotonic() + deadline_s
        while True:
            self.look()
            if ready():
                return
            ended = [a.returncode for a in self.agents if a.poll() is not None]
            if ended or time.monotonic() > end:
                said = " | ".join(line for _, _, line in self.said[-3:])[-400:]
                why = f"an agent ended with {ended}" if ended else f"not within {deadline_s:g} s"
                raise BenchError(f"{what}: {why}; last words: {said}")
            time.sleep(look_s)

    def newest(self, rank: int) -> list[Line]:
        """Lines of the process that is the rank now."""
        lines = self.lines[rank]
        begun = [n for n, line in enumerate(lines) if line["what"] == "begun"]
        return lines[begun[-1] :] if begun else []

    def steps(self, rank: int) -> int:
        """How many steps the rank's present process has finished."""
        return sum(line["what"] == "step" for line in self.newest(rank))

    def end(self) -> None:
        """Kill the agents' sessions and every rank that was ever seen and still is one of ours."""
        for agent in self.agents:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
        self.look()
        for lines in self.lines.values():
            for pid in {line["pid"] for line in lines}:
                with contextlib.suppress(OSError):
                    if str(_SCRIPT) in Path(f"/proc/{pid}/cmdline").read_text():
                        os.kill(pid, signal.SIGKILL)


def _die_with_parent() -> None:
    _LIBC.prctl(1, signal.SIGKILL)


def _first(lines: Sequence[Line], what: str) -> int | None:
    return next((line["wall_ns"] for line in lines if line["what"] == what), None)


def _last_of(job: _Job, what: str) -> int | None:
    """When the last of the present processes was there for the first time."""
    found = [_first(job.newest(rank), what) for rank in job.lines]
    return max(f for f in found if f is not None) if any(f is not None for f in found) else None


def _times(job: _Job, fault_ns: int) -> Times:
    def after(value: int | None) -> float | None:
        return None if value is None else (value - fault_ns) / 1e9

    signs = [w for w, _, line in job.said if w > fault_ns and any(text in line for text in _NOTICED)]
    signs += [
        line["wall_ns"]
        for lines in job.lines.values()
        for line in lines
        if line["what"] == "error" and line["wall_ns"] > fault_ns
    ]
    begun, imported, running, step = (
        after(_last_of(job, w)) for w in ("begun", "imported", "running", "step")
    )
    assert begun is not None and imported is not None and running is not None and step is not None
    return Times(
        after(min(signs, default=None)), begun, imported, running, after(_last_of(job, "restored")), step
    )


def faults(
    folder: Path, launcher: Launcher, number: signal.Signals, count: int, every: int = 10
) -> list[Times]:
    """Start the job, send a signal to one of its ranks so many times, and tell of each what came after it.

    Args:
        folder: new and empty.
        launcher: whose job.
        number: SIGKILL or SIGSTOP.
        count: how many faults, each after the recovery from the one before.
        every: steps between checkpoints.

    Raises:
        BenchError: it did not start, or did not recover.
    """
    with _running(folder, launcher, every) as job:
        found = []
        for _ in range(count):
            job.wait(
                "steps before a fault",
                lambda: all(job.steps(r) >= STEPS_BETWEEN for r in job.lines),
                START_S,
                LOOK_S,
            )
            os.kill(job.newest(TARGET)[0]["pid"], number)
            fault_ns = time.time_ns()

            def recovered(since: int = fault_ns) -> bool:
                new = [job.newest(rank) for rank in job.lines]
                return all(n[0]["wall_ns"] > since and _first(n, "step") is not None for n in new)

            job.wait("a first new step after the fault", recovered, RECOVER_S, 0.05)
            found.append(_times(job, fault_ns))
        return found


@contextlib.contextmanager
def _running(folder: Path, launcher: Launcher, every: int) -> Iterator[_Job]:
    job = _Job(folder, launcher, every)
    try:
        yield job
    finally:
        job.end()
