"""MIG slices: one for each rank, by UUID. NVML is imitated here: there is no GPU where these tests run."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from harness.runtime import slices
from harness.runtime.agent import Agent
from harness.telemetry import Telemetry
from harness.telemetry.gpu import Gpu


class _Error(Exception):
    """As pynvml.NVMLError."""


def _nvml(gpus: list[list[str | None] | None]) -> types.ModuleType:
    """A module like pynvml: a GPU is None (whole, and too old to know of MIG), or a list of its places."""
    nvml: Any = types.ModuleType("pynvml")
    nvml.NVMLError, nvml.NVML_DEVICE_MIG_ENABLE = _Error, 1
    nvml.NVML_TEMPERATURE_GPU = nvml.NVML_CLOCK_SM = 0

    def mode(handle: tuple[int, ...]) -> list[int]:
        places = gpus[handle[0]]
        if places is None:
            raise _Error("Not Supported")
        return [0 if "off" in places else 1, 1]  # now, and after the next reset

    def place(handle: tuple[int, ...], index: int) -> tuple[int, ...]:
        places = gpus[handle[0]]
        if places is None or places[index] is None:
            raise _Error("Not Found")
        return (handle[0], index)

    def uuid(handle: tuple[int, ...]) -> Any:
        places = gpus[handle[0]]
        return f"GPU-{handle[0]}" if len(handle) == 1 or places is None else places[handle[1]]

    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetCount = lambda: len(gpus)
    nvml.nvmlDeviceGetHandleByIndex = lambda index: (index,)
    nvml.nvmlDeviceGetMigMode = mode
    nvml.nvmlDeviceGetMaxMigDeviceCount = lambda handle: len(gpus[handle[0]] or ())
    nvml.nvmlDeviceGetMigDeviceHandleByIndex = place
    nvml.nvmlDeviceGetUUID = uuid
    nvml.nvmlDeviceGetName = lambda handle: "H100"
    nvml.nvmlSystemGetDriverVersion = lambda: "570.1"
    return nvml


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs with places for slices, one of them empty; one that knows no MIG; one where it is switched off."""
    gpus: list[list[str | None] | None] = [["MIG-a", None, "MIG-b"], ["MIG-c", "MIG-d"], None, ["off"]]
    monkeypatch.setitem(sys.modules, "pynvml", _nvml(gpus))
    monkeypatch.setenv("HARNESS_MIG", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield


def test_slices_of_all_gpus_are_listed_by_uuid_and_empty_places_left_out(four: None) -> None:
    assert Gpu().slices() == ("MIG-a", "MIG-b", "MIG-c", "MIG-d")
    assert Gpu().count == 4


def test_each_rank_sees_its_own_slice_and_no_other(four: None) -> None:
    seen = []
    for rank in range(4):
        environment = {"HARNESS_MIG": "1"}
        slices.select(environment, rank, lambda: Gpu().slices())
        seen.append(environment["CUDA_VISIBLE_DEVICES"])
    assert seen == ["MIG-a", "MIG-b", "MIG-c", "MIG-d"]


def test_slices_that_slurm_gave_are_taken_and_nvml_is_not_asked() -> None:
    environment = {"HARNESS_MIG": "1", "CUDA_VISIBLE_DEVICES": "MIG-x, MIG-y"}
    slices.select(environment, 1, lambda: pytest.fail("asked"))
    assert environment["CUDA_VISIBLE_DEVICES"] == "MIG-y"


def test_numbers_in_the_variable_are_no_slices(four: None) -> None:
    environment = {"HARNESS_MIG": "1", "CUDA_VISIBLE_DEVICES": "0,1"}
    slices.select(environment, 0, lambda: Gpu().slices())
    assert environment["CUDA_VISIBLE_DEVICES"] == "MIG-a"


def test_whole_gpus_are_left_as_they_are(four: None) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "0,1"}
    slices.select(environment, 0, lambda: pytest.fail("asked"))
    assert environment == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_too_few_slices_are_an_error_that_says_how_many() -> None:
    with pytest.raises(slices.NoSlice, match="local rank 2 has no MIG slice: this job sees 2 on this node"):
        slices.select({"HARNESS_MIG": "1", "CUDA_VISIBLE_DEVICES": "MIG-x,MIG-y"}, 2, tuple)


def test_an_agent_counts_slices_where_there_are_slices(four: None, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent.__new__(Agent)
    agent.telemetry = Telemetry()
    assert agent._gpus() == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert agent._gpus() == 2
    monkeypatch.delenv("HARNESS_MIG")
    assert agent._gpus() == 4  # whole ones
    assert "HARNESS_MIG" not in os.environ
