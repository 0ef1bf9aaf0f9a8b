"""How long a backward pass under DDP waits for its all-reduces, after the last gradient was computed.

DDP reduces a bucket of gradients while others are still being computed, so only what comes after the last
gradient costs time: that part is measured, by a mark at each gradient (the last one counts) and one when the pass
returns. Copies from buckets to gradients are in it. Nothing of DDP is changed: a hook of its own for each
all-reduce would take another path through it, and run Python in the back end's threads. On a GPU the marks
are events of the stream that computes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor


class Exposed:
    """Marks one backward pass after the other."""

    def __init__(self, parameters: Iterable[Tensor], device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._last, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._last_ns = self._end_ns = 0
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._graded)  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """A backward pass comes."""
        self._last_ns = 0

    def _graded(self, parameter: Tensor) -> None:
        self._last_ns = time.monotonic_ns()
        if self._cuda:
            self._last.record()

    def end(self) -> None:
        """It has returned."""
        self._end_ns = time.monotonic_ns()
        if self._cuda:
            self._end.record()

    def ns(self) -> int:
        """From the last gradient to the end; 0 when a fault left the pass out. Waits for the GPU."""
        if not self._last_ns:
            return 0
        if self._cuda:
            self._end.synchronize()
            return int(self._last.elapsed_time(self._end) * 1e6)
        return self._end_ns - self._last_ns
