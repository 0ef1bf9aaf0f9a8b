"""A results file under construction: tables as rows that may be changed until it is written. Not a test."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from harness.model.metrics import METRICS
from harness.store import SAMPLE_KEYS, TABLES, TEXT, Writer, samples_of

Row = dict[str, Any]
S = 1_000_000_000
START_NS = 1_760_000_000 * S  # 2025-10-09, so that reports are the same every time
KEYS = tuple(f.name for f in SAMPLE_KEYS)

ATTRIBUTES: dict[str, Any] = {
    "campaign": "quickstart",
    "description": "Does it scale, does it survive, is the answer still right?",
    "run_id": "20251009-0853-7f3a",
    "emulated": True,
    "oversubscribed": False,
    "launcher": "slurm",
    "site": "emulated",
    "site_kind": "emulated",
    "campaign_yaml": "campaign: quickstart\nseed: 1\n",
    "site_yaml": "name: emulated\nlauncher: slurm\n",
    "created_wall_ns": START_NS - 60 * S,
    "collected_wall_ns": START_NS + 240 * S,
    "harness_version": "0.1.0",
    "git_commit": "3f9c1d2e4b5a69788796a5b4c3d2e1f001122334",
    "command": "harness run configs/campaigns/quickstart.yaml --site emulated",
    "environment": json.dumps({"python": "3.11.2", "kernel": "6.1.0", "cpus": 2, "torch": "2.4.1+cpu"}),
    "slurm_version": "slurm-wlm 22.05.8",
}
FACTS = {"kernel": "6.1.0", "cpus": 2, "memory_bytes": 8 * 2**30, "versions": {"torch": "2.4.1+cpu"}}
SCRIPT = "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --job-name='hh.20251009.0001'\n" + (
    "exec python -m harness.runtime.supervisor '/shared/my runs' 0001\n"
)


def defaults(table: str) -> Row:
    """A row of a fixed table with empty values."""
    empty: dict[str, Any] = {TEXT: "", "?": False}
    return {f.name: empty.get(f.type, 0) for f in TABLES[table]}


_FILES: dict[bytes, bytes] = {}  # what was written already: a file takes a tenth of a second


@dataclass
class Campaign:
    """Tables under construction."""

    attributes: dict[str, Any] = field(default_factory=lambda: dict(ATTRIBUTES))
    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    samples: dict[tuple[str, str], dict[str, list[Any]]] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)  # of columns that METRICS does not know

    def add(self, table: str, **values: Any) -> Row:
        """Append a row; columns that are not given are empty."""
        unknown = set(values) - {f.name for f in TABLES[table]}
        assert not unknown, f"{table} has no column {unknown}"
        row = {**defaults(table), **values}
        self.tables[table].append(row)
        return row

    def case(self, case_id: str, **values: Any) -> Row:
        """A case that is complete in evidence; ``params``, ``faults``, ``gates`` are given as data."""
        group, nodes, repeat = values.get("group", "group"), values.get("nodes", 1), values.get("repeat", 0)
        for name in ("params", "faults", "gates"):
            values[name] = json.dumps(values.get(name, {} if name == "params" else []))
        given = {
            "group": group,
            "label": f"{group}/n{nodes}/r{repeat}",
            "workload": "torch.train",
            "nodes": nodes,
            "scaling_mode": "none",
            "ranks": nodes,
            "ranks_per_node": 1,
            "steps": 40,
            "warmup_steps": 3,
            "seed": 1,
            "recovery": "none",
            "shrink": False,
            "deterministic": True,
            "outcome": "completed",
            "evidence": "complete",
        }
        return self.add("cases", case_id=case_id, **{**given, **values})

    def find(self, table: str, **wanted: Any) -> Row:
        """The first row with those values."""
        return next(r for r in self.tables[table] if all(r[k] == v for k, v in wanted.items()))

    def node(self, name: str) -> int:
        """Row number of a node, added when it is new."""
        names = [row["name"] for row in self.tables["nodes"]]
        if name not in names:
            self.add("nodes", name=name, facts=json.dumps(FACTS))
            return len(names)
        return names.index(name)

    def attempt(self, case: Row, nodes: Sequence[str], start_ns: int, end_ns: int, **values: Any) -> Row:
        """An attempt of a case, its job (once), and a whole stream for each node."""
        index = sum(a["case_id"] == case["case_id"] for a in self.tables["attempts"])
        number = len({a["job_key"] for a in self.tables["attempts"]}) + 1
        key = values.pop("job_key", f"{number:04}")
        job_id = str(100 + int(key[:4]))
        if not any(j["job_key"] == key for j in self.tables["jobs"]):
            self.add(
                "jobs",
                job_key=key,
                slurm_job_id=job_id,
                name=f"hh.20251009.{key}",
                state="COMPLETED",
                exit_code="0:0",
                nodes=f"[{','.join(nodes)}]",
                start="2025-10-09T08:53:20",
                end="2025-10-09T08:54:00",
                script=SCRIPT,
                script_sha256="ab" * 32,
            )
        ranks = [n for n in nodes[: case["nodes"]] for _ in range(case["ranks_per_node"])]
        given = {
            "job_key": key,
            "slurm_job_id": job_id,
            "nodes": json.dumps(list(nodes)),
            "rank_nodes": json.dumps(ranks),
            "step_ids": json.dumps([f"{job_id}.{i}" for i in range(len(nodes))]),
            "start_wall_ns": start_ns,
            "end_wall_ns": end_ns,
            "duration_ns": end_ns - start_ns,
            "outcome": "completed",
            "last_step": case["steps"] - 1,
            "restored_step": -1,
        }
        row = self.add("attempts", case_id=case["case_id"], index=index, **{**given, **values})
        for node in nodes:
            self.add(
                "streams",
                case_id=case["case_id"],
                attempt=index,
                node=node,
                status="complete",
                bytes=4096,
                expected_bytes=4096,
                records=99,
                expected_records=99,
                path=f"jobs/{key}/{case['case_id']}/{node}.stream",
            )
        case["attempts"] = index + 1
        case["outcome"] = row["outcome"]
        return row

    def record(self, case: Row, attempt: Row, rank: int, table: str, **columns: Any) -> None:
        """Samples of one rank: each column a value or an array; rank -1 is telemetry of ``node``."""
        node = columns.pop("node", None) or json.loads(attempt["rank_nodes"])[rank]
        length = max(np.size(v) for v in columns.values())
        keys = {
            "case": self.tables["cases"].index(case),
            "attempt": self.tables["attempts"].index(attempt),
            "rank": rank,
            "node": self.node(node),
        }
        where = (samples_of(case["workload"], case["group"]) if rank >= 0 else "telemetry", table)
        held = self.samples.setdefault(where, {name: [] for name in (*KEYS, *columns)})
        for name, value in {**keys, **columns}.items():
            held[name].append(np.broadcast_to(np.asarray(value), (length,)))

    def event(
        self, case: Row | None, attempt: int, rank: int, kind: str, wall_ns: int, host: str, **data: Any
    ) -> Row:
        """An event; every host's monotonic clock began at START_NS - 1000 s."""
        return self.add(
            "events",
            wall_ns=wall_ns,
            mono_ns=mono(wall_ns),
            host=host,
            kind=kind,
            attempt=attempt,
            source="rank" if rank >= 0 else "supervisor",
            rank=rank,
            data=json.dumps(data),
            case_id=case["case_id"] if case else "",
        )

    def check(
        self, case: Row, attempt: int, rank: int, name: str = "sum", passed: bool = True, **values: Any
    ) -> Row:
        """A check of an answer."""
        given = {"expected": "0", "observed": "0" if passed else "7"}
        return self.add(
            "checks",
            case_id=case["case_id"],
            attempt=attempt,
            rank=rank,
            name=name,
            passed=passed,
            **{**given, **values},
        )

    def write(self, path: Path) -> Path:
        """Write the file and return its path. The same rows are put into a file once, then its bytes are copied."""
        rows = sha256(pickle.dumps(self)).digest()
        if rows not in _FILES:
            self._write(path)
            _FILES[rows] = path.read_bytes()
        path.write_bytes(_FILES[rows])
        return path

    def _write(self, path: Path) -> None:
        with Writer(path, self.attributes) as writer:
            for name, fields in TABLES.items():
                rows = self.tables[name]
                writer.table(name, {f.name: [row[f.name] for row in rows] for f in fields})
            for (workload, table), columns in self.samples.items():
                arrays = {n: np.concatenate(v) for n, v in columns.items()}
                facts = {n: self.facts.get(n) or _facts(n) for n in arrays if n not in KEYS}
                writer.samples(workload, table, arrays, facts)


def _facts(name: str) -> Mapping[str, str]:
    metric = METRICS[name]
    return {
        "unit": metric.unit,
        "type": metric.type,
        "direction": metric.direction,
        "definition": metric.definition,
    }


def mono(wall_ns: int) -> int:
    """The monotonic clock of every host."""
    return wall_ns - START_NS + 1000 * S


def started(campaign: Campaign, attempt: Row, wall_ns: int) -> None:
    """The start of the job's run that held an attempt."""
    host = json.loads(attempt["nodes"])[0]
    said = {"job_id": attempt["slurm_job_id"], "restart": attempt["restart"]}
    campaign.event(None, -1, -1, "job.started", wall_ns, host, **said)


def steps(
    campaign: Campaign,
    case: Row,
    attempt: Row,
    first: int,
    last: int,
    time_ns: int,
    start_ns: int,
    noise: float = 0.02,
    columns: Callable[[int], Row] = lambda rank: {},
    seed: int = 0,
) -> int:
    """Steps ``first`` to ``last`` of every rank, a little noisy; returns the wall time of the end."""
    number = np.arange(first, last + 1)
    end_ns = start_ns
    for rank in range(case["ranks"]):
        generator = np.random.default_rng([seed, case["nodes"], case["repeat"], rank])
        times = (time_ns * (1 + noise * np.abs(generator.standard_normal(len(number))))).astype("i8")
        times[:3] *= 2 if first == 0 else 1  # the warm-up
        begins = mono(start_ns) + np.concatenate([[0], np.cumsum(times)[:-1]]).astype("i8")
        campaign.record(
            case,
            attempt,
            rank,
            "steps",
            step=number,
            start_mono_ns=begins,
            step_time_ns=times,
            **columns(rank),
        )
        end_ns = max(end_ns, start_ns + int(np.sum(times)))
    return end_ns
