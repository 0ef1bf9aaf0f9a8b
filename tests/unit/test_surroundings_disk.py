"""A full disk, a quota, a read-only folder: nothing written is lost or torn, and the same command goes on.

On a small file system in memory where this may mount one (root), and with a limit on the size of files
where it may not.
"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pytest

from harness import ledger, rundir
from harness.driver import Driver
from harness.model.case import Case, Job, Plan, Submission
from harness.model.event import Event
from harness.rundir import RunDir, append_line, in_words, read_lines, write_atomic, write_json
from harness.runtime import recorder
from harness.runtime.recorder import Recorder
from harness.runtime.shipper import Shipper
from harness.slurm.query import JobRow
from harness.store import StoreError, Writer
from tests.conftest import fill_up

Fill = Callable[[int], Path]


@pytest.fixture
def disk(small_disk: Callable[[str], Path]) -> tuple[Path, Fill]:
    """A file system of 64 KiB in memory, and how to fill it up to so many bytes that stay free; whole pages."""
    point = small_disk("64k")
    return point, lambda free: fill_up(point, free)


def test_a_line_for_which_there_is_room_in_part_is_an_error_and_costs_only_itself(
    disk: tuple[Path, Fill],
) -> None:
    """`write` takes a part and reports no error; the next line stands by itself all the same."""
    folder, fill = disk
    path = folder / "ledger.jsonl"
    append_line(path, {"n": 1, "pad": "x" * 4000})
    filler = fill(0)
    with pytest.raises(OSError) as caught:
        append_line(path, {"n": 2, "pad": "y" * 4000})
    assert in_words(caught.value) == (
        f"{path}: No space left on device; free some space there, and give the same command again: "
        "nothing that was written is lost"
    )
    assert path.stat().st_size == 4096  # a part of it is there
    assert [line["n"] for line in read_lines(path)] == [1]
    filler.unlink()
    append_line(path, {"n": 2})
    assert [line["n"] for line in read_lines(path)] == [1, 2]


def test_a_document_is_the_old_one_and_no_other_file_is_left(disk: tuple[Path, Fill]) -> None:
    folder, fill = disk
    write_json(folder / "end.json", {"n": 1})
    fill(0)
    with pytest.raises(OSError, match="No space left") as caught:
        write_json(folder / "end.json", {"n": 2})
    assert caught.value.filename == str(folder / "end.json")
    assert json.loads((folder / "end.json").read_text()) == {"n": 1}
    assert sorted(p.name for p in folder.iterdir()) == ["end.json", "filler"]


def test_a_folder_that_became_read_only_is_named_with_what_helps(disk: tuple[Path, Fill]) -> None:
    folder, _ = disk
    append_line(folder / "ledger.jsonl", {"n": 1})
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    for write in (
        lambda: append_line(folder / "ledger.jsonl", {"n": 2}),
        lambda: write_atomic(folder / "end.json", b""),
    ):
        with pytest.raises(OSError) as caught:
            write()
        assert ": Read-only file system; have the file system made writable again, and give" in in_words(
            caught.value
        )
    assert list(read_lines(folder / "ledger.jsonl")) == [{"n": 1}]


def test_a_limit_on_the_size_of_files_is_told_apart(tmp_path: Path) -> None:
    """As a quota does, it lets a part of a line through."""
    program = (
        "import resource, sys; from pathlib import Path; from harness.rundir import append_line, in_words\n"
        "path = Path(sys.argv[1]); append_line(path, {'n': 1})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "try: append_line(path, {'n': 2, 'pad': 'x' * 100})\n"
        "except OSError as error: print(in_words(error))\n"
    )
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith(f"{path}: File too large; have your limit on the size of files raised")
    assert path.stat().st_size == 20
    append_line(path, {"n": 2})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EDQUOT, "have your quota raised, and give the same command again"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_each_error_of_storage_says_what_helps(number: int, advice: str) -> None:
    assert in_words(OSError(number, os.strerror(number), "/shared/run")).startswith("/shared/run: ")
    assert advice in in_words(OSError(number, os.strerror(number), "/shared/run"))


# ---- records ----


def _event(n: int) -> Event:
    return Event("x", n, n, "p1", "rank", data={"pad": "z" * 300})


def test_a_rank_whose_disk_is_full_keeps_whole_records_and_says_which_file(disk: tuple[Path, Fill]) -> None:
    folder, fill = disk
    path = folder / "rank-0.rec"
    records = Recorder(path, 0)
    filler = fill(4096)
    taken = 0
    with pytest.raises(OSError, match="No space left") as caught:
        while True:
            records.event(_event(taken))
            taken += 1
    assert caught.value.filename == str(path)
    assert taken > 5
    filler.unlink()
    records.event(_event(taken))
    records.close()
    streams, damage, _ = recorder.read_stream(path.read_bytes())
    assert [e.wall_ns for e in streams[0].events] == list(range(taken + 1))
    assert (damage, streams[0].closed, streams[0].problems) == ([], True, [])


def test_records_are_shipped_once_each_when_shared_storage_was_full_for_a_while(
    disk: tuple[Path, Fill], tmp_path: Path
) -> None:
    shared, fill = disk
    local = tmp_path / "local"
    local.mkdir()
    shipper = Shipper(local, shared / "p1.stream")
    ranks = [Recorder(local / f"rank-{n}.rec", n) for n in range(2)]
    filler = fill(8192)
    failed = 0
    for n in range(60):
        for rank in ranks:
            rank.event(_event(n))
        if n == 40:
            filler.unlink()
        try:
            shipper.ship(sync=False)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.ENOSPC, str(shared / "p1.stream"))
            failed += 1
    for rank in ranks:
        rank.close()
    promised = shipper.recorded()
    shipper.ship(sync=True)
    data = (shared / "p1.stream").read_bytes()
    streams, damage, frames = recorder.read_stream(data)
    assert failed > 5
    assert (len(data), frames, damage) == (*promised, [])
    assert {n: [e.wall_ns for e in s.events] for n, s in streams.items()} == {
        n: list(range(60)) for n in range(2)
    }


# ---- results ----


def test_results_that_cannot_be_written_leave_those_that_were_there(disk: tuple[Path, Fill]) -> None:
    """HDF5 itself would leave a torn file and an aborting process."""
    folder, fill = disk
    path = folder / "results.h5"
    path.write_bytes(b"those of yesterday")
    fill(8192)
    with pytest.raises(OSError, match="No space left") as caught, Writer(path, {"note": "x" * 30000}):
        pass
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"those of yesterday"
    assert sorted(p.name for p in folder.iterdir()) == ["filler", "results.h5"]


def test_results_that_are_not_read_as_they_were_written_are_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: object) -> None:
        raise StoreError("damaged")

    monkeypatch.setattr("harness.store.Results.verify", damaged)
    with pytest.raises(StoreError, match="damaged"), Writer(tmp_path / "results.h5", {}):
        pass
    assert list(tmp_path.iterdir()) == []


# ---- the driver ----

CASES = tuple(Case(f"c{n}", "g", "mpi.halo", 1, 1, 0, 1, 10, 1, {}) for n in range(2))
PLAN = Plan(
    CASES,
    tuple(
        Submission(f"000{n}", (Job(f"000{n}", 1, 1, 5, (f"c{n}",), False),), "mpi.sh.j2") for n in range(2)
    ),
)
SITE = {
    "name": "s", "kind": "production", "launcher": "slurm", "node": {}, "mpi": {}, "network": {}, "paths": {},
    "accounting": True, "scheduler": {"poll_s": 0, "call_timeout_s": 1}, "power": None,
}  # fmt: skip


class Slurm:
    """Runs a job at once; knows by name what was submitted."""

    one_at_a_time = False
    free = True

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.submitted: list[str] = []

    def submit(self, submission: Submission, exclude: Sequence[str] = ()) -> str:
        self.submitted.append(submission.name)
        key, number = submission.jobs[0].key, str(100 + int(submission.name))
        self.run.job(key).mkdir(parents=True)
        for path in (self.run.claim(key), self.run.end(key)):
            path.write_text(json.dumps({"wall_ns": 1, "job_id": number}))
        return number

    def rows(
        self, jobs: Mapping[str, str], finished: Collection[str], settled: Collection[str] = ()
    ) -> dict[str, JobRow]:
        return {key: JobRow(job_id, "", "COMPLETED", "0:0") for key, job_id in jobs.items()}

    def reasons(self, jobs: Mapping[str, str]) -> dict[str, str]:
        return {}

    def find(self, submissions: Sequence[Submission]) -> dict[str, str]:
        return {s.name: str(100 + int(s.name)) for s in submissions if s.name in self.submitted}

    def nodes(self, partition: str | None) -> dict[str, str]:
        return {}

    def starts(self, jobs: Mapping[str, str]) -> dict[str, list[JobRow]]:
        return {}

    def cancel(self, job_ids: Sequence[str]) -> None:
        raise AssertionError("nobody asked for that")


def _run_folder(folder: Path) -> RunDir:
    run = RunDir(folder)
    folder.mkdir()
    keys = rundir.IDENTITY_KEYS
    write_json(run.plan, PLAN.to_json())
    write_json(run.site, SITE)
    write_json(run.identity, {**dict.fromkeys(keys, ""), "run_id": "feed"})
    return run


@pytest.mark.parametrize("write", range(1, 7))
def test_a_disk_that_is_full_at_any_write_of_the_driver_costs_nothing(
    write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write goes through in part; the driver stops; the same command goes on, and submits nothing twice."""
    run = _run_folder(tmp_path / "run")
    slurm = Slurm(run)
    whole, done = rundir.write_all, 0
    rng = random.Random(write)

    def full_at_one(descriptor: int, data: bytes) -> None:
        nonlocal done
        done += 1
        if done == write:
            whole(descriptor, data[: rng.randrange(len(data))])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(descriptor, data)

    monkeypatch.setattr(rundir, "write_all", full_at_one)
    monkeypatch.setattr("harness.driving.submitting.LOOKUP_WAIT_S", 0.0)
    stopped = 0
    for _ in range(40):
        try:
            driver = Driver(run, slurm)
            driver.step(ask=True)
            if driver.complete(ledger.read(run)):
                break
        except OSError as error:
            assert error.filename == str(run.ledger)
            stopped += 1
    known = ledger.read(run)
    assert sorted(known.ended) == ["0000", "0001"]
    assert sorted(slurm.submitted) == ["0000", "0001"]
    assert stopped == 1
    assert {facts["reason"] for facts in known.ended.values()} == {""}
