"""Campaign and site files: what is read, and what a person is told when it cannot be."""

from __future__ import annotations

import os
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness import config
from harness.config import ConfigError
from harness.model.campaign import Campaign
from harness.model.fault import KINDS
from harness.model.fields import NOTHING
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
from harness.resources import configs_dir
from harness.source import parse

CAMPAIGNS, SITES = configs_dir() / "campaigns", configs_dir() / "sites"

BLOCKS = {
    "limits": Limits, "node": Node, "container": Container, "mpi": Mpi, "network": Network, "paths": Paths,
    "power": Power, "scheduler": Scheduler,
}  # fmt: skip

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


def file_errors(path: Path) -> str:
    """The whole message for a file, its folder left out."""
    with pytest.raises(ConfigError) as caught:
        config.load_campaign(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def keys_of(model: type[Site] | type[Campaign]) -> str:
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def without(text: str, line: str) -> str:
    assert line in text
    return text.replace(line, "")


# ---- what is read ----


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


# ---- files that cannot be read ----


def test_a_missing_file_names_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load_site("emulatd", [SITES])
    assert str(caught.value) == (
        'emulatd: no such file or site, allowed: emulated, example-gpu, local; did you mean "emulated"?'
    )
    with pytest.raises(ConfigError) as caught:
        config.load_site("no/such.yaml", [SITES])
    assert str(caught.value) == (
        "no/such.yaml: no such file or site, allowed: emulated, example-gpu, local; "
        "choose one, or give the path of a file"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "c.yaml: the file is empty; write a campaign, or copy one of configs/campaigns"),
        (b"# nothing\n---\n", "c.yaml: the file is empty; write a campaign, or copy one of configs/campaigns"),
        (b"schema: 1\nname: \0\n", "c.yaml:2: is binary: byte 16 is NUL; give the path of a YAML file"),
        ("schema: 1".encode("utf-16"), "c.yaml:1: is binary: byte 3 is NUL; give the path of a YAML file"),
        (b"schema: 1\nname: caf\xe9\n", "c.yaml:2: is not UTF-8: byte 19 is 0xe9; save it as UTF-8"),
        (b"#" * (1 << 20) + b"#", "c.yaml: is larger than 1048576 bytes, which is the limit; split it"),
        (b"- 1\n- 2\n", "c.yaml:1: the file holds a list, allowed: keys and values; begin with schema: 1"),
        (b"hello\n", 'c.yaml:1: the file holds the value "hello", allowed: keys and values; begin with schema: 1'),
        (b"a: b: c\n", "c.yaml:1: not valid YAML: mapping values are not allowed here; correct it"),
        (
            b"a:\n\t- 1\n",
            "c.yaml:2: not valid YAML: found character '\\t' that cannot start any token, while scanning for the "
            "next token; correct it",
        ),
        (
            b"a: [1, 2\nb: 3\n",
            "c.yaml:2: not valid YAML: expected ',' or ']', but got ':', while parsing a flow sequence; correct it",
        ),
        (b"a: 1\nb: \x07\n", "c.yaml:2: not valid YAML: special characters are not allowed; correct it"),
        (b"a: 1\n---\nb: 1\n", "c.yaml:2: a second document begins here, allowed: one a file; remove the line '---'"),
        (
            b"[" * 40_000,
            "c.yaml:1: " + "[0]" * 32 + ", is nested deeper than 32 levels; make it flatter",
        ),
        (b"x" * 70_000, "c.yaml:1: the line has 70000 characters, allowed: 65536; break it up"),
        (b"? [1, 2]\n: 3\n", "c.yaml:1: has a key that is not plain text; write every key as a word and a colon"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:40],
)  # fmt: skip
def test_an_unreadable_file_says_why_and_where(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    assert file_errors(path) == message


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert file_errors(tmp_path / "pipe.yaml") == "pipe.yaml: is not a file; give the path of a YAML file"
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError) as caught:
        config.load_campaign(tmp_path / "folder.yaml")
    assert str(caught.value) == f"{tmp_path}/folder.yaml: is not a file; give the path of a YAML file"


def test_a_billion_laughs_are_refused_at_once() -> None:
    text = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n"
    for n in range(1, 40):
        text += f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n"
    start = time.monotonic()
    assert campaign_errors(text) == (
        "c.yaml:5: a4[0], more than 10000 values, aliases written out; split the file or use fewer aliases"
    )
    assert time.monotonic() - start < 2


def test_an_alias_of_itself_and_an_unknown_alias_are_told() -> None:
    assert campaign_errors("schema: &s [*s]\nname: *t\n").splitlines()[:2] == [
        "c.yaml:1: schema[0], the alias *s contains itself; write the value out",
        "c.yaml:1: schema, allowed: 1; choose one",
    ]
    assert "c.yaml:2: name, the alias *t has no anchor before it; write the value out" in campaign_errors(
        "schema: 1\nname: *t\n"
    )


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!str", "!mine", "!"])
def test_a_tag_does_nothing_but_be_refused(tag: str) -> None:
    shown = tag.replace("!!", "tag:yaml.org,2002:")
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    errors = campaign_errors(GOOD.replace("name: good", f"name: {tag} good"))
    assert errors == f"c.yaml:2: name, carries the tag {shown}, and tags are not allowed; remove it"


def test_a_key_that_is_written_twice_names_both_lines() -> None:
    assert campaign_errors(GOOD + "seed: 2\n") == (
        "c.yaml:13: seed, is written twice, first on line 3; keep one of the two"
    )


TEXT = st.text(st.characters(codec="latin-1"), max_size=8)
JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=200) | st.text("-:[]{}&*!?|>'\"%@`#,<~ \n\tab01", max_size=60))
@settings(max_examples=400, deadline=None)
def test_no_text_makes_the_reader_raise_anything_but_a_config_error(text: str) -> None:
    source = parse(text)
    assert source.data is not NOTHING or source.findings or not text.strip() or parse(text + "\n# x")
    with pytest.raises(ConfigError) as caught:
        config.parse_campaign(text, "c.yaml")
    for problem in caught.value.problems:
        assert str(problem).startswith("c.yaml:")
        assert len(str(problem)) < 2000


@given(JSON_LIKE)
@settings(max_examples=200, deadline=None)
def test_json_is_yaml(value: Any) -> None:
    import json

    text = json.dumps(value)
    source = parse(text)
    assert (source.data, source.findings) == (value, ())


# ---- wrong values ----


def test_a_wrong_campaign_is_told_everything_at_once() -> None:
    text = """\
schema: 1
nmae: x
name: Quick Start
seed: "7"
groups:
  - name: a
    workload: torch.colectives
    scaling: {mode: weak, nodes: [1, 2, 0]}
    params: {message_byte: 1}
  - name: a
    workload: torch.train
    nodes: 2
    steps: 40.5
    repeats: 0
    params: {layers: two, learning_rate: -1, width: [1], heads: true}
    faults:
      - {kind: node.poweroff, target: {node: 3}, at: {step: 99}, expect: recovered}
    gates:
      - {metric: los, statistic: medan, max: .inf}
      - {metric: loss, statistic: min}
      - {metric: loss, statistic: min, min: 3, max: 1, where: {mesage_bytes: 1}}
  - name: c
    workload: torch.collectives
    nodes: 2
    checkpoint: {every_steps: 2}
    warmup_steps: 30
  - workload: torch.train
    recovery: requeue
    faults:
  - e
"""
    expected = """\
c.yaml:2: nmae = "x", is an unknown key, allowed: KEYS; did you mean "name"?
c.yaml:3: name = "Quick Start", is used in names of files and jobs, allowed: 1 to 64 of a-z 0-9 . _ -, the first \
a letter or digit; rename it
c.yaml:4: seed = "7", must be a whole number; write digits only, without quotes
c.yaml:7: groups[0].workload = "torch.colectives", is no workload, allowed: command, io.shards, mpi.cg, \
mpi.collectives, mpi.halo, torch.collectives, torch.gemm, torch.pipeline, torch.train; did you mean "torch.collectives"?
c.yaml:8: groups[0].scaling.nodes[2] = 0, is too small, allowed: 1 and above; raise it
c.yaml:10: groups[1].name = "a", is the name of groups[0] too; give each its own
c.yaml:13: groups[1].steps = 40.5, must be a whole number; write digits only, without quotes
c.yaml:14: groups[1].repeats = 0, is too small, allowed: 1 and above; raise it
c.yaml:15: groups[1].params.layers = "two", must be a whole number, like the default 2; change it
c.yaml:15: groups[1].params.learning_rate = -1, is negative, allowed: 0 and above (default 0.001); change it
c.yaml:15: groups[1].params.width, must be one value, like the default 64; remove the [ ]
c.yaml:15: groups[1].params.heads = true, must be a whole number, like the default 4; change it
c.yaml:17: groups[1].faults[0].kind = "node.poweroff", is no kind of fault, allowed: KINDS; \
did you mean "node.power_off"?
c.yaml:19: groups[1].gates[0].statistic = "medan", allowed: median, mean, min, max, p95; did you mean "median"?
c.yaml:19: groups[1].gates[0].max = Infinity, must be a finite number; change it
c.yaml:19: groups[1].gates[0].metric = "los", is no metric of the harness; did you mean "loss"?
c.yaml:20: groups[1].gates[1], has neither min nor max, baseline nor history, so it would pass everything; \
add one of them
c.yaml:21: groups[1].gates[2].min = 3, is above max = 1, so nothing can pass; exchange them
c.yaml:21: groups[1].gates[2].where.mesage_bytes = 1, is no column of the samples; did you mean "message_bytes"?
c.yaml:25: groups[2].checkpoint, but torch.collectives cannot save its state; remove it or choose another workload
c.yaml:26: groups[2].warmup_steps = 30, leaves nothing of 30 steps to judge; lower it
c.yaml:27: groups[3].name, is missing (Short name, unique in the campaign); add it
c.yaml:28: groups[3].recovery = "requeue", must be keys and values; write it in { } or indented below
c.yaml:29: groups[3].faults = null, is empty and must be a list; write it in [ ]
c.yaml:30: groups[4] = "e", must be keys and values; write it in { } or indented below"""
    assert (
        campaign_errors(text).splitlines()
        == expected.replace("KEYS", keys_of(Campaign)).replace("KINDS", ", ".join(KINDS)).splitlines()
    )


def group(body: str) -> str:
    """A campaign of one group, whose own lines begin on line 5."""
    return "schema: 1\nname: x\nseed: 1\ngroups:\n" + textwrap.indent("- " + textwrap.dedent(body).replace("\n", "\n  ").rstrip(), "  ") + "\n"  # fmt: skip  # noqa: E501


FAULT = "{kind: node.kill_processes, target: {node: 1}, at: {step: 5}, expect: recovered}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "name: a\nworkload: mpi.halo",
            "5: groups[0], says on how many nodes it runs neither by nodes nor by scaling; add one of them",
        ),
        (
            "name: a\nworkload: mpi.halo\nnodes: 2\nscaling: {mode: strong, nodes: [1]}",
            "7: groups[0].nodes = 2, and scaling both say on how many nodes it runs; remove one of them",
        ),
        (
            "name: a\nworkload: mpi.halo\nscaling: {mode: strong}",
            "7: groups[0].scaling.nodes, is missing (Numbers of nodes, each of them once); add it",
        ),
        (
            "name: a\nworkload: mpi.halo\nscaling: {mode: strong, nodes: []}",
            "7: groups[0].scaling.nodes, is empty, allowed: 1 or more; add something",
        ),
        (
            "name: a\nworkload: mpi.halo\nscaling: {mode: strong, nodes: [1, 2, 1]}",
            "7: groups[0].scaling.nodes[2] = 1, is in the list twice; keep one of the two",
        ),
        (
            "name: a\nworkload: mpi.halo\nscaling: {mode: weak, nodes: [1, 2]}",
            "7: groups[0].scaling.grow, is missing: weak scaling must know which parameter grows with the nodes; "
            "add it",
        ),
        (
            "name: a\nworkload: mpi.halo\nscaling: {mode: strong, nodes: [1, 2], grow: rows}",
            '7: groups[0].scaling.grow = "rows", only weak scaling grows a parameter; remove it or write mode: weak',
        ),
        (
            "name: a\nworkload: mpi.halo\nscaling: {mode: weak, nodes: [1, 2], grow: row}",
            '7: groups[0].scaling.grow = "row", is no whole-number parameter of mpi.halo, allowed: columns, rows; '
            'did you mean "rows"?',
        ),
        (
            "name: a\nworkload: mpi.halo\nparams: {rows: 100}\nscaling: {mode: weak, nodes: [3, 4], grow: rows}",
            "8: groups[0].scaling.nodes[1] = 4, makes rows = 100 x 4/3, which is no whole number; "
            "change it or rows",
        ),
        (
            "name: a\nworkload: mpi.halo\nnodes: 2\nparams: {colums: 3}",
            "8: groups[0].params.colums = 3, is no parameter of mpi.halo, allowed: columns, rows; "
            'did you mean "columns"?',
        ),
        (
            "name: a\nworkload: torch.collectives\nnodes: 2\nparams: {message_bytes: 3}",
            "8: groups[0].params.message_bytes = 3, must be a list, like the default [65536, 1048576, 8388608]; "
            "write it in [ ]",
        ),
        (
            "name: a\nworkload: torch.collectives\nnodes: 2\nparams: {message_bytes: []}",
            "8: groups[0].params.message_bytes, is an empty list; give a value or leave the key out",
        ),
        (
            "name: a\nworkload: torch.collectives\nnodes: 2\nparams: {message_bytes: {a: 1}}",
            "8: groups[0].params.message_bytes, must be a number, a text, true, false, or a list of these; "
            "change it",
        ),
        (
            "name: a\nworkload: torch.collectives\nnodes: 2\nsteps: 5",
            "8: groups[0].steps = 5, is not above the 5 warm-up steps of torch.collectives, so nothing is left to "
            "judge; raise it or set warmup_steps",
        ),
        (
            "name: a\nworkload: torch.collectives\nnodes: 2\nrecovery: {policy: requeue}",
            '8: groups[0].recovery.policy = "requeue", but torch.collectives cannot resume from a saved state; '
            "write none or choose another workload",
        ),
        (
            "name: a\nworkload: torch.train\nnodes: 2\nrecovery: {policy: none, max_restarts: 2}",
            "8: groups[0].recovery.max_restarts = 2, means nothing with policy: none; remove it or write "
            "policy: requeue",
        ),
        (
            "name: a\nworkload: torch.train\nnodes: 2\nsteps: 9\ncheckpoint: {every_steps: 10}",
            "9: groups[0].checkpoint.every_steps = 10, is more than the 9 steps of a case, so none would be taken; "
            "lower it",
        ),
        (
            "name: a\nworkload: torch.train\nnodes: 2\ntwin: true",
            "8: groups[0].twin = true, means nothing without faults; remove it or add a fault",
        ),
        (
            f"name: a\nworkload: torch.train\nnodes: 2\nfaults: [{FAULT}]",
            '8: groups[0].faults[0].expect = "recovered", but the group cannot recover without recovery: {policy: '
            "requeue} and checkpoint: {every_steps: ...}; add that, or expect failed",
        ),
        (
            f"name: a\nworkload: torch.train\nnodes: 2\nfaults: [{FAULT}]\nrecovery: {{policy: requeue}}",
            '8: groups[0].faults[0].expect = "recovered", but the group cannot recover without checkpoint: '
            "{every_steps: ...}; add that, or expect failed",
        ),
        (
            f"name: a\nworkload: torch.collectives\nnodes: 2\nfaults: [{FAULT}]",
            '8: groups[0].faults[0].expect = "recovered", but torch.collectives cannot resume from a saved state; '
            "expect failed or choose another workload",
        ),
        (
            f"name: a\nworkload: torch.train\nsteps: 5\nscaling: {{mode: strong, nodes: [2, 1]}}\n"
            f"checkpoint: {{every_steps: 1}}\nrecovery: {{policy: requeue}}\nfaults: [{FAULT}]",
            "11: groups[0].faults[0].at.step = 5, but a case has 5 steps, the last of them 4; lower it\n"
            "c.yaml:11: groups[0].faults[0].target.node = 1, but the smallest case has 1 node, allowed: 0 to 0; "
            "lower it",
        ),
        (
            f"name: a\nworkload: torch.train\nnodes: 2\ncheckpoint: {{every_steps: 1}}\n"
            f"recovery: {{policy: requeue, max_restarts: 1}}\nfaults: [{FAULT}, {FAULT}]",
            "9: groups[0].recovery.max_restarts = 1, but 2 faults are expected to be recovered from; raise it",
        ),
        (
            "name: a\nworkload: torch.train\nnodes: 2\ntwin: true\n"
            f"faults: [{FAULT.replace('recovered', 'failed, because: lost')}]",
            "8: groups[0].twin = true, but no fault is expected to be recovered from; remove it",
        ),
        (
            "name: a\nworkload: torch.train\nnodes: 2\nfaults: [{kind: node.kill_processes, instead: "
            "node.power_off, target: {node: 1}, at: {step: 5}, expect: failed, because: lost}]",
            '8: groups[0].faults[0].instead = "node.power_off", is never used, since every site allows '
            "node.kill_processes; remove it",
        ),
        (
            "name: a\nworkload: torch.train\nnodes: 2\nfaults: [{kind: node.power_off, instead: "
            "node.power_off, target: {node: 1}, at: {step: 5}, expect: failed, because: lost}]",
            '8: groups[0].faults[0].instead = "node.power_off", is the same as kind; name another fault or remove it',
        ),
    ],
    ids=lambda value: value.split(", ", 1)[1][:40] if value[0].isdigit() else "",
)  # fmt: skip
def test_a_campaign_that_contradicts_itself_is_told_where(body: str, message: str) -> None:
    assert campaign_errors(group(body)) == f"c.yaml:{message}"


def test_what_else_is_wrong_with_a_group_is_told_in_the_same_breath() -> None:
    text = group(
        "name: a\nworkload: mpi.halo\nnodes: 2\nscaling: {mode: strong, nodes: [1, 48]}\nstepz: 3\nrepeats: x\n"
        "axes: [{rows: [1, 2], columns: [1]}]\ntime_limit_min: 600"
    )
    draft = config.fit(config._draft(config.files.from_text(text, "c.yaml")), config.parse_site(SITE))
    assert [str(problem).split(", ")[0] for problem in draft] == [
        "c.yaml:7: groups[0].nodes = 2",
        "c.yaml:8: groups[0].scaling.nodes[1] = 48",
        "c.yaml:9: groups[0].stepz = 3",
        'c.yaml:10: groups[0].repeats = "x"',
        "c.yaml:11: groups[0].axes[0]",
        "c.yaml:12: groups[0].time_limit_min = 600",
    ]


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ("name: a\nworkload: mpi.halo\nnodess: 2", ["groups[0].nodess = 2"]),
        ("name: a\nworkload: mpi.halo\nnodes: x", ['groups[0].nodes = "x"']),
        (
            "name: a\nworkload: torch.train\nnodes: 2\nrecovery: {policy: requeue}\ncheckpoint: 5\n"
            f"faults: [{FAULT}]",
            ["groups[0].checkpoint = 5"],
        ),
        ("name: a\nworkload: command\nnodes: 1\ncommand: {run: [a], success: {output: 3}}",
         ["groups[0].command.success.output"]),
        ("name: a\nworkload: mpi.halo\nnodes: 48\npartition: 3", ["groups[0].partition = 3"]),
    ],
)  # fmt: skip
def test_what_only_follows_from_another_mistake_is_not_told(body: str, messages: list[str]) -> None:
    draft = config.fit(config._draft(config.files.from_text(group(body), "c.yaml")), config.parse_site(SITE))
    assert [str(p).split(": ", 1)[1].split(", ")[0].split(" = 3")[0] for p in draft] == [
        m.split(" = 3")[0] for m in messages
    ]


ONE_SHAPE = "one job has one shape here, heterogeneous jobs are not supported"


def test_keys_of_heterogeneous_jobs_are_refused_with_the_reason() -> None:
    wanted = group("name: a\nworkload: mpi.halo\nnodes: 2\nhetgroup: 1\npartition: [a, b]") + "hetjob: true\n"
    assert campaign_errors(wanted).splitlines() == [
        f"c.yaml:8: groups[0].hetgroup = 1, is an unknown key: {ONE_SHAPE}: use two groups, or `partitions` of the "
        "site file; remove it",
        f"c.yaml:9: groups[0].partition, is a list, and {ONE_SHAPE}: use two groups, or `partitions` of the site "
        "file; name one",
        f"c.yaml:10: hetjob = true, is an unknown key: {ONE_SHAPE}: use two groups, or `partitions` of the site file; "
        "remove it",
    ]
    assert ONE_SHAPE in site_errors(SITE + "het: {size: 2}\n")
    assert ONE_SHAPE in site_errors(SITE + "partition: [a, b]\n")


def test_a_long_value_is_quoted_in_part() -> None:
    assert campaign_errors(GOOD.replace("torch.train", "x" * 100)).startswith(
        'c.yaml:6: groups[0].workload = "' + "x" * 55 + '...", is no workload, allowed: '
    )


def test_a_wrong_site_is_told_everything_at_once() -> None:
    text = """\
schema: 2
name: tiny
kind: prod
launcher: slurm
partition: "batch\\n#SBATCH --uid=0"
account: ""
acount: me
limits: {max_nodes: 0}
node: {cpus: 4, exclusive: yes}
environment: {OMP_NUM_THREADS: 4, PYTHONPATH: /x, SLURM_CONF: /x, "a b": c, UID: "0"}
prologue: ["module load x", "# a comment", "continued \\\\"]
mpi: {plugin: "pmix; rm"}
network: {interface: "eth0 up"}
paths: {node_local: tmp}
power: {command: ["{python}", "{nodes}", "{"]}
requeue: true
"""
    expected = """\
s.yaml:1: schema = 2, allowed: 1; choose one
s.yaml:1: accounting, is missing (Whether `sacct` works here); add it
s.yaml:3: kind = "prod", allowed: emulated, staging, production, workstation; did you mean "production"?
s.yaml:5: partition = "batch\\n#SBATCH --uid=0", holds the control character '\\n' at position 6; write it on one line
s.yaml:6: account = "", is empty; write a text or leave the key out
s.yaml:7: acount = "me", is an unknown key, allowed: KEYS; did you mean "account"?
s.yaml:8: limits.max_nodes = 0, is too small, allowed: 1 and above; raise it
s.yaml:8: limits.max_time_min, is missing (Longest time limit of one job, in minutes); add it
s.yaml:9: node.exclusive = "yes", must be true or false, without quotes (in YAML 1.2 yes and no are texts); change it
s.yaml:10: environment.OMP_NUM_THREADS = 4, must be a text; put it in quotes
s.yaml:10: environment.PYTHONPATH = "/x", is set by the harness, Slurm or bash itself; remove it
s.yaml:10: environment.SLURM_CONF = "/x", is set by the harness, Slurm or bash itself; remove it
s.yaml:10: environment['a b'] = "c", is no name of a variable, allowed: letters, digits and _; rename it
s.yaml:10: environment.UID = "0", is set by the harness, Slurm or bash itself; remove it
s.yaml:11: prologue[1] = "# a comment", is a comment; write it in the file as a comment of YAML
s.yaml:11: prologue[2] = "continued \\\\", ends in a backslash, and each line is a command of its own; join them
s.yaml:12: mpi.plugin = "pmix; rm", is no name of an MPI plug-in; `srun --mpi=list` lists them
s.yaml:13: network.interface = "eth0 up", is no name of a network interface; `ip -brief link` lists them
s.yaml:14: paths.node_local = "tmp", is not an absolute path; begin it with /
s.yaml:15: power.command[1] = "{nodes}", has another placeholder than {action}, {node} and {python}; remove it
s.yaml:15: power.command[2] = "{", has braces that do not match (Single '{' encountered in format string); \
write {{ for a brace
s.yaml:15: power.command, never says {action}; add it
s.yaml:15: power.command, never says {node}; add it"""
    assert site_errors(text).splitlines() == expected.replace("KEYS", keys_of(Site)).splitlines()


def test_names_that_bash_or_slurm_own_are_no_variables_of_a_site() -> None:
    text = (
        SITE + 'environment: {PYTHONPATH: /x, SLURM_CONF: /x, "a b": c, UID: "0", BASH_ENV: /x, GOOD: "1"}\n'
    )
    owned = "is set by the harness, Slurm or bash itself; remove it"
    assert site_errors(text).splitlines() == [
        f's.yaml:10: environment.PYTHONPATH = "/x", {owned}',
        f's.yaml:10: environment.SLURM_CONF = "/x", {owned}',
        "s.yaml:10: environment['a b'] = \"c\", is no name of a variable, allowed: letters, digits and _; rename it",
        f's.yaml:10: environment.UID = "0", {owned}',
        f's.yaml:10: environment.BASH_ENV = "/x", {owned}',
    ]


def test_a_power_command_belongs_to_emulated_and_staging_sites_alone() -> None:
    power = 'power: {command: [bmc, "{action}", "{node}"]}\n'
    assert site_errors(SITE + power) == (
        "s.yaml:10: power, but the site is production, and only emulated and staging sites may have one; remove it"
    )
    config.parse_site(SITE.replace("production", "staging") + power)


def test_a_local_site_has_nothing_of_slurm() -> None:
    text = SITE.replace("launcher: slurm", "launcher: local").replace("production", "workstation")
    assert site_errors(text + "partition: x\n").splitlines() == [
        "s.yaml:9: accounting = true, there is no Slurm with launcher: local; write false",
        's.yaml:10: partition = "x", means nothing with launcher: local; remove it',
    ]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every text in JSON-like data, keys of free mappings included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
            if path and path[-1] in ("environment", "params", "where"):
                yield (*path, ("key", key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    elif isinstance(value, str):
        yield path


def replaced(value: Any, path: tuple[Any, ...], change: Callable[[str], str]) -> Any:
    """A copy, immutable lists made tuples, with the text at ``path`` changed."""
    if not path:
        return change(value)
    if isinstance(path[0], tuple):
        return {change(k) if k == path[0][1] else k: v for k, v in value.items()}
    if isinstance(value, dict):
        return {k: replaced(v, path[1:], change) if k == path[0] else v for k, v in value.items()}
    return tuple(replaced(v, path[1:], change) if i == path[0] else v for i, v in enumerate(value))


def tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: tuples(v) for k, v in value.items()}
    return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value


FULL_SITE = tuples(
    {
        **config.parse_site(
            SITE.replace("production", "staging")
            + """\
python: /usr/bin/python3
partition: a
account: a
qos: a
reservation: a
constraint: a
gres: gpu:1
licenses: a
description: a
environment: {A: b}
prologue: [true1]
mpi: {plugin: pmix, environment: {A: b}}
network: {interface: eth0}
power: {command: ["{python}", "{action}", "{node}"]}
""".replace("mpi: {plugin: pmix, environment: {A: b}}\n", "")
        ).model_dump(mode="json"),
        "mpi": {"plugin": "pmix", "environment": {"A": "b"}},
    }
)
FULL_CAMPAIGN = tuples(
    config.parse_campaign(
        GOOD
        + """\
    params: {layers: 2}
    gates:
      - {metric: loss, statistic: min, max: 3, where: {step: 1}}
  - {name: b, workload: mpi.halo, scaling: {mode: weak, nodes: [1], grow: rows}}
description: x
"""
    ).model_dump(mode="json", exclude_none=True)
)


@pytest.mark.parametrize("bad", ["\n#SBATCH --uid=0", "\r", "\0", "\x1b[2J", "\u2028", "\x85"])
@pytest.mark.parametrize(
    ("model", "data", "path"),
    [(m, d, p) for m, d in ((Site, FULL_SITE), (Campaign, FULL_CAMPAIGN)) for p in leaves(d)],
    ids=lambda v: ".".join(str(x) for x in v) if isinstance(v, tuple) else "",
)
def test_no_text_of_a_file_may_hold_a_control_character(
    model: type[Site] | type[Campaign], data: Any, path: tuple[Any, ...], bad: str
) -> None:
    model.model_validate(data)
    with pytest.raises(ValidationError):
        model.model_validate(replaced(data, path, lambda text: text + bad))


# ---- a campaign on a site ----


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


def test_a_parameter_is_not_larger_than_any_machine_could_hold() -> None:
    assert campaign_errors(
        group(
            "name: a\nworkload: mpi.halo\nnodes: 2\nparams: {rows: 9223372036854775807}\n"
            "axes: [{columns: [1, 1099511627777]}]"
        )
    ).splitlines() == [
        "c.yaml:8: groups[0].params.rows = 9223372036854775807, is too large, allowed: 1099511627776 and "
        "below; "
        "lower it",
        "c.yaml:9: groups[0].axes[0].columns[1] = 1099511627777, is too large, allowed: 1099511627776 and "
        "below; "
        "lower it",
    ]
    config.parse_campaign(group("name: a\nworkload: mpi.halo\nnodes: 2\nparams: {rows: 1099511627776}"))


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


def test_a_campaign_of_too_many_cases_is_refused() -> None:
    text = group("name: a\nworkload: mpi.halo\nrepeats: 1000\nscaling: {mode: strong, nodes: [1, 2, 3, 4]}")
    more = text + "".join(
        f"  - {{name: g{n}, workload: mpi.halo, nodes: 1, repeats: 1000}}\n" for n in range(7)
    )
    assert campaign_errors(more) == (
        "c.yaml:4: groups, make 11000 cases, allowed: 10000; lower repeats, shorten axes or split the campaign"
    )


def test_a_campaign_of_far_too_many_cases_is_refused_at_once() -> None:
    many = ", ".join(str(n) for n in range(1, 1001))
    axes = "".join(
        f"\n- {{{name}: [{many}]}}" for name in ("rows", "columns", "nodes", "steps", "ranks_per_node")
    )
    start = time.monotonic()
    errors = campaign_errors(group(f"name: a\nworkload: mpi.halo\nwarmup_steps: 0\naxes:{axes}"))
    assert errors == (
        "c.yaml:4: groups, make 1000000000000000 cases, allowed: 10000; lower repeats, shorten axes or split the "
        "campaign"
    )
    assert time.monotonic() - start < 5


def test_a_campaign_that_was_built_in_python_is_checked_without_lines() -> None:
    campaign = config.parse_campaign(GOOD)
    assert [str(p) for p in config.check(campaign, config.parse_site(SITE))] == [
        'campaign: groups[0].faults[0].kind = "node.power_off", but site "tiny" has no power command '
        "(power.command); choose another site, or add instead: node.kill_processes (`harness faults` lists what it "
        "allows)"
    ]


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
