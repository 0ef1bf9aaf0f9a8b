"""Puts a schedule's entry where ticks are started from, and takes it away: crontab, scrontab, or the queue.

Of a user's crontab and scrontab only our own marked lines are touched. Nothing is installed that was not
tried before: the interpreter is started with an empty environment, as cron would.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.schedule import entries, programs
from harness.schedule.folder import ScheduleDir, ScheduleError, Spec
from harness.schedule.whole import SlurmChain
from harness.slurm.commands import CommandError

# Variables that a tick takes over from the shell in which the schedule was made, if they are set there: where
# programs are, and what makes `module load` work. Nothing else, since the folder is on shared storage.
_CARRIED = frozenset({
    "PATH", "LD_LIBRARY_PATH", "SLURM_CONF", "HARNESS_CLUSTER", "TZ", "HOME", "USER", "LOGNAME", "MODULEPATH",
    "MODULESHOME", "MODULES_CMD", "LOADEDMODULES", "_LMFILES_", "BASH_ENV",
})  # fmt: skip
_CARRIED_PREFIXES = ("LMOD_", "BASH_FUNC_module", "BASH_FUNC_ml", "__LMOD_", "__MODULES_")
_NEEDED = (
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
)  # to start an interpreter at all, where modules bring it
_START_S = 60.0

_OTHER_WAYS = {
    "cron": "--how scrontab (where Slurm has it) or --how self",
    "scrontab": "--how self, which every Slurm can, or --how cron where login nodes allow it",
    "self": "--how cron",
}


def carried(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment ticks take over."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in _CARRIED or name.startswith(_CARRIED_PREFIXES)
    }


def needs(python: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that the interpreter cannot do without; tried, not guessed.

    Raises:
        ScheduleError: it does not find the harness with any of them.
    """
    said = _try(python, {})
    if not said:
        return ()
    names = tuple(name for name in _NEEDED if environment.get(name))
    if names and not _try(python, {name: environment[name] for name in names}):
        return names
    raise ScheduleError(
        f"{python} -m harness: does not start in an empty environment, as cron would start it ({said}); "
        f"install the harness into that interpreter: {python} -m pip install 'hpc-harness[submit]'"
    )


def _try(python: str, environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            [python, "-m", "harness", "--version"],
            cwd="/",
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_START_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]


@dataclass(frozen=True)
class Table:
    """The user's crontab, or scrontab: a text that its program lists and replaces."""

    program: str

    def read(self) -> bytes:
        """The text; empty where there is none.

        Raises:
            ScheduleError: there is no such program here, or the user may not use it.
        """
        try:
            code, text, said = programs.run([self.program, "-l"])
        except CommandError as error:
            raise self._unusable(str(error)) from None
        if code and "no crontab for" not in said:
            raise self._unusable(f"`{self.program} -l` said: {said or 'nothing'}")
        return b"" if code else text

    def write(self, text: bytes) -> None:
        """Replace the text; an empty one is removed.

        Raises:
            ScheduleError: the program refused it; what was there is there still.
        """
        try:
            if not text:
                code, _, said = programs.run([self.program, "-r"])
            else:
                with tempfile.NamedTemporaryFile(prefix="harness-schedule-") as file:
                    file.write(text)
                    file.flush()
                    code, _, said = programs.run([self.program, file.name])
        except CommandError as error:
            raise self._unusable(str(error)) from None
        if code:
            raise self._unusable(f"`{self.program}` said: {said or 'nothing'}")

    def _unusable(self, why: str) -> ScheduleError:
        what = (
            "scrontab is switched off here (ScronParameters=enable is not set)" if "disabled" in why else why
        )
        return ScheduleError(f"{what}; choose {_OTHER_WAYS[table_how(self.program)]}")


def table_how(program: str) -> str:
    """The --how whose entries this program keeps."""
    return "cron" if program == "crontab" else "scrontab"


def table(how: str) -> Table:
    """The table that entries of this kind are in."""
    return Table("crontab" if how == "cron" else "scrontab")


def texts(folder: ScheduleDir, spec: Spec, site: Mapping[str, str | None]) -> dict[str, str]:
    """What would be installed: ``entry`` for a crontab or scrontab, ``script`` for a job of the schedule's own."""
    entries.check(folder, spec)
    found = {}
    if spec.how == "cron":
        found["entry"] = entries.cron_block(folder, spec)
    if spec.how == "scrontab":
        found["entry"] = entries.scrontab_block(folder, spec, site)
    if spec.how != "cron":
        found["script"] = entries.job_script(folder, spec, site)
    return found


def install(folder: ScheduleDir, spec: Spec, found: Mapping[str, str], first_s: float) -> str:
    """Put the entry in place; an older one of the same schedule goes. Returns what was done, in words.

    Args:
        folder: of the schedule; it is there already.
        spec: the schedule.
        found: what ``texts`` gave.
        first_s: when the first job of a chain is to begin.

    Raises:
        ScheduleError: it could not be installed.
    """
    if "script" in found:
        folder.write_script(found["script"])
    if "entry" in found:
        place = table(spec.how)
        place.write(entries.with_block(place.read(), folder.id, found["entry"]))
        return f"installed in the {place.program} of {getpass.getuser()} on {os.uname().nodename}"
    chain = SlurmChain(folder, entries.job_name(folder, spec))
    why = chain.settle(None) or chain.ensure(first_s)  # one that waits has the script as it was
    if why:
        raise ScheduleError(f"{why}; try again")
    return f"submitted as job {entries.job_name(folder, spec)}"


def uninstall(folder: ScheduleDir, spec: Spec) -> list[str]:
    """Take the entry away, and end the schedule's own jobs. Returns what was done, in words.

    Raises:
        ScheduleError: it could not be taken away.
    """
    done = []
    if spec.how in ("cron", "scrontab"):
        place = table(spec.how)
        before = place.read()
        after = entries.without_block(before, folder.id)
        if after != before:
            place.write(after)
            done.append(f"removed from the {place.program} of {getpass.getuser()} on {os.uname().nodename}")
        else:
            done.append(f"not in the {place.program} of {getpass.getuser()} on {os.uname().nodename}")
    if spec.how in ("self", "scrontab"):
        try:
            SlurmChain(folder, entries.job_name(folder, spec)).cancel()
        except CommandError as error:
            raise ScheduleError(f"{error}; its jobs may be queued still: try again") from None
        done.append("its own jobs are cancelled")
    return done


def is_installed(folder: ScheduleDir, tables: Mapping[str, bytes], how: str) -> str:
    """Whether the entry is in the table: yes, what is wrong with it, or unknown where nobody looked."""
    if how not in tables:
        return "unknown"
    if folder.id not in entries.schedules_in(tables[how]):
        return "its entry is gone"
    if entries.is_disabled(tables[how], folder.id):
        return "Slurm has switched its entry off, as it does when the job is cancelled"
    return "yes"


def python_here(executable: str) -> str:
    """The interpreter as an absolute path; links stay as they are, since those of an environment are its identity."""
    return str(Path(os.path.abspath(executable)))
