"""Generated results files with known truth, written through ``harness.store.Writer``. Not a test.

``quickstart()`` is a small campaign in which every case passes; a test mutates it and writes it. Rows are
plain dictionaries and may be changed freely until ``write``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
        """Write the file and return its path."""
        with Writer(path, self.attributes) as writer:
            for name, fields in TABLES.items():
                rows = self.tables[name]
                writer.table(name, {f.name: [row[f.name] for row in rows] for f in fields})
            for (workload, table), columns in self.samples.items():
                arrays = {n: np.concatenate(v) for n, v in columns.items()}
                facts = {n: self.facts.get(n) or _facts(n) for n in arrays if n not in KEYS}
                writer.samples(workload, table, arrays, facts)
        return path


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


def allreduce(campaign: Campaign, nodes: int, repeat: int, start_ns: int) -> Row:
    """One all-reduce case: 1 ms + 1 GB/s in two directions, three sizes, checked."""
    sizes = (65536, 1048576, 8388608)
    case = campaign.case(
        f"allreduce-n{nodes}-r{repeat}",
        group="allreduce",
        workload="torch.allreduce",
        scaling_mode="strong",
        nodes=nodes,
        repeat=repeat,
        steps=30,
        warmup_steps=5,
        params={"message_bytes": sizes},
        gates=[
            {
                "metric": "bus_bandwidth_bytes_per_s" if nodes > 1 else "algorithm_bandwidth_bytes_per_s",
                "statistic": "median",
                "minimum": 1e6,
                "maximum": None,
                "where": {"message_bytes": 8388608},
            }
        ],
    )
    attempt = campaign.attempt(case, [f"n{i + 1}" for i in range(nodes)], start_ns, start_ns + 4 * S)
    for rank in range(case["ranks"]):
        generator = np.random.default_rng([7, nodes, repeat, rank])
        for size in sizes:
            base_ns = 200_000 + size * (1 + 2 * (nodes - 1) / nodes)
            times = (base_ns * (1 + 0.15 * np.abs(generator.standard_normal(30)))).astype("i8")
            campaign.record(
                case, attempt, rank, "collectives", step=np.arange(30), message_bytes=size, elapsed_ns=times
            )
            campaign.check(case, 0, rank, f"all-reduce of {size} bytes: wrong elements")
    steps(campaign, case, attempt, 0, 29, 30_000_000, start_ns)
    return case


def halo(campaign: Campaign, mode: str, nodes: int, repeat: int, start_ns: int) -> Row:
    """One halo case: strong follows Amdahl with s = 0.1, weak loses 4 % a node."""
    rows = 512 if mode == "strong" else 256 * nodes
    case = campaign.case(
        f"halo-{mode}-n{nodes}-r{repeat}",
        group=f"halo-{mode}",
        workload="mpi.halo",
        scaling_mode=mode,
        nodes=nodes,
        repeat=repeat,
        steps=60,
        warmup_steps=5,
        params={"rows": rows, "columns": 512},
    )
    attempt = campaign.attempt(case, [f"n{i + 1}" for i in range(nodes)], start_ns, start_ns + 3 * S)
    base = 8_000_000 * (0.1 + 0.9 / nodes) if mode == "strong" else 4_000_000 * (1 + 0.04 * (nodes - 1))
    cells = rows * 512 // nodes
    residual = 1 / (1 + np.arange(60.0))

    def columns(rank: int) -> Row:
        return {
            "residual": residual,
            "compute_ns": int(base * 0.8),
            "communication_ns": int(base * 0.2),
            "cell_updates": cells,
        }

    steps(campaign, case, attempt, 0, 59, int(base), start_ns, columns=columns)
    for rank in range(case["ranks"]):
        campaign.event(
            case, 0, rank, "result", start_ns + 2 * S, f"n{rank + 1}", name="residual", value="0.0166"
        )
    campaign.check(case, 0, 0, "residual equals a single-rank run's", expected="0.0166", observed="0.0166")
    return case


def answer(campaign: Campaign, case: Row, attempt: Row, wall_ns: int) -> None:
    """The same two results and a check on every rank of a training."""
    for rank, host in enumerate(json.loads(attempt["rank_nodes"])):
        for name, value in (("params_digest", "c0ffee" * 8), ("final_loss", "4.3820266723632812")):
            campaign.event(case, attempt["index"], rank, "result", wall_ns, host, name=name, value=value)
        campaign.check(
            case,
            attempt["index"],
            rank,
            "every batch once",
            expected="batch n in step n",
            observed="batch n in step n",
        )


def train(campaign: Campaign, repeat: int, start_ns: int) -> Row:
    """An undisturbed training on two nodes."""
    case = campaign.case(f"train-r{repeat}", group="train", nodes=2, repeat=repeat)
    attempt = campaign.attempt(case, ["n1", "n2"], start_ns, start_ns + 6 * S)
    end_ns = steps(campaign, case, attempt, 0, 39, 120_000_000, start_ns, columns=_training)
    answer(campaign, case, attempt, end_ns)
    return case


def _training(rank: int) -> Row:
    return {"loss": 5.0, "tokens": 256}


def train_fault(campaign: Campaign, repeat: int, start_ns: int) -> Row:
    """A training that loses n2 after step 22, and goes on from its checkpoint of step 20 on n1 and n3."""
    fault = {
        "fault_id": f"train-fault-r{repeat}-f0",
        "kind": "node.power_off",
        "requested_kind": "node.power_off",
        "target_node": 1,
        "at_step": 22,
        "expect": "recovered",
    }
    case = campaign.case(
        f"train-fault-r{repeat}",
        group="train-fault",
        nodes=2,
        repeat=repeat,
        faults=[fault],
        recovery="requeue",
        twin=f"train-r{repeat}",
    )
    first = campaign.attempt(
        case,
        ["n1", "n2"],
        start_ns,
        start_ns + 5 * S,
        outcome="node_lost",
        last_step=22,
        reason="node n2 stopped answering",
    )
    broken_ns = steps(campaign, case, first, 0, 22, 120_000_000, start_ns + S, columns=_training)
    t1 = broken_ns + 60_000_000
    campaign.find("streams", case_id=case["case_id"], node="n2").update(
        status="gap",
        expected_bytes=-1,
        expected_records=-1,
        detail="its node was lost; 99 records had been shipped",
    )
    again_ns = t1 + 7 * S
    second = campaign.attempt(
        case,
        ["n1", "n3"],
        again_ns,
        again_ns + 4 * S,
        job_key=first["job_key"],
        restart=1,
        first_step=20,
        restored_step=20,
    )
    started(campaign, second, again_ns - 400_000_000)
    end_ns = steps(campaign, case, second, 20, 39, 120_000_000, again_ns + 1_500_000_000, columns=_training)
    for rank, host in enumerate(("n1", "n2")):
        campaign.record(
            case,
            first,
            rank,
            "checkpoints",
            step=[10, 20],
            checkpoint_time_ns=[9_000_000, 8_500_000],
            checkpoint_bytes=400_000,
        )
        for step in (10, 20):
            campaign.event(
                case,
                0,
                rank,
                "checkpoint.committed",
                start_ns + step * S // 8,
                host,
                step=step,
                digest=f"d{step}r{rank}",
                path=f"step-{step:08}.0.0",
            )
    for rank, host in enumerate(("n1", "n3")):
        campaign.event(
            case,
            1,
            rank,
            "checkpoint.restored",
            again_ns + S,
            host,
            step=20,
            digest=f"d20r{rank}",
            path="step-00000020.0.0",
        )
    answer(campaign, case, second, end_ns)
    campaign.add(
        "faults",
        fault_id=f"{case['case_id']}-f0",
        case_id=case["case_id"],
        attempt=0,
        kind="node.power_off",
        requested_kind="node.power_off",
        target="node n2",
        nodes=json.dumps(["n2"]),
        trigger="step 22",
        policy="requeue",
        at_step=22,
        expect="recovered",
        requested=True,
        observed=True,
        healed=True,
        requested_wall_ns=t1 - 80_000_000,
        injected_wall_ns=t1,
        observed_wall_ns=t1 + 900_000_000,
        detected_wall_ns=t1 + 700_000_000,
        first_step_wall_ns=again_ns + 1_640_000_000,
        recovered_wall_ns=again_ns + 2 * S,
        healed_wall_ns=t1 + 12 * S,
        evidence=json.dumps(
            {
                "fault.observed": {"evidence": {"power": "off", "agent": "no beat for 0.7 s"}},
                "fault.healed": {"evidence": {"power": "on", "slurm": "IDLE"}},
            }
        ),
    )
    return case


def telemetry(campaign: Campaign) -> None:
    """Host counters of every node over the campaign, and GPUs that are not there."""
    case, attempt = campaign.tables["cases"][0], campaign.tables["attempts"][0]
    for number, name in enumerate(row["name"] for row in list(campaign.tables["nodes"])):
        generator = np.random.default_rng([3, number])
        n = 120
        wall = START_NS + np.arange(n) * 2 * S
        busy = 55 + 30 * np.sin(np.arange(n) / 9 + number) + 6 * generator.standard_normal(n)
        used = ((1.5 + 0.2 * np.sin(np.arange(n) / 17)) * 2**30).astype("i8")
        campaign.record(
            case,
            attempt,
            -1,
            "host",
            node=name,
            wall_ns=wall,
            cpu_percent=np.clip(busy, 0, 100),
            load_1min=busy / 40,
            memory_available_bytes=2**32 - used,
            memory_used_bytes=used,
            network_sent_bytes=np.cumsum(generator.integers(1, 9_000_000, n)),
            network_received_bytes=np.cumsum(generator.integers(1, 9_000_000, n)),
        )
        campaign.add("telemetry_absent", node=name, what="gpu", reason="NVML: Driver Not Loaded")


def quickstart(repeats: int = 3) -> Campaign:
    """The demo's campaign in small: every case passes."""
    campaign = Campaign()
    now = START_NS
    for repeat in range(repeats):
        for nodes in (1, 2, 4):
            allreduce(campaign, nodes, repeat, now)
            now += 5 * S
    for mode in ("strong", "weak"):
        for repeat in range(repeats):
            for nodes in (1, 2, 4):
                halo(campaign, mode, nodes, repeat, now)
                now += 4 * S
    for repeat in range(repeats):
        train(campaign, repeat, now)
        train_fault(campaign, repeat, now + 8 * S)
        now += 40 * S
    telemetry(campaign)
    return campaign


def small() -> Campaign:
    """One case of each kind that the rules look at: a twin, and a training with a fault; both pass."""
    campaign = Campaign()
    train(campaign, 0, START_NS)
    train_fault(campaign, 0, START_NS + 8 * S)
    return campaign


# What a page, a shell, a terminal or an XML reader might take for more than text.
HOSTILE = (
    "<script>document.documentElement.dataset.pwned='1'</script>",
    "\"'><img src=x onerror=\"document.documentElement.dataset.pwned='1'\">",
    "</pre></style></title></svg><svg onload=alert(1)>",
    "]]><!-- & &amp; {{ 7*7 }} {% raw %} $x^{2$ \\frac",
    "\x1b[31mred\x1b[0m \x07bell \x85 \ufffe \u202eevil\u202c \u200b",
    "Größe 数 😀 " + "long" * 60,
    "https://evil.example/x.js",
)


def hostile() -> Campaign:
    """A campaign in which every text of the file is an attack."""
    campaign = small()
    allreduce(campaign, 2, 0, START_NS)
    for nodes in (1, 2):
        halo(campaign, "strong", nodes, 0, START_NS)
    telemetry(campaign)
    everything = " ".join(HOSTILE)
    case = campaign.find("cases", case_id="train-r0")
    campaign.event(case, 0, 0, "rank.started", START_NS, everything, versions={everything: everything})
    campaign.check(case, 0, 0, everything, False, expected=everything, observed=everything, detail=everything)
    keep = {
        "case_id",
        "workload",
        "scaling_mode",
        "twin",
        "kind",
        "outcome",
        "expect",
        "fault_id",
        "requested_kind",
    }
    keep |= {
        "faults",
        "gates",
        "data",
        "evidence",
        "job_key",
        "status",
        "step_ids",
        "rank_nodes",
        "source",
        "host",
    }
    for name, rows in campaign.tables.items():
        for number, row in enumerate(rows):
            for column, value in row.items():
                if not isinstance(value, str) or column in keep or (name, column) == ("attempts", "nodes"):
                    continue
                row[column] = f"{HOSTILE[number % len(HOSTILE)]}{value}"
    hosts = {old: campaign.tables["nodes"][i]["name"] for i, old in enumerate(("n1", "n2", "n3"))}
    for attempt in campaign.tables["attempts"]:
        for column in ("nodes", "rank_nodes"):
            attempt[column] = json.dumps([hosts[n] for n in json.loads(attempt[column])])
        attempt["step_ids"] = json.dumps([everything])
    for event in campaign.tables["events"]:
        event["host"] = hosts.get(event["host"], event["host"])
    for fault in campaign.tables["faults"]:
        fault.update(
            target=everything,
            nodes=json.dumps([hosts["n2"]]),
            trigger=everything,
            blamed=everything,
            evidence=json.dumps({everything: everything}),
        )
    for case in campaign.tables["cases"]:
        case["params"] = json.dumps({everything: everything})
    for name, value in campaign.attributes.items():
        if isinstance(value, str) and name not in ("launcher", "environment"):
            campaign.attributes[name] = everything + value
    campaign.attributes["environment"] = json.dumps({everything: {everything: 1}})
    return campaign


def spared() -> Campaign:
    """``small``, with a repeat between its cases that was not needed, as of ``repeats: until``."""
    campaign = small()
    campaign.case(
        "train-r1", group="train", nodes=2, repeat=1, outcome="not_run",
        reason="not needed: ±1.4 % after 9 repeats",
    )  # fmt: skip
    campaign.tables["cases"].insert(1, campaign.tables["cases"].pop())
    for columns in campaign.samples.values():
        columns["case"] = [np.where(np.asarray(c) >= 1, np.asarray(c) + 1, c) for c in columns["case"]]
    return campaign
