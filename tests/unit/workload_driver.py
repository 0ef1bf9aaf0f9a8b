"""Runs a workload's ranks without Slurm: a context that keeps what it is told, and a loop as small as can be.

Torch ranks are forked from the test's process, which has imported torch. As a script
(``python workload_driver.py SPEC...``) it is a rank in a process of its own: a fresh one, or MPI's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import collective_faults

ROOT = Path(__file__).parents[2]
Change = Callable[[Any], None]  # what a negative control does to a workload


@dataclass
class FakeContext:
    """A RankContext that keeps everything, in JSON-ready form."""

    rank: int
    world: int
    params: dict[str, Any]
    steps: int
    nodes: int = 1
    seed: int = 7
    deterministic: bool = True
    device: str = "cpu"
    backend: str = "gloo"
    folders: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    collectives: int = 0

    @property
    def local_rank(self) -> int:
        return self.rank

    def record(self, table: str, values: Mapping[str, int | float]) -> None:
        self.tables.setdefault(table, []).append(dict(values))

    def check(self, name: str, passed: bool, expected: object, observed: object, detail: str = "") -> None:
        assert name not in self.checks
        self.checks[name] = {"passed": passed, "expected": expected, "observed": observed, "detail": detail}

    def result(self, name: str, value: object) -> None:
        assert name not in self.results
        self.results[name] = value

    def collective(self, call: Callable[[], Any]) -> Any:
        self.collectives += 1
        return call()


@dataclass
class Report:
    """What became of one rank."""

    error: str = ""
    context: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of the live state, by number of finished steps
    files: list[str] = field(default_factory=list)  # of the checkpoint that was saved
    restored: dict[str, Any] = field(default_factory=dict)  # what was

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return self.context["checks"]

    @property
    def results(self) -> dict[str, Any]:
        return self.context["results"]

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        return self.context["tables"]


@dataclass
class Plan:
    """What a rank does: if ``first``, restore the newest checkpoint in ``folder``; save there after ``save_at``."""

    workload: str
    params: dict[str, Any]
    steps: int
    world: int
    first: int = 0
    save_at: int = -1
    stop_at: int = -1  # ends without close, as a killed rank does
    folder: str = ""  # of checkpoints
    engine: str = "own"
    seed: int = 7
    change: str = ""  # name of a CHANGES entry, for ranks that a closure cannot reach
    storage: str = ""  # folder of what a workload writes besides


def skip_exchange(workload: Any) -> None:
    """Halos are never exchanged."""
    workload.exchange = lambda *halos: None


def lose_a_sweep(workload: Any) -> None:
    """The state is one sweep behind what the loop believes."""
    workload.sweeps -= 1


def sabotage_position(workload: Any) -> None:
    """A negative control of the workload's own."""
    workload.sabotage("position")


def fail_on_rank_1(workload: Any) -> None:
    """Rank 1 raises while the others wait for it."""
    if workload.context.rank == 1:
        raise RuntimeError("rank 1 fails on purpose")


def slow_on_rank_1(workload: Any) -> None:
    """Rank 1 sweeps 30 ms longer in each step."""
    if workload.context.rank == 1:
        module = sys.modules[type(workload).__module__]
        sweep = module.sweep  # type: ignore[attr-defined]

        def slow(*grids: Any) -> Any:
            time.sleep(0.03)
            return sweep(*grids)

        module.sweep = slow  # type: ignore[attr-defined]


def lose_a_block(workload: Any) -> None:
    """The last of a shard is never written."""
    write = workload.write

    def short(path: Path) -> Any:
        took = write(path)
        os.truncate(path, path.stat().st_size - 100)
        return took

    workload.write = short


def read_own_shard(workload: Any) -> None:
    """Each rank reads what it wrote itself, where it should read another's."""
    path, rank = workload.path, workload.context.rank
    workload.path = lambda step, _: path(step, rank)


def swap_blocks(workload: Any) -> None:
    """Two blocks of each shard are in each other's place."""
    write = workload.write

    def swapped(path: Path) -> Any:
        took, data = write(path), bytearray(path.read_bytes())
        data[:4096], data[4096:8192] = data[4096:8192], data[:4096]
        path.write_bytes(data)
        return took

    workload.write = swapped


CHANGES: dict[str, Change] = {
    f.__name__: f
    for f in (
        skip_exchange,
        lose_a_sweep,
        sabotage_position,
        fail_on_rank_1,
        slow_on_rank_1,
        lose_a_block,
        read_own_shard,
        swap_blocks,
    )
} | collective_faults.FAULTS


def run_rank(plan: Plan, rank: int, change: Change | None = None) -> Report:
    """The loop: setup, perhaps restore, steps, perhaps save, close."""
    from harness.runtime.checkpoint import Checkpoints
    from harness.workloads import create

    context = FakeContext(rank, plan.world, plan.params, plan.steps, seed=plan.seed)
    context.folders = {where: f"{plan.storage}/{where}" for where in ("shared", "node-local")}
    report = Report()
    try:
        workload = create(plan.workload)
        workload.setup(context)
        checkpoints = Checkpoints(
            workload, Path(plan.folder), None, rank, plan.world, plan.first, 0, keep=9, engine=plan.engine
        )
        if plan.first:
            report.restored = asdict(checkpoints.restore())
        if change or plan.change:
            (change or CHANGES[plan.change])(workload)
        report.digests[str(plan.first)] = workload.state_digest()
        for step in range(plan.first, plan.steps):
            start = time.monotonic_ns()
            values = workload.step(step)
            assert tuple(values) == tuple(workload.tables.get("steps", ()))
            elapsed_ns = time.monotonic_ns() - start
            context.record("steps", {"step": step, "step_time_ns": elapsed_ns, **values})
            report.digests[str(step + 1)] = workload.state_digest()
            if step + 1 == plan.save_at:
                folder = Path(plan.folder, checkpoints.save(step + 1).path)
                report.files = sorted(
                    p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
                )
            if step + 1 == plan.stop_at:
                break
        else:
            workload.close()
    except Exception as error:
        report.error = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    report.context = asdict(context)
    return report


def torch_environment(world: int) -> dict[str, str]:
    """What ``harness.runtime.rank`` sets, but for RANK."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "GLOO_SOCKET_IFNAME": "lo",
        "HARNESS_COLLECTIVE_TIMEOUT_S": "20",
    }


def fork_ranks(plan: Plan, out: Path, change: Change | None = None, world_size: int = 0) -> list[Report]:
    """Run all ranks, forked from this process; or ``world_size`` of them, which torch takes for all."""
    environment = torch_environment(world_size or plan.world)
    out.mkdir(parents=True, exist_ok=True)
    children = {}
    for rank in range(world_size or plan.world):
        pid = os.fork()
        if not pid:
            try:
                os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
                (out / f"{rank}.json").write_text(json.dumps(asdict(run_rank(plan, rank, change))))
                os._exit(0)
            finally:
                os._exit(1)
        children[pid] = rank
    return _reports(
        plan, out, lambda: _reap(children), lambda: [os.kill(pid, signal.SIGKILL) for pid in children]
    )


def start_ranks(plan: Plan, out: Path, launcher: tuple[str, ...] = ()) -> list[Report]:
    """Run all ranks in fresh processes: one for each rank, or one of ``launcher`` (mpiexec) for all."""
    processes = _started([plan], [out], launcher)
    return _reports(
        plan, out, lambda: all(p.poll() is not None for p in processes), lambda: [p.kill() for p in processes]
    )


def start_each(plans: Sequence[Plan], out: Path, launcher: tuple[str, ...]) -> list[list[Report]]:
    """Run plans of as many ranks one after the other in the same processes of MPI, which ``launcher`` starts."""
    assert len({plan.world for plan in plans}) == 1
    folders = [out / str(number) for number in range(len(plans))]
    (process,) = _started(plans, folders, launcher)
    return [
        _reports(plan, folder, lambda: process.poll() is not None, process.kill)
        for plan, folder in zip(plans, folders, strict=True)
    ]


def _started(
    plans: Sequence[Plan], folders: Sequence[Path], launcher: tuple[str, ...]
) -> list[subprocess.Popen[bytes]]:
    world, specs = plans[0].world, [folder / "spec.json" for folder in folders]
    for plan, spec in zip(plans, specs, strict=True):
        spec.parent.mkdir(parents=True, exist_ok=True)
        spec.write_text(json.dumps(asdict(plan)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **torch_environment(world)}
    command = (*launcher, sys.executable, __file__, *map(str, specs))
    return [
        subprocess.Popen(command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(1 if launcher else world)
    ]


def _reap(children: dict[int, int]) -> bool:
    for pid in list(children):
        if os.waitpid(pid, os.WNOHANG)[0]:
            children.pop(pid)
    return not children


def _reports(plan: Plan, out: Path, ended: Callable[[], bool], end: Callable[[], Any]) -> list[Report]:
    deadline_s = time.monotonic() + 60
    while not ended():
        if time.monotonic() > deadline_s:
            end()
            raise TimeoutError(f"ranks of {plan} have not ended after 60 s")
        time.sleep(0.005)
    files = [out / f"{rank}.json" for rank in range(plan.world)]
    return [Report(**json.loads(f.read_text())) if f.exists() else Report("no report") for f in files]


def _change_and_stay(plan: Plan, workload: Any) -> None:
    """As the plan says; and MPI is not ended, since it cannot be started again in a process."""
    if plan.change:
        CHANGES[plan.change](workload)
    workload.leave = workload.barrier


def main() -> int:
    rank = int(os.environ.get("PMI_RANK", os.environ["RANK"]))
    for number, spec in enumerate(map(Path, sys.argv[1:]), start=2):
        plan = Plan(**json.loads(spec.read_text()))
        more = number < len(sys.argv)
        report = run_rank(plan, rank, partial(_change_and_stay, plan) if more else None)
        (spec.parent / f"{rank}.json").write_text(json.dumps(asdict(report)))
        if report.error:
            return 1
    return 0


if __name__ == "__main__":
    code = main()
    if "mpi4py" in sys.modules:
        sys.exit(code)  # as a failed MPI rank would, whatever its library does at exit
    os._exit(code)
