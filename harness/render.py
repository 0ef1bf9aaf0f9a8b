"""Submission and site -> the text of the script that is submitted. Pure, but for reading the templates.

Arithmetic and decisions are done here; templates (``harness.templates``) only lay out. A finished script is
read as sbatch reads it, and refused when an own template dropped what driver and supervisor count on
(``harness.script``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.model import fault as fault_model
from harness.model.case import Plan, Submission
from harness.model.container import path_problem
from harness.model.site import Site
from harness.script import Essential, RenderError, directive, shell, short, verify
from harness.templates import Templates, fill

__all__ = ["RenderError", "Templates", "directive", "render", "shell"]

WARNING = "B:USR2@60"  # a signal to the supervisor alone, a minute before the time limit


def render(
    submission: Submission,
    plan: Plan,
    site: Site,
    *,
    run_id: str,
    run_folder: str | Path,
    python: str | Path,
    code_path: str | Path,
    templates: Templates | Path,
    slurm: Mapping[str, bool] | None = None,
) -> str:
    """The script of one submission.

    Args:
        submission: what is submitted; one of ``plan.submissions``.
        plan: the plan it is of.
        site: where it will run.
        run_id: names the run in the job's name.
        run_folder: absolute; the same folder on all nodes.
        python: interpreter of the job.
        code_path: what the job imports the harness from: a folder or a zip file.
        templates: folders of the templates; one alone is the harness's own.
        slurm: what this Slurm has (``harness.slurm.versions.features``); all of it unless told otherwise.

    Raises:
        RenderError: a value cannot be written into a script, a template is wrong or refuses, or the script
            lacks something essential.
    """
    context = _context(
        submission,
        plan,
        site.on(submission.partition),
        run_id=run_id,
        run_folder=str(run_folder),
        python=str(python),
        code_path=str(code_path),
    )
    folders = templates if isinstance(templates, Templates) else Templates(templates)
    text = fill(submission.template, folders, {**context, "has": _has(slurm)})
    try:
        verify(text, _essential(context), slurm=site.launcher == "slurm")
    except RenderError as error:
        raise RenderError(f"template {submission.template}: {error}") from None
    return text


def variables(submission: Submission, plan: Plan, site: Site) -> frozenset[str]:
    """Names that the template of a submission may use."""
    there = site.on(submission.partition)
    return frozenset(
        {*_context(submission, plan, there, run_id="0", run_folder="/", python="/", code_path="/"), "has"}
    )


def _has(slurm: Mapping[str, bool] | None) -> Any:
    def has(feature: str) -> bool:
        if slurm is None:
            return True
        if feature not in slurm:
            raise RenderError(
                f"has({short(str(feature))}): is not in the table of what Slurm's versions have, allowed: "
                f"{', '.join(sorted(slurm))}; correct it"
            )
        return slurm[feature]

    return has


def _essential(context: Mapping[str, Any]) -> Essential:
    """What no template may drop or change."""
    requeue, last = context["requeue"], context["array_last"]
    planned = "the plan counts on it"
    return Essential(
        options={
            "job-name": (context["job_name"], "the driver finds a job again by its name"),
            "nodes": (str(context["nodes"]), planned),
            "time": (str(context["time_limit_min"]), planned),
            "array": (
                None if last is None else f"0-{last}",
                "each task is one of the submission's jobs" if last is not None else "it is a single job",
            ),
            "output": (context["log"], "logs are looked for there"),
            "open-mode": ("append", "a job that starts again would wipe what it said before"),
            "requeue": ("" if requeue else None, "the recovery that the plan says"),
            "no-requeue": (None if requeue else "", "the recovery that the plan says"),
            "no-kill": (
                None if requeue else "",
                "with it Slurm starts no job again that lost a node"
                if requeue
                else "without it the job ends with its first node, and nothing is recorded of the others",
            ),
            **(
                {"ntasks": (None, "a job that starts again would wait for that many tasks")}
                if requeue
                else {}
            ),
            "signal": (WARNING, "the supervisor is warned by it, and no step of it"),
            "export": ("ALL", "the driver tells the supervisor by the environment which round it is"),
        },
        lines={
            f"export PYTHONPATH={shell(context['code_path'])}": "jobs run the code of their run folder",
            f"cd -- {shell(context['run_folder'])}": "python looks for code where it starts",
        },
        last=f"exec {shell(context['python'])} -m harness.runtime.supervisor {shell(context['run_folder'])} "
        f"{shell(context['submission'])}",
    )


def _context(
    submission: Submission,
    plan: Plan,
    site: Site,
    *,
    run_id: str,
    run_folder: str,
    python: str,
    code_path: str,
) -> dict[str, Any]:
    """What templates see; sbatch_templates/base.sh.j2 lists it for people."""
    for name, value in {"run folder": run_folder, "interpreter": python, "code path": code_path}.items():
        if not value.startswith("/"):
            raise RenderError(f"{name} {short(value)}: is not an absolute path; begin it with /")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", run_id):
        raise RenderError(
            f"run id {short(run_id)}: is used in the names of jobs, allowed: a-z A-Z 0-9 . _ -; rename it"
        )
    if "\\" in run_folder and site.launcher == "slurm":
        raise RenderError(
            f"run folder {short(run_folder)}: holds a backslash, with which Slurm fills in no job number in "
            "the name of a log; use another folder"
        )
    if site.container is not None:
        for name, value in {"run folder": run_folder, "node-local folder": site.paths.node_local}.items():
            if problem := path_problem(value):
                raise RenderError(f"{name} {short(value)}: {problem}")
    jobs = submission.jobs
    job = jobs[0]
    shape = {(j.nodes, j.ranks_per_node, j.time_limit_min, j.requeue) for j in jobs}
    if len(shape) != 1:
        raise RenderError(
            f"submission {submission.name}: its jobs differ in shape, and an array has one; plan again"
        )
    cases = [plan.case(case_id) for j in jobs for case_id in j.case_ids]
    outside = (fault_model.POWER, fault_model.EMULATED)  # others who compute on a node would be hit as well
    reaches_out = any(fault_model.KINDS[f.kind].needs in outside for c in cases for f in c.faults)
    exclusive = site.node.exclusive or reaches_out
    shared_cores = site.kind in ("emulated", "workstation")  # its nodes share the cores of one machine
    number = "%A_%a" if submission.is_array else "%j"
    return {
        "site": site,
        "submission": submission.name,
        "job_name": submission.job_name(run_id),
        "nodes": job.nodes,
        "ranks_per_node": job.ranks_per_node,
        "min_cpus": min(job.ranks_per_node, site.node.cpus),
        "time_limit_min": job.time_limit_min,
        "requeue": job.requeue,
        "exclusive": exclusive,
        "array_last": len(jobs) - 1 if submission.is_array else None,
        "log": f"{run_folder.replace('%', '%%')}/logs/{submission.name}-{number}.out",
        "threads": max(1, site.node.cpus // job.ranks_per_node) if exclusive and not shared_cores else 1,
        "own_step": any(c.command is None or c.command["world"] == "mpi" for c in cases),
        "yields": shared_cores or job.ranks_per_node > site.node.cpus,
        "run_folder": run_folder,
        "python": python,
        "code_path": code_path,
    }
