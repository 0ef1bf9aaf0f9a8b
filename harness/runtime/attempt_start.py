"""Starts the ranks of one attempt: nodes are made ready, its spec is written, ranks are asked for or a step is begun.

Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case
from harness.rundir import write_json
from harness.runtime import page, world
from harness.runtime.attempt_told import Told
from harness.runtime.launcher import AWAY_S, RETRY_S
from harness.slurm.commands import controller_is_away
from harness.workloads import launcher_of, modules_of

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor


class Start:
    """The start of one attempt.

    Args:
        supervisor: of its job.
        case: what it runs.
        attempt: as it began.
        folder: its own, on shared storage.
        told: what agents say of it.
    """

    def __init__(
        self, supervisor: Supervisor, case: Case, attempt: Attempt, folder: Path, told: Told
    ) -> None:
        self._s, self._case, self._attempt = supervisor, case, attempt
        self._folder, self._told = folder, told
        self._launcher = launcher_of(case)
        # A new step of torch ranks imports torch again, in processes of their own.
        self._forked = self._launcher == "torch" and case.recovery != "new-step"
        self.asked = False  # whether agents were asked for ranks, and so record
        self.step: asyncio.subprocess.Process | None = None  # the ranks' own, where they have one
        self._start_step: Callable[[], Awaitable[asyncio.subprocess.Process]]
        self._again_until = time.monotonic() + AWAY_S

    def prepare(self) -> None:
        """Ask the nodes to be ready for ranks."""
        links, nodes = self._s.links, self._attempt.nodes
        for node in nodes:
            links.send(
                node,
                "prepare",
                case_id=self._case.case_id,
                attempt=self._attempt.folder,
                torch=self._forked,
                log=str(links.log(node)),
            )
        if self._forked and not self._attempt.index:
            for node in links.live()[len(nodes) :]:  # spares import torch now, not when it matters
                links.send(node, "warm", log=str(links.log(node)), modules=modules_of(self._case))

    def without_gpus(self) -> str:
        """Where the site promises GPUs, processors are no substitute that could pass unnoticed."""
        promised = int(self._s.site["node"].get("gpus", 0))
        if self._launcher != "torch" or not promised:
            return ""
        for node, answer in self._told.prepared.items():
            if answer["gpus"] < promised:
                return f"{node}: the site promises {promised} GPUs a node, and {answer['gpus']} are to be seen there"
            if not answer.get("torch_cuda"):
                return f"{node}: the site promises GPUs, and torch of {self._s.site['python']} has no CUDA"
        return ""

    async def ranks(self) -> None:
        """Have the ranks started, by their nodes' agents or in a step of their own.

        Raises:
            CommandError: the step cannot be begun.
        """
        environment = self._environment()
        spec = self._write_spec(environment)
        for node in self._attempt.nodes:
            self._ask(node, spec, environment)
        self.asked = True
        if self._launcher == "mpi" or (self._launcher == "torch" and not self._forked and not self._by_agent):
            command, torch = self._case.command, self._launcher == "torch"
            self._start_step = functools.partial(
                self._s.launcher.step,
                self._attempt.nodes,
                self._case.ranks_per_node,
                spec,
                environment,
                self._folder,
                plugin="none" if torch else command["mpi"] if command is not None else None,
                own_logs=command is not None,
            )
            self.step = await self._start_step()

    def _ask(self, node: str, spec: Path, environment: dict[str, str]) -> None:
        """Tell a node's agent which ranks it has, and how they come to be."""
        numbers = [r for r, view in enumerate(self._told.ranks) if view.node == node]
        self._s.links.send(
            node,
            "start",
            case_id=self._case.case_id,
            index=self._attempt.index,
            attempt=self._attempt.folder,
            spec=str(spec),
            ranks=numbers,
            fork="process" if self._by_agent else self._forked,
            modules=modules_of(self._case),
            programs=self._case.command is not None,
            logs=str(self._folder),
            stream=str(self._folder / f"{node}.stream"),
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

    @property
    def _by_agent(self) -> bool:
        """Whether each node's agent starts its ranks as processes of their own."""
        unforked = self._launcher == "torch" and not self._forked
        return self._launcher == "agent" or (unforked and self._s.site["launcher"] == "local")

    def _environment(self) -> dict[str, str]:
        """What every rank's environment gets."""
        first = self._told.prepared[self._attempt.nodes[0]]
        environment = {
            "WORLD_SIZE": str(len(self._told.ranks)),
            "MASTER_ADDR": first["address"],
            "MASTER_PORT": str(first["port"]),
        }
        interface = self._s.site["network"]["interface"] or first["interface"]
        if interface and self._launcher != "mpi":
            environment["GLOO_SOCKET_IFNAME"] = interface
            environment["NCCL_SOCKET_IFNAME"] = f"={interface}"  # without "=" NCCL takes it for a prefix
        environment |= self._case.environment
        if "OMP_NUM_THREADS" in self._case.environment:  # libgomp read it when the fork server imported torch
            environment["HARNESS_TORCH_THREADS"] = self._case.environment["OMP_NUM_THREADS"]
        return environment

    def _write_spec(self, environment: dict[str, str]) -> Path:
        """What every rank reads of the attempt; returns where it is."""
        case, attempt, prepared = self._case, self._attempt, self._told.prepared
        gpus = min(a["gpus"] for a in prepared.values()) >= case.ranks_per_node
        cuda = gpus and all(a.get("torch_cuda") for a in prepared.values())
        spec = self._folder / "attempt.json"
        write_json(
            spec,
            {
                "case": case.to_json(),
                "attempt": attempt.index,
                "restart": attempt.restart,
                "epoch": attempt.epoch,
                "checkpoints": str(self._s.run.checkpoints(self._s.job.key, case.case_id)),
                "rank_nodes": list(attempt.rank_nodes),
                "node_folders": {n: a["folder"] for n, a in prepared.items()},
                "device": "cuda" if cuda and self._launcher == "torch" else "cpu",
                "backend": "mpi" if self._launcher == "mpi" else "nccl" if cuda else "gloo",
                "environment": environment,
                "folder": str(self._folder),
                "known_step": self._s.known_step(case.case_id),
                "armed": list(self._s.faults.armed(case, attempt.index)),
                "moments": self._s.faults.moments(case),
                "memory_folders": {n: a["memory"] for n, a in prepared.items()},
                **self._program_folders(),
            },
        )
        return spec

    def _program_folders(self) -> dict[str, str]:
        """Where a user's program runs, and where what its attempts share is; made here, with its inputs."""
        if self._case.command is None:
            return {}
        key, case_id = self._s.job.key, self._case.case_id
        folder = self._s.run.program(key, case_id, self._attempt.folder)
        kept = self._s.run.program_case(key, case_id)
        world.write_inputs(self._case, folder, kept)
        return {"program_folder": str(folder), "case_folder": str(kept)}

    def step_code(self) -> int | None:
        """How the ranks' step ended; None where there is none, or it runs."""
        return self.step.returncode if self.step is not None else None

    async def again(self) -> bool:
        """Start the ranks' step once more where the controller was away when it should begin; whether that was so."""
        if not self.step_code() or time.monotonic() > self._again_until:
            return False
        if any(r.ended or r.begun >= 0 or r.state != page.STARTING for r in self._told.ranks):
            return False
        said = self.log_tail(None)
        if not controller_is_away(said):
            return False
        self._s.event(ev.CONTROLLER_AWAY, self._case.case_id, self._attempt.index, said=said)
        await asyncio.sleep(RETRY_S)
        self.step = await self._start_step()
        return True

    def log_tail(self, rank: int | None) -> str:
        """How the output of a rank, or of the ranks' step, ends."""
        names = [f"rank-{rank}.log"] if rank is not None else ["step.log", "rank-0.log"]
        for name in names:
            with contextlib.suppress(OSError):
                text = (self._folder / name).read_bytes().decode("utf-8", errors="replace").strip()
                if text:
                    return f"{name} ends: " + " | ".join(text.splitlines()[-3:])[-600:]
        return f"no output in {self._folder}"
