"""Training data made from the seed, and the number by which a batch is known again. For the torch workloads.

A sequence follows  x(t+1) = (5 x(t) + c) mod vocabulary, c from the seed, and one token in ten is replaced by
a random one, so the loss falls from about ln(vocabulary) and can be seen to. A batch depends on (seed, reader,
position) alone; no global random state plays a part.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from harness.runtime import digest

NOISE = 0.1  # share of tokens that follow no rule


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


def batch_id(tokens: Tensor) -> int:
    """A 63-bit number of what is in a batch, whatever its position was meant to be: a few microseconds."""
    content: bytes = tokens.cpu().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1
