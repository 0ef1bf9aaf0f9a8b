"""Submission and site -> the text of the script that is submitted. Pure, but for reading the templates.

Values reach a script through one of three filters, and a template that prints a text without one is
refused: ``shell`` quotes for bash, ``directive`` quotes for sbatch's own parser of ``#SBATCH`` lines, and
``code`` lets through what a site's author wrote as shell. Control characters are refused everywhere, so
no value starts a line. Arithmetic and decisions are done here; templates only lay out.
"""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.model.campaign import POWER_OFF
from harness.model.case import Plan, Submission
from harness.model.fields import bad_character
from harness.model.site import Site

_PLAIN = re.compile(r"[A-Za-z0-9_./:,=+@%^-]+")
_HET_JOB = re.compile(r"(packjo|hetjo)(b)", re.IGNORECASE)


class RenderError(ValueError):
    """A script cannot be written; the message names the value or the template, and says what to change."""


def render(
    submission: Submission,
    plan: Plan,
    site: Site,
    *,
    run_id: str,
    run_folder: str | Path,
    python: str | Path,
    code_path: str | Path,
    templates: Path,
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
        templates: folder of the templates.

    Raises:
        RenderError: a value cannot be written into a script, or the template is wrong.
    """
    context = _context(
        submission,
        plan,
        site,
        run_id=run_id,
        run_folder=str(run_folder),
        python=str(python),
        code_path=str(code_path),
    )
    try:
        text = _environment(templates).get_template(submission.template).render(context)
    except jinja2.TemplateNotFound as error:
        raise RenderError(f"template {error.name}: not in {templates}; the harness is not complete") from None
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(
            f"{error.filename or submission.template}:{error.lineno}: {error.message}; correct it"
        ) from None
    except jinja2.TemplateError as error:
        raise RenderError(f"template {submission.template}: {error.message}; correct it") from None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RenderError(
            f"template {submission.template}: holds text that is not UTF-8; correct it"
        ) from None
    return text


def shell(value: Any) -> Markup:
    """Quote a value for bash, as one word."""
    return Markup(shlex.quote(_clean(value)))


def directive(value: Any) -> Markup:
    """Quote a value for sbatch, whose parser of ``#SBATCH`` lines is not a shell.

    It groups by single and double quotes, takes a backslash before any character, in quotes too, and ends a
    line at a bare ``#``. Whatever stands around them, it takes "packjob" and "hetjob" for its own words
    (src/sbatch/opt.c, _get_argument), so a backslash breaks those up.
    """
    text = _clean(value)
    if _PLAIN.fullmatch(text) and not _HET_JOB.search(text):
        return Markup(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return Markup('"' + _HET_JOB.sub(r"\1\\\2", escaped) + '"')


def code(value: Any) -> Markup:
    """Let one line of shell through as it is: it is code, and its author answers for it."""
    return Markup(_clean(value))


def _clean(value: Any) -> str:
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, and names the variable
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RenderError(
            f"{value!r}: only texts and whole numbers can be written into a script; change the template"
        )
    text = str(value)
    if bad := bad_character(text):
        raise RenderError(
            f"{_short(text)}: holds the control character {bad}, which no script may; rename it"
        )
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _fenced(value: Any) -> Any:
    """What a template may print: whole numbers, and texts that came out of a filter."""
    if isinstance(value, Markup | jinja2.Undefined) or (
        isinstance(value, int) and not isinstance(value, bool)
    ):
        return value
    raise RenderError(
        f"{_short(str(value))}: printed by a template as it is; pipe it through shell or directive"
    )


@functools.lru_cache(maxsize=8)
def _environment(templates: Path) -> jinja2.Environment:
    """Jinja for one folder; kept, because compiling a template costs more than filling it in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates, encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        finalize=_fenced,
        autoescape=True,  # not for HTML: it makes Jinja tell filtered text (Markup) from other text
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("safe", "escape", "e", "forceescape", "xmlattr", "tojson", "urlize"):
        del environment.filters[name]
    environment.filters.update(shell=shell, directive=directive, code=code)
    return environment


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
            raise RenderError(f"{name} {_short(value)}: is not an absolute path; begin it with /")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", run_id):
        raise RenderError(
            f"run id {_short(run_id)}: is used in the names of jobs, allowed: a-z A-Z 0-9 . _ -; rename it"
        )
    if "\\" in run_folder and site.launcher == "slurm":
        raise RenderError(
            f"run folder {_short(run_folder)}: holds a backslash, with which Slurm fills in no job number in "
            "the name of a log; use another folder"
        )
    jobs = submission.jobs
    job = jobs[0]
    shape = {(j.nodes, j.ranks_per_node, j.time_limit_min, j.requeue) for j in jobs}
    if len(shape) != 1:
        raise RenderError(
            f"submission {submission.name}: its jobs differ in shape, and an array has one; plan again"
        )
    cases = [plan.case(case_id) for j in jobs for case_id in j.case_ids]
    power_off = any(f.kind == POWER_OFF for c in cases for f in c.faults)
    exclusive = site.node.exclusive or power_off  # a node that others compute on is not switched off
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
        "yields": shared_cores or job.ranks_per_node > site.node.cpus,
        "run_folder": run_folder,
        "python": python,
        "code_path": code_path,
    }
