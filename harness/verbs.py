"""What each verb of the command line does. Heavy imports are inside: a verb pays only for itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model.verdict import (
    EXIT_FAIL,
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EXIT_UNFINISHED,
    EXIT_UNKNOWN,
    EXIT_USAGE,
    Verdict,
    exit_code,
)
from harness.rundir import RunDir, RunFolderError
from harness.slurm.commands import CommandError

if TYPE_CHECKING:
    from harness.model.case import Plan
    from harness.prepare import Input
    from harness.views import CaseView


class UsageError(Exception):
    """The verb cannot do what was asked; the message says why and what to do."""


def guarded(
    action: Callable[[argparse.Namespace], int], options: argparse.Namespace, command: Sequence[str]
) -> int:
    """Run a verb; what a person can cause ends in a message and the documented exit code, not in a traceback."""
    options.command = list(command)
    try:
        return action(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `| head` had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except (UsageError, RunFolderError) as error:
        return _complain(str(error))
    except CommandError as error:
        print(error, file=sys.stderr)
        return EXIT_UNKNOWN
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("harness", "analysis")):
            raise
        print(
            f"{error.name} is not installed here, and this verb needs it: pip install 'hpc-harness[submit]'",
            file=sys.stderr,
        )
        return EXIT_UNKNOWN
    except OSError as error:
        return _complain(f"{error.filename or 'file'}: {error.strerror or error}")
    except Exception as error:
        from harness.config import ConfigError
        from harness.plan import PlanError
        from harness.render import RenderError

        known: tuple[type[Exception], ...] = (ConfigError, PlanError, RenderError)
        with contextlib.suppress(ModuleNotFoundError):
            from harness.store import StoreError

            known += (StoreError,)
        if isinstance(error, known):
            return _complain(str(error))
        raise


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return EXIT_USAGE


# --- before anything runs -----------------------------------------------------------------------------


def _read(options: argparse.Namespace) -> tuple[Input, Plan]:
    from harness import config
    from harness.plan import expand
    from harness.prepare import Input
    from harness.resources import configs_dir

    read: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    problems: list[config.Problem] = []
    for noun, load, given in (
        ("campaign", config.load_campaign, options.campaign),
        ("site", config.load_site, options.site),
    ):
        try:
            paths[noun] = config.find(given, [configs_dir() / f"{noun}s"], noun)
            read[noun] = load(paths[noun])
        except config.ConfigError as error:  # the other file's errors are told in the same breath
            problems += error.problems
    if problems:
        raise config.ConfigError(problems)
    (campaign, campaign_text), (site, site_text) = read["campaign"], read["site"]
    found = config.check(campaign, site, path=str(paths["campaign"]), text=campaign_text)
    for problem in found:
        if problem.warning:
            print(f"warning: {problem}", file=sys.stderr)
    if any(not p.warning for p in found):
        raise config.ConfigError(p for p in found if not p.warning)
    return Input(campaign, campaign_text, site, site_text, options.command), expand(campaign, site)


def plan(options: argparse.Namespace) -> int:
    """Cases, jobs, and an upper bound of their cost."""
    from harness.plan import summary

    given, planned = _read(options)
    cost = summary(planned)
    if options.json:
        print(
            json.dumps(
                {
                    "campaign": given.campaign.name,
                    "site": given.site.name,
                    "summary": _plain(cost),
                    **planned.to_json(),
                },
                indent=1,
            )
        )
        return EXIT_PASS
    labels = {c.case_id: c for c in planned.cases}
    for submission in planned.submissions:
        kind = f"array of {len(submission.jobs)}" if submission.is_array else "job"
        first = submission.jobs[0]
        print(
            f"{submission.name}  {kind}, {first.nodes} nodes, {first.time_limit_min} min, {submission.template}"
        )
        for job in submission.jobs:
            for case_id in job.case_ids:
                case = labels[case_id]
                fault = "".join(
                    f"  {f.kind} of node {f.target_node} at step {f.at_step}" for f in case.faults
                )
                print(
                    f"    {job.key}  {case_id}  {case.label:<28} {case.workload}, {case.ranks} ranks{fault}"
                )
    print(", ".join(f"{k.replace('_', ' ')} {v}" for k, v in _plain(cost).items()))
    return EXIT_PASS


def _plain(value: Any) -> dict[str, Any]:
    import dataclasses

    return (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else dict(value)
    )


def render(options: argparse.Namespace) -> int:
    """The scripts, as they would be submitted."""
    from harness.render import render as to_text
    from harness.resources import templates_dir

    given, planned = _read(options)
    folder = Path(options.out).absolute() if options.out else Path("runs/RUN").absolute()
    if options.out:
        folder.mkdir(parents=True, exist_ok=True)
    for submission in planned.submissions:
        text = to_text(
            submission,
            planned,
            given.site,
            run_id="00000000",
            run_folder=str(folder),
            python=given.site.python or sys.executable,
            code_path=str(RunDir(folder).code),
            templates=templates_dir(),
        )
        if options.out:
            (folder / f"{submission.name}.sh").write_text(text, encoding="utf-8")
            print(folder / f"{submission.name}.sh")
        else:
            print(f"# ---- {submission.name}.sh ----\n{text}")
    return EXIT_PASS


def schema(options: argparse.Namespace) -> int:
    """A schema for editors and readers."""
    if options.of == "results":
        from harness import store

        print(
            json.dumps(
                {
                    "schema": store.SCHEMA_NAME,
                    "version": store.SCHEMA_VERSION,
                    "history": {str(k): v for k, v in store.HISTORY.items()},
                    "tables": {name: [vars(f) for f in fields] for name, fields in store.TABLES.items()},
                    "sample_keys": [vars(f) for f in store.SAMPLE_KEYS],
                },
                indent=1,
            )
        )
        return EXIT_PASS
    from harness import config

    print(
        json.dumps(
            config.campaign_json_schema() if options.of == "campaign" else config.site_json_schema(), indent=1
        )
    )
    return EXIT_PASS


# --- running ------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Plan, submit, watch, collect, report, judge."""
    from harness.driver import Driver, SchedulerAway
    from harness.prepare import open_or_make

    given, planned = _read(options)
    _refuse_foreign_cluster(given)
    name = f"{given.campaign.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(options.folder) if options.folder else Path("runs") / name
    run_dir, again = open_or_make(folder.absolute(), given, planned)
    print(f"{'going on with' if again else 'run folder'} {run_dir.path}", flush=True)
    driver = Driver(run_dir)
    with driver.lease():
        try:
            from harness.progress import watcher

            with watcher(given.campaign.name, plain=options.plain) as tell:
                driver.drive(tell)
        except KeyboardInterrupt:
            return _interrupted(driver)
        except SchedulerAway as error:
            print(f"{error}\nnothing is lost; run the same command again to go on", file=sys.stderr)
            return EXIT_UNFINISHED
    from harness.collect import collect as to_file

    to_file(run_dir)
    return _report_and_judge(run_dir.results, run_dir.path)


def _refuse_foreign_cluster(given: Input) -> None:
    """Site ``emulated`` is only ever used on a cluster that the harness started: it powers nodes off."""
    if given.site.kind != "emulated":
        return
    folder = os.environ.get("HARNESS_CLUSTER", "")
    conf = os.environ.get("SLURM_CONF", "")
    marked = bool(folder) and (Path(folder) / "cookie.json").is_file()
    if not marked or not Path(conf or "/").resolve().is_relative_to(Path(folder).resolve()):
        raise UsageError(
            f'site "{given.site.name}" is an emulated cluster, and this shell is not on one that the harness started: '
            "start one with `harness cluster up --nodes 4`, then run this by `harness cluster exec login -- ...`; "
            "for another cluster write a site file of its own (see configs/sites/example-gpu.yaml)"
        )


def _interrupted(driver: Any) -> int:
    queued = driver.queued()
    print("\ninterrupted; what was submitted goes on without this command", file=sys.stderr)
    if queued:
        print(f"still queued or running: {', '.join(queued)}", file=sys.stderr)
        print(f"  to cancel them:  harness cancel {driver.run.path}", file=sys.stderr)
    print(
        f"  to go on:        the same `harness run` command with --folder {driver.run.path}", file=sys.stderr
    )
    return EXIT_INTERRUPTED


def cancel(options: argparse.Namespace) -> int:
    """Cancel what is queued or running."""
    from harness import local
    from harness.driver import Driver
    from harness.slurm.commands import run_command

    driver = Driver(RunDir(options.run))
    queued = driver.queued()
    if not queued:
        print("no job of this run is queued or running")
        return EXIT_PASS
    if driver.local:
        for job_id in queued:
            local.cancel(job_id)
    else:
        run_command(["scancel", *queued], timeout_s=30)
    print(f"cancelled {', '.join(queued)}")
    problems = driver.heal_left()
    for problem in problems:
        print(problem, file=sys.stderr)
    return EXIT_FAIL if problems else EXIT_PASS


def heal(options: argparse.Namespace) -> int:
    """Undo what a stopped run left."""
    from harness.driver import Driver

    problems = Driver(RunDir(options.run)).heal_left()
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("no fault of this run is left unhealed")
    return EXIT_FAIL if problems else EXIT_PASS


def status(options: argparse.Namespace) -> int:
    """Each case, as the run folder (and, when asked, Slurm) knows it."""
    from harness import ledger
    from harness.driver import Driver
    from harness.views import views

    driver = Driver(RunDir(options.run))
    known = ledger.read(driver.run)
    seen = driver.look(known, ask=options.ask)
    cases = views(driver.run, driver.plan, known, seen.rows)
    if options.json:
        print(
            json.dumps(
                {
                    "run": str(driver.run.path),
                    "campaign": driver.identity["campaign"],
                    "site": driver.site["name"],
                    "complete": driver.complete(known),
                    "trouble": driver.trouble,
                    "cases": [_view_json(v) for v in cases],
                },
                indent=1,
            )
        )
        return EXIT_PASS
    from harness.progress import line

    for view in cases:
        print(line(view))
    if driver.trouble:
        print(f"the scheduler does not answer: {driver.trouble}", file=sys.stderr)
    return EXIT_PASS


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
    from harness.model.case import Plan

    planned = Plan.from_json(run_dir.read_json(run_dir.plan))
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


# --- afterwards ---------------------------------------------------------------------------------------


def collect(options: argparse.Namespace) -> int:
    """results.h5 of a run as it is now."""
    from harness.collect import collect as to_file

    print(to_file(RunDir(options.run)))
    return EXIT_PASS


def _results(given: str) -> Path:
    path = Path(given)
    if path.is_dir():
        if not RunDir(path).results.exists():
            raise UsageError(f"{path}: has no results.h5 yet; run `harness collect {given}`")
        return RunDir(path).results
    return path


def report(options: argparse.Namespace) -> int:
    """report.html, junit.xml, summary.json."""
    from analysis.report import write

    results = _results(options.run)
    paths = write(results, Path(options.out) if options.out else results.parent)
    print(paths.report_html, paths.junit_xml, paths.summary_json, sep="\n")
    return EXIT_PASS


def judge(options: argparse.Namespace) -> int:
    """Verdicts."""
    from analysis.verdict import main as judge_file

    return judge_file([str(_results(options.run)), *(["--json"] if options.json else [])])


_MARKS = {
    Verdict.PASS: "PASS",
    Verdict.FAIL: "FAIL",
    Verdict.WITHIN_NOISE: "NOISE",
    Verdict.INVALID: "INVALID",
    Verdict.UNKNOWN: "UNKNOWN",
}


def _report_and_judge(results: Path, out: Path) -> int:
    import analysis
    from analysis.report import write
    from analysis.verdict import judge as judge_results

    with analysis.load(results) as loaded:
        verdicts = judge_results(loaded)
    width = shutil.get_terminal_size((180, 24)).columns
    for verdict in verdicts:
        words = f"{_MARKS[verdict.verdict]:<8}{verdict.label:<28} {verdict.key_figure}"
        words += f"  [{verdict.why}]" if verdict.why else ""
        print(words if len(words) <= width else words[: width - 2] + "…]")
    paths = write(results, out)
    print(f"results  {results}")
    print(f"report   {paths.report_html}")
    return exit_code(v.verdict for v in verdicts)
