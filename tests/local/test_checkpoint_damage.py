"""A hundred and more damages of each kind, at random seeded places in real checkpoints: all are caught."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from workload_driver import torch_environment

SCRIPT = Path(__file__).with_name("checkpoint_storm.py")
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
KINDS = ("flip_bit", "zero_block", "truncate", "missing_shard", "stale_shard", "torn_manifest")
REPEATS, WORLD, DEADLINE_S = 100, 2, 100
TRAIN = {
    "layers": 1,
    "width": 16,
    "heads": 2,
    "sequence": 8,
    "batch": 2,
    "vocabulary": 16,
    "learning_rate": 0.01,
}


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """Damage is written through to storage; in memory that takes no time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("workload", "engine", "params"),
    [
        ("torch.train", "torch.save", TRAIN),
        ("torch.train", "dcp", TRAIN),
        pytest.param("mpi.halo", "own", {"rows": 12, "columns": 40}, marks=pytest.mark.mpi),
    ],
)
def test_every_damage_is_caught_and_the_run_goes_on_from_the_last_good_one(
    workload: str, engine: str, params: dict[str, Any], in_memory: Path
) -> None:
    spec = in_memory / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "workload": workload,
                "params": params,
                "engine": engine,
                "world": WORLD,
                "repeats": REPEATS,
                "folder": str(in_memory),
            }
        )
    )
    if workload.startswith("torch"):
        pytest.importorskip("torch")
    else:
        pytest.importorskip("mpi4py")
        assert MPIEXEC is not None
    mpi = workload.startswith("mpi")
    command = (*((MPIEXEC, "-n", str(WORLD)) if mpi else ()), sys.executable, str(SCRIPT), str(spec))
    environment = {**os.environ, **torch_environment(WORLD), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(1 if mpi else WORLD)
    ]
    try:
        assert [p.wait(DEADLINE_S) for p in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
    said = json.loads((in_memory / "report.json").read_text())
    expected = {"done": REPEATS, "caught": REPEATS, "silent": [], "all": "no checkpoint can be used"}
    assert said == dict.fromkeys(KINDS, expected)
