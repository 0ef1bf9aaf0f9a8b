"""checkpoint.truncate: a shard of a checkpoint is cut short."""

from __future__ import annotations

from functools import partial

from harness.faults import damage
from harness.faults.checkpoint_damage import CheckpointDamage

FAULT = partial(CheckpointDamage, damage.truncate)
