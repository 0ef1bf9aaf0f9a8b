"""What every ``python -m analysis.<name> results.h5`` shares: arguments, exit codes, words on a bad file."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from analysis.results import CampaignResults, load
from analysis.text import one_line
from harness.model.verdict import EXIT_USAGE
from harness.store import StoreError


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser that takes the results file; a module adds its own options."""
    result = argparse.ArgumentParser(prog=f"python -m analysis.{name}", description=description)
    result.add_argument("results", help="results.h5, as `harness collect` writes it")
    return result


def plain(value: Any) -> Any:
    """The value with what JSON cannot say (NaN, infinities) as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def dump(value: Any) -> str:
    """JSON for people and programs: indented, only ASCII (so that no terminal is confused), no NaN."""
    return json.dumps(plain(value), indent=2, ensure_ascii=True, allow_nan=False)


def main(
    name: str,
    description: str,
    act: Callable[[CampaignResults], tuple[Any, str, int]],
    argv: Sequence[str] | None = None,
) -> int:
    """Open the file, act, print words or, with ``--json``, data; return the exit code.

    Args:
        act: gives JSON-ready data, words, and the exit code.
    """
    options = parser(name, description)
    options.add_argument("--json", action="store_true", help="print data instead of words")
    arguments = options.parse_args(argv)
    return guarded(lambda: _print(arguments.results, arguments.json, act))


def _print(path: str, as_json: bool, act: Callable[[CampaignResults], tuple[Any, str, int]]) -> int:
    with load(path) as results:
        data, words, code = act(results)
    print(dump(data) if as_json else words)
    sys.stdout.flush()
    return code


def terminal_width() -> int | None:
    """Columns of the terminal to which words are printed; None where they go to a file or another program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def guarded(action: Callable[[], int]) -> int:
    """Run ``action``; a bad file or folder is one line on stderr and exit code 2."""
    try:
        return action()
    except StoreError as error:
        print(one_line(error, 2000), file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # `| head` had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except OSError as error:
        print(one_line(f"{error.filename or 'file'}: {error.strerror or error}", 2000), file=sys.stderr)
        return EXIT_USAGE
