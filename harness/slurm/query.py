"""One batched question a poll: how are all jobs of a campaign? ``sacct``, else ``squeue``; and look-ups by name."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.slurm.commands import CommandError, CommandTimeout, run_command

_FIELDS = ("JobID", "JobName", "State", "ExitCode", "NodeList", "Start", "End")
# Each field ends in a bar. Restarts and exit codes are what sites without accounting have to go by.
_QUEUE = "JobArrayID:|,Name:|,State:|,exit_code:|,NodeList:|,StartTime:|,EndTime:|,RestartCnt:|,Reason:|"
_ARRAY = re.compile(r"^(\d+)_\[([^\]%]+)(?:%\d+)?\]$")


@dataclass(frozen=True)
class JobRow:
    """What Slurm says of one job, or of one task of an array."""

    job_id: str  # "12" or "12_3"
    name: str
    state: str
    exit_code: str = ""
    nodes: str = ""
    start: str = ""
    end: str = ""
    restarts: int = -1  # times that Slurm started it again; -1 where the answer does not say
    reason: str = ""  # why it waits, or ended, where the controller was asked
    gone: bool = False  # asked, and known to nobody: it can run no more


def expand_ids(job_id: str) -> list[str]:
    """``12_[0-2,5%4]`` as ``12_0 12_1 12_2 12_5``: how a pending array's tasks are printed together."""
    match = _ARRAY.match(job_id)
    if not match:
        return [job_id]
    tasks: list[int] = []
    for part in match.group(2).split(","):
        first, _, last = part.partition("-")
        tasks += range(int(first), int(last or first) + 1)
    return [f"{match.group(1)}_{t}" for t in tasks]


def parse_sacct(text: str) -> list[JobRow]:
    """Rows of ``sacct -P -n -X``; lines of another shape are an error in asking, and are left out."""
    rows = []
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == len(_FIELDS):
            job_id, name, state, code, nodes, start, end = parts
            rows += [JobRow(i, name, state, code, nodes, start, end) for i in expand_ids(job_id)]
    return rows


def parse_squeue(text: str) -> list[JobRow]:
    """Rows of ``squeue -h -O``, each field ending in a bar."""
    rows = []
    for line in text.splitlines():
        parts = line.rstrip().removesuffix("|").split("|", 8)
        if len(parts) == 9:
            job_id, name, state, code, nodes, start, end, restarts, why = (p.strip() for p in parts)
            count = int(restarts) if restarts.isdigit() else -1
            rows += [
                JobRow(i, name, state, code, nodes, start, end, count, reason=why) for i in expand_ids(job_id)
            ]
    return rows


def ask(job_ids: Sequence[str], *, accounting: bool, timeout_s: float) -> list[JobRow]:
    """Rows of all these jobs, in one call; a second one, to the controller, only when the first fails.

    Raises:
        CommandError: neither answered; nothing is known.
    """
    if not job_ids:
        return []
    ids = ",".join(sorted(set(job_ids), key=lambda i: (len(i), i)))
    if accounting:
        try:
            return parse_sacct(
                run_command(
                    ["sacct", "-n", "-P", "-X", "-j", ids, f"--format={','.join(_FIELDS)}"],
                    timeout_s=timeout_s,
                )
            )
        except CommandError:
            pass  # the accounting daemon is away: the controller may still know
    return in_queue(job_ids, timeout_s=timeout_s)


def in_queue(job_ids: Sequence[str], *, timeout_s: float) -> list[JobRow]:
    """Rows of those of the jobs that the controller knows; none when it knows none of them.

    Raises:
        CommandError: the controller did not answer.
    """
    ids = ",".join(sorted(set(job_ids), key=lambda i: (len(i), i)))
    try:
        return parse_squeue(
            run_command(["squeue", "-h", "-t", "all", "-j", ids, "-O", _QUEUE], timeout_s=timeout_s)
        )
    except CommandTimeout:
        raise
    except CommandError as error:
        if "Invalid job id" in str(error):  # what squeue says of a single job that it no longer knows
            return []
        raise


def find_by_name(names: Iterable[str], *, accounting: bool, timeout_s: float) -> dict[str, str]:
    """Job ids (without array tasks) of jobs with these names, in the queue or in the accounts of a week.

    Raises:
        CommandError: the controller did not answer, so that a missing name means nothing.
    """
    wanted = ",".join(sorted(names))
    rows = parse_squeue(
        run_command(["squeue", "-h", "-t", "all", "--name", wanted, "-O", _QUEUE], timeout_s=timeout_s)
    )
    found = {row.name: row.job_id.split("_")[0] for row in rows}
    if accounting:
        rows = parse_sacct(
            run_command(
                [
                    "sacct",
                    "-n",
                    "-P",
                    "-X",
                    "--name",
                    wanted,
                    "-S",
                    _days_ago(7),
                    f"--format={','.join(_FIELDS)}",
                ],
                timeout_s=timeout_s,
            )
        )
        found = {**{row.name: row.job_id.split("_")[0] for row in rows}, **found}
    return found


def _days_ago(days: int) -> str:
    """A date for sacct; 20.02 does not know ``now-7days``."""
    return time.strftime("%Y-%m-%d", time.localtime(time.time() - days * 86400))


def starts(job_ids: Iterable[str], *, timeout_s: float) -> list[JobRow]:
    """Every start of these jobs that the accounts hold (``sacct --duplicates``), in order of time.

    A row RESIZING is written for each node that a job lost: no start, and left out.

    Raises:
        CommandError: the accounts did not answer.
    """
    ids = ",".join(sorted(set(job_ids), key=lambda i: (len(i), i)))
    if not ids:
        return []
    rows = parse_sacct(
        run_command(
            ["sacct", "-n", "-P", "-X", "-D", "-j", ids, f"--format={','.join(_FIELDS)}"], timeout_s=timeout_s
        )
    )
    return sorted((r for r in rows if not r.state.startswith("RESIZING")), key=lambda r: (r.job_id, r.start))


def nodes_of(partition: str | None, *, timeout_s: float) -> dict[str, str]:
    """Node -> state as sinfo prints it, of one partition or of all.

    Raises:
        CommandError: the controller did not answer.
    """
    chosen = ["-p", partition] if partition else []
    output = run_command(["sinfo", "-h", "-N", "-o", "%N|%T", *chosen], timeout_s=timeout_s)
    return dict(line.strip().split("|", 1) for line in output.splitlines() if "|" in line)
