"""Checkpoints: committed whole or not at all; what is damaged is refused by name, and an older one is used."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.runtime import checkpoint
from harness.runtime.checkpoint import CheckpointError


class Alone:
    """A world of one rank whose state is one number in one file."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def save(self, folder: Path) -> list[Path]:
        path = folder / "rank-0.json"
        path.write_text(json.dumps(self.value) + " " * 100)
        return [path]

    def restore(self, folder: Path) -> None:
        self.value = json.loads((folder / "rank-0.json").read_text())

    def state_digest(self) -> str:
        return f"digest of {self.value}"

    def barrier(self) -> None: ...

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value


def _save(parent: Path, value: int, step: int, *, restart: int = 0, keep: int = 9) -> dict[str, Any]:
    return checkpoint.save(Alone(value), parent, 0, step, restart, 0, keep)  # type: ignore[arg-type]


def _restore(parent: Path) -> tuple[int, dict[str, Any] | None, list[str]]:
    workload = Alone()
    restored, refused = checkpoint.restore(workload, parent, 0, 1)  # type: ignore[arg-type]
    return workload.value, restored, refused


def test_the_newest_checkpoint_is_restored_with_its_digest(tmp_path: Path) -> None:
    _save(tmp_path, 5, 5)
    saved = _save(tmp_path, 10, 10)
    assert saved == {"step": 10, "digest": "digest of 10", "bytes": 102, "path": "step-00000010.0.0"}
    assert _restore(tmp_path) == (
        10,
        {
            "step": 10,
            "digest": "digest of 10",
            "committed_digest": "digest of 10",
            "path": "step-00000010.0.0",
        },
        [],
    )


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert _restore(tmp_path) == (0, None, [])


def test_old_ones_are_removed_after_the_commit(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        _save(tmp_path, step, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010.0.0", "step-00000015.0.0"]


def test_one_that_was_never_committed_is_not_seen(tmp_path: Path) -> None:
    _save(tmp_path, 5, 5)
    (tmp_path / "step-00000010.0.0").mkdir()
    (tmp_path / "step-00000010.0.0").rename(tmp_path / ".step-00000010.0.0.tmp")
    assert _restore(tmp_path)[0] == 5


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda f: _flip(f / "rank-0.json"), "rank-0.json of rank 0 is damaged"),
        (lambda f: (f / "rank-0.json").write_text("1"), "rank-0.json of rank 0 is damaged"),
        (lambda f: (f / "rank-0.json").unlink(), "rank-0.json of rank 0 is missing"),
        (lambda f: (f / "manifest.json").unlink(), "its manifest cannot be read"),
        (
            lambda f: (f / "manifest.json").write_text(
                (f / "manifest.json").read_text().replace("10", "11", 1)
            ),
            "its manifest is damaged",
        ),
    ],
)
def test_a_damaged_one_is_refused_by_name_and_the_one_before_is_used(
    tmp_path: Path, damage: Any, why: str
) -> None:
    _save(tmp_path, 5, 5)
    _save(tmp_path, 10, 10)
    damage(tmp_path / "step-00000010.0.0")
    value, restored, refused = _restore(tmp_path)
    assert (value, restored is not None and restored["step"]) == (5, 5)
    assert len(refused) == 1
    assert refused[0].startswith("rank 0: step-00000010.0.0: ")
    assert why in refused[0]


def test_when_all_are_damaged_the_reason_names_each_and_nothing_is_overwritten(tmp_path: Path) -> None:
    _save(tmp_path, 5, 5)
    _save(tmp_path, 10, 10)
    for folder in tmp_path.iterdir():
        _flip(folder / "rank-0.json")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match=r"no checkpoint can be used: .*00000010.*; .*00000005"):
        _restore(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_state_that_is_not_the_committed_one_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 5, 5)
    monkeypatch.setattr(Alone, "restore", lambda self, folder: setattr(self, "value", 4))
    with pytest.raises(
        CheckpointError, match="restored on rank 0 with digest digest of 4, but digest of 5 was committed"
    ):
        _restore(tmp_path)


def test_a_late_commit_of_an_older_start_comes_after_the_same_step_of_a_newer_one(tmp_path: Path) -> None:
    _save(tmp_path, 1, 10, restart=1)
    _save(tmp_path, 0, 10, restart=0)
    assert [c.folder.name for c in checkpoint.committed(tmp_path)] == [
        "step-00000010.1.0",
        "step-00000010.0.0",
    ]
