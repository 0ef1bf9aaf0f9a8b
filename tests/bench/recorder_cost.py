"""What a sample costs a rank, and what SIGKILL of the rank loses, beside JSON lines, SQLite and h5py.

    python -m tests.bench.recorder_cost

A sample is three numbers. Each way is used as one must who wants a sample to outlive its process when the call has
returned; two rows, named so, do without that. Nanoseconds are a loop's, divided by its length, in rounds.

Then a process records as fast as it can, and writes into shared memory how many calls have returned; SIGKILL at a
random moment; then its file is read as its users would read it. `lost` are samples that a call had returned for and
that are not there; `unreadable` are files that nobody can open.

What a power-off loses is measured on the emulated cluster (`tests.bench.recovery --part node`): records since the last
shipment, at most two seconds, and the stream is a `gap` by name.

RECORDER_KILLS (50), BENCH_REPEATS (5).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.runtime.recorder import Recorder
from harness.streams import read as read_stream
from tests.bench.bench_cluster import ROOT
from tests.bench.settings import REPEATS
from tests.bench.table import print_table, spread, write_json

KILLS = int(os.environ.get("RECORDER_KILLS", "50"))
LOOP_S = 0.3  # a loop takes about so long
VALUES = {"step": 1, "message_bytes": 65536, "elapsed_ns": 123456}
Sample = Callable[[], None]


@contextlib.contextmanager
def _ours(path: Path) -> Iterator[Sample]:
    recorder = Recorder(path, 0)
    recorder.define("collectives", tuple(VALUES))
    yield lambda: recorder.sample("collectives", VALUES)
    recorder.abandon()


@contextlib.contextmanager
def _json_lines(path: Path) -> Iterator[Sample]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield lambda: os.write(descriptor, json.dumps(VALUES).encode() + b"\n") and None
    os.close(descriptor)


@contextlib.contextmanager
def _buffered_lines(path: Path) -> Iterator[Sample]:
    with path.open("a") as file:
        yield lambda: file.write(json.dumps(VALUES) + "\n") and None


@contextlib.contextmanager
def _sqlite(path: Path) -> Iterator[Sample]:
    database = sqlite3.connect(path, isolation_level=None)  # a transaction each
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=normal")
    database.execute("create table s (step integer, message_bytes integer, elapsed_ns integer)")
    row = tuple(VALUES.values())
    yield lambda: database.execute("insert into s values (?, ?, ?)", row) and None
    database.close()


@contextlib.contextmanager
def _h5py(path: Path, *, flush: bool = True) -> Iterator[Sample]:
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("s", (0, 3), "i8", maxshape=(None, 3), chunks=(1024, 3))
        row = np.array([*VALUES.values()], dtype="i8")
        file.flush()

        def sample() -> None:
            count = len(dataset)
            dataset.resize(count + 1, axis=0)
            dataset[count] = row
            if flush:
                file.flush()

        yield sample


WAYS: dict[str, tuple[str, Callable[[Path], contextlib.AbstractContextManager[Sample]]]] = {
    "ours": ("recorder: CRC, one write", _ours),
    "json": ("JSON line, one write", _json_lines),
    "json_buffered": ("JSON line, buffered (outlives nothing)", _buffered_lines),
    "sqlite": ("SQLite, WAL, a transaction each", _sqlite),
    "h5py": ("h5py append, flush each", _h5py),
    "h5py_unflushed": ("h5py append (outlives nothing)", lambda path: _h5py(path, flush=False)),
}


def _count(key: str, path: Path) -> int:
    """Samples that are in a file; raises whatever its library raises."""
    if key == "ours":
        return len(read_stream(path).ranks[0].samples["collectives"])
    if key.startswith("json"):
        lines = path.read_bytes().split(b"\n")
        return sum(1 for line in lines[:-1] if json.loads(line))
    if key == "sqlite":
        database = sqlite3.connect(path)
        (count,) = database.execute("select count(*) from s").fetchone()
        database.close()
        return int(count)
    import h5py

    with h5py.File(path, "r") as file:
        return int(file["s"].shape[0]) if file["s"][:].all() else -1


# --- cost -----------------------------------------------------------------------------------------------------


def nanoseconds(key: str, folder: Path) -> float:
    """Of one sample."""
    with WAYS[key][1](folder / f"{key}-{time.monotonic_ns()}") as sample:
        for _ in range(20):
            sample()
        began, done = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < LOOP_S:
            for _ in range(50):
                sample()
            done += 50
    return passed / done * 1e9


# --- SIGKILL --------------------------------------------------------------------------------------------------


def _victim(key: str, path: Path, shared: Path) -> None:
    """Record until killed."""
    with shared.open("r+b") as file, mmap.mmap(file.fileno(), 8) as told, WAYS[key][1](path) as sample:
        print("begun", flush=True)
        done = 0
        while True:
            sample()
            done += 1
            struct.pack_into("<q", told, 0, done)


def killed(key: str, folder: Path, rng: random.Random) -> tuple[int, int | None]:
    """Calls that had returned when a process was killed, and samples that are there: None if nobody can read them."""
    path, shared = folder / "victim", folder / "told"
    for old in folder.glob("victim*"):
        old.unlink()
    shared.write_bytes(bytes(8))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.recorder_cost", key, str(path), str(shared)],
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.02 + rng.random() * 0.2)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    (told,) = struct.unpack("<q", shared.read_bytes())
    try:
        return told, _count(key, path)
    except Exception:  # whatever a library says of a file that it cannot read
        return told, None


def main() -> None:
    """Measure, kill, print."""
    costs: dict[str, list[float]] = {key: [] for key in WAYS}
    kills: dict[str, list[tuple[int, int | None]]] = {key: [] for key in WAYS}
    rng = random.Random(11)
    with tempfile.TemporaryDirectory(prefix="recorder-cost-") as name:
        folder = Path(name)
        for turn in range(REPEATS):
            keys = [*WAYS][turn % len(WAYS) :] + [*WAYS][: turn % len(WAYS)]
            for key in keys:
                costs[key].append(nanoseconds(key, folder))
        for _ in range(KILLS):
            for key in WAYS:
                kills[key].append(killed(key, folder, rng))
    rows = []
    for key, (words, _) in WAYS.items():
        readable = [(told, found) for told, found in kills[key] if found is not None]
        lost = sum(max(0, told - found) for told, found in readable)
        told = sum(t for t, _ in readable)
        rows.append(
            [
                words,
                spread(costs[key], 0),
                f"{statistics.median(costs[key]) / statistics.median(costs['ours']):.1f}",
                f"{lost:,} of {told:,}" if readable else "-",
                f"{KILLS - len(readable)} of {KILLS}",
            ]
        )
    print_table(
        f"one sample of three numbers; {KILLS} processes killed",
        ("", "ns a sample", "x ours", "samples lost", "unreadable files"),
        rows,
    )
    write_json("recorder", {"nanoseconds": costs, "kills": kills})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _victim(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
