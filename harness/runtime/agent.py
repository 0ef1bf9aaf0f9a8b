"""One agent a node: does as the supervisor says with the ranks of its node, tells what it sees, keeps the lease.

It lives through every attempt of its job. Its ranks are ``node_ranks``, its fork server ``forks``, its records
``node_records``. Standard library only; telemetry is recorded where its libraries are there, and its absence where
not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from harness.rundir import brief, read_promised
from harness.runtime import leftovers, slices, succession
from harness.runtime.channel import Channel, ChannelClosed, Message, connect
from harness.runtime.forks import Forks
from harness.runtime.network import interface_of
from harness.runtime.node_ranks import NodeRanks
from harness.runtime.node_records import NodeRecords
from harness.runtime.rank_told import Teller
from harness.telemetry import Telemetry

WATCH_S = 0.05
BEAT_S = 0.1
CONNECT_S = 60.0
SUPERVISOR_CLOSED, SUPERVISOR_GONE = 3, 4  # exit codes: it ended; it fell silent


class Agent:
    """The agent of one node."""

    def __init__(self, channel: Channel, node: str, root: Path, lease_s: float) -> None:
        self.channel, self.root, self.lease_s = channel, root, lease_s
        self.heard = time.monotonic()
        # Where ranks keep checkpoints in this node's memory; it outlives attempts, and ends with this agent.
        self.memory = leftovers.memory_of(root)
        self.telemetry = Telemetry()
        self.tell = Teller(channel)
        self.ranks = NodeRanks(self.tell, root, lambda: self.forks.pids())
        self.forks = Forks(node, self.ranks, self._run)
        self.records = NodeRecords(node, self.telemetry)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def serve(self) -> int:
        """Do as the supervisor says until it says quit, is gone, or its lease expires.

        SIGTERM, which Slurm sends to every step of a job that it takes away, is left to the supervisor: it decides,
        and the records of this node are shipped before the end.
        """
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        watching = asyncio.create_task(self._watch())
        receiving = asyncio.create_task(self._receive())
        try:
            await asyncio.wait({watching, receiving}, return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, receiving):
                if task.done():
                    return task.result()
            return 1
        finally:
            watching.cancel()
            receiving.cancel()
            await self._finish()
            self.forks.kill()
            leftovers.remove(self.root)

    async def _watch(self) -> int:
        """Look at the ranks, tell what is seen, and keep the records going; until the supervisor is silent."""
        beat = 0.0
        # Told at once: what follows from it may end the attempt before the next beat.
        told_astray: list[int] = []
        while True:
            now = time.monotonic()
            if self._failure is not None:
                raise self._failure
            if now - self.heard > self.lease_s:
                print(
                    f"no word from the supervisor for {self.lease_s} s: stopping the ranks of this node",
                    file=sys.stderr,
                    flush=True,
                )
                return SUPERVISOR_GONE
            self.ranks.look()
            self.ranks.look_for_shared()
            astray = self.ranks.strayed()
            if now - beat >= BEAT_S or astray != told_astray:
                beat, told_astray = now, astray
                self.ranks.beat(now)
            self.records.go_on()
            await asyncio.sleep(WATCH_S)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something slow beside the receiving of beats; its failure ends the agent."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()

    # --- what the supervisor asks for ---------------------------------------------------------------

    async def _receive(self) -> int:
        while True:
            try:
                message = await self.channel.receive()
            except ChannelClosed as error:
                print(
                    f"supervisor gone ({error}): stopping the ranks of this node", file=sys.stderr, flush=True
                )
                return SUPERVISOR_CLOSED
            self.heard = time.monotonic()
            kind = message["type"]
            if kind == "prepare":
                self._run(self._prepare(message))
            elif kind == "warm":
                self._run(self.forks.warm(Path(message["log"]), message["modules"]))
            elif kind == "start":
                self._start(message)
            elif kind == "finish":
                self._run(self._finished(message))
            elif kind == "signal":
                self.ranks.signal(message["rank"], message["signal"], message.get("fault") or 0)
            elif kind == "command":
                self.ranks.command(message["rank"], message["word"])
            elif kind == "save":
                self.ranks.save_at(message["steps"])
            elif kind == "die":
                self._die()
            elif kind == "quit":
                return 0

    async def _prepare(self, message: Message) -> None:
        folder = self.ranks.folder = self.root / message["case_id"] / message["attempt"]
        problem = ""
        facts: dict[str, Any] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = brief(error)
        if not problem and message["torch"]:
            problem, facts = await self.forks.ready(Path(message["log"]))
        with socket.socket() as probe:
            probe.bind((self.channel.local_address, 0))
            port = probe.getsockname()[1]
        self.channel.send(
            "prepared",
            case_id=message["case_id"],
            attempt=message["attempt"],
            folder=str(folder),
            memory=str(self.memory),
            address=self.channel.local_address,
            port=port,
            interface=interface_of(self.channel.local_address),
            gpus=self._gpus(),
            problem=problem,
            **facts,
        )

    def _gpus(self) -> int:
        """How many ranks of this node can have a GPU, or a slice of one, of their own."""
        if slices.in_use(os.environ):
            return len(slices.of_job(os.environ, self.telemetry.slices))
        return self.telemetry.gpu_count

    def _start(self, message: Message) -> None:
        folder = self.ranks.folder
        assert folder is not None  # "prepare" comes before "start"
        self.tell.case_id, self.tell.attempt = message["case_id"], message["index"]
        how = message["fork"]  # "process", or whether they are forked; else a step of their own starts them
        self.ranks.begin(message["ranks"], programs=bool(message.get("programs")), by_step=not how)
        self.records.begin(message["case_id"], message["index"], folder, Path(message["stream"]))
        if how and how != "process":
            self.forks.ask(modules=message["modules"])
        for number in message["ranks"] if how else ():
            log = f"{message['logs']}/rank-{number}.log"
            environment = {**message["environment"], **message["rank_environment"][str(number)]}
            if how == "process":
                self.ranks.spawn(number, message["spec"], log, environment)
            else:
                self.forks.ask(spec=message["spec"], rank=number, log=log, environment=environment)

    async def _finished(self, message: Message) -> None:
        await self._finish()
        self.channel.send(
            "finished",
            case_id=message["case_id"],
            attempt=message["attempt"],
            alive=self.ranks.alive,
            **self.records.told(),
        )

    async def _finish(self) -> None:
        """End the ranks of this node and ship all that they recorded."""
        await self.ranks.end()
        await self.records.finish()

    def _die(self) -> None:
        """The fault node.kill_processes: everything of ours on this node ends at once, without a word."""
        self.ranks.end_at_once()
        shutil.rmtree(self.memory, ignore_errors=True)  # as the memory of a lost node is
        self.forks.kill()
        os.kill(os.getpid(), signal.SIGKILL)


async def _main() -> int:
    environment = os.environ
    node = environment["HARNESS_NODE"]
    token = read_promised(Path(environment["HARNESS_TOKEN_FILE"])).decode("ascii").strip()
    host = (
        environment.get("HARNESS_SUPERVISOR_HOST")
        or environment.get("SLURM_LAUNCH_NODE_IPADDR")
        or environment["HARNESS_SUPERVISOR_NODE"]
    )
    generation = environment.get("HARNESS_GENERATION", "0")
    node_local = Path(environment["HARNESS_NODE_LOCAL"])
    leftovers.sweep(node_local, node=node)
    root = node_local / leftovers.folder_of(environment["HARNESS_JOB"], generation, node)
    lock = leftovers.take(root)
    try:
        channel = await connect(host, int(environment["HARNESS_SUPERVISOR_PORT"]), token, node, CONNECT_S)
        return await Agent(channel, node, root, float(environment["HARNESS_LEASE_S"])).serve()
    finally:
        leftovers.remove(root)
        os.close(lock)


def main() -> int:
    """Serve; and where the supervisor was lost, take its place if nobody else does."""
    code = asyncio.run(_main())
    if code == SUPERVISOR_GONE:
        place, lease_s = int(os.environ.get("HARNESS_PLACE", "0")), float(os.environ["HARNESS_LEASE_S"])
        succession.succeed(os.environ, os.environ["HARNESS_NODE"], place, lease_s)
    return code


if __name__ == "__main__":
    sys.exit(main())
