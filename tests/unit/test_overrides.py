"""Values of a campaign that a command line changes: -s PATH=VALUE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import config
from harness.config import ConfigError
from harness.document import from_text
from harness.model.campaign import Campaign
from harness.overrides import apply, touched

TEXT = """\
schema: 1
name: x
seed: 1
groups:
  - name: reduce.all
    workload: torch.collectives
    scaling: {mode: strong, nodes: [1, 2]}
    repeats: 3
  - name: halo
    workload: mpi.halo
    nodes: 2
    params: {rows: 64}
    gates:
      - {metric: step_time_ns, statistic: p95, max: 5}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(TEXT)
    return path


def load(file: Path, *overrides: str) -> Campaign:
    return config.load_campaign(file, overrides=overrides)[0]


def refusal(file: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, *overrides)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


@pytest.mark.parametrize(
    ("override", "old", "new"),
    [
        ("seed=3", "seed: 1", "seed: 3"),
        ("description='for a = b'", "name: x", "name: x\ndescription: for a = b"),
        ("limits.max_node_hours=5", "seed: 1", "seed: 1\nlimits: {max_node_hours: 5}"),
        ("packing={mode: jobs}", "seed: 1", "seed: 1\npacking: {mode: jobs}"),
        ("groups[0].repeats=5", "repeats: 3", "repeats: 5"),
        ("groups.reduce.all.repeats=5", "repeats: 3", "repeats: 5"),
        ("groups.halo.params.columns=8", "{rows: 64}", "{rows: 64, columns: 8}"),
        ("groups.halo.checkpoint.every_steps=8", "nodes: 2", "nodes: 2\n    checkpoint: {every_steps: 8}"),
        ("groups.halo.gates[0].max=1e9", "max: 5", "max: 1e9"),
        ("scaling.nodes=[1,2,4]", "[1, 2]", "[1, 2, 4]"),
        ("repeats=1", "repeats: 3", "repeats: 1"),
        ("nodes=1", "nodes: 2\n", "nodes: 1\n"),
        ("groups.halo.gates=[]", "- {metric: step_time_ns, statistic: p95, max: 5}", "[]"),
        (
            "groups.halo.axes=[{ranks_per_node: [1, 2]}]",
            "nodes: 2",
            "nodes: 2\n    axes: [{ranks_per_node: [1, 2]}]",
        ),
    ],
)
def test_an_override_is_as_if_it_had_been_written(file: Path, override: str, old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert load(file, override) == config.parse_campaign(TEXT.replace(old, new))


def test_a_key_of_groups_changes_every_group_that_has_it_and_says_which(file: Path) -> None:
    file.write_text(TEXT + "    repeats: 2\n  - {name: third, workload: mpi.halo, nodes: 1}\n")
    draft = config.read_campaign(file, overrides=["repeats=7", "seed=3"])
    assert draft.campaign is not None
    assert [g.repeats for g in draft.campaign.groups] == [7, 7, 1]
    assert touched(draft.document, "repeats=7") == ["reduce.all", "halo"]
    assert touched(draft.document, "seed=3") == []


def test_a_later_override_wins(file: Path) -> None:
    assert load(file, "seed=3", "seed=4").seed == 4
    assert load(file, "groups.halo.params={columns: 8}", "groups.halo.params.rows=9").groups[1].params == {
        "columns": 8,
        "rows": 9,
    }


def test_of_groups_whose_names_begin_alike_the_longest_is_meant(file: Path) -> None:
    file.write_text(TEXT.replace("name: halo", "name: reduce"))
    found = load(file, "groups.reduce.all.repeats=5", "groups.reduce.repeats=6")
    assert [(g.name, g.repeats) for g in found.groups] == [("reduce.all", 5), ("reduce", 6)]


def test_null_stands_for_a_key_that_was_left_out(file: Path) -> None:
    group = load(file, "groups[0].scaling=null", "groups[0].nodes=4").groups[0]
    assert (group.scaling, group.nodes) == (None, 4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "is no override; write PATH=VALUE, such as groups.NAME.repeats=5"),
        ("seed=", "has no value; write one behind the =, '' for an empty text"),
        ("=3", "begins with no path of keys; write it as in groups[0].scaling.nodes=[1, 2]"),
        (".seed=3", "begins with no path of keys; write it as in groups[0].scaling.nodes=[1, 2]"),
        ("[0].seed=3", "begins with no path of keys; write it as in groups[0].scaling.nodes=[1, 2]"),
        ("seed.=3", "begins with no path of keys; write it as in groups[0].scaling.nodes=[1, 2]"),
        ("seed=!!str 3", "carries the tag tag:yaml.org,2002:str, and tags are not allowed; remove it"),
        (
            "seed=[1",
            "not valid YAML: expected ',' or ']', but got '<stream end>', while parsing a flow sequence; correct it",
        ),
        ("seed=x", 'seed = "x", must be a whole number; write digits only, without quotes'),
        ("seed.low=3", "seed, has no keys, so none called low; change it as a whole"),
        ("groups.steps=3", 'groups.steps, is no group of this campaign, allowed: reduce.all, halo; choose one'),
        (
            "groups.hallo.steps=3",
            'groups.hallo, is no group of this campaign, allowed: reduce.all, halo; did you mean "halo"?',
        ),
        ("groups[2].steps=3", "groups[2], is not there, allowed: numbers below 2; choose one"),
        ("groups.halo.steps[0]=3", None),
        ("groups.halo.gates.max=3", "groups[1].gates, is a list; say which of its entries: groups[1].gates[0].max"),
        ("groups.halo.params[0]=3", "groups[1].params, is no list; leave the number out"),
        (
            "scaling.noodes=[1]",
            "groups[0].scaling.noodes, is an unknown key, allowed: mode, nodes, base, grow; "
            'did you mean "nodes"?',
        ),
        ("scaling.nodes=[1, 0]", "groups[0].scaling.nodes[1] = 0, is too small, allowed: 1 and above; raise it"),
        (
            "checkpoint.every_steps=3",
            "checkpoint, is set in no group; name the group: -s groups.NAME.checkpoint.every_steps=...",
        ),
        (
            "groups.halo.checkpoint.keep=3",
            "groups[1].checkpoint.every_steps, is missing (A checkpoint is taken after every so many steps); add it",
        ),
        ("include=[a.yaml]", None),
        ("schema=1", None),
        ("sead=3", None),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_names_itself(file: Path, override: str, message: str | None) -> None:
    (found,) = refusal(file, override)
    assert found.startswith(f"-s {override}: ")
    if message is not None:
        assert found == f"-s {override}: {message}"


def test_a_key_that_nobody_has_is_told_with_what_there_is(file: Path) -> None:
    (found,) = refusal(file, "sead=3")
    assert found.startswith(
        "-s sead=3: sead, is no key of a campaign or of its groups, allowed: name, description, "
    )
    assert found.endswith('; did you mean "seed"?')


def test_files_and_overrides_are_told_at_once_the_overrides_last(file: Path) -> None:
    file.write_text(TEXT.replace("name: halo", "name: hallo!"))
    assert refusal(file, "seed=x", "sead=3")[0].startswith('c.yaml:9: groups[1].name = "hallo!", ')
    assert [line.split(":")[0] for line in refusal(file, "seed=x", "sead=3")] == [
        "c.yaml",
        "-s sead=3",
        "-s seed=x",
    ]


def test_a_long_override_is_quoted_in_part(file: Path) -> None:
    (found,) = refusal(file, f"seed='{'x' * 500}'")
    assert found.startswith(f"-s seed='{'x' * 71}...: seed = ")


@given(
    st.text(max_size=40) | st.from_regex(r"(groups|seed|limits|scaling)[.\[\]a-z0-9=]{0,12}", fullmatch=True)
)
@settings(max_examples=200, deadline=None)
def test_no_override_raises_anything_but_a_finding(text: str) -> None:
    document = apply(from_text(TEXT, "c.yaml"), [text])
    assert document.overrides == (text,)
    touched(document, text)


def test_an_override_leaves_what_was_read_alone() -> None:
    before = from_text(TEXT, "c.yaml")
    copy: Any = from_text(TEXT, "c.yaml").data
    apply(before, ["groups.halo.params.rows=3", "scaling.nodes=[4]"])
    assert before.data == copy
