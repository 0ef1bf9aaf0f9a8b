"""Campaign and site files: what is read, and the schema that editors get."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.config import ConfigError
from harness.model.campaign import Campaign
from harness.model.site import Site
from harness.model.site_parts import (
    Container,
    Limits,
    Mpi,
    Network,
    Node,
    Paths,
    Power,
    Scheduler,
)
from harness.source import parse
from tests.unit.config_texts import CAMPAIGNS, GOOD, SITES

BLOCKS = {
    "limits": Limits, "node": Node, "container": Container, "mpi": Mpi, "network": Network, "paths": Paths,
    "power": Power, "scheduler": Scheduler,
}  # fmt: skip


def test_a_campaign_is_its_values_and_its_text(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    campaign, text = config.load_campaign(path)
    assert (campaign, text) == (config.parse_campaign(GOOD), GOOD)
    assert campaign.model_dump(mode="json", exclude_defaults=True) == {
        "schema": 1,
        "name": "good",
        "seed": 1,
        "groups": [
            {
                "name": "train",
                "workload": "torch.train",
                "nodes": 2,
                "steps": 20,
                "checkpoint": {"every_steps": 5},
                "recovery": {"policy": "requeue"},
                "faults": [
                    {
                        "kind": "node.power_off",
                        "target": {"node": 1},
                        "at": {"step": 10},
                        "expect": "recovered",
                    }
                ],
            }
        ],
    }


def test_what_is_written_as_json_is_read_back_as_the_same_value() -> None:
    campaign, site = config.parse_campaign(GOOD), config.load_site("emulated", [SITES])[0]
    assert Campaign.model_validate_json(campaign.model_dump_json()) == campaign
    assert Site.model_validate_json(site.model_dump_json()) == site


@pytest.mark.parametrize("name", ["quickstart", "sweep"])
@pytest.mark.parametrize("site", ["emulated", "local", "example-gpu"])
def test_the_lessons_fit_every_site_that_comes_with_the_harness(site: str, name: str) -> None:
    campaign, text = config.load_campaign(name, [CAMPAIGNS])
    assert config.check(campaign, config.load_site(site, [SITES])[0], text=text) == []


def test_every_line_of_the_gpu_example_is_explained_and_every_key_is_in_it() -> None:
    text = (SITES / "example-gpu.yaml").read_text()
    data = parse(text).data
    assert set(data) == {field.alias or name for name, field in Site.model_fields.items()}
    for name, block in BLOCKS.items():
        shown = set(data[name]) if data[name] is not None else set(re.findall(r"(?m)^#       (\w+):", text))
        assert shown >= set(block.model_fields), f"{name}: lacks {set(block.model_fields) - shown}"
    blocks = [block.strip().splitlines() for block in text.split("\n\n")]
    unexplained = [
        block[0]
        for block in blocks
        if not any(line.lstrip().startswith("#") for line in block)
        and not block[0].startswith(("qos", "gres"))
    ]
    assert unexplained == []


def test_an_example_in_a_comment_of_the_gpu_site_is_a_valid_one() -> None:
    text = (SITES / "example-gpu.yaml").read_text()
    commented = [
        "\n".join(line.removeprefix("#     ") for line in block.splitlines())
        for block in re.findall(r"(?m)^#     (?:power|container):\n(?:#       .*\n)+", text)
    ]
    staging = text.replace("kind: production", "kind: staging", 1)
    for example in commented:
        name = example.split(":", 1)[0]
        site = config.parse_site(staging.replace(f"\n{name}: null\n", f"\n{example}\n"))
        assert getattr(site, name) is not None
    assert len(commented) == 2


def test_names_are_looked_up_and_paths_are_not(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert config.load_campaign("mine", [CAMPAIGNS, tmp_path])[0].name == "good"
    assert config.load_campaign("mine.yaml", [tmp_path])[0].name == "good"
    with pytest.raises(ConfigError) as caught:
        config.load_campaign("./mine", [tmp_path])
    assert str(caught.value) == ('./mine: no such file or campaign, allowed: mine; did you mean "mine"?')


def test_a_folder_of_the_same_name_does_not_hide_a_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    assert config.load_site("local", [SITES])[0].name == "local"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert config.load_campaign(tmp_path / "c.yaml")[1] == GOOD


def test_yaml_is_that_of_version_1_2() -> None:
    text = "[yes, on, 1:30, 010, 0x10, 0o10, 1e3, 1_000, .5, ~, null, true, 1.10, '1', 2026-01-01]"
    assert parse(text).data == (
        "yes", "on", "1:30", 10, 16, 8, 1000.0, "1_000", 0.5, None, None, True, 1.1, "1", "2026-01-01",
    )  # fmt: skip


def test_aliases_within_reason_are_written_out() -> None:
    text = GOOD.replace("checkpoint: {", "checkpoint: &c {") + textwrap.dedent("""\
      - name: again
        workload: torch.train
        nodes: 2
        checkpoint: *c
    """).replace("\n", "\n  ").replace("- name", "  - name", 1).rstrip(" ")
    first, second = config.parse_campaign(text).groups
    assert first.checkpoint == second.checkpoint


# ---- schema for editors ----


@pytest.mark.parametrize("schema", [config.campaign_json_schema(), config.site_json_schema()])
def test_the_schema_describes_every_key_and_forbids_others(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False
        undescribed = [
            n for n, p in part["properties"].items() if not p.get("description") and "$ref" not in p
        ]
        assert undescribed == []
    assert schema["properties"]["schema"]["const"] == 1


def test_the_schema_knows_the_workloads_and_the_values_that_an_axis_takes() -> None:
    group = config.campaign_json_schema()["$defs"]["Group"]["properties"]
    assert group["workload"]["enum"] == [
        "command",
        "io.shards",
        "mpi.cg",
        "mpi.collectives",
        "mpi.halo",
        "torch.collectives",
        "torch.gemm",
        "torch.pipeline",
        "torch.train",
    ]
    scalars = [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]
    axis = group["axes"]["items"]
    assert axis["minProperties"] == 1
    assert axis["additionalProperties"]["items"] == {
        "anyOf": [*scalars, {"type": "array", "items": {"anyOf": scalars}}]
    }
