"""Telemetry of one node: host counters by psutil, GPUs by NVML. What cannot be measured is recorded as absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.telemetry import gpu, host

Sample = tuple[str, Mapping[str, int | float]]


class Telemetry:
    """All sources of this node. Making one never fails; ``absent`` says what is not there, and why."""

    def __init__(self) -> None:
        self.absent: dict[str, str] = {}
        self.tables: dict[str, tuple[str, ...]] = {}
        self._host: host.Host | None = None
        self._gpu: gpu.Gpu | None = None
        try:
            self._host = host.Host()
            self.tables["host"] = host.COLUMNS
        except ImportError as error:
            self.absent["host"] = f"psutil cannot be imported ({error}); install the extra 'telemetry'"
        try:
            self._gpu = gpu.Gpu()
            self.tables["gpu"] = gpu.COLUMNS
        except gpu.NoGpu as error:
            self.absent["gpu"] = str(error)

    @property
    def gpu_count(self) -> int:
        """GPUs that NVML shows."""
        return self._gpu.count if self._gpu is not None else 0

    def sample(self) -> Iterator[Sample]:
        """One sample of each source."""
        if self._host is not None:
            yield "host", self._host.sample()
        if self._gpu is not None:
            for values in self._gpu.samples():
                yield "gpu", values
