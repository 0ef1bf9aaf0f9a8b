"""Quoting: for bash, for sbatch's parser of its own lines, of texts that mean something to either.

Here the whole way of folder, interpreter and code into a script, and sbatch itself as the reader; that every
text of a site or campaign file is quoted, `test_render_safety.py` reads from the models.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.render import directive, shell
from tests.unit.test_render import NASTY, STUB, rendered, tiny_plan, tiny_site

CANARY = Path("/tmp/harness-escaped")
# Texts that would run something even where no program can be found: redirections are bash's own.
RUNNING = [
    f"$(echo >{CANARY})",
    f"`echo >{CANARY}`",
    f"; echo >{CANARY}; ",
    f"'; echo >{CANARY}; '",
    f'"; echo >{CANARY}; "',
    f"\\'; echo >{CANARY} #",
    f"$'\\n' echo >{CANARY}",
    f"x\\\necho >{CANARY}",
    f"x\n#SBATCH --uid=0\necho >{CANARY}",
]
LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=24)
VALUE = (LINE | st.sampled_from(NASTY) | st.sampled_from(RUNNING)).filter(lambda t: len(t.encode()) < 200)
# What sbatch's options may be: not empty, on one line, and no heterogeneous job.
FILLED = VALUE.filter(lambda t: t.strip() != "" and "\n" not in t and not re.search(r"\s:\s", t))
FILE_NAME = VALUE.map(lambda t: t.replace("/", "_").replace("\\", "_").replace("\n", "_")).filter(
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


# ---- what the run itself adds: folder, interpreter, code ----

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
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@given(VALUE.filter(lambda t: "\n" not in t))
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
