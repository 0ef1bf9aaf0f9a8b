"""Verbs that read what a run has left: collect, report, judge."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model.design import MORE
from harness.model.verdict import (
    EXIT_PASS,
    Verdict,
    exit_code,
)
from harness.rundir import RunDir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analysis.results import CampaignResults
    from harness.model.design import Lot

from harness.verbs import UsageError


def collect(options: argparse.Namespace) -> int:
    """results.h5 of a run as it is now, and which of its streams are not as they should be."""
    from harness import collect_streams
    from harness.collect import collect as to_file
    from harness.store import Results

    path = to_file(RunDir(options.run))
    with Results(path) as found:
        labels = {row["case_id"]: row["label"] for row in found.rows("cases")}
        notes = collect_streams.words(found.rows("streams"), labels, path)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(path)
    return EXIT_PASS


def results_of(given: str) -> Path:
    """The results file that a run folder or a path names.

    Raises:
        UsageError: the run folder has none.
    """
    path = Path(given)
    if path.is_dir():
        if not RunDir(path).results.exists():
            raise UsageError(f"{path}: has no results.h5 yet; run `harness collect {given}`")
        return RunDir(path).results
    return path


def report(options: argparse.Namespace) -> int:
    """report.html, junit.xml, summary.json."""
    from analysis.report import write

    results = results_of(options.run)
    paths = write(results, Path(options.out) if options.out else results.parent)
    print(paths.report_html, paths.junit_xml, paths.summary_json, sep="\n")
    return EXIT_PASS


def judge(options: argparse.Namespace) -> int:
    """Verdicts; gates against other files look where the options say."""
    import analysis
    from analysis.commandline import dump
    from analysis.references import Given, asks_any
    from analysis.surroundings import kinds
    from analysis.verdict import act

    for name in ("baseline", "history"):
        if (path := getattr(options, name)) and not Path(path).exists():
            raise UsageError(f"--{name} {path}: no such {'file' if name == 'baseline' else 'folder'}")
    try:
        given = Given(options.baseline or "", options.history or "", kinds(options.despite or ""))
    except ValueError as error:
        raise UsageError(f"--despite {error}") from None
    with analysis.load(results_of(options.run)) as results:
        for name in ("baseline", "history"):
            if getattr(options, name) and not asks_any(results, name):
                print(f"note: no gate asks for a {name}, so --{name} changes nothing; "
                      f"see `harness {'compare' if name == 'baseline' else 'trend'}`", file=sys.stderr)  # fmt: skip
        data, words, code = act(results, given)
    print(dump(data) if options.json else words)
    return code


_MARKS = {
    Verdict.PASS: "PASS",
    Verdict.FAIL: "FAIL",
    Verdict.WITHIN_NOISE: "NOISE",
    Verdict.INVALID: "INVALID",
    Verdict.UNKNOWN: "UNKNOWN",
}


def judge_cases(run: RunDir, case_ids: Sequence[str]) -> dict[str, str]:
    """Verdict of each of these cases as far as the run is: for groups that others need."""
    import analysis
    from analysis.verdict import judge as judge_results
    from harness.collect import collect as to_file

    with analysis.load(to_file(run)) as loaded:
        verdicts = {v.case_id: v.verdict.value for v in judge_results(loaded)}
    return {case_id: verdicts.get(case_id, Verdict.UNKNOWN.value) for case_id in case_ids}


def weigh_repeats(run: RunDir, lot: Lot) -> tuple[str, str]:
    """Whether a lot's repeats so far are enough, and why; where that cannot be told, more are run."""
    import analysis
    from analysis.precision import decide
    from harness.collect import collect as to_file

    try:
        with analysis.load(to_file(run)) as loaded:
            return decide(loaded, lot)
    except (OSError, ModuleNotFoundError):  # of the machine, and no matter of this lot
        raise
    except Exception as error:  # whatever is wrong with the records: the run goes on as if nobody had asked
        return MORE, f"cannot be told ({type(error).__name__}: {error})"


def keep_twins(run: RunDir) -> None:
    """Keep the records of twins that passed, for later runs; what cannot be kept is told, and harms nothing."""
    from harness import twins

    if not twins.keepable(run):
        return
    import analysis
    from analysis.verdict import judge as judge_results

    with analysis.load(run.results) as loaded:
        passed = {v.case_id for v in judge_results(loaded) if v.verdict is Verdict.PASS}
    for note in twins.keep(run, passed, twins.Cache.of_user()):
        print(f"note: {note}", file=sys.stderr)


def _designed(results: CampaignResults) -> Iterator[str]:
    """A line for whatever was repeated until it was known, and for each comparison."""
    from analysis import paired, precision

    try:
        for lot in precision.analyse(results):
            yield f"{lot.lot}: {lot.figure}: {lot.words}; {precision.reached(lot)}"
        for pairing in paired.analyse(results):
            yield f"{pairing.name}: {pairing.figure}: {pairing.words}"
    except Exception as error:  # verdicts and report must still be told
        yield f"what was repeated and compared cannot be told: {type(error).__name__}: {error}"


def report_and_judge(results: Path, out: Path) -> int:
    """One line a case, the three reports, and the exit code that the verdicts ask for."""
    import analysis
    from analysis.commandline import terminal_width
    from analysis.report import write
    from analysis.verdict import judge as judge_results

    with analysis.load(results) as loaded:
        verdicts = judge_results(loaded)
        designed = tuple(_designed(loaded))
    width = terminal_width()
    for verdict in verdicts:
        words = f"{_MARKS[verdict.verdict]:<8}{verdict.label:<28} {verdict.key_figure}"
        words += f"  [{verdict.why}]" if verdict.why else ""
        print(words if width is None or len(words) <= width else words[: width - 2] + "…]")
    for line in designed:
        print(line)
    paths = write(results, out)
    print(f"results  {results}")
    print(f"report   {paths.report_html}")
    return exit_code(v.verdict for v in verdicts)
