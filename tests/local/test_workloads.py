"""Each workload once through the harness on site ``local``: real ranks of two played nodes, every answer checked."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import analysis
from analysis.verdict import judge
from harness.store import Results

pytestmark = [pytest.mark.timeout(240), pytest.mark.mpi]

CAMPAIGN = """\
schema: 1
name: workloads
seed: 11
packing: {mode: sequence, share_nodes: true}
groups:
  - {name: torch, workload: torch.collectives, nodes: 2, steps: 6, warmup_steps: 1, time_limit_min: 2,
     axes: [{operation: [all-to-all, barrier]}], params: {message_bytes: [64, 4096]}}
  - {name: mpi, workload: mpi.collectives, nodes: 2, steps: 6, warmup_steps: 1, time_limit_min: 2,
     axes: [{operation: [reduce-scatter, send-receive]}], params: {message_bytes: [64, 4096], dtype: int32}}
  - {name: images, workload: torch.train, nodes: 2, steps: 6, warmup_steps: 1, time_limit_min: 2,
     params: {data: images, batch: 4, batch_of: world, width: 16, layers: 1, image_pixels: 16}}
  - {name: halo, workload: mpi.halo, nodes: 2, steps: 6, warmup_steps: 1, time_limit_min: 2,
     params: {rows: 32, columns: 32}}
  - {name: cg, workload: mpi.cg, nodes: 2, steps: 6, warmup_steps: 1, time_limit_min: 2,
     params: {rows: 16, columns: 8, planes: 4}}
  - {name: gemm, workload: torch.gemm, nodes: 2, steps: 6, warmup_steps: 1, time_limit_min: 2,
     params: {matrix_size: [64], dtype: bfloat16}}
  - {name: shared, workload: io.shards, nodes: 2, steps: 3, time_limit_min: 2, params: {shard_bytes: 100000}}
  - {name: own, workload: io.shards, nodes: 2, steps: 3, time_limit_min: 2,
     params: {shard_bytes: 100000, where: node-local, cache: keep, fsync: false}}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workloads")
    (folder / "c.yaml").write_text(CAMPAIGN)
    run = folder / f"run-{folder.name}"
    command = ["run", folder / "c.yaml", "--site", "local", "--folder", run, "--plain"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, command)], capture_output=True, text=True, timeout=220
    )
    assert (run / "results.h5").exists(), done.stdout + done.stderr
    return run / "results.h5"


def test_every_workload_passes_with_an_answer_that_was_checked(results: Path) -> None:
    with analysis.load(results) as loaded:
        found = [(v.verdict.value, v.why) for v in judge(loaded)]
    assert [verdict for verdict, _ in found] == ["pass"] * 10, found
    assert all("of the answer hold" in why for _, why in found)


@pytest.mark.parametrize("workload", ["torch.train", "mpi.halo", "mpi.cg"])
def test_a_steps_time_is_told_apart(workload: str, results: Path) -> None:
    with Results(results) as opened:
        steps = opened.samples(workload, "steps")
    told = steps["compute_ns"] + steps["communication_ns"] + steps["waiting_ns"]
    assert np.all((told > 0) & (told <= steps["step_time_ns"]))
    by_rank = [steps["waiting_ns"][steps["rank"] == rank] for rank in (0, 1)]
    assert np.all(np.min(by_rank, axis=0) == 0)


def test_what_is_measured_is_recorded_by_name(results: Path) -> None:
    with Results(results) as opened:
        shards = opened.samples("io.shards", "shards")
        products = opened.samples("torch.gemm", "products")
        collectives = opened.samples("torch.collectives", "collectives")
        images = opened.samples("torch.train", "steps")["images"]
    assert (len(shards["step"]), set(shards["shard_bytes"])) == (12, {100000})
    assert np.all(shards["write_bytes_per_s"] > 0) and np.all(shards["read_bytes_per_s"] > 0)
    assert len(products["step"]) == 12 and np.all(products["flop_per_s"] > 0)
    assert set(collectives["message_bytes"]) == {0, 64, 4096}
    assert set(images) == {2}


def test_no_shard_is_left_behind(results: Path) -> None:
    assert list(results.parent.rglob("shards")) == []
