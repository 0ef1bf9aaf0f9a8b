"""Checkpoints: committed whole or not at all; what is damaged is refused by name, and an older one is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("xxhash")

from harness.faults import damage
from harness.runtime import checkpoint_files as files
from harness.runtime import checkpoint_verify, digest
from harness.runtime.checkpoint import (
    MEMORY,
    SHARED,
    CheckpointError,
    Checkpoints,
    NotCommitted,
    Restored,
    Saved,
)
from harness.runtime.checkpoint_verify import Place
from tests.unit.checkpoint_world import Rank, together


def state(rank: int, step: int) -> bytes:
    return f"rank {rank} after {step} steps ".encode() * 20


def save(parent: Path, *steps: int, size: int = 2, level: str = SHARED, **options: Any) -> list[Any]:
    """Save after each of the steps; what the last one gave, by rank."""

    def do(rank: Rank, checkpoints: Checkpoints) -> Saved:
        for step in steps:
            rank.state = state(rank.rank, step)
            saved = checkpoints.save(step, level)
        return saved

    return together(size, do, parent, **options)


def restore(parent: Path, *, size: int = 2, **options: Any) -> list[Any]:
    """(What was restored, the state it gave, why others were refused) by rank, or the error."""

    def do(rank: Rank, checkpoints: Checkpoints) -> tuple[Restored | None, bytes, list[str]]:
        restored = checkpoints.restore()
        return restored, rank.state, checkpoints.refused

    return together(size, do, parent, **options)


def contents(parent: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in parent.rglob("*") if p.is_file() and not p.name.startswith(".fence")}


def steps_in(parent: Path) -> list[str]:
    return sorted(p.name for p in parent.iterdir() if not p.name.startswith(".fence"))


# --- one level ----------------------------------------------------------------------------------------------


def test_the_newest_checkpoint_is_restored_with_its_digest(tmp_path: Path) -> None:
    saved = save(tmp_path / "c", 5, 10)
    path = "step-00000010.0.0"
    for rank in (0, 1):
        said = digest.of([state(rank, 10), b"alike"])
        size = len(state(rank, 10)) + (5 if rank == 0 else 0)
        assert saved[rank] == Saved(10, SHARED, said, size, path, saved[rank].times_s)
        assert set(saved[rank].times_s) == {"begin", "digest", "write", "commit", "total"}
        restored, found, refused = restore(tmp_path / "c")[rank]
        assert (found, refused) == (state(rank, 10), [])
        assert restored == Restored(10, SHARED, said, said, path, 2, restored.times_s)
        assert set(restored.times_s) == {"find", "verify", "load", "digest", "total"}


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert restore(tmp_path / "c") == [(None, b"", [])] * 2


def test_storage_that_is_away_is_not_taken_for_no_checkpoint(tmp_path: Path) -> None:
    for error in restore(tmp_path / "away" / "c"):
        assert isinstance(error, CheckpointError)
        assert str(error) == (
            f"checkpoints cannot be looked for: rank 0: {tmp_path / 'away'} is not there: is its storage away?"
        )


def test_a_known_checkpoint_that_is_gone_is_an_error_and_no_start_from_step_0(tmp_path: Path) -> None:
    for error in restore(tmp_path / "c", known_step=5):
        assert isinstance(error, CheckpointError)
        assert str(error) == f"the checkpoint of step 5 was committed, and none is in {tmp_path / 'c'}"


def test_old_ones_are_removed_after_the_commit(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 15, keep=2)
    assert steps_in(tmp_path) == ["step-00000010.0.0", "step-00000015.0.0"]


def test_the_moments_come_in_order_and_mean_what_they_say(tmp_path: Path) -> None:
    seen: list[tuple[str, list[str]]] = []

    def at(moment: str) -> None:
        seen.append(
            (moment, sorted(p.name for p in tmp_path.rglob("*.*") if p.is_file() and p.suffix == ".bin"))
        )

    save(tmp_path, 5, size=1, at=at)
    restore(tmp_path, size=1, at=at)
    there = ["rank-0.bin", "shared.bin"]
    assert seen == [
        ("checkpoint.begin", []),
        ("checkpoint.written", there),
        ("checkpoint.committed", there),
        ("restore.begin", there),
    ]


def test_one_that_was_never_committed_is_not_seen_and_removed_by_a_later_start(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    (tmp_path / "step-00000010.0.0").rename(tmp_path / ".step-00000010.0.0.tmp")
    assert [one[0].step for one in restore(tmp_path)] == [5, 5]
    save(tmp_path, 10, start=(1, 0))
    assert steps_in(tmp_path) == ["step-00000005.0.0", "step-00000010.1.0"]


def test_a_rank_that_cannot_write_lets_no_checkpoint_be_committed_on_any(tmp_path: Path) -> None:
    class Full(Rank):
        def save(self, writer: Any) -> None:
            if self.rank == 1:
                raise OSError(28, "No space left on device", "rank-1.bin")
            super().save(writer)

    save(tmp_path, 5)
    for error in save(tmp_path, 10, kind=Full):
        assert isinstance(error, NotCommitted)
        assert str(error) == (
            "the checkpoint of step 10 was not committed: rank 1: [Errno 28] No space left on device: 'rank-1.bin'"
        )
    assert steps_in(tmp_path) == ["step-00000005.0.0"]
    assert [one[0].step for one in restore(tmp_path)] == [5, 5]


# --- damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: (f / "rank-1.bin").write_bytes(state(1, 11)), "rank-1.bin of rank 1: wrong digest: "),
        (lambda f: (f / "rank-1.bin").write_bytes(b"1"), "rank-1.bin of rank 1: wrong length: 1 bytes, 440 were"),
        (lambda f: (f / "rank-1.bin").unlink(), "rank-1.bin of rank 1: missing"),
        (lambda f: (f / "shared.bin").unlink(), "shared.bin of rank 0: missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is torn: "),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json is torn or altered"),
        (
            lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text().replace("10", "11", 1)),
            "manifest.json is torn or altered: its own digest does not fit",
        ),
        (
            lambda f: (f / "manifest.json").write_bytes((f.parent / "step-00000005.0.0/manifest.json").read_bytes()),
            "manifest.json is stale: of step 5, restart 0, epoch 0 (shared), and here should be step 10, ",
        ),
        (
            lambda f: files.write_manifest(f, {"schema": 9, "algorithm": "crc32"}),
            "manifest.json has schema 9 with crc32; this version reads schema 1 with xxh3_128: ",
        ),
        (lambda f: files.write_manifest(f, {"schema": 1, "algorithm": "xxh3_128"}), "manifest.json lacks what it "),
        (
            lambda f: damage.stale_shard(f, Random(1)),
            " is stale: of step 5, restart 0, epoch 0, not step 10, restart 0, epoch 0",
        ),
    ],
)  # fmt: skip
def test_a_damaged_one_is_refused_by_name_and_the_one_before_is_used(
    tmp_path: Path, change: Callable[[Path], Any], why: str
) -> None:
    save(tmp_path, 5, 10)
    change(tmp_path / "step-00000010.0.0")
    found = restore(tmp_path)
    assert [(one[0].step, one[1]) for one in found] == [(5, state(0, 5)), (5, state(1, 5))]
    assert found[0][2] == found[1][2]  # every rank knows what was wrong on any
    assert all(one.startswith("step-00000010.0.0 (shared): ") for one in found[0][2])
    assert any(why in one for one in found[0][2])


def test_a_stale_file_is_found_even_where_its_entry_was_made_to_look_new(tmp_path: Path) -> None:
    """Step, restart, epoch, rank and name are in the file's digest, not only beside it."""
    save(tmp_path, 5, 10)
    old, new = tmp_path / "step-00000005.0.0", tmp_path / "step-00000010.0.0"
    manifest, before = files.read_manifest(new), files.read_manifest(old)
    (new / "rank-1.bin").write_bytes((old / "rank-1.bin").read_bytes())
    entry = {k: v for k, v in {**before["ranks"][1], "step": 10}.items() if k != "sha256"}
    body = {k: v for k, v in manifest.items() if k != "sha256"}
    files.write_manifest(new, {**body, "ranks": [manifest["ranks"][0], files.sealed(entry)]})
    restored, _, (why,) = restore(tmp_path)[1]
    assert (restored.step, why.split(": ")[2]) == (5, "wrong digest")


def test_an_entry_that_was_altered_is_named_even_where_the_manifests_digest_fits(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    folder = tmp_path / "step-00000010.0.0"
    body = {k: v for k, v in files.read_manifest(folder).items() if k != "sha256"}
    body["ranks"][1]["state_digest"] = "0" * 32
    files.write_manifest(folder, body)
    restored, _, refused = restore(tmp_path)[0]
    assert restored.step == 5
    why = "step-00000010.0.0 (shared): the entry of rank 1 in manifest.json is altered; seen by ranks 0, 1"
    assert refused == [why]


@pytest.mark.parametrize("nodes", [(), ("a", "a", "b", "b"), ("a", "b", "b", "b")])
def test_every_node_reads_all_that_its_ranks_load_and_only_that_once(
    tmp_path: Path, nodes: tuple[str, ...]
) -> None:
    save(tmp_path, 5, size=4, nodes=nodes)
    manifest = files.read_manifest(tmp_path / "step-00000005.0.0")
    read: dict[str, list[str]] = {}
    for rank in range(4):
        place = Place(rank, nodes or ("",) * 4)
        for _, name in checkpoint_verify._share(manifest, SHARED, place):
            read.setdefault(place.node or str(rank), []).append(name)
    loaded: dict[str, set[str]] = {}
    for rank in range(4):
        loaded.setdefault(nodes[rank] if nodes else str(rank), set()).update({f"rank-{rank}.bin"})
    assert {node: sorted(names) for node, names in read.items()} == {
        node: sorted(names | {"shared.bin"}) for node, names in loaded.items()
    }


def test_when_all_are_damaged_the_reason_names_each_and_nothing_is_overwritten(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    for folder in tmp_path.iterdir():
        damage.flip_bit(folder, Random(1))
    before = contents(tmp_path)
    for error in restore(tmp_path, start=(1, 0)):
        assert isinstance(error, CheckpointError)
        assert str(error).startswith("no checkpoint can be used: step-00000010.0.0 (shared): ")
        assert "step-00000010.0.0" in str(error) and "step-00000005.0.0" in str(error)
    assert contents(tmp_path) == before


def test_a_state_that_is_not_the_committed_one_is_refused_on_every_rank(tmp_path: Path) -> None:
    class Forgets(Rank):
        def restore(self, reader: Any) -> None:
            super().restore(reader)
            self.state += b"!" if self.rank == 1 else b""

    save(tmp_path, 5)
    for error in restore(tmp_path, kind=Forgets):
        assert isinstance(error, CheckpointError)
        assert str(error).startswith(
            "no checkpoint can be used: step-00000005.0.0 (shared): restored, but rank 1 has digest "
        )


def test_after_a_state_that_is_not_the_committed_one_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    class ForgetsOnce(Rank):
        restored = 0

        def restore(self, reader: Any) -> None:
            super().restore(reader)
            self.restored += 1
            self.state += b"!" if self.rank == 1 and self.restored == 1 else b""

    save(tmp_path, 5)
    save(tmp_path, 10)
    assert [found[0].step for found in restore(tmp_path, kind=ForgetsOnce)] == [5, 5]


def test_another_number_of_ranks_is_refused_in_words(tmp_path: Path) -> None:
    save(tmp_path, 5, size=3)
    for error in restore(tmp_path):
        assert "saved by 3 ranks, this world has 2, and this workload's state cannot be divided anew" in str(
            error
        )


# --- starts that overlap ------------------------------------------------------------------------------------


def test_what_an_earlier_start_would_commit_after_a_later_has_begun_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5)
    restore(tmp_path, start=(1, 0))
    for error in save(tmp_path, 10, start=(0, 3)):
        assert isinstance(error, NotCommitted)
        assert str(error) == (
            "the checkpoint of step 10 was not committed: rank 0: restart 1, epoch 0 has begun since"
        )
    assert steps_in(tmp_path) == ["step-00000005.0.0"]


def test_what_slipped_through_late_is_never_used(tmp_path: Path) -> None:
    save(tmp_path, 5)
    restore(tmp_path, start=(1, 0))
    (fence,) = tmp_path.glob(".fence-*")
    aside = fence.rename(tmp_path / "aside")
    save(tmp_path, 10, start=(0, 1))  # as if it had looked just before
    aside.rename(fence)
    assert [s.name for s in files.committed(tmp_path)] == ["step-00000005.0.0"]
    assert [one[0].step for one in restore(tmp_path, start=(1, 1))] == [5, 5]


def test_of_the_same_step_the_later_start_comes_first(tmp_path: Path) -> None:
    for start in ((0, 0), (0, 1), (1, 0)):
        save(tmp_path, 10, start=start)
    names = [stamp.name for stamp in files.committed(tmp_path)]
    assert names == ["step-00000010.1.0", "step-00000010.0.1", "step-00000010.0.0"][:2]


# --- node memory --------------------------------------------------------------------------------------------

NODES = ("a", "a", "b", "b")


@pytest.fixture
def two_levels(tmp_path: Path) -> dict[str, Any]:
    """Four ranks on two nodes: shared after 5 steps, memory after 10 and 12."""
    options = {"size": 4, "nodes": NODES, "memory": lambda node: tmp_path / "memory" / node / "c"}
    restore(tmp_path / "c", **options)  # as each attempt begins
    save(tmp_path / "c", 5, **options)
    save(tmp_path / "c", 10, 12, level=MEMORY, **options)
    return options


def newest(tmp_path: Path, options: dict[str, Any]) -> tuple[set[Any], list[str]]:
    """{(step, level, path)}, {rank: state is that rank's}, and what was refused."""
    found = restore(tmp_path / "c", **options)
    assert [one[1] for one in found] == [state(rank, one[0].step) for rank, one in enumerate(found)]
    return {(one[0].step, one[0].level, one[0].path) for one in found}, found[0][2]


def test_each_node_holds_its_ranks_parts_in_its_memory(tmp_path: Path, two_levels: dict[str, Any]) -> None:
    there = {
        n: sorted(p.name for p in (tmp_path / f"memory/{n}/c/step-00000012.0.0").iterdir()) for n in "ab"
    }
    assert there == {
        "a": ["manifest.json", "rank-0.bin", "rank-1.bin", "shared.bin"],
        "b": ["manifest.json", "rank-2.bin", "rank-3.bin", "shared.bin"],
    }
    assert newest(tmp_path, two_levels) == ({(12, MEMORY, "memory/step-00000012.0.0")}, [])


def test_a_lost_node_loses_its_memory_and_the_shared_one_is_used(
    tmp_path: Path, two_levels: dict[str, Any]
) -> None:
    two_levels["nodes"] = ("a", "a", "spare", "spare")
    assert newest(tmp_path, two_levels) == (
        {(5, SHARED, "step-00000005.0.0")},
        [
            "memory/step-00000012.0.0 (memory): missing; seen by ranks 2, 3",
            "memory/step-00000010.0.0 (memory): missing; seen by ranks 2, 3",
        ],
    )


def test_a_node_lost_before_anything_was_shared_means_a_start_from_step_0_and_says_so(tmp_path: Path) -> None:
    options: dict[str, Any] = {"size": 2, "nodes": ("a", "b"), "memory": lambda node: tmp_path / node / "c"}
    restore(tmp_path / "c", **options)
    save(tmp_path / "c", 5, level=MEMORY, **options)
    found = restore(tmp_path / "c", **{**options, "nodes": ("a", "spare")})
    assert [(one[0], one[2]) for one in found] == [
        (None, ["memory/step-00000005.0.0 (memory): missing; seen by rank 1"])
    ] * 2


def test_damage_in_one_nodes_memory_is_found_by_its_rank_and_the_one_before_is_used(
    tmp_path: Path, two_levels: dict[str, Any]
) -> None:
    (tmp_path / "memory/b/c/step-00000012.0.0/rank-3.bin").unlink()
    assert newest(tmp_path, two_levels) == (
        {(10, MEMORY, "memory/step-00000010.0.0")},
        ["memory/step-00000012.0.0 (memory): rank-3.bin of rank 3: missing; seen by rank 3"],
    )


def test_ranks_that_changed_places_do_not_find_their_parts(
    tmp_path: Path, two_levels: dict[str, Any]
) -> None:
    two_levels["nodes"] = ("b", "b", "a", "a")
    found, refused = newest(tmp_path, two_levels)
    assert found == {(5, SHARED, "step-00000005.0.0")}
    assert (
        "memory/step-00000012.0.0 (memory): the part of rank 0 is in the memory of a, this is b; seen by ranks 0, 1"
        in refused
    )


def test_a_shared_one_that_is_newer_goes_before_one_in_memory(
    tmp_path: Path, two_levels: dict[str, Any]
) -> None:
    save(tmp_path / "c", 12, 15, **two_levels)
    assert newest(tmp_path, two_levels)[0] == {(15, SHARED, "step-00000015.0.0")}
    damage.torn_manifest(tmp_path / "c/step-00000015.0.0", Random(1))
    assert newest(tmp_path, two_levels)[0] == {(12, MEMORY, "memory/step-00000012.0.0")}


def test_memory_keeps_as_many_as_it_may(tmp_path: Path, two_levels: dict[str, Any]) -> None:
    save(tmp_path / "c", 14, 16, level=MEMORY, keep_memory=1, **two_levels)
    assert [steps_in(tmp_path / f"memory/{node}/c") for node in "ab"] == [["step-00000016.0.0"]] * 2
    assert steps_in(tmp_path / "c") == ["step-00000005.0.0"]


def test_manifests_that_differ_between_nodes_are_refused(tmp_path: Path, two_levels: dict[str, Any]) -> None:
    folder = tmp_path / "memory/b/c/step-00000012.0.0"
    body = json.loads((folder / "manifest.json").read_text())
    files.write_manifest(
        folder, {k: v for k, v in {**body, "whole_digest": "other"}.items() if k != "sha256"}
    )
    found, refused = newest(tmp_path, two_levels)
    assert found == {(10, MEMORY, "memory/step-00000010.0.0")}
    assert refused == ["memory/step-00000012.0.0 (memory): the manifests of nodes differ"]
