"""Makes a run folder: everything that jobs and later drivers need, fixed at plan time, put in place whole."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
from harness import freeze
from harness.model.campaign import Campaign
from harness.model.case import Plan, content_id
from harness.model.site import Site
from harness.render import render
from harness.resources import templates_dir
from harness.rundir import RUN_SCHEMA, RunDir, RunFolderError, sync_folder, write_atomic, write_json
from harness.slurm.commands import run_command

PACKAGES = ("submitit", "torch", "mpi4py", "numpy", "h5py", "jinja2", "pydantic")


@dataclass(frozen=True)
class Input:
    """What a person gave: the values, their texts, and the command line."""

    campaign: Campaign
    campaign_text: str
    site: Site
    site_text: str
    command: Sequence[str]

    @property
    def campaign_id(self) -> str:
        """Same campaign on the same site, same id; comments and layout do not count."""
        return content_id([self.campaign.model_dump(mode="json"), self.site.model_dump(mode="json")])


def open_or_make(folder: Path, given: Input, plan: Plan) -> tuple[RunDir, bool]:
    """The run in ``folder``: the one that is there, if it is of the same campaign, else a new one.

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
    temporary = run.path.with_name(f".{run.path.name}.{os.getpid()}.tmp")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        _fill(RunDir(temporary), run, given, plan)
        temporary.replace(run.path)
        sync_folder(run.path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunFolderError(
            f"{run.path}: cannot be made ({error.strerror or error}); choose a --folder on shared storage that you can "
            "write to"
        ) from None
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return run, False


def _fill(run: RunDir, final: RunDir, given: Input, plan: Plan) -> None:
    write_atomic(run.campaign_text, given.campaign_text.encode())
    write_atomic(run.site_text, given.site_text.encode())
    python = given.site.python or sys.executable
    site = given.site.model_dump(mode="json")
    write_json(run.site, {**site, "python": python})
    write_json(run.plan, plan.to_json())
    code_sha256 = freeze.freeze(run.code)
    run_id = secrets.token_hex(4)
    run.logs.mkdir(mode=0o700)
    run.script("x").parent.mkdir(mode=0o700)
    scripts = {}
    for submission in plan.submissions:
        text = render(
            submission,
            plan,
            given.site,
            run_id=run_id,
            run_folder=str(final.path),
            python=python,
            code_path=str(final.code),
            templates=templates_dir(),
        )
        write_atomic(run.script(submission.name), text.encode(), mode=0o700)
        scripts[submission.name] = hashlib.sha256(text.encode()).hexdigest()
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
            "scripts": scripts,
            "command": shlex.join(given.command),
            "environment": environment(),
            "slurm_version": slurm_version() if given.site.launcher == "slurm" else "",
        },
    )


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
