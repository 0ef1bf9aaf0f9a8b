"""So many trivial cases from plan to known end: our own time, what the scheduler was asked, files; and others'.

    python -m tests.bench.compare_submission

Every row runs on the same cluster, in rounds (README.md says what else makes it fair). What is not measured
says why. It passes and fails nothing, but a row whose cases did not all end well is no figure.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench import environments, scheduler_calls
from tests.bench.bench_cluster import BenchCluster, BenchError, Cost, alone, busy_share
from tests.bench.rounds import Found, in_rounds
from tests.bench.rows import Row, rows
from tests.bench.scheduler_calls import Calls
from tests.bench.settings import CASES, REPEATS, SETTINGS
from tests.bench.table import print_table, spread, write_json

ONE_DEADLINE_S = 120 + 2.0 * CASES
OUR_OWN = ("work", "logs")  # of our run folder: what its jobs write


@dataclass(frozen=True)
class Measured:
    """One run of one row."""

    cost: Cost
    calls: Calls
    files: int
    """Left at the end, all of them."""
    planned_files: int | None
    """Ours: before the jobs' own, results and report included."""
    cpu_to_known_end_s: float | None
    """Ours: processor time until every case had ended and nothing was collected yet."""
    busy_before: float
    """Share of the processors that others used just before."""


def measure(cluster: BenchCluster, row: Row, number: int) -> Measured:
    """Run one row once, in a folder that is removed afterwards.

    Raises:
        BenchError: its cases did not all end well, in time.
    """
    folder = cluster.new_folder(f"{row.key}-{number}")
    argv = row.argv(folder)
    cluster.give(folder)
    cluster.settle()
    busy = busy_share(1.0)
    since = scheduler_calls.reset(cluster)
    log = cluster.shared / f"{row.key}-{number}.log"
    cost = cluster.timed(argv, log=log, folder=folder, timeout_s=ONE_DEADLINE_S, environment=row.environment)
    calls = scheduler_calls.count(cluster, since)
    known = _known(row, folder)
    if cost.exit_code or cost.timed_out or known != CASES:
        kept = environments.FOLDER / f"failed-{row.key}.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)
        raise BenchError(
            f"{row.key}: exit code {cost.exit_code}{', out of time' if cost.timed_out else ''}, "
            f"{known} of {CASES} cases known to have ended well; what it said is in {kept}"
        )
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    measured = Measured(cost, calls, len(files), *_ours(row, folder, files), busy)
    shutil.rmtree(folder)
    log.unlink()
    return measured


def _known(row: Row, folder: Path) -> int:
    try:
        return row.known(folder)
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def _ours(row: Row, folder: Path, files: Sequence[Path]) -> tuple[int | None, float | None]:
    if not row.ours:
        return None, None
    planned = sum(path.parts[0] == "run" and path.parts[1] not in OUR_OWN for path in files)
    note = folder / "known-end.json"
    return planned, json.loads(note.read_text())["cpu_s"] if note.exists() else None


def show(all_rows: Sequence[Row], results: Found[Measured]) -> None:
    """The table for people."""
    found, why_not = results.values, results.why_not
    header = (
        "",
        "n",
        "own time, s",
        "wall, s",
        "sbatch",
        "controller",
        "accounts",
        "by jobs",
        "files",
        "peak, MB",
    )
    lines = []
    for row in all_rows:
        runs = found[row.key]
        if not runs:
            lines.append((row.title, "0", *["-"] * (len(header) - 2)))
            continue
        lines.append(
            (
                row.title,
                str(len(runs)),
                spread([m.cost.cpu_s for m in runs]),
                spread([m.cost.wall_s for m in runs], 0),
                spread([m.calls.submissions for m in runs], 0),
                spread([m.calls.questions for m in runs], 0),
                spread([m.calls.accounts for m in runs], 0),
                spread([m.calls.of_jobs for m in runs], 0),
                spread([m.files for m in runs], 0),
                spread([m.cost.peak_mb for m in runs], 0),
            )
        )
        until = [m.cpu_to_known_end_s for m in runs if m.cpu_to_known_end_s is not None]
        if until:
            lines.append(("    of it until every end was known", "", spread(until), *[""] * 7))
    print_table(f"{CASES} trivial cases from plan to known end: median (smallest to largest)", header, lines)
    for row in all_rows:
        planned = [m.planned_files for m in found[row.key] if m.planned_files is not None]
        if planned:
            print(
                f"  {row.title}: {spread(planned, 0)} files before the jobs' own, results and report included"
            )
    for row in all_rows:
        if row.key in why_not:
            print(f"  {row.title}: no figure, since {why_not[row.key]}")
    if results.short or results.stopped:
        why = "somebody stopped it" if results.stopped else "the time was up; BENCH_MINUTES gives more"
        print(f"  n below {REPEATS}: {why}")
    busy = [m.busy_before for runs in found.values() for m in runs]
    print(
        "  own time: processor time, user and system, of the command on the login node and all its children\n"
        "  wall: most of it is Slurm and the jobs themselves, on the same cores; it ranks nobody\n"
        "  sbatch, controller: calls of the login node that slurmctld counted (sdiag); one squeue is three\n"
        "  accounts: questions to slurmdbd (sacctmgr show stats); by jobs: their own srun, at slurmctld\n"
        f"  processors busy with other things just before each: {spread([100 * b for b in busy], 0)} %"
    )


def as_data(all_rows: Sequence[Row], results: Found[Measured]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "cases": CASES,
        "repeats_wanted": REPEATS,
        "rows": [
            {
                "row": row.key,
                "title": row.title,
                "version": row.version,
                "why_not": results.why_not.get(row.key, ""),
                "cpu_s_median": statistics.median(m.cost.cpu_s for m in runs) if runs else None,
                "runs": [asdict(m) for m in runs],
            }
            for row in all_rows
            for runs in (results.values[row.key],)
        ],
    }


def main(cluster: BenchCluster, budget_s: float) -> None:
    """Measure and print."""
    version = cluster.as_root(["sbatch", "--version"]).split()[-1]
    all_rows = rows(CASES, environments.submitit(), environments.reframe(), version)
    if SETTINGS.rows:
        all_rows = [row for row in all_rows if row.key in SETTINGS.rows]
    print(f"\n{CASES} cases, {REPEATS} repeats, {budget_s / 60:.0f} minutes", flush=True)
    for row in all_rows:
        print(f"  {row.title:<45} {row.version}", flush=True)
    by_key = {row.key: row for row in all_rows}
    results = in_rounds(
        list(by_key),
        lambda key, number: measure(cluster, by_key[key], number),
        repeats=REPEATS,
        budget_s=budget_s,
        impossible={row.key: row.why_not for row in all_rows if row.why_not},
    )
    show(all_rows, results)
    write_json("submission", as_data(all_rows, results))
    if results.stopped:
        raise KeyboardInterrupt


if __name__ == "__main__":
    alone(lambda cluster: main(cluster, 60 * SETTINGS.minutes))
