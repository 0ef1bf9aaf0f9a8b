"""Whether a committed checkpoint is what it says, as one rank sees it, and which of its files that rank looks at.

Reading costs as much as loading does, so the ranks of a node, which share what is cached of a file, share
the files that any of them will load. What nobody on the node loads, nobody on it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runtime.checkpoint_files import (
    MANIFEST,
    MEMORY,
    SHARED,
    CheckpointError,
    Stamp,
    is_sealed,
    read_manifest,
)
from harness.runtime.checkpoint_io import what_is_wrong

DCP = "dcp"


@dataclass(frozen=True)
class Place:
    """Who looks: this rank, and on which node each rank of its world is ("" where nobody knows)."""

    rank: int
    nodes: tuple[str, ...]

    @property
    def world(self) -> int:
        """Number of ranks."""
        return len(self.nodes)

    @property
    def node(self) -> str:
        """Of this rank."""
        return self.nodes[self.rank]

    @property
    def neighbours(self) -> list[int]:
        """Ranks on this rank's node, itself included, in order; itself alone where nobody knows."""
        return [r for r, node in enumerate(self.nodes) if node == self.node] if self.node else [self.rank]


def looked_through(
    folder: Path, level: str, stamp: Stamp, place: Place, reshaped: Callable[[int], Sequence[int]] | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """The manifest, and what is wrong with the checkpoint as far as this rank looks.

    Args:
        reshaped: which ranks' files this rank reads when a world of another size saved; None when the
            workload cannot be restored so.
    """
    try:
        manifest = read_manifest(folder)
        parts = _parts(manifest, level, stamp)
        if manifest["world"] == place.world:
            share = _share(manifest, level, place)
        else:
            share = _reshaped_share(manifest, level, place, reshaped)
        problems = []
        for owner, name in share:
            wrong = what_is_wrong(folder, stamp, owner, name, parts[owner]["files"][name])
            problems += [f"{name} of rank {owner}: {wrong}"] if wrong else []
        return manifest, problems
    except CheckpointError as error:
        return None, [str(error)]
    except (KeyError, TypeError, AttributeError) as error:
        return None, [f"{MANIFEST} lacks what it should hold ({type(error).__name__}: {error})"]


def _parts(manifest: dict[str, Any], level: str, stamp: Stamp) -> dict[int, dict[str, Any]]:
    """The entries of all ranks, when they belong to this checkpoint."""
    if Stamp.of(manifest) != stamp or manifest["level"] != level:
        raise CheckpointError(
            f"{MANIFEST} is stale: of {Stamp.of(manifest).words} ({manifest['level']}), and here should be "
            f"{stamp.words} ({level})"
        )
    parts = {int(part["rank"]): part for part in manifest["ranks"]}
    if sorted(parts) != list(range(manifest["world"])) or len(parts) != len(manifest["ranks"]):
        raise CheckpointError(f"{MANIFEST} has entries of ranks {sorted(parts)} of {manifest['world']}")
    for rank, part in sorted(parts.items()):
        if not is_sealed(part):
            raise CheckpointError(f"the entry of rank {rank} in {MANIFEST} is altered")
        if Stamp.of(part) != stamp:
            raise CheckpointError(
                f"the shard of rank {rank} is stale: of {Stamp.of(part).words}, not {stamp.words}"
            )
    return parts


def _loaded(manifest: dict[str, Any], level: str, rank: int) -> list[tuple[int, str]]:
    """(Rank, file): what a rank loads in a world of the size that saved."""
    parts = manifest["ranks"]
    if manifest["engine"] == DCP and level == SHARED:  # it spreads over all ranks what they hold alike
        return [(part["rank"], name) for part in parts for name in part["files"]]
    keeper = int(parts[rank]["keeper"])
    kept = [(keeper, name) for name, facts in parts[keeper]["files"].items() if facts["everyone"]]
    return [(rank, name) for name in parts[rank]["files"]] + (kept if keeper != rank else [])


def _share(manifest: dict[str, Any], level: str, place: Place) -> list[tuple[int, str]]:
    """(Rank, file): what this rank reads, so that its node reads all that is loaded there, once."""
    if level == MEMORY:
        for rank in sorted({place.rank, int(manifest["ranks"][place.rank]["keeper"])}):
            node = manifest["ranks"][rank]["node"]
            if node != place.node:
                raise CheckpointError(
                    f"the part of rank {rank} is in the memory of {node}, this is {place.node}"
                )
    here = place.neighbours
    loaded = sorted({one for mine in here for one in _loaded(manifest, level, mine)})
    own = [(rank, name) for rank, name in loaded if rank == place.rank]
    elsewhere = [(rank, name) for rank, name in loaded if rank not in here]
    return own + elsewhere[here.index(place.rank) :: len(here)]


def _reshaped_share(
    manifest: dict[str, Any], level: str, place: Place, reshaped: Callable[[int], Sequence[int]] | None
) -> list[tuple[int, str]]:
    sizes = f"saved by {manifest['world']} ranks, this world has {place.world}"
    if reshaped is None:
        raise CheckpointError(f"{sizes}, and this workload's state cannot be divided anew: restore as many")
    if level == MEMORY:
        raise CheckpointError(f"{sizes}, and parts of it are in the memory of other nodes")
    files = {rank: sorted(manifest["ranks"][rank]["files"]) for rank in reshaped(manifest["world"])}
    return [(rank, name) for rank, names in files.items() for name in names]
