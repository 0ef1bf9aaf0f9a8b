"""The models of the torch workloads: small transformers, for tokens and for images.

Attention is written out in plain operations, and patches are cut by a view and not by a convolution: all of
it has deterministic kernels.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

DROPOUT = 0.1  # above zero, so that a random state that was not restored shows
CHANNELS = 3


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)) (Radford et al. 2019)."""

    mask: Tensor

    def __init__(self, width: int, heads: int, sequence: int, causal: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(DROPOUT)
        hidden = -math.inf if causal else 0.0
        self.register_buffer("mask", torch.full((sequence, sequence), hidden).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, sequence, width), the same shape."""
        batch, sequence, width = x.shape
        shape = (batch, sequence, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(self.norm_1(x)).view(shape).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + self.mask, dim=-1)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).reshape(batch, sequence, width)
        x = x + self.dropout(self.project(mixed))
        return cast(Tensor, x + self.dropout(self.mlp(self.norm_2(x))))


class Transformer(nn.Module):
    """Token and position embedding, blocks, norm, logits."""

    def __init__(self, layers: int, width: int, heads: int, sequence: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(sequence, width)
        self.blocks = nn.Sequential(*(Block(width, heads, sequence) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, sequence, vocabulary) of token numbers (batch, sequence)."""
        return cast(Tensor, self.head(self.blocks(self.tokens(tokens) + self.positions.weight)))


class VisionTransformer(nn.Module):
    """Patches and their positions, blocks without a mask, the mean, logits (Dosovitskiy et al. 2021)."""

    def __init__(self, layers: int, width: int, heads: int, pixels: int, patch: int, classes: int) -> None:
        super().__init__()
        self.across, self.patch = pixels // patch, patch
        patches = self.across**2
        self.embed, self.positions = nn.Linear(CHANNELS * patch * patch, width), nn.Embedding(patches, width)
        self.blocks = nn.Sequential(*(Block(width, heads, patches, causal=False) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, pixels, pixels)."""
        cut = images.view(len(images), CHANNELS, self.across, self.patch, self.across, self.patch)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(len(images), self.across**2, -1)
        seen = self.blocks(self.embed(patches) + self.positions.weight)
        return cast(Tensor, self.head(seen.mean(dim=1)))
