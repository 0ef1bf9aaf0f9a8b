"""What a bench is told by its environment: how many cases, how often, how long."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def _list(name: str) -> frozenset[str]:
    return frozenset(filter(None, os.environ.get(name, "").split(",")))


@dataclass(frozen=True)
class Settings:
    """Read once, when the bench starts."""

    cases: int = field(default_factory=lambda: int(os.environ.get("BENCH_CASES", "500")))
    repeats: int = field(default_factory=lambda: int(os.environ.get("BENCH_REPEATS", "5")))
    minutes: float = field(default_factory=lambda: float(os.environ.get("BENCH_MINUTES", "28")))
    """For all parts together; what is quick has all its repeats, what takes minutes as many as fit."""
    rows: frozenset[str] = field(default_factory=lambda: _list("BENCH_ROWS"))
    """Only these rows; empty: all."""


SETTINGS = Settings()
CASES, REPEATS = SETTINGS.cases, SETTINGS.repeats
