"""Verbs around a run: run, resume, advance, watch, status, logs, cancel, heal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model.verdict import (
    EXIT_FAIL,
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EXIT_UNFINISHED,
    EXIT_UNKNOWN,
)
from harness.rundir import RunDir, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.driver import Driver
    from harness.model.case import Job, Plan
    from harness.model.site import Site
    from harness.slurm.query import JobRow
    from harness.views import CaseView


from harness.slurm.commands import CommandError
from harness.verbs import UsageError
from harness.verbs.after import judge_cases, keep_twins, report_and_judge, weigh_repeats
from harness.verbs.before import read

WATCH_S = 1.0


def run(options: argparse.Namespace) -> int:
    """Plan, submit, watch, collect, report, judge."""
    from harness.driver import Driver

    run_dir, again = made(options, Path(options.folder) if options.folder else None)
    print(f"{'going on with' if again else 'run folder'} {run_dir.path}", flush=True)
    driver = Driver(run_dir, judge=judge_cases, weigh=weigh_repeats)
    tell_cached(run_dir, driver.plan)
    if not options.detach:
        return to_the_end(driver, plain=options.plain)
    with driver.lease():
        driver.step(ask=True)
    print(f"  how far it is:  harness watch {run_dir.path}")
    print(f"  to its end:     harness resume {run_dir.path}, or harness advance {run_dir.path} from cron")
    return EXIT_PASS


def made(options: argparse.Namespace, folder: Path | None) -> tuple[RunDir, bool]:
    """The run folder of a campaign on a site, nothing submitted yet; and whether it was there before.

    Args:
        options: campaign, site and what else ``before.read`` reads, and the command.
        folder: where to; None: a new one, called after the campaign and the time.
    """
    from harness import local
    from harness.prepare import open_or_make

    given, planned = read(options)
    refuse_foreign_cluster(given.site.kind, given.site.name)
    if given.site.launcher == "local":
        local.check_imports(planned, given.site.python or sys.executable)
    name = f"{given.campaign.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    nodes = getattr(options, "may_power_off", None) or []
    refuse_unnamed(planned, given.site, nodes)
    # A schedule, which has no such option, watches a cluster: there every twin runs each time.
    fresh = getattr(options, "fresh_twins", True)
    run, again = open_or_make(
        (folder or default_parent() / name).absolute(), given, planned, fresh_twins=fresh
    )
    if nodes:
        write_json(run.allowed, {"nodes": nodes})
    return run, again


def tell_cached(run: RunDir, plan: Plan) -> None:
    """Which twins of a run are not run, because an earlier run has made their records."""
    from harness import twins

    for case_id, origin in twins.cached(run).items():
        print(f"{plan.case(case_id).label} is {origin.words}")


def refuse_unnamed(planned: Plan, site: Site, nodes: Sequence[str]) -> None:
    """Real nodes are switched off only where somebody named them when the run was started."""
    powered = [c for c in planned.cases for f in c.faults if f.kind == "node.power_off"]
    if powered and site.kind == "staging" and not nodes:
        raise UsageError(
            f"{powered[0].label} switches a node of {site.name} off, which is a real one: name those that may be, "
            "--may-power-off NODE[,NODE...]; others are then left alone, and their cases are invalid"
        )


def default_parent() -> Path:
    """Where runs go: on the emulated cluster its shared folder, which its user can write and all nodes see."""
    cluster = os.environ.get("HARNESS_CLUSTER", "")
    return Path(cluster) / "shared" if cluster else Path("runs")


def resume(options: argparse.Namespace) -> int:
    """Go on with a run, without its campaign file."""
    from harness.driver import Driver

    driver = Driver(RunDir(options.run), judge=judge_cases, weigh=weigh_repeats)
    refuse_foreign_cluster(driver.site["kind"], driver.site["name"])
    return to_the_end(driver, plain=options.plain)


def advance(options: argparse.Namespace) -> int:
    """One bounded reconciliation; at the end, results and report."""
    return advance_run(RunDir(options.run))


def advance_run(run_dir: RunDir) -> int:
    """One bounded reconciliation of a run; at its end, once, results and report.

    Returns:
        EXIT_PASS when it is complete, EXIT_UNFINISHED when there is more to do, by us or by the driver that holds it.

    Raises:
        RunFolderError: it is no run folder, or it cannot be written.
    """
    from harness import ledger
    from harness.driver import Driver
    from harness.driving.lease import RunIsDriven

    driver = Driver(run_dir, judge=judge_cases, weigh=weigh_repeats)
    refuse_foreign_cluster(driver.site["kind"], driver.site["name"])
    try:
        with driver.lease():
            if not driver.complete(ledger.read(driver.run)):
                driver.step(ask=True)
            if driver.words:
                print(driver.words, file=sys.stderr)
            known = ledger.read(driver.run)
            if not driver.complete(known):
                return EXIT_UNFINISHED
            if not known.finished or not (driver.run.path / "report.html").exists():
                for problem in driver.close():
                    print(problem, file=sys.stderr)
                _finish(driver)
    except RunIsDriven as error:
        print(error, file=sys.stderr)
        return EXIT_UNFINISHED
    return EXIT_PASS


def _finish(driver: Driver) -> None:
    """Results and report of a run that is complete, then the line that says they are there."""
    from analysis.report import write
    from harness import ledger
    from harness.collect import collect as to_file

    to_file(driver.run)
    write(driver.run.results, driver.run.path)
    keep_twins(driver.run)
    ledger.write(driver.run, ledger.FINISHED, "")


def watch(options: argparse.Namespace) -> int:
    """The live table alone, from the run folder."""
    from harness import ledger
    from harness.driver import Driver
    from harness.progress import watcher
    from harness.views import views

    driver = Driver(RunDir(options.run))
    with watcher(driver.identity["campaign"], plain=options.plain) as tell:
        while True:
            known = ledger.read(driver.run)
            tell(views(driver.run, driver.plan, known, driver.look(known, ask=False).rows), "")
            if driver.complete(known):
                return EXIT_PASS
            time.sleep(WATCH_S)


def to_the_end(driver: Driver, *, plain: bool) -> int:
    """Drive a run until it has ended, collect, report and judge; the exit code."""
    from harness import ledger
    from harness.driver import SchedulerAway
    from harness.progress import watcher

    with driver.lease():
        try:
            with watcher(driver.identity["campaign"], plain=plain) as tell:
                driver.drive(tell)
        except KeyboardInterrupt:
            return _interrupted(driver)
        except SchedulerAway as error:
            print(f"{error}\nnothing is lost; run the same command again to go on", file=sys.stderr)
            return EXIT_UNFINISHED
        from harness.collect import collect as to_file

        to_file(driver.run)
        code = report_and_judge(driver.run.results, driver.run.path)
        keep_twins(driver.run)
        _tell_suspects(driver)
        ledger.write(driver.run, ledger.FINISHED, "")
    return code


def _tell_suspects(driver: Driver) -> None:
    """Nodes that failed, for whoever looks after the cluster."""
    from harness import ledger

    for node, why in ledger.read(driver.run).suspects.items():
        print(f"suspect  {node}: {why}; no further job of this run was given it")


def refuse_foreign_cluster(kind: str, name: str) -> None:
    """Site ``emulated`` is only ever used on a cluster that the harness started: it powers nodes off."""
    if kind != "emulated":
        return
    if not on_emulated_cluster():
        raise UsageError(
            f'site "{name}" is an emulated cluster, and this shell is not on one that the harness started: '
            "start one with `harness cluster up --nodes 4`, then run this by `harness cluster exec login -- ...`; "
            "for another cluster write a site file of its own (see configs/sites/example-gpu.yaml)"
        )


def on_emulated_cluster() -> bool:
    """Whether this shell is on a cluster that the harness started: its folder holds the cookie and Slurm's settings."""
    folder = os.environ.get("HARNESS_CLUSTER", "")
    conf = os.environ.get("SLURM_CONF", "")
    marked = bool(folder) and (Path(folder) / "cookie.json").is_file()
    return marked and Path(conf or "/").resolve().is_relative_to(Path(folder).resolve())


def _interrupted(driver: Driver) -> int:
    from harness import ledger
    from harness.reconcile import unclear_submissions

    queued = [job_id for job_id, _ in driver.queued()]
    print("\ninterrupted; what was submitted goes on without this command", file=sys.stderr)
    unclear = [
        s.job_name(driver.identity["run_id"])
        for s in unclear_submissions(driver.plan, ledger.read(driver.run))
    ]
    if unclear:
        print(f"begun, and perhaps queued: {', '.join(unclear)}", file=sys.stderr)
    if queued:
        print(f"still queued or running: {', '.join(queued)}", file=sys.stderr)
    if queued or unclear:
        print(f"  to cancel them:  harness cancel {driver.run.path}", file=sys.stderr)
    print(
        f"  to go on:        the same `harness run` command with --folder {driver.run.path}", file=sys.stderr
    )
    return EXIT_INTERRUPTED


def cancel(options: argparse.Namespace) -> int:
    """Cancel what is queued or running."""
    from harness import ledger
    from harness.driver import Driver
    from harness.healing import heal_left

    driver = Driver(RunDir(options.run))
    unclear = [] if options.case else driver.cancel_unsubmitted()
    queued = driver.queued()
    if options.case:
        queued = _of_cases(driver, queued, set(options.case))
        for _, job in queued:
            ledger.write(driver.run, ledger.CANCELLED, job.key)
    names = driver.cancel(queued)
    print(f"cancelled {', '.join(names)}" if names else "no such job of this run is queued or running")
    problems = heal_left(driver.run, driver.plan, driver.site) if not options.case else []
    if unclear:
        problems.append(
            f"an sbatch for {', '.join(unclear)} was begun and is not in the queue; it may still come: cancel again"
        )
    for problem in problems:
        print(problem, file=sys.stderr)
    return EXIT_UNKNOWN if unclear else EXIT_FAIL if problems else EXIT_PASS


def _of_cases(driver: Driver, queued: list[tuple[str, Job]], given: set[str]) -> list[tuple[str, Job]]:
    """Those of the jobs that hold the given cases (ids or labels), and no others."""
    from harness import ledger

    cases = driver.plan.cases
    unknown = given - {name for c in cases for name in (c.case_id, c.label)}
    if unknown:
        raise UsageError(
            f"no case {', '.join(sorted(unknown))} in {driver.run.path}; `harness status` lists them"
        )
    wanted = {c.case_id for c in cases if {c.case_id, c.label} & given}
    known = ledger.read(driver.run)
    jobs = {job.key: job for s in driver.plan.submissions for job in s.jobs}
    chosen = [(job_id, job) for job_id, job in queued if wanted & set(job.case_ids)]
    if driver.scheduler.one_at_a_time and chosen:
        raise UsageError("on this site a submission is one process: cancel the whole run, without --case")
    others = [c.label for _, job in chosen for c in cases if c.case_id in set(job.case_ids) - wanted]
    if others:
        raise UsageError(f"its job holds other cases as well: {', '.join(others)}; name them with --case too")
    waiting = wanted - {c for _, job in chosen for c in job.case_ids}
    waiting -= {c for key in known.ended for job in (jobs[key],) for c in job.case_ids}
    if waiting:
        labels = ", ".join(c.label for c in cases if c.case_id in waiting)
        raise UsageError(
            f"not submitted yet: {labels}; wait until it is, or cancel the whole run, without --case; "
            "nothing was cancelled"
        )
    return chosen


def heal(options: argparse.Namespace) -> int:
    """Undo what a stopped run left."""
    from harness.driver import Driver
    from harness.healing import heal_left

    driver = Driver(RunDir(options.run))
    problems = heal_left(driver.run, driver.plan, driver.site)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("no fault of this run is left unhealed")
    return EXIT_FAIL if problems else EXIT_PASS


def status(options: argparse.Namespace) -> int:
    """Each case, as the run folder (and, when asked, Slurm) knows it."""
    from harness import ledger
    from harness.driver import Driver
    from harness.driving.calls import read_calls
    from harness.views import views

    driver = Driver(RunDir(options.run))
    known = ledger.read(driver.run)
    seen = driver.look(known, ask=options.ask)
    cases = views(driver.run, driver.plan, known, seen.rows)
    if options.ask:
        _say_why_they_wait(driver, cases, seen.rows)
    if options.json:
        print(
            json.dumps(
                {
                    "run": str(driver.run.path),
                    "campaign": driver.identity["campaign"],
                    "site": driver.site["name"],
                    "complete": driver.complete(known),
                    "trouble": driver.calls.trouble,
                    "held_back": driver.calls.held_back,
                    "scheduler_calls": read_calls(driver.run),
                    "suspect_nodes": dict(known.suspects),
                    "counts": dict(Counter(view.state for view in cases)),
                    "cases": [_view_json(v) for v in cases],
                },
                indent=1,
            )
        )
        return EXIT_PASS
    from harness.progress import line, spared

    for view in cases:
        if view.state != "not_needed":
            print(line(view))
    for words in spared(cases):
        print(words)
    for node, why in known.suspects.items():
        print(f"suspect node {node}: {why}")
    if options.scheduler:
        calls = ", ".join(f"{name} {count}" for name, count in sorted(read_calls(driver.run).items()))
        print(f"asked of the scheduler: {calls or 'nothing'}")
    if driver.calls.trouble:
        print(f"the scheduler does not answer: {driver.calls.trouble}", file=sys.stderr)
    return EXIT_PASS


def _say_why_they_wait(driver: Driver, cases: list[CaseView], rows: Mapping[str, JobRow]) -> None:
    """One more question, if anything is pending: a job may wait for what will never come."""
    pending = {row.job_id: row.job_id for row in rows.values() if row.state == "PENDING"}
    if not pending:
        return
    try:
        reasons = driver.scheduler.reasons(pending)
    except CommandError as error:
        driver.calls.trouble = str(error)
        return
    for view in cases:
        if view.state == "queued" and reasons.get(view.job_id, "None") != "None":
            view.reason = f"Slurm says: {reasons[view.job_id]}"


def _view_json(view: CaseView) -> dict[str, Any]:
    return {
        "case_id": view.case.case_id,
        "label": view.case.label,
        "workload": view.case.workload,
        "state": view.state,
        "step": view.step,
        "steps": view.case.steps,
        "attempts": view.attempts,
        "job_id": view.job_id,
        "reason": view.reason,
    }


def logs(options: argparse.Namespace) -> int:
    """Log files, or their ends."""
    run_dir = RunDir(options.run)

    planned = run_dir.read_plan()
    files = sorted(p for p in run_dir.path.rglob("*") if p.suffix in (".log", ".out") and p.is_file())
    if options.case:
        wanted = [c for c in planned.cases if options.case in (c.case_id, c.label)]
        if not wanted:
            raise UsageError(
                f"no case {options.case!r} in {run_dir.path}; "
                f"there are {', '.join(c.label for c in planned.cases)}"
            )
        files = [p for p in files if any(c.case_id in p.parts for c in wanted)]
    if options.json:
        print(json.dumps([{"path": str(p), "bytes": p.stat().st_size} for p in files], indent=1))
        return EXIT_PASS
    for path in files:
        if not options.case:
            print(f"{path.stat().st_size:>9}  {path}")
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        print(f"---- {path}")
        for text_line in text.splitlines()[-options.lines :]:
            print(
                "".join(
                    ch if ch.isprintable() or ch == "\t" else "\N{REPLACEMENT CHARACTER}" for ch in text_line
                )
            )
    return EXIT_PASS
