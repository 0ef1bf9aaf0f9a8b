"""The world of torch ranks: join it, prove its size, wait, gather, broadcast, leave; workloads inherit it.

The addresses come from the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT,
GLOO_SOCKET_IFNAME), which the loop sets before ``setup``; torch reads no SLURM_* variable.
HARNESS_COLLECTIVE_TIMEOUT_S (default 60) bounds each collective: torch's own default is 30 minutes.

Ranks are forked from a process that has imported this module and torch and done nothing else, so
nothing here makes a tensor, starts a thread or touches CUDA before ``join``. What ranks say to each
other by ``gather`` and ``broadcast`` travels as JSON: torch's own object collectives pickle.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from harness.workloads.api import RankContext, WrongWorldSize

# What holds a process group, and the group, is never destroyed: a rank ends by `os._exit`. A gloo group's
# destructor joins its threads, and one of those may be waiting for the GIL, to drop a tensor of the last
# collective. When DDP's Reducer goes last it destroys the group with the GIL held: of runs with four ranks
# on two cores one in ten hung so, after their last step (seen in gdb; known as pytorch issue 56297).
_KEPT: list[object] = []


_KNOCK_S = 0.002
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


def _await_store(address: str, port: int, timeout_s: float) -> None:
    """Wait until rank 0's store answers. torch itself backs off by up to a second, which is most of a restart.

    Whoever comes too early and whoever never finds it are left to torch, which says what is wrong.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as knock:
            # On its own host a socket can meet itself, where nobody listens: it must not keep the port from rank 0.
            knock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            knock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            knock.settimeout(1.0)
            try:
                knock.connect((address, port))
                if knock.getsockname() != knock.getpeername():
                    return
            except socket.gaierror:
                return
            except OSError:  # nobody is there yet
                pass
        time.sleep(_KNOCK_S)


class TorchWorld:
    """One rank's membership of the default process group. A process joins once."""

    context: RankContext
    device: torch.device  # where the workload computes
    _wire: torch.device  # where the backend wants its buffers: NCCL takes only the GPU's

    def join(self, context: RankContext) -> None:
        """Set the device, join the process group and prove that all of ``context.world`` are in it.

        Raises:
            WrongWorldSize: the group has another size, or this rank another number, than was started.
        """
        self.context = context
        # One core a rank unless the case says otherwise; one thread also keeps sums in one order.
        torch.set_num_threads(int(os.environ.get("HARNESS_TORCH_THREADS", "1")))
        if context.device == "cuda":
            torch.cuda.set_device(context.local_rank)
            self.device = torch.device("cuda", context.local_rank)
        else:
            self.device = torch.device("cpu")
        self._wire = self.device if context.backend == "nccl" else torch.device("cpu")
        timeout_s = float(os.environ.get("HARNESS_COLLECTIVE_TIMEOUT_S", "60"))
        if context.rank:
            _await_store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout_s)
        dist.init_process_group(
            context.backend,
            timeout=timedelta(seconds=timeout_s),
            device_id=self.device if context.backend == "nccl" else None,
        )
        _KEPT.extend((self, dist.group.WORLD))
        size, rank = dist.get_world_size(), dist.get_rank()
        if (size, rank) != (context.world, context.rank):
            raise WrongWorldSize(
                f"rank {context.rank} of {context.world} was started, but torch.distributed says rank {rank} "
                f"of {size}: check RANK and WORLD_SIZE in the environment (torch reads no SLURM_* variable)"
            )
        present = [torch.full((1,), -1, dtype=torch.int64, device=self._wire) for _ in range(size)]
        dist.all_gather(present, torch.tensor([rank], dtype=torch.int64, device=self._wire))
        answered = [int(one) for one in present]
        if answered != list(range(size)):
            raise WrongWorldSize(f"an all-gather of ranks in a world of {size} gave {answered}")

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given: GPU calls return before they end."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self._wire.type == "cuda":
            dist.barrier(device_ids=[self.context.local_rank])
        else:
            dist.barrier()

    def gather(self, value: Any) -> list[Any] | None:
        """Collect one JSON-ready value of each rank on rank 0, None elsewhere."""
        text = json.dumps(value).encode()
        length = torch.tensor([len(text)], dtype=torch.int64, device=self._wire)
        dist.all_reduce(length, op=dist.ReduceOp.MAX)
        own = self._bytes(text.ljust(int(length)))  # JSON allows blanks behind a value
        if self.context.rank:
            dist.gather(own)
            return None
        texts = [torch.empty_like(own) for _ in range(self.context.world)]
        dist.gather(own, texts)
        return [json.loads(bytes(one.tolist())) for one in texts]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's JSON-ready value on every rank."""
        text = b"" if self.context.rank else json.dumps(value).encode()
        length = torch.tensor([len(text)], dtype=torch.int64, device=self._wire)
        dist.broadcast(length, src=0)
        data = self._bytes(text.ljust(int(length)))
        dist.broadcast(data, src=0)
        return json.loads(bytes(data.tolist()))

    def leave(self) -> None:
        """Leave the process group, together: rank 0 holds the store that the others still talk to."""
        self.barrier()
        dist.destroy_process_group()

    def _bytes(self, text: bytes) -> torch.Tensor:
        return torch.tensor(list(text), dtype=torch.uint8, device=self._wire)


def be_deterministic() -> None:
    """Choose deterministic algorithms, or an error where there is none. Before CUDA starts."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
