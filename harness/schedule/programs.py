"""Runs crontab, scrontab and the mail programs: bounded in time, without a shell, bytes in and bytes out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from harness.slurm.commands import CALLS, CommandError, clean_environment

TIMEOUT_S = 60.0
_MORE_PATH = "/usr/sbin:/usr/lib:/sbin"  # where sendmail lives; not on everybody's PATH


def find(name: str) -> str | None:
    """The program's path, or None."""
    return shutil.which(name) or shutil.which(name, path=_MORE_PATH)


def run(words: Sequence[str], given: bytes = b"") -> tuple[int, bytes, str]:
    """Run a program to its end: exit code, standard output, and what it complained of.

    Raises:
        CommandError: it is not there, or did not end in time.
    """
    path = find(words[0])
    if path is None:
        raise CommandError(f"{words[0]}: command not found")
    if words[0] == "scrontab":
        CALLS["scrontab"] += 1  # it asks the controller
    try:
        done = subprocess.run(
            [path, *words[1:]],
            input=given,
            capture_output=True,
            timeout=TIMEOUT_S,
            env=clean_environment(os.environ),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{words[0]}: no answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise CommandError(f"{words[0]}: cannot be run ({error.strerror})") from None
    said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
    return done.returncode, done.stdout, said[:500]
