"""The verb check, and what the verbs that plan have in common: everything that is wrong, and what it costs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.config import parse_campaign
from harness.cost import Summary, summary
from harness.model.campaign import Campaign
from harness.model.site import Site
from harness.plan import expand
from harness.prepare import open_or_make
from harness.verbs.before import read

CAMPAIGN = """\
schema: 1
name: tiny
seed: 1
limits: {max_jobs_in_queue: 2}
groups:
  - {name: talk, workload: torch.collectives, nodes: 2, repeats: 5, time_limit_min: 28, role: pre-check}
"""
SITE = """\
schema: 1
name: small
kind: production
launcher: slurm
limits: {max_nodes: 4, max_time_min: 60, max_array_size: 100}
node: {cpus: 4, exclusive: true}
mpi: {plugin: pmix, environment: {A: b}}
python: /usr/bin/python3
requeue: true
accounting: true
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(CAMPAIGN)
    Path("s.yaml").write_text(SITE)
    return tmp_path


def harness(capsys: pytest.CaptureFixture[str], verb: str, *more: str) -> tuple[int, list[str], list[str]]:
    """Exit code, and the lines of stdout and stderr."""
    code = cli.main([verb, "c.yaml", "--site", "s.yaml", *more])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_a_campaign_that_fits_is_told_what_it_costs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("more.yaml").write_text("limits: {max_node_hours: 20}\n")
    Path("c.yaml").write_text("include: [more.yaml]\n" + CAMPAIGN)
    code, out, err = harness(capsys, "check", "-s", "packing.mode=jobs", "-s", "repeats=6")
    assert (code, err) == (0, [])
    assert out == [
        "campaign     tiny, from c.yaml, more.yaml",
        "             -s packing.mode=jobs",
        "             -s repeats=6 in talk",
        "site         small",
        "cases        6, of which 0 twins",
        "jobs         6 by 3 sbatch; largest array 2 of 100 allowed",
        "queue        2 of 2 allowed at a time",
        "largest job  2 nodes of 4 allowed; longest 30 min of 60 allowed",
        "node-hours   6 expected, 6 at most, 20 allowed",
    ]


def test_the_same_as_data(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = harness(capsys, "check", "--json", "-s", "repeats=1")
    assert (code, err) == (0, [])
    assert json.loads("\n".join(out)) == {
        "campaign": "tiny",
        "site": "small",
        "fits": True,
        "problems": [],
        "files": ["c.yaml"],
        "overrides": [{"set": "repeats=1", "groups": ["talk"]}],
        "summary": {
            "cases": 1,
            "twins": 0,
            "jobs": 1,
            "submissions": 1,
            "largest_array": 1,
            "largest_job_nodes": 2,
            "longest_job_min": 30,
            "node_hours_expected": 1.0,
            "node_hours_max": 1.0,
            "perhaps_not_needed": 0,
        },
        "limits": {
            "max_nodes": 4,
            "max_time_min": 60,
            "max_array_size": 100,
            "max_jobs_in_queue": 2,
            "max_node_hours": None,
        },
        "unused": [],
    }


def test_all_that_is_wrong_with_both_files_and_their_fit_is_told_at_once(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text(
        CAMPAIGN.replace("seed: 1", "seed: x")
        + "  - {name: big, workload: mpi.halo, nodes: 48}\n"
        + "  - {name: bad, workload: mpi.halo, nodes: 48, stepz: 3, gates: [{metric: los, statistic: max, max: 1}]}\n"
        + "  - {name: late, workload: mpi.halo, nodes: 1, time_limit_min: 600, needs: [lat]}\n"
    )
    expected = [
        'c.yaml:3: seed = "x", must be a whole number; write digits only, without quotes',
        'c.yaml:7: groups[1].nodes = 48, but site "small" allows at most 4; lower it or choose another site',
        "c.yaml:8: groups[2].stepz = 3, is an unknown key, allowed: "
        + ", ".join(_keys())
        + '; did you mean "steps"?',
        'c.yaml:8: groups[2].gates[0].metric = "los", is no metric of the harness; did you mean "loss"?',
        'c.yaml:8: groups[2].nodes = 48, but site "small" allows at most 4; lower it or choose another site',
        'c.yaml:9: groups[3].needs[0] = "lat", is no group of this campaign, allowed: talk, big, bad; '
        "choose one or remove it",
        'c.yaml:9: groups[3].time_limit_min = 600, but site "small" allows jobs of at most 60 minutes, 2 of which the '
        "harness needs itself; lower it or choose another site",
    ]
    for verb in ("check", "plan", "render", "run"):
        assert harness(capsys, verb) == (2, [], expected)
    Path("s.yaml").write_text(SITE.replace("kind: production", "kind: prod"))
    code, _, err = harness(capsys, "check")
    assert (code, err[-1].split(",")[0]) == (2, 's.yaml:3: kind = "prod"')
    assert err[:-1] == [
        line for line in expected if "site" not in line
    ]  # of an unknown site nothing can be said


def _keys() -> list[str]:
    from harness.model.campaign import Group

    return list(Group.model_fields)


def test_a_plan_that_could_take_more_than_allowed_is_refused_before_anything_is_made(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text(CAMPAIGN.replace("{max_jobs_in_queue: 2}", "{max_node_hours: 4}"))
    message = (
        "c.yaml:4: limits.max_node_hours = 4.0, but the plan could take 4.87 node-hours (expected 4.87); lower "
        "repeats, nodes or time limits, or raise it"
    )
    for verb in ("plan", "render", "run"):
        assert harness(capsys, verb) == (2, [], [message])
    code, out, err = harness(capsys, "check")
    assert (code, err) == (2, [message])
    assert "node-hours   4.87 expected, 4.87 at most, 4 allowed" in out
    assert not Path("runs").exists()
    assert harness(capsys, "check", "-s", "repeats=4")[0] == 0


def test_a_doubt_is_told_and_refuses_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = harness(capsys, "check", "-s", "groups.talk.ranks_per_node=8")
    assert code == 0
    assert err == [
        'warning: -s groups.talk.ranks_per_node=8: groups[0].ranks_per_node = 8, but a node of site "small" has 4 '
        "processors: oversubscribed, so times mean little; lower it unless this is meant"
    ]
    assert out[0].startswith("campaign ")


def test_what_recovery_and_retries_could_add_is_at_most_and_not_expected() -> None:
    site = Site.model_validate(
        {
            "schema": 1, "name": "s", "kind": "production", "launcher": "slurm", "requeue": True, "accounting": True,
            "limits": {"max_nodes": 4, "max_time_min": 60}, "node": {"cpus": 4, "exclusive": True},
            "mpi": {"plugin": "pmix"},
        }
    )  # fmt: skip
    fault = {"kind": "node.kill_processes", "target": {"node": 1}, "at": {"step": 9}, "expect": "recovered"}
    plain: dict[str, Any] = {"name": "a", "workload": "mpi.halo", "nodes": 1, "time_limit_min": 58}
    faulted: dict[str, Any] = {
        "name": "b", "workload": "torch.train", "nodes": 2, "time_limit_min": 28, "twin": False,
        "checkpoint": {"every_steps": 5}, "recovery": {"policy": "requeue", "max_restarts": 4}, "faults": (fault,),
    }  # fmt: skip
    failing = {
        **plain,
        "name": "c",
        "faults": ({**fault, "target": {"node": 0}, "expect": "failed", "because": "lost"},),
    }
    retry = {"program": 1, "memory": 2, "time_limit": 0, "machine": 9, "preempted": 9, "unknown": 9}
    campaign = Campaign.model_validate(
        {"schema": 1, "name": "c", "seed": 1, "retry": retry, "groups": (plain, faulted, failing)}
    )
    # a: 1 node x 1 h, at most 1 + 1 + 2 times; b: 2 nodes x 0.5 h, expected twice, at most 1 + 4 times, never retried;
    # c: 1 node x 1 h, once
    assert summary(expand(campaign, site)) == Summary(
        cases=3,
        twins=0,
        jobs=3,
        submissions=3,
        largest_array=1,
        largest_job_nodes=2,
        longest_job_min=60,
        node_hours_expected=4.0,
        node_hours_max=10.0,
    )


# ---- what nobody uses, and what nobody defines ----


def unused(capsys: pytest.CaptureFixture[str]) -> list[str]:
    code, out, _ = harness(capsys, "check", "--json")
    assert code == 0
    found: list[str] = json.loads("\n".join(out))["unused"]
    return found


def test_a_key_of_the_site_that_does_not_concern_this_campaign_is_none_of_its_business(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SITE + "network: {interface: ib0}\naccount: me\nscheduler: {poll_s: 3}\n")
    Path("c.yaml").write_text(CAMPAIGN.replace("torch.collectives", "mpi.halo"))
    assert unused(capsys) == []


def test_a_key_of_a_partition_that_no_template_there_mentions_is_told(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = "{ib: {account: me, network: {interface: ib0}}, other: {network: {interface: eth1}}}"
    Path("s.yaml").write_text(SITE + f"partitions: {parts}\n")
    Path("c.yaml").write_text(CAMPAIGN + "  - {name: halo, workload: mpi.halo, nodes: 1, partition: ib}\n")
    assert unused(capsys) == [
        "partitions.ib.network.interface of site small: no template of this plan mentions it"
    ]


def test_a_key_that_an_own_template_dropped_is_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = files / "own"
    own.mkdir()
    (own / "torch.sh.j2").write_text(
        '{% extends "harness/torch.sh.j2" %}\n{% block prologue %}\n{% endblock %}\n{% block environment %}\n'
        "export X=1\n{% endblock %}\n"
    )
    Path("s.yaml").write_text(
        SITE + f"templates: {own}\nnetwork: {{interface: ib0}}\nenvironment: {{A: b}}\n"
    )
    assert unused(capsys) == []  # what it extends mentions them
    (own / "torch.sh.j2").write_text('{% extends "harness/base.sh.j2" %}\n')
    assert unused(capsys) == ["network.interface of site small: no template of this plan mentions it"]
    (own / "base.sh.j2").write_text(
        '{% extends "harness/base.sh.j2" %}\n{% block prologue %}{% endblock %}\n'
    )
    assert harness(capsys, "check")[0] == 0


def test_a_parameter_that_a_command_never_mentions_is_told(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text("""\
schema: 1
name: x
seed: 1
groups:
  - name: g
    workload: command
    nodes: 1
    params: {size: 3, colour: red, shape: round}
    axes: [{depth: [1, 2]}, {width: [1]}]
    command:
      script: "echo {size} $HARNESS_PARAM_shape {depth}"
      success: {output: "."}
""")
    assert unused(capsys)[-2:] == [
        "colour of group g: its command never mentions it",
        "width of group g: its command never mentions it",
    ]


def test_a_name_that_no_script_has_is_refused_also_in_a_branch_not_taken(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = files / "own"
    own.mkdir()
    (own / "torch.sh.j2").write_text(
        '{% extends "harness/torch.sh.j2" %}\n{% block prologue %}\n{% if nodes > 99 %}\n'
        "echo {{ runfolder | shell }}\n{% endif %}\n{{ super() }}\n{% endblock %}\n"
    )
    Path("c.yaml").write_text(CAMPAIGN + "templates: own\n")
    code, _, err = harness(capsys, "check")
    assert code == 2
    assert err[0].startswith(
        f"{own}/torch.sh.j2:4: runfolder, is no variable of scripts, allowed: array_last, code_path, "
    )
    assert err[0].endswith('; did you mean "run_folder"?')


def test_a_template_that_cannot_be_filled_in_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = files / "own"
    own.mkdir()
    (own / "torch.sh.j2").write_text("#!/bin/bash\n{% if %}\n")
    code, _, err = harness(capsys, "check", "-s", "templates=own")
    assert (code, len(err)) == (2, 1)
    assert f"{own}/torch.sh.j2:2: " in err[0]


def test_a_file_of_an_own_folder_that_nothing_uses_is_told(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = files / "own"
    own.mkdir()
    (own / "bases.sh.j2").write_text("")
    (own / "mpi.sh.j2").write_text('{% extends "harness/mpi.sh.j2" %}{% include "site/part.j2" %}')
    (own / "part.j2").write_text("")
    (own / "README.md").write_text("")
    code, _, err = harness(capsys, "check", "-s", "templates=own")
    assert (code, err) == (2, [err[0]])  # part.j2 is not the site's
    (own / "mpi.sh.j2").write_text('{% extends "harness/mpi.sh.j2" %}{% include "part.j2" %}')
    assert harness(capsys, "check", "-s", "templates=own")[::2] == (
        0,
        [
            f"warning: {own}/bases.sh.j2: no template of the harness, nor one that extends it, uses this file; "
            'did you mean "base.sh.j2"?'
        ],
    )


@pytest.mark.parametrize("verb", ["check", "render"])
def test_a_block_or_a_line_of_shell_that_would_go_wrong_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    Path("s.yaml").write_text(SITE + "prologue: ['ulimit -l 9', 'if true; then']\n")
    code, _, err = harness(capsys, verb)
    assert code == 2
    assert "0000.sh, line " in err[-1]
    assert err[-1].endswith("prologue[1] of the site file is 'if true; then'; correct it")
    Path("s.yaml").write_text(SITE)
    own = files / "own"
    own.mkdir()
    (own / "torch.sh.j2").write_text('{% extends "harness/torch.sh.j2" %}{% block thread %}2{% endblock %}')
    code, _, err = harness(capsys, verb, "-s", "templates=own")
    assert (code, err[-1].rsplit("; ", 1)[-1]) == (2, 'did you mean "threads"?')


# ---- what a run folder keeps ----


def test_a_run_folder_alone_gives_the_same_run_again(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("more.yaml").write_text("groups:\n  - {name: more, workload: mpi.halo, nodes: 1}\n")
    Path("c.yaml").write_text("include: [more.yaml]\n" + CAMPAIGN)

    def options(campaign: str, *changes: str) -> argparse.Namespace:
        return argparse.Namespace(
            campaign=campaign, site="local", set=list(changes), command=["harness", "run"]
        )

    given, planned = read(options("c.yaml", "groups.more.repeats=2"))
    run, _ = open_or_make(files / "run", given, planned)
    Path("more.yaml").unlink()
    again, same = read(options(str(run.campaign_text)))
    assert (again.campaign, again.campaign_id, same) == (given.campaign, given.campaign_id, planned)
    assert parse_campaign(run.campaign_text.read_text()) == given.campaign
    assert open_or_make(files / "run", again, same)[1]


def test_five_hundred_cases_are_planned_in_under_a_second_of_processor_time(files: Path) -> None:
    rows = list(range(8, 808, 8))
    Path("c.yaml").write_text(
        "schema: 1\nname: x\nseed: 1\npacking: {mode: jobs}\ngroups:\n  - {name: g, workload: mpi.halo, nodes: 1,\n"
        f"     repeats: 5, axes: [{{rows: {rows}}}]}}\n"
    )
    times = []
    for _ in range(3):  # the least: the machine may be busy
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-m", "harness", "plan", "c.yaml", "--site", "s.yaml"],
            capture_output=True,
            text=True,
        )
        after = os.times()
        assert done.stdout.splitlines()[-1].startswith("cases 500, twins 0, jobs 500, submissions 5, ")
        times.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(times) < 1
