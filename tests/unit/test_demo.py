"""harness.demo: refuses in words, passes a stop on once, cleans up whatever happens, gives back what it lent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import demo
from harness.devcluster import state

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


def test_the_clean_up_can_still_talk_when_the_terminal_has_gone() -> None:
    """It would otherwise end at its first word."""
    master, terminal = os.openpty()
    kept = os.dup(1)
    os.dup2(terminal, 1)
    os.close(terminal)
    try:
        with demo._Stop() as stop:
            os.close(master)
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.run_whatever_happens([sys.executable, "-c", "print('word')"], deadline_s=30) == 0
    finally:
        os.dup2(kept, 1)
        os.close(kept)


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


class Recorded(demo._Stop):
    """Remembers the clean-up instead of doing it."""

    def __init__(self, code: int = 0) -> None:
        super().__init__()
        self.code = code
        self.commands: list[list[str]] = []

    def run_whatever_happens(self, command: Sequence[str], deadline_s: float) -> int:
        self.commands.append([*command])
        return self.code


@pytest.mark.parametrize("cancelled", [0, 1])
def test_a_local_run_that_is_stopped_is_cancelled_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], cancelled: int
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    begun = run / "run.json"
    monkeypatch.setattr(demo, "_harness_run", lambda *_: [sys.executable, "-c", POLITE, str(begun)])
    stop = Recorded(cancelled)
    with stop:
        threading.Thread(target=_signal_when, args=(begun, signal.SIGINT, 1)).start()
        assert demo._local(tmp_path, run, stop) == 7
    assert stop.commands == [[sys.executable, "-m", "harness", "cancel", str(run)]]
    said = capsys.readouterr()
    assert ("nothing goes on" in said.out) == (cancelled == 0)
    assert (f"harness cancel {run}" in said.err) == (cancelled == 1)


@pytest.mark.parametrize("lasts", [False, True])
def test_nothing_is_called_ended_before_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], lasts: bool
) -> None:
    (tmp_path / "run.json").touch()
    monkeypatch.setattr(demo, "STOP_GRACE_S", 0.5 if lasts else 30)
    seconds = "60" if lasts else "1"
    command = [sys.executable, "-c", f"import time; time.sleep({seconds})", "harness.local", str(tmp_path)]
    with subprocess.Popen(command) as supervisor:
        waiter = threading.Thread(target=supervisor.wait)
        waiter.start()
        assert demo._end_processes(tmp_path, Recorded()) == (not lasts)
        waiter.join(0.1 if lasts else 10)  # poll tells nothing while another thread waits
        assert (supervisor.poll() is None) == lasts
        assert (f"processes {supervisor.pid} run on" in capsys.readouterr().err) == lasts
        supervisor.kill()


@pytest.mark.parametrize("files", [[], ["run.json", "results.h5"]])
def test_a_local_run_that_never_began_or_is_over_is_not_cancelled(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    stop = Recorded()
    assert demo._end_processes(tmp_path, stop)
    assert stop.commands == []


class Pretended(Recorded):
    """Starts nothing; the campaign is stopped while it runs."""

    def run(self, command: Sequence[str], deadline_s: float, cwd: Path | None = None) -> int:
        self.commands.append([*command])
        if "exec" in command:
            self.number = signal.SIGINT
            return 130
        return 0


def test_the_run_folder_is_in_the_checkout_and_shared_and_taken_back_once_the_cluster_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Pretended()
    runs = tmp_path / "runs"
    runs.mkdir(mode=0o700)
    user = SimpleNamespace(user=SimpleNamespace(uid=61000))
    monkeypatch.setattr(state, "read_up", lambda _: user)
    monkeypatch.setattr(demo, "_lend", lambda path, uid: stop.commands.append(["lend", str(path), str(uid)]))
    monkeypatch.setattr(demo, "_take_back", lambda path: stop.commands.append(["take back", str(path)]))

    assert demo._emulated(Path("/srv/harness"), runs / "now", stop) == 130

    back, up, lend, campaign, down, again = stop.commands
    assert back == again == ["take back", str(runs)]
    assert up[3] == "up" and up[-2:] == ["--share", str(runs)]
    assert runs.stat().st_mode & 0o777 == 0o755  # or it could not be shared
    assert lend == ["lend", str(runs), "61000"]
    assert campaign[-2:] == ["--folder", str(runs / "now")]
    assert down[3] == "down" and "--purge" not in down  # what others left in that cluster is theirs
    assert "The cluster is gone and its jobs with it" in capsys.readouterr().out


def test_a_cluster_that_could_not_be_taken_down_is_not_called_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Pretended(code=1)
    stop.number = signal.SIGINT
    taken: list[Path] = []
    monkeypatch.setattr(demo, "_take_back", taken.append)
    monkeypatch.setattr(stop, "run", lambda *_, **__: 130)
    assert demo._emulated(Path("/srv/harness"), tmp_path / "now", stop) == demo.REFUSED
    assert len(taken) == 1  # before, but not from under jobs that may still run
    said = capsys.readouterr()
    assert "is gone" not in said.out and "harness.devcluster down --folder /srv/harness" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lend a folder")
def test_what_the_clusters_user_made_is_given_back_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1234")
    (tmp_path / "earlier").mkdir()
    demo._lend(tmp_path, 61000)
    assert (tmp_path.stat().st_gid, tmp_path.stat().st_mode & 0o7777) == (61000, 0o1775)
    for path in (tmp_path / "run", tmp_path / "run/jobs"):
        path.mkdir()
    (tmp_path / "run/results.h5").touch()
    (tmp_path / "run/latest").symlink_to("jobs")
    made = [tmp_path / "run", *(tmp_path / "run").iterdir()]
    for path in made:
        os.chown(path, 61000, 61000, follow_symlinks=False)

    # As the next demo would, when this one was killed: nothing is known but the folder.
    demo._take_back(tmp_path)

    assert {path.lstat().st_uid for path in made} == {1234}
    assert (tmp_path / "earlier").stat().st_uid == 0
    assert (tmp_path.stat().st_gid, tmp_path.stat().st_mode & 0o7777) == (1234, 0o755)
    os.chown(tmp_path / "run", 61000, 61000)
    demo._take_back(tmp_path)
    assert (tmp_path / "run").stat().st_uid == 61000  # not lent: not touched


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
