"""A site file and what was seen of its cluster -> lines: ok, wrong, unknown, and what to change. Pure.

A line is *wrong* when runs would fail or mislead, *unknown* when it could not be seen, a *note* when it is
worth knowing and nothing need change. What was not seen is never ok.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from harness.model.site import Site
from harness.runtime.site_probe import NO_FOLDER, NO_PYTHON
from harness.sites.evidence import NOTE, OK, UNKNOWN, WRONG, Evidence, Line
from harness.sites.judge_nodes import node_lines

EXIT_OK, EXIT_WRONG, EXIT_UNKNOWN = 0, 1, 3

# What sbatch says -> the key that it is about.
_REFUSALS = (
    (re.compile("account", re.I), "account"),
    (re.compile("partition", re.I), "partition"),
    (re.compile("qos", re.I), "qos"),
    (re.compile("reservation", re.I), "reservation"),
    (re.compile("feature|constraint", re.I), "constraint"),
    (re.compile("licen[sc]e", re.I), "licenses"),
    (re.compile("generic resource|gres", re.I), "node.gpus"),
    (re.compile("memory", re.I), "node.memory_mb"),
    (re.compile("cpu count|cpus", re.I), "node.cpus"),
    (re.compile("time limit", re.I), "limits.max_time_min"),
    (
        re.compile("node count|node configuration", re.I),
        "limits.max_nodes, node.gpus, node.memory_mb, constraint",
    ),
)
# Reasons of a pending job that do not pass by waiting -> the key.
NEVER_STARTS = {
    "PartitionNodeLimit": "limits.max_nodes",
    "PartitionTimeLimit": "limits.max_time_min",
    "PartitionConfig": "limits.max_nodes, partition",
    "PartitionDown": "partition",
    "PartitionInactive": "partition",
    "AccountNotAllowed": "account",
    "QOSNotAllowed": "qos",
    "InvalidAccount": "account",
    "InvalidQOS": "qos",
    "BadConstraints": "constraint",
    "AssocMaxNodePerJobLimit": "limits.max_nodes",
    "AssocMaxWallDurationPerJobLimit": "limits.max_time_min",
    "QOSMaxNodePerJobLimit": "limits.max_nodes",
    "QOSMaxWallDurationPerJobLimit": "limits.max_time_min",
    "ReservationDeleted": "reservation",
    "JobHeldAdmin": "partition",
    "Licenses": "",
}


def judge(site: Site, seen: Evidence) -> list[Line]:
    """Every line about one site, or one of its partitions, resolved."""
    lines = [*_submission(site, seen)]
    if seen.report is not None:
        lines += node_lines(site, seen, seen.report)
        lines += _mpi(site, seen, seen.report)
    lines += _limits(site, seen)
    if seen.strange_nodes:
        names = ", ".join(seen.strange_nodes)
        lines.append(
            Line(NOTE, "exclude_nodes", f"the cluster has no {names}, so left out when jobs are submitted")
        )
    if seen.job:
        lines += [*_requeue(site, seen), *_accounting(site, seen)]
    if seen.report is not None:
        lines += _power(site, seen)
    return lines


def exit_code(lines: Sequence[Line]) -> int:
    """1 where something is wrong, else 3 where something is unknown, else 0."""
    statuses = {line.status for line in lines}
    return EXIT_WRONG if WRONG in statuses else EXIT_UNKNOWN if UNKNOWN in statuses else EXIT_OK


# ---- the job itself ----


def _submission(site: Site, seen: Evidence) -> Iterator[Line]:
    if seen.refused:
        place = next(
            (key for pattern, key in _REFUSALS if pattern.search(_without_command(seen.refused))), "partition"
        )
        given = _value(site, place)
        yield Line(
            WRONG,
            place,
            f"sbatch refused the job: {_without_command(seen.refused)}",
            f"correct {place}{given}",
        )
        return
    if seen.submit_trouble:
        yield Line(UNKNOWN, "scheduler", seen.submit_trouble, "try again when the controller answers")
        return
    state, reason = seen.job.get("JobState", "UNKNOWN"), seen.job.get("Reason", "")
    if seen.report is not None:
        problem = seen.report.get("problem")
        if problem:
            yield Line(WRONG, "job", f"it could not look at its nodes: {problem}", "see what it says")
        else:
            yield Line(OK, "job", f"job {seen.report['job_id']} ran on {', '.join(seen.report['nodes'])}")
        return
    if state == "PENDING":
        if place := NEVER_STARTS.get(reason, ""):
            yield Line(
                WRONG, place, f"the job will not start: {reason}", f"correct {place}{_value(site, place)}"
            )
        else:
            yield Line(
                UNKNOWN,
                "job",
                f"still waiting ({reason or 'no reason given'}) after {seen.waited_s:.0f} s, and cancelled",
                f"try again with a longer --wait-min than {seen.deadline_s / 60:g}",
            )
        return
    yield _why_no_report(site, seen, state)


def _without_command(text: str) -> str:
    return text.partition("said: ")[2] or text


def _value(site: Site, place: str) -> str:
    value = getattr(site, place, None)
    return f" = {value}" if isinstance(value, str) else ""


def _why_no_report(site: Site, seen: Evidence, state: str) -> Line:
    code = seen.job.get("ExitCode", "")
    number = code.split(":")[0]
    last = " | ".join(line.strip() for line in seen.out.strip().splitlines()[-3:])[-400:]
    if number == str(NO_FOLDER):
        return Line(
            WRONG,
            "paths.shared",
            f"the job's node does not see {seen.folder}, or cannot write in it",
            "give a --folder that all nodes see, and name such folders in paths.shared",
        )
    if number == str(NO_PYTHON):
        return Line(
            WRONG,
            "python",
            f"there is no such interpreter on the job's node: {site.python or 'the one that planned this'}",
            "name one that all nodes have",
        )
    if found := re.search(r"module (\S+) of the site file cannot be loaded", seen.out):
        return Line(
            WRONG, "modules", f"{found[1]} cannot be loaded: {last}", "`module avail` on a node lists them"
        )
    if found := re.search(r"prologue of the site file: line (\d+) failed", seen.out):
        index = int(found[1]) - 1
        text = site.prologue[index] if index < len(site.prologue) else ""
        return Line(
            WRONG, f"prologue[{index}]", f"failed on the job's node: {text}: {last}", "correct the line"
        )
    if re.search(r"No module named '?harness|SyntaxError|ImportError", seen.out):
        return Line(
            WRONG,
            "python",
            f"{site.python or 'the interpreter'} cannot run the harness: {last}",
            "name a Python of 3.10 or newer",
        )
    waited = f"after {seen.waited_s:.0f} s" if state in ("RUNNING", "CONFIGURING", "COMPLETING") else ""
    return Line(
        UNKNOWN,
        "job",
        f"the job is {state} {waited}(exit code {code or 'unknown'}) and left no report; "
        + (f"its output ends: {last}" if last else f"it printed nothing into {seen.folder}"),
        "run again with --keep and look into the folder",
    )


# ---- MPI ----


def _mpi(site: Site, seen: Evidence, report: Any) -> Iterator[Line]:
    own = site.mpi.plugin
    tried = dict(sorted(report.get("mpi", {}).items(), key=lambda item: (item[0] != own, item[0])))
    good = [p for p, world in tried.items() if _one_world(world)]
    for plugin, world in tried.items():
        said = _world_words(world)
        if plugin != own:
            use = "works here too" if plugin in good else "do not use it with this MPI library"
            yield Line(NOTE, f"srun --mpi={plugin}", f"{said}; {use}")
        elif plugin in good:
            yield Line(OK, "mpi.plugin", f"{plugin}: {said}")
        elif not world["sizes"] and "mpi4py" in world["said"] and "No module" in world["said"]:
            yield Line(
                UNKNOWN, "mpi.plugin", f"{plugin}: mpi4py is not there to ask", "install the extra 'mpi'"
            )
        elif own not in seen.plugins and seen.plugins:
            yield Line(
                WRONG,
                "mpi.plugin",
                f"{plugin}: this Slurm has none of that name, only {', '.join(seen.plugins)}",
                _instead(good),
            )
        else:
            yield Line(WRONG, "mpi.plugin", f"{plugin}: {said}", _instead(good))


def _instead(good: Sequence[str]) -> str:
    if good:
        return f"write plugin: {good[0]}"
    return (
        "none of this Slurm's plug-ins fits the MPI library of mpi4py: install one that speaks pmix or pmi2"
    )


def _one_world(world: Any) -> bool:
    ranks = world["ranks"]
    return bool(world["sizes"] == [ranks] * ranks and world["numbers"] == list(range(ranks)))


def _world_words(world: Any) -> str:
    library = f" ({' '.join(world['library'].split())})" if world["library"] else ""
    ranks, sizes = world["ranks"], world["sizes"]
    if _one_world(world):
        return f"one world of {ranks} ranks{library}"
    if len(sizes) == ranks and set(sizes) == {1}:
        return f"{ranks} worlds of 1 rank{library}"
    if not sizes:
        return f"no rank started: {world['said'] or 'it said nothing'}"
    why = world["said"] or f"their numbers are {', '.join(map(str, world['numbers']))}"
    return f"of {ranks} ranks, those that answered saw worlds of {sorted(set(sizes))}{library}: {why}"


# ---- what the controller says ----


def _limits(site: Site, seen: Evidence) -> Iterator[Line]:
    if not seen.config:
        yield Line(UNKNOWN, "limits", "the controller did not tell its own", "try again")
        return
    problems = []
    size = int(seen.config.get("MaxArraySize", "1001") or 1001)
    # (an array of MaxArraySize has tasks up to MaxArraySize - 1)
    if site.limits.max_array_size > max(size - 1, 1):
        problems.append(
            ("limits.max_array_size", site.limits.max_array_size, "MaxArraySize less one", size - 1)
        )
    for key, ours, theirs in (
        ("limits.max_nodes", site.limits.max_nodes, seen.partition.get("max_nodes")),
        ("limits.max_time_min", site.limits.max_time_min, seen.partition.get("max_time_min")),
        ("limits.max_nodes", site.limits.max_nodes, seen.partition.get("nodes")),
    ):
        if theirs is not None and ours > theirs:
            problems.append((key, ours, "the partition's", theirs))
    for key, ours, whose, theirs in problems:
        yield Line(WRONG, key, f"{ours}, and {whose} is {theirs}", f"write {theirs}")
    if not problems:
        yield Line(OK, "limits", "within those of the partition and of the controller")


def _requeue(site: Site, seen: Evidence) -> Iterator[Line]:
    asked = seen.job.get("Requeue")
    if site.requeue and asked == "1":
        yield Line(OK, "requeue", "Slurm took the job as one that may start again")
    elif site.requeue:
        yield Line(
            WRONG, "requeue", "Slurm did not take the job as one that may start again", "write requeue: false"
        )
    else:
        may = " (JobRequeue=1: it could be allowed)" if seen.config.get("JobRequeue") == "1" else ""
        yield Line(OK, "requeue", f"not asked for{may}")


def _accounting(site: Site, seen: Evidence) -> Iterator[Line]:
    if seen.accounts:
        if site.accounting:
            yield Line(OK, "accounting", f"sacct knows the job: {seen.accounts}")
        else:
            yield Line(
                NOTE, "accounting", "sacct knows the job; accounting: true would say more after a job's end"
            )
    elif site.accounting and seen.accounts_trouble:
        yield Line(WRONG, "accounting", seen.accounts_trouble, "write accounting: false")
    elif site.accounting:
        yield Line(UNKNOWN, "accounting", "sacct answers, and did not know the job yet", "try again")
    else:
        yield Line(OK, "accounting", "none, as the file says")


def _power(site: Site, seen: Evidence) -> Iterator[Line]:
    if site.power is None:
        return
    for node, said in sorted(seen.power.items()):
        if said == "on":
            yield Line(OK, "power.command", f"status of {node}: on")
        elif said == "off":
            yield Line(
                WRONG,
                "power.command",
                f"says that {node} is off, on which the job ran",
                "correct the command",
            )
        else:
            yield Line(
                WRONG,
                "power.command",
                f"status of {node}: {said.removeprefix('!')}",
                "its first word must be on",
            )
