"""Training data made from the seed, and the number by which a batch is known again. For the torch workloads.

A sequence follows  x(t+1) = (5 x(t) + c) mod vocabulary, c from the seed, and one token in ten is replaced by
a random one, so the loss falls from about ln(vocabulary) and can be seen to. An image is a wave whose direction and
length are its class's, drawn from the seed, and as much noise; its loss falls from about ln(classes). A batch depends
on (seed, reader, position) alone; no global random state plays a part.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from harness.runtime import digest
from harness.workloads.torch_models import CHANNELS

NOISE = 0.1  # share of tokens that follow no rule
WAVES = 8  # across an image, at most


def tokens_of(seed: int, reader: int, position: int, batch: int, length: int, vocabulary: int) -> Tensor:
    """Batch ``position`` of one reader of the data: (batch, length) token numbers, int64, on the processor."""
    size = (batch, length)
    source = torch.Generator().manual_seed(digest.number(seed, "data", reader, position))
    random = torch.randint(vocabulary, size, generator=source)
    replaced = torch.rand(size, generator=source) < NOISE
    increment = digest.number(seed, "rule") % vocabulary
    columns = [random[:, 0]]
    for t in range(1, length):
        follows = (5 * columns[-1] + increment) % vocabulary
        columns.append(torch.where(replaced[:, t], random[:, t], follows))
    return torch.stack(columns, dim=1)


def images_of(
    seed: int, reader: int, position: int, batch: int, pixels: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Batch ``position`` of one reader: (batch, channels, pixels, pixels) float32, and (batch) classes, int64."""
    source = torch.Generator().manual_seed(digest.number(seed, "images", reader, position))
    labels = torch.randint(classes, (batch,), generator=source)
    noise = torch.randn((batch, CHANNELS, pixels, pixels), generator=source)
    rule = torch.Generator().manual_seed(digest.number(seed, "waves"))
    waves = torch.randint(1, WAVES + 1, (classes, CHANNELS, 2), generator=rule)[labels].float()
    along = torch.arange(pixels, dtype=torch.float32) * (2 * math.pi / pixels)
    phase = waves[..., :1, None] * along[:, None] + waves[..., 1:, None] * along
    return torch.cos(phase) + noise, labels


def batch_id(*content: Tensor) -> int:
    """A 63-bit number of what is in a batch, whatever its position was meant to be: a few microseconds."""
    state = hashlib.blake2b(digest_size=8)
    for part in content:
        state.update(part.cpu().numpy().tobytes())
    return int.from_bytes(state.digest(), "big") >> 1
