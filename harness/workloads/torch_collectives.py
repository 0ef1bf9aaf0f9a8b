"""torch.collectives: one operation of torch.distributed at every size in each step, checked element by element.

The calls are those that a program would write, on whole tensors; all-reduce, reduce and broadcast work in place.
gloo and NCCL differ in what they have: what a back end lacks is refused before the first step, by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from harness.workloads.api import RankContext
from harness.workloads.collectives import Collectives
from harness.workloads.exchange import ROOT, Part
from harness.workloads.torch_world import TorchWorld

IN_PLACE = ("all-reduce", "broadcast", "reduce")
LACKS = (
    RuntimeError,
    NotImplementedError,
    ValueError,
    TypeError,
)  # what back ends raise where they lack something


def _named(newer: str, older: str) -> Callable[..., Any]:
    """torch gave some calls other names, and warns of the old ones."""
    return cast(Callable[..., Any], getattr(dist, newer, None) or getattr(dist, older))


class TorchCollectives(TorchWorld, Collectives):
    """The workload on one rank."""

    def setup(self, context: RankContext) -> None:
        """See ``Collectives.setup``.

        Raises:
            ValueError: the back end lacks the operation for this type.
        """
        self.dtype: torch.dtype = getattr(torch, str(context.params["dtype"]))
        Collectives.setup(self, context)

    def rehearse(self) -> None:
        """Call each once, so that what the back end lacks shows before the first step."""
        try:
            Collectives.rehearse(self)
        except LACKS as error:
            shape = self.shape
            raise ValueError(
                f"operation = {shape.operation}, dtype = {shape.dtype}: the back end {self.context.backend} of torch "
                f"{torch.__version__} does not do it ({error}); choose another operation, dtype or back end"
            ) from error

    def of_host(self, array: Any) -> Tensor:
        """On the device."""
        return torch.from_numpy(array).to(self.device)

    def buffer(self, elements: int) -> Tensor:
        """On the device."""
        return torch.zeros(elements, dtype=self.dtype, device=self.device)

    def fill(self, buffer: Tensor, parts: Sequence[Part], values: Sequence[int]) -> None:
        """See ``Collectives.fill``."""
        table, end = torch.tensor(values, dtype=self.dtype, device=self.device), 0
        for part in parts:
            begin, end = end, end + part.length
            if part.weight:
                hashes = self._hashes[part.first : part.first + part.length]
                torch.index_select(table * part.weight, 0, hashes, out=buffer[begin:end])
            else:
                buffer[begin:end].zero_()

    def wrong(self, observed: Tensor, expected: Tensor) -> tuple[int, int]:
        """See ``Collectives.wrong``."""
        differs = observed != expected
        count = int(torch.count_nonzero(differs))
        return count, int(differs.to(torch.uint8).argmax()) if count else 0

    def prepare(self, sent: Tensor, received: Tensor) -> Callable[[], object]:
        """The call of torch.distributed, and on a GPU the wait for it."""
        call = self._call(sent, received)
        if self.device.type != "cuda":
            return call

        def until_done() -> None:
            call()
            torch.cuda.synchronize()

        return until_done

    def arm(self, sent: Tensor, received: Tensor) -> None:
        """See ``Collectives.arm``."""
        sent.neg_()
        if self.shape.operation in IN_PLACE:
            self._received[: len(sent)].copy_(sent)
        else:
            received.zero_()

    def _call(self, sent: Tensor, received: Tensor) -> Callable[[], object]:
        operation, rank, world = self.shape.operation, self.context.rank, self.context.world
        if operation == "all-reduce":
            return partial(dist.all_reduce, received)
        if operation == "broadcast":
            return partial(dist.broadcast, received, ROOT)
        if operation == "reduce":
            return partial(dist.reduce, self._received[: len(sent)], ROOT)
        if operation == "all-gather":
            return partial(_named("all_gather_single", "all_gather_into_tensor"), received, sent)
        if operation == "reduce-scatter":
            return partial(_named("reduce_scatter_single", "reduce_scatter_tensor"), received, sent)
        if operation == "all-to-all":
            return partial(dist.all_to_all_single, received, sent)
        if operation == "gather":
            return partial(dist.gather, sent, list(received.chunk(world)) if rank == ROOT else None, ROOT)
        if operation == "scatter":
            return partial(dist.scatter, received, list(sent.chunk(world)) if rank == ROOT else None, ROOT)
        to, of = self.shape.peer(rank)
        both = [dist.P2POp(dist.isend, sent, to), dist.P2POp(dist.irecv, received, of)]

        def send_and_receive() -> None:
            for work in dist.batch_isend_irecv(both):
                work.wait()

        return send_and_receive

    def tell(self, rank: int) -> None:
        """See ``Collectives.tell``."""
        dist.send(torch.zeros(1, device=self._wire), rank)

    def hear(self) -> None:
        """See ``Collectives.hear``."""
        for rank in range(self.context.world):
            if rank != self.context.rank:
                dist.recv(torch.zeros(1, device=self._wire), rank)


WORKLOAD = TorchCollectives
