"""A site and what was seen on its nodes when all was well, to be changed in one place. Not a test."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from harness import config
from harness.model.site import Site
from harness.sites.evidence import Evidence, Line
from harness.sites.judge import judge

SITE = """\
schema: 1
name: tiny
kind: staging
launcher: slurm
partition: batch
limits: {max_nodes: 4, max_time_min: 30, max_array_size: 1000}
node: {cpus: 8, gpus: 1, architecture: x86_64, exclusive: true}
python: /opt/env/bin/python
modules: [cuda]
mpi: {plugin: pmi2}
network: {interface: ib0}
requeue: true
accounting: true
power: {command: [bmc, "{action}", "{node}"]}
"""
MS = 1_000_000


def node(name: str) -> dict[str, Any]:
    """A node on which all is well; its clock is 5 ms behind that of this machine, and 1 ms behind the batch host's."""
    return {
        "node": name, "slurmd": name, "host": name, "architecture": "x86_64", "python": "3.11.7",
        "cpus_machine": 8, "cpus_affinity": 8, "memory_mb": 64000, "memory_limit_mb": 60000, "hello": True,
        "addresses": {"lo": "127.0.0.1", "eth0": "10.0.0.1", "ib0": "10.1.0.1"},
        "clock": {"offset_ns": 1 * MS, "uncertainty_ns": 20_000, "round_trips": 16, "interface": "eth0"},
        "imports": {
            "torch": {"version": "2.13"}, "mpi4py": {"version": "4.1"},
            "pynvml": {"version": ""}, "numpy": {"version": "2.4"},
        },
        "gpus": {"count": 1, "slices": [], "gpus": [{"name": "H100"}], "slurm": "1", "visible": "0", "devices": 1},
        "node_local": {"free_mb": 1000, "type": "ext4"}, "modules": ["cuda/12.8"],
        "answer": {"sent": 1000 * MS, "back": 1040 * MS, "seen": 1015 * MS},
    }  # fmt: skip


def world(ranks: int, sizes: list[int], said: str = "", numbers: list[int] | None = None) -> dict[str, Any]:
    return {
        "ranks": ranks, "code": 0, "sizes": sizes, "numbers": list(range(len(sizes))) if numbers is None else numbers,
        "library": "MPICH  Version:   5.0" if sizes else "", "said": said,
    }  # fmt: skip


def good() -> Evidence:
    return Evidence(
        folder="/shared/x",
        job={"JobState": "COMPLETED", "Requeue": "1", "ExitCode": "0:0"},
        report={
            "job_id": "7", "batch": "n1", "nodes": ["n1", "n2"], "slurm_cpus": {"n1": 8, "n2": 8}, "problem": "",
            "clock": {"offset_ns": 4 * MS, "uncertainty_ns": 30_000, "round_trips": 16, "how": "TCP"},
            "looked": {"n1": node("n1"), "n2": node("n2")},
            "strangers": {"n1": [], "n2": []},
            "mpi": {"pmi2": world(4, [4, 4, 4, 4]), "pmix": world(4, [1, 1, 1, 1], numbers=[0, 0, 0, 0])},
        },
        seen={n: {"seen": 1015 * MS, "replied": 1016 * MS} for n in ("n1", "n2")},
        accounts="COMPLETED",
        power={"n1": "on", "n2": "on"},
        config={"MaxArraySize": "1001", "JobRequeue": "1"},
        partition={"nodes": 10, "max_nodes": None, "max_time_min": 60},
        plugins=("none", "pmi2", "pmix"),
    )  # fmt: skip


def site(*changes: tuple[str, str]) -> Site:
    text = SITE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return config.parse_site(text)


def seen(path: str = "", value: Any = None, **changes: Any) -> Evidence:
    """The good evidence with one value changed: ``looked.n1.cpus_affinity`` of the report, or a field of it all."""
    found = copy.deepcopy(good())
    if path:
        *parents, last = path.split(".")
        place: Any = found.report
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return replace(found, **changes)


def bad(given: Site, found: Evidence) -> list[Line]:
    return [one for one in judge(given, found) if one.status in ("wrong", "unknown")]
