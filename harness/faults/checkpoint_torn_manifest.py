"""checkpoint.torn_manifest: the manifest of a checkpoint ends in its middle."""

from __future__ import annotations

from functools import partial

from harness.faults import damage
from harness.faults.checkpoint_damage import CheckpointDamage

FAULT = partial(CheckpointDamage, damage.torn_manifest)
