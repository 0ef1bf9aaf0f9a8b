"""Who is compared: each row says how it is started, in which folder, and how its success is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import harness
from tests.bench import ours
from tests.bench.bench_cluster import ROOT
from tests.bench.environments import Installed

_HERE = Path(__file__).parent / "competitors"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    version: str
    argv: Callable[[Path], list[str]]
    """The command, given an empty folder of its own, which is its working folder too."""
    known: Callable[[Path], int]
    """How many cases it says ended well."""
    why_not: str = ""
    """Why it cannot be measured here."""
    environment: dict[str, str] = field(default_factory=dict)
    ours: bool = False


def rows(cases: int, submitit: Installed, reframe: Installed, slurm: str) -> list[Row]:
    """All rows, in the order of the table."""
    in_submitit = _submitit(cases, submitit)
    return [
        _ours(cases, "jobs", "harness, an array of one case a job"),
        _ours(cases, "sequence", "harness, in sequence in 16 allocations"),
        _plain(cases, "sbatch_loop", "sbatch in a loop, squeue, sacct", slurm),
        _plain(cases, "sbatch_array", "one sbatch --array, squeue, sacct", slurm),
        in_submitit("array", "submitit map_array"),
        in_submitit("unthrottled", "submitit one by one, throttle patched out"),
        in_submitit("loop", "submitit one by one, as it comes"),
        _reframe(cases, reframe),
    ]


def _ours(cases: int, packing: ours.Packing, title: str) -> Row:
    def argv(folder: Path) -> list[str]:
        campaign, site = ours.write(folder, cases, packing)
        run = ["run", str(campaign), "--site", str(site), "--folder", str(folder / "run"), "--plain"]
        return [sys.executable, str(_HERE / "ours_noted.py"), "known-end.json", *run]

    def known(folder: Path) -> int:
        summary = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
        return sum(case["verdict"] == "pass" for case in summary["cases"])

    return Row(
        f"harness_{packing}",
        title,
        harness.__version__,
        argv,
        known,
        environment={"PYTHONPATH": str(ROOT)},
        ours=True,
    )


def _plain(cases: int, script: str, title: str, slurm: str) -> Row:
    def argv(folder: Path) -> list[str]:
        return ["bash", str(_HERE / f"{script}.sh"), str(cases)]

    return Row(script, title, slurm, argv, _known_txt)


def _submitit(cases: int, installed: Installed) -> Callable[[str, str], Row]:
    def row(how: str, title: str) -> Row:
        def argv(folder: Path) -> list[str]:
            return [installed.program("python"), str(_HERE / "submitit_jobs.py"), str(cases), how]

        return Row(f"submitit_{how}", title, installed.version, argv, _known_txt, installed.why_not)

    return row


def _reframe(cases: int, installed: Installed) -> Row:
    def argv(folder: Path) -> list[str]:
        return [*reframe_argv(installed, folder), "-r"]

    def known(folder: Path) -> int:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return sum(test["result"] == "pass" for session in report["runs"] for test in session["testcases"])

    return Row(
        "reframe", "ReFrame, asynchronous, tuned", installed.version, argv, known,
        installed.why_not, {"BENCH_CASES": str(cases)},
    )  # fmt: skip


def reframe_argv(installed: Installed, folder: Path) -> list[str]:
    """ReFrame on our settings and test, everything that it writes inside the folder."""
    return [
        "env", f"TMPDIR={folder}", f"HOME={folder}", installed.program("reframe"),
        "-C", str(_HERE / "reframe_settings.py"), "-c", str(_HERE / "reframe_test.py"), "--prefix", str(folder),
    ]  # fmt: skip


def _known_txt(folder: Path) -> int:
    return int((folder / "known.txt").read_text().split()[0])
