"""A run folder that looks as if jobs had filled it: what ``collect`` is measured and tested on. Nothing was run.

Every case is `mpi.halo` on some nodes with one rank each, whose stream is as an agent ships it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from harness import crc
from harness.ledger import ENDED, SUBMITTED
from harness.model import event as ev
from harness.model.attempt import COMPLETED, Attempt, StreamEnd
from harness.model.case import Case, Job, Plan, Submission
from harness.model.event import Event
from harness.model.metrics import METRICS
from harness.rundir import IDENTITY_KEYS, RunDir, append_line, write_json
from harness.runtime.recorder import CLOSE, EVENT, HEADER, MAGIC, SAMPLE, SCHEMA, encode

S = 1_000_000_000
START_NS = 1_760_000_000 * S
COLUMNS = ("step", "start_mono_ns", "step_time_ns")
SITE = {
    "name": "generated", "kind": "production", "launcher": "slurm", "node": {"cpus": 4}, "mpi": {}, "network": {},
    "paths": {}, "accounting": True, "scheduler": {}, "power": None,
}  # fmt: skip


def make(folder: Path, cases: int, nodes: int, samples: int) -> RunDir:
    """Fill a new folder; every stream has ``samples`` samples, and ``cases * nodes`` streams there are."""
    folder.mkdir(parents=True)
    run = RunDir(folder)
    all_cases = tuple(
        Case(f"c{n:05}", "g", "mpi.halo", nodes, 1, n, n, samples, 3, {"rows": 64}) for n in range(cases)
    )
    submissions = tuple(
        Submission(f"{n:05}", (Job(f"{n:05}", nodes, 1, 5, (case.case_id,), False),), "mpi.sh.j2")
        for n, case in enumerate(all_cases)
    )
    write_json(run.plan, Plan(all_cases, submissions).to_json())
    write_json(run.site, SITE)
    identity = {**dict.fromkeys(IDENTITY_KEYS, ""), "run_id": "generated", "scripts": {}, "environment": {}}
    write_json(run.identity, {**identity, "created_wall_ns": START_NS, "campaign": "generated"})
    for path in (run.campaign_text, run.site_text):
        path.write_text("generated: true\n")
    for number, case in enumerate(all_cases):
        add_attempt(run, case, f"{number:05}", samples, number)
    with run.ledger.open("w") as ledger:
        for number in range(cases):
            key = f"{number:05}"
            facts = {"state": "COMPLETED", "exit_code": "0:0", "reason": "", "failures": {}}
            for line in (
                {"what": SUBMITTED, "name": key, "job_id": str(100 + number), "wall_ns": START_NS},
                {"what": ENDED, "name": key, "facts": facts, "wall_ns": START_NS},
            ):
                ledger.write(json.dumps(line) + "\n")
    return run


def add_attempt(run: RunDir, case: Case, key: str, samples: int, seed: int, index: int = 0) -> Attempt:
    """An attempt that completed, with its streams."""
    nodes = tuple(f"n{n + 1}" for n in range(case.nodes))
    attempt = Attempt(
        case.case_id, index, key, str(100 + seed), 0, index, nodes, (), nodes, START_NS, S, START_NS + S, 2 * S,
        COMPLETED, last_step=case.steps - 1, policy="first",
    )  # fmt: skip
    folder = run.attempt(key, case.case_id, attempt.folder)
    folder.mkdir(parents=True)
    ends = []
    for rank, node in enumerate(nodes):
        data = stream(case.case_id, index, node, rank, samples, seed * 1000 + rank)
        path = folder / f"{node}.stream"
        path.write_bytes(data)
        ends.append(StreamEnd(node, str(path.relative_to(run.path)), len(data), samples + 3, ""))
    done = Attempt.from_json({**attempt.to_json(), "streams": [vars(end) for end in ends]})
    append_line(run.attempts(key), {"what": "attempt", "attempt": done.to_json(), "wall_ns": START_NS})
    append_line(
        run.attempts(key),
        {
            "what": "case_ended",
            "case_id": case.case_id,
            "outcome": COMPLETED,
            "reason": "",
            "wall_ns": START_NS,
        },
    )
    run.events(key).touch()
    return done


def stream(case_id: str, attempt: int, node: str, rank: int, samples: int, seed: int) -> bytes:
    """What one rank recorded, as its ``Recorder`` would have written it."""
    rng = np.random.default_rng(seed)
    rows = np.empty((samples, 3), dtype="<i8")
    rows[:, 2] = 4e6 * (1 + 0.02 * rng.standard_normal(samples))
    rows[:, 0] = np.arange(samples)
    rows[:, 1] = S + np.cumsum(rows[:, 2])
    payloads = rows.view("u1").reshape(samples, 24)
    head = HEADER.pack(MAGIC, SAMPLE, 0, rank, 24, 0)[:-4]
    frames = np.empty((samples, HEADER.size + 24), dtype="u1")
    frames[:, : len(head)] = np.frombuffer(head, dtype="u1")
    frames[:, len(head) : HEADER.size] = (
        crc.of_rows(head, payloads).astype("<u4").view("u1").reshape(samples, 4)
    )
    frames[:, HEADER.size :] = payloads
    started = Event(
        ev.RANK_STARTED, START_NS, S, node, "rank", case_id, attempt, rank, {"versions": {}, "host": node}
    )
    table = {"table": "steps", "columns": [vars(METRICS[name]) for name in COLUMNS]}
    closing = {"samples": {"steps": samples}, "events": 1}
    return b"".join(
        (
            encode(SCHEMA, 0, rank, json.dumps(table).encode()),
            encode(EVENT, 0, rank, json.dumps(started.to_json()).encode()),
            frames.tobytes(),
            encode(CLOSE, 0, rank, json.dumps(closing).encode()),
        )
    )
