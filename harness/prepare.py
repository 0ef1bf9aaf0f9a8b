"""Makes a run folder: everything that jobs and later drivers need, fixed at plan time, put in place whole."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
from harness import freeze, twins
from harness.model import event as ev
from harness.model.campaign import Campaign
from harness.model.case import Plan, content_id
from harness.model.event import Event
from harness.model.site import Site
from harness.render import RenderError, render
from harness.resources import templates_dir
from harness.rundir import (
    RUN_SCHEMA,
    RunDir,
    RunFolderError,
    append_line,
    sync_folder,
    takes_no_more,
    write_atomic,
    write_json,
)
from harness.runtime.container import pyxis_problem
from harness.shell_syntax import refuse_bad
from harness.slurm.commands import CommandError, run_command
from harness.slurm.versions import features, usable_version
from harness.templates import Source, Templates, refuse_lost_blocks, sources

PACKAGES = ("submitit", "torch", "mpi4py", "numpy", "h5py", "xxhash", "jinja2", "pydantic")


@dataclass(frozen=True)
class Input:
    """What a person gave: the values, their texts, and the command line."""

    campaign: Campaign
    campaign_text: str
    site: Site
    site_text: str
    command: Sequence[str]

    @property
    def templates(self) -> Templates:
        """Where templates are looked for.

        Raises:
            RenderError: a folder that campaign or site names is not there.
        """
        site = Path(self.site.templates) if self.site.templates is not None else None
        campaign = Path(self.campaign.templates).absolute() if self.campaign.templates else None
        for noun, name, folder in (
            ("site", self.site.name, site),
            ("campaign", self.campaign.name, campaign),
        ):
            if folder is not None and not folder.is_dir():
                raise RenderError(
                    f"{noun} {name}: templates = {str(folder)!r}: no such folder; make it, or remove the key"
                )
        return Templates(templates_dir(), site, campaign)

    @property
    def campaign_id(self) -> str:
        """Same campaign on the same site, same id; comments and layout do not count."""
        return content_id([self.campaign.model_dump(mode="json"), self.site.model_dump(mode="json")])


def open_or_make(folder: Path, given: Input, plan: Plan, *, fresh_twins: bool = False) -> tuple[RunDir, bool]:
    """The run in ``folder``: the one that is there, if it is of the same campaign, else a new one.

    Args:
        folder: where it is, or is to be.
        given: what a person gave.
        plan: what is to be run.
        fresh_twins: whether a new one runs its twins even if their records are in the cache.

    Returns:
        The run, and whether it was there before.

    Raises:
        RunFolderError: the folder holds something else, or cannot be written.
    """
    run = RunDir(folder)
    if run.identity.exists():
        identity = run.read_identity()
        if identity["campaign_id"] != given.campaign_id:
            raise RunFolderError(
                f"{run.path}: belongs to campaign {identity['campaign']!r} as it was at another time, or on another "
                f"site (its campaign id is {identity['campaign_id']}, this one's {given.campaign_id}); choose another "
                "--folder, or leave it out"
            )
        return run, True
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise RunFolderError(
            f"{run.path}: exists and is no run folder; choose another --folder, or leave it out"
        )
    _refuse_what_nodes_cannot_use(run.path, given.site, plan)
    temporary = run.path.with_name(f".{run.path.name}.{os.getpid()}.tmp")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        _fill(RunDir(temporary), run, given, plan, fresh_twins=fresh_twins)
        temporary.replace(run.path)
        sync_folder(run.path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        room = " and that has room" if takes_no_more(error) and error.errno != errno.EROFS else ""
        raise RunFolderError(
            f"{run.path}: cannot be made ({error.strerror or error}); choose a --folder on shared storage that you can "
            f"write to{room}"
        ) from None
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return run, False


def _refuse_what_nodes_cannot_use(folder: Path, site: Site, plan: Plan) -> None:
    """A run folder that they do not see, an interpreter that cannot run on them, containers that they do not have."""
    for name in dict.fromkeys(s.partition for s in plan.submissions):
        there = site.on(name)
        where = f"site {site.name}" + (f", partition {name}" if name else "")
        shared = there.paths.shared
        if shared and not any(folder.resolve().is_relative_to(Path(s).resolve()) for s in shared):
            raise RunFolderError(
                f"{folder}: lies in none of the folders that all nodes see ({where}, paths.shared: "
                f"{', '.join(shared)}); "
                "choose a --folder in one of them"
            )
        theirs, ours = there.node.architecture, platform.machine()
        if theirs not in (None, ours) and there.python is None and there.container is None:
            raise RunFolderError(
                f"{where}: its nodes are {theirs}, and the interpreter that plans this run is for {ours}; name one for "
                "them in the site file, as `python`"
            )
        if (
            there.container is not None
            and there.container.runtime == "pyxis"
            and (problem := pyxis_problem())
        ):
            raise CommandError(f"{where}: {problem}")


def _fill(run: RunDir, final: RunDir, given: Input, plan: Plan, *, fresh_twins: bool) -> None:
    write_atomic(run.campaign_text, given.campaign_text.encode())
    write_atomic(run.site_text, given.site_text.encode())
    write_json(run.site, site_for_jobs(given.site, sys.executable))
    code_sha256 = freeze.freeze(run.code)
    run_id = secrets.token_hex(4)
    run.logs.mkdir(mode=0o700)
    run.work.mkdir(mode=0o700)
    run.script("x").parent.mkdir(mode=0o700)
    cache = twins.Cache.of_user()
    keys = twin_keys(given, plan, code_sha256) if cache is not None else {}
    plan, whole, notes = twins.use(
        None if fresh_twins else cache, run, plan, keys, given.campaign, given.site
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    write_json(run.plan, whole.to_json())
    for event in _designs(plan):
        append_line(run.driver_events, event.to_json())
    slurm, has = slurm_here() if given.site.launcher == "slurm" else ("", None)
    texts = scripts(given, plan, final, run_id=run_id, templates=given.templates, slurm=has)
    for name, text in texts.items():
        write_atomic(run.script(name), text.encode(), mode=0o700)
    used = templates_used(plan, given.templates)
    write_json(run.templates, [vars(source) for source in used])
    write_json(
        run.identity,
        {
            "schema": RUN_SCHEMA,
            "run_id": run_id,
            "campaign": given.campaign.name,
            "description": given.campaign.description,
            "campaign_id": given.campaign_id,
            "site": given.site.name,
            "created_wall_ns": time.time_ns(),
            "harness_version": harness.__version__,
            "git_commit": git_commit(),
            "code_sha256": code_sha256,
            "scripts": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
            "templates": {source.name: source.sha256 for source in used},
            "command": shlex.join(given.command),
            "environment": environment(),
            "slurm_version": slurm,
        },
    )


def _designs(plan: Plan) -> Iterator[Event]:
    """What the plan repeats and compares, for those who have the results alone."""
    now = time.time_ns()
    for lot in plan.lots:
        yield Event(ev.LOT_PLANNED, now, 0, "", "driver", data=lot.to_json())
    for comparison in plan.comparisons:
        yield Event(ev.COMPARISON_PLANNED, now, 0, "", "driver", data=comparison.to_json())


def site_for_jobs(site: Site, python: str) -> dict[str, Any]:
    """The site as jobs read it: with an interpreter, and with each of its partitions resolved into a site."""

    def resolved(one: Site) -> dict[str, Any]:
        values = one.model_dump(mode="json", exclude={"partitions"})
        return {**values, "python": one.python or python}

    return {**resolved(site), "partitions": {name: resolved(site.on(name)) for name in site.partitions}}


def twin_keys(given: Input, plan: Plan, code_sha256: str) -> dict[str, str]:
    """Under which key each twin of a plan is kept; may ask interpreters, and only where there are twins."""
    if not any(case.is_twin for case in plan.cases):
        return {}
    return twins.keys(
        plan,
        code_sha256=code_sha256,
        site=site_for_jobs(given.site, sys.executable),
        templates={
            name: {source.name: source.sha256 for source in sources(name, given.templates)}
            for name in {submission.template for submission in plan.submissions}
        },
    )


def scripts(
    given: Input,
    plan: Plan,
    run: RunDir,
    *,
    run_id: str,
    templates: Templates,
    slurm: Mapping[str, bool] | None,
) -> dict[str, str]:
    """Every submission's script, as it would lie in this run folder. Reads templates, asks bash, writes nothing.

    Raises:
        RenderError: a template is wrong, refuses or has a block that is nowhere; or bash cannot read the script.
    """
    texts = {
        submission.name: render(
            submission,
            plan,
            given.site,
            run_id=run_id,
            run_folder=str(run.path),
            python=given.site.on(submission.partition).python or sys.executable,
            code_path=str(run.code),
            templates=templates,
            slurm=slurm,
        )
        for submission in plan.submissions
    }
    for name in dict.fromkeys(submission.template for submission in plan.submissions):
        refuse_lost_blocks(name, templates)
    refuse_bad(texts, {s.name: given.site.on(s.partition).prologue for s in plan.submissions})
    return texts


def templates_used(plan: Plan, templates: Templates, partition: str | None = None) -> list[Source]:
    """The templates that a plan's scripts are made of, perhaps those in one partition, and all that those extend."""
    found = {}
    submissions = [s for s in plan.submissions if partition in (None, s.partition)]
    for name in dict.fromkeys(submission.template for submission in submissions):
        found.update({source.name: source for source in sources(name, templates)})
    return [found[name] for name in sorted(found)]


def environment() -> dict[str, Any]:
    """Interpreter, kernel and package versions of the machine that plans."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "packages": versions,
    }


def git_commit() -> str:
    """Commit of the harness's own checkout, ``+changes`` when files differ from it; "unknown" outside a checkout."""
    root = Path(harness.__file__).parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return "unknown"
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def slurm_version() -> str:
    """What ``sbatch --version`` says; asks no controller.

    Raises:
        CommandError: sbatch is not there or does not answer.
    """
    return run_command(["sbatch", "--version"], timeout_s=20).strip()


def slurm_here() -> tuple[str, dict[str, bool]]:
    """What ``sbatch --version`` says, and what that version has; a warning goes to stderr.

    Raises:
        CommandError: sbatch is not there, does not answer, or is older than any that the harness knows.
    """
    said = slurm_version()
    version, warning = usable_version(said)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return said, features(version)
