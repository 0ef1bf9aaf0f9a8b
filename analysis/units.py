"""Which figures depend on the machine and not on the answer alone, by their unit."""

from __future__ import annotations

import re

# Times, uses, and all rates.
PERFORMANCE_UNITS = frozenset({"ns", "us", "ms", "s", "min", "h", "%", "W", "J", "kWh", "degC", "MHz", "GHz"})
_RATE = re.compile(r"/ ?(s|sec|min|h|day)$|^[kMGTPE]?(flops?|iops|ips|bps|teps|updates)$", re.IGNORECASE)


def is_performance(unit: str) -> bool:
    """Whether a figure of that unit depends on the machine, and not on the answer alone."""
    return unit in PERFORMANCE_UNITS or bool(_RATE.search(unit))
