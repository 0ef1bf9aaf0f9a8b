"""io.shards: what another rank wrote is read whole, what is wrong is found, and the page cache is told."""

import mmap
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mpi4py")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import FakeContext, Plan, Report, start_ranks

from harness.workloads import io_shards, page_cache

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
needs_mpi = [
    pytest.mark.mpi,
    pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec (the extra `mpi`); `make setup` installs it"),
]
STEPS, BYTES = 3, 1 << 18
PARAMS = {"shard_bytes": BYTES, "block_bytes": 1 << 16, "where": "shared", "cache": "drop", "fsync": True}
CHECK = "shards read back: wrong"


def run(world: int, folder: Path, change: str = "", **params: Any) -> list[Report]:
    assert MPIEXEC is not None
    plan = Plan(
        "io.shards", {**PARAMS, **params}, STEPS, world, change=change, storage=str(folder / "storage")
    )
    return start_ranks(plan, folder / "out", (MPIEXEC, "-n", str(world)))


def keeps_a_cache(folder: Path) -> bool:
    """Whether the kernel forgets a file there when it is asked to: not in memory file systems."""
    path = folder / "probe"
    path.write_bytes(bytes(mmap.PAGESIZE))
    page_cache.drop(path)
    return page_cache.cached_bytes(path) == 0


@pytest.mark.parametrize("world", [pytest.param(n, marks=needs_mpi) for n in (1, 3)])
@pytest.mark.parametrize("where", ["shared", "node-local"])
def test_shards_are_read_by_another_rank_and_deleted(where: str, world: int, tmp_path: Path) -> None:
    reports = run(world, tmp_path, where=where, shard_bytes=BYTES + 5)
    assert [""] * world == [r.error for r in reports]
    for rank, report in enumerate(reports):
        check = report.checks[CHECK]
        assert (check["passed"], check["observed"]) == (True, 0)
        assert f"on {where} storage, written by rank {(rank + 1) % world}" in check["detail"]
        assert (", this rank itself" in check["detail"]) == (world == 1)
        for step, row in enumerate(report.tables["shards"]):
            assert (row["step"], row["shard_bytes"]) == (step, BYTES + 5)
            assert 0 < row["fsync_ns"] < row["write_ns"]
            assert row["read_bytes_per_s"] == (BYTES + 5) * 1e9 / row["read_ns"]
    assert [p for p in (tmp_path / "storage").rglob("*") if not p.is_dir()] == []


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
@pytest.mark.parametrize("cache", ["drop", "direct", "keep"])
def test_what_was_in_the_page_cache_is_told(cache: str, world: int, tmp_path: Path) -> None:
    if not keeps_a_cache(tmp_path):
        pytest.skip(f"{tmp_path} is in memory")
    reports = run(world, tmp_path, cache=cache)
    assert [r.error for r in reports] == [""] * world
    cached = {row["cached_bytes"] for r in reports for row in r.tables["shards"]}
    assert cached == ({BYTES} if cache == "keep" else {0})
    total = STEPS * BYTES
    told = f"cache: {cache}, fsync: true; {total if cache == 'keep' else 0} of {total} bytes were in the reader's"
    assert told in reports[0].checks[CHECK]["detail"]


@pytest.mark.parametrize("world", [pytest.param(2, marks=needs_mpi)])
@pytest.mark.parametrize(
    ("change", "where_it_begins"),
    [
        ("lose_a_block", f"from byte {BYTES - 100}"),
        ("read_own_shard", "bytes differ"),
        ("swap_blocks", "from byte 0"),
    ],
)
def test_a_wrong_shard_is_found(change: str, where_it_begins: str, world: int, tmp_path: Path) -> None:
    reports = run(world, tmp_path, change, fsync=False)
    assert [r.error for r in reports] == [""] * world
    for report in reports:
        check = report.checks[CHECK]
        assert (check["passed"], check["observed"]) == (False, STEPS)
        assert check["detail"].startswith("first at step 0: ")
        assert where_it_begins in check["detail"]
        assert {row["fsync_ns"] for row in report.tables["shards"]} == {0}


def test_who_reads_whose() -> None:
    def sources(places: str, where: str) -> list[int]:
        return [io_shards.source_of(rank, list(places), where) for rank in range(len(places))]

    assert sources("aabb", "shared") == [2, 3, 0, 1]
    assert sources("aaa", "shared") == [1, 2, 0]
    assert sources("abc", "shared") == [1, 2, 0]
    assert sources("aabb", "node-local") == [1, 0, 3, 2]
    assert sources("abb", "node-local") == [0, 2, 1]


def test_contents_differ_by_seed_step_and_rank() -> None:
    made = [
        io_shards.content(*place, 100).tobytes() for place in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))
    ]
    assert len(set(made)) == 4
    assert io_shards.content(1, 0, 0, 100).tobytes() == made[0]
    assert io_shards.content(1, 0, 0, 37).tobytes() == made[0][:37]


def test_direct_needs_whole_blocks() -> None:
    with pytest.raises(
        ValueError, match="block_bytes = 1000 is not a multiple of 4096, which cache: direct needs"
    ):
        io_shards.IoShards().setup(FakeContext(0, 1, {**PARAMS, "cache": "direct", "block_bytes": 1000}, 1))


def test_a_file_system_without_direct_access_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> int:
        raise OSError(22, "Invalid argument")

    workload = io_shards.IoShards()
    workload.context, workload.folder, workload.flags = FakeContext(0, 1, PARAMS, 1), tmp_path, os.O_DIRECT
    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(ValueError, match=r"takes no O_DIRECT \(Invalid argument\); choose cache: drop"):
        workload._try_direct()


def test_the_page_cache_holds_what_was_just_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * mmap.PAGESIZE + 1))
    assert page_cache.cached_bytes(path) == 3 * mmap.PAGESIZE + 1
    path.write_bytes(b"")
    assert page_cache.cached_bytes(path) == 0
