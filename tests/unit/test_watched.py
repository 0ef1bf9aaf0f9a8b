"""A rank as its agent sees it: the kernel's word for its process, its end, its page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.runtime import page
from harness.runtime.watched import Rank, state_of

WAIT_S = 10.0


def wait_until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, f"not within {WAIT_S:g} s: {what}"
        time.sleep(0.005)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as started:
        yield started
        started.kill()


def test_the_kernels_letter_follows_what_the_process_does(process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: state_of(process.pid) == "S", "it sleeps")
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(process.pid) == "T", "it is stopped")
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: state_of(process.pid) == "S", "it sleeps again")
    process.kill()
    wait_until(lambda: state_of(process.pid) == "Z", "it is a zombie")
    process.wait()
    assert state_of(process.pid) == "X"


def test_a_name_with_brackets_and_spaces_is_no_state(tmp_path: Path) -> None:
    odd = tmp_path / "a) T (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "60"]) as started:
        wait_until(lambda: state_of(started.pid) == "S", "it sleeps")
        started.kill()


def test_how_long_it_is_stopped_is_counted_from_when_it_was_seen(process: subprocess.Popen[bytes]) -> None:
    rank = Rank(0, pid=process.pid)
    assert rank.stopped_s(10.0) == 0.0
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(process.pid) == "T", "it is stopped")
    assert (rank.stopped_s(11.0), rank.stopped_s(12.5)) == (1e-3, 1.5)
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: state_of(process.pid) == "S", "it sleeps again")
    assert (rank.stopped_s(13.0), rank.stopped_s(14.0)) == (0.0, 0.0)


def test_its_end_is_seen_at_once_with_its_status(process: subprocess.Popen[bytes]) -> None:
    rank = Rank(0, pid=process.pid, pidfd=os.pidfd_open(process.pid), process=process)
    assert not rank.is_gone()
    before = time.time_ns()
    process.kill()
    wait_until(rank.is_gone, "it is gone")
    assert (rank.exit_status, rank.stopped_s(1.0)) == (-9, 0.0)
    assert 0 <= rank.gone_wall_ns - before < 5e9
    os.close(rank.pidfd)


def test_its_page_is_read_once_it_is_there_and_kept_when_it_is_torn(tmp_path: Path) -> None:
    rank, path = Rank(1), tmp_path / "1.page"
    rank.look(path)
    rank.command(3)  # nobody to tell
    assert rank.progress is None
    written = page.Page(path, 1)
    written.set(begun=4)
    rank.look(path)
    assert rank.progress is not None
    assert rank.progress.begun == 4
    rank.command(3)
    assert written.command() == 3
    written.set(state=len(page.STATES))
    rank.look(path)
    assert rank.progress.begun == 4
    rank.close()
