"""Damage to checkpoints: the same seed does the same, the evidence is what is on storage, and nothing else changes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("xxhash")

from harness import faults
from harness.faults import FaultError, Hit, damage
from harness.runtime.checkpoint import Checkpoints
from tests.unit.checkpoint_world import Rank, together

ROOT = Path(__file__).parents[2]
NEWEST = "step-00000010.0.0"


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Checkpoints of two ranks, after 5 and 10 steps."""

    def do(rank: Rank, checkpoints: Checkpoints) -> None:
        for step in (5, 10):
            rank.state = Random(f"{rank.rank} {step}").randbytes(10_000)
            checkpoints.save(step)

    assert together(2, do, tmp_path / "c") == [None, None]
    return tmp_path / "c"


def hit(parent: Path, kind: str = "checkpoint.flip_bit", **params: Any) -> Hit:
    return Hit(kind, params=params, checkpoints=str(parent), lease="case-f1")


def do(kind: str, parent: Path, **params: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Evidence of injecting, and of looking whether it landed."""
    fault = faults.create(kind)
    target = hit(parent, kind, **params)

    async def both() -> tuple[dict[str, Any], dict[str, Any] | None]:
        none: Any = None  # they need no tools
        return await fault.inject(none, target), await fault.verify_effect(none, target)

    return asyncio.run(both())


@pytest.mark.parametrize("kind", damage.KINDS)
def test_each_kind_changes_the_file_that_it_names_and_only_that(kind: str, parent: Path) -> None:
    before = {p: p.read_bytes() for p in parent.rglob("*") if p.is_file()}
    evidence = damage.KINDS[kind](parent / NEWEST, Random(3))
    after = {p: p.read_bytes() for p in parent.rglob("*") if p.is_file()}
    changed = {p.name for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    if kind == "stale_shard":  # its entry is changed with it
        assert changed - {"shared.bin"} == {"manifest.json", evidence["file"]}
    else:
        assert changed == {evidence["file"]}
    assert evidence["checkpoint"] == NEWEST
    assert evidence["before"] != evidence["after"] == damage.facts(parent / NEWEST / evidence["file"])


def test_a_bit_is_flipped_where_the_evidence_says(parent: Path) -> None:
    folder = parent / NEWEST
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    said = damage.flip_bit(folder, Random(5))
    after = (folder / said["file"]).read_bytes()
    expected = bytearray(before[said["file"]])
    expected[said["offset"]] ^= 1 << said["bit"]
    assert after == bytes(expected)


def test_the_same_seed_does_the_same_damage(parent: Path, tmp_path: Path) -> None:
    import shutil

    again = tmp_path / "again"
    shutil.copytree(parent, again)
    assert do("checkpoint.zero_block", parent, seed=1) == do("checkpoint.zero_block", again, seed=1)


@pytest.mark.parametrize("kind", damage.KINDS)
def test_a_fault_does_it_to_the_newest_and_proves_it_by_reading_again(kind: str, parent: Path) -> None:
    injected, seen = do(f"checkpoint.{kind}", parent)
    (one,) = injected["damaged"]
    looked = {"checkpoint": NEWEST, "file": one["file"], "now": one["after"], "removed": False}
    assert seen == {"read_again": [looked]}
    json.dumps([injected, seen])


def test_damage_that_somebody_undid_is_not_proved(parent: Path) -> None:
    fault = faults.create("checkpoint.truncate")
    none: Any = None
    target = hit(parent)
    injected = asyncio.run(fault.inject(none, target))
    (one,) = injected["damaged"]
    (parent / NEWEST / one["file"]).write_bytes(b"other")
    assert asyncio.run(fault.verify_effect(none, target)) is None


def test_all_are_damaged_where_all_are_asked_for(parent: Path) -> None:
    injected, seen = do("checkpoint.flip_bit", parent, which="all")
    assert [one["checkpoint"] for one in injected["damaged"]] == [NEWEST, "step-00000005.0.0"]
    assert seen is not None


@pytest.mark.parametrize(
    ("params", "folder", "why"),
    [
        ({"which": "oldest"}, "c", "which = 'oldest', allowed: newest, all"),
        ({}, "none", "there is no checkpoint to damage; let it strike after the first"),
    ],
)
def test_what_cannot_be_damaged_is_said(params: dict[str, Any], folder: str, why: str, parent: Path) -> None:
    with pytest.raises(FaultError, match=why):
        do("checkpoint.flip_bit", parent.with_name(folder), **params)


def test_a_stale_shard_needs_a_checkpoint_before(parent: Path) -> None:
    with pytest.raises(
        FaultError, match="is the only checkpoint: there is none before, to take a shard from"
    ):
        damage.stale_shard(parent / "step-00000005.0.0", Random(1))


def test_healing_leaves_it_damaged_and_says_so(parent: Path) -> None:
    fault = faults.create("checkpoint.flip_bit")
    none: Any = None
    assert asyncio.run(fault.heal(none, hit(parent)))["nothing_to_undo"] is True
    assert asyncio.run(fault.verify_healed(none, hit(parent))) == {"nothing_to_undo": True}


def test_who_damages_and_who_supervises_needs_no_xxhash() -> None:
    kinds = ", ".join(f"harness.faults.checkpoint_{kind}" for kind in damage.KINDS)
    code = (
        f"import sys, harness.runtime.supervisor, harness.runtime.agent, harness.runtime.rank, {kinds}\n"
        "print([n for n in ('xxhash', 'numpy', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
