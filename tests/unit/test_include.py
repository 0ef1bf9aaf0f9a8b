"""Campaigns made of several files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from harness import config
from harness.config import ConfigError
from harness.document import MAX_DEPTH, MAX_FILES
from harness.resources import configs_dir
from harness.source import parse

SITE = config.load_site("emulated", [configs_dir() / "sites"])[0]

HEAD = "schema: 1\nname: x\nseed: 1\n"
OWN = (
    HEAD + "include: [checks.yaml, parts/more.yaml]\ngroups:\n  - {name: own, workload: mpi.halo, nodes: 1}\n"
)
CHECKS = """\
limits: {max_node_hours: 9}
seed: 7
groups:
  - {name: check, workload: mpi.halo, nodes: 1, role: pre-check}
"""
MORE = """\
limits: {max_jobs_in_queue: 3}
packing: {mode: jobs}
groups:
  - name: more
    workload: mpi.halo
    nodes: 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "c.yaml").write_text(OWN)
    (tmp_path / "checks.yaml").write_text(CHECKS)
    (tmp_path / "parts" / "more.yaml").write_text(MORE)
    return tmp_path


def errors(folder: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load_campaign(folder / "c.yaml", overrides=overrides)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_groups_are_put_together_mappings_merged_and_the_including_file_wins(folder: Path) -> None:
    campaign, _ = config.load_campaign(folder / "c.yaml")
    assert campaign == config.parse_campaign(
        HEAD
        + """\
limits: {max_node_hours: 9, max_jobs_in_queue: 3}
packing: {mode: jobs}
groups:
  - {name: own, workload: mpi.halo, nodes: 1}
  - {name: check, workload: mpi.halo, nodes: 1, role: pre-check}
  - {name: more, workload: mpi.halo, nodes: 2}
"""
    )


def test_the_text_of_a_run_stands_alone_and_says_what_it_was_made_of(folder: Path) -> None:
    campaign, text = config.load_campaign(folder / "c.yaml", overrides=["seed=3", "groups.more.repeats=2"])
    assert config.parse_campaign(text) == campaign
    for path, content in (("c.yaml", OWN), ("checks.yaml", CHECKS), ("parts/more.yaml", MORE)):
        assert f'#   "{folder}/{path}", sha256 {hashlib.sha256(content.encode()).hexdigest()}' in text
        assert all(f"# {line}" in text for line in content.splitlines())
    assert '#   -s "seed=3"\n#   -s "groups.more.repeats=2"\n' in text
    (folder / "again.yaml").write_text(text)
    again, same = config.load_campaign(folder / "again.yaml")
    assert (again, same) == (campaign, text)


def test_a_comment_of_a_fragment_cannot_become_a_value(folder: Path) -> None:
    (folder / "checks.yaml").write_text("seed: 7\n# YAML ends a comment at a line separator\u2028# as well\n")
    campaign, text = config.load_campaign(folder / "c.yaml")
    assert config.parse_campaign(text) == campaign
    assert "# # YAML ends a comment at a line separator\n# # as well\n" in text


def test_one_file_alone_is_kept_as_it_is(folder: Path) -> None:
    text = HEAD + "# why\ngroups:\n  - {name: a, workload: mpi.halo, nodes: 1}\n"
    (folder / "c.yaml").write_text(text)
    assert config.load_campaign(folder / "c.yaml")[1] == text


def test_what_is_wrong_in_a_fragment_is_told_with_its_own_line(folder: Path) -> None:
    (folder / "checks.yaml").write_text(
        "limitz: {}\nseed: x\ngroups:\n  - {name: own, workload: mpi.hal, nodes: 1}\n"
    )
    (folder / "parts" / "more.yaml").write_text(MORE + "    steps: 0\n    params: {row: 1}\n")
    assert errors(folder) == [
        "checks.yaml:1: limitz, is an unknown key, allowed: schema, name, include, description, seed, packing, limits, "
        'retry, templates, groups; did you mean "limits"?',
        'checks.yaml:4: groups[1].workload = "mpi.hal", is no workload, allowed: command, io.shards, mpi.cg, '
        "mpi.collectives, mpi.halo, torch.collectives, torch.gemm, torch.pipeline, torch.train; "
        'did you mean "mpi.halo"?',
        'checks.yaml:4: groups[1].name = "own", is the name of groups[0] too; give each its own',
        "parts/more.yaml:7: groups[2].steps = 0, is too small, allowed: 1 and above; raise it",
        "parts/more.yaml:8: groups[2].params.row = 1, is no parameter of mpi.halo, allowed: columns, rows; "
        'did you mean "rows"?',
    ]


def test_what_does_not_fit_a_site_is_told_with_the_fragment_s_line(folder: Path) -> None:
    (folder / "parts" / "more.yaml").write_text(MORE.replace("nodes: 2", "nodes: 20"))
    draft = config.read_campaign(folder / "c.yaml")
    assert [str(p).replace(f"{folder}/", "") for p in config.fit(draft, SITE)] == [
        'parts/more.yaml:6: groups[2].nodes = 20, but site "emulated" allows at most 4; lower it or choose another site'
    ]


def test_a_fragment_that_is_no_yaml_is_told_with_its_own_line(folder: Path) -> None:
    (folder / "checks.yaml").write_text("seed: 1\nname: a: b\n")
    (folder / "parts" / "more.yaml").write_text("seed: 1\nseed: 2\n")
    assert errors(folder) == [
        "checks.yaml:2: not valid YAML: mapping values are not allowed here; correct it",
        "parts/more.yaml:2: seed, is written twice, first on line 1; keep one of the two",
    ]


def test_fragments_that_disagree_name_both_places(folder: Path) -> None:
    (folder / "parts" / "more.yaml").write_text(
        "limits: {max_node_hours: 8}\nseed: 8\ngroups: {}\nschema: 2\n"
    )
    assert errors(folder) == [
        "parts/more.yaml:1: limits.max_node_hours = 8, but checks.yaml:1 says another; say it once, or in the file "
        "that includes both",
        "parts/more.yaml:3: groups, but c.yaml:5 says another; say it once, or in the file that includes both",
        "parts/more.yaml:4: schema = 2, but c.yaml:1 says another; say it once, or in the file that includes both",
    ]


def test_the_including_file_settles_what_fragments_disagree_on(folder: Path) -> None:
    (folder / "parts" / "more.yaml").write_text("limits: {max_node_hours: 8}\n")
    (folder / "c.yaml").write_text(OWN + "limits: {max_node_hours: 5, max_jobs_in_queue: 1}\n")
    campaign, _ = config.load_campaign(folder / "c.yaml")
    assert campaign.limits.model_dump() == {"max_node_hours": 5, "max_jobs_in_queue": 1}


def test_fragments_include_others_relative_to_themselves(folder: Path) -> None:
    (folder / "parts" / "more.yaml").write_text("include: [deep.yaml, ../side.yaml]\n")
    (folder / "parts" / "deep.yaml").write_text("retry: {machine: 0}\n")
    (folder / "side.yaml").write_text("description: from the side\n")
    campaign, _ = config.load_campaign(folder / "c.yaml")
    assert (campaign.retry.machine, campaign.description) == (0, "from the side")


def test_an_absolute_path_is_a_path(folder: Path) -> None:
    (folder / "c.yaml").write_text(OWN.replace("checks.yaml", str(folder / "checks.yaml")))
    assert [g.name for g in config.load_campaign(folder / "c.yaml")[0].groups] == ["own", "check", "more"]


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("[c.yaml]", '4: include[0] = "c.yaml", includes itself, perhaps through others; remove it'),
        ("[loop.yaml]", 'loop.yaml:1: include[0] = "c.yaml", includes itself, perhaps through others; remove it'),
        (
            "[checks.yaml, ./checks.yaml]",
            '4: include[1] = "./checks.yaml", is included at c.yaml:4 already; keep one of the two',
        ),
        ("[no.yaml]", '4: include[0] = "no.yaml", cannot be read (No such file or directory); check its path'),
        ("[parts]", '4: include[0] = "parts", is not a file; give the path of a YAML file'),
        ("[pipe]", '4: include[0] = "pipe", is not a file; give the path of a YAML file'),
        (
            "[latin.yaml]",
            '4: include[0] = "latin.yaml", line 2 of it is not UTF-8: byte 5 is 0xe9; save it as UTF-8',
        ),
        ("[empty.yaml]", '4: include[0] = "empty.yaml", holds nothing; remove it'),
        (
            "[list.yaml]",
            '4: include[0] = "list.yaml", holds no keys and values; begin it with keys of a campaign, such as groups:',
        ),
        ("checks.yaml", "4: include, must be a list of paths of YAML files; write it in [ ]"),
        ("[1]", "4: include, must be a list of paths of YAML files; write it in [ ]"),
        ("['~/x.yaml']", '4: include[0] = "~/x.yaml", cannot be read (No such file or directory); check its path'),
        ('["a\\0b"]', '4: include[0] = "a\\u0000b", cannot be read (embedded null byte); check its path'),
    ],
)  # fmt: skip
def test_an_include_that_cannot_be_is_told_where(folder: Path, include: str, message: str) -> None:
    (folder / "loop.yaml").write_text("include: [c.yaml]\n")
    (folder / "empty.yaml").write_text("# nothing\n")
    (folder / "list.yaml").write_text("- 1\n")
    (folder / "latin.yaml").write_bytes(b"a: 1\n\xe9: 2\n")
    os.mkfifo(folder / "pipe")
    (folder / "c.yaml").write_text(OWN.replace("[checks.yaml, parts/more.yaml]", include))
    assert errors(folder) == [message if message.startswith("loop") else f"c.yaml:{message}"]


def test_includes_are_bounded_in_depth_and_number(folder: Path) -> None:
    (folder / "c.yaml").write_text(OWN.replace("[checks.yaml, parts/more.yaml]", "[d1.yaml]"))
    for n in range(1, 20):
        (folder / f"d{n}.yaml").write_text(f"include: [d{n + 1}.yaml]\n")
    assert errors(folder) == [
        f'd{MAX_DEPTH - 1}.yaml:1: include[0] = "d{MAX_DEPTH}.yaml", is included {MAX_DEPTH} files deep, allowed: '
        f"{MAX_DEPTH}; make it flatter"
    ]
    names = [f"w{n}.yaml" for n in range(MAX_FILES)]
    (folder / "c.yaml").write_text(OWN.replace("[checks.yaml, parts/more.yaml]", f"[{', '.join(names)}]"))
    for name in names:
        (folder / name).write_text("description: x\n")
    assert errors(folder) == [
        f'c.yaml:4: include[{MAX_FILES - 1}] = "{names[-1]}", is one file too many, allowed: {MAX_FILES}; join some'
    ]


def test_a_text_that_is_of_no_file_includes_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse_campaign(OWN, "c.yaml")
    assert str(caught.value) == (
        "c.yaml:4: include, needs a file, and this is none; write what it names in its place"
    )


def test_a_campaign_too_large_for_one_file_is_refused(folder: Path) -> None:
    values = ", ".join(str(n) for n in range(2, 1001))
    for n in range(12):
        (folder / f"f{n}.yaml").write_text(
            f"groups:\n  - {{name: f{n}, workload: torch.collectives, nodes: 1, "
            f"params: {{message_bytes: [{values}]}}}}\n"
        )
    include = ", ".join(f"f{n}.yaml" for n in range(12))
    (folder / "c.yaml").write_text(OWN.replace("checks.yaml, parts/more.yaml", include))
    (message,) = errors(folder)
    assert message.startswith("campaign: is too large to be written as one file: ")
    assert "more than 10000 values" in message


def test_templates_are_meant_from_the_file_that_names_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (folder / "parts" / "more.yaml").write_text("templates: mine\n")
    campaign, text = config.load_campaign(folder / "c.yaml")
    assert campaign.templates == str(folder / "parts" / "mine")
    assert parse(text).data["templates"] == campaign.templates
    assert (
        config.load_campaign(folder / "c.yaml", overrides=["templates=over/there"])[0].templates
        == "/over/there"
    )
    (folder / "again.yaml").write_text(text)
    assert config.load_campaign(folder / "again.yaml") == (campaign, text)
