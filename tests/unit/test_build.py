"""Campaigns built in Python are those of files; and what is written is read back as the same value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import config
from harness.build import ConfigError, campaign, group, to_yaml
from harness.model.campaign import Checkpoint, Scaling
from harness.model.fields import bad_character
from harness.resources import configs_dir
from harness.source import dump, parse


def test_a_campaign_built_in_python_is_the_one_of_the_file() -> None:
    built = campaign(
        "weekly",
        seed=7,
        packing={"mode": "interleaved", "share_nodes": True},
        groups=[
            group("talk", "torch.collectives", nodes=2, role="pre-check", params={"message_bytes": [8, 16]}),
            group(
                "grid",
                "mpi.halo",
                scaling=Scaling(mode="weak", nodes=(1, 2), grow="rows"),
                axes=[{"rows": [8, 16]}],
                checkpoint=Checkpoint(every_steps=5),
                needs=["talk"],
            ),
            {"name": "plain", "workload": "mpi.halo", "nodes": 1},
        ],
    )
    assert built == config.parse_campaign("""\
schema: 1
name: weekly
seed: 7
packing: {mode: interleaved, share_nodes: true}
groups:
  - {name: talk, workload: torch.collectives, nodes: 2, role: pre-check, params: {message_bytes: [8, 16]}}
  - name: grid
    workload: mpi.halo
    scaling: {mode: weak, nodes: [1, 2], grow: rows}
    axes: [{rows: [8, 16]}]
    checkpoint: {every_steps: 5}
    needs: [talk]
  - {name: plain, workload: mpi.halo, nodes: 1}
""")


def refusal(build: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build()
    return str(caught.value)


def test_what_is_wrong_is_told_in_the_words_of_files_without_lines() -> None:
    assert refusal(lambda: group("a", "mpi.hal", node=2)).splitlines() == [
        "group 'a': node = 2, is an unknown key, allowed: "
        + ", ".join(config.Group.model_fields)
        + '; did you mean "nodes"?',
        "group 'a': workload = \"mpi.hal\", is no workload, allowed: command, io.shards, mpi.cg, mpi.collectives, "
        "mpi.halo, torch.collectives, torch.gemm, torch.pipeline, torch.train; "
        'did you mean "mpi.halo"?',
    ]
    one = group("a", "mpi.halo", nodes=1)
    assert refusal(lambda: campaign("x", seed="1", groups=[one, one])).splitlines() == [  # type: ignore[arg-type]
        "campaign 'x': seed = \"1\", must be a whole number; write digits only, without quotes",
        "campaign 'x': groups[1].name = \"a\", is the name of groups[0] too; give each its own",
    ]


@pytest.mark.parametrize("name", sorted(p.stem for p in (configs_dir() / "campaigns").glob("*.yaml")))
def test_a_campaign_that_comes_with_the_harness_is_given_back_by_its_own_text(name: str) -> None:
    found, _ = config.load_campaign(name, [configs_dir() / "campaigns"])
    assert config.parse_campaign(to_yaml(found)) == found


def test_a_script_is_written_as_lines() -> None:
    run = {"script": "set -e\n\n  echo {nodes}  \n\tmore\n", "success": {"output": ["2"]}}
    built = campaign("x", seed=1, groups=[group("g", "command", nodes=2, command=run)])
    text = to_yaml(built)
    assert "script: |2\n        set -e\n        \n          echo {nodes}  \n        \tmore\n" in text
    assert config.parse_campaign(text) == built


# ---- YAML ----

PRINTABLE = st.text(max_size=30).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**38), 10**38) | st.floats(allow_nan=False) | PRINTABLE
    | st.text("ab \n\t#:-'\"|>[]{}&*!%@`,?", max_size=40)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(PRINTABLE.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
@example({"a": "\x1b\n"})
@example({"a": "b\nc", "d": "e\n", "f": " g\n\n\n", "h": "\n", "i": ("j\nk",)})
@settings(max_examples=300, deadline=None)
def test_what_is_written_as_yaml_is_read_back_as_it_was(value: Any) -> None:
    source = parse(dump(value))
    assert (source.data, source.findings) == (value, ())


# ---- campaigns ----

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True)
WORDS = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and not bad_character(text))
MESSAGES = st.lists(st.integers(2, 1 << 36), min_size=1, max_size=30)


@st.composite
def groups(draw: st.DrawFn, name: str, others: list[str]) -> dict[str, Any]:
    workload = draw(st.sampled_from(["torch.collectives", "torch.train", "mpi.halo", "command"]))
    data: dict[str, Any] = {"name": name, "workload": workload, "repeats": draw(st.integers(1, 4))}
    data |= draw(
        st.fixed_dictionaries({}, optional={"time_limit_min": st.integers(1, 9), "seed": st.integers(0, 9)})
    )
    wait = draw(st.lists(st.sampled_from(others), unique=True, max_size=2)) if others else []
    data |= {draw(st.sampled_from(["after", "needs"])): wait} if wait else {}
    kind = draw(st.sampled_from(["nodes", "scaling", "axis"]))
    if kind == "nodes":
        data["nodes"] = draw(st.integers(1, 9))
    elif kind == "scaling":
        counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
        data["scaling"] = {"mode": "strong", "nodes": counts}
    else:
        data["axes"] = [{"nodes": draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))}]
    if workload == "torch.collectives":
        data["params"] = {"message_bytes": draw(MESSAGES)}
    elif workload == "torch.train":
        rates = draw(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=3, unique_by=str))
        data["axes"] = [*data.get("axes", []), {"learning_rate": rates}]
    elif workload == "command":
        data["params"] = {"word": draw(WORDS), "flag": draw(st.booleans())}
        data["command"] = {"run": ["echo", draw(WORDS), "{word}"], "success": {"output": "."}}
        if draw(st.booleans()):
            data["command"]["inputs"] = {
                "in.txt": draw(st.text("ab \n\t#:-{}", min_size=1).filter(str.strip))
            }
    else:
        data["gates"] = [
            {"metric": "step_time_ns", "statistic": "p95", "max": draw(st.floats(-1e300, 1e300))}
        ]
    if draw(st.booleans()):
        data["faults"] = draw(st.lists(faults(), min_size=1, max_size=3))
    return data


@st.composite
def faults(draw: st.DrawFn) -> dict[str, Any]:
    data: dict[str, Any] = {"expect": draw(st.sampled_from(["failed", "unharmed"]))}
    if draw(st.booleans()):
        data |= {"kind": "rank.kill", "target": draw(st.sampled_from([{"rank": 0}, {"random": "rank"}]))}
        data["expect"] = "failed"  # no job rides it out
    else:
        data |= {
            "kind": "node.partition",
            "instead": "node.kill_processes",
            "target": {"node": 0},
            "for_s": 1.5,
        }
        data["params"] = draw(st.dictionaries(st.sampled_from(["one_way", "from_rest"]), st.booleans()))
    data["at"] = draw(
        st.sampled_from([{"step": 0}, {"after_s": 2.5}, {"mtbf_s": 3.0}, {"event": "recovery.begin"}])
    )
    if data["kind"] == "rank.kill":
        data["at"] = draw(st.sampled_from([{"step": 0}, {"after_s": 2.5}, {"mtbf_s": 3.0}]))
    if "mtbf_s" in data["at"]:
        data["count"] = draw(st.integers(1, 9))
    if data["expect"] == "failed":
        data["because"] = draw(WORDS)
    return data


@st.composite
def campaigns(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return {
        "name": draw(NAMES),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "groups": [draw(groups(name, names[:index])) for index, name in enumerate(names)],
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "description": WORDS,
                    "packing": st.sampled_from([{"mode": "jobs"}, {"mode": "interleaved", "max_cases": 3}]),
                    "limits": st.fixed_dictionaries({}, optional={"max_node_hours": st.floats(0.1, 1e6)}),
                    "retry": st.fixed_dictionaries({}, optional={"machine": st.integers(0, 9)}),
                },
            )
        ),
    }


@given(campaigns())
@settings(max_examples=60, deadline=None)
def test_a_built_campaign_written_as_yaml_is_the_same_campaign(data: dict[str, Any]) -> None:
    rest = {key: value for key, value in data.items() if key not in ("name", "seed", "groups")}
    built = campaign(data["name"], seed=data["seed"], groups=[group(**g) for g in data["groups"]], **rest)
    assert config.parse_campaign(to_yaml(built)) == built
