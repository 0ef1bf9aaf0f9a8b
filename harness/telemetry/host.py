"""Host counters by psutil."""

from __future__ import annotations

import os
import time

COLUMNS = (
    "wall_ns",
    "cpu_percent",
    "load_1min",
    "memory_available_bytes",
    "memory_used_bytes",
    "network_sent_bytes",
    "network_received_bytes",
)


class Host:
    """Counters of this host.

    Raises:
        ImportError: psutil is not installed.
    """

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        psutil.cpu_percent()  # the first call only sets the base

    def sample(self) -> dict[str, int | float]:
        """The counters now; ``cpu_percent`` is since the sample before."""
        memory = self._psutil.virtual_memory()
        network = [c for name, c in self._psutil.net_io_counters(pernic=True).items() if name != "lo"]
        return {
            "wall_ns": time.time_ns(),
            "cpu_percent": float(self._psutil.cpu_percent()),
            "load_1min": os.getloadavg()[0],
            "memory_available_bytes": int(memory.available),
            "memory_used_bytes": int(memory.used),
            "network_sent_bytes": sum(int(c.bytes_sent) for c in network),
            "network_received_bytes": sum(int(c.bytes_recv) for c in network),
        }
