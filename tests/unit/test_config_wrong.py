"""Campaigns with wrong values: a person is told everything at once, each with its line."""

from __future__ import annotations

import textwrap
import time

import pytest

from harness import config
from harness.model.campaign import Campaign
from harness.model.fault import KINDS
from tests.unit.config_texts import GOOD, SITE, campaign_errors, keys_of, site_errors


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
