"""mpi.collectives: one operation of MPI at every size in each step, checked element by element.

The calls are mpi4py's on buffers, out of place: what is sent stays as it was. Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.workloads.collectives import Collectives
from harness.workloads.exchange import ROOT, Part
from harness.workloads.mpi_world import MpiWorld

Array = NDArray[Any]


class MpiCollectives(MpiWorld, Collectives):
    """The workload on one rank."""

    def of_host(self, array: Array) -> Array:
        """As it is."""
        return array

    def buffer(self, elements: int) -> Array:
        """See ``Collectives.buffer``."""
        return np.zeros(elements, dtype=self.shape.dtype)

    def fill(self, buffer: Array, parts: Sequence[Part], values: Sequence[int]) -> None:
        """See ``Collectives.fill``."""
        table, end = np.array(values, dtype=self.shape.dtype), 0
        for part in parts:
            begin, end = end, end + part.length
            if part.weight:
                scaled = table * buffer.dtype.type(part.weight)
                np.take(
                    scaled,
                    self._hashes[part.first : part.first + part.length],
                    out=buffer[begin:end],
                    mode="clip",
                )
            else:
                buffer[begin:end] = 0

    def wrong(self, observed: Array, expected: Array) -> tuple[int, int]:
        """See ``Collectives.wrong``."""
        differs = observed != expected
        count = int(np.count_nonzero(differs))
        return count, int(differs.argmax()) if count else 0

    def arm(self, sent: Array, received: Array) -> None:
        """See ``Collectives.arm``; only a broadcast works in place."""
        np.negative(sent, out=sent)
        received[:] = sent if self.shape.operation == "broadcast" else 0

    def prepare(self, sent: Array, received: Array) -> Callable[[], object]:
        """The call of mpi4py."""
        comm, operation = self.comm, self.shape.operation
        if operation in ("broadcast", "reduce", "gather", "scatter"):
            return self._rooted(sent, received)
        if operation == "send-receive":
            to, of = self.shape.peer(self.context.rank)
            return partial(comm.Sendrecv, sent, to, 0, received, of, 0)
        calls = {
            "all-reduce": comm.Allreduce,
            "all-gather": comm.Allgather,
            "reduce-scatter": comm.Reduce_scatter_block,
            "all-to-all": comm.Alltoall,
        }
        return partial(calls[operation], sent, received)

    def _rooted(self, sent: Array, received: Array) -> Callable[[], object]:
        comm, operation, root = self.comm, self.shape.operation, self.context.rank == ROOT
        if operation == "broadcast":
            return partial(comm.Bcast, received, ROOT)
        if operation == "reduce":
            return partial(comm.Reduce, sent, received if root else None, self.MPI.SUM, ROOT)
        if operation == "gather":
            return partial(comm.Gather, sent, received if root else None, ROOT)
        return partial(comm.Scatter, sent if root else None, received, ROOT)

    def tell(self, rank: int) -> None:
        """See ``Collectives.tell``."""
        self.comm.Send(np.zeros(1), rank)

    def hear(self) -> None:
        """See ``Collectives.hear``."""
        word = np.zeros(1)
        for rank in range(self.context.world):
            if rank != self.context.rank:
                self.comm.Recv(word, rank)


WORKLOAD = MpiCollectives
