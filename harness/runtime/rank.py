"""The loop around a workload on one rank: count, time, record, checkpoint, say how far.

Torch ranks are forked into ``run`` by the node's fork server; MPI ranks are started by the launcher
as ``python -m harness.runtime.rank SPEC``. SPEC is the attempt's file in the run folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.model import event as ev
from harness.model.case import Case
from harness.model.event import Event
from harness.rundir import read_promised
from harness.runtime import checkpoint, command, page, slices
from harness.runtime.recorder import Recorder
from harness.telemetry.gpu import Gpu
from harness.workloads import create
from harness.workloads.api import Param, WrongWorldSize

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

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Read an attempt's file."""
        data = json.loads(read_promised(path))
        return cls(**{**data, "case": Case.from_json(data["case"]), "rank_nodes": tuple(data["rank_nodes"])})


class Context:
    """What the workload sees: see ``harness.workloads.api.RankContext``."""

    def __init__(self, spec: Spec, rank: int, recorder: Recorder) -> None:
        case = spec.case
        self.rank, self.world = rank, case.ranks
        self.node = spec.rank_nodes[rank]
        self.local_rank = sum(1 for r in range(rank) if spec.rank_nodes[r] == self.node)
        self.nodes, self.seed, self.steps = case.nodes, case.seed, case.steps
        self.params: Mapping[str, Param] = case.params
        self.deterministic = case.deterministic
        self.device, self.backend = spec.device, spec.backend
        self._recorder = recorder
        self._case_id, self._attempt = case.case_id, spec.attempt

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


def run(spec_path: Path, rank: int) -> int:
    """Run one rank to its end; return its exit code. Never raises: what went wrong is recorded and printed."""
    spec = Spec.read(spec_path)
    folder = Path(spec.node_folders[spec.rank_nodes[rank]])
    position = page.Page(folder / f"rank-{rank}.page", rank)
    recorder = Recorder(folder / f"rank-{rank}.rec", rank)
    context = Context(spec, rank, recorder)
    try:
        if spec.device == "cuda" or spec.case.command is not None:
            slices.select(os.environ, context.local_rank, lambda: Gpu().slices())
        if spec.case.command is None:
            _loop(spec, context, recorder, position)
        else:
            started(spec, context)
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
        with contextlib.suppress(OSError):
            context.event(
                ev.RANK_RAISED, error=f"{type(error).__name__}: {error}"[:1000], trace=trace[-_MAX_TRACE:]
            )
        return _fail(recorder, position, EXIT_RAISED)
    recorder.close()
    position.set(state=page.DONE)
    return 0


def _fail(recorder: Recorder, position: page.Page, code: int) -> int:
    state = page.FAILED
    try:
        recorder.close()
    except OSError:
        state = page.UNRECORDED
    position.set(state=state)
    return code


def _loop(spec: Spec, context: Context, recorder: Recorder, position: page.Page) -> None:
    case = spec.case
    workload = create(case.workload)
    for table, columns in workload.tables.items():
        if table != "steps":
            recorder.define(table, columns)
    recorder.define("steps", ("step", "start_mono_ns", "step_time_ns", *workload.tables.get("steps", ())))
    workload.setup(context)
    started(spec, context)
    first = 0
    checkpoints = Path(spec.checkpoints)
    if case.checkpoint_every:
        recorder.define("checkpoints", ("step", "checkpoint_time_ns", "checkpoint_bytes"))
        restored, refused = checkpoint.restore(workload, checkpoints, context.rank, context.world)
        for why in refused:
            context.event(ev.CHECKPOINT_REFUSED, why=why)
        if restored is not None:
            first = restored["step"]
            context.event(ev.CHECKPOINT_RESTORED, **restored)
    position.set(state=page.RUNNING)
    for step in range(first, case.steps):
        position.set(begun=step)
        start = time.monotonic_ns()
        values = workload.step(step)
        end = time.monotonic_ns()
        recorder.sample(
            "steps", {"step": step, "start_mono_ns": start, "step_time_ns": end - start, **values}
        )
        position.set(finished=step)
        if step == first:
            context.event(ev.FIRST_STEP, step=step)
        if case.checkpoint_every and (step + 1) % case.checkpoint_every == 0 and step + 1 < case.steps:
            start = time.monotonic_ns()
            saved = checkpoint.save(
                workload, checkpoints, context.rank, step + 1, spec.restart, spec.epoch, case.checkpoint_keep
            )
            recorder.sample(
                "checkpoints",
                {
                    "step": step + 1,
                    "checkpoint_time_ns": time.monotonic_ns() - start,
                    "checkpoint_bytes": saved["bytes"],
                },
            )
            context.event(ev.CHECKPOINT_COMMITTED, **saved)
    position.set(state=page.CLOSING)
    workload.close()


def started(spec: Spec, context: Context) -> None:
    """Record where this rank is and what it runs on."""
    context.event(
        ev.RANK_STARTED,
        pid=os.getpid(),
        host=socket.gethostname(),
        cpus=sorted(os.sched_getaffinity(0)),
        device=spec.device,
        backend=spec.backend,
        slurm_job_id=os.environ.get("SLURM_JOB_ID", ""),
        slurm_step_id=os.environ.get("SLURM_STEP_ID", ""),
        versions=_versions(),
    )


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
    os.environ.update(Spec.read(spec_path).environment)
    return run(spec_path, rank_of_environment(os.environ))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code == 0:
        sys.exit(0)
    # A failed MPI rank must not wait for the others in MPI_Finalize: they may be stuck, and the agents end them.
    sys.stdout.flush()
    os._exit(code)
