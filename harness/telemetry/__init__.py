"""Telemetry of one node: host counters by psutil, GPUs by NVML. What cannot be measured is recorded as absent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

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

    def slices(self) -> tuple[str, ...]:
        """UUIDs of the MIG slices that NVML shows."""
        return self._gpu.slices() if self._gpu is not None else ()

    def facts(self) -> dict[str, Any]:
        """What kind of machine this is: kernel, processors, memory, GPUs and their driver."""
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return {
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "cpus": os.cpu_count() or 0,
            "memory_bytes": pages * page_bytes,
            **(self._gpu.facts() if self._gpu is not None else {}),
        }

    def sample(self) -> Iterator[Sample]:
        """One sample of each source."""
        if self._host is not None:
            yield "host", self._host.sample()
        if self._gpu is not None:
            for values in self._gpu.samples():
                yield "gpu", values
