"""Verbs that set one results file against another, or against all that went before: compare, trend."""

from __future__ import annotations

import argparse
import sys
import time
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
    from analysis.compare import unknown_metric

    def page() -> str:
        from analysis.compare_page import page as of  # draws, so only when asked

        return of(found)

    with analysis.load(results_of(options.a)) as a, analysis.load(results_of(options.b)) as b:
        if options.metric and (why := unknown_metric(options.metric, (a, b))):
            raise UsageError(f"--metric {why}")
        found = compare_files(a, b, _asked(options))
    _write(
        options,
        {"junit": lambda: said.xml(found), "markdown": lambda: said.markdown(found), "html": page},
    )
    _print(options, lambda: said.data(found), lambda: said.words(found))
    return found.exit_status()


def _accept(folder: Path, given: str) -> None:
    """Write down that the level of a run, by its id or its folder, is accepted."""
    from analysis import accepted
    from analysis.near import near
    from analysis.trend import runs_below

    runs = runs_below(folder)[0]
    path = Path(given).resolve()
    found = [
        r
        for r in runs
        if given == r.run_id or path in (Path(r.path).resolve(), Path(r.path).resolve().parent)
    ]
    if not found:
        others = near(given, (r.run_id for r in reversed(runs)))
        raise UsageError(f"--accept {given}: no run of that id or folder below {folder}; {others}")
    run_id = found[0].run_id
    if run_id == "unknown" or run_id.split() != [run_id] or run_id.startswith("#"):
        raise UsageError(f"--accept {given}: the run has no id in one word, which {accepted.NAME} needs")
    try:
        written = accepted.add(folder, run_id, f"accepted on {time.strftime('%Y-%m-%d')}")
    except OSError as error:
        raise UsageError(f"--accept {given}: {error}") from None
    print(f"the level of run {run_id} is accepted, see {written}", file=sys.stderr)


def trend(options: argparse.Namespace) -> int:
    """Every run below a folder, and the last against those before it."""
    import analysis
    from analysis import trend_words as said
    from analysis.compare import unknown_metric
    from analysis.trend import of_folder

    folder = Path(options.folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name one with run folders or results.h5 files below it")
    if options.accept:
        _accept(folder, options.accept)
    found = of_folder(folder, _asked(options))
    if not found.runs:
        left_out = "".join(f"; {note}" for note in found.notes)
        raise UsageError(f"{folder}: no results.h5 below it that can be read{left_out}")
    if options.metric and not found.lines:
        with analysis.load(found.runs[-1].path) as last:
            if why := unknown_metric(options.metric, [last]):
                raise UsageError(f"--metric {why}")
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
