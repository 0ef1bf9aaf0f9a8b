"""Campaigns and sites as texts, and the whole message that each wrong one gets. Not a test."""

from __future__ import annotations

import pytest

from harness import config
from harness.config import ConfigError
from harness.model.campaign import Campaign
from harness.model.site import Site
from harness.resources import configs_dir

CAMPAIGNS, SITES = configs_dir() / "campaigns", configs_dir() / "sites"

GOOD = """\
schema: 1
name: good
seed: 1
groups:
  - name: train
    workload: torch.train
    nodes: 2
    steps: 20
    checkpoint: {every_steps: 5}
    recovery: {policy: requeue}
    faults:
      - {kind: node.power_off, target: {node: 1}, at: {step: 10}, expect: recovered}
"""

SITE = """\
schema: 1
name: tiny
kind: production
launcher: slurm
limits: {max_nodes: 4, max_time_min: 30}
node: {cpus: 4, exclusive: true}
mpi: {plugin: pmix}
requeue: true
accounting: true
"""


def campaign_errors(text: str) -> str:
    """The whole message for a campaign's text, in a file called c.yaml."""
    with pytest.raises(ConfigError) as caught:
        config.parse_campaign(text, "c.yaml")
    return str(caught.value)


def site_errors(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse_site(text, "s.yaml")
    return str(caught.value)


def keys_of(model: type[Site] | type[Campaign]) -> str:
    return ", ".join(field.alias or name for name, field in model.model_fields.items())
