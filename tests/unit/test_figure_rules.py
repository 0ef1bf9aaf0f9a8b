"""Figures that a group names and that no case of it can have are told by `harness check`, with what to write."""

from __future__ import annotations

import pytest

from harness import config
from harness.config import ConfigError
from harness.workloads import REGISTRY, create

GROUP = """\
schema: 1
name: c
seed: 1
groups:
  - name: g
    nodes: 2
"""


def problems(said: str) -> str:
    """What is said of a group, "" where nothing is."""
    try:
        config.parse_campaign(GROUP + "".join(f"    {line}\n" for line in said.splitlines()), "c.yaml")
    except ConfigError as error:
        return str(error)
    return ""


def gate(workload: str, said: str, more: str = "") -> str:
    return problems(f"workload: {workload}\ngates: [{{statistic: median, max: 1, {said}}}]\n{more}")


@pytest.mark.parametrize(
    "workload, said, more, words",
    [
        (
            "mpi.halo",
            "metric: bus_bandwidth_bytes_per_s",
            "",
            'gates[0].metric = "bus_bandwidth_bytes_per_s", is not recorded by mpi.halo, allowed: cell_updates, '
            "communication_ns, compute_ns, residual, start_mono_ns, step_time_ns, waiting_ns; choose one",
        ),
        (
            "mpi.halo",
            "metric: step_time_ns, where: {message_bytes: 5}",
            "",
            "gates[0].where.message_bytes = 5, is no column by which step_time_ns can be chosen, allowed: step, "
            "start_mono_ns, step_time_ns, residual,",
        ),
        (
            "torch.train",
            "metric: checkpoint_time_ns",
            "",
            "is not recorded by torch.train where no checkpoint is taken, allowed:",
        ),
        (
            "mpi.collectives",
            "metric: elapsed_ns",
            "",
            'gates[0].metric = "elapsed_ns", has samples at several message_bytes in a case (65536, 1048576, 8388608), '
            "which no figure pools; choose one, where: {message_bytes: 65536}, or write one for each",
        ),
        (
            "torch.gemm",
            "metric: flop_per_s",
            "axes: [{matrix_size: [[64], [64, 128]]}]",
            "has samples at several matrix_size in a case (64, 128), which no figure pools",
        ),
        (
            "torch.collectives",
            "metric: bus_bandwidth_bytes_per_s, where: {message_bytes: 5}",
            "",
            "gates[0].where.message_bytes = 5, is none of the group's message_bytes, allowed: 65536, 1048576, 8388608",
        ),
        (
            "torch.collectives",
            "metric: bus_bandwidth_bytes_per_s",
            "params: {operation: barrier}",
            "and a barrier carries nothing, so it has no bandwidth; choose latency_s",
        ),
        (
            "torch.collectives",
            "metric: latency_s, where: {message_bytes: 65536}",
            "",
            "is no column by which latency_s can be chosen, allowed: none; remove it",
        ),
    ],
)
def test_a_gate_that_can_never_be_judged_is_refused(workload: str, said: str, more: str, words: str) -> None:
    found = gate(workload, said, more)
    assert words in found
    assert found.count("c.yaml:") == 1


@pytest.mark.parametrize(
    "workload, said, more",
    [
        ("mpi.halo", "metric: step_time_ns, where: {step: 7}", ""),
        ("torch.train", "metric: checkpoint_time_ns", "checkpoint: {every_steps: 5}"),
        ("mpi.collectives", "metric: elapsed_ns, where: {message_bytes: 65536}", ""),
        ("mpi.collectives", "metric: elapsed_ns", "axes: [{message_bytes: [[64], [128]]}]"),
        ("mpi.collectives", "metric: elapsed_ns", "params: {operation: barrier}"),
        ("mpi.collectives", "metric: latency_s", ""),
        ("torch.gemm", "metric: flop_per_s", "params: {matrix_size: [64]}"),
        ("io.shards", "metric: read_bytes_per_s", ""),
    ],
)
def test_a_gate_that_can_be_judged_is_not(workload: str, said: str, more: str) -> None:
    assert gate(workload, said, more) == ""


def test_repeats_and_comparisons_ask_for_one_figure_too() -> None:
    until = "repeats: {max: 9, until: {metric: elapsed_ns, within: 2%}}"
    assert "repeats.until.metric" in problems(f"workload: mpi.collectives\n{until}")
    compared = (
        "repeats: 6\ncompare: {metric: elapsed_ns, a: {params: {message_bytes: [64]}}, b: {params: SIDE}}"
    )
    both = compared.replace("SIDE", "{message_bytes: [128]}")
    assert problems(f"workload: mpi.collectives\n{both}") == ""
    one = compared.replace("SIDE", "{dtype: int32}")
    assert "compare.metric" in problems(f"workload: mpi.collectives\n{one}")


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "command"])
def test_the_registry_knows_the_columns_that_a_workload_records(name: str) -> None:
    tables = {table: columns for table, columns in create(name).tables.items() if columns}
    assert REGISTRY[name].tables == tables
