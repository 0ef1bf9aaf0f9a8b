"""Slurm's client commands: each call bounded in time, in a clean environment, counted. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

# A user's defaults for sbatch, srun and the rest must not change what we ask, nor a surrounding job's shape.
_SCRUBBED = re.compile(r"^(SBATCH|SRUN|SLURM|SLURMD|SALLOC|SCANCEL|SCRONTAB|SQUEUE|SACCT|SINFO|SCONTROL)_")
_KEPT = {"SLURM_CONF"}


CALLS: Counter[str] = Counter()
"""Commands that this process ran, by name: the one tally, kept where they are run."""

# What sbatch says when it cannot know whether the controller took the job; nothing is concluded from these.
_UNCLEAR = re.compile(
    r"timed out|unable to contact|zero bytes|connection|communication|transport endpoint|unable to establish|"
    r"message (receive|send)|unexpected message|munge|authentication|standby",
    re.IGNORECASE,
)

# Where it says that the same job may be taken later: too many are queued, a partition is closed, the controller
# is full. All texts of Slurm 22.05 were provoked or read in src/common/slurm_errno.c. The policy's own text
# ("Job violates accounting/QOS policy") is the same for limits that pass and for those that do not; the
# line before it names the limit, and those on *submitted* jobs pass.
_LATER = re.compile(
    r"\b(Assoc|QOS)\w*Submit\w*|inactive or drain|resource temporarily unavailable|not usable now|"
    r"unable to create job record|submissions disabled|presently disabled|not available now|"
    r"maintenance reservation|error writing script",
    re.IGNORECASE,
)


# What a new step of a running job is told by a controller that starts again and has not yet heard of the job.
_FORGETFUL = re.compile(
    r"expired or invalid job|job is pending execution|unable to confirm allocation", re.IGNORECASE
)


def controller_is_away(said: str) -> bool:
    """Whether a client's last words mean that the controller did not answer, or does not know its jobs yet.

    The same may work in a minute. A job that has really ended is told so by a signal.
    """
    return bool(_UNCLEAR.search(said) or _FORGETFUL.search(said))


class CommandError(Exception):
    """A command is missing, failed, or did not answer; the message says which, what it said, and what to do.

    ``code`` is its exit code, None where it has none.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class CommandTimeout(CommandError):
    """The command did not end in time: whether it took effect is unknown."""


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy without variables that would change Slurm's clients, with a fixed locale and time format."""
    kept = {k: v for k, v in environment.items() if k in _KEPT or not _SCRUBBED.match(k)}
    return {**kept, "LC_ALL": "C", "SLURM_TIME_FORMAT": "%Y-%m-%dT%H:%M:%S"}


def run_command(
    arguments: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command to its end and return its standard output.

    Raises:
        CommandTimeout: it did not end in time; it was killed, and may have taken effect all the same.
        CommandError: it is not there, or its exit code was not 0.
    """
    name = arguments[0]
    CALLS[name] += 1
    if shutil.which(name) is None:
        raise CommandError(
            f"{name}: command not found; is this a login node of a Slurm cluster? "
            "Load Slurm's module, or use --site local, which needs no Slurm"
        )
    process = subprocess.Popen(
        list(arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=dict(environment) if environment is not None else clean_environment(os.environ),
        start_new_session=True,  # a Ctrl-C at the terminal must not end a submission half-way
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise CommandTimeout(
            f"{name}: no answer within {timeout_s:g} s; the controller may be away"
        ) from None
    if process.returncode:
        said = " ".join((errors or output).split()) or "nothing"
        raise CommandError(f"{name}: exit code {process.returncode}, said: {said[:500]}", process.returncode)
    return output


class Refusal(str, Enum):
    """What an ``sbatch`` that failed means for the job: in all these cases nothing is queued."""

    FOR_GOOD = "for good"  # it would fail again
    FOR_NOW = "for now"  # it says itself that this may change without our doing


def refusal_of(error: CommandError) -> Refusal | None:
    """What a failed ``sbatch`` means; None where the job may have been queued all the same.

    Only its own plain error says that nothing is queued: after a time-out, a lost connection, a signal, or
    an answer that names no job, the job may be in the queue.
    """
    said = str(error)
    if error.code is None or error.code <= 0 or "sbatch: error:" not in said or _UNCLEAR.search(said):
        return None
    return Refusal.FOR_NOW if _LATER.search(said) else Refusal.FOR_GOOD
