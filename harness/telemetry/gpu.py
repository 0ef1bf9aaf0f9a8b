"""GPU counters by NVML (nvidia-ml-py provides the module ``pynvml``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

COLUMNS = (
    "wall_ns", "gpu", "gpu_utilisation_percent", "gpu_memory_used_bytes", "gpu_power_w", "gpu_temperature_c",
    "gpu_sm_clock_mhz",
)


class NoGpu(Exception):
    """There is nothing to measure; the message says why."""


class Gpu:
    """The GPUs that NVML shows.

    Raises:
        NoGpu: nvidia-ml-py is not installed, there is no driver, or it shows no GPU.
    """

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise NoGpu(f"nvidia-ml-py cannot be imported ({error}); install the extra 'telemetry'") from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as error:
            raise NoGpu(f"NVML: {error}") from None
        if not self._handles:
            raise NoGpu("NVML: the driver shows no GPU")

    @property
    def count(self) -> int:
        """Number of GPUs."""
        return len(self._handles)

    def _value(self, ask: Callable[[], float]) -> float:
        try:
            return float(ask())
        except self._nvml.NVMLError:  # not supported by this device: recorded as not a number
            return float("nan")

    def samples(self) -> Iterator[dict[str, int | float]]:
        """One sample for each GPU; a counter that the device does not have is NaN (memory: -1)."""
        n = self._nvml
        for index, handle in enumerate(self._handles):
            used = self._value(lambda h=handle: n.nvmlDeviceGetMemoryInfo(h).used)  # type: ignore[misc]
            yield {
                "wall_ns": time.time_ns(),
                "gpu": index,
                "gpu_utilisation_percent": self._value(
                    lambda h=handle: n.nvmlDeviceGetUtilizationRates(h).gpu),  # type: ignore[misc]
                "gpu_memory_used_bytes": int(used) if used == used else -1,
                "gpu_power_w": self._value(lambda h=handle: n.nvmlDeviceGetPowerUsage(h) / 1000),  # type: ignore[misc]
                "gpu_temperature_c": self._value(
                    lambda h=handle: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU)),  # type: ignore[misc]
                "gpu_sm_clock_mhz": self._value(
                    lambda h=handle: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM)),  # type: ignore[misc]
            }
