"""Checkpoints that are committed whole or not at all, and verified on every rank before they are used.

A checkpoint is a fresh folder. Every rank writes its part there, hashed on the way; the digests of files and
of live states become a manifest; all is synced, and the folder is renamed: only a renamed folder exists. On
shared storage rank 0 does so; in node memory one rank of each node does, in its own node's, and such a
checkpoint counts only when every rank finds it and verifies its part.

Restore takes the newest of both levels that verifies on every rank, names whatever is bad, and goes back to the one
before. When there are checkpoints and none can be used it fails and changes nothing; a start from step 0 is
only for a case that never had one.

All methods are collective: every rank calls them, in the same order.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from harness.rundir import sync_folder
from harness.runtime.checkpoint_files import (
    ALGORITHM,
    LEVELS,
    MEMORY,
    NONE_USABLE,
    SCHEMA,
    SHARED,
    CheckpointError,
    NotCommitted,
    Stamp,
    committed,
    newest_fence,
    put_fence,
    sealed,
    write_manifest,
)
from harness.runtime.checkpoint_io import Reader, Writer
from harness.runtime.checkpoint_verify import Place, looked_through
from harness.workloads.api import Reshaping, Workload

__all__ = ["MEMORY", "SHARED", "CheckpointError", "Checkpoints", "NotCommitted", "Restored", "Saved"]


@dataclass(frozen=True)
class Saved:
    """What this rank saved. ``digest`` is that of its live state, ``bytes`` what it wrote."""

    step: int
    level: str
    digest: str
    bytes: int
    path: str
    times_s: Mapping[str, float] = field(default_factory=dict)  # digest, write (with sync), commit, total


@dataclass(frozen=True)
class Restored:
    """What this rank restored.

    ``digest`` is that of the restored state, ``committed_digest`` the manifest's: of this rank's state, or, where
    another number of ranks saved (``world``), of the state of all ranks together. They are equal.
    """

    step: int
    level: str
    digest: str
    committed_digest: str
    path: str
    world: int
    times_s: Mapping[str, float] = field(default_factory=dict)  # find, verify, load, digest, total


class _Watch:
    """Seconds of parts that follow each other."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self.times_s: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What was done since the last lap was ``name``; it may come again."""
        now = time.monotonic()
        self.times_s[name] = self.times_s.get(name, 0.0) + now - self._last
        self.times_s["total"] = now - self._begun
        self._last = now


class Checkpoints:
    """A case's checkpoints, as one rank of one attempt takes and restores them."""

    def __init__(
        self,
        workload: Workload,
        shared: Path,
        memory: Path | None,
        rank: int,
        world: int,
        restart: int,
        epoch: int,
        *,
        keep: int = 2,
        keep_memory: int = 2,
        engine: str = "own",
        node: str = "",
        known_step: int = 0,
        at: Callable[[str], None] = lambda moment: None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            shared: folder of the case's checkpoints on shared storage.
            memory: such a folder in the memory of this rank's node, the same for all attempts of the case; or None.
            keep: committed checkpoints to keep on shared storage; older ones are removed after a commit.
            keep_memory: the same in node memory.
            engine: how workloads write them, one of "own", "torch.save", "dcp".
            node: name of this rank's node; needed for ``memory``.
            known_step: a checkpoint that is known to have been committed on shared storage: to find none is then an
                error. 0: none is known.
            at: called at the moments "restore.begin", "checkpoint.begin", "checkpoint.written" (this rank's
                files are on disk, nothing is committed) and "checkpoint.committed".
        """
        self.refused: list[str] = []  # why, for each checkpoint that `restore` passed over
        self._workload, self._at, self._engine = workload, at, engine
        self._parents = {SHARED: shared} | ({MEMORY: memory} if memory is not None else {})
        self._keep = {SHARED: max(keep, 1), MEMORY: max(keep_memory, 1)}
        self._rank, self._world, self._node = rank, world, node
        self._restart, self._epoch, self._known_step = restart, epoch, known_step
        self._place: Place | None = None
        self._reshaping = cast(Reshaping, workload) if getattr(workload, "reshapes", False) else None
        if memory is not None and not node:
            raise ValueError(
                "checkpoints in node memory need the node's name: ranks of a node share a folder"
            )

    # --- saving -----------------------------------------------------------------------------------------

    def save(self, step: int, level: str = SHARED) -> Saved:
        """Take a checkpoint; ``step`` is the number of steps that are finished, so the step to continue with.

        Raises:
            NotCommitted: it could not be written or committed, on all ranks alike; those before it are intact.
        """
        self._at("checkpoint.begin")
        watch = _Watch()
        stamp = Stamp(step, self._restart, self._epoch)
        parent, keeper = self._parents[level], self._keeper(level)
        temporary = parent / f".{stamp.name}.tmp"
        self._agree(step, self._made(temporary) if keeper == self._rank else "", temporary)
        watch.lap("begin")
        state = self._workload.state_digest()
        watch.lap("digest")
        writer = Writer(temporary, stamp, self._rank, level, self._engine, keeper)
        problem = self._written(writer)
        watch.lap("write")
        self._at("checkpoint.written")
        watch.lap("begin")
        part: dict[str, Any] = {
            "rank": self._rank,
            "node": self._node,
            "keeper": keeper,
            "state_digest": state,
        }
        part |= {"step": step, "restart": self._restart, "epoch": self._epoch, "files": writer.files}
        body = self._manifest(stamp, level, part, problem, temporary)
        if keeper == self._rank:
            problem = self._committed(temporary, parent / stamp.name, body)
        self._agree(step, problem, parent / stamp.name)
        watch.lap("commit")
        if keeper == self._rank:
            self._prune(level)
        self._at("checkpoint.committed")
        return Saved(step, level, state, writer.bytes, _path(level, stamp), watch.times_s)

    def _keeper(self, level: str) -> int:
        """The rank that makes, commits and prunes this rank's folder of a level."""
        return 0 if level == SHARED else self._where().neighbours[0]

    def _where(self) -> Place:
        """On which node each rank is: asked once, when node memory or a restore needs it."""
        if self._place is None:
            self._place = Place(self._rank, tuple(self._together(self._node)))
        return self._place

    def _together(self, value: Any) -> list[Any]:
        """The values of all ranks, on every rank."""
        gathered: list[Any] = self._workload.broadcast(self._workload.gather(value))
        return gathered

    def _agree(self, step: int, problem: str, undo: Path) -> None:
        """Go on when no rank has a problem; else all ranks raise, and ``undo``, this start's own, is removed."""
        said = self._together(problem)
        problems = [f"rank {rank}: {why}" for rank, why in enumerate(said) if why]
        if problems:
            shutil.rmtree(undo, ignore_errors=True)
            raise NotCommitted(f"the checkpoint of step {step} was not committed: {'; '.join(problems)}")

    def _made(self, temporary: Path) -> str:
        """Make the fresh folder; return why that cannot be."""
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            return self._outrun(temporary.parent)
        except (OSError, CheckpointError) as error:
            return str(error)

    def _outrun(self, parent: Path) -> str:
        """Why this start may not commit any more: "" unless a later one has begun."""
        restart, epoch = newest_fence(parent)
        later = (restart, epoch) > (self._restart, self._epoch)
        return f"restart {restart}, epoch {epoch} has begun since" if later else ""

    def _written(self, writer: Writer) -> str:
        """Have this rank's part written; return what storage said against it."""
        try:
            self._workload.save(writer)
            writer.sync_folders()
        except Exception as error:
            if not writer.problem and not isinstance(error, OSError):
                raise
            return writer.problem or str(error)
        return writer.problem

    def _manifest(
        self, stamp: Stamp, level: str, part: dict[str, Any], problem: str, temporary: Path
    ) -> dict[str, Any]:
        """The manifest, on every rank that writes one; raises on all ranks when one has a problem."""
        parts = self._workload.gather({"problem": problem, "part": sealed(part)})
        said = [one["problem"] for one in parts] if parts is not None else []
        problems = self._workload.broadcast([f"rank {n}: {why}" for n, why in enumerate(said) if why])
        if problems:
            if part["keeper"] == self._rank:
                shutil.rmtree(temporary, ignore_errors=True)
            why = "; ".join(problems)
            raise NotCommitted(f"the checkpoint of step {stamp.step} was not committed: {why}")
        whole = self._reshaping.whole_digest() if self._reshaping is not None else ""
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "algorithm": ALGORITHM,
            "level": level,
            "engine": self._engine,
            "step": stamp.step,
            "restart": stamp.restart,
            "epoch": stamp.epoch,
            "world": self._world,
            "whole_digest": whole,
            "ranks": [one["part"] for one in parts] if parts is not None else [],
        }
        return dict(self._workload.broadcast(body)) if level == MEMORY else body

    def _committed(self, temporary: Path, final: Path, body: Mapping[str, Any]) -> str:
        """Write the manifest, sync, rename; return why that could not be."""
        try:
            write_manifest(temporary, body)
            why = self._outrun(final.parent)
            if not why:
                temporary.replace(final)
                sync_folder(final.parent)
        except (OSError, CheckpointError) as error:
            why = str(error)
        if why:
            shutil.rmtree(temporary, ignore_errors=True)
        return why

    def _prune(self, level: str) -> None:
        """Remove what is older than what is to be kept, and what earlier starts left unfinished."""
        parent = self._parents[level]
        with contextlib.suppress(OSError, CheckpointError):
            for stamp in committed(parent)[self._keep[level] :]:
                shutil.rmtree(parent / stamp.name, ignore_errors=True)
            for path in parent.glob(".step-*.tmp"):
                stamp_of = Stamp.of_name(path.name[1:-4])
                if stamp_of and (stamp_of.restart, stamp_of.epoch) < (self._restart, self._epoch):
                    shutil.rmtree(path, ignore_errors=True)

    # --- restoring --------------------------------------------------------------------------------------

    def restore(self) -> Restored | None:
        """Load the newest checkpoint that verifies on every rank; None when there is none at all.

        Why others were passed over is in ``refused``.

        Raises:
            CheckpointError: there are checkpoints and none can be used, or storage cannot be looked into. Nothing is
                overwritten or removed.
        """
        self._at("restore.begin")
        watch = _Watch()
        self.refused = []
        damaged = False
        found = self._found()
        watch.lap("find")
        for stamp, level, without in found:
            if without:
                self.refused.append(f"{_path(level, stamp)} ({level}): missing; {_seen_by(without)}")
                continue
            manifest, problems = self._verified(stamp, level)
            watch.lap("verify")
            if manifest is None or problems:
                self.refused += problems
                damaged = True
                continue
            restored, problem = self._loaded(stamp, level, manifest, watch)
            if restored is None:
                self.refused.append(problem)
                damaged = True
                continue
            return restored
        if damaged:
            raise CheckpointError(f"{NONE_USABLE}: {'; '.join(self.refused)}")
        if self._known_step > 0:
            raise CheckpointError(
                f"the checkpoint of step {self._known_step} was committed, and none is in {self._parents[SHARED]}"
            )
        return None

    def _found(self) -> list[tuple[Stamp, str, list[int]]]:
        """Each checkpoint and its level, newest first, with the ranks that do not have it; late ones are left out."""
        own: dict[str, Any] = {"problem": "", SHARED: [], MEMORY: []}
        self._where()
        for level, parent in self._parents.items():
            try:
                if level == MEMORY:
                    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._keeper(level) == self._rank:
                    put_fence(parent, self._restart, self._epoch)
                if level == MEMORY or self._rank == 0:
                    own[level] = [stamp.name for stamp in committed(parent)]
            except (OSError, CheckpointError) as error:
                own["problem"] = f"rank {self._rank}: {error}"
        everyone = self._together(own)
        if problems := [has["problem"] for has in everyone if has["problem"]]:
            raise CheckpointError("checkpoints cannot be looked for: " + "; ".join(problems))
        listed: list[tuple[str, str, list[int]]] = [(name, SHARED, []) for name in everyone[0][SHARED]] + [
            (name, MEMORY, [rank for rank, has in enumerate(everyone) if name not in has[MEMORY]])
            for name in sorted({name for has in everyone for name in has[MEMORY]})
        ]
        stamps = [
            (stamp, level, without) for name, level, without in listed if (stamp := Stamp.of_name(name))
        ]
        return sorted(stamps, key=lambda one: (one[0], -LEVELS.index(one[1])), reverse=True)

    def _verified(self, stamp: Stamp, level: str) -> tuple[dict[str, Any] | None, list[str]]:
        """The manifest, and what any rank finds wrong; the same problems on every rank."""
        sources = self._reshaping.sources if self._reshaping is not None else None
        folder = self._parents[level] / stamp.name
        manifest, problems = looked_through(folder, level, stamp, self._where(), sources)
        seal = manifest["sha256"] if manifest is not None else ""
        said = self._together({"problems": problems, "seal": seal})
        where = f"{_path(level, stamp)} ({level})"
        seen: dict[str, list[int]] = {}
        for rank, one in enumerate(said):
            for why in one["problems"]:
                seen.setdefault(why, []).append(rank)
        found = [f"{where}: {why}; {_seen_by(ranks)}" for why, ranks in seen.items()]
        if not found and len({one["seal"] for one in said}) != 1:
            found = [f"{where}: the manifests of nodes differ"]
        return manifest, found

    def _loaded(
        self, stamp: Stamp, level: str, manifest: dict[str, Any], watch: _Watch
    ) -> tuple[Restored | None, str]:
        """What was restored; or None, and why the state that was loaded is not the one that was committed."""
        folder = self._parents[level] / stamp.name
        self._workload.restore(Reader(folder, level, manifest["engine"], manifest["world"]))
        watch.lap("load")
        if manifest["world"] == self._world:
            state, expected = self._workload.state_digest(), manifest["ranks"][self._rank]["state_digest"]
        else:
            assert self._reshaping is not None  # or it would not have verified
            state, expected = self._reshaping.whole_digest(), manifest["whole_digest"]
        problem = (
            "" if state == expected else f"rank {self._rank} has digest {state}, {expected} was committed"
        )
        problems = [why for why in self._together(problem) if why]
        watch.lap("digest")
        if problems:
            return None, f"{_path(level, stamp)} ({level}): restored, but {'; '.join(problems)}"
        path = _path(level, stamp)
        return Restored(stamp.step, level, state, expected, path, manifest["world"], watch.times_s), ""


def _path(level: str, stamp: Stamp) -> str:
    """How a checkpoint is called on record: its folder below the case's, or one of that name in node memory."""
    return stamp.name if level == SHARED else f"{MEMORY}/{stamp.name}"


def _seen_by(ranks: Sequence[int]) -> str:
    """Who found something: a few ranks by number, of many the first and how many."""
    if len(ranks) > 4:
        return f"seen by rank {ranks[0]} and {len(ranks) - 1} more"
    return f"seen by rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
