"""How processes are started on a job's nodes: by Slurm's steps, or as plain processes on one machine.

Every srun names its nodes and counts, overlaps, and carries ``--no-kill``: without it a step dies on all
nodes when the controller declares one down. One single-node step an agent: a step over all nodes dies
as a whole when a node reboots quickly. What a version of Slurm lacks is left out (``harness.slurm.versions``).
Where the site has a container, agents and ranks are put into it; srun itself is not. Standard library only.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.rundir import RunDir
from harness.runtime.container import Container
from harness.slurm.commands import CommandError, controller_is_away, run_command
from harness.slurm.versions import NEWEST, Version, has, usable_version

AWAY_S = (
    300.0  # how long a job waits for a controller that does not answer, before what it asked counts as failed
)
RETRY_S = 2.0

AGENT, SWEEP = "harness.runtime.agent", "harness.runtime.leftovers"

EXIT_REQUEUE = (
    75  # EX_TEMPFAIL: on a site without Slurm, asks whoever started the supervisor to start it again
)

# Variables by which a step would inherit the shape of whatever surrounds it. Slurm up to 21.08 and from 23.11 on
# reads SLURM_CPUS_PER_TASK, those between SRUN_CPUS_PER_TASK, the newest SLURM_TRES_PER_TASK as well.
_SHAPE = re.compile(
    r"^(SBATCH_|SRUN_|SLURM_(NTASKS|NPROCS|TASKS_PER_NODE|STEP_|DISTRIBUTION|CPU_BIND|MEM_PER|OVERCOMMIT|"
    r"CPUS_PER_(TASK|GPU)$|TRES_PER_TASK$|GPUS_PER_(TASK|SOCKET)$|THREADS_PER_CORE$|HINT$|EXACT$|EXCLUSIVE$|"
    r"OVERLAP$|KILL_BAD_EXIT$|WAIT$|LABELIO$|OPEN_MODE$))"
)


class Launcher(Protocol):
    """Starts agents and steps, and gives the job back."""

    job_id: str
    restart: int
    nodes: tuple[str, ...]

    async def agent(
        self, node: str, environment: Mapping[str, str], log: Path, module: str = AGENT
    ) -> asyncio.subprocess.Process:
        """Start the agent of one node, or another module in its place."""

    async def step(
        self,
        nodes: Sequence[str],
        ranks_per_node: int,
        spec: Path,
        environment: Mapping[str, str],
        log_folder: Path,
        *,
        plugin: str | None = None,
        own_logs: bool = False,
    ) -> asyncio.subprocess.Process:
        """Start the MPI ranks of one attempt, rank r on ``nodes[r // ranks_per_node]``.

        Args:
            plugin: of ``srun --mpi``, for a program whose MPI library speaks another than the site's.
            own_logs: the ranks write their logs themselves.
        """

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
    """Inside a Slurm job, in its batch step.

    Args:
        environment: of the batch step.
        mpi_plugin: what follows ``srun --mpi=``.
        version: of Slurm, as it was when the run was planned.
        container: what agents and ranks are put into.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        mpi_plugin: str,
        *,
        version: Version = NEWEST,
        container: Container | None = None,
    ) -> None:
        if environment.get("SLURM_HET_SIZE", "1") not in ("", "0", "1"):
            raise CommandError(
                f"this is a part of a heterogeneous job (SLURM_HET_SIZE={environment['SLURM_HET_SIZE']}), and those "
                "are not supported: agents, ranks and recovery count on one allocation; use two groups, or a "
                "partition of the site for each kind of node"
            )
        self._mpi = mpi_plugin
        self._container = container
        self._overlap = ["--overlap"] if has("overlap", version) else []
        self._problem: str | None = None  # of the container; not yet asked for
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

    @classmethod
    def of_run(cls, run: RunDir, site: Mapping[str, Any], environment: Mapping[str, str]) -> SlurmLauncher:
        """That of a job of this run: in the container of its site, for the Slurm that it was planned on.

        Raises:
            CommandError: the container cannot be used.
        """
        version, _ = usable_version(run.read_identity()["slurm_version"])
        container = Container.of_site(site, str(run.path))
        return cls(environment, site["mpi"]["plugin"], version=version, container=container)

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not _SHAPE.match(k)}
        return {**kept, **extra}

    async def _srun(
        self, options: Sequence[str], module: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> asyncio.subprocess.Process:
        """A step whose processes are ``python -m`` of a module, in the container where there is one."""
        variables = self._environment(environment)
        if self._container is None:
            return await _start(["srun", *options, sys.executable, "-m", *module], variables, log)
        if self._problem is None:
            self._problem = await asyncio.to_thread(self._container.problem)
        if self._problem:  # said in the step's own log, where a step that cannot start says why
            return await _start(["sh", "-c", 'echo "$1" >&2; exit 1', "sh", self._problem], variables, log)
        more, command = self._container.arguments(module, variables)
        return await _start(["srun", *options, *more, *command], self._container.environment(variables), log)

    async def agent(
        self, node: str, environment: Mapping[str, str], log: Path, module: str = AGENT
    ) -> asyncio.subprocess.Process:
        """One single-node step."""
        return await self._srun(
            [
                "-N1",
                "-n1",
                "-w",
                node,
                f"-c{self._cpus}",
                *self._overlap,
                "--no-kill",
                "--mpi=none",
                "--cpu-bind=none",
                "--mem=0",
                "--input=none",
                "--export=ALL",
                "-J",
                "agent",
            ],
            [module],
            environment,
            log,
        )

    async def step(
        self,
        nodes: Sequence[str],
        ranks_per_node: int,
        spec: Path,
        environment: Mapping[str, str],
        log_folder: Path,
        *,
        plugin: str | None = None,
        own_logs: bool = False,
    ) -> asyncio.subprocess.Process:
        """One step over the nodes, with the site's MPI plug-in."""
        return await self._srun(
            [
                f"-N{len(nodes)}",
                f"-n{len(nodes) * ranks_per_node}",
                f"--ntasks-per-node={ranks_per_node}",
                "-w",
                ",".join(nodes),
                "--distribution=block",
                *self._overlap,
                "--no-kill",
                "--overcommit",
                f"--mpi={plugin or self._mpi}",
                "--cpu-bind=none",
                "--mem=0",
                "--input=none",
                "--export=ALL",
                "--kill-on-bad-exit=0",
                *([] if own_logs else [f"--output={str(log_folder).replace('%', '%%')}/rank-%t.log"]),
                "-J",
                "ranks",
            ],
            ["harness.runtime.rank", str(spec)],
            environment,
            log_folder / "step.log",
        )

    async def requeue(self) -> str:
        """``scontrol requeue``; the controller then sends SIGTERM. One that is away is waited for.

        A task of an array is named as such: its plain id may be that of the array, and means all its tasks.
        """
        began, tries = time.monotonic(), 0
        while True:
            try:
                await asyncio.to_thread(run_command, ["scontrol", "requeue", self.job_id], timeout_s=20)
                return ""
            except CommandError as error:
                tries += 1
                away = controller_is_away(str(error)) and time.monotonic() - began < AWAY_S
                if tries >= 5 and not away:
                    return str(error)
                await asyncio.sleep(RETRY_S)


def local_mpiexec(plugin: str | None) -> list[str]:
    """An mpiexec with its options: Open MPI's for pmix, else that of the interpreter's environment, else of PATH.

    Raises:
        CommandError: there is none.
    """
    if (plugin or "").startswith("pmix"):
        found = next(filter(None, map(shutil.which, ("mpiexec.openmpi", "orterun", "prterun"))), None)
        if found is None:
            raise CommandError(
                "mpiexec.openmpi: not on PATH, and the program's MPI library speaks pmix; install openmpi-bin"
            )
        return [found, "--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        raise CommandError(
            f"mpiexec: neither beside {sys.executable} nor on PATH; install the extra 'mpi' (pip install mpich)"
        )
    return [mpiexec]


class LocalLauncher:
    """Plain processes on one machine, which plays all nodes. Imitates no Slurm."""

    def __init__(self, environment: Mapping[str, str], nodes: int) -> None:
        self.job_id = environment["HARNESS_LOCAL_JOB"]
        self.restart = int(environment.get("HARNESS_RESTART_COUNT", "0"))
        self.nodes = tuple(f"local{n}" for n in range(nodes))

    async def agent(
        self, node: str, environment: Mapping[str, str], log: Path, module: str = AGENT
    ) -> asyncio.subprocess.Process:
        """A plain process that answers to the node's name."""
        return await _start(
            [sys.executable, "-m", module],
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
        *,
        plugin: str | None = None,
        own_logs: bool = False,
    ) -> asyncio.subprocess.Process:
        """``mpiexec`` of the library that the ranks have."""
        return await _start(
            [
                *local_mpiexec(plugin),
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
