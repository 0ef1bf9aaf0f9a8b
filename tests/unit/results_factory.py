"""Generated results files with known truth, written through ``harness.store.Writer``. Not a test.

``quickstart()`` is a small campaign in which every case passes; a test mutates it and writes it. Rows are
plain dictionaries and may be changed freely until ``write``.
"""

from __future__ import annotations

import json

import numpy as np

from tests.unit.results_tables import START_NS, Campaign, Row, S, started, steps


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
