"""Our side of the comparisons: the campaign of trivial cases, and its site. The payload is chosen here alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tests.bench.bench_cluster import CPUS, NODES, ROOT

Packing = Literal["jobs", "sequence"]


def campaign(cases: int, packing: Packing) -> str:
    """`echo ended`, so many times: a job for each, or in sequence in as many allocations as run at once."""
    in_a_job = -(-cases // (NODES * CPUS))
    packed = "{mode: jobs}" if packing == "jobs" else f"{{mode: sequence, max_cases: {in_a_job}}}"
    return (
        "schema: 1\n"
        f"name: trivial-{packing}\n"
        "seed: 1\n"
        f"packing: {packed}\n"
        "groups:\n"
        f"  - {{name: trivial, workload: command, nodes: 1, repeats: {cases}, time_limit_min: 1,\n"
        "     command: {run: [echo, ended], success: {output: '^ended$'}}}\n"
    )


def site() -> str:
    """The emulated site, but nodes are shared, as in everybody else's jobs: four one-CPU jobs a node at once."""
    text = (ROOT / "configs" / "sites" / "emulated.yaml").read_text(encoding="utf-8")
    assert "exclusive: true" in text
    return text.replace("exclusive: true", "exclusive: false", 1)


def write(folder: Path, cases: int, packing: Packing) -> tuple[Path, Path]:
    """Campaign and site as files."""
    paths = folder / f"{packing}.yaml", folder / "site.yaml"
    paths[0].write_text(campaign(cases, packing), encoding="utf-8")
    paths[1].write_text(site(), encoding="utf-8")
    return paths
