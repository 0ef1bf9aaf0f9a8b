"""The wheel: what it holds, what a plain installation brings, and what a laptop is spared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path

import pytest

import harness
from harness import resources

DISTRIBUTION = "hpc-harness"
HEAVY_OR_ELSEWHERE = {"torch", "submitit", "mpi4py", "mpich", "psutil", "nvidia-ml-py"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> zipfile.ZipFile:
    """The wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=project_root,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_installs_two_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    dist_info = f"hpc_harness-{harness.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {"harness", "analysis", dist_info}


@pytest.mark.parametrize("folder", ["sbatch_templates", "configs"])
def test_templates_and_configurations_travel_inside_the_package(
    wheel: zipfile.ZipFile, project_root: Path, folder: str
) -> None:
    in_checkout = {path.relative_to(project_root).as_posix() for path in _files(project_root / folder)}
    in_wheel = {
        name.removeprefix("harness/") for name in wheel.namelist() if name.startswith(f"harness/{folder}/")
    }
    assert in_checkout == in_wheel != set()


def test_the_wheel_holds_every_file_of_both_packages(wheel: zipfile.ZipFile, project_root: Path) -> None:
    expected = {
        path.relative_to(project_root).as_posix()
        for package in ("harness", "analysis")
        for path in _files(project_root / package)
    }
    assert expected - set(wheel.namelist()) == set()


def test_an_unpacked_wheel_finds_its_templates_and_starts(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "from harness import resources as r; print(r.templates_dir()); print(r.configs_dir())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    assert found == [str(tmp_path / "harness/sbatch_templates"), str(tmp_path / "harness/configs")]


def test_a_checkout_uses_its_top_level_folders(project_root: Path) -> None:
    assert resources.templates_dir() == project_root / "sbatch_templates"
    assert resources.configs_dir() == project_root / "configs"


def test_a_missing_folder_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site-packages" / "harness"
    monkeypatch.setattr(resources, "_PACKAGE", package)
    with pytest.raises(FileNotFoundError, match="pip install") as caught:
        resources.templates_dir()
    assert str(package / "sbatch_templates") in str(caught.value)
    assert str(package.parent / "sbatch_templates") in str(caught.value)


def test_a_folder_of_the_same_name_beside_an_installed_package_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "site-packages" / "harness")
    (tmp_path / "site-packages" / "configs").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        resources.configs_dir()


@pytest.mark.parametrize("extra", ["", "analysis"])
def test_a_laptop_gets_neither_torch_nor_submitit_nor_mpi(extra: str) -> None:
    brought = _closure({extra})
    assert {"h5py", "numpy"} <= brought
    assert brought & HEAVY_OR_ELSEWHERE == set()


def test_all_is_the_sum_of_what_a_run_needs() -> None:
    assert _closure({"all"}) >= HEAVY_OR_ELSEWHERE | {"scipy", "pandas"}
    assert "pytest" not in _closure({"all"})


def test_the_command_is_called_harness(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "harness = harness.cli:main" in wheel.read(name).decode()


def test_the_version_is_that_of_the_package(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    header = HeaderParser().parsestr(wheel.read(name).decode())
    assert (header["Name"], header["Version"]) == (DISTRIBUTION, harness.__version__)
    assert header["License-Expression"] == "Apache-2.0"


def test_every_dependency_is_pinned_for_set_up(project_root: Path) -> None:
    pinned = {
        _normal(line.split("==")[0])
        for line in (project_root / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    assert _closure({"all", "dev"}) - {DISTRIBUTION} - pinned == set()


def test_every_dependency_says_why(project_root: Path) -> None:
    lists = re.findall(r"^\w+ = \[\n(.*?)^\]", (project_root / "pyproject.toml").read_text(), re.M | re.S)
    dependencies = [
        line for block in lists for line in block.splitlines() if re.match(r'\s*"[\w.-]+>=', line)
    ]
    assert len(dependencies) > 20
    assert [line for line in dependencies if not re.search(r"# \w", line)] == []


def _files(folder: Path) -> Iterable[Path]:
    """The files of a folder, less what is never packed."""
    return (
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".pyo")
    )


def _closure(extras: set[str]) -> set[str]:
    """The direct dependencies of the distribution with these extras, its references to itself resolved."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    for text in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        wanted = any(
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            for extra in extras | {""}
        )
        if not wanted:
            continue
        name = _normal(requirement.name)
        if name == DISTRIBUTION:
            found |= _closure(set(requirement.extras))
        else:
            found.add(name)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
