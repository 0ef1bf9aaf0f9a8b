"""The agent's end of its fork server: started once, asked for torch ranks, and heard when they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

READY_S = 120.0


class Hears(Protocol):
    """What is told of the ranks that were asked for."""

    def forked(self, number: int, pid: int) -> None:
        """It has a process."""

    def exited(self, number: int, status: int) -> None:
        """Its process ended."""

    def refused(self, number: int, why: str) -> None:
        """It has none."""


class Forks:
    """The fork server of one node.

    Args:
        node: where it is.
        ranks: is told of the ranks.
        beside: does work beside everything else; its failure ends the agent.
    """

    def __init__(self, node: str, ranks: Hears, beside: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._node, self._ranks, self._beside = node, ranks, beside
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._torch: dict[str, Any] = {}  # what it said of its torch

    async def warm(self, log: Path, modules: Sequence[str]) -> None:
        """Have it before it is needed; whether that failed is told when it is asked for."""
        async with self._starting:
            if self._process is None:
                problem, self._torch = await self._start(log)
                if not problem:
                    self.ask(modules=modules)

    async def ready(self, log: Path) -> tuple[str, dict[str, Any]]:
        """Have it now: why that cannot be, or "", and what it said of its torch."""
        problem = ""
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                problem, self._torch = await self._start(log)
            return problem, self._torch

    async def _start(self, log: Path) -> tuple[str, dict[str, Any]]:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "harness.runtime.forkserver",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                # A thread pool made on import would make forking unsafe; ranks may choose otherwise.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        finally:
            os.close(descriptor)
        assert self._process.stdout is not None  # it was asked for as a pipe
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_S)
            ready = json.loads(line)
        except (asyncio.TimeoutError, ValueError):
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return f"torch cannot be imported on {self._node} by {sys.executable}; see {log}", {}
        self._beside(self._hear(self._process.stdout))
        return "", {
            "torch": ready["torch"],
            "torch_import_ns": ready["import_ns"],
            "torch_cuda": ready["cuda"],
        }

    async def _hear(self, stream: asyncio.StreamReader) -> None:
        pids: dict[int, int] = {}
        while line := await stream.readline():
            message = json.loads(line)
            if message["type"] == "forked":
                pids[message["pid"]] = message["rank"]
                self._ranks.forked(message["rank"], message["pid"])
            elif message["type"] == "exited":
                self._ranks.exited(pids.pop(message["pid"], -1), message["status"])
            elif message["type"] == "refused":
                self._ranks.refused(message["rank"], message["why"])

    def ask(self, **request: Any) -> None:
        """Have it import modules, or fork a rank, as ``harness.runtime.forkserver`` reads it."""
        assert self._process is not None and self._process.stdin is not None  # asked for with a pipe
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def pids(self) -> set[int]:
        """Its process, which is no rank's."""
        return {self._process.pid} if self._process is not None else set()

    def kill(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
