"""The supervisor's links to its agents: started, authenticated, kept alive by beats, lost for a reason."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model import event as ev
from harness.runtime import leftovers, succession
from harness.runtime.channel import MAX_LINE, Channel, ChannelClosed, Message, authenticate
from harness.runtime.launcher import AWAY_S, RETRY_S, SWEEP
from harness.slurm.commands import controller_is_away

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor

BEAT_S = 0.25
CONNECT_S = 90.0
QUIT_S = 10.0
SWEEP_S = 15.0
HELLO_S = 10.0

SILENT, CLOSED, NEVER = "silent", "closed", "never connected"


@dataclass
class Link:
    """One node's agent. ``lost`` is "" while it beats, else why it counts as lost."""

    node: str
    process: asyncio.subprocess.Process | None = None
    channel: Channel | None = None
    heard: float = 0.0
    lost: str = ""
    lost_how: str = ""
    connected: asyncio.Event = field(default_factory=asyncio.Event)


class Links:
    """All agents of a job."""

    def __init__(self, supervisor: Supervisor, lease_s: float | None = None) -> None:
        from harness.runtime.supervisor import LEASE_S

        self._supervisor = supervisor
        self.lease_s = lease_s if lease_s is not None else LEASE_S
        self.links = {node: Link(node) for node in supervisor.launcher.nodes}
        self.on_message: Callable[[str, Message], None] = lambda node, message: None
        self.on_change = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._token = ""
        self._beat_s = min(BEAT_S, self.lease_s / 5)

    def log(self, node: str) -> Path:
        """What the agent of a node prints."""
        return self._supervisor.run.job(self._supervisor.job.key) / f"agent-{node}.log"

    async def start(self) -> None:
        """Start all agents and wait until each is connected or has had its time."""
        s = self._supervisor
        self._token = s.run.token(s.job.key).read_text(encoding="ascii").strip()
        self._server = await asyncio.start_server(self._accept, host="0.0.0.0", port=0, limit=MAX_LINE)
        port = self._server.sockets[0].getsockname()[1]
        self._background(self._beat())
        for node in s.lost_before:
            self._lose(self.links[node], SILENT, "it was lost before this supervisor took over")
        usable = [link for link in self.links.values() if not link.lost]
        for link in usable:
            await self._begin(link, port)
        waits = [asyncio.create_task(self._first_word(link, port)) for link in usable]
        await asyncio.wait(waits)  # each is bounded in time

    async def _begin(self, link: Link, port: int) -> None:
        s, node = self._supervisor, link.node
        link.process = await s.launcher.agent(
            node,
            {
                **self._place(node),
                "HARNESS_TOKEN_FILE": str(s.run.token(s.job.key)),
                "HARNESS_SUPERVISOR_PORT": str(port),
                "HARNESS_SUPERVISOR_NODE": s.host,
                "HARNESS_LEASE_S": str(self.lease_s),
                "HARNESS_PLACE": str(s.launcher.nodes.index(node)),
                **s.succession(),
            },
            self.log(node),
        )

    def _place(self, node: str) -> dict[str, str]:
        """What tells an agent, and who cleans up after it, where its folder is."""
        s = self._supervisor
        return {
            "HARNESS_NODE": node,
            "HARNESS_NODE_LOCAL": s.site["paths"]["node_local"],
            "HARNESS_JOB": leftovers.job_name(s.run.path, s.job.key),
        }

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _first_word(self, link: Link, port: int) -> None:
        """Until the agent has connected, or cannot; started anew where the controller was away when it should begin."""
        away_until = time.monotonic() + AWAY_S
        while True:
            assert link.process is not None  # started just before
            connected = asyncio.create_task(link.connected.wait())
            ended = asyncio.create_task(link.process.wait())
            stop = asyncio.create_task(self._supervisor.signal.wait())
            await asyncio.wait(
                {connected, ended, stop}, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in (connected, ended, stop):
                task.cancel()
            code, said = link.process.returncode, self._tail(link.node)
            if link.connected.is_set():
                return
            if self._supervisor.signal.is_set():
                return self._lose(link, NEVER, f"the job was ended before its agent connected: {said}")
            if code is None:
                return self._lose(link, NEVER, f"its agent did not connect within {CONNECT_S:g} s: {said}")
            if not controller_is_away(said) or time.monotonic() > away_until:
                return self._lose(link, NEVER, f"its agent ended with code {code}: {said}")
            self._supervisor.event(ev.CONTROLLER_AWAY, node=link.node, said=said)
            await asyncio.sleep(RETRY_S)
            await self._begin(link, port)

    def _tail(self, node: str) -> str:
        with contextlib.suppress(OSError):
            lines = self.log(node).read_text(errors="replace").strip().splitlines()
            return " | ".join(lines[-3:])[-600:] or "it said nothing"
        return "it left no log"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        hello = await authenticate(channel, self._token, HELLO_S)
        link = self.links.get(str(hello["node"])) if hello is not None else None
        if link is None or link.channel is not None:
            channel.close()
            return
        link.channel, link.heard = channel, time.monotonic()
        link.connected.set()
        self._supervisor.event(ev.AGENT_CONNECTED, node=link.node, address=channel.peer_address)
        try:
            while True:
                message = await channel.receive()
                link.heard = time.monotonic()
                self.on_message(link.node, message)
        except ChannelClosed as error:
            self._lose(link, CLOSED, f"its agent's connection closed ({error})")

    async def _beat(self) -> None:
        while True:
            now = time.monotonic()
            for link in self.links.values():
                if link.channel is None or link.lost:
                    continue
                link.channel.send("beat")
                if now - link.heard > self.lease_s:
                    self._lose(link, SILENT, f"no beat from its agent for {now - link.heard:.1f} s")
            if self.cut_off:
                self._supervisor.step_down()
            elif not self._supervisor.stepped_down:
                succession.say_alive(self._supervisor.run.alive(self._supervisor.job.key))
            await asyncio.sleep(self._beat_s)

    def _lose(self, link: Link, how: str, why: str) -> None:
        if link.lost:
            return
        link.lost, link.lost_how = why, how
        if self._server is not None:  # not while stopping
            self._supervisor.event(ev.NODE_SILENT, node=link.node, how=how, why=why)
        self.on_change.set()

    def live(self) -> list[str]:
        """Nodes whose agents beat, in the allocation's order."""
        return [n for n, link in self.links.items() if link.channel is not None and not link.lost]

    def lost(self, node: str) -> str:
        """Why a node counts as lost; "" while it beats."""
        return self.links[node].lost

    def none_began(self) -> bool:
        """Whether no agent ever connected: then what they are started with is wrong, and hardly every node."""
        return all(link.lost_how == NEVER for link in self.links.values())

    def closed(self, node: str) -> bool:
        """Whether a node counts as lost because its agent's connection closed: as it also does when a job is ended."""
        return self.links[node].lost_how == CLOSED

    @property
    def cut_off(self) -> bool:
        """Whether all of several other nodes fell silent: then it is this one that is cut off."""
        others = [link for link in self.links.values() if link.node != self._supervisor.host]
        silent = [link for link in others if link.lost_how == SILENT and link.channel is not None]
        return len(others) > 1 and len(silent) == len(others)

    def may_be_cut_off(self) -> bool:
        """Whether all of several other nodes have been quiet for half a lease: the next beats tell who is cut off."""
        others = [link for link in self.links.values() if link.node != self._supervisor.host]
        now = time.monotonic()
        quiet = [x for x in others if x.channel is not None and now - x.heard > self.lease_s / 2]
        return len(others) > 1 and len(quiet) == len(others) and not all(x.lost for x in others)

    def silent_nodes(self) -> list[str]:
        """Nodes that went silent without a closed connection: as a machine does that lost its power or its link."""
        return [n for n, link in self.links.items() if link.lost_how == SILENT]

    def send(self, node: str, kind: str, **content: object) -> None:
        """Send to one agent; a lost one is skipped."""
        channel = self.links[node].channel
        if channel is not None and not self.links[node].lost:
            channel.send(kind, **content)

    async def _sweep(self) -> None:
        """Remove what agents that were killed left on nodes that are up; when the job is taken away, the next does."""
        if self._supervisor.signal.is_set():
            return
        killed = [n for n, link in self.links.items() if link.lost_how == CLOSED]
        sweeps = [
            await self._supervisor.launcher.agent(node, self._place(node), self.log(node), SWEEP)
            for node in killed
        ]
        if sweeps:
            await asyncio.wait([asyncio.create_task(s.wait()) for s in sweeps], timeout=SWEEP_S)
        for sweep in sweeps:
            if sweep.returncode is None:
                sweep.kill()

    async def stop(self) -> None:
        """Let the agents go, and stop listening. An agent that does not go is left to its lease."""
        server, self._server = self._server, None
        for node in self.live():
            self.send(node, "quit")
        ending = [
            asyncio.create_task(link.process.wait())
            for link in self.links.values()
            if link.process is not None and not link.lost
        ]
        if ending:
            await asyncio.wait(ending, timeout=QUIT_S)
        await self._sweep()
        for task in [*ending, *self._tasks]:
            task.cancel()
        for link in self.links.values():
            if link.channel is not None:
                link.channel.close()
        if server is not None:
            server.close()
