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
from harness.sites.limits import JOBS, NODES, TIME, too_many

EXIT_OK, EXIT_WRONG, EXIT_UNKNOWN = 0, 1, 3
_SHARED = "name folders that all nodes see and that hold --folder, where runs will be; or write shared: []"

# What sbatch says -> the keys that it is about, of which those count that the file sets.
_REFUSALS = (
    (re.compile("requested node configuration|node count", re.I),
     ("limits.max_nodes", "gres", "node.gpus", "node.memory_mb", "constraint", "exclude_nodes")),
    (re.compile("invalid account|account/partition", re.I), ("account",)),
    (re.compile("exclude|invalid node name|node list", re.I), ("exclude_nodes",)),
    (re.compile("invalid partition|partition (name )?specified|partition/qos", re.I), ("partition",)),
    (re.compile("invalid qos|qos specification|not permitted to use this qos", re.I), ("qos",)),
    (re.compile("reservation", re.I), ("reservation",)),
    (re.compile("feature|constraint", re.I), ("constraint",)),
    (re.compile("licen[sc]e", re.I), ("licenses",)),
    (re.compile("generic resource|gres|tres", re.I), ("gres", "node.gpus")),
    (re.compile("memory spec", re.I), ("node.memory_mb",)),
    (re.compile("cpu count", re.I), ("node.cpus",)),
    (re.compile("requested time limit|time limit is invalid", re.I), ("limits.max_time_min",)),
)  # fmt: skip
# The same, where it may take the job later.
_LATER = (
    (re.compile("submit", re.I), "limits.max_jobs_in_queue"),
    (re.compile("partition|inactive or drain", re.I), "partition"),
    (re.compile("reservation", re.I), "reservation"),
)
# Reasons of a pending job that do not pass by waiting -> the key.
NEVER_STARTS = {
    "PartitionNodeLimit": NODES,
    "PartitionTimeLimit": TIME,
    "PartitionConfig": f"{NODES}, partition",
    "AccountNotAllowed": "account",
    "QOSNotAllowed": "qos",
    "InvalidAccount": "account",
    "InvalidQOS": "qos",
    "BadConstraints": "constraint",
    "ReservationDeleted": "reservation",
    "JobHeldAdmin": "partition",
    "AssocMaxNodePerJobLimit": NODES,
    "AssocMaxCpuPerJobLimit": NODES,
    "AssocMaxGRESPerJob": NODES,
    "AssocMaxWallDurationPerJobLimit": TIME,
    "QOSMaxNodePerJobLimit": NODES,
    "QOSMaxCpuPerJobLimit": NODES,
    "QOSMaxGRESPerJob": NODES,
    "QOSMaxWallDurationPerJobLimit": TIME,
}
# Those that somebody else can end, and that may take long.
_NOT_NOW = frozenset(("PartitionDown", "PartitionInactive"))


def will_not_start(reason: str, seen: Evidence) -> bool:
    """Whether a job that is pending for this reason need not be waited for."""
    return reason in _NOT_NOW or _wrong_key(reason, seen) != ""


def _wrong_key(reason: str, seen: Evidence) -> str:
    """The key of the file for which a pending job never starts; "" where it may."""
    return NEVER_STARTS.get(reason) or (NODES if too_many(reason, seen.nodes, seen.ceilings) else "")


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
    lines += [
        Line(NOTE, said.partition(":")[0], f"{said}; jobs are taken all the same")
        for said in seen.strange_names
        if not seen.refused
    ]
    lines += [Line(WRONG, "paths.shared", f"{path} {said}", _SHARED) for path, said in seen.folders.items()]
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
    if seen.refused and seen.for_now:
        said = _without_command(seen.refused)
        place = next((key for pattern, key in _LATER if pattern.search(said)), "job")
        yield Line(
            UNKNOWN, place, f"sbatch does not take the job now: {said}", "try again when that has passed"
        )
        return
    if seen.refused:
        said = _without_command(seen.refused)
        place, change = _refusal(site, said)
        yield Line(WRONG, place, f"sbatch refused the job: {said}", change)
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
        if place := _wrong_key(reason, seen):
            said = (
                f"a job of {seen.nodes} nodes will not start: {reason}"
                if place == NODES
                else (f"the job will not start: {reason}")
            )
            yield Line(WRONG, place, said, f"correct {_with_value(site, place)}")
        elif reason in _NOT_NOW:
            yield Line(
                UNKNOWN, "partition", f"the job does not start now: {reason}", "try again when it is up"
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


def _refusal(site: Site, said: str) -> tuple[str, str]:
    """The keys that a refusal is about, and what to do; "job" where its words name none."""
    for word in re.findall(r"\b(?:Assoc|QOS)\w+", said):
        if place := NEVER_STARTS.get(word, ""):
            return place, f"correct {_with_value(site, place)}"
    for pattern, keys in _REFUSALS:
        if pattern.search(said):
            given = [key for key in keys if _value(site, key)]
            if given:
                return ", ".join(given), f"correct {' or '.join(_with_value(site, key) for key in given)}"
            return keys[0], f"name one: the file has no {keys[0]}"
    given = [
        _with_value(site, key) for key in ("partition", "account", "qos", "reservation") if _value(site, key)
    ]
    return "job", "see what it says" + (f"; the file says {', '.join(given)}" if given else "")


def _value(site: Site, place: str) -> str:
    """What the file says for a key; "" where it is not set, or stands for several."""
    value: Any = site
    for part in place.split("."):
        value = getattr(value, part, None)
    return ", ".join(value) if isinstance(value, tuple) else str(value) if value else ""


def _with_value(site: Site, place: str) -> str:
    value = _value(site, place)
    return f"{place} = {value}" if value else place


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
            WRONG,
            "modules",
            f"{found[1]} cannot be loaded: {last}",
            "this node's shell has no `module`: write modules: [], or ask the site how jobs get it"
            if re.search(r"module: (command )?not found", seen.out)
            else "`module avail` on a node lists them",
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
    problems: list[tuple[str, int | str, str, int]] = []
    size = int(seen.config.get("MaxArraySize", "1001") or 1001)
    # (an array of MaxArraySize has tasks up to MaxArraySize - 1)
    if site.limits.max_array_size > max(size - 1, 1):
        problems.append(
            ("limits.max_array_size", site.limits.max_array_size, "MaxArraySize less one", size - 1)
        )
    known = [
        (NODES, seen.partition.get("nodes"), "the partition's"),
        (NODES, seen.partition.get("max_nodes"), "the partition's"),
        (TIME, seen.partition.get("max_time_min"), "the partition's"),
        *((one.key, one.most, one.said) for one in seen.ceilings),
    ]
    ours = {NODES: site.limits.max_nodes, TIME: site.limits.max_time_min, JOBS: site.limits.max_jobs_in_queue}
    for key, number in ours.items():  # (null is no limit)
        # (of several only the strictest: whoever follows it follows all)
        theirs, whose = min(((m, w) for k, m, w in known if k == key and m is not None), default=(None, ""))
        if theirs is not None and (number is None or number > theirs):
            problems.append((key, "no limit" if number is None else number, whose, theirs))
    for key, written, whose, theirs in problems:
        change = f"write {theirs}" if theirs >= (3 if key == TIME else 1) else "nothing can run within that"
        said = f"{whose} is {theirs}" if "sacctmgr" not in whose else f"it can be {theirs} at most ({whose})"
        yield Line(WRONG, key, f"{written}, and {said}", change)
    if not problems:
        yield Line(OK, "limits", "within those of the partition, of the account and of the controller")


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
