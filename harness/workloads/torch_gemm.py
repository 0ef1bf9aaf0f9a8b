"""torch.gemm: products of square matrices by size and type, on each rank by itself; each product is proved.

The matrices hold whole numbers in [-M, M], drawn from (seed, rank, step, size), and at most K of them in a row of A
are not zero, with K * M * M no more than the type holds exactly (its integers; for float64 2^30). So each element
of the product and each partial sum is exact, whatever order the library adds in, also where it rounds to
bfloat16. Proof (Freivalds 1977): with a vector x of whole numbers in 1..R, C x must equal A (B x), which is
computed in float64 and exact by the choice of R. A product with a wrong element passes with a chance below 1 / R; R is
2^20 or more for matrices up to 2048.

The time ends when the device has finished. It counts 2 n^3 operations, zeros included; hardware that draws less
power for zeros may be faster on these matrices than on noise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from harness.runtime import digest
from harness.workloads import REGISTRY
from harness.workloads.api import CheckpointReader, CheckpointWriter, RankContext
from harness.workloads.torch_world import TorchWorld, be_deterministic

LARGEST = 7  # M
EXACT = {"float32": 2**24, "float64": 2**30, "bfloat16": 2**8, "float16": 2**11}


@dataclass
class _Tally:
    """What became of the products of one size."""

    products: int = 0
    wrong: int = 0
    first: str = ""


def nonzeros(size: int, dtype: str) -> int:
    """K: in a row of A."""
    return min(size, EXACT[dtype] // LARGEST**2)


def highest(size: int, dtype: str) -> int:
    """R, so that C x and A (B x) stay whole in float64: both sums are at most K M M n R."""
    return 2**53 // (nonzeros(size, dtype) * LARGEST**2 * size)


def factors(seed: int, rank: int, step: int, size: int, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """A, B and x, float64, on the processor."""
    source = torch.Generator().manual_seed(digest.number(seed, "gemm", rank, step, size))

    def whole(*shape: int) -> Tensor:
        return torch.randint(-LARGEST, LARGEST + 1, shape, generator=source).double()

    a, b = whole(size, size), whole(size, size)
    kept = nonzeros(size, dtype)
    if kept < size:  # in row i those from column i on, around the corner
        shift = (torch.arange(size) - torch.arange(size)[:, None]) % size
        a *= shift < kept
    x = torch.randint(1, highest(size, dtype) + 1, (size,), generator=source).double()
    return a, b, x


class TorchGemm(TorchWorld):
    """The workload on one rank. It has no state: a step's input depends on its number alone."""

    tables = REGISTRY["torch.gemm"].tables
    controls: tuple[str, ...] = ()  # there is no state that a control could spoil

    def setup(self, context: RankContext) -> None:
        """Join and multiply each size once, so that the library has loaded what it needs."""
        params = cast(Mapping[str, Any], context.params)
        self.sizes, self.name = tuple(params["matrix_size"]), str(params["dtype"])
        self.dtype: torch.dtype = getattr(torch, self.name)
        if context.deterministic:
            be_deterministic()
        self.join(context)
        self.tallies = {size: _Tally() for size in self.sizes}
        for size in self.sizes:
            a = torch.zeros((size, size), dtype=self.dtype, device=self.device)
            self.multiply(a, a, torch.empty_like(a))

    def multiply(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """The product that is measured, into memory that was touched before."""
        torch.mm(a, b, out=out)

    def step(self, step: int) -> Mapping[str, int | float]:
        """One product of each size; ranks begin it together."""
        for size in self.sizes:
            exact = factors(self.context.seed, self.context.rank, step, size, self.name)
            a, b = (matrix.to(self.dtype).to(self.device) for matrix in exact[:2])
            out = torch.zeros_like(a)
            self.synchronize()
            self.context.collective(self.barrier)
            start = time.monotonic_ns()
            self.multiply(a, b, out)
            self.synchronize()
            took = time.monotonic_ns() - start
            row = {"step": step, "matrix_size": size, "product_ns": took, "flop_per_s": 2e9 * size**3 / took}
            self.context.record("products", row)
            self._prove(step, size, out, exact)
        return {}

    def _prove(self, step: int, size: int, product: Tensor, exact: tuple[Tensor, Tensor, Tensor]) -> None:
        a, b, x = exact
        tally, observed, expected = self.tallies[size], product.double().cpu() @ x, a @ (b @ x)
        differs = observed != expected
        wrong = int(torch.count_nonzero(differs))
        if wrong and not tally.wrong:
            row = int(differs.to(torch.uint8).argmax())
            tally.first = (
                f"first at step {step}, row {row} x vector: expected {float(expected[row]):.17g}, "
                f"got {float(observed[row]):.17g}; "
            )
        tally.products += 1
        tally.wrong += wrong

    def save(self, writer: CheckpointWriter) -> None:
        """Nothing to save."""

    def restore(self, reader: CheckpointReader) -> None:
        """Nothing to restore."""

    def sabotage(self, what: str) -> None:
        """There is nothing to spoil."""
        raise ValueError(f"{what!r} is no control of torch.gemm, which has no state")

    def state_digest(self) -> str:
        """Digest of the state, which is empty."""
        return digest.of(None)

    def close(self) -> None:
        """One check for each size over all its products, then leave."""
        for size, tally in self.tallies.items():
            if tally.products:
                self.context.check(
                    f"product of {size} x {size}: wrong rows",
                    not tally.wrong,
                    0,
                    tally.wrong,
                    f"{tally.first}{tally.products} products proved, vectors of 1 to {highest(size, self.name)}",
                )
        self.leave()


WORKLOAD = TorchGemm
