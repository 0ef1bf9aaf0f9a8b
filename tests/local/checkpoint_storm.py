"""Damages copies of a real checkpoint in every way, many times each, and restores after each: one rank of it.

    python checkpoint_storm.py SPEC     (in each process of a torch world, or under mpiexec)

SPEC is JSON: workload, params, engine, world, repeats, folder. Rank 0 writes ``folder``/report.json: for each kind
how often it was done, how often it was caught and the one before restored with its digest, and what was silent.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/unit")]
from workload_driver import FakeContext  # noqa: E402

from harness.faults import FaultError, damage  # noqa: E402
from harness.runtime.checkpoint import SHARED, CheckpointError, Checkpoints  # noqa: E402
from harness.runtime.checkpoint_files import Stamp  # noqa: E402
from harness.runtime.checkpoint_verify import Place, looked_through  # noqa: E402
from harness.workloads import REGISTRY, create  # noqa: E402

BEFORE, NEWEST, STEPS = 2, 4, 6
RESTORE_EVERY = 10  # the others are looked through only, by every rank, as a restore does before it loads
GO_ON_EVERY = 50  # repeats after which the run goes on to its end, and must come to the same state


class Storm:
    """The storm, as one rank does it."""

    def __init__(self, spec: dict[str, Any], rank: int) -> None:
        self.spec, self.rank, self.world = spec, rank, int(spec["world"])
        self.good, self.copy = Path(spec["folder"], "good"), Path(spec["folder"], "copy")
        self.workload = create(spec["workload"])
        self.workload.setup(
            FakeContext(rank, self.world, {**REGISTRY[spec["workload"]].defaults, **spec["params"]}, STEPS)
        )

    def checkpoints(self, parent: Path, restart: int) -> Checkpoints:
        return Checkpoints(
            self.workload,
            parent,
            None,
            self.rank,
            self.world,
            restart,
            0,
            engine=self.spec["engine"],
            node="here",
        )

    def run(self) -> dict[str, Any]:
        """All of it."""
        self.digests = {}
        taken = self.checkpoints(self.good, 0)
        for step in range(STEPS):
            self.workload.step(step)
            self.digests[step + 1] = self.workload.state_digest()
            if step + 1 in (BEFORE, NEWEST):
                taken.save(step + 1)
        return {kind: self.of_kind(kind) for kind in damage.KINDS}

    def of_kind(self, kind: str) -> dict[str, Any]:
        """Damage of one kind, again and again."""
        done = caught = 0
        silent: list[Any] = []
        for n in range(int(self.spec["repeats"])):
            evidence = self.damaged(kind, Random(f"{kind} {n}"), newest_only=True)
            done += evidence["before"] != evidence["after"]
            right = self.restored(n) if n % RESTORE_EVERY == 0 else self.seen()
            if all(self.together(right)):
                caught += 1
            else:
                silent.append(evidence)
        return {"done": done, "caught": caught, "silent": silent, "all": self.all_damaged(kind)}

    def restored(self, n: int) -> bool:
        """Whether a restore names the newest, takes the one before, and goes on as if nothing had been."""
        checkpoints = self.checkpoints(self.copy, 1)
        restored = checkpoints.restore()
        right = restored is not None and (restored.step, restored.digest) == (BEFORE, self.digests[BEFORE])
        if n % GO_ON_EVERY == 0:
            for step in range(BEFORE, STEPS):
                self.workload.step(step)
            right = right and self.workload.state_digest() == self.digests[STEPS]
        return right and any(f"step-{NEWEST:08d}.0.0 (shared): " in why for why in checkpoints.refused)

    def seen(self) -> bool:
        """Whether any rank finds the newest bad, and all find the one before good."""
        place = Place(self.rank, ("here",) * self.world)
        found = {
            step: any(self.together(looked_through(self.copy / stamp.name, SHARED, stamp, place, None)[1]))
            for step in (BEFORE, NEWEST)
            for stamp in (Stamp(step, 0, 0),)
        }
        return found == {BEFORE: False, NEWEST: True}

    def all_damaged(self, kind: str) -> str:
        """What restoring says when every checkpoint is damaged; nothing may have been changed."""
        self.damaged(kind, Random(kind), newest_only=False)
        before = self.contents()
        try:
            self.checkpoints(self.copy, 1).restore()
        except CheckpointError as error:
            return str(error)[:25] if before == self.contents() else "it was changed"
        return "it was restored"

    def contents(self) -> dict[str, bytes]:
        files = [p for p in self.copy.rglob("*") if p.is_file() and not p.name.startswith(".fence")]
        return {str(p): p.read_bytes() for p in files}

    def damaged(self, kind: str, chance: Random, *, newest_only: bool) -> dict[str, Any]:
        """A fresh copy, damaged by rank 0; the evidence of the newest, on every rank."""
        evidence: dict[str, Any] = {}
        if self.rank == 0:
            shutil.rmtree(self.copy, ignore_errors=True)
            shutil.copytree(self.good, self.copy)
            evidence = damage.KINDS[kind](self.copy / f"step-{NEWEST:08d}.0.0", chance)
            if not newest_only:
                try:
                    damage.KINDS[kind](self.copy / f"step-{BEFORE:08d}.0.0", chance)
                except FaultError:  # nothing is older than the oldest
                    damage.flip_bit(self.copy / f"step-{BEFORE:08d}.0.0", chance)
        return dict(self.workload.broadcast(evidence))

    def together(self, value: Any) -> list[Any]:
        return list(self.workload.broadcast(self.workload.gather(value)))


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    rank = int(os.environ.get("PMI_RANK", os.environ.get("RANK", "0")))
    storm = Storm(spec, rank)
    report = storm.run()
    if rank == 0:
        Path(spec["folder"], "report.json").write_text(json.dumps(report))
    storm.workload.leave()
    sys.stdout.flush()
    if "mpi4py" not in sys.modules:
        os._exit(0)


if __name__ == "__main__":
    main()
