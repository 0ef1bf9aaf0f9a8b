"""Proves a site file by one small job: submits it, answers it, waits for it, and cancels it when told to stop.

The job goes through the site's own options, modules and prologue. It is given minutes, and this end a
deadline; whatever happens, no job is left in the queue. Nothing is ever powered off: a power command is
asked for the status alone.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import freeze
from harness.faults import FaultError, tools
from harness.model.site import Site
from harness.prepare import site_for_jobs
from harness.resources import templates_dir
from harness.rundir import sync_folder, write_atomic, write_json
from harness.runtime import clocks
from harness.runtime.network import addresses
from harness.runtime.site_probe import HELLO, OUT, REPLY, REPORT, REQUEST, SEEN, late_s
from harness.sites import limits, texts
from harness.sites.evidence import Evidence
from harness.sites.judge import will_not_start
from harness.sites.probe import told_limits
from harness.slurm.commands import CommandError, CommandTimeout, Refusal, refusal_of, run_command
from harness.slurm.versions import features, has, usable_version
from harness.templates import Templates, fill

TIME_LIMIT_MIN = 10  # of the job; it takes about one, or more where torch is imported over a cold network
LOOK_S = 0.05
LEAST_POLL_S = 2.0
LATE_S = 3.0  # how long a report may stay unseen after its job ended, on top of what the site says
ACCOUNTS_S = 20.0  # how long sacct may be late
END_S = 6.0
LOST_S = 60.0  # how long a job of unknown fate is looked for
NAME = "hh.site-check"
IMPORTS = ("torch", "mpi4py", "numpy", "xxhash", "psutil", "pynvml")
ENDED = frozenset(
    (
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "BOOT_FAIL",
        "DEADLINE",
        "PREEMPTED",
    )
)


@dataclass
class _Watch:
    """What is known while the job is in the queue."""

    folder: Path
    job: dict[str, str] = field(default_factory=dict)
    seen: dict[str, dict[str, int]] = field(default_factory=dict)
    report: dict[str, Any] | None = None


def check(
    site: Site,
    *,
    folder: Path,
    nodes: int | None,
    wait_s: float,
    keep: bool,
    without: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> Evidence:
    """Submit the job, see it to its end, and return what was seen. ``site`` is resolved.

    Raises:
        CommandError: sbatch is not there.
        RenderError: a value cannot be written into a script.
        OSError: the folder cannot be used from here.
    """
    version, _ = usable_version(run_command(["sbatch", "--version"], timeout_s=20))
    many = nodes if nodes is not None else min(2, site.limits.max_nodes)
    place = folder.absolute() / f"site-check-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    place.mkdir(mode=0o700, parents=True)
    found = Evidence(
        folder=str(place), deadline_s=wait_s, nodes=many, folders=_folders(site.paths.shared, folder)
    )
    try:
        found = replace(found, **_limits_here(site))
        token = secrets.token_hex(16)
        name = f"{NAME}.{place.name[-4:]}"
        with clocks.Server(token) as server:
            request = _request(
                site, place, token, server.port, found.plugins, has("overlap", version), without
            )
            _write(site, place, many, name, request, features(version))
            excluded, strange = _excluded(site)
            found = replace(found, strange_nodes=strange)
            number, problem = _submit(site, place / "job.sh", name, excluded, tell)
            if problem:
                return replace(found, **problem)
            watch = _Watch(place)
            try:
                tell(f"job {number}, {many} node{'s' * (many > 1)}, name {name}; Ctrl-C cancels it")
                waited_s = _follow(site, number, watch, found)
            finally:
                if watch.job.get("JobState") not in ENDED and (why := _cancel(number)):
                    tell(f"the job may still be there ({why}); when the controller answers: scancel {number}")
        found = replace(
            found,
            waited_s=waited_s,
            job=watch.job,
            report=watch.report,
            seen=watch.seen,
            out=_read(place / OUT),
        )
        found = replace(found, **_accounts(site, number))
        return replace(found, power=_power(site, watch.report))
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


# ---- before ----


def _limits_here(site: Site) -> dict[str, Any]:
    """What the controller says of itself and of the partition: three questions, and what srun can start."""
    found: dict[str, Any] = {}
    with suppress(CommandError):
        found["config"] = texts.config(_ask("scontrol", "show", "config"))
        partitions = texts.partitions(_ask("scontrol", "-o", "show", "partition"))
        chosen = [p for p in partitions if (p.name == site.partition if site.partition else p.default)]
        if chosen:
            found["partition"] = {
                "nodes": chosen[0].total_nodes,
                "max_nodes": chosen[0].max_nodes,
                "max_time_min": chosen[0].max_time_min,
            }
        found |= _accounts_limits(site, found["config"], chosen[0].qos if chosen else "")
    with suppress(CommandError):
        found["plugins"] = texts.mpi_plugins(_ask(*texts.MPI_LIST))
    return found


def _accounts_limits(site: Site, config: Mapping[str, str], partition_qos: str) -> dict[str, Any]:
    """Limits of the account and of the quality of service that the job will have, as far as they are enforced."""
    if texts.first(config, "AccountingStorageType") in ("", "accounting_storage/none"):
        return {}
    told = told_limits(_ask, config)
    own = [a for a in told.associations if a.partition in ("", site.partition)]
    strange = []
    for key, value, known in (
        ("account", site.account, {a.name for a in told.associations}),
        ("qos", site.qos, set(told.qualities)),
    ):
        if value is not None and known and value not in known:
            strange.append(f"{key}: {value}, and sacctmgr knows {', '.join(sorted(known))}")
    if site.account is not None:
        own = [a for a in own if a.name == site.account]
    elif len({a.name for a in own}) > 1:
        own = []  # which of them is the default one is not told here
    if not limits.enforced(config):
        return {"strange_names": tuple(strange)}
    names = [partition_qos, site.qos or next((a.default_qos for a in own if a.default_qos), "normal")]
    qualities = [told.qualities[name] for name in dict.fromkeys(names) if name in told.qualities]
    applying = limits.effective(limits.bounds(own, told.accounts, qualities))
    cpus = site.node.cpus if site.node.exclusive else None
    return {
        "strange_names": tuple(strange),
        "ceilings": tuple(limits.ceilings(applying, cpus=cpus, gpus=site.node.gpus)),
    }


def _folders(shared: Sequence[str], folder: Path) -> dict[str, str]:
    """What is wrong with ``paths.shared`` as seen from here, by folder."""
    found = {one: "is no folder on this machine" for one in shared if not Path(one).is_dir()}
    there = [Path(one).resolve() for one in shared if one not in found]
    if there and not any(folder.resolve().is_relative_to(one) for one in there):
        found[", ".join(one for one in shared if one not in found)] = (
            f"does not hold {folder}, where runs will be"
        )
    return found


def _ask(*command: str) -> str:
    return run_command(command, timeout_s=20)


def _request(
    site: Site,
    place: Path,
    token: str,
    port: int,
    plugins: Sequence[str],
    overlap: bool,
    without: Sequence[str],
) -> dict[str, Any]:
    return {
        "site": site_for_jobs(site, sys.executable),
        "hello": secrets.token_hex(16),
        "token": token,
        "login_addresses": [a for name, a in addresses().items() if name != "lo"],
        "login_port": port,
        "plugins": list(plugins),
        "overlap": overlap,
        "imports": [name for name in IMPORTS if name not in without],
        "mpi": "mpi4py" not in without,
        "ranks_per_node": min(2, site.node.cpus),
    }


def _write(
    site: Site, place: Path, nodes: int, name: str, request: Mapping[str, Any], slurm: Mapping[str, bool]
) -> None:
    (place / SEEN).mkdir(mode=0o700)
    code = place / "harness.zip"
    freeze.freeze(code)
    write_json(place / REQUEST, request)
    write_atomic(place / HELLO, str(request["hello"]).encode())
    ours = templates_dir()
    theirs = Path(site.templates) if site.templates is not None else None

    def knows(feature: str) -> bool:
        return slurm[feature]

    context = {
        "site": site,
        "has": knows,
        "submission": "site-check",
        "job_name": name,
        "nodes": nodes,
        "ranks_per_node": request["ranks_per_node"],
        "min_cpus": 1,
        "time_limit_min": min(TIME_LIMIT_MIN, site.limits.max_time_min),
        "requeue": site.requeue,
        "exclusive": site.node.exclusive,
        "array_last": None,
        "log": "/dev/null",
        "out": str(place / OUT),
        "late_s": late_s(site.paths.visible_after_s),
        "threads": 1,
        "yields": True,
        "run_folder": str(place),
        "python": site.python or sys.executable,
        "code_path": str(code),
    }
    write_atomic(
        place / "job.sh", fill("site_check.sh.j2", Templates(ours, theirs), context).encode(), mode=0o700
    )
    sync_folder(place)


# ---- the job ----


def _excluded(site: Site) -> tuple[list[str], tuple[str, ...]]:
    """Those of the site's ``exclude_nodes`` that the cluster has, and the others."""
    if not site.exclude_nodes:
        return [], ()
    try:
        known = set(_ask("sinfo", "--noheader", "-N", "-o", "%N").split())
    except CommandError:
        return list(site.exclude_nodes), ()  # sbatch will say what it thinks of them
    there = [node for node in site.exclude_nodes if node in known]
    return there, tuple(node for node in site.exclude_nodes if node not in known)


def _submit(
    site: Site, script: Path, name: str, excluded: Sequence[str], tell: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """The id of the job, or evidence of why there is none."""
    command = [
        "sbatch",
        "--parsable",
        *([f"--exclude={','.join(excluded)}"] if excluded else []),
        str(script),
    ]
    try:
        said = run_command(command, timeout_s=site.scheduler.call_timeout_s)
    except CommandError as error:
        if error.code is None and not isinstance(error, CommandTimeout):
            raise
        if (meant := refusal_of(error)) is not None:
            return "", {"refused": str(error), "for_now": meant is Refusal.FOR_NOW}
        tell(f"the controller did not answer; looking for a job of the name {name}, to cancel it")
        return "", {"submit_trouble": f"the controller did not answer ({error}); {_cancel_lost(name)}"}
    except KeyboardInterrupt:
        time.sleep(1.0)  # sbatch goes on without us: what it queued can then be named
        tell(_cancel_lost(name))
        raise
    return said.strip().splitlines()[-1].split(";")[0], {}


def _cancel(number: str) -> str:
    """Why a job could not be cancelled; "" where it was."""
    try:
        run_command(["scancel", number], timeout_s=20)
    except CommandError as error:
        return "" if "Invalid job id" in str(error) else str(error)
    return ""


def _cancel_lost(name: str, within_s: float = LOST_S) -> str:
    """Cancel the job of which sbatch told no number, if there is one; what became of it."""
    end = time.monotonic() + within_s
    found: dict[str, None] = {}
    absent = 0
    while time.monotonic() < end:
        try:
            queued = _ask("squeue", "--noheader", "--name", name, "--format", "%A").split()
            if queued:
                found |= dict.fromkeys(queued)
                run_command(["scancel", *queued], timeout_s=20)
            absent = 0 if queued else absent + 1
        except CommandError:
            absent = 0
        if absent == 2:  # what a controller was told while it was stuck may be done after it answers again
            jobs = ", ".join(found)
            return f"job {jobs} was queued and is cancelled" if found else f"no job {name} is in the queue"
        time.sleep(2.0)
    return f"a job may be queued: when the controller answers, `scancel --name {name}`"


def _follow(site: Site, number: str, watch: _Watch, told: Evidence) -> float:
    """Answer the nodes and wait for the report; returns how long that took."""
    began = time.monotonic()
    poll_s = max(LEAST_POLL_S, site.scheduler.poll_s)
    asked = began - poll_s + LEAST_POLL_S / 2  # a job that cannot start says so at once
    ended_at: float | None = None
    patience_s = LATE_S + site.paths.visible_after_s
    while True:
        now = time.monotonic()
        _answer(watch)
        watch.report = _json(watch.folder / REPORT)
        if watch.report is not None:
            _let_it_end(number, watch)
            return now - began
        if now - began > told.deadline_s or (ended_at is not None and now - ended_at > patience_s):
            return now - began
        if now - asked >= poll_s:
            asked = now
            watch.job = _job_facts(number) or watch.job
            state = watch.job.get("JobState", "")
            if state in ENDED and ended_at is None:
                ended_at, poll_s = now, 600.0  # its report may show late
            if state == "PENDING" and will_not_start(watch.job.get("Reason", ""), told):
                return now - began
        time.sleep(LOOK_S)


def _let_it_end(number: str, watch: _Watch) -> None:
    """The report is the last thing that the job writes: a moment later it is over, and need not be cancelled."""
    end = time.monotonic() + END_S
    while watch.job.get("JobState") not in ENDED and time.monotonic() < end:
        time.sleep(1.0)
        watch.job = _job_facts(number) or watch.job


def _job_facts(number: str) -> dict[str, str]:
    try:
        return next(texts.records(_ask("scontrol", "-o", "show", "job", number)), {})
    except CommandError:
        return {}


def _answer(watch: _Watch) -> None:
    """Note files of nodes when they are seen, and answer each."""
    with suppress(OSError):
        for path in sorted((watch.folder / SEEN).glob("*.json")):
            node, now = path.stem, time.time_ns()
            if node not in watch.seen and not path.name.startswith(".") and _json(path) is not None:
                write_json(watch.folder / f"{node}-{REPLY}", {"seen": now})
                watch.seen[node] = {"seen": now, "replied": time.time_ns()}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-20_000:]
    except OSError:
        return ""


# ---- after ----


def _accounts(site: Site, number: str) -> dict[str, Any]:
    """What sacct says of the job; it is some seconds late."""
    end = time.monotonic() + (ACCOUNTS_S if site.accounting else 0.0)
    while True:
        try:
            rows = _ask("sacct", "-n", "-X", "-P", "-j", number, "-o", "JobID,State").strip().splitlines()
        except CommandError as error:
            return {"accounts_trouble": str(error)}
        if rows:
            return {"accounts": rows[0].partition("|")[2]}
        if time.monotonic() >= end:
            return {}
        time.sleep(2.0)


def _power(site: Site, report: Mapping[str, Any] | None) -> dict[str, str]:
    """What the power command says of each node that the job ran on; "!" and a problem where it failed."""
    if site.power is None or report is None:
        return {}
    found = {}
    for node in report["nodes"]:
        try:
            found[node] = asyncio.run(tools.power(site.power.model_dump(), "status", node))["said"]
        except FaultError as error:
            found[node] = f"!{error}"
    return found
