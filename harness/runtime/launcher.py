"""How processes are started on a job's nodes: by Slurm's steps, or as plain processes on one machine.

Every srun names its nodes and counts, overlaps, and carries ``--no-kill``: without it a step dies on all
nodes when the controller declares one down. One single-node step an agent: a step over all nodes dies
as a whole when a node reboots quickly. Standard library only.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from harness.slurm.commands import CommandError, run_command

EXIT_REQUEUE = (
    75  # EX_TEMPFAIL: on a site without Slurm, asks whoever started the supervisor to start it again
)

# Variables by which a step would inherit the shape of whatever surrounds it.
_SHAPE = re.compile(
    r"^(SBATCH_|SRUN_|SLURM_(NTASKS|NPROCS|TASKS_PER_NODE|STEP_|DISTRIBUTION|CPU_BIND|MEM_PER|OVERCOMMIT))"
)


class Launcher(Protocol):
    """Starts agents and steps, and gives the job back."""

    job_id: str
    restart: int
    nodes: tuple[str, ...]

    async def agent(self, node: str, environment: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
        """Start the agent of one node."""

    async def step(
        self,
        nodes: Sequence[str],
        ranks_per_node: int,
        spec: Path,
        environment: Mapping[str, str],
        log_folder: Path,
    ) -> asyncio.subprocess.Process:
        """Start the MPI ranks of one attempt, rank r on ``nodes[r // ranks_per_node]``."""

    async def requeue(self) -> str:
        """Ask for this job to be started again; returns a problem in words, or "" when the request was taken."""


async def _start(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *arguments,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def smallest_cpus(text: str) -> int:
    """Fewest processors of any node, from SLURM_JOB_CPUS_PER_NODE such as ``4(x2),2``; 1 when it says nothing."""
    counts = [int(part.split("(")[0]) for part in text.split(",") if part.split("(")[0].isdigit()]
    return min(counts, default=1)


class SlurmLauncher:
    """Inside a Slurm job, in its batch step."""

    def __init__(self, environment: Mapping[str, str], mpi_plugin: str) -> None:
        self._mpi = mpi_plugin
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        self.raw_job_id = environment["SLURM_JOB_ID"]
        self.job_id = f"{array}_{task}" if array else self.raw_job_id
        self.restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
        self._cpus = smallest_cpus(environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
        hosts = run_command(
            ["scontrol", "show", "hostnames", environment["SLURM_JOB_NODELIST"]], timeout_s=20
        )
        names = hosts.split()
        batch = environment.get("SLURMD_NODENAME", names[0])
        self.nodes = (batch, *(n for n in names if n != batch))

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not _SHAPE.match(k)}
        return {**kept, **extra}

    async def agent(self, node: str, environment: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
        """One single-node step."""
        return await _start(
            [
                "srun",
                "-N1",
                "-n1",
                "-w",
                node,
                f"-c{self._cpus}",
                "--overlap",
                "--no-kill",
                "--mpi=none",
                "--cpu-bind=none",
                "--mem=0",
                "--input=none",
                "--export=ALL",
                "-J",
                "agent",
                sys.executable,
                "-m",
                "harness.runtime.agent",
            ],
            self._environment(environment),
            log,
        )

    async def step(
        self,
        nodes: Sequence[str],
        ranks_per_node: int,
        spec: Path,
        environment: Mapping[str, str],
        log_folder: Path,
    ) -> asyncio.subprocess.Process:
        """One step over the nodes, with the site's MPI plug-in."""
        return await _start(
            [
                "srun",
                f"-N{len(nodes)}",
                f"-n{len(nodes) * ranks_per_node}",
                f"--ntasks-per-node={ranks_per_node}",
                "-w",
                ",".join(nodes),
                "--distribution=block",
                "--overlap",
                "--no-kill",
                "--overcommit",
                f"--mpi={self._mpi}",
                "--cpu-bind=none",
                "--mem=0",
                "--input=none",
                "--export=ALL",
                "--kill-on-bad-exit=0",
                f"--output={str(log_folder).replace('%', '%%')}/rank-%t.log",
                "-J",
                "ranks",
                sys.executable,
                "-m",
                "harness.runtime.rank",
                str(spec),
            ],
            self._environment(environment),
            log_folder / "step.log",
        )

    async def requeue(self) -> str:
        """``scontrol requeue``; the controller then sends SIGTERM."""
        problem = ""
        for _ in range(5):
            try:
                await asyncio.to_thread(run_command, ["scontrol", "requeue", self.raw_job_id], timeout_s=20)
                return ""
            except CommandError as error:
                problem = str(error)
                await asyncio.sleep(2)
        return problem


class LocalLauncher:
    """Plain processes on one machine, which plays all nodes. Imitates no Slurm."""

    def __init__(self, environment: Mapping[str, str], nodes: int) -> None:
        self.job_id = environment["HARNESS_LOCAL_JOB"]
        self.restart = int(environment.get("HARNESS_RESTART_COUNT", "0"))
        self.nodes = tuple(f"local{n}" for n in range(nodes))

    async def agent(self, node: str, environment: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
        """A plain process that answers to the node's name."""
        return await _start(
            [sys.executable, "-m", "harness.runtime.agent"],
            {**os.environ, **environment, "HARNESS_SUPERVISOR_HOST": "127.0.0.1"},
            log,
        )

    async def step(
        self,
        nodes: Sequence[str],
        ranks_per_node: int,
        spec: Path,
        environment: Mapping[str, str],
        log_folder: Path,
    ) -> asyncio.subprocess.Process:
        """``mpiexec`` of the interpreter's own environment, else that of PATH."""
        beside = Path(sys.executable).parent / "mpiexec"
        mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
        if mpiexec is None:
            raise CommandError(
                f"mpiexec: neither beside {sys.executable} nor on PATH; install the extra 'mpi' (pip install mpich)"
            )
        return await _start(
            [
                mpiexec,
                "-n",
                str(len(nodes) * ranks_per_node),
                sys.executable,
                "-m",
                "harness.runtime.rank",
                str(spec),
            ],
            {**os.environ, **environment, "HARNESS_LAUNCHER": "local"},
            log_folder / "step.log",
        )

    async def requeue(self) -> str:
        """Nothing to ask: the supervisor's exit code says it. The signal stands in for the controller's."""
        os.kill(os.getpid(), signal.SIGTERM)
        return ""
