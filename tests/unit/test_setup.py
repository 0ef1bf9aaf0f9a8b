"""setup.sh: refuses a site's machine, holds daemons back and puts things back, installs only what is missing.

The script is sourced, and its paths are pointed into a folder of the test; no test installs anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.devcluster import packages

REFUSED = 3
SCRIPT = Path("harness/devcluster/setup.sh")


@dataclass(frozen=True)
class Machine:
    """A made-up machine: /etc, /proc and policy-rc.d in a folder, and setup.sh to run against it."""

    root: Path
    script: Path

    @property
    def policy(self) -> Path:
        return self.root / "sbin" / "policy-rc.d"

    @property
    def kept(self) -> Path:
        return self.root / "sbin" / "policy-rc.d.before-hpc-harness"

    def bash(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Source setup.sh, point it at this machine, and run code."""
        prelude = (
            'source "$SCRIPT"; ETC=$FAKE/etc PROC=$FAKE/proc POLICY=$FAKE/sbin/policy-rc.d DEV=$FAKE/dev; '
            "SITE_CONFIGS=($FAKE/run/slurm.conf); VENV=$FAKE/venv; LOG=$FAKE/setup.log\n"
        )
        return subprocess.run(
            ["bash", "-c", prelude + code],
            env={
                "PATH": os.environ["PATH"],
                "SCRIPT": str(self.script),
                "FAKE": str(self.root),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )

    def add_process(
        self, pid: int, name: str, *arguments: str, namespaces: int = 1, state: str = "S"
    ) -> Path:
        """A process as /proc shows it."""
        folder = self.root / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "comm").write_text(name + "\n")
        (folder / "cmdline").write_text("\0".join((name, *arguments)) + "\0")
        numbers = "\t".join(str(pid + level) for level in range(namespaces))
        (folder / "status").write_text(
            f"Name:\t{name}\nState:\t{state} (made up)\nNSpid:\t{numbers}\nThreads:\t1\n"
        )
        (folder / "environ").write_bytes(b"PATH=/usr/bin\0")
        return folder

    def evidence(self, **environment: str) -> str:
        """Why this machine belongs to a site; empty when it does not."""
        result = self.bash("site_evidence", **environment)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.strip().replace(str(self.root), "")


@pytest.fixture
def machine(tmp_path: Path, project_root: Path) -> Machine:
    """A machine without a trace of Slurm."""
    for folder in ("etc", "proc", "sbin", "dev", "run"):
        (tmp_path / folder).mkdir()
    made = Machine(tmp_path, project_root / SCRIPT)
    made.add_process(1, "systemd")
    return made


# --- the machine of a site -------------------------------------------------------------------------


def test_a_machine_without_slurm_belongs_to_no_site(machine: Machine) -> None:
    assert machine.evidence() == ""


def test_debians_packages_alone_make_no_site(machine: Machine) -> None:
    (machine.root / "etc/slurm/plugstack.conf.d").mkdir(parents=True)
    (machine.root / "etc/slurm/plugstack.conf").write_text("include plugstack.conf.d/*\n")
    assert machine.evidence() == ""


@pytest.mark.parametrize("path", ["etc/slurm/slurm.conf", "etc/slurm-llnl/slurm.conf", "run/slurm.conf"])
def test_a_slurm_conf_makes_a_site(machine: Machine, path: str) -> None:
    (machine.root / path).parent.mkdir(parents=True, exist_ok=True)
    (machine.root / path).write_text("ClusterName=alps\n")
    assert machine.evidence() == f"/{path} exists"


def test_a_slurm_conf_that_the_environment_names_makes_a_site(machine: Machine) -> None:
    (machine.root / "shared").mkdir()
    (machine.root / "shared/slurm.conf").write_text("ClusterName=alps\n")
    assert machine.evidence(SLURM_CONF=str(machine.root / "shared/slurm.conf")) == "/shared/slurm.conf exists"


def test_the_environment_of_our_own_cluster_makes_no_site(machine: Machine) -> None:
    (machine.root / "cluster/etc").mkdir(parents=True)
    (machine.root / "cluster/cookie.json").write_text("{}\n")
    (machine.root / "cluster/etc/slurm.conf").write_text("ClusterName=emulated\n")
    assert machine.evidence(SLURM_CONF=str(machine.root / "cluster/etc/slurm.conf")) == ""


@pytest.mark.parametrize("name", ["slurmd", "slurmctld", "slurmdbd", "munged", "sackd"])
def test_a_running_daemon_makes_a_site(machine: Machine, name: str) -> None:
    machine.add_process(4711, name, "-D")
    assert machine.evidence() == f"{name} is running (process 4711)"


def test_daemons_in_process_namespaces_of_their_own_are_an_emulated_clusters(machine: Machine) -> None:
    machine.add_process(4711, "slurmctld", "-D", namespaces=2)
    assert machine.evidence() == ""


def test_a_daemon_whose_arguments_point_beside_a_cookie_is_ours(machine: Machine) -> None:
    (machine.root / "cluster/run").mkdir(parents=True)
    (machine.root / "cluster/cookie.json").write_text("{}\n")
    machine.add_process(4711, "munged", f"--socket={machine.root}/cluster/run/munge.sock")
    machine.add_process(4712, "munged", f"--socket={machine.root}/elsewhere/munge.sock")
    assert machine.evidence() == "munged is running (process 4712)"


def test_a_daemon_whose_environment_points_beside_a_cookie_is_ours(machine: Machine) -> None:
    (machine.root / "cluster").mkdir()
    (machine.root / "cluster/cookie.json").write_text("{}\n")
    process = machine.add_process(4711, "slurmd")
    (process / "environ").write_text(f"A=b\0HARNESS_CLUSTER={machine.root}/cluster\0")
    assert machine.evidence() == ""


def test_a_daemon_that_has_ended_does_not_count(machine: Machine) -> None:
    machine.add_process(4711, "slurmd", state="Z")
    gone = machine.add_process(4712, "slurmd")
    (gone / "status").unlink()
    assert machine.evidence() == ""


def test_on_a_site_it_installs_nothing_and_says_what_to_do_instead(machine: Machine) -> None:
    machine.add_process(4711, "slurmd", "-D")
    before = _tree(machine.root)
    result = machine.bash("main --cluster --yes")
    assert (result.returncode, result.stdout) == (REFUSED, "")
    assert "slurmd is running (process 4711)" in result.stderr
    for advice in ("Nothing was installed", "configs/sites/example-gpu.yaml", "SITE=local make demo"):
        assert advice in result.stderr
    assert _tree(machine.root) == before


def test_without_root_it_names_the_two_choices(machine: Machine) -> None:
    result = machine.bash("is_root() { false; }; main --cluster --yes")
    assert (result.returncode, result.stdout) == (REFUSED, "")
    assert "SITE=local make demo" in result.stderr
    assert "as root" in result.stderr


# --- daemons that packages would start --------------------------------------------------------------


def test_daemons_are_refused_while_installing(machine: Machine) -> None:
    result = machine.bash('hold_daemons; code=0; "$POLICY" munge start || code=$?; echo $code')
    assert result.stdout == "101\n"


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o644])
def test_a_policy_that_was_there_comes_back_unchanged(machine: Machine, mode: int) -> None:
    machine.policy.write_text("#!/bin/sh\n# the machine's own\nexit 101\n")
    machine.policy.chmod(mode)
    os.utime(machine.policy, (1, 2))
    before = _identity(machine.policy)
    result = machine.bash('hold_daemons; grep -c "machine\'s own" "$POLICY"; release_daemons')
    assert result.stdout == "0\n"
    assert _identity(machine.policy) == before
    assert not machine.kept.exists()


def test_a_policy_that_is_a_link_comes_back_as_a_link(machine: Machine) -> None:
    machine.policy.symlink_to("nowhere")
    machine.bash("hold_daemons; release_daemons")
    assert os.readlink(machine.policy) == "nowhere"


def test_where_there_was_no_policy_there_is_none_afterwards(machine: Machine) -> None:
    machine.bash("hold_daemons; [[ -x $POLICY ]] || exit 9; release_daemons")
    assert list(machine.policy.parent.iterdir()) == []


@pytest.mark.parametrize("end", ["exit 5", "false", "kill -TERM $$; sleep 5", "kill -INT $$; sleep 5"])
def test_the_policy_comes_back_when_the_installation_fails_or_is_stopped(machine: Machine, end: str) -> None:
    machine.policy.write_text("the machine's own\n")
    result = machine.bash(f"hold_daemons; {end}; echo not reached")
    assert result.returncode != 0
    assert "not reached" not in result.stdout
    assert machine.policy.read_text() == "the machine's own\n"
    assert not machine.kept.exists()


@pytest.mark.parametrize("had_policy", [True, False])
def test_the_next_set_up_puts_back_what_a_killed_one_left(machine: Machine, had_policy: bool) -> None:
    if had_policy:
        machine.policy.write_text("the machine's own\n")
    killed = machine.bash("hold_daemons; kill -KILL $$")
    assert killed.returncode == -9
    assert "hpc-harness" in machine.policy.read_text()
    machine.bash("is_root() { true; }; venv_is_ready() { true; }; main")
    assert machine.policy.exists() == had_policy
    if had_policy:
        assert machine.policy.read_text() == "the machine's own\n"
    assert not machine.kept.exists()


def test_it_does_not_guess_which_of_two_foreign_policies_is_right(machine: Machine) -> None:
    machine.policy.write_text("newer\n")
    machine.kept.write_text("older\n")
    result = machine.bash("release_daemons")
    assert result.returncode == 1
    assert (machine.policy.read_text(), machine.kept.read_text()) == ("newer\n", "older\n")


@pytest.mark.parametrize("fails", [False, True])
def test_packages_are_installed_under_the_policy_and_never_removed(machine: Machine, fails: bool) -> None:
    code = """
        apt-get() { echo "$* policy=$(grep -c hpc-harness "$POLICY")" >>"$FAKE/calls"; "$RESULT"; }
        systemctl() { echo "systemctl $*" >>"$FAKE/calls"; }
        install_packages munge slurmd
    """
    machine.policy.write_text("the machine's own\n")
    result = machine.bash(code, RESULT="false" if fails else "true")
    assert result.returncode == (1 if fails else 0)
    calls = (machine.root / "calls").read_text().splitlines()
    assert all(call.endswith("policy=1") for call in calls)
    assert all("DPkg::Lock::Timeout=120" in call for call in calls)
    if fails:
        assert len(calls) == 1
        assert "`apt-get update` failed" in result.stderr
    else:
        assert "update" in calls[0]
        assert "install --no-install-recommends --no-remove munge slurmd" in calls[1]
    assert machine.policy.read_text() == "the machine's own\n"


def test_a_service_that_a_package_brings_is_not_enabled_and_one_that_was_there_is_left_alone(
    machine: Machine,
) -> None:
    units = machine.root / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "munge.service").touch()
    code = """
        UNITS=(munge brand-new)
        apt-get() { [[ $* != *install* ]] || touch "$ETC/systemd/system/brand-new.service"; }
        systemctl() { echo "$*"; echo "$*" >>"$FAKE/calls"; }
        install_packages munge
    """
    assert machine.bash(code).returncode == 0
    assert (machine.root / "calls").read_text() == "--quiet disable brand-new.service\n"


def test_without_systemd_too_nothing_would_start_at_a_later_boot(machine: Machine) -> None:
    wants = machine.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    code = """
        UNITS=(brand-new)
        apt-get() {
            [[ $* == *install* ]] || return 0
            touch "$ETC"/systemd/system/{brand-new,multi-user.target.wants/{brand-new,other}}.service
        }
        command() { [[ $2 != systemctl ]] && builtin command "$@"; }
        install_packages munge
    """
    assert machine.bash(code).returncode == 0
    assert [path.name for path in wants.iterdir()] == ["other.service"]


def test_the_packages_bring_what_the_cluster_looks_for(machine: Machine) -> None:
    listed = machine.bash('printf "%s\\n" "${CLUSTER_PACKAGES[@]}"').stdout.split()
    metapackages_and_optional = {"slurm-wlm", "slurm-wlm-plugins", "openmpi-bin", "libopenmpi-dev"}
    same_files = {"mariadb-server": "mariadb-server-core", "libpmix2": "libpmix-dev"}
    needed = {same_files.get(name, name) for name in packages.REQUIRED_PACKAGES} - metapackages_and_optional
    assert needed == set(listed)


# --- what is missing --------------------------------------------------------------------------------


def test_only_what_is_not_installed_is_missing(machine: Machine) -> None:
    code = """
        dpkg-query() { printf '%s\\n' 'munge installed' 'slurmd config-files'; return 1; }
        missing_packages munge slurmd slurmctld
    """
    assert machine.bash(code).stdout.split() == ["slurmd", "slurmctld"]


def test_it_says_what_it_will_install_and_where_before_it_does(machine: Machine) -> None:
    code = """
        missing_packages() { echo slurmctld; echo munge; }
        install_packages() { echo "INSTALLING $*"; }
        build_venv() { echo "BUILDING $1"; }
        is_root() { true; }
        apt-get() { :; }; dpkg-query() { :; }
        main --cluster --yes
    """
    result = machine.bash(code, PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    said, _, done = result.stdout.partition("INSTALLING slurmctld munge\n")
    for word in (
        "slurmctld munge",
        "system-wide",
        "neither started",
        str(machine.root / "venv"),
        sys.executable,
    ):
        assert word in said
    assert f"BUILDING {sys.executable}" in done


def test_a_ready_machine_is_done_in_a_moment(machine: Machine) -> None:
    (machine.root / "venv/bin").mkdir(parents=True)
    (machine.root / "venv/bin/python").symlink_to(sys.executable)
    code = 'venv_stamp >"$VENV/.hpc-harness-setup"; main'
    began = time.monotonic()
    result = machine.bash(code)
    assert (result.returncode, result.stdout) == (0, "Set-up: nothing to install.\n")
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    "change", ['echo >"$VENV/.hpc-harness-setup"', 'rm "$VENV/bin/python"', "ROOT=$FAKE/moved"]
)
def test_an_environment_of_other_inputs_is_not_ready(machine: Machine, change: str) -> None:
    (machine.root / "venv/bin").mkdir(parents=True)
    (machine.root / "venv/bin/python").symlink_to(sys.executable)
    (machine.root / "moved").mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(machine.script.parents[2] / name, machine.root / "moved")
    code = (
        f'venv_stamp >"$VENV/.hpc-harness-setup"; venv_is_ready || exit 9; {change}; venv_is_ready || exit 7'
    )
    assert machine.bash(code).returncode == 7


def test_a_python_that_was_asked_for_is_taken_or_refused(machine: Machine) -> None:
    assert machine.bash("find_python", PYTHON=sys.executable).stdout.strip() == sys.executable
    result = machine.bash("main", PYTHON="/no/such/python3")
    assert (result.returncode, result.stdout) == (REFUSED, "")
    assert "/no/such/python3" in result.stderr


def test_an_unknown_option_is_wrong_use(machine: Machine) -> None:
    result = machine.bash("main --clutser")
    assert result.returncode == 2
    assert "--clutser" in result.stderr
    assert "usage:" in result.stderr


# --- the scripts themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("script", [str(SCRIPT), ".ci/run"])
def test_the_script_passes_shellcheck(project_root: Path, script: str) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    found = subprocess.run([shellcheck, script], cwd=project_root, capture_output=True, text=True, timeout=60)
    assert found.stdout == ""
    assert os.access(project_root / script, os.X_OK)


def test_make_help_lists_every_target(project_root: Path) -> None:
    said = subprocess.run(
        ["make", "help"], cwd=project_root, capture_output=True, text=True, timeout=30
    ).stdout
    assert {"setup", "demo", "test", "check", "bench", "clean"} <= {
        line.split()[1] for line in said.splitlines() if line.startswith("  make ")
    }


def test_make_demo_refuses_a_site_that_it_does_not_know(project_root: Path) -> None:
    result = subprocess.run(
        ["make", "demo", "SITE=alps"], cwd=project_root, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 2
    assert "harness run" in result.stderr
    assert "'emulated' and 'local'" in result.stderr


def _identity(path: Path) -> tuple[bytes, int, int, int, int]:
    state = path.stat()
    return path.read_bytes(), state.st_mode, state.st_ino, state.st_uid, state.st_mtime_ns


def _tree(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def test_an_environment_behind_a_link_is_never_emptied(machine: Machine) -> None:
    other = machine.root / "somebody's"
    (other / "lib").mkdir(parents=True)
    (machine.root / "venv").symlink_to(other)
    result = machine.bash(f"build_venv {sys.executable}")
    assert (result.returncode, (other / "lib").is_dir()) == (1, True)
    assert f"is a link to {other}, and another environment is needed here; remove the link." in result.stderr
