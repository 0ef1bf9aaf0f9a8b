"""`save` and `restore` of `harness.program`: processes that are killed, ranks that write apart, all kinds of damage."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from harness.faults import damage
from harness.model.command import OWN_FAULTS
from harness.model.fault import KINDS
from harness.program import deeds
from harness.runtime import said_faults, world

STEPS = 12

# What it has seen is its state: a step that is lost or done twice shows in the answer.
PROGRAM = """
import os, signal, sys, time
from harness.program import steps, save, restore

folder = restore()
seen = (folder / "seen").read_text().split() if folder else []
print("from", len(seen), flush=True)
for step in steps(12):
    seen.append(str(step))
    if os.environ.get("DIE") == "before %d" % step:
        os.kill(os.getpid(), signal.SIGKILL)
    with save(step) as folder:
        (folder / "seen").write_text(" ".join(seen))
        (folder / "deep").mkdir()
        (folder / "deep" / "more").write_bytes(b"x" * 1000)
        if os.environ.get("DIE") == "within %d" % step:
            os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("DIE") == "after %d" % step:
        os.kill(os.getpid(), signal.SIGKILL)
print("seen", *seen)
"""
WHOLE = "seen " + " ".join(map(str, range(STEPS)))


class Ranks:
    """Starts a program's ranks as the harness would, in one folder over all attempts."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self.folder, self.ranks, self.attempt = folder, ranks, 0
        self.checkpoints = folder / "checkpoints"
        self.path = world.module_folder(folder / "rank-0.said")

    def run(
        self, code: str = PROGRAM, die: str = "", rank: int = 0
    ) -> list["subprocess.CompletedProcess[str]"]:
        """All ranks, one of which may die; waits for all."""
        started = []
        for number in range(self.ranks):
            environment = {
                "PYTHONPATH": str(self.path),
                "HARNESS_CHECKPOINTS": str(self.checkpoints),
                "HARNESS_RANK": str(number),
                "HARNESS_RANKS": str(self.ranks),
                "HARNESS_RESTART_COUNT": str(self.attempt),
                "HARNESS_METRICS": str(self.folder / f"said-{number}-{self.attempt}"),
                "DIE": die if number == rank else "",
            }
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            started.append(
                subprocess.Popen([sys.executable, "-S", "-c", code], text=True, env=environment, **pipes)  # type: ignore[call-overload]
            )
        self.attempt += 1
        ended = [(p, *p.communicate(timeout=30)) for p in started]
        return [subprocess.CompletedProcess(p.args, p.returncode, out, err) for p, out, err in ended]

    def said(self, attempt: int, rank: int = 0) -> list[dict[str, Any]]:
        """What a rank said in an attempt."""
        text = (self.folder / f"said-{rank}-{attempt}").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def steps(self, attempt: int, rank: int = 0) -> list[int]:
        """Steps that it said it has done."""
        return [line["end"] for line in self.said(attempt, rank) if "end" in line]


@pytest.mark.parametrize(
    ("die", "first"),
    [("before 7", 7), ("within 7", 7), ("after 7", 8), ("before 0", 0)],
)
def test_a_program_that_is_killed_goes_on_and_neither_loses_nor_repeats_a_step(
    die: str, first: int, tmp_path: Path
) -> None:
    ranks = Ranks(tmp_path, 1)
    (broken,) = ranks.run(die=die)
    assert broken.returncode == -signal.SIGKILL
    (again,) = ranks.run()
    assert again.stdout == f"from {first}\n{WHOLE}\n", again.stderr
    done = ranks.steps(0)
    assert [step for step in done if step < first] + ranks.steps(1) == list(range(STEPS))


def test_a_checkpoint_counts_when_all_ranks_have_committed_their_parts(tmp_path: Path) -> None:
    """Rank 1 dies before it has saved step 7; the others go on to the end, and begin again where all were."""
    ranks = Ranks(tmp_path, 3)
    codes = [r.returncode for r in ranks.run(die="within 7", rank=1)]
    assert codes == [0, -signal.SIGKILL, 0]
    again = ranks.run()
    assert [r.stdout for r in again] == [f"from 7\n{WHOLE}\n"] * 3
    assert {ranks.steps(1, rank)[0] for rank in range(3)} == {7}


def test_older_checkpoints_are_removed_and_so_many_kept(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 2)
    ranks.run()
    assert sorted(f.name for f in ranks.checkpoints.iterdir()) == ["step-00000010.0", "step-00000011.0"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "bit": (lambda new, old: flip(new / "rank-1/seen"), "seen of rank 1 has another content"),
    "short": (
        lambda new, old: os.truncate(new / "rank-1/deep/more", 999),
        "deep/more of rank 1 has 999 bytes",
    ),
    "file": (lambda new, old: (new / "rank-1/deep/more").unlink(), "deep/more of rank 1 is missing"),
    "part": (lambda new, old: shutil.rmtree(new / "rank-1"), "the part of rank 1 is missing"),
    "manifest": (
        lambda new, old: os.truncate(new / "rank-1/manifest.json", 50),
        "the manifest of rank-1 cannot be read",
    ),
    "lie": (
        lambda new, old: (new / "rank-1/manifest.json").write_text(
            (new / "rank-1/manifest.json").read_text().replace('"step": 11', '"step": 12')
        ),
        "the manifest of rank-1 is damaged",
    ),
    "stale": (
        lambda new, old: (shutil.rmtree(new / "rank-1"), shutil.copytree(old / "rank-1", new / "rank-1")),
        "rank 1's part is that of step 10, attempt 0, rank 1",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_on_every_rank_and_all_fall_back_together(kind: str, tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 2)
    ranks.run()
    damage, words = DAMAGE[kind]
    damage(ranks.checkpoints / "step-00000011.0", ranks.checkpoints / "step-00000010.0")
    assert [r.stdout for r in ranks.run()] == [f"from 11\n{WHOLE}\n"] * 2
    for rank in range(2):
        (refused,) = [line["why"] for line in ranks.said(1, rank) if "refused" in line]
        assert refused.startswith(f"step-00000011.0: {words}")
        assert [line["restored"] for line in ranks.said(1, rank) if "restored" in line] == [10]


def test_where_every_checkpoint_is_damaged_nothing_is_begun_anew_or_overwritten(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 1)
    ranks.run()
    for folder in ranks.checkpoints.iterdir():
        flip(folder / "rank-0/seen")
    before = sorted(ranks.checkpoints.rglob("*"))
    (result,) = ranks.run()
    assert result.returncode == 1
    assert (
        "no checkpoint can be used, and none is overwritten: step-00000011.0: seen of rank 0" in result.stderr
    )
    assert sorted(ranks.checkpoints.rglob("*")) == before


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 2)
    ranks.run()
    ranks.ranks = 3
    assert all("saved by 2 ranks, these are 3" in r.stderr for r in ranks.run())


ALONE = """
from harness.program import steps, save, restore
import os
folder = restore()
print("from", (folder / "at").read_text() if folder else "nothing")
for step in steps(4):
    if os.environ["HARNESS_RANK"] == "0":
        with save(step, alone=True) as folder:
            (folder / "at").write_text(str(step))
"""


def test_one_rank_can_save_for_all(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 2)
    ranks.run(ALONE)
    assert [r.stdout for r in ranks.run(ALONE)] == ["from 3\n"] * 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "with save(): pass",
            "ValueError: step -1 cannot be saved: give the number of the step that was done",
        ),
        ("with save(3): pass", "ValueError: nothing was written into "),
        ("with save(3) as f: (f / 'a').touch(); 1 / 0", "ZeroDivisionError"),
        (
            "for _ in 1, 2:\n  with save(3) as f: (f / 'a').touch()",
            "ValueError: step 3 was saved before by rank 0, in ",
        ),
    ],
)
def test_what_cannot_be_saved_is_an_error_in_words_and_leaves_nothing(
    code: str, words: str, tmp_path: Path
) -> None:
    ranks = Ranks(tmp_path, 1)
    (result,) = ranks.run("from harness.program import *\n" + code)
    assert words in result.stderr
    assert not list(ranks.checkpoints.glob("**/.rank*"))


def test_a_checkpoint_that_its_block_did_not_finish_is_none(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 1)
    ranks.run("from harness.program import *\nwith save(3) as f: (f / 'a').touch(); 1 / 0")
    (result,) = ranks.run("from harness.program import *\nprint(restore())")
    assert result.stdout == "None\n"


def test_without_the_harness_nothing_is_kept_and_nothing_restored(tmp_path: Path) -> None:
    path = world.module_folder(tmp_path / "rank-0.said")
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-S", "-c", PROGRAM],
            text=True,
            capture_output=True,
            timeout=30,
            env={"PYTHONPATH": str(path), "TMPDIR": str(tmp_path / "tmp")},
            cwd=tmp_path,
        )
        assert result.stdout == f"from 0\n{WHOLE}\n", result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["rank-0.python"]


def test_a_saved_step_ends_where_saving_begins(tmp_path: Path) -> None:
    """So a step that was saved has its sample, and its time is without the checkpoint's."""
    ranks = Ranks(tmp_path, 1)
    code = (
        "import time\nfrom harness.program import *\n"
        "for step in steps(1):\n  with save() as f: (f / 'a').touch(); time.sleep(0.2)"
    )
    ranks.run(code)
    begin, end, saving, saved = ranks.said(0)
    assert [begin["begin"], end["end"], saving["saving"], saved["saved"]] == [0] * 4
    assert end["step_time_ns"] < 100_000_000 < 200_000_000 <= saved["time_ns"]
    assert (saved["bytes"], saved["path"]) == (0, "step-00000000.0")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program of two ranks that ended, with two checkpoints."""
    ranks = Ranks(tmp_path_factory.mktemp("saved"), 2)
    ranks.run()
    return ranks.folder


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", damage.KINDS)
def test_what_a_campaign_does_to_a_programs_checkpoint_is_found_by_its_next_restore(
    kind: str, seed: int, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    ranks = Ranks(tmp_path / "copy", 2)
    newest, older = damage.committed(ranks.checkpoints)
    done = damage.KINDS[kind](ranks.checkpoints / newest.name, Random(seed))
    assert (newest.name, older.name) == ("step-00000011.0", "step-00000010.0")
    assert done["before"] != done["after"] == damage.facts(ranks.checkpoints / newest.name / done["file"])
    ranks.attempt = 1
    (result, _) = ranks.run("from harness.program import restore; print(restore().parent.name)")
    assert result.stdout == "step-00000010.0\n", result.stderr


def test_every_fault_that_a_program_can_do_is_known_to_all_who_must_know_it() -> None:
    own = {*deeds.KINDS, "control.position"}
    assert own == set(OWN_FAULTS)
    assert set(deeds.KINDS) == set(said_faults.KINDS)
    assert own <= set(KINDS)
