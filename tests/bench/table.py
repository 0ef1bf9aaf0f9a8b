"""How figures are printed and kept: a table with units, medians and spreads, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.bench_cluster import ROOT
from tests.bench.environments import FOLDER


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median (smallest to largest)``; the median alone where all are equal."""
    if not values:
        return "not measured"
    middle, low, high = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    print(f"\n{title}")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  " + "  ".join(cells).rstrip(), flush=True)


def write_json(name: str, data: dict[str, Any]) -> Path:
    """Keep figures as `.harness/bench/NAME.json`, with what they were measured on."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    document = {"schema": 1, "bench": name, "machine": machine(), **data}
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"  as data: {path.relative_to(ROOT)}")
    return path


def machine() -> dict[str, Any]:
    """What figures depend on and do not say themselves."""
    slurm = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, check=False)
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "slurm": slurm.stdout.strip() or "absent",
        "load_1_min": os.getloadavg()[0],
    }
