"""The cluster's folder, its record, the trees it shows, and how it tells processes apart."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from harness.devcluster import cgroups, enter, state, visible
from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ClusterFolder, choose, claim, read_cookie
from harness.devcluster.processes import ProcessId, identify, send, wait_gone
from harness.devcluster.teardown import remove_files
from harness.devcluster.waiting import wait_until
from tests.unit.test_devcluster_config import cluster

PROJECT = Path(__file__).resolve().parents[2]

# -- the folder ---------------------------------------------------------------------------------------


def test_the_folder_is_the_given_one_then_the_environments_then_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CLUSTER", "/from/environment")
    assert choose("given") == ClusterFolder(tmp_path / "given")
    assert choose(None) == ClusterFolder(Path("/from/environment"))
    monkeypatch.delenv("HARNESS_CLUSTER")
    assert choose(None) == ClusterFolder(tmp_path / ".harness/cluster")


def test_a_hint_names_the_folder_where_the_command_would_choose_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_CLUSTER", raising=False)
    here, there = choose(None), ClusterFolder(Path("/srv/my c"))
    assert here.command("down") == "harness cluster down"
    assert there.command("power", "on p2") == "harness cluster power --folder '/srv/my c' on p2"
    monkeypatch.setenv("HARNESS_CLUSTER", "/srv/my c")
    assert there.command("power", "on p2") == "harness cluster power on p2"
    assert here.command("down") == f"harness cluster down --folder {tmp_path}/.harness/cluster"
    with pytest.raises(ClusterError, match=f"start one: harness cluster up --folder {tmp_path}/"):
        state.read_up(here)


def test_a_claimed_folder_keeps_its_id(short_path: Path) -> None:
    folder = ClusterFolder(short_path / "c")
    assert read_cookie(folder) is None
    identity = claim(folder)
    assert (claim(folder), read_cookie(folder)) == (identity, identity)
    assert len(identity) == 8 and identity.isalnum()


@pytest.mark.parametrize(
    "content", ["{}", '{"emulated": false, "id": "x"}', '{"emulated": true, "id": "../x"}', "[]"]
)
def test_a_folder_whose_cookie_is_not_ours_is_refused(short_path: Path, content: str) -> None:
    (short_path / "cookie.json").write_text(content)
    with pytest.raises(ClusterError, match="it is left alone"):
        claim(ClusterFolder(short_path))


def test_folders_that_slurm_could_not_name_are_refused(short_path: Path) -> None:
    for name, reason in (
        ("a b", "cannot hold spaces"),
        ("a,b", "cannot hold"),
        ("x" * 90, "choose a shorter"),
    ):
        with pytest.raises(ClusterError, match=reason):
            claim(ClusterFolder(short_path / name))
    assert list(short_path.iterdir()) == []


def test_the_record_is_read_as_it_was_written(short_path: Path) -> None:
    folder = ClusterFolder(short_path)
    written = cluster()
    object.__setattr__(written, "folder", str(short_path))
    state.write(written)
    assert state.read(folder) == written
    assert state.read(ClusterFolder(short_path / "none")) is None


def test_a_record_of_another_version_is_refused(short_path: Path) -> None:
    (short_path / "state.json").write_text('{"version": 99}')
    with pytest.raises(ClusterError, match="version 99"):
        state.read(ClusterFolder(short_path))
    (short_path / "state.json").write_text('{"version": 1}')
    with pytest.raises(ClusterError, match="not a cluster's record"):
        state.read(ClusterFolder(short_path))


def test_the_users_files_outlive_down_and_ours_do_not(short_path: Path) -> None:
    folder = ClusterFolder(short_path / "c")
    claim(folder)
    for path in (folder.etc, folder.logs, folder.home / "alice" / ".cache", folder.shared):
        path.mkdir(parents=True)
    (folder.home / "alice" / ".cache" / "x").write_text("")
    (folder.shared / "result").write_text("")
    assert remove_files(folder, keep_logs=True, purge=False) == [str(folder.logs), str(folder.shared)]
    assert remove_files(folder, keep_logs=False, purge=False) == [str(folder.shared)]
    assert remove_files(folder, keep_logs=False, purge=True) == []
    assert not folder.root.exists()


@pytest.fixture
def short_path(tmp_path: Path) -> Path:
    """tmp_path, once it is known to leave room for the sockets' names."""
    if len(str(tmp_path)) > 75:
        pytest.skip(f"{tmp_path} is too long for this test")
    return tmp_path


# -- what is shown inside -----------------------------------------------------------------------------


def test_symbolic_links_on_the_way_are_kept_with_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(tmp_path / "real")
    assert visible.resolve([str(tmp_path / "one" / "deep"), str(tmp_path / "real")]) == (
        (str(tmp_path / "real"), str(tmp_path / "real" / "deep")),
        {str(tmp_path / "one"): "two", str(tmp_path / "two"): str(tmp_path / "real")},
    )


def test_the_first_closed_folder_on_the_way_is_found() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        top = Path(name)
        inner = top / "open" / "closed" / "open" / "closed"
        inner.mkdir(parents=True)
        for folder in (top, top / "open", inner.parent):
            folder.chmod(0o755)
        for folder in (inner, top / "open" / "closed"):
            folder.chmod(0o700)
        assert visible.first_blocked(str(inner)) == str(top / "open" / "closed")
        (top / "open" / "closed").chmod(0o755)
        assert visible.first_blocked(str(inner)) == str(inner)
        inner.chmod(0o711)
        assert visible.first_blocked(str(inner)) is None
        assert visible.first_blocked(str(inner / "missing")) is None


def test_only_the_outermost_points_are_covered() -> None:
    assert visible.outermost(["/a/b/c", "/a/b", "/a/bc", "/d"]) == ["/a/b", "/a/bc", "/d"]


@pytest.mark.parametrize("path", ["/", "/tmp", "/proc", "/dev/shm"])
def test_private_places_are_never_shared(path: str) -> None:
    with pytest.raises(ClusterError, match="is not shared"):
        visible.check_shareable(path)


def test_a_closed_folder_is_refused_with_the_cure(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ClusterError, match=f"run: chmod o\\+rx {tmp_path}"):
        visible.check_shareable(str(tmp_path))


def test_exec_keeps_the_callers_environment_less_his_session() -> None:
    inherited = {
        "PATH": f"/a:/venv/bin:{Path(sys.executable).parent}",
        "LANG": "C",
        "SLURM_JOB_ID": "1",
        "XDG_RUNTIME_DIR": "/x",
        "TMPDIR": "/t",
    }
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert enter.login_environment(cluster(), "alice", "/home/a", inherited) == {
        "PATH": f"{Path(sys.executable).parent}:/venv/bin:/a:{system}",
        "LANG": "C",
        "HOME": "/home/a",
        "USER": "alice",
        "LOGNAME": "alice",
        "SHELL": "/bin/bash",
        "SLURM_CONF": "/srv/c/etc/slurm.conf",
        "HARNESS_CLUSTER": "/srv/c",
    }


# -- control groups -----------------------------------------------------------------------------------


def test_hierarchies_and_our_place_in_them_are_found() -> None:
    mountinfo = (
        "22 27 0:21 / /proc rw - proc proc rw\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
        "36 31 0:33 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    membership = "4:memory:/process/7\n3:cpu,cpuacct:/docker/x/y\n1:name=systemd:/\n0::/\n"
    assert cgroups.parse(mountinfo, membership) == (
        cgroups.Hierarchy("/sys/fs/cgroup/memory", "memory", "/sys/fs/cgroup/memory/process/7"),
        cgroups.Hierarchy("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/y"),
        cgroups.Hierarchy("/sys/fs/cgroup/systemd", "name=systemd", "/sys/fs/cgroup/systemd"),
    )


# -- processes and waits ------------------------------------------------------------------------------


def test_a_pid_that_now_belongs_to_another_process_is_never_signalled() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        itself = identify(child.pid)
        before_it = ProcessId(child.pid, itself.start_ticks - 1)
        assert itself.alive() and not before_it.alive()
        assert send(before_it, 9) is False
        assert child.poll() is None
        assert send(itself, 9) is True
        assert wait_gone(itself, 5)
    finally:
        child.kill()
        child.wait()
    assert send(itself, 9) is False


def test_a_wait_in_vain_says_what_for() -> None:
    begin = time.monotonic()
    with pytest.raises(ClusterError, match=r"waited 0\.05 s in vain: pigs fly"):
        wait_until(lambda: False, deadline_s=0.05, what="pigs fly")
    assert time.monotonic() - begin < 2


# -- the command line ---------------------------------------------------------------------------------


def devcluster(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.devcluster", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("verb", [["status"], ["env"], ["power", "off", "p1"]])
def test_without_a_cluster_every_verb_says_so(tmp_path: Path, verb: list[str]) -> None:
    result = devcluster(*verb, HARNESS_CLUSTER=str(tmp_path))
    assert result.returncode == 1
    assert "no cluster is up" in result.stderr and str(tmp_path) in result.stderr
    assert "Traceback" not in result.stderr


def test_the_power_client_works_from_a_zip(tmp_path: Path) -> None:
    """A run folder holds the harness as a zip, and jobs call the client from there."""
    archive = tmp_path / "harness.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(PROJECT / "harness" / "__init__.py", "harness/__init__.py")
        for path in (PROJECT / "harness" / "devcluster").glob("*.py"):
            packed.write(path, f"harness/devcluster/{path.name}")
    result = subprocess.run(
        [sys.executable, "-S", "-m", "harness.devcluster", "power", "status", "p1"],
        cwd="/",
        env={"PYTHONPATH": str(archive), "HARNESS_CLUSTER": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert "control.sock: nobody answers" in result.stderr


def test_the_client_imports_neither_namespaces_nor_the_daemon() -> None:
    code = (
        "import sys, harness.devcluster.cli, harness.devcluster.power as p;"
        "print(sorted(m for m in sys.modules if m.startswith('harness.devcluster.')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout.strip() == str(
        [f"harness.devcluster.{name}" for name in ("cli", "errors", "folder", "power")]
    )
