"""What must hold before a real node is switched off; each rule is broken once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.faults import FaultError, guard, tools

STAGING: dict[str, Any] = {"kind": "staging", "name": "lab", "power": {"max_nodes": 1}}
UNNAMED = "node n1 was not named on the command line (`harness run --may-power-off n1`); named: "


class FakeSlurm:
    """Answers of squeue and scontrol."""

    def __init__(self, jobs: str = "12_3\n", share: str = "OverSubscribe=NO ") -> None:
        self.jobs, self.share = jobs, share

    async def slurm(self, command: Sequence[str]) -> str:
        return self.jobs if command[0] == "squeue" else f"JobId=12 {self.share}Contiguous=0"


def ask(
    slots: Path,
    slurm: FakeSlurm | None = None,
    *,
    site: dict[str, Any] = STAGING,
    allowed: Sequence[str] = ("n1", "n2"),
    node: str = "n1",
    job_id: str = "12_3",
) -> None:
    asyncio.run(guard.may_switch_off(slurm or FakeSlurm(), site, allowed, slots, node, job_id))


def test_a_named_node_that_is_ours_alone_may_be_switched_off(tmp_path: Path) -> None:
    ask(tmp_path / "off")
    assert [p.read_text().strip() for p in (tmp_path / "off").iterdir()] == ['{\n "node": "n1"\n}']


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"site": {**STAGING, "kind": "production"}}, "site lab is production: its nodes are never switched off"),
        ({"allowed": ()}, f"{UNNAMED}none was"),
        ({"allowed": ("n2",)}, f"{UNNAMED}n2"),
        ({"job_id": ""}, "there is no Slurm job, so nobody can say that the node is ours alone"),
        ({"slurm": FakeSlurm("12_3\n99\n")}, "node n1 is not ours alone: jobs 99 are on it"),
        ({"slurm": FakeSlurm("12_4\n")}, "node n1 is not ours alone: jobs 12_4 are on it"),
        ({"slurm": FakeSlurm("")}, "node n1 is not ours alone: our job 12_3 is not on it, says Slurm"),
        (
            {"slurm": FakeSlurm(share="OverSubscribe=OK ")},
            "job 12_3 is not exclusive (OverSubscribe: OK): another may join it on n1",
        ),
        (
            {"slurm": FakeSlurm(share="")},
            "job 12_3 is not exclusive (OverSubscribe: nothing): another may join it on n1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_refused_and_why(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(FaultError) as refused:
        ask(tmp_path / "off", **options)
    assert str(refused.value) == words
    assert not (tmp_path / "off").exists()


def test_no_more_nodes_are_off_than_the_site_allows_and_one_that_is_on_again_makes_room(
    tmp_path: Path,
) -> None:
    slots = tmp_path / "off"
    ask(slots)
    ask(slots)  # the same once more
    with pytest.raises(FaultError) as refused:
        ask(slots, node="n2")
    assert str(refused.value) == (
        "n1: already off, and site allows 1 node of a run at a time (power.max_nodes)"
    )
    guard.give_back(slots, "n1")
    ask(slots, node="n2")


def test_an_emulated_node_needs_no_leave(tmp_path: Path) -> None:
    ask(tmp_path / "off", FakeSlurm(""), site={"kind": "emulated"}, allowed=(), job_id="")


def test_the_secret_comes_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sesame\n")
    secret.chmod(0o600)
    says = ["sh", "-c", 'test "$HARNESS_POWER_SECRET" = sesame && echo on {action} {node}']
    means = {"command": says, "secret_file": str(secret)}
    assert asyncio.run(tools.power(means, "status", "n1")) == {"said": "on", "output": "on status n1"}
    secret.chmod(0o640)
    with pytest.raises(FaultError, match="others can read it; chmod 600"):
        asyncio.run(tools.power(means, "status", "n1"))
