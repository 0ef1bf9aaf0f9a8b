"""checkpoint.flip_bit: one bit of a shard of a checkpoint is another."""

from __future__ import annotations

from functools import partial

from harness.faults import damage
from harness.faults.checkpoint_damage import CheckpointDamage

FAULT = partial(CheckpointDamage, damage.flip_bit)
