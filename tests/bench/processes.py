"""Running a command in a process of its own, and what it cost: seconds, processor seconds, peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bench_cluster import ROOT, BenchError

TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Cost:
    """Of one command and its children."""

    wall_s: float
    processor_s: float
    peak_mb: float


def cost(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> Cost:
    """Run a command from the checkout; what it cost, its start included.

    Raises:
        BenchError: it failed, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result, log = Path(folder, "cost.json"), Path(folder, "log")
        with log.open("w") as output:
            subprocess.run(
                [sys.executable, str(ROOT / "tests/bench/timed.py"), str(result), str(timeout_s), "--", *command],
                cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=timeout_s + 30, check=True,
            )  # fmt: skip
        found = json.loads(result.read_text())
        if found["exit_code"] or found["timed_out"]:
            raise BenchError(f"{' '.join(command)[:200]}: {log.read_text()[-500:] or 'took too long'}")
    return Cost(found["wall_s"], found["user_s"] + found["system_s"], found["peak_mb"])


def python(program: str, *arguments: str) -> list[str]:
    """A command that runs this program text in our Python."""
    return [sys.executable, "-c", program, *arguments]
