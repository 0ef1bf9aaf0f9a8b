"""What a site allows, by which mechanism, why not the rest; and that every kind is done by somebody."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness import config, faults
from harness.fault_means import mechanism, nearest, why_not
from harness.model import fault as model
from harness.model.site import Site
from harness.resources import configs_dir
from harness.runtime import rank_faults
from tests.unit.test_plan import site

LOCAL = config.load_site("local", [configs_dir() / "sites"])[0]
EMULATED = config.load_site("emulated", [configs_dir() / "sites"])[0]
PRODUCTION = site(name="big", kind="production", power=None)
STAGING = site(name="stage", kind="staging")


@pytest.mark.parametrize(
    ("kind", "where", "why"),
    [
        ("rank.kill", LOCAL, ""),
        ("node.kill_processes", PRODUCTION, ""),
        ("checkpoint.flip_bit", PRODUCTION, ""),
        ("job.requeue", PRODUCTION, ""),
        ("job.requeue", LOCAL, 'site "local" has no Slurm, by whose commands it is done'),
        ("node.power_off", EMULATED, ""),
        ("node.power_off", STAGING, ""),
        ("node.power_off", PRODUCTION, 'site "big" has no power command (power.command)'),
        ("node.partition", EMULATED, ""),
        (
            "node.partition", STAGING,
            'site "stage" is staging, and this reaches outside the job: emulated clusters only',
        ),
        (
            "controller.away", LOCAL,
            'site "local" is workstation, and this reaches outside the job: emulated clusters only',
        ),
    ],
)  # fmt: skip
def test_a_site_allows_a_kind_or_says_why_not(kind: str, where: Site, why: str) -> None:
    assert why_not(kind, where) == why


def test_a_power_command_alone_is_not_enough() -> None:
    smuggled = STAGING.model_copy(update={"kind": "production", "name": "big"})
    assert why_not("node.power_off", smuggled) == (
        'site "big" is production, and nodes are switched off on emulated and staging sites only'
    )


@pytest.mark.parametrize("kind", model.KINDS)
def test_every_kind_has_a_mechanism_on_the_emulated_cluster(kind: str) -> None:
    assert why_not(kind, EMULATED) == ""
    assert mechanism(kind, EMULATED)


def test_what_a_real_power_off_takes_is_said() -> None:
    assert mechanism("node.power_off", STAGING) == (
        "the site's power command: bmc {action} {node}; at most 1 node of a run at a time, named by "
        "--may-power-off, with no other's job on it"
    )


def test_the_nearest_kind_is_one_that_the_site_allows() -> None:
    assert nearest("node.power_off", PRODUCTION) == "node.kill_processes"
    assert nearest("job.preempt", PRODUCTION) == "job.requeue"
    assert nearest("job.preempt", LOCAL) == ""
    assert nearest("controller.away", PRODUCTION) == ""


# ---- every kind is done by somebody ----


@pytest.mark.parametrize("kind", [k for k, v in model.KINDS.items() if v.where == model.JOB])
def test_a_kind_from_outside_has_a_module_with_all_four_parts(kind: str) -> None:
    fault = import_module(f"harness.faults.{kind.replace('.', '_')}").FAULT()
    for part in ("inject", "verify_effect", "heal", "verify_healed"):
        assert callable(getattr(fault, part))
    assert type(faults.create(kind)) is type(fault)


@pytest.mark.parametrize("kind", [k for k, v in model.KINDS.items() if v.where == model.RANK])
def test_a_kind_of_a_rank_is_named_where_ranks_do_theirs(kind: str) -> None:
    assert f'"{kind}"' in Path(rank_faults.__file__).read_text()
    assert find_spec(f"harness.faults.{kind.replace('.', '_')}") is None
    with pytest.raises(KeyError, match="done by the rank itself"):
        faults.create(kind)
