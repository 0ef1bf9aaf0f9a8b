"""What a checkpoint with digests costs, beside DCP, `torch.save` and a raw write, and what the others do not notice.

    python -m tests.bench.checkpoint_cost

Two ranks (gloo), each with half of the state; in rounds, every row once a round and every round in another order, on
tmpfs and on disk. All are on storage when a save ends: every row syncs its files. A restore ends when the live
tensors hold the state again; on disk its files were dropped from the page cache before. Times are from barrier to
barrier; processor time is that of both ranks, and says more than the clock where others use the machine.

Then damage: what plain `torch.load` and DCP say to each kind; "silent" is another state without an error.

CHECKPOINT_MB (1024), BENCH_REPEATS (20), CHECKPOINT_DAMAGES (100).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

WORLD = 2
MB = int(os.environ.get("CHECKPOINT_MB", "1024"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "20"))
DAMAGES = int(os.environ.get("CHECKPOINT_DAMAGES", "100"))
TENSORS = 16  # of each rank
DEADLINE_S = 3600
ROWS = {
    "raw": "raw write and fsync; read",
    "torch.save": "torch.save and fsync; torch.load",
    "dcp": "DCP, as it comes (it syncs)",
    "ours": "ours, engine torch.save, with digests",
    "ours-dcp": "ours, engine dcp, with digests",
}


class State:
    """This rank's half of the state, as a workload: tensors, and nothing else."""

    reshapes = False

    def __init__(self, rank: int) -> None:
        import torch

        from harness.workloads.torch_world import TorchWorld

        self.rank, self._world = rank, TorchWorld()
        self._world._wire = torch.device("cpu")
        self._world.context = type("Context", (), {"rank": rank, "world": WORLD})()  # type: ignore[assignment]
        self.gather, self.broadcast, self.barrier = (
            self._world.gather,
            self._world.broadcast,
            self._world.barrier,
        )
        count = (MB << 20) // WORLD // TENSORS // 4
        source = torch.Generator().manual_seed(rank)
        self.tensors = {f"rank-{rank}/{n}": torch.rand(count, generator=source) for n in range(TENSORS)}

    def state_digest(self) -> str:
        from harness.runtime import digest

        return digest.of(self.tensors)

    def save(self, writer: Any) -> None:
        from harness.workloads import torch_checkpoint

        torch_checkpoint.save(writer, self.rank, None, self.tensors)

    def restore(self, reader: Any) -> None:
        from harness.workloads import torch_checkpoint

        self.take(torch_checkpoint.load(reader, self.rank)[1])

    def take(self, saved: dict[str, Any]) -> None:
        for name, tensor in self.tensors.items():
            tensor.copy_(saved[name])


# --- the rows -----------------------------------------------------------------------------------------------


def _raw(state: State, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    path = folder / f"rank-{state.rank}.raw"

    def save() -> None:
        with path.open("xb", buffering=0) as stream:
            for tensor in state.tensors.values():
                stream.write(tensor.numpy())
            os.fsync(stream.fileno())

    def load() -> None:
        with path.open("rb", buffering=0) as stream:
            for tensor in state.tensors.values():
                stream.readinto(tensor.numpy())

    return save, load


def _torch_save(state: State, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    import torch

    path = folder / f"rank-{state.rank}.pt"

    def save() -> None:
        torch.save(state.tensors, path)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())

    return save, lambda: state.take(torch.load(path, map_location="cpu", weights_only=True))


def _dcp(state: State, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    import torch.distributed.checkpoint as dcp

    def save() -> None:
        dcp.save(dict(state.tensors), checkpoint_id=folder)

    return save, lambda: dcp.load(dict(state.tensors), checkpoint_id=folder)


def _ours(engine: str) -> Callable[[State, Path], tuple[Callable[[], None], Callable[[], None]]]:
    def row(state: State, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
        from harness.runtime.checkpoint import Checkpoints

        checkpoints = Checkpoints(
            state,
            folder,
            None,
            state.rank,
            WORLD,
            0,
            0,
            engine=engine,
            node="here",  # type: ignore[arg-type]
        )

        def load() -> None:
            assert checkpoints.restore() is not None

        return lambda: _ignore(checkpoints.save(1)), load

    return row


def _ignore(value: object) -> None:
    """For calls whose value is not wanted."""


MEASURED = {
    "raw": _raw,
    "torch.save": _torch_save,
    "dcp": _dcp,
    "ours": _ours("torch.save"),
    "ours-dcp": _ours("dcp"),
}


def _drop(folder: Path) -> None:
    """Drop a folder's files from the page cache; they are on storage."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _rank(rank: int, folders: dict[str, str], result: Path) -> None:
    """One rank of the measurement."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    state = State(rank)
    said = state.state_digest()
    found: list[dict[str, Any]] = []
    keys = list(MEASURED)
    for number in range(REPEATS + 1):  # the first round warms up, and is not counted
        for place, parent in folders.items():
            for key in keys[number % len(keys) :] + keys[: number % len(keys)]:
                folder = Path(parent, f"{number}-{key}")
                if rank == 0:
                    folder.mkdir()
                state.barrier()
                times_s, processor_s = [], []
                for what, call in zip(("save", "load"), MEASURED[key](state, folder), strict=True):
                    if what == "load":
                        if place == "disk" and rank == 0:
                            _drop(folder)
                        for tensor in state.tensors.values():
                            tensor.zero_()
                    state.barrier()
                    begin, used = time.monotonic(), time.process_time()
                    call()
                    own_s = time.process_time() - used
                    state.barrier()
                    times_s.append(time.monotonic() - begin)
                    processor_s.append(sum(state.gather(own_s) or ()))
                if state.state_digest() != said:
                    raise RuntimeError(f"{key} on {place}: another state was restored")
                if number:
                    row = {"row": key, "place": place, "save_s": times_s[0], "load_s": times_s[1]}
                    found.append({**row, "save_cpu_s": processor_s[0], "load_cpu_s": processor_s[1]})
                if rank == 0:
                    shutil.rmtree(folder)
                state.barrier()
    if rank == 0:
        result.write_text(json.dumps(found))
    state.barrier()
    os._exit(0)


# --- damage that the others do not notice -------------------------------------------------------------------


def silent_damage(folder: Path) -> dict[str, dict[str, dict[str, int]]]:
    """For plain `torch.load` and plain DCP, by kind: how often an error, the same state, or silently another one."""
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    from harness.faults import damage
    from harness.runtime.checkpoint_files import write_manifest

    logging.disable(logging.WARNING)  # DCP tells at length of each file that it cannot read
    warnings.simplefilter("ignore")

    def state(step: int) -> dict[str, Any]:
        source = torch.Generator().manual_seed(step)
        return {f"layer {n}": torch.rand(4096, generator=source) for n in range(4)}

    def torch_load(where: Path) -> dict[str, Any]:
        return dict(torch.load(where / "all.pt", weights_only=True))

    def dcp_load(where: Path) -> dict[str, Any]:
        found = {name: torch.zeros_like(tensor) for name, tensor in state(0).items()}
        dcp.load(found, checkpoint_id=where, no_dist=True)
        return found

    savers: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
        "torch.save": (lambda values, where: torch.save(values, where / "all.pt"), torch_load),
        "DCP": (lambda values, where: dcp.save(values, checkpoint_id=where, no_dist=True), dcp_load),
    }
    answers: dict[str, dict[str, dict[str, int]]] = {}
    for name, (save, load) in savers.items():
        good = folder / name
        for step in (1, 2):
            where = good / f"step-{step:08d}.0.0"
            where.mkdir(parents=True)
            save(state(step), where)
            files = {p.name: {"bytes": p.stat().st_size} for p in where.iterdir()}
            # What the damage needs to know; nothing else reads it.
            known = {"schema": 1, "algorithm": "xxh3_128", "world": 1, "ranks": [{"rank": 0, "files": files}]}
            write_manifest(where, known)
        for kind, do in damage.KINDS.items():
            if kind == "torn_manifest":
                continue  # they have none
            counts = answers.setdefault(name, {}).setdefault(kind, {"error": 0, "same": 0, "silent": 0})
            for n in range(DAMAGES):
                copy = folder / "copy"
                shutil.copytree(good, copy)
                newest = copy / "step-00000002.0.0"
                do(newest, Random(f"{kind} {n}"))
                try:
                    found = load(newest)
                    same = all(torch.equal(found[key], tensor) for key, tensor in state(2).items())
                    counts["same" if same else "silent"] += 1
                except (Exception, CheckpointException):  # whatever it says, it noticed
                    counts["error"] += 1
                shutil.rmtree(copy)
    return answers


# --- all of it ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _folders() -> Iterator[dict[str, str]]:
    from tests.bench.environments import FOLDER

    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="checkpoint-cost-") as tmpfs,
        tempfile.TemporaryDirectory(dir=FOLDER, prefix="checkpoint-cost-") as disk,
    ):
        yield {"tmpfs": tmpfs, "disk": disk}


def measure(folders: dict[str, str]) -> list[dict[str, Any]]:
    """Start the ranks and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(WORLD)}
    result = Path(folders["tmpfs"], "result.json")
    command = [sys.executable, "-m", "tests.bench.checkpoint_cost", json.dumps(folders), str(result)]
    ranks = [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                **shared,
                "RANK": str(rank),
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "lo",
            },
        )
        for rank in range(WORLD)
    ]
    try:
        if codes := [code for rank in ranks if (code := rank.wait(DEADLINE_S))]:
            raise SystemExit(f"a rank ended with {codes[0]}; what it said is above")
    finally:
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                rank.send_signal(signal.SIGKILL)
            rank.wait()
    return list(json.loads(result.read_text()))


def _seconds(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(values):.3f} ({ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]:.3f})"


def main() -> None:
    """Measure, print, keep."""
    from tests.bench.table import print_table, write_json

    with _folders() as folders:
        found = measure(folders)
        silent = silent_damage(Path(folders["tmpfs"]))
    for place in folders:
        rows = [
            [words]
            + [
                _seconds([f[what] for f in found if (f["row"], f["place"]) == (key, place)])
                for what in ("save_s", "save_cpu_s", "load_s", "load_cpu_s")
            ]
            for key, words in ROWS.items()
        ]
        title = f"{MB} MB, {WORLD} ranks, {place}: seconds, median (p95) of {REPEATS}"
        print_table(title, ("", "save", "processor", "restore", "processor"), rows)
    rows = [
        [f"{name}: {kind}", *(str(counts[what]) for what in ("error", "same", "silent"))]
        for name, kinds in silent.items()
        for kind, counts in kinds.items()
    ]
    print_table(
        f"damage, {DAMAGES} of each kind, without our digests", ("", "error", "same state", "silent"), rows
    )
    write_json("checkpoint", {"megabytes": MB, "world": WORLD, "repeats": found, "damage": silent})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _rank(int(os.environ["RANK"]), json.loads(sys.argv[1]), Path(sys.argv[2]))
    else:
        main()
