"""Why a case did not end well: the classes of failure, one home for telling them apart. Pure.

What those who were there wrote (the supervisor's attempts) goes before what Slurm says of the job
afterwards; where neither can tell, the class is *unknown*, which is a class of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from harness.model import attempt as at
from harness.model import event as ev
from harness.slurm.commands import controller_is_away

PROGRAM = "program"  # it ended badly by itself
MACHINE = "machine"  # a node failed, or did not start the job
MEMORY = "memory"
TIME_LIMIT = "time_limit"
PREEMPTED = "preempted"
CANCELLED = "cancelled"
UNKNOWN = "unknown"
# Exit code of a supervisor that could not write to the run folder: EX_IOERR of sysexits.h.
EXIT_STORAGE = 74
CLASSES = (PROGRAM, MACHINE, MEMORY, TIME_LIMIT, PREEMPTED, CANCELLED, UNKNOWN)

# What a job's final state says of a case that it left undone. COMPLETED and FAILED say nothing: the exit
# code is our supervisor's, which has its own words.
_BY_STATE = {
    "NODE_FAIL": MACHINE,
    "BOOT_FAIL": MACHINE,
    "LAUNCH_FAILED": MACHINE,
    "RECONFIG_FAIL": MACHINE,
    "OUT_OF_MEMORY": MEMORY,
    "TIMEOUT": TIME_LIMIT,
    "DEADLINE": TIME_LIMIT,
    "PREEMPTED": PREEMPTED,
    "CANCELLED": CANCELLED,
}

_OUT_OF_MEMORY = re.compile(r"^(MemoryError|(torch\.)?(cuda\.)?OutOfMemoryError)\b|killed for memory", re.I)
_OVERDUE = re.compile(r"^its program was not finished within ")


def of_words(words: str) -> str:
    """Class of a rank's last words: memory, a program's own time limit, or the program's own."""
    if _OVERDUE.search(words):
        return TIME_LIMIT
    return MEMORY if _OUT_OF_MEMORY.search(words) else PROGRAM


def of_exit_code(exit_code: str) -> str:
    """What a supervisor says by its exit code alone, as Slurm prints it, ``74:0``; "" where it says nothing."""
    if exit_code.partition(":")[0] != str(EXIT_STORAGE):
        return ""
    return "its supervisor could not write to the run folder, which was full, at a quota, or read-only"


def of_case(case_id: str, lines: Iterable[Mapping[str, Any]], state: str) -> str:
    """Why one case of an ended job did not end well; "" where it did.

    Args:
        case_id: the case.
        lines: the job's attempts file.
        state: the job's final state, as Slurm's clients print it.
    """
    outcome, failure = "", ""
    for line in lines:
        if line["what"] == "attempt" and line["attempt"]["case_id"] == case_id:
            outcome, failure = line["attempt"]["outcome"], line["attempt"].get("failure", "")
        elif line["what"] == "case_ended" and line["case_id"] == case_id:
            outcome = line["outcome"]
    word = state.strip().split(" ")[0].rstrip("+").upper()
    # COMPLETED: its supervisor called all cases well. Where its words are late, doing it again were doing it twice.
    if outcome == at.COMPLETED or word == "COMPLETED":
        return ""
    if failure:
        return failure
    if outcome == at.FAILED:
        return PROGRAM
    if word in _BY_STATE:
        return _BY_STATE[word]
    return MACHINE if outcome == at.NODE_LOST else UNKNOWN


def lost_nodes(
    events: Iterable[Mapping[str, Any]], job_nodes: str, classes: Collection[str]
) -> dict[str, str]:
    """Nodes to blame for a job that the machine ended, each with the reason; none where nobody can say which.

    Args:
        events: the job's events of this round.
        job_nodes: its node list as Slurm prints it; blamed where it names one node.
        classes: why its cases failed.
    """
    if MACHINE not in classes:
        return {}
    blamed = {
        str(e["data"]["node"]): "its agent fell silent"
        for e in events
        if e["kind"] == ev.NODE_SILENT
        and "node" in e["data"]
        and not controller_is_away(e["data"].get("why", ""))  # that is no node's fault
    }
    if not blamed and job_nodes and re.fullmatch(r"[A-Za-z0-9._-]+", job_nodes):
        return {job_nodes: "its job was ended by the machine"}
    return blamed


def exclusion(
    wanted: Sequence[str], suspects: Sequence[str], cluster: Collection[str], nodes: int
) -> tuple[list[str], list[str]]:
    """Nodes to exclude from a job, and suspects that are let in because too few nodes would be left.

    sbatch refuses a job altogether when it is to exclude a name that the cluster does not know.

    Args:
        wanted: what the site's file excludes.
        suspects: what this run suspects, the first to be suspected first.
        cluster: nodes of the job's partition.
        nodes: how many the job needs.
    """
    excluded = [name for name in dict.fromkeys(wanted) if name in cluster]
    let_in = []
    for name in dict.fromkeys(suspects):
        if name not in cluster or name in excluded:
            continue
        if len(cluster) - len(excluded) - 1 >= nodes:
            excluded.append(name)
        else:
            let_in.append(name)
    return excluded, let_in
