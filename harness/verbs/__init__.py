"""What each verb of the command line does. Heavy imports are inside: a verb pays only for itself.

``before`` runs nothing, ``running`` drives, ``after`` reads what there is. ``guarded`` is around all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from harness.model.verdict import EXIT_UNKNOWN, EXIT_USAGE
from harness.rundir import RunFolderError, in_words, takes_no_more
from harness.slurm.commands import CommandError


class UsageError(Exception):
    """The verb cannot do what was asked; the message says why and what to do."""


def guarded(
    action: Callable[[argparse.Namespace], int], options: argparse.Namespace, command: Sequence[str]
) -> int:
    """Run a verb; what a person can cause ends in a message and the documented exit code, not in a traceback."""
    options.command = list(command)
    try:
        return action(options)
    except BrokenPipeError:  # `| head` had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except (UsageError, RunFolderError) as error:
        return _complain(str(error))
    except CommandError as error:
        print(error, file=sys.stderr)
        return EXIT_UNKNOWN
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("harness", "analysis")):
            raise
        print(
            f"{error.name} is not installed here, and this verb needs it: pip install 'hpc-harness[submit]'",
            file=sys.stderr,
        )
        return EXIT_UNKNOWN
    except OSError as error:
        print(in_words(error), file=sys.stderr)
        return EXIT_UNKNOWN if takes_no_more(error) else EXIT_USAGE
    except Exception as error:
        from harness.config import ConfigError
        from harness.plan import PlanError
        from harness.render import RenderError

        known: tuple[type[Exception], ...] = (ConfigError, PlanError, RenderError)
        with contextlib.suppress(ModuleNotFoundError):
            from harness.store import StoreError

            known += (StoreError,)
        if isinstance(error, known):
            return _complain(str(error))
        raise


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return EXIT_USAGE
