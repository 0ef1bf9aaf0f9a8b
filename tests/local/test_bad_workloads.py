"""Workloads that misbehave: each ends its case in words, and the other cases run.

They are planted in the run folder's frozen code, which is where a job takes its workloads from.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from harness.model.case import Case, Job, Plan, Submission
from harness.rundir import RunDir, write_json
from harness.store import Results

pytestmark = pytest.mark.timeout(120)

BAD = """
import os, sys
from harness.workloads.mpi_halo import MpiHalo

class Raises(MpiHalo):
    def step(self, step):
        if step == 3 and self.context.rank == 1:
            sys.stdout.buffer.write(b"not utf-8: \\xff\\xfe\\n")
            raise RuntimeError("rank one has \\udcff had enough")
        return super().step(step)

class Leaves(MpiHalo):
    def step(self, step):
        if step == 3 and self.context.rank == 1:
            os._exit(0)
        return super().step(step)
"""


def _case(name: str, workload: str) -> Case:
    return Case(name, name, workload, 2, 1, 0, 1, 8, 0, {"rows": 32, "columns": 32}, time_limit_min=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bad") / "run"
    campaign = folder.parent / "c.yaml"
    campaign.write_text(
        "schema: 1\nname: bad\nseed: 1\ngroups: [{name: g, workload: mpi.halo, nodes: 2, steps: 8}]\n"
    )
    planned = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from harness import cli; from harness.verbs.before import read\n"
            "from harness.prepare import open_or_make\nfrom pathlib import Path\n"
            f"o = cli.build_parser('run').parse_args(['run', {str(campaign)!r}, '--site', 'local'])\no.command = []\n"
            f"open_or_make(Path({str(folder)!r}), *read(o))",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert planned.returncode == 0, planned.stderr
    made = RunDir(folder)
    cases = (_case("raises", "bad.raises"), _case("leaves", "bad.leaves"), _case("good", "mpi.halo"))
    job = Job("0000", 2, 1, 5, tuple(c.case_id for c in cases), False)
    write_json(made.plan, Plan(cases, (Submission("0000", (job,), "mpi.sh.j2"),)).to_json())
    _plant(made.code)
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from harness.driver import Driver; from harness.rundir import RunDir\n"
            "from harness.collect import collect\nd = Driver(RunDir(sys.argv[1]))\n"
            "with d.lease():\n    d.drive(lambda views, trouble: None)\ncollect(d.run)",
            str(folder),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    with Results(made.results) as results:
        return folder, {c["case_id"]: c for c in results.rows("cases")}, results.rows("events")


def _plant(code: Path) -> None:
    registry = "harness/workloads/__init__.py"
    with zipfile.ZipFile(code) as archive:
        content = {i.filename: archive.read(i) for i in archive.infolist()}
    del content[registry + "c"]
    content[registry] += (
        b'\nfor _n, _c in (("bad.raises", "Raises"), ("bad.leaves", "Leaves")):\n'
        b'    REGISTRY[_n] = Entry("harness.workloads.bad", "mpi", 8, 0, {}, False, "")\n'
        b"_create = create\n"
        b"def create(name):\n"
        b'    if name.startswith("bad."):\n'
        b'        return getattr(import_module("harness.workloads.bad"), name[4:].capitalize())()\n'
        b"    return _create(name)\n"
    )
    content["harness/workloads/bad.py"] = BAD.encode()
    with zipfile.ZipFile(code, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_a_rank_that_raises_fails_the_case_with_its_own_words(run: Any) -> None:
    _, cases, events = run
    case = cases["raises"]
    assert case["outcome"] == "failed"
    assert case["reason"].startswith("rank 1 on local1: RuntimeError: rank one has")
    assert [
        (e["rank"], e["source"]) for e in events if e["kind"] == "rank.raised" and e["case_id"] == "raises"
    ] == [(1, "rank")]


def test_output_that_is_no_utf8_is_kept_as_it_was(run: Any) -> None:
    folder, _, _ = run
    logs = b"".join(p.read_bytes() for p in folder.glob("work/0000/raises/attempt-0.0/*.log"))
    assert b"not utf-8: \xff\xfe" in logs
    shown = subprocess.run(
        [sys.executable, "-m", "harness", "logs", str(folder), "--case", "raises"],
        capture_output=True,
        timeout=60,
    )
    assert shown.returncode == 0
    shown.stdout.decode("utf-8")


def test_a_rank_that_exits_0_without_finishing_fails_the_case(run: Any) -> None:
    _, cases, _ = run
    assert cases["leaves"]["outcome"] == "failed"
    # Which of the two is named depends on how fast mpiexec ends the other one.
    assert re.match(
        r"rank [01] on local[01] ended without finishing: running, 3 of 8 steps, [12] of 2 ranks like it; ",
        cases["leaves"]["reason"],
    )


def test_the_case_after_them_runs(run: Any) -> None:
    _, cases, _ = run
    assert (cases["good"]["outcome"], cases["good"]["evidence"]) == ("completed", "complete")
