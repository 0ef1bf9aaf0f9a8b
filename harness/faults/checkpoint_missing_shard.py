"""checkpoint.missing_shard: a shard of a checkpoint is gone."""

from __future__ import annotations

from functools import partial

from harness.faults import damage
from harness.faults.checkpoint_damage import CheckpointDamage

FAULT = partial(CheckpointDamage, damage.missing_shard)
