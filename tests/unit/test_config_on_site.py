"""A campaign on a site: what of it the site does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config
from harness.config import ConfigError
from tests.unit.config_texts import GOOD, SITE


def checked(campaign_text: str, site_text: str) -> list[str]:
    campaign = config.parse_campaign(campaign_text, "c.yaml")
    problems = config.check(campaign, config.parse_site(site_text), path="c.yaml", text=campaign_text)
    return [("warning: " if p.warning else "") + str(p) for p in problems]


def test_a_campaign_that_is_too_large_for_a_site_is_told_every_place() -> None:
    text = """\
schema: 1
name: x
seed: 1
groups:
  - name: a
    workload: mpi.halo
    scaling: {mode: strong, nodes: [1, 4, 48]}
    time_limit_min: 29
    ranks_per_node: 8
  - name: b
    workload: torch.train
    nodes: 5
    checkpoint: {every_steps: 1}
    recovery: {policy: requeue}
    faults:
      - kind: node.power_off
        target: {node: 1}
        at: {step: 5}
        expect: recovered
"""
    assert checked(text, SITE.replace("requeue: true", "requeue: false")) == [
        'c.yaml:7: groups[0].scaling.nodes[2] = 48, but site "tiny" allows at most 4; '
        "lower it or choose another site",
        'c.yaml:8: groups[0].time_limit_min = 29, but site "tiny" allows jobs of at most 30 minutes, 2 of which the '
        "harness needs itself; lower it or choose another site",
        'warning: c.yaml:9: groups[0].ranks_per_node = 8, but a node of site "tiny" has 4 processors: '
        "oversubscribed, so times mean little; lower it unless this is meant",
        'c.yaml:12: groups[1].nodes = 5, but site "tiny" allows at most 4; lower it or choose another site',
        'c.yaml:14: groups[1].recovery.policy = "requeue", but site "tiny" does not start jobs again '
        "(requeue: false); choose another site, or write none and expect failed",
        'c.yaml:16: groups[1].faults[0].kind = "node.power_off", but site "tiny" has no power command '
        "(power.command); choose another site, or add instead: node.kill_processes (`harness faults` lists what it "
        "allows)",
    ]


def test_a_sites_folder_of_templates_is_meant_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    for said, meant in (("own", "sites/own"), ("../own", "sites/../own"), (f"{tmp_path}/x", "x")):
        file = tmp_path / "sites/tiny.yaml"
        file.write_text(SITE + f"templates: {said}\n")
        assert config.load_site(file)[0].templates == f"{tmp_path}/{meant}"
    file.write_text(SITE + "templates: 3\n")
    with pytest.raises(ConfigError, match=r"templates = 3, must be a text"):
        config.load_site(file)


def test_a_substitute_makes_a_power_off_possible_where_there_is_no_power_command() -> None:
    with_instead = GOOD.replace("node.power_off,", "node.power_off, instead: node.kill_processes,")
    assert len(checked(GOOD, SITE)) == 1
    assert checked(with_instead, SITE) == []


def test_a_campaign_that_was_built_in_python_is_checked_without_lines() -> None:
    campaign = config.parse_campaign(GOOD)
    assert [str(p) for p in config.check(campaign, config.parse_site(SITE))] == [
        'campaign: groups[0].faults[0].kind = "node.power_off", but site "tiny" has no power command '
        "(power.command); choose another site, or add instead: node.kill_processes (`harness faults` lists what it "
        "allows)"
    ]
