"""torch.train: a small causal transformer under DDP and AdamW, on data made from the seed.

Built so that a run that was interrupted and restored equals, bit for bit, one that was not:
- a batch is a function of (seed, rank, position) alone, position being the number of batches this rank has
  consumed; it is part of the state, as is the random state, which dropout draws from;
- DDP rearranges its gradient buckets after its first backward pass, and for three ranks and more another
  arrangement adds in another order. A restored process would make its first step with the first
  arrangement; so each process makes one rehearsal step, undone, before anything that counts;
- attention is written out in plain operations, all of which have deterministic kernels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch._dynamo  # DDP imports it when first made, 1.1 s; so a fork server can do it once for all ranks
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from harness.runtime import digest
from harness.workloads import torch_checkpoint
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.torch_data import batch_id, tokens_of
from harness.workloads.torch_world import TorchWorld, be_deterministic

DROPOUT = 0.1  # above zero, so that a random state that was not restored shows


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)) (Radford et al. 2019)."""

    mask: Tensor

    def __init__(self, width: int, heads: int, sequence: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(DROPOUT)
        self.register_buffer("mask", torch.full((sequence, sequence), -math.inf).triu(1))

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


class TorchTrain(TorchWorld):
    """The workload on one rank."""

    tables: Mapping[str, tuple[str, ...]] = {"steps": ("loss", "tokens", "batch_id")}
    controls = ("random_state", "position", "stale_optimizer")

    def setup(self, context: RankContext) -> None:
        """Join, build the model alike on all ranks, rehearse, then seed this rank's own random state."""
        params = cast(Mapping[str, Any], context.params)
        for name in ("layers", "width", "heads", "sequence", "batch", "vocabulary"):
            setattr(self, name, int(params[name]))
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is not a multiple of heads = {self.heads}")
        if context.deterministic:
            be_deterministic()
        self.join(context)
        torch.manual_seed(digest.number(context.seed, "model"))
        model = Transformer(self.layers, self.width, self.heads, self.sequence, self.vocabulary)
        self.model = model.to(self.device)
        self.parallel = DistributedDataParallel(
            self.model, device_ids=[context.local_rank] if self.device.type == "cuda" else None
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=float(params["learning_rate"]))
        self.rehearse()
        torch.manual_seed(digest.number(context.seed, "rank", context.rank))
        self.position = 0  # batches consumed since step 0, by this process and those before it
        self.loss = math.nan  # of the last step
        self.consumed = 0  # batches consumed by this process
        self.misplaced = ""  # the first of them that was not its step's

    layers: int
    width: int
    heads: int
    sequence: int
    batch: int
    vocabulary: int

    def tokens_at(self, position: int) -> Tensor:
        """What this rank consumes as batch ``position``, (batch, sequence + 1), on the processor."""
        length = self.sequence + 1
        return tokens_of(self.context.seed, self.context.rank, position, self.batch, length, self.vocabulary)

    def loss_of(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the next token, on this rank's batch."""
        there = tokens.to(self.device)
        return functional.cross_entropy(self.parallel(there[:, :-1]).flatten(0, 1), there[:, 1:].flatten())

    def rehearse(self) -> None:
        """One backward pass whose gradients are dropped: DDP then arranges its buckets for good."""
        torch.autograd.backward(self.loss_of(self.tokens_at(0)))
        self.optimizer.zero_grad()

    def step(self, step: int) -> Mapping[str, int | float]:
        """Train on the batch at the data position; DDP averages the gradients, within the backward pass.

        The whole pass counts as one collective: a hook of DDP's for each of its all-reduces would run Python in
        autograd's thread.
        """
        if self.position != step and not self.misplaced:
            self.misplaced = f"step {step} consumed batch {self.position}"
        tokens = self.tokens_at(self.position)
        loss = self.loss_of(tokens)
        self.context.collective(lambda: torch.autograd.backward(loss))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.position += 1
        self.consumed += 1
        mean = loss.detach().to(self._wire)
        self.context.collective(lambda: dist.all_reduce(mean))
        self.loss = float(mean) / self.context.world
        return {"loss": self.loss, "tokens": self.batch * self.sequence, "batch_id": batch_id(tokens)}

    def shared_state(self) -> dict[str, Any]:
        """What all ranks hold alike."""
        return {
            "model": self.model.state_dict(),  # parameters and buffers
            "optimizer": self.optimizer.state_dict(),
        }

    def own_state(self) -> dict[str, Any]:
        """What each rank holds for itself."""
        return {
            "rank": self.context.rank,
            "world": self.context.world,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "position": self.position,
            "loss": self.loss,
        }

    def save(self, writer: CheckpointWriter) -> None:
        """What all ranks hold alike, and what this one holds: see ``torch_checkpoint``."""
        torch_checkpoint.save(writer, self.context.rank, self.shared_state(), self.own_state())

    def restore(self, reader: CheckpointReader) -> None:
        """Load both; nothing but tensors and plain values is unpickled.

        Raises:
            ValueError: the checkpoint is of a world of another size.
        """
        shared, own = torch_checkpoint.load(reader, self.context.rank)
        if (own["rank"], own["world"]) != (self.context.rank, self.context.world):
            raise ValueError(
                f"{reader.folder}: saved by rank {own['rank']} of {own['world']}, this is rank "
                f"{self.context.rank} of {self.context.world}; random states and data positions are a rank's: "
                "restore as many"
            )
        self.model.load_state_dict(shared["model"])
        self.optimizer.load_state_dict(torch_checkpoint.kept(shared["optimizer"]))
        self.position, self.loss = own["position"], own["loss"]
        torch.set_rng_state(own["random"].clone())
        if own["random_cuda"] is not None:
            torch.cuda.set_rng_state(own["random_cuda"].clone(), self.device)

    def sabotage(self, what: str) -> None:
        """See ``Workload.sabotage``: reseeded; one batch further; moments and step count as at the start."""
        if what == "random_state":
            torch.manual_seed(digest.number(self.context.seed, "sabotage", self.context.rank))
        elif what == "position":
            self.position += 1
        elif what == "stale_optimizer":
            self.optimizer.state.clear()
        else:
            raise ValueError(f"{what!r} is no control of torch.train, allowed: {', '.join(self.controls)}")

    def state_digest(self) -> str:
        """Digest of all that is saved: parameters, buffers, optimiser, random state, data position."""
        return digest.of({"shared": self.shared_state(), "own": self.own_state()})

    def close(self) -> None:
        """Record the answer and two checks, then leave."""
        params = digest.of(self.model.state_dict())
        self.context.result("params_digest", params)
        if self.position:
            self.context.result("final_loss", repr(self.loss))
        if self.consumed:  # otherwise there is no evidence
            first = self.position - self.consumed
            expected = "step n consumed batch n"
            self.context.check(
                "every batch once",
                not self.misplaced,
                expected,
                self.misplaced or expected,
                f"{self.consumed} batches consumed by this process, from position {first}",
            )
        everyone = self.gather(params)
        if everyone is not None:
            differ = [rank for rank, other in enumerate(everyone) if other != params]
            self.context.check(
                "parameters equal on all ranks",
                not differ,
                params,
                everyone[differ[0]] if differ else params,
                f"ranks that differ from rank 0: {differ}" if differ else f"{len(everyone)} ranks compared",
            )
        self.leave()


WORKLOAD = TorchTrain
