"""Small real results files for comparisons: halo steps on 1 and 2 nodes, with a known change. Not a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.unit import results_factory as factory
from tests.unit.results_tables import S

NS = 10_000_000
DAY_NS = 86_400 * S


def campaign(
    factor: float = 1.0,
    *,
    repeats: int = 8,
    noise: float = 0.01,
    seed: int = 0,
    nodes: tuple[int, ...] = (2,),
    day: int = 0,
    gates: list[dict[str, Any]] | None = None,
    params: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    versions: dict[str, str] | None = None,
    change: Callable[[factory.Campaign], None] = lambda _: None,
    **attributes: Any,
) -> factory.Campaign:
    """Halo cases whose steps take ``factor`` x 10 ms / nodes, of log-normal noise from repeat to repeat."""
    made = factory.Campaign()
    made.attributes.update({"emulated": False, "run_id": f"run-{seed}-{day}", **attributes})
    made.attributes["created_wall_ns"] = factory.START_NS + day * DAY_NS
    random = np.random.default_rng([seed, day])
    for count in nodes:
        for repeat in range(repeats):
            case = made.case(
                f"halo-n{count}-r{repeat}-s{seed}", group="halo", workload="mpi.halo", nodes=count, repeat=repeat,
                steps=20, params=params or {"rows": 512}, gates=gates or [],
            )  # fmt: skip
            hosts = [f"n{i + 1}" for i in range(count)]
            attempt = made.attempt(case, hosts, factory.START_NS, factory.START_NS + S)
            base_ns = NS * factor * np.exp(noise * random.standard_normal()) / count
            for rank in range(count):
                made.record(
                    case, attempt, rank, "steps", step=range(20), start_mono_ns=range(20), cell_updates=100,
                    step_time_ns=np.full(20, base_ns).astype("i8") + rank, residual=1 / (1 + np.arange(20.0)),
                )  # fmt: skip
            made.check(case, 0, 0)
    for node in made.tables["nodes"]:
        said = {**json.loads(node["facts"]), **(facts or {})}
        said["versions"] = {**said["versions"], **(versions or {})}
        node["facts"] = json.dumps(said)
    change(made)
    return made
