"""What the kinds checkpoint.* have in common: which checkpoints they damage, and how it is proved.

``which: newest`` (the default) is the newest committed one on shared storage, ``which: all`` are all of them.
Healing puts nothing back: a damaged checkpoint is the case's own, and nobody may ever use it. Standard library only.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

from harness.faults import FaultError, Hit, Tools, damage
from harness.runtime.checkpoint_files import CheckpointError

WHICH = ("newest", "all")
TRIES = 3  # a checkpoint may be removed, being old, in the moment in which it is chosen


class CheckpointDamage:
    """One kind of damage."""

    def __init__(self, do: damage.Damage) -> None:
        self._do = do
        self._done: list[damage.Evidence] = []

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Damage it."""
        which = hit.params.get("which", WHICH[0])
        if which not in WHICH:
            raise FaultError(f"{hit.kind}: which = {which!r}, allowed: {', '.join(WHICH)}")
        chance = Random(f"{hit.lease} {hit.params.get('seed', 0)}")
        self._done = await asyncio.to_thread(self._damage, Path(hit.checkpoints), which, chance)
        return {"damaged": self._done}

    def _damage(self, parent: Path, which: str, chance: Random) -> list[damage.Evidence]:
        for left in reversed(range(TRIES)):
            try:
                found = damage.committed(parent)
                if not found:
                    raise FaultError(
                        f"{parent}: there is no checkpoint to damage; let it strike after the first"
                    )
                # The newest first: a stale shard is then taken from one that is not damaged yet.
                chosen = found[:1] if which == "newest" else found
                if self._do is damage.stale_shard and len(found) > 1:
                    chosen = chosen[: len(found) - 1]  # nothing is older than the oldest
                return [self._do(parent / stamp.name, chance) for stamp in chosen]
            except (OSError, CheckpointError) as error:
                if not left:
                    raise FaultError(f"{parent}: {error}") from None
        raise AssertionError("not reached")

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Each file, read once more, is what the damage made of it; or its checkpoint was removed since, being old."""
        if not self._done:
            return None  # done by a supervisor that is gone, and with it what the files were before
        return await asyncio.to_thread(self._looked, Path(hit.checkpoints))

    def _looked(self, parent: Path) -> dict[str, Any] | None:
        found = []
        for one in self._done:
            folder = parent / str(one["checkpoint"])
            now = damage.facts(folder / str(one["file"]))
            removed = not folder.is_dir()
            if one["after"] == one["before"] or not (removed or now == one["after"]):
                return None
            found.append(
                {"checkpoint": one["checkpoint"], "file": one["file"], "now": now, "removed": removed}
            )
        return {"read_again": found}

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Nothing is put back: it is the case's own checkpoint, and is refused for ever."""
        return {"nothing_to_undo": True, "why": "a damaged checkpoint is refused, never repaired"}

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """By nature."""
        return {"nothing_to_undo": True}
