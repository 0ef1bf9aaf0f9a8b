"""checkpoint.stale_shard: a shard, and its entry, of the checkpoint before are in a checkpoint."""

from __future__ import annotations

from functools import partial

from harness.faults import damage
from harness.faults.checkpoint_damage import CheckpointDamage

FAULT = partial(CheckpointDamage, damage.stale_shard)
