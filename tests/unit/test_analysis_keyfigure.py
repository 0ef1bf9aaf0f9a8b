"""The key figure of each workload in units that a person reads, on data with known figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import keyfigure, text
from analysis.results import load
from tests.unit import results_factory as factory

MS = 1_000_000


def figure(folder: Path, workload: str, table: str, ranks: list[dict[str, Any]], **params: Any) -> str:
    """The key figure of one case of four judged steps, from columns of each rank."""
    campaign = factory.Campaign()
    case = campaign.case("c", workload=workload, ranks=len(ranks), ranks_per_node=len(ranks), steps=4,
                         warmup_steps=0, params=params)  # fmt: skip
    attempt = campaign.attempt(case, ["n1"], factory.START_NS, factory.START_NS + factory.S)
    for rank, columns in enumerate(ranks):
        campaign.record(case, attempt, rank, table, **columns)
    with load(campaign.write(folder / "r.h5")) as results:
        return keyfigure.of_case(results, results.cases[0])


@pytest.mark.parametrize(
    "images, expected",
    [(8, "160 images/s, 100 ms a step, n=4"), (0, "5.12 k tokens/s, 100 ms a step, n=4")],
)
def test_training_on_images_counts_images_and_not_their_patches(
    images: int, expected: str, tmp_path: Path
) -> None:
    columns = {"step": np.arange(4), "step_time_ns": 100 * MS, "tokens": 256, "images": images}
    assert figure(tmp_path, "torch.train", "steps", [columns, columns]) == expected


@pytest.mark.parametrize(
    "cached, told", [(-1, ""), (0, ""), (2_000_000, " (50.0 % of it from the page cache)")]
)
def test_shards_are_told_by_what_all_ranks_wrote_and_read(cached: int, told: str, tmp_path: Path) -> None:
    columns = {"step": np.arange(4), "shard_bytes": 4_000_000, "write_ns": 40 * MS, "read_ns": 5 * MS,
               "cached_bytes": cached}  # fmt: skip
    slow = {**columns, "write_ns": 80 * MS}
    expected = f"write 100 MB/s, read 1.60 GB/s{told}, 2 ranks, n=4"
    assert figure(tmp_path, "io.shards", "shards", [columns, slow]) == expected


def test_products_are_told_by_the_largest_matrices(tmp_path: Path) -> None:
    sizes = np.tile([64, 512], 4)
    columns = {"step": np.repeat(np.arange(4), 2), "matrix_size": sizes,
               "product_ns": np.where(sizes == 512, 20 * MS, MS)}  # fmt: skip
    slow = {**columns, "product_ns": 2 * columns["product_ns"]}
    expected = "6.71 GFLOP/s a rank at 512 x 512, 40.0 ms a product, n=4"
    assert figure(tmp_path, "torch.gemm", "products", [columns, slow]) == expected


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_barrier_has_a_time_and_no_size(ranks: int, tmp_path: Path) -> None:
    columns = {"step": np.arange(4), "message_bytes": 0, "elapsed_ns": 127_000}
    found = figure(tmp_path, "mpi.collectives", "collectives", [columns] * ranks, operation="barrier")
    assert found == "127 µs a call, n=4"


def test_a_rate_has_no_one_in_its_unit() -> None:
    assert [text.quantity(v, "1/s") for v in (4.2e9, 12.0, float("nan"))] == ["4.20 G/s", "12.0/s", "unknown"]
