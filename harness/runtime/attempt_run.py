"""One attempt of one case, from its folder to its last record. Standard library only."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import failures
from harness.model import attempt as at
from harness.model import event as ev
from harness.model import fault
from harness.model.attempt import Attempt, StreamEnd
from harness.model.case import Case
from harness.rundir import write_json
from harness.runtime import armed, detect, page, world
from harness.runtime.channel import Message
from harness.runtime.checkpoint_files import CheckpointError, committed
from harness.runtime.command import ENDED_FROM_OUTSIDE
from harness.runtime.launcher import AWAY_S, RETRY_S
from harness.runtime.rank_view import RankView, blame_s, culprit, exit_words
from harness.slurm.commands import CommandError, controller_is_away
from harness.workloads import launcher_of, modules_of

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor

# As harness.model.campaign_faults.Detection has it, for cases that were planned before there was one.
DETECTION = {"lease_s": 5.0, "frozen_s": 1.0, "step_s": 10.0, "checkpoint_s": 60.0, "start_s": 120.0}
SAVE_S = 15.0  # what a last checkpoint may take: Slurm kills 30 s after SIGTERM, unless told otherwise
SAVE_AHEAD_S = 0.4  # how far ahead of the ranks the step of the last checkpoint lies
PREPARE_S = 150.0
FINISH_S = 30.0
GRACE_S = 3.0  # after a rank failed: time for the others to say what they saw
STEP_END_S = 15.0
SIGNAL_S = 2.0
POLL_S = 0.05
BLAME_POLL_S = 0.005
PROGRESS_S = 0.5


class AttemptRun:
    """Runs one attempt."""

    def __init__(self, supervisor: Supervisor, case: Case, index: int, epoch: int, policy: str = "") -> None:
        self.s, self.case = supervisor, case
        nodes = tuple(supervisor.links.live()[: case.nodes])
        self.attempt = Attempt(
            case_id=case.case_id,
            index=index,
            job_key=supervisor.job.key,
            slurm_job_id=_slurm_id(supervisor),
            restart=supervisor.restart,
            epoch=epoch,
            nodes=nodes,
            step_ids=(),
            rank_nodes=tuple(n for n in nodes for _ in range(case.ranks_per_node)),
            start_wall_ns=time.time_ns(),
            start_mono_ns=time.monotonic_ns(),
            policy=policy,
        )
        self.folder = supervisor.run.attempt(supervisor.job.key, case.case_id, self.attempt.folder)
        self.ranks = [RankView(node=node) for node in self.attempt.rank_nodes]
        self.prepared: dict[str, Message] = {}
        self.finished: dict[str, Message] = {}
        self.changed = asyncio.Event()
        self.step: asyncio.subprocess.Process | None = None
        self.launcher = launcher_of(case)
        self.own_loop = case.command is None
        self.own_steps = self.own_loop or armed.cooperates(case)  # its ranks strike themselves at a step
        # A new step of torch ranks imports torch again, in processes of their own.
        self.forked = self.launcher == "torch" and case.recovery != "new-step"
        self.started = False
        self.over = 0.0  # when its end was decided, monotonic
        self.detector = detect.Detector(
            {**DETECTION, **case.detection},
            len(self.ranks),
            time.monotonic(),
            own_loop=self.own_loop,
            history=supervisor.histories.setdefault(case.case_id, detect.History()),
        )
        self._detected: set[str] = set()
        self.felt: set[int] = set()  # numbers of faults whose effect the rank has met
        self.failure = ""  # its class, where we can tell
        self.blamed: int | None = None  # the rank whose end or standstill ended the attempt
        self.first_step_ns = 0  # when a step was first seen to be finished, wall
        self.start_step: Callable[[], Awaitable[asyncio.subprocess.Process]]
        self.step_until = time.monotonic() + AWAY_S

    async def go(self) -> Attempt:
        """Run it; returns the attempt as it ended, written down."""
        self.s.links.on_message = self._hear
        self.s.links.on_change = self.changed
        self.folder.mkdir(mode=0o700, parents=True)
        self.s.write_attempt(self.attempt)
        self.s.event(
            ev.ATTEMPT_STARTED,
            self.case.case_id,
            self.attempt.index,
            nodes=list(self.attempt.nodes),
            restart=self.attempt.restart,
            epoch=self.attempt.epoch,
        )
        self.s.faults.attach(self)
        outcome, reason = await self._run()
        self.over = time.monotonic()
        outcome, reason = await self._settle(outcome, reason)
        self.attempt = replace(
            self.attempt,
            outcome=outcome,
            reason=reason,
            end_wall_ns=time.time_ns(),
            end_mono_ns=time.monotonic_ns(),
            last_step=self._slowest().finished if self.ranks else -1,  # none: no node was usable
            last_begun=max((r.begun for r in self.ranks), default=-1),
            blamed_step=self._blamed_step(),
            first_step_wall_ns=self.first_step_ns,
            moments=self._moments(),
            saved_step=self._saved_step(),
            fell_silent=(number := culprit(self.ranks)) is not None and self.ranks[number].fell_silent,
            failure=self._failure(outcome),
        )
        self.s.write_attempt(self.attempt)
        self.s.event(ev.ATTEMPT_ENDED, self.case.case_id, self.attempt.index, outcome=outcome, reason=reason)
        self.s.links.on_message = lambda node, message: None
        return self.attempt

    def _moments(self) -> dict[str, int]:
        """How many of each moment the case has had now: what earlier attempts had, and the furthest of these ranks."""
        here = [max((r.moments[i] for r in self.ranks), default=0) for i in range(len(fault.MOMENTS))]
        before = self.s.faults.moments(self.case)
        return {m: before[m] + n for m, n in zip(fault.MOMENTS, here, strict=True)}

    def _blamed_step(self) -> int:
        """The step that the blamed rank had begun, or the ranks of lost nodes; -1 where nobody is blamed."""
        if self.blamed is not None:
            return self.ranks[self.blamed].begun
        return max((r.begun for r in self.ranks if self.s.links.lost(r.node)), default=-1)

    def _saved_step(self) -> int:
        if not self.case.checkpoint_every:
            return 0
        try:
            found = committed(self.s.run.checkpoints(self.s.job.key, self.case.case_id))
        except CheckpointError:  # storage is away: nothing is known of it now
            return 0
        return max((stamp.step for stamp in found), default=0)

    def _failure(self, outcome: str) -> str:
        if (
            outcome == at.INTERRUPTED
        ):  # Slurm's final state says why, but for the warning before the time limit
            return failures.TIME_LIMIT if self.s.signal_name == "SIGUSR2" else ""
        if outcome == at.NODE_LOST:
            return failures.MACHINE
        return self.failure if outcome == at.FAILED else ""

    def _slowest(self) -> RankView:
        """The rank that is least far; those that say nothing of their progress do not count while others do."""
        return min(self.ranks, key=lambda r: (r.of == page.SILENT, r.finished, r.begun))

    # --- what agents say --------------------------------------------------------------------------------

    def _hear(self, node: str, message: Message) -> None:
        if message.get("case_id") != self.case.case_id or message.get("attempt") not in (
            self.attempt.folder,
            self.attempt.index,
        ):
            return  # of an attempt that is over
        kind = message["type"]
        if kind == "beat":
            for number, seen in message["ranks"].items():
                rank = self.ranks[int(number)]
                if not rank.ended:
                    rank.state, rank.begun, rank.finished, rank.of = seen[:4]
                    rank.sequence, rank.section, rank.section_s, rank.stopped_s, rank.strayed = seen[4:9]
                    rank.moments = tuple(seen[9:])
        elif kind == "rank_exited":
            self._exited(node, message)
            self.changed.set()
        elif kind == "rank_status":
            self.ranks[message["rank"]].status = message["status"]
        elif kind == "fault_fired":
            self.s.faults.struck(self, message["rank"], message["fault"], message["wall_ns"], message["step"])
            self.changed.set()
        elif kind == "fault_felt":
            self.felt.add(message["fault"])
        elif kind == "fault_due":
            self.s.faults.waits(self, message["rank"], message["fault"])
        elif kind == "prepared":
            self.prepared[node] = message
            self.changed.set()
        elif kind == "finished":
            self.finished[node] = message
            self.changed.set()

    def _exited(self, node: str, message: Message) -> None:
        rank = self.ranks[message["rank"]]
        rank.ended, rank.state, rank.status = True, message["state"], message["status"]
        rank.words, rank.finished, rank.of = message["words"], message["finished"], message["of"]
        rank.begun, rank.sequence = max(rank.begun, message["begun"]), message["sequence"]
        rank.ended_wall_ns, rank.stopped_s = message["wall_ns"], 0.0
        rank.strayed, rank.moments = message["strayed"], tuple(message["moments"]) or rank.moments
        rank.ended_order = sum(r.ended for r in self.ranks)
        if rank.state != page.DONE:
            self.s.event(
                ev.RANK_EXITED,
                self.case.case_id,
                self.attempt.index,
                message["rank"],
                node=node,
                status=message["status"],
                state=page.STATES[rank.state],
                words=rank.words,
                ended_wall_ns=rank.ended_wall_ns,
            )

    def _detect(self, what: str, rank: int, node: str, evidence: str) -> None:
        """Put on record that something is wrong, and who is blamed for it; once for each."""
        if f"{what} {rank} {node}" in self._detected:
            return
        self._detected.add(f"{what} {rank} {node}")
        step = self.ranks[rank].begun if 0 <= rank < len(self.ranks) else self._slowest().begun
        self.s.event(
            ev.DETECTED,
            self.case.case_id,
            self.attempt.index,
            rank,
            what=what,
            node=node,
            step=step,
            evidence=evidence,
        )

    async def _tick(self, at_most_s: float = POLL_S) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.changed.wait(), at_most_s)
        self.changed.clear()

    def _lost_node(self) -> str:
        for node in self.attempt.nodes:
            if self.s.links.lost(node):
                return f"node {node} was lost: {self.s.links.lost(node)}"
        return ""

    async def _why_lost(self, problem: str) -> tuple[str, str]:
        """A node is lost; but where its agent was ended with the job, our own signal is on its way."""
        if any(self.s.links.closed(node) for node in self.attempt.nodes) and not self.case.in_place:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.s.signal.wait(), SIGNAL_S)
        while self.s.links.may_be_cut_off() and not self.s.signal.is_set():
            await self._tick()  # for less than a lease
        if self.s.signal.is_set():
            return at.INTERRUPTED, f"received {self.s.signal_name}"
        for node in self.attempt.nodes:
            if why := self.s.links.lost(node):
                self._detect(detect.SILENT, -1, node, why)
        return at.NODE_LOST, problem

    async def _save_before_the_end(self) -> str:
        """The job is being taken away and will be started again: have the ranks save what they have.

        They must all do so after the same step, a little ahead of the furthest; who cannot is not waited for.
        """
        if not self.case.checkpoint_every or not self.s.job.requeue or self.s.stepped_down:
            return ""
        if any(r.ended or r.finished < 0 for r in self.ranks):
            return ""
        ahead = 2 + math.ceil(SAVE_AHEAD_S / max(self.detector.step_s(), 1e-4))
        step = max(r.begun for r in self.ranks) + min(ahead, 10_000)
        if step >= self.case.steps:
            return ""
        for node in self.attempt.nodes:
            self.s.links.send(node, "save", steps=step)
        end = time.monotonic() + SAVE_S
        while time.monotonic() < end and not any(r.ended for r in self.ranks) and not self._lost_node():
            if all(
                r.begun >= step or (r.finished == step - 1 and r.section != page.SAVE) for r in self.ranks
            ):
                return f"; saved after {step} steps" if self._saved_step() >= step else ""
            await self._tick()
        return ""

    def _look(self) -> str:
        """What the detector finds, in words: a reason to end this attempt; "" for nothing, or nothing to act on."""
        finding = self.detector.look(time.monotonic(), self.ranks, [not r.ended for r in self.ranks])
        if finding is None:
            return ""
        rank = self.ranks[finding.rank]
        self._detect(finding.what, finding.rank, rank.node, finding.evidence)
        self.blamed = finding.rank
        if not self.own_loop and self.case.recovery == "none":
            return ""  # a program may have its reasons, and nobody asked for it to be ended
        return f"{finding.what}: rank {finding.rank} on {rank.node} at step {rank.begun}: {finding.evidence}"

    async def _why_ended(self) -> tuple[str, str]:
        """The ranks have ended; but where they fell silent, they may have been ended with the job, as above."""
        outcome, reason = self._ended()
        if self.case.in_place:
            self._blame_dead()
            return outcome, reason
        spoke = [r.words for r in self.ranks if r.words]
        if outcome == at.FAILED and all(words.startswith(ENDED_FROM_OUTSIDE) for words in spoke):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.s.signal.wait(), SIGNAL_S)
            if self.s.signal.is_set():
                return at.INTERRUPTED, f"received {self.s.signal_name}"
        self._blame_dead()
        return outcome, reason

    def _blame_dead(self) -> None:
        """Put on record which rank's end took the others with it."""
        if (number := culprit(self.ranks)) is not None:
            rank = self.ranks[number]
            words = f"its process ended{exit_words(rank)}; {rank.words or 'without a word'}"
            if (astray := detect.stray(self.ranks)) is None:
                return self._detect(detect.DEAD, number, rank.node, words)
            view = self.ranks[astray]
            words = f"{detect.strayed_words(astray, view)}; of rank {number}: {words}"
            self._detect(detect.STRAYED, astray, view.node, words)

    # --- the course of it -------------------------------------------------------------------------------

    async def _run(self) -> tuple[str, str]:
        if len(self.attempt.nodes) < (1 if self.case.shrink else self.case.nodes):
            lost = "; ".join(f"{n}: {link.lost}" for n, link in self.s.links.links.items() if link.lost)
            words = f"{len(self.attempt.nodes)} usable nodes, the case needs {self.case.nodes} ({lost})"
            if (
                not self.s.signal.is_set()
            ):  # a job that is ended at once loses its steps before it hears of it
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.s.signal.wait(), SIGNAL_S)
            if self.s.signal.is_set():
                return at.INTERRUPTED, f"received {self.s.signal_name} before its nodes were ready"
            if self.s.links.none_began() and not controller_is_away(words):
                self.failure = failures.PROGRAM
                return at.FAILED, words
            return at.NODE_LOST, words
        deadline = time.monotonic() + self.case.time_limit_min * 60
        for node in self.attempt.nodes:
            self.s.links.send(
                node,
                "prepare",
                case_id=self.case.case_id,
                attempt=self.attempt.folder,
                torch=self.forked,
                log=str(self.s.links.log(node)),
            )
        if self.forked and not self.attempt.index:
            for node in self.s.links.live()[
                len(self.attempt.nodes) :
            ]:  # spares import torch now, not when it matters
                self.s.links.send(
                    node, "warm", log=str(self.s.links.log(node)), modules=modules_of(self.case)
                )
        ready_by = min(deadline, time.monotonic() + PREPARE_S)
        while len(self.prepared) < len(self.attempt.nodes):
            if problem := self._lost_node():
                return await self._why_lost(problem)
            if self.s.signal.is_set():
                return at.INTERRUPTED, f"received {self.s.signal_name} while starting"
            if time.monotonic() > ready_by:
                missing = sorted(set(self.attempt.nodes) - set(self.prepared))
                return at.FAILED, f"not ready within {PREPARE_S:g} s: {', '.join(missing)}"
            await self._tick()
        for node, answer in self.prepared.items():
            if answer["problem"]:
                return at.FAILED, f"{node}: {answer['problem']}"
        if problem := self._without_gpus():
            self.failure = failures.PROGRAM
            return at.FAILED, problem
        try:
            await self._start_ranks()
        except CommandError as error:
            return at.FAILED, str(error)
        return await self._follow(deadline)

    def _without_gpus(self) -> str:
        """Where the site promises GPUs, processors are no substitute that could pass unnoticed."""
        promised = int(self.s.site["node"].get("gpus", 0))
        if self.launcher != "torch" or not promised:
            return ""
        for node, answer in self.prepared.items():
            if answer["gpus"] < promised:
                return f"{node}: the site promises {promised} GPUs a node, and {answer['gpus']} are to be seen there"
            if not answer.get("torch_cuda"):
                return f"{node}: the site promises GPUs, and torch of {self.s.site['python']} has no CUDA"
        return ""

    async def _start_ranks(self) -> None:
        spec, environment = self._spec()
        for node in self.attempt.nodes:
            numbers = [r for r, view in enumerate(self.ranks) if view.node == node]
            self.s.links.send(
                node,
                "start",
                case_id=self.case.case_id,
                index=self.attempt.index,
                attempt=self.attempt.folder,
                spec=str(spec),
                ranks=numbers,
                fork="process" if self._by_agent else self.forked,
                modules=modules_of(self.case),
                programs=self.case.command is not None,
                logs=str(self.folder),
                stream=str(self.folder / f"{node}.stream"),
                environment=environment,
                rank_environment={
                    str(r): {
                        "RANK": str(r),
                        "LOCAL_RANK": str(i),
                        "HARNESS_NODE": node,
                        **({"HARNESS_RANK": str(r), "HARNESS_LAUNCHER": "agent"} if self._by_agent else {}),
                    }
                    for i, r in enumerate(numbers)
                },
            )
        self.started = True
        if self.launcher == "mpi" or (self.launcher == "torch" and not self.forked and not self._by_agent):
            self.start_step = functools.partial(
                self.s.launcher.step,
                self.attempt.nodes,
                self.case.ranks_per_node,
                spec,
                environment,
                self.folder,
                plugin="none"
                if self.launcher == "torch"
                else self.case.command["mpi"]
                if self.case.command is not None
                else None,
                own_logs=self.case.command is not None,
            )
            self.step = await self.start_step()

    @property
    def _by_agent(self) -> bool:
        """Whether each node's agent starts its ranks as processes of their own."""
        unforked = self.launcher == "torch" and not self.forked
        return self.launcher == "agent" or (unforked and self.s.site["launcher"] == "local")

    def _spec(self) -> tuple[Path, dict[str, str]]:
        first = self.prepared[self.attempt.nodes[0]]
        gpus = min(a["gpus"] for a in self.prepared.values()) >= self.case.ranks_per_node
        cuda = gpus and all(a.get("torch_cuda") for a in self.prepared.values())
        environment = {
            "WORLD_SIZE": str(len(self.ranks)),
            "MASTER_ADDR": first["address"],
            "MASTER_PORT": str(first["port"]),
        }
        interface = self.s.site["network"]["interface"] or first["interface"]
        if interface and self.launcher != "mpi":
            environment["GLOO_SOCKET_IFNAME"] = interface
            environment["NCCL_SOCKET_IFNAME"] = f"={interface}"  # without "=" NCCL takes it for a prefix
        environment |= self.case.environment
        if "OMP_NUM_THREADS" in self.case.environment:  # libgomp read it when the fork server imported torch
            environment["HARNESS_TORCH_THREADS"] = self.case.environment["OMP_NUM_THREADS"]
        folders = {}
        if self.case.command is not None:
            key, case_id = self.s.job.key, self.case.case_id
            folder = self.s.run.program(key, case_id, self.attempt.folder)
            kept = self.s.run.program_case(key, case_id)
            world.write_inputs(self.case, folder, kept)
            folders = {"program_folder": str(folder), "case_folder": str(kept)}
        spec = self.folder / "attempt.json"
        write_json(
            spec,
            {
                "case": self.case.to_json(),
                "attempt": self.attempt.index,
                "restart": self.attempt.restart,
                "epoch": self.attempt.epoch,
                "checkpoints": str(self.s.run.checkpoints(self.s.job.key, self.case.case_id)),
                "rank_nodes": list(self.attempt.rank_nodes),
                "node_folders": {n: a["folder"] for n, a in self.prepared.items()},
                "device": "cuda" if cuda and self.launcher == "torch" else "cpu",
                "backend": "mpi" if self.launcher == "mpi" else "nccl" if cuda else "gloo",
                "environment": environment,
                "folder": str(self.folder),
                "known_step": self.s.known_step(self.case.case_id),
                "armed": list(self.s.faults.armed(self.case, self.attempt.index)),
                "moments": self.s.faults.moments(self.case),
                "memory_folders": {n: a["memory"] for n, a in self.prepared.items()},
                **folders,
            },
        )
        return spec, environment

    async def _follow(self, deadline: float) -> tuple[str, str]:
        told = 0.0
        failed_at: float | None = None
        while True:
            if self.s.signal.is_set():
                saved = await self._save_before_the_end()
                return at.INTERRUPTED, f"received {self.s.signal_name}{saved}"
            if problem := self._lost_node():
                return await self._why_lost(problem)
            if all(r.ended for r in self.ranks):
                return await self._why_ended()
            if any(r.ended and r.state != page.DONE for r in self.ranks):
                failed_at = failed_at or time.monotonic()
                wait_s = blame_s(self.ranks) if self.case.in_place else GRACE_S
                if time.monotonic() - failed_at > wait_s:
                    return await self._why_ended()
            if finding := self._look():
                return at.FAILED, finding
            if await self._step_again():
                continue
            if self.step is not None and self.step.returncode is not None:
                failed_at = failed_at or time.monotonic()
                if time.monotonic() - failed_at > GRACE_S:
                    return await self._why_ended()
            if time.monotonic() > deadline:
                self.failure = failures.TIME_LIMIT
                slowest = self._slowest()
                return at.FAILED, (
                    f"not finished within its {self.case.time_limit_min} minutes; slowest rank is at step "
                    f"{slowest.finished + 1} of {max(slowest.of, self.case.steps)}"
                )
            finished = max((r.finished for r in self.ranks), default=-1)
            if finished >= 0:
                self.first_step_ns = self.first_step_ns or time.time_ns()
            self.s.faults.poll(self._slowest().begun, finished)
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                slowest = self._slowest()
                self.s.progress(
                    self.case,
                    self.attempt.index,
                    slowest.finished + 1,
                    page.STATES[slowest.state],
                    max(slowest.of, slowest.finished + 1),
                )
            await self._tick(POLL_S if failed_at is None else BLAME_POLL_S)

    def _ended(self) -> tuple[str, str]:
        bad = [n for n, r in enumerate(self.ranks) if r.state != page.DONE]
        if not bad:
            return at.COMPLETED, ""
        found = culprit(self.ranks)
        self.blamed = number = bad[0] if found is None else found
        rank = self.ranks[number]
        self.failure = failures.of_words(rank.words)
        if rank.words:
            return at.FAILED, f"rank {number} on {rank.node}: {rank.words}"
        if rank.ended:
            return at.FAILED, (
                f"rank {number} on {rank.node} ended{exit_words(rank)} without finishing: {page.STATES[rank.state]}, "
                f"{rank.finished + 1} of {max(rank.of, self.case.steps)} steps, "
                f"{sum(self.ranks[n].ended for n in bad)} of {len(self.ranks)} ranks like it; "
                f"{self._log_tail(number)}"
            )
        code = self.step.returncode if self.step is not None else None
        return (
            at.FAILED,
            f"the step of its ranks ended with code {code} before rank {number} was heard of: "
            + (self._log_tail(None)),
        )

    async def _step_again(self) -> bool:
        """Start the ranks' step once more where the controller was away when it should begin; whether that was so."""
        if self.step is None or not self.step.returncode or time.monotonic() > self.step_until:
            return False
        if any(r.ended or r.begun >= 0 or r.state != page.STARTING for r in self.ranks):
            return False
        said = self._log_tail(None)
        if not controller_is_away(said):
            return False
        self.s.event(ev.CONTROLLER_AWAY, self.case.case_id, self.attempt.index, said=said)
        await asyncio.sleep(RETRY_S)
        self.step = await self.start_step()
        return True

    def _log_tail(self, rank: int | None) -> str:
        names = [f"rank-{rank}.log"] if rank is not None else ["step.log", "rank-0.log"]
        for name in names:
            with contextlib.suppress(OSError):
                text = (self.folder / name).read_bytes().decode("utf-8", errors="replace").strip()
                if text:
                    return f"{name} ends: " + " | ".join(text.splitlines()[-3:])[-600:]
        return f"no output in {self.folder}"

    async def _settle(self, outcome: str, reason: str) -> tuple[str, str]:
        """End what still runs, and learn how much each node shipped."""
        live = [n for n in self.attempt.nodes if not self.s.links.lost(n)]
        for node in live:
            self.s.links.send(node, "finish", case_id=self.case.case_id, attempt=self.attempt.folder)
        end = time.monotonic() + FINISH_S
        while time.monotonic() < end and any(
            n not in self.finished and not self.s.links.lost(n) for n in live
        ):
            await self._tick()
        if outcome != at.COMPLETED:
            self.s.event(ev.ATTEMPT_LEFT, self.case.case_id, self.attempt.index)
        streams = []
        for node in self.attempt.nodes if self.started else ():
            said: dict[str, Any] = self.finished.get(node, {})
            path = str((self.folder / f"{node}.stream").relative_to(self.s.run.path))
            problem = str(said.get("problem", ""))
            if problem and outcome != at.COMPLETED:
                reason += f"; {node}: {problem}"
            streams.append(StreamEnd(node, path, said.get("bytes"), said.get("records"), problem))
        self.attempt = replace(self.attempt, streams=tuple(streams))
        if self.step is not None and self.case.in_place and outcome != at.COMPLETED:
            self.s.leave_step(self.step)  # nobody waits for a broken step
        elif self.step is not None and not self._lost_node():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.step.wait(), STEP_END_S)
            if self.step.returncode is None:
                self.step.kill()
        return outcome, reason


def _slurm_id(supervisor: Supervisor) -> str:
    return supervisor.launcher.job_id if supervisor.site["launcher"] == "slurm" else ""
