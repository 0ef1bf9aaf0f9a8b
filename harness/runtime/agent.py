"""One agent a node: starts torch ranks, watches all ranks of its node, ships their records, keeps the lease.

It lives through every attempt of its job. It needs no help from a rank's Python main thread, which is
stuck in a collective when it matters: it holds a pidfd of each rank and reads its mapped page.
Standard library only; telemetry is recorded where its libraries are there, and its absence where not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from harness.model import event as ev
from harness.model.event import Event
from harness.rundir import brief, read_promised
from harness.runtime import leftovers, memory, page, processes, recorder, slices, succession
from harness.runtime.channel import Channel, ChannelClosed, Message, connect
from harness.runtime.network import interface_of
from harness.runtime.shipper import Shipper
from harness.runtime.watched import STOPPED, Rank, state_of
from harness.telemetry import Telemetry

WATCH_S = 0.05
BEAT_S = 0.1
HEAR_OUT_S = 0.5  # for what a program that is ended has said last
SHIP_S = 0.25
ASK_AGAIN_S = 10.0
SHIP_AGAIN_S = 10.0  # how long an attempt's end waits for shared storage that takes no more
TELEMETRY_S = 1.0
CONNECT_S = 60.0
SUPERVISOR_CLOSED, SUPERVISOR_GONE = 3, 4  # exit codes: it ended; it fell silent
FORKSERVER_READY_S = 120.0


class Agent:
    """The agent of one node."""

    def __init__(self, channel: Channel, node: str, root: Path, lease_s: float) -> None:
        self.channel, self.node, self.root, self.lease_s = channel, node, root, lease_s
        self.heard = time.monotonic()
        self.forkserver: asyncio.subprocess.Process | None = None
        self.ranks: dict[int, Rank] = {}
        self.folder: Path | None = None
        self.shipper: Shipper | None = None
        # Where ranks keep checkpoints in this node's memory; it outlives attempts, and ends with this agent.
        self.memory = leftovers.memory_of(root)
        self.segments: set[Path] = set()  # shared memory that the ranks of the attempt have had
        self._alive: list[int] = []  # ranks of the last attempt that could not be ended
        self._ask_at = self._ask_gap_s = 0.0  # when they are asked for it, and how long until the time after
        self.records: recorder.Recorder | None = None
        self.case_id, self.attempt = "", -1
        self.programs = False  # whether the ranks run somebody's program, which may leave processes behind
        self.telemetry = Telemetry()
        self._forking = asyncio.Lock()
        self._torch: dict[str, Any] = {}  # what the fork server said of its torch
        self._shipping: asyncio.Task[None] | None = None
        self._unshipped = ""  # why shared storage took no records the last time it was asked
        self._unrecorded = ""  # why this agent's own records end early
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    # --- what the supervisor asks for ---------------------------------------------------------------

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
            if self.forkserver is not None and self.forkserver.returncode is None:
                self.forkserver.kill()
            leftovers.remove(self.root)

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
                self._run(self._warm(message))
            elif kind == "start":
                self._start(message)
            elif kind == "finish":
                self._run(self._finished(message))
            elif kind == "signal":
                self._signal(message)
            elif kind == "command":
                if (rank := self.ranks.get(message["rank"])) is not None:
                    rank.command(message["word"])
            elif kind == "save":
                for rank in self.ranks.values():
                    rank.save_at(message["steps"])
            elif kind == "die":
                self._die()
            elif kind == "quit":
                return 0

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something slow beside the receiving of beats; its failure ends the agent."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()

    async def _finished(self, message: Message) -> None:
        await self._finish()
        shipped, records = (0, 0) if self.shipper is None else self.shipper.recorded()
        self.channel.send(
            "finished",
            case_id=message["case_id"],
            attempt=message["attempt"],
            bytes=shipped,
            alive=self._alive,
            records=records,
            problem=self._unshipped or self._unrecorded,
        )
        self.shipper = None

    async def _warm(self, message: Message) -> None:
        """Have a fork server before it is needed; whether that failed is told when it is asked for."""
        async with self._forking:
            if self.forkserver is None:
                problem, self._torch = await self._start_forkserver(Path(message["log"]))
                if not problem:
                    self._ask_forkserver(modules=message["modules"])

    async def _prepare(self, message: Message) -> None:
        self.folder = self.root / message["case_id"] / message["attempt"]
        problem = ""
        facts: dict[str, Any] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = brief(error)
        if not problem and message["torch"]:
            async with self._forking:
                if self.forkserver is None or self.forkserver.returncode is not None:
                    problem, self._torch = await self._start_forkserver(Path(message["log"]))
                facts = self._torch
        with socket.socket() as probe:
            probe.bind((self.channel.local_address, 0))
            port = probe.getsockname()[1]
        self.channel.send(
            "prepared",
            case_id=message["case_id"],
            attempt=message["attempt"],
            folder=str(self.folder),
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

    async def _start_forkserver(self, log: Path) -> tuple[str, dict[str, Any]]:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.forkserver = await asyncio.create_subprocess_exec(
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
        assert self.forkserver.stdout is not None  # it was asked for as a pipe
        try:
            line = await asyncio.wait_for(self.forkserver.stdout.readline(), FORKSERVER_READY_S)
            ready = json.loads(line)
        except (asyncio.TimeoutError, ValueError):
            with contextlib.suppress(ProcessLookupError):
                self.forkserver.kill()
            return f"torch cannot be imported on {self.node} by {sys.executable}; see {log}", {}
        self._run(self._hear_forkserver(self.forkserver.stdout))
        return "", {
            "torch": ready["torch"],
            "torch_import_ns": ready["import_ns"],
            "torch_cuda": ready["cuda"],
        }

    async def _hear_forkserver(self, stream: asyncio.StreamReader) -> None:
        pids: dict[int, int] = {}
        while line := await stream.readline():
            message = json.loads(line)
            if message["type"] == "forked":
                pids[message["pid"]] = message["rank"]
                rank = self.ranks.get(message["rank"])
                if rank is not None:
                    self._hold(rank, message["pid"])
            elif message["type"] == "exited":
                rank = self.ranks.get(pids.pop(message["pid"], -1))
                if rank is not None:
                    rank.exit_status = message["status"]
                    if rank.reported:  # its end was told before anybody could know how
                        self.channel.send(
                            "rank_status",
                            case_id=self.case_id,
                            attempt=self.attempt,
                            rank=rank.number,
                            status=message["status"],
                        )
            elif message["type"] == "refused":
                rank = self.ranks.get(message["rank"])
                if rank is not None:
                    self._report(rank, message["why"])

    def _start(self, message: Message) -> None:
        assert self.folder is not None  # "prepare" comes before "start"
        self.case_id, self.attempt = message["case_id"], message["index"]
        self.programs = bool(message.get("programs"))
        if self.programs:
            processes.adopt_orphans()
        self.ranks = {r: Rank(r) for r in message["ranks"]}
        self.segments, self._ask_at, self._ask_gap_s = set(), 0.0, 0.0 if not message["fork"] else WATCH_S
        self.shipper = Shipper(self.folder, Path(message["stream"]))
        self._unshipped = self._unrecorded = ""
        with self._recording():
            self.records = recorder.Recorder(self.folder / "agent.rec", -1)
            self._event(ev.NODE_FACTS, **self.telemetry.facts())
            for what, why in self.telemetry.absent.items():
                self._event(ev.TELEMETRY_ABSENT, what=what, reason=why)
            for table, columns in self.telemetry.tables.items():
                self.records.define(table, columns)
        if message["fork"] == "process":
            for number in message["ranks"]:
                self._spawn(number, message)
        elif message["fork"]:
            self._ask_forkserver(modules=message["modules"])
            for number in message["ranks"]:
                self._ask_forkserver(
                    spec=message["spec"],
                    rank=number,
                    log=f"{message['logs']}/rank-{number}.log",
                    environment={**message["environment"], **message["rank_environment"][str(number)]},
                )

    def _ask_forkserver(self, **request: Any) -> None:
        assert self.forkserver is not None and self.forkserver.stdin is not None  # asked for with a pipe
        self.forkserver.stdin.write(json.dumps(request).encode() + b"\n")

    def _spawn(self, number: int, message: Message) -> None:
        """Start a rank as a process of its own: one that runs somebody's program."""
        try:
            with open(f"{message['logs']}/rank-{number}.log", "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "harness.runtime.rank", message["spec"]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **message["environment"], **message["rank_environment"][str(number)]},
                )
        except OSError as error:  # such as a disk that takes no more
            self._report(self.ranks[number], brief(error))
            return
        self.ranks[number].process = process
        self._hold(self.ranks[number], process.pid)

    def _signal(self, message: Message) -> None:
        """A fault, or its end: send a rank a signal, and say when."""
        rank = self.ranks.get(message["rank"])
        if rank is None or rank.pidfd < 0 or rank.is_gone():
            return
        number_ = signal.Signals[message["signal"]]
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(rank.pidfd, number_)
        if self.programs and number_ in (signal.SIGSTOP, signal.SIGCONT):  # the program is the rank's child
            for pid in processes.descendants(rank.pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, number_)
        if number := message.get("fault"):
            rank.struck = number
            self._say_fault("fault_fired", rank, number, time.time_ns())

    def _say_fault(self, kind: str, rank: Rank, number: int, wall_ns: int) -> None:
        self.channel.send(
            kind,
            case_id=self.case_id,
            attempt=self.attempt,
            rank=rank.number,
            fault=number,
            wall_ns=wall_ns,
            step=rank.progress.begun if rank.progress else -1,
        )

    def _kill(self, rank: Rank) -> None:
        if self.programs:
            processes.end_tree(rank.pid, rank.pidfd)
        else:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(rank.pidfd, signal.SIGKILL)

    async def _hear_out(self) -> None:
        """Have the ranks end their programs, record what these said last, and end; who cannot is made to."""
        asked = [r for r in self.ranks.values() if r.pidfd >= 0 and not r.is_gone()]
        asked = [r for r in asked if state_of(r.pid) not in STOPPED]
        for rank in asked:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(rank.pidfd, signal.SIGUSR1)
        end = time.monotonic() + HEAR_OUT_S
        while any(not r.is_gone() for r in asked) and time.monotonic() < end:
            await asyncio.sleep(0.005)

    async def _finish(self) -> None:
        """End the ranks of this node and ship all that they recorded."""
        if self.programs:
            await self._hear_out()
        self._ask_for_shared()
        for rank in self.ranks.values():
            if rank.pidfd >= 0 and not rank.is_gone():
                await asyncio.to_thread(self._kill, rank)  # it may take seconds
        end = time.monotonic() + 5
        while any(r.pidfd >= 0 and not r.is_gone() for r in self.ranks.values()) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self._alive = [r.number for r in self.ranks.values() if r.pidfd >= 0 and not r.is_gone()]
        for rank in self.ranks.values():
            if rank.pidfd >= 0:
                asyncio.get_running_loop().remove_reader(rank.pidfd)
                os.close(rank.pidfd)
            if rank.process is not None:
                rank.process.poll()
            rank.close()
        await asyncio.to_thread(self._sweep)
        leftovers.unlink(self.segments)
        self.ranks = {}
        with self._recording():
            if self.records is not None:
                self.records.close()
        self.records = None
        if self._shipping is not None:
            await asyncio.wait({self._shipping})
            self._shipping = None
        if self.shipper is not None:
            await self._ship(self.shipper, sync=True)
            end = time.monotonic() + SHIP_AGAIN_S
            while self._unshipped and time.monotonic() < end:
                await asyncio.sleep(0.5)
                await self._ship(self.shipper, sync=True)

    async def _ship(self, shipper: Shipper, *, sync: bool) -> None:
        """Ship what is new. Storage that takes no more is noted: the records are safe here, and it is tried again."""
        try:
            await asyncio.to_thread(shipper.ship, sync=sync)
            self._unshipped = ""
        except OSError as error:
            self._unshipped = brief(error)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """Where this node's own disk takes no more, this agent records no more, says so, and lives on."""
        try:
            yield
        except OSError as error:
            self._unrecorded = brief(error)
            if self.records is not None:
                self.records.abandon()
                self.records = None

    def _die(self) -> None:
        """The fault node.kill_processes: everything of ours on this node ends at once, without a word."""
        for rank in self.ranks.values():
            if rank.pidfd >= 0:
                self._kill(rank)
        self._sweep()
        leftovers.unlink(self.segments)
        shutil.rmtree(self.memory, ignore_errors=True)  # as the memory of a lost node is
        if self.forkserver is not None and self.forkserver.returncode is None:
            self.forkserver.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    def _sweep(self) -> None:
        """End what a program left behind when its rank's process was killed: it was adopted by this one."""
        keep = {self.forkserver.pid} if self.forkserver is not None else set()
        if self.programs:
            processes.end_descendants(os.getpid(), keep)
            processes.reap(keep)

    # --- what the agent sees -------------------------------------------------------------------------

    async def _watch(self) -> int:
        beat = measured = shipped = 0.0
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
            self._look()
            if now >= self._ask_at:
                self._ask_for_shared()
                # MPI makes it when it starts, and a rank may be killed right after.
                waits_for_it = not self.segments and not self._ask_gap_s
                self._ask_gap_s = 0.0 if waits_for_it else min(2 * self._ask_gap_s + WATCH_S, ASK_AGAIN_S)
                self._ask_at = now + self._ask_gap_s
            astray = [r.progress.strayed for r in self.ranks.values() if r.progress is not None]
            if now - beat >= BEAT_S or astray != told_astray:
                beat, told_astray = now, astray
                self.channel.send(
                    "beat",
                    attempt=self.attempt,
                    case_id=self.case_id,
                    ranks={
                        r.number: _told(r, r.progress, now)
                        for r in self.ranks.values()
                        if r.progress is not None and not r.reported
                    },
                )
            if (
                self.shipper is not None
                and now - shipped >= SHIP_S
                and (self._shipping is None or self._shipping.done())
            ):
                shipped = now
                self._shipping = asyncio.create_task(self._ship(self.shipper, sync=False))
            if self.records is not None and now - measured >= TELEMETRY_S:
                measured = now
                with self._recording():
                    for table, values in self.telemetry.sample():
                        self.records.sample(table, values)
            await asyncio.sleep(WATCH_S)

    def _look(self) -> None:
        if self.folder is None:
            return
        for rank in self.ranks.values():
            if rank.reported:
                continue
            path = self.folder / f"rank-{rank.number}.page"
            rank.look(path)
            if rank.progress is not None and rank.pidfd < 0 and not rank.gone:
                self._hold(rank, rank.progress.pid)
            gone = rank.pidfd >= 0 and rank.is_gone()
            if gone:
                rank.look(path)
            if (seen := rank.progress) is not None:
                if seen.fault and seen.fault != rank.struck:
                    felt = seen.fault < 0
                    if felt and rank.struck != -seen.fault:  # it was done and felt between two looks
                        self._say_fault("fault_fired", rank, -seen.fault, seen.fault_wall_ns)
                    rank.struck = seen.fault
                    kind = "fault_felt" if felt else "fault_fired"
                    self._say_fault(kind, rank, abs(seen.fault), seen.fault_wall_ns)
                if seen.due != rank.due:
                    rank.due = seen.due
                    if seen.due:
                        self._say_fault("fault_due", rank, seen.due, seen.fault_wall_ns)
            if gone:
                self._report(rank, self._last_words(rank))

    def _ask_for_shared(self) -> None:
        """Learn what shared memory the ranks have: one that is killed leaves it behind."""
        pids = [r.pid for r in self.ranks.values() if r.pidfd >= 0 and not r.gone]
        if self.programs:
            pids += [below for pid in pids for below in processes.descendants(pid)]
        if found := leftovers.segments_of(pids) - self.segments:
            self.segments |= found
            leftovers.note(self.root, found)

    def _hold(self, rank: Rank, pid: int) -> None:
        try:
            if rank.pidfd < 0:
                rank.pidfd, rank.pid = os.pidfd_open(pid), pid
                rank.memory = memory.counter_of(pid)
                rank.memory_kills = memory.kills(rank.memory)
                asyncio.get_running_loop().add_reader(rank.pidfd, self._ended, rank)
        except ProcessLookupError:
            rank.gone = True
            rank.gone_wall_ns = time.time_ns()
            self._report(rank, self._last_words(rank))

    def _ended(self, rank: Rank) -> None:
        """A rank's process ended: looked at in the same moment, so that the first to end is reported first."""
        asyncio.get_running_loop().remove_reader(rank.pidfd)
        self._look()

    def _last_words(self, rank: Rank) -> str:
        """What the rank recorded of its own failure, if it did."""
        return recorder.last_words(self.folder / f"rank-{rank.number}.rec") if self.folder is not None else ""

    def _report(self, rank: Rank, words: str) -> None:
        if rank.reported:
            return
        rank.reported = True
        if not words and memory.kills(rank.memory) > rank.memory_kills:
            words = "killed for memory: its cgroup reached the job's limit on this node; ask for more (node.memory_mb)"
        state = rank.progress.state if rank.progress is not None else page.STARTING
        self.channel.send(
            "rank_exited",
            attempt=self.attempt,
            case_id=self.case_id,
            rank=rank.number,
            status=rank.exit_status,
            state=state,
            finished=rank.progress.finished if rank.progress else -1,
            of=rank.progress.of if rank.progress else 0,
            sequence=rank.progress.sequence if rank.progress else 0,
            begun=rank.progress.begun if rank.progress else -1,
            strayed=rank.progress.strayed if rank.progress else -1,
            moments=rank.progress.moments if rank.progress else (),
            wall_ns=rank.gone_wall_ns or time.time_ns(),
            words=words[:2000],
        )

    def _event(self, kind: str, **data: Any) -> None:
        assert self.records is not None  # only called while an attempt is open
        self.records.event(
            Event(
                kind,
                time.time_ns(),
                time.monotonic_ns(),
                self.node,
                "agent",
                self.case_id,
                self.attempt,
                -1,
                data,
            )
        )


def _told(rank: Rank, seen: page.Progress, now: float) -> list[float]:
    """What a beat tells of one rank, in the order of ``harness.runtime.detect.View``'s fields."""
    age_s = max(0.0, (time.monotonic_ns() - seen.section_mono_ns) / 1e9)
    return [
        seen.state,
        seen.begun,
        seen.finished,
        seen.of,
        seen.sequence,
        seen.section,
        round(age_s, 3),
        round(rank.stopped_s(now), 3),
        seen.strayed,
        *seen.moments,
    ]


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
