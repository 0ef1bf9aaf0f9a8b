"""What the harness itself costs. Measures and prints; passes and fails nothing but its own premises.

Medians of several runs on this machine, side by side with the alternative where there is one.
"""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runtime.recorder import Recorder

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]


def _median_s(work: Callable[[], object], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _print(title: str, rows: list[tuple[str, float, str]]) -> None:
    print(f"\n{title}")
    for name, value, unit in rows:
        print(f"  {name:<52} {value:>10.3g} {unit}")


def test_start_of_the_command_line() -> None:
    def start(*arguments: str) -> float:
        return _median_s(
            lambda: subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        )

    _print(
        "start of the command line (aim: --help within 0.15 s)",
        [
            ("python -c pass", start("-c", "pass"), "s"),
            ("harness --help", start("-m", "harness", "--help"), "s"),
        ],
    )


def test_plan_and_render_of_500_cases(tmp_path: Path) -> None:
    from harness.config import load_site, parse_campaign
    from harness.plan import expand
    from harness.render import render
    from harness.resources import configs_dir, templates_dir

    campaign = parse_campaign(
        "schema: 1\nname: many\nseed: 1\n"
        "groups: [{name: halo, workload: mpi.halo, nodes: 1, repeats: 500, steps: 10, time_limit_min: 50}]\n"
    )
    site, _ = load_site(configs_dir() / "sites" / "emulated.yaml")
    plan = expand(campaign, site)

    def scripts() -> list[str]:
        return [
            render(
                s,
                plan,
                site,
                run_id="0",
                run_folder="/r",
                python="/p",
                code_path="/c",
                templates=templates_dir(),
            )
            for s in plan.submissions
        ]

    assert len(plan.cases) == 500
    _print(
        f"500 cases, {len(plan.submissions)} submissions (aim: under 1 s together)",
        [("plan", _median_s(lambda: expand(campaign, site)), "s"), ("render", _median_s(scripts), "s")],
    )


def test_one_record_against_other_ways_to_keep_it(tmp_path: Path) -> None:
    count = 20_000
    values = {"step": 1, "message_bytes": 65536, "elapsed_ns": 123456}
    recorder = Recorder(tmp_path / "r.rec", 0)
    recorder.define("collectives", tuple(values))

    def record() -> None:
        for _ in range(count):
            recorder.sample("collectives", values)

    lines = os.open(tmp_path / "r.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def json_lines() -> None:
        for _ in range(count):
            os.write(lines, json.dumps(values).encode() + b"\n")

    database = sqlite3.connect(tmp_path / "r.db")
    database.execute("pragma journal_mode=wal")
    database.execute("create table s (step, message_bytes, elapsed_ns)")

    def sqlite() -> None:
        for _ in range(count // 20):
            database.execute("insert into s values (1, 65536, 123456)")
            database.commit()

    _print(
        "one sample that survives SIGKILL of its writer",
        [
            ("recorder (CRC, one write)", _median_s(record, 5) / count * 1e6, "us"),
            ("JSON line, one write", _median_s(json_lines, 5) / count * 1e6, "us"),
            ("SQLite, WAL, a commit each", _median_s(sqlite, 5) / (count // 20) * 1e6, "us"),
        ],
    )
