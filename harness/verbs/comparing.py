"""Verbs that set one results file against another, or against all that went before: compare, trend."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.verbs import UsageError
from harness.verbs.after import results_of

if TYPE_CHECKING:
    from analysis.compare import Asked


def _asked(options: argparse.Namespace) -> Asked:
    from analysis.compare import Asked
    from analysis.difference import Smallest
    from analysis.surroundings import kinds

    try:
        despite = kinds(options.despite or "")
    except ValueError as error:
        raise UsageError(f"--despite {error}") from None
    try:
        smallest = Smallest.parse(options.smallest)
    except ValueError as error:
        raise UsageError(f"--smallest: {error}") from None
    return Asked(smallest, options.metric, getattr(options, "by_node", False), despite)


def _write(options: argparse.Namespace, makers: dict[str, Callable[[], str]]) -> None:
    """Write the files that were asked for; each is made only then."""
    for name, make in makers.items():
        if given := getattr(options, name):
            Path(given).parent.mkdir(parents=True, exist_ok=True)
            Path(given).write_text(make(), encoding="utf-8")


def _print(options: argparse.Namespace, data: Callable[[], Any], words: Callable[[], str]) -> None:
    from analysis.commandline import dump

    print(dump(data()) if options.json else words())


def compare(options: argparse.Namespace) -> int:
    """A and B, series by series."""
    import analysis
    from analysis import compare_words as said
    from analysis.compare import compare as compare_files

    def page() -> str:
        from analysis.compare_page import page as of  # draws, so only when asked

        return of(found)

    with analysis.load(results_of(options.a)) as a, analysis.load(results_of(options.b)) as b:
        found = compare_files(a, b, _asked(options))
    _write(
        options,
        {"junit": lambda: said.xml(found), "markdown": lambda: said.markdown(found), "html": page},
    )
    _print(options, lambda: said.data(found), lambda: said.words(found))
    return found.exit_status()


def trend(options: argparse.Namespace) -> int:
    """Every run below a folder, and the last against those before it."""
    from analysis import trend_words as said
    from analysis.trend import of_folder

    folder = Path(options.folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name one with run folders or results.h5 files below it")
    found = of_folder(folder, _asked(options))
    if not found.runs:
        left_out = "".join(f"; {note}" for note in found.notes)
        raise UsageError(f"{folder}: no results.h5 below it that can be read{left_out}")
    _write(
        options,
        {
            "junit": lambda: said.xml(found),
            "markdown": lambda: said.markdown(found),
            "html": lambda: said.page(found),
        },
    )
    _print(options, lambda: said.data(found), lambda: said.words(found))
    return found.exit_status()
