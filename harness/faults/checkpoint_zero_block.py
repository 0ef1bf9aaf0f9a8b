"""checkpoint.zero_block: a block of a shard of a checkpoint is zeros."""

from __future__ import annotations

from functools import partial

from harness.faults import damage
from harness.faults.checkpoint_damage import CheckpointDamage

FAULT = partial(CheckpointDamage, damage.zero_block)
