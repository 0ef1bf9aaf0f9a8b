"""Files that cannot be read as a campaign or a site: each says why and where."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import config
from harness.config import ConfigError
from harness.model.fields import NOTHING
from harness.source import parse
from tests.unit.config_texts import GOOD, SITES, campaign_errors


def file_errors(path: Path) -> str:
    """The whole message for a file, its folder left out."""
    with pytest.raises(ConfigError) as caught:
        config.load_campaign(path)
    return str(caught.value).replace(f"{path.parent}/", "")


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
