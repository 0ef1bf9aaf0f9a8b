"""harness.demo: refuses in words, passes a stop on once, cleans up whatever happens, copies only files."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import demo

# Ends with 7 on the first interrupt, after saying so; a second one would end it differently.
POLITE = """
import signal, sys, time
def leave(number, frame):
    signal.signal(number, signal.SIG_DFL)
    time.sleep(0.5)
    sys.exit(7)
signal.signal(signal.SIGINT, leave)
open(sys.argv[1], "w").close()
time.sleep(60)
"""


def test_without_root_it_stops_and_names_the_two_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demo.main(["--site", "emulated"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "SITE=local make demo" in said.err and "as root" in said.err


def test_another_site_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        demo.main(["--site", "alps"])
    assert end.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_runs_is_interrupted_once_and_its_exit_code_is_kept(
    tmp_path: Path, number: signal.Signals
) -> None:
    started = tmp_path / "started"
    with demo._Stop() as stop:
        threading.Thread(target=_signal_when, args=(started, number, 3)).start()
        code = stop.run([sys.executable, "-c", POLITE, str(started)], deadline_s=30)
    assert (code, stop.number) == (7, number)


def test_nothing_new_is_run_once_it_is_to_stop_except_the_clean_up() -> None:
    with demo._Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.run([sys.executable, "-c", ""], deadline_s=30) == 128 + signal.SIGTERM
        assert stop.run_whatever_happens([sys.executable, "-c", "raise SystemExit(5)"], deadline_s=30) == 5


def test_what_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "STOP_GRACE_S", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    with demo._Stop() as stop:
        assert stop.run([sys.executable, "-c", deaf], deadline_s=0.5) == -signal.SIGKILL
    assert time.monotonic() - began < 10
    assert "Gave up after" in capsys.readouterr().err


def test_the_handlers_of_before_come_back() -> None:
    before = {number: signal.getsignal(number) for number in demo._Stop.SIGNALS}
    with demo._Stop():
        assert signal.getsignal(signal.SIGINT) != before[signal.SIGINT]
    assert {number: signal.getsignal(number) for number in demo._Stop.SIGNALS} == before


def test_sockets_and_pipes_are_left_and_all_else_is_copied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A socket's path is short.
    monkeypatch.chdir(tmp_path)
    source, target = Path("run"), Path("copy")
    (source / "jobs").mkdir(parents=True)
    (source / "results.h5").write_bytes(b"data")
    (source / "jobs/latest").symlink_to("nowhere")
    os.mkfifo(source / "jobs/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("run/control")
        assert demo._copy_out(source, target)
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*")) == [
        "jobs",
        "jobs/latest",
        "results.h5",
    ]
    assert os.readlink(target / "jobs/latest") == "nowhere"


@pytest.mark.parametrize("root", ["/srv/a checkout", "/srv/" + "deep/" * 20, "/srv/it's"])
def test_a_checkout_whose_path_slurm_could_not_hold_gets_its_cluster_elsewhere(root: str) -> None:
    folder = demo._cluster_folder(Path(root))
    assert folder.parent == demo.ELSEWHERE
    assert demo._cluster_folder(Path("/srv/harness")) == Path("/srv/harness/.harness/cluster")


def _signal_when(started: Path, number: int, times: int) -> None:
    while not started.exists():
        time.sleep(0.02)
    for _ in range(times):
        os.kill(os.getpid(), number)
        time.sleep(0.05)
