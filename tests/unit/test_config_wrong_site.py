"""Site files with wrong values, and texts of any file that would end a line of a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from harness import config
from harness.model.campaign import Campaign
from harness.model.site import Site
from tests.unit.config_texts import GOOD, SITE, keys_of, site_errors


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
expected: [{workload: torch.collectives, operation: all-reduce, dtype: float32, within: 10%, latency_s: 1.0}]
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
