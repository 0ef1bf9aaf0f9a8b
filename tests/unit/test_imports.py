"""What is loaded when: an analysis needs no cluster, and the command line starts at once."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import statistics
import subprocess
import sys
import time

import pytest

CLUSTER_ONLY = {"torch", "submitit", "mpi4py", "pynvml", "psutil"}
HEAVY = CLUSTER_ONLY | {"numpy", "h5py", "scipy", "matplotlib", "jinja2", "pydantic", "ruamel", "rich"}


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after this code has run in a fresh Python."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def analysis_modules() -> list[str]:
    """Every module of the package `analysis`, found without importing one."""
    spec = importlib.util.find_spec("analysis")
    assert spec is not None and spec.submodule_search_locations is not None
    return ["analysis"] + [
        f"analysis.{module.name}" for module in pkgutil.iter_modules(spec.submodule_search_locations)
    ]


# Imports each module named in its arguments in a child of its own, which has what is slow to load and others' already.
EACH = """
import importlib, json, os, sys
import h5py, jinja2, numpy, scipy.optimize, scipy.stats
def names():
    return sorted({name.split(".")[0] for name in sys.modules})
ours = {"harness", "analysis"} & set(names())
assert not ours, ours
for module in sys.argv[1:]:
    sys.stdout.flush()
    if not os.fork():
        try:
            importlib.import_module(module)
            found = names()
        except BaseException as error:
            found = [f"{type(error).__name__}: {error}"]
        print(json.dumps([module, found]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded_by_each() -> dict[str, set[str]]:
    """Per module of `analysis`: the top-level modules that are loaded when it is the first of ours to be imported."""
    result = subprocess.run(
        [sys.executable, "-c", EACH, *analysis_modules()], capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    return {module: set(found) for module, found in map(json.loads, result.stdout.splitlines())}


@pytest.mark.parametrize("module", analysis_modules())
def test_analysis_loads_nothing_that_only_a_cluster_has(
    module: str, loaded_by_each: dict[str, set[str]]
) -> None:
    found = loaded_by_each[module]
    assert "analysis" in found, found
    assert found & CLUSTER_ONLY == set()


@pytest.mark.parametrize("module", ["harness.runtime.supervisor", "harness.runtime.agent"])
def test_what_watches_a_job_needs_the_standard_library_only(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["cluster", "--help"], ["run", "--help"]])
def test_the_command_line_loads_nothing_heavy_to_explain_itself(arguments: list[str]) -> None:
    code = f"""
try:
    from harness import cli
    cli.main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_by(code) & HEAVY == set()


def test_help_is_there_at_once() -> None:
    """Within 0.15 s on an idle machine, as promised; here less the start of Python itself, and generous."""

    def seconds(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=30)
        return time.perf_counter() - began

    bare = statistics.median(seconds("-c", "pass") for _ in range(5))
    ours = statistics.median(seconds("-m", "harness", "--help") for _ in range(5))
    assert ours - bare < 0.15
