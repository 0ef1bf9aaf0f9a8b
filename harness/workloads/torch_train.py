"""torch.train: a small transformer under DDP and AdamW, on tokens or images made from the seed.

Built so that a run that was interrupted and restored equals, bit for bit, one that was not:
- a batch (of each rank, or of the world and then shared out evenly: ``batch_of``) is a function of (seed, rank,
  position) alone, position being the number of batches this rank has
  consumed; it is part of the state, as is the random state, which dropout draws from;
- DDP rearranges its gradient buckets after its first backward pass, and for three ranks and more another
  arrangement adds in another order. A restored process would make its first step with the first
  arrangement; so each process makes one rehearsal step, undone, before anything that counts;
- the models are made of operations that have deterministic kernels.

How long each rank's step waited for DDP's all-reduces travels in the one reduction that the loss needs anyway; how
computing, communication and waiting are told apart by it is in ``timesplit``.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch._dynamo  # DDP imports it when first made, 1.1 s; so a fork server can do it once for all ranks
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from harness.runtime import digest
from harness.workloads import REGISTRY, timesplit, torch_checkpoint
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.torch_data import batch_id, images_of, tokens_of
from harness.workloads.torch_models import Transformer, VisionTransformer
from harness.workloads.torch_timing import Exposed
from harness.workloads.torch_world import TorchWorld, be_deterministic

# Buffers are constants here, and would be sent in every step; torch gave the option another name.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_NO_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


class TorchTrain(TorchWorld):
    """The workload on one rank."""

    tables = REGISTRY["torch.train"].tables
    controls = ("random_state", "position", "stale_optimizer")

    def setup(self, context: RankContext) -> None:
        """Join, build the model alike on all ranks, rehearse, then seed this rank's own random state."""
        params = cast(Mapping[str, Any], context.params)
        for name in ("layers", "width", "heads", "sequence", "batch", "vocabulary"):
            setattr(self, name, int(params[name]))
        self.pixels, self.patch = int(params["image_pixels"]), int(params["patch_pixels"])
        self.classes, self.of_images = int(params["classes"]), params["data"] == "images"
        if params["batch_of"] == "world":
            if self.batch % context.world:
                raise ValueError(
                    f"batch = {self.batch} of the world is no multiple of {context.world} ranks; change it, or say "
                    "batch_of: rank"
                )
            self.batch //= context.world
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is not a multiple of heads = {self.heads}")
        if self.of_images and self.pixels % self.patch:
            raise ValueError(f"image_pixels = {self.pixels} is not a multiple of patch_pixels = {self.patch}")
        if context.deterministic:
            be_deterministic()
        self.join(context)
        torch.manual_seed(digest.number(context.seed, "model"))
        self.model = self._model().to(self.device)
        self.parallel = DistributedDataParallel(
            self.model,
            device_ids=[context.local_rank] if self.device.type == "cuda" else None,
            **_NO_BUFFERS,
        )
        self.exposed = Exposed(self.model.parameters(), self.device)
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

    def _model(self) -> nn.Module:
        size = (self.layers, self.width, self.heads)
        if self.of_images:
            return VisionTransformer(*size, self.pixels, self.patch, self.classes)
        return Transformer(*size, self.sequence, self.vocabulary)

    def batch_at(self, position: int) -> tuple[Tensor, ...]:
        """What this rank consumes as batch ``position``, on the processor: tokens, or images and their classes."""
        place = (self.context.seed, self.context.rank, position, self.batch)
        if self.of_images:
            return images_of(*place, self.pixels, self.classes)
        return (tokens_of(*place, self.sequence + 1, self.vocabulary),)

    def loss_of(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Mean cross-entropy of the next token, or of the class, on this rank's batch."""
        there = [part.to(self.device) for part in batch]
        if self.of_images:
            return functional.cross_entropy(self.parallel(there[0]), there[1])
        (tokens,) = there
        return functional.cross_entropy(self.parallel(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    def rehearse(self) -> None:
        """One backward pass whose gradients are dropped: DDP then arranges its buckets for good."""
        torch.autograd.backward(self.loss_of(self.batch_at(0)))
        self.optimizer.zero_grad()

    def step(self, step: int) -> Mapping[str, int | float]:
        """Train on the batch at the data position; DDP averages the gradients, within the backward pass.

        The whole pass counts as one collective: a hook of DDP's for each of its all-reduces would run Python in
        autograd's thread.
        """
        start = time.monotonic_ns()
        if self.position != step and not self.misplaced:
            self.misplaced = f"step {step} consumed batch {self.position}"
        batch = self.batch_at(self.position)
        loss = self.loss_of(batch)
        self.exposed.begin()
        self.context.collective(lambda: torch.autograd.backward(loss))
        self.exposed.end()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.position += 1
        self.consumed += 1
        number = batch_id(*batch)
        spent = self.exposed.ns()
        told = torch.zeros(1 + self.context.world, dtype=torch.float64)
        told[0], told[1 + self.context.rank] = loss.detach(), spent
        told = told.to(self._wire)
        before = time.monotonic_ns()
        self.context.collective(lambda: dist.all_reduce(told))
        heard = told.tolist()
        end = time.monotonic_ns()
        self.loss = heard[0] / self.context.world
        patches = (self.pixels // self.patch) ** 2
        return {
            "loss": self.loss,
            "tokens": self.batch * (patches if self.of_images else self.sequence),
            "images": self.batch if self.of_images else 0,
            "batch_id": number,
            **timesplit.parts(end - start, spent, int(min(heard[1:])), end - before),
        }

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
