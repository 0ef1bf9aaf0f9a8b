"""What a killed agent left is told from what is in use by the lock that it held, and nothing else is touched."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.runtime import leftovers

JOB = leftovers.job_name(Path("/runs/mine"), "0000")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(leftovers, "SHM", folder)
    return folder


@pytest.fixture
def dead(tmp_path: Path, shared: Path) -> Iterator[Path]:
    """The folder of an agent that has ended, with memory and a segment of its ranks."""
    root = tmp_path / leftovers.folder_of(JOB, "0", "n1")
    os.close(leftovers.take(root))
    leftovers.memory_of(root).mkdir()
    for name in ("mpich_shm_1_0", "data set"):
        (shared / name).touch()
    leftovers.note(root, [shared / "mpich_shm_1_0", shared / "data set", Path("/etc/mpich_x")])
    yield root


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_dead_agents_folder_memory_and_segments_are_removed_and_a_programs_own_file_is_not(
    dead: Path, shared: Path, tmp_path: Path
) -> None:
    assert leftovers.sweep(tmp_path, node="n1") == [dead.name]
    assert (names(tmp_path), names(shared)) == (["shm"], ["data set"])


def test_what_a_living_agent_holds_stays(tmp_path: Path, shared: Path) -> None:
    root = tmp_path / leftovers.folder_of(JOB, "0", "n1")
    lock = leftovers.take(root)
    assert leftovers.sweep(tmp_path) == []
    assert names(root) == ["agent.lock"]
    os.close(lock)


def test_what_is_not_an_agents_stays(tmp_path: Path, shared: Path) -> None:
    ours = f"hh-{os.getuid()}-"
    (tmp_path / f"{ours}by-hand-n1").mkdir()
    (tmp_path / f"{ours}file-n1").touch()
    (tmp_path / f"{ours}link-n1").symlink_to("/tmp")
    before = names(tmp_path)
    assert leftovers.sweep(tmp_path, node="n1") == []
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("job", "node", "removed"),
    [
        ("", "", True),
        (JOB, "n1", True),
        (leftovers.job_name(Path("/runs/mine"), ""), "n1", True),
        (leftovers.job_name(Path("/runs/other"), ""), "n1", False),
        (leftovers.job_name(Path("/elsewhere/mine"), ""), "n1", False),
        (JOB, "n2", False),
    ],
)
def test_only_what_is_asked_for_is_removed(
    job: str, node: str, removed: bool, dead: Path, tmp_path: Path
) -> None:
    assert leftovers.sweep(tmp_path, job, node) == ([dead.name] if removed else [])


def test_an_agents_folder_is_made_anew(dead: Path) -> None:
    (dead / "old").touch()
    os.close(leftovers.take(dead))
    assert names(dead) == ["agent.lock"]


def test_a_process_is_asked_for_the_memory_of_libraries_that_has_a_name() -> None:
    kept = [Path(f"/dev/shm/{name}-{os.getpid()}") for name in ("mpich_shm_test", "mine", "mpich_shm_gone")]
    maps = []
    try:
        for path in kept:
            path.write_bytes(bytes(4096))
            with open(path, "r+b") as file:
                maps.append(mmap.mmap(file.fileno(), 4096))
        kept[2].unlink()
        assert leftovers.segments_of([os.getpid(), -1]) & set(kept) == {kept[0]}
        leftovers.forget_names()
        assert [path.exists() for path in kept] == [False, True, False]
    finally:
        leftovers.unlink(kept)


def test_as_a_program_it_sweeps_the_folders_of_one_job_on_one_node(dead: Path, tmp_path: Path) -> None:
    environment = {"HARNESS_NODE_LOCAL": str(tmp_path), "HARNESS_NODE": "n1", "HARNESS_JOB": JOB}
    said = subprocess.run(
        [sys.executable, "-m", "harness.runtime.leftovers"],
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        check=True,
    )
    assert said.stdout == f"removed {dead.name}, which its agent left\n"
    assert not dead.exists()
