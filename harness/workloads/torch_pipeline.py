"""torch.pipeline: a small causal transformer whose layers lie on different ranks, trained with AdamW.

Each rank is a stage: the first holds the embedding, the last the head, and the blocks between are split over
all of them. A batch goes through in micro-batches as in GPipe (Huang et al. 2019): first every one forward, activations
sent on by send and receive, then every one backward in the reverse order, gradients sent back.

Built so that a run has the same bits on any number of stages, and after any restart:
- each layer's parameters come from (seed, layer), and its dropout draws from a random state of its own, which is
  part of what is saved; so it does not matter which layers share a rank;
- gradients of micro-batches are added in one order, and AdamW looks at each element alone;
- the number of a batch's content travels with the activations, so that each stage can tell which batch it worked
  on, and the last one whether its targets are of the same.

With more stages than blocks some stages have no layer and pass on what they get.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch._dynamo  # an optimiser imports it when first made; so a fork server can do it once for all ranks
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from harness.runtime import digest
from harness.workloads import REGISTRY, torch_checkpoint
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.torch_data import batch_id, tokens_of
from harness.workloads.torch_models import DROPOUT, Block
from harness.workloads.torch_world import TorchWorld, be_deterministic


class OwnDropout(nn.Dropout):
    """Dropout that draws from a random state of its own."""

    def __init__(self, seed: int, device: torch.device) -> None:
        super().__init__(DROPOUT)
        self.source = torch.Generator(device).manual_seed(seed)

    def forward(self, input: Tensor) -> Tensor:
        """Elements set to zero with probability ``p``, the others scaled."""
        kept = torch.rand(input.shape, generator=self.source, device=input.device) >= self.p
        return input * kept / (1.0 - self.p)


class Embedding(nn.Module):
    """Token and position embedding."""

    def __init__(self, vocabulary: int, sequence: int, width: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(sequence, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Of (batch, sequence), (batch, sequence, width)."""
        return cast(Tensor, self.tokens(tokens) + self.positions.weight)


def stages_of(blocks: int, stages: int) -> list[list[str]]:
    """Names of the layers of each stage; the first ``blocks % stages`` stages have one block more."""
    each, more = divmod(blocks, stages)
    firsts = [stage * each + min(stage, more) for stage in range(stages + 1)]
    names = [[f"block-{n}" for n in range(firsts[s], firsts[s + 1])] for s in range(stages)]
    return [["embedding"] * (s == 0) + mine + ["head"] * (s == stages - 1) for s, mine in enumerate(names)]


class TorchPipeline(TorchWorld):
    """The workload on one rank, which is one stage."""

    tables = REGISTRY["torch.pipeline"].tables
    controls = ("random_state", "position", "stale_optimizer")

    layers: int
    width: int
    heads: int
    sequence: int
    batch: int
    micro_batches: int
    vocabulary: int

    def setup(self, context: RankContext) -> None:
        """Join, and build this stage's layers, each from its own seed."""
        params = cast(Mapping[str, Any], context.params)
        for name in ("layers", "width", "heads", "sequence", "batch", "micro_batches", "vocabulary"):
            setattr(self, name, int(params[name]))
        for whole, part in (("width", "heads"), ("batch", "micro_batches")):
            if getattr(self, part) < 1 or getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} = {getattr(self, whole)} is not a multiple of {part} = {getattr(self, part)}"
                )
        if context.deterministic:
            be_deterministic()
        self.join(context)
        self.above = context.rank - 1  # the stage that sends activations; -1: none
        self.below = context.rank + 1 if context.rank + 1 < context.world else -1
        mine = stages_of(self.layers, context.world)[context.rank]
        self.model = nn.ModuleDict({name: self._layer(name) for name in mine})
        torch.manual_seed(digest.number(context.seed, "rank", context.rank))
        group = {"params": list(self.model.parameters())}  # a group may be empty, a list of parameters not
        self.optimizer = torch.optim.AdamW([group], lr=float(params["learning_rate"]))
        self.micro = self.batch // self.micro_batches
        self.position = 0  # batches consumed since step 0, by this process and those before it
        self.loss = math.nan  # of the last step
        self.consumed = 0  # batches consumed by this process
        self.misplaced = ""  # the first of them that was not its step's
        self.mixed = ""  # the first step whose activations and targets were of two batches

    def _layer(self, name: str) -> nn.Module:
        seed = self.context.seed
        torch.manual_seed(digest.number(seed, "model", name))
        if name == "embedding":
            return Embedding(self.vocabulary, self.sequence, self.width).to(self.device)
        if name == "head":
            return nn.Sequential(
                nn.LayerNorm(self.width), nn.Linear(self.width, self.vocabulary, bias=False)
            ).to(self.device)
        block = Block(self.width, self.heads, self.sequence).to(self.device)
        block.dropout = OwnDropout(digest.number(seed, "dropout", name), self.device)
        return block

    def tokens_at(self, position: int) -> Tensor:
        """Batch ``position``, (batch, sequence + 1), on the processor; the first and the last stage read it."""
        return tokens_of(self.context.seed, 0, position, self.batch, self.sequence + 1, self.vocabulary)

    # --- one step ---------------------------------------------------------------------------------------

    def step(self, step: int) -> Mapping[str, int | float]:
        """Train on the batch at the data position: all micro-batches forward, then all backward."""
        if self.position != step and not self.misplaced:
            self.misplaced = f"step {step} consumed batch {self.position}"
        tokens = self.tokens_at(self.position) if self.above < 0 or self.below < 0 else None
        number = self._agree(step, tokens)
        parts: Sequence[Tensor | None] = [None] * self.micro_batches
        if tokens is not None:
            parts = torch.split(tokens.to(self.device), self.micro)
        passed = [self._forward(part) for part in parts]
        for given, made in reversed(passed):
            self._backward(given, made)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.position += 1
        self.consumed += 1
        mean = torch.zeros((), device=self._wire)
        if self.below < 0:
            mean += torch.stack([made.detach() for _, made in passed]).sum().to(self._wire)
        self.context.collective(lambda: dist.broadcast(mean, src=self.context.world - 1))
        self.loss = float(mean)
        trained = self.batch * self.sequence if self.below < 0 else 0  # a token is counted on one stage
        return {"loss": self.loss, "tokens": trained, "batch_id": number}

    def _agree(self, step: int, tokens: Tensor | None) -> int:
        """Number of the batch that this stage works on; it goes from stage to stage ahead of the activations."""
        own = batch_id(tokens) if tokens is not None else None
        number = own
        if self.above >= 0:
            number = int(self._receive((1,), self.above, torch.int64))
            if own is not None and own != number and not self.mixed:
                self.mixed = f"step {step}: targets of batch {own}, activations of batch {number}"
        if self.below >= 0:
            self._send(torch.tensor([number]), self.below)
        chosen = own if own is not None else number
        assert chosen is not None  # a stage without a neighbour above has tokens
        return chosen

    def _forward(self, tokens: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """One micro-batch; returns what was received (None on the first stage), and the output or the loss."""
        given = None
        if self.above >= 0:
            shape = (self.micro, self.sequence, self.width)
            given = self._receive(shape, self.above).requires_grad_()
            value = given
        else:
            assert tokens is not None
            value = tokens[:, :-1]
        for layer in self.model.values():
            value = layer(value)
        if self.below >= 0:
            self._send(value, self.below)
            return given, value
        assert tokens is not None
        loss = functional.cross_entropy(value.flatten(0, 1), tokens[:, 1:].flatten())
        return given, loss / self.micro_batches

    def _backward(self, given: Tensor | None, made: Tensor) -> None:
        if self.below >= 0:
            torch.autograd.backward(made, self._receive(tuple(made.shape), self.below))
        else:
            torch.autograd.backward(made)
        if given is not None:
            assert given.grad is not None
            self._send(given.grad, self.above)

    def _send(self, value: Tensor, to: int) -> None:
        wire = value.detach().to(self._wire).contiguous()
        self.context.collective(lambda: dist.send(wire, to))

    def _receive(self, shape: tuple[int, ...], source: int, type_: torch.dtype = torch.float32) -> Tensor:
        wire = torch.zeros(shape, dtype=type_, device=self._wire)
        self.context.collective(lambda: dist.recv(wire, source))
        return wire.to(self.device)

    # --- state ------------------------------------------------------------------------------------------

    def _sources(self) -> dict[str, torch.Generator]:
        """The random state of each layer that has one."""
        return {
            name: cast(OwnDropout, layer.dropout).source
            for name, layer in self.model.items()
            if isinstance(layer, Block)
        }

    def own_state(self) -> dict[str, Any]:
        """What this stage holds, and saves."""
        return {
            "rank": self.context.rank,
            "world": self.context.world,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": {name: source.get_state() for name, source in self._sources().items()},
            "position": self.position,
            "loss": self.loss,
        }

    def save(self, writer: CheckpointWriter) -> None:
        """Each stage its own: see ``torch_checkpoint``."""
        torch_checkpoint.save(writer, self.context.rank, None, self.own_state())

    def restore(self, reader: CheckpointReader) -> None:
        """Load this stage's part; nothing but tensors and plain values is unpickled.

        Raises:
            ValueError: the checkpoint is of another number of stages.
        """
        _, own = torch_checkpoint.load(reader, self.context.rank)
        self.load(torch_checkpoint.kept(own), str(reader.folder))

    def load(self, own: Mapping[str, Any], where: str) -> None:
        """Take over what ``own_state`` gave.

        Raises:
            ValueError: it is of another number of stages.
        """
        if (own["rank"], own["world"]) != (self.context.rank, self.context.world):
            raise ValueError(
                f"{where}: saved by stage {own['rank']} of {own['world']}, this is stage {self.context.rank} "
                f"of {self.context.world}, which has other layers: restore as many"
            )
        self.model.load_state_dict(own["model"])
        self.optimizer.load_state_dict(own["optimizer"])
        for name, source in self._sources().items():
            source.set_state(own["random"][name])
        self.position, self.loss = own["position"], own["loss"]

    def sabotage(self, what: str) -> None:
        """See ``Workload.sabotage``: reseeded; one batch further; moments and step count as at the start.

        A stage without a block has no random state, and one without a layer no optimiser's either.
        """
        if what == "random_state":
            for name, source in self._sources().items():
                source.manual_seed(digest.number(self.context.seed, "sabotage", name))
        elif what == "position":
            self.position += 1
        elif what == "stale_optimizer":
            self.optimizer.state.clear()
        else:
            raise ValueError(f"{what!r} is no control of torch.pipeline, allowed: {', '.join(self.controls)}")

    def state_digest(self) -> str:
        """Digest of all that is saved."""
        return digest.of(self.own_state())

    def close(self) -> None:
        """Record the answer and the checks, then leave."""
        layers = {name: digest.of(layer.state_dict()) for name, layer in self.model.items()}
        self.context.result("params_digest", digest.of(layers))
        if self.position:
            self.context.result("final_loss", repr(self.loss))
        if self.consumed:  # otherwise there is no evidence
            expected = "step n consumed batch n"
            first = self.position - self.consumed
            self.context.check(
                "every batch once",
                not self.misplaced,
                expected,
                self.misplaced or expected,
                f"{self.consumed} batches consumed by this process, from position {first}",
            )
            if self.above >= 0 > self.below:
                expected = "activations and targets of one batch"
                self.context.check(
                    "stages agree on the batch", not self.mixed, expected, self.mixed or expected
                )
        everyone = self.gather(layers)
        if everyone is not None:  # the same for any number of stages
            whole = {name: value for stage in everyone for name, value in stage.items()}
            self.context.result("model_digest", digest.of(whole))
        self.leave()


WORKLOAD = TorchPipeline
