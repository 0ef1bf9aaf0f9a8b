"""`harness faults`: every kind, whether it can be done here, and how; it looks and disturbs nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.model.fault import KINDS
from harness.resources import configs_dir

NOT_ON_ONE = "this shell is not on an emulated cluster: `harness cluster exec login -- harness faults`"


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*arguments: str) -> dict[str, dict[str, Any]]:
        assert cli.main(["faults", "--json", *arguments]) == 0
        data = json.loads(capsys.readouterr().out)
        assert [f["kind"] for f in data["faults"]] == list(KINDS)
        return {f["kind"]: f for f in data["faults"]}

    return ask


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell that has all that one on an emulated cluster has, but for Slurm."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "cookie.json").write_text("{}")
    monkeypatch.setenv("HARNESS_CLUSTER", str(tmp_path))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "etc/slurm.conf"))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("scontrol", "scancel", "squeue"):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


def site_file(folder: Path, text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "site.yaml").write_text(text)
    return str(folder / "site.yaml")


def test_on_one_machine_what_needs_slurm_or_more_is_refused_with_why(asked: Any) -> None:
    found = asked()
    assert {k for k, f in found.items() if f["allowed"]} == {k for k, v in KINDS.items() if v.needs == "own"}
    assert found["rank.kill"] == {
        "kind": "rank.kill", "does": "SIGKILL to one rank", "hits": "one rank", "decoy": False, "lasts": False,
        "params": {}, "allowed": True, "mechanism": "SIGKILL to the job's own process", "why_not": "", "instead": "",
    }  # fmt: skip
    assert (found["job.cancel"]["why_not"], found["job.cancel"]["mechanism"]) == (
        'site "local" has no Slurm, by whose commands it is done',
        "",
    )
    assert found["node.power_off"]["instead"] == "node.kill_processes"


def test_on_the_emulated_cluster_everything_is_allowed(asked: Any, cluster: Path) -> None:
    found = asked()
    assert [k for k, f in found.items() if not f["allowed"]] == []
    assert found["node.partition"]["mechanism"] == "packet filters of the emulated cluster"
    assert found["node.power_off"]["mechanism"].startswith(
        "the site's power command: {python} -m harness cluster power"
    )


@pytest.mark.parametrize("lost", ["cookie", "settings"])
def test_a_shell_that_is_not_on_it_is_told_how_to_get_there(
    asked: Any, cluster: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    if lost == "cookie":
        (cluster / "cookie.json").unlink()
    else:
        monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    found = asked("--site", "emulated")
    assert {f["why_not"] for f in found.values() if f["why_not"]} == {NOT_ON_ONE}
    assert {k for k, f in found.items() if not f["allowed"]} == {
        k for k, v in KINDS.items() if v.needs != "own"
    }
    assert found["job.preempt"]["instead"] == ""  # job.requeue is not to be had either


def test_commands_of_slurm_that_are_missing_are_named(asked: Any, cluster: Path) -> None:
    (cluster / "bin/scancel").unlink()
    (cluster / "bin/squeue").chmod(0o644)
    found = asked()
    assert found["job.requeue"]["why_not"] == "this machine has no scancel, squeue"
    assert found["rank.kill"]["allowed"]


def test_a_power_command_must_be_a_program(asked: Any, tmp_path: Path, cluster: Path) -> None:
    text = (configs_dir() / "sites/emulated.yaml").read_text()
    staging = [("kind: emulated", "kind: staging"), ("name: emulated", "name: stage")]
    named = site_file(tmp_path, text, *staging, ('"{python}", "-m"', '"/opt/no/ipmi", "-m"'))
    assert asked("--site", named)["node.power_off"]["why_not"] == (
        "power.command: '/opt/no/ipmi' is no program that can be run on this machine"
    )
    secret = cluster / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    open_to_all = site_file(
        tmp_path,
        text,
        *staging,
        ('"{python}", "-m"', f'"{sys.executable}", "-m"'),
        ("power:\n", f"power:\n  secret_file: {secret}\n"),
    )
    assert asked("--site", open_to_all)["node.power_off"]["why_not"] == (
        f"power.secret_file {secret}: others can read it; chmod 600, and owned by who runs the job"
    )
    there = site_file(tmp_path, text, *staging, ('"{python}", "-m"', f'"{sys.executable}", "-m"'))
    found = asked("--site", there)
    assert found["node.power_off"]["allowed"]
    assert found["node.link_down"]["why_not"] == (
        'site "stage" is staging, and this reaches outside the job: emulated clusters only'
    )


def test_it_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["faults"]) == 0
    out = capsys.readouterr().out.splitlines()
    own = sum(v.needs == "own" for v in KINDS.values())
    assert out[0] == f"site local (workstation) allows {own} of {len(KINDS)} kinds of fault here"
    assert out[1:3] == [
        "yes  rank.kill                one rank      SIGKILL to one rank",
        "                                            by SIGKILL to the job's own process",
    ]
    at = next(n for n, line in enumerate(out) if line.startswith("no   node.power_off "))
    assert out[at + 1].strip() == 'site "local" has no power command (power.command); use node.kill_processes'
    at = next(n for n, line in enumerate(out) if " rank.out_of_memory " in line)
    assert out[at + 1].endswith("; params.mb: 256 unless told otherwise")


def test_a_site_that_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["faults", "--site", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
