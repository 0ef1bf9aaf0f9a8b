"""One rank: what it is given, how it is started, and how it ends, whatever its workload does.

Torch ranks are forked into ``run`` by the node's fork server; MPI ranks are started by the launcher
as ``python -m harness.runtime.rank SPEC``. SPEC is the attempt's file in the run folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.model import event as ev
from harness.model.case import Case
from harness.model.event import Event
from harness.rundir import read_promised
from harness.runtime import command, page, slices
from harness.runtime.loop import Loop
from harness.runtime.rank_faults import RankFaults
from harness.runtime.recorder import Recorder
from harness.telemetry.gpu import Gpu
from harness.workloads.api import Param, WrongWorldSize

T = TypeVar("T")

EXIT_RAISED = 1
EXIT_WRONG_WORLD = 3
_MAX_TRACE = 8000  # characters of a traceback that are kept


@dataclass(frozen=True)
class Spec:
    """What a rank needs to know of its attempt; written by the supervisor, the same for all ranks."""

    case: Case
    attempt: int
    restart: int
    epoch: int
    checkpoints: str
    rank_nodes: tuple[str, ...]
    node_folders: Mapping[str, str]  # node -> node-local folder of this attempt
    device: str
    backend: str
    environment: Mapping[str, str]
    folder: str = ""  # the attempt's own on shared storage; of a command case also the next two
    program_folder: str = ""
    case_folder: str = ""
    armed: tuple[int, ...] = ()  # numbers, from 1, of the case's faults that may strike in this attempt
    moments: Mapping[str, int] = field(default_factory=dict)  # how many of each the case has had before
    known_step: int = 0  # a checkpoint on shared storage that is known to have been committed
    memory_folders: Mapping[str, str] = field(default_factory=dict)  # node -> folder in its memory

    @property
    def world(self) -> int:
        """Ranks of this attempt: fewer than the case's after it went on without a lost node."""
        return len(self.rank_nodes)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes of this attempt, in the order of their ranks."""
        return tuple(dict.fromkeys(self.rank_nodes))

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Read an attempt's file."""
        data = json.loads(read_promised(path))
        lists = {name: tuple(data.get(name, ())) for name in ("rank_nodes", "armed")}
        return cls(**{**data, **lists, "case": Case.from_json(data["case"])})


class Context:
    """What the workload sees: see ``harness.workloads.api.RankContext``."""

    def __init__(self, spec: Spec, rank: int, recorder: Recorder, position: page.Page) -> None:
        case = spec.case
        self.rank, self.world = rank, spec.world
        self.node = spec.rank_nodes[rank]
        self.local_rank = sum(1 for r in range(rank) if spec.rank_nodes[r] == self.node)
        self.nodes, self.seed, self.steps = len(spec.nodes), case.seed, case.steps
        self.checkpoint_engine = case.checkpoint_engine
        self.params: Mapping[str, Param] = case.params
        self.deterministic = case.deterministic
        self.device, self.backend = spec.device, spec.backend
        self.folders = {"shared": Path(spec.folder), "node-local": recorder.path.parent}
        self._recorder = recorder
        self._case_id, self._attempt = case.case_id, spec.attempt
        node_index = spec.nodes.index(self.node)
        leader = spec.rank_nodes.index(self.node) == rank
        self.faults = RankFaults(
            case.faults,
            spec.armed,
            rank,
            node_index,
            leader,
            position,
            recorder.path,
            spec.attempt == 0,
            spec.moments,
        )

    def collective(self, call: Callable[[], T]) -> T:
        """Run one collective, counted, so that a hang shows where; faults may leave it out or reorder it."""
        return self.faults.collective(call)

    def started(self) -> None:
        """Record where this rank is and what it runs on."""
        self.event(
            ev.RANK_STARTED,
            pid=os.getpid(),
            host=socket.gethostname(),
            cpus=sorted(os.sched_getaffinity(0)),
            device=self.device,
            backend=self.backend,
            slurm_job_id=os.environ.get("SLURM_JOB_ID", ""),
            slurm_step_id=os.environ.get("SLURM_STEP_ID", ""),
            versions=_versions(),
        )

    def record(self, table: str, values: Mapping[str, int | float]) -> None:
        """Append one raw sample."""
        self._recorder.sample(table, values)

    def check(self, name: str, passed: bool, expected: object, observed: object, detail: str = "") -> None:
        """Record one check of an answer."""
        self.event(
            ev.CHECK,
            name=name,
            passed=bool(passed),
            expected=str(expected),
            observed=str(observed),
            detail=detail,
        )

    def result(self, name: str, value: object) -> None:
        """Record a final answer."""
        self.event(ev.RESULT, name=name, value=str(value))

    def event(self, kind: str, **data: Any) -> None:
        """Record what happened, now."""
        self._recorder.event(
            Event(
                kind,
                time.time_ns(),
                time.monotonic_ns(),
                self.node,
                "rank",
                self._case_id,
                self._attempt,
                self.rank,
                data,
            )
        )


def saves_before_the_end(case: Case) -> bool:
    """Whether ranks live on when their job is taken away, until they have saved or the supervisor ends them."""
    return case.recovery == "requeue" and case.checkpoint_every > 0


def run(spec_path: Path, rank: int) -> int:
    """Run one rank to its end; return its exit code. Never raises: what went wrong is recorded and printed."""
    spec = Spec.read(spec_path)
    folder = Path(spec.node_folders[spec.rank_nodes[rank]])
    position = page.Page(folder / f"rank-{rank}.page", rank)
    recorder = Recorder(folder / f"rank-{rank}.rec", rank)
    context = Context(spec, rank, recorder, position)
    if saves_before_the_end(spec.case):  # Slurm sends it to every process of a job that it takes away
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        if spec.device == "cuda" or spec.case.command is not None:
            slices.select(os.environ, context.local_rank, lambda: Gpu().slices())
        if spec.case.command is None:
            Loop(spec, context, recorder, position).go()
        else:
            context.started()
            command.Program(spec, context, recorder, position).go()
    except command.ProgramFailed as error:
        context.event(ev.RANK_RAISED, error=str(error)[:1000], trace="")
        print(f"rank {rank}: {error}", file=sys.stderr, flush=True)
        return _fail(recorder, position, EXIT_RAISED)
    except WrongWorldSize as error:
        context.event(ev.WORLD_WRONG, message=str(error))
        print(f"rank {rank}: {error}", file=sys.stderr, flush=True)
        return _fail(recorder, position, EXIT_WRONG_WORLD)
    except BaseException as error:  # whatever the workload raises is an observation, not a crash of the loop
        trace = traceback.format_exc()
        with contextlib.suppress(OSError):  # a disk that takes no more, which may be what was raised
            print(trace, file=sys.stderr, flush=True)
        try:
            context.event(
                ev.RANK_RAISED, error=f"{type(error).__name__}: {error}"[:1000], trace=trace[-_MAX_TRACE:]
            )
        except OSError:
            return _fail(recorder, position, EXIT_RAISED, page.UNRECORDED)
        return _fail(recorder, position, EXIT_RAISED)
    recorder.close()
    position.set(state=page.DONE)
    return 0


def _fail(recorder: Recorder, position: page.Page, code: int, state: int = page.FAILED) -> int:
    try:
        recorder.close()
    except OSError:
        state = page.UNRECORDED
    position.set(state=state)
    return code


def _versions() -> dict[str, str]:
    """Versions of what this rank runs on, of the modules that are loaded."""
    found = {"python": sys.version.split()[0], "kernel": os.uname().release}
    for name in ("torch", "numpy", "mpi4py"):
        if name in sys.modules:
            found[name] = str(sys.modules[name].__version__)
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None:
        found["mpi"] = str(mpi.Get_library_version()).splitlines()[0].strip("\0 ")
    return found


def rank_of_environment(environment: Mapping[str, str]) -> int:
    """Rank that the launcher gave this process.

    Raises:
        LookupError: no launcher's variable is set.
    """
    for name in ("HARNESS_RANK", "SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"):
        if environment.get("HARNESS_LAUNCHER") == "local" and name == "SLURM_PROCID":
            continue  # left over from a job around us
        if name in environment:
            return int(environment[name])
    raise LookupError(
        "no rank in the environment: SLURM_PROCID, PMI_RANK, OMPI_COMM_WORLD_RANK, PMIX_RANK are unset"
    )


def main(arguments: list[str]) -> int:
    """Entry point of MPI ranks, and of ranks that an agent starts as processes of their own."""
    spec_path = Path(arguments[0])
    spec = Spec.read(spec_path)
    os.environ.update(spec.environment)
    rank = rank_of_environment(os.environ)
    if spec.backend != "mpi" and spec.case.command is None:  # torch ranks of a step of their own
        local = spec.rank_nodes[:rank].count(spec.rank_nodes[rank])
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(local))
    return run(spec_path, rank)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code == 0:
        sys.exit(0)
    # A failed MPI rank must not wait for the others in MPI_Finalize: they may be stuck, and the agents end them.
    sys.stdout.flush()
    os._exit(code)
