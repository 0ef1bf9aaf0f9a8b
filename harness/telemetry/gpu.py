"""GPU counters by NVML (nvidia-ml-py provides the module ``pynvml``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

COLUMNS = (
    "wall_ns",
    "gpu",
    "gpu_utilisation_percent",
    "gpu_memory_used_bytes",
    "gpu_power_w",
    "gpu_temperature_c",
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

    def slices(self) -> tuple[str, ...]:
        """UUIDs of the MIG slices, GPU by GPU; none where the GPUs are whole."""
        n = self._nvml
        found = []
        for handle in self._handles:
            mode = self._value(n.nvmlDeviceGetMigMode, handle)
            if mode is None or mode[0] != n.NVML_DEVICE_MIG_ENABLE:
                continue
            for index in range(self._value(n.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
                # None is an empty place.
                one = self._value(n.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
                uuid = _text(self._value(n.nvmlDeviceGetUUID, one)) if one is not None else None
                if uuid is not None:
                    found.append(uuid)
        return tuple(found)

    def facts(self) -> dict[str, Any]:
        """Driver version, and name and UUID of each GPU; None for what the device does not tell."""
        return {
            "nvidia_driver": _text(self._value(self._nvml.nvmlSystemGetDriverVersion)),
            "gpus": [
                {
                    "name": _text(self._value(self._nvml.nvmlDeviceGetName, h)),
                    "uuid": _text(self._value(self._nvml.nvmlDeviceGetUUID, h)),
                }
                for h in self._handles
            ],
        }

    def _value(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return ask(*arguments)
        except self._nvml.NVMLError:  # not supported by this device: recorded as not a number
            return None

    def samples(self) -> Iterator[dict[str, int | float]]:
        """One sample for each GPU; a counter that the device does not have is NaN (memory: -1)."""
        n = self._nvml
        for index, handle in enumerate(self._handles):
            memory = self._value(n.nvmlDeviceGetMemoryInfo, handle)
            use = self._value(n.nvmlDeviceGetUtilizationRates, handle)
            power_mw = self._value(n.nvmlDeviceGetPowerUsage, handle)
            yield {
                "wall_ns": time.time_ns(),
                "gpu": index,
                "gpu_utilisation_percent": _number(use and use.gpu),
                "gpu_memory_used_bytes": int(memory.used) if memory else -1,
                "gpu_power_w": _number(power_mw) / 1000,
                "gpu_temperature_c": _number(
                    self._value(n.nvmlDeviceGetTemperature, handle, n.NVML_TEMPERATURE_GPU)
                ),
                "gpu_sm_clock_mhz": _number(self._value(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_SM)),
            }


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value  # older releases of the library return bytes
