"""The command line: verbs, exit codes, and nothing else. Starts fast: every verb imports what it needs itself.

Exit codes: 0 all pass, 1 a case failed, 2 wrong use or bad input, 3 unknown (or something needed is
missing), 4 unfinished, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from harness import __version__
from harness.model.verdict import EXIT_INTERRUPTED

_DESCRIPTION = """\
Slurm-native batch harness: does it scale, does it survive, is the answer still right?

A campaign file says what to run, a site file where. `run` plans, submits, watches, collects into
results.h5, and judges. Try it on the real Slurm cluster that comes with it: `harness cluster up`.
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=100)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} holds an empty name; write node1,node2")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _campaign_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("campaign", help="campaign file, or the name of one that comes with the harness")
    here = "emulated" if os.environ.get("HARNESS_CLUSTER") else None
    parser.add_argument(
        "--site",
        required=here is None,
        default=here,
        help="site file, or the name of one: emulated, local, example-gpu [default in a shell of an emulated "
        "cluster: emulated]",
    )
    parser.add_argument(
        "-s",
        "--set",
        action="append",
        metavar="PATH=VALUE",
        help="change a value of the campaign, as in seed=3, groups.NAME.repeats=5 or scaling.nodes=[1,2,4] "
        "(every group that has scaling); repeatable",
    )


def _run_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")


def _power_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--may-power-off",
        type=_names,
        metavar="NODE[,NODE...]",
        help="on a staging site: the nodes that faults may really switch off, and no others",
    )


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of words")


def _despite_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--despite",
        metavar="WHAT[,WHAT...]",
        help="compare although these differ: hardware, software, definition; the difference is named",
    )


def _judging_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--smallest",
        default="5%",
        metavar="EFFECT",
        help="smallest change that matters: 5%% of the baseline, or a number in the metric's own unit "
        "[default: 5%%]",
    )
    parser.add_argument("--metric", default="", metavar="NAME", help="only this one, such as step_time_ns")
    _json_argument(parser)
    parser.add_argument("--junit", metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", metavar="FILE", help="write Markdown, for a pull request")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots, one offline file")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help_text: str, *more: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=help_text,
        description=" ".join((help_text[0].upper() + help_text[1:] + ".", *more)),
        formatter_class=_Formatter,
    )
    parser.set_defaults(verb=name)
    return parser


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser; ``verb`` is the one about to run, whose own sub-verbs are then built as well."""
    parser = argparse.ArgumentParser(
        prog="harness",
        description=_DESCRIPTION,
        formatter_class=_Formatter,
        epilog="exit codes: 0 all pass, 1 a case failed, 2 wrong use or bad input, 3 unknown, 4 unfinished, "
        "130 Ctrl-C",
    )
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    plan = _verb(verbs, "plan", "show the cases and jobs of a campaign on a site, and what they cost")
    _campaign_arguments(plan)
    _json_argument(plan)

    check = _verb(
        verbs,
        "check",
        "say all that is wrong with a campaign on a site, and what it costs, before anything is submitted",
        "Node-hours are made of time limits. Expected: every job uses its own once, and once more for each fault that "
        "is to be recovered from. At most: at each start that recovery allows, and again for each retry after a "
        "failure that repeats (program, memory, time_limit); retries after failures of the cluster are not counted. "
        "Exit code 2: it would be refused.",
    )
    _campaign_arguments(check)
    _json_argument(check)

    render = _verb(
        verbs,
        "render",
        "print the sbatch scripts, or write them to a folder; nothing is submitted",
        "With --diff, exit code 0: nothing differs; 1: something does.",
    )
    _campaign_arguments(render)
    what = render.add_mutually_exclusive_group()
    what.add_argument("--out", metavar="FOLDER", help="write the scripts here instead of printing them")
    what.add_argument(
        "--diff",
        nargs="?",
        const="",
        metavar="RUN",
        help="what templates of your own change in the harness's; or, with a run folder, how its scripts differ from "
        "what would be written there now",
    )
    render.add_argument(
        "--slurm-version",
        metavar="VERSION",
        help="write them for this version, such as 20.11 [default: that of this machine, else the newest known]",
    )

    run = _verb(
        verbs,
        "run",
        "run a campaign to its end: submit, watch, collect, report, judge",
        "Killed at any moment and started again with the same --folder, it goes on.",
    )
    _campaign_arguments(run)
    run.add_argument(
        "--folder",
        metavar="RUN",
        help="run folder, on storage that all nodes see "
        "[default: runs/<campaign>-<time> under the current folder]",
    )
    run.add_argument("--plain", action="store_true", help="lines instead of a live table")
    run.add_argument(
        "--detach",
        action="store_true",
        help="submit what can be submitted and return; see advance and resume",
    )
    run.add_argument(
        "--fresh-twins",
        action="store_true",
        help="run every undisturbed twin again, also where an earlier run of the same case, code and site is kept",
    )
    _power_argument(run)

    resume = _verb(
        verbs, "resume", "go on with a run until it has ended", "As `run`, of a folder that is there."
    )
    _run_argument(resume)
    resume.add_argument("--plain", action="store_true", help="lines instead of a live table")

    advance = _verb(
        verbs,
        "advance",
        "make one step of a run and return; for cron and scrontab",
        "Exit code 0: complete, results and report are written; 4: more to do.",
    )
    _run_argument(advance)

    watch = _verb(verbs, "watch", "show a run until it has ended; asks and changes nothing")
    _run_argument(watch)
    watch.add_argument("--plain", action="store_true", help="lines instead of a live table")

    status = _verb(verbs, "status", "show how far each case of a run is")
    _run_argument(status)
    _json_argument(status)
    status.add_argument(
        "--ask", action="store_true", help="ask Slurm as well (one call); else from the run folder alone"
    )
    status.add_argument(
        "--scheduler", action="store_true", help="say what was asked of the scheduler, how often"
    )

    logs = _verb(verbs, "logs", "list the log files of a run, or print those of one case")
    _run_argument(logs)
    logs.add_argument("--case", help="case id or label: print the ends of its logs")
    logs.add_argument("--lines", type=_positive, default=20, help="lines of each log [default: %(default)s]")
    _json_argument(logs)

    cancel = _verb(verbs, "cancel", "cancel the jobs of a run that are queued or running")
    _run_argument(cancel)
    cancel.add_argument(
        "--case", action="append", help="only the jobs of this case (id or label); repeatable"
    )

    heal = _verb(verbs, "heal", "undo the faults that a stopped run left; may be run twice")
    _run_argument(heal)

    replay = _verb(
        verbs,
        "replay",
        "run one case of a run again, with the faults that struck it, at the steps at which they struck",
        "Needs the run folder alone. Its undisturbed twin is run as well.",
    )
    _run_argument(replay)
    replay.add_argument("--case", required=True, help="case id, the beginning of one, or a label")
    replay.add_argument("--site", help="another site [default: the run's own]")
    replay.add_argument(
        "--folder", metavar="F", help="run folder [default: runs/<campaign>-replay-<time>, as of `run`]"
    )
    replay.add_argument("--plain", action="store_true", help="lines instead of a live table")
    _power_argument(replay)
    replay.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")

    faults = _verb(verbs, "faults", "every kind of fault: what it does, and whether and how a site allows it")
    faults.add_argument(
        "--site",
        help="site file, or the name of one [default: emulated in a shell on an emulated cluster, else local]",
    )
    _json_argument(faults)

    collect = _verb(verbs, "collect", "write results.h5 of a run, as far as it is")
    _run_argument(collect)

    report = _verb(verbs, "report", "write report.html, junit.xml and summary.json")
    report.add_argument("run", help="run folder or results.h5")
    report.add_argument("--out", metavar="FOLDER", help="where to [default: beside results.h5]")

    judge = _verb(verbs, "judge", "judge each case; exit code 0 all pass, 1 a fail, 2 bad input, 3 unknown")
    judge.add_argument("run", help="run folder or results.h5")
    judge.add_argument(
        "--baseline",
        metavar="FILE",
        help="results.h5 or run folder in place of those that gates name as baseline",
    )
    judge.add_argument(
        "--history",
        metavar="FOLDER",
        help="folder of earlier runs in place of those that gates name as history",
    )
    _despite_argument(judge)
    _json_argument(judge)

    compare = _verb(
        verbs,
        "compare",
        "say of each metric of two runs whether it is worse, better, or the same within noise",
        "A is the baseline. The shift that is shown is Hodges and Lehmann's estimate, the median of the ratios of each "
        "repeat of B to each of A, and not the ratio of the two medians. Series of other hardware, software or "
        "definition are refused, unless told otherwise. Exit code 0: nothing is worse; 1: something is; 2: bad input; "
        "3: not everything could be told.",
    )
    compare.add_argument("a", metavar="A", help="run folder or results.h5: the baseline")
    compare.add_argument("b", metavar="B", help="run folder or results.h5")
    compare.add_argument("--by-node", action="store_true", help="compare each node with itself")
    _despite_argument(compare)
    _judging_arguments(compare)

    trend = _verb(
        verbs,
        "trend",
        "show every run below a folder over time, and judge the last against those before it",
        "A run's figure is the median of its repeats. A change for the worse stays one until it is accepted, "
        "however long it lasts. Exit code 0: the last run is not worse; 1: it is; 2: bad input; "
        "3: not everything could be told.",
    )
    trend.add_argument(
        "folder", metavar="FOLDER", help="folder with run folders, or results.h5 files, below it"
    )
    trend.add_argument(
        "--accept",
        metavar="RUN",
        help="run id or run folder: its level is the one to compare with from now on, although it is worse than the "
        "one before; kept in FOLDER/accepted.txt, which gates against that folder read too",
    )
    _despite_argument(trend)
    _judging_arguments(trend)

    schema = _verb(
        verbs, "schema", "print a schema: of campaign or site files (JSON Schema), or of results.h5"
    )
    schema.add_argument("of", choices=("campaign", "site", "results"))

    scheduled = _verb(verbs, "schedule", "run a campaign at set times, unattended: nightly, weekly")
    if verb == "schedule":
        from harness.verbs.scheduling import add_arguments as add_sub_verbs

        add_sub_verbs(scheduled, _Formatter, _campaign_arguments)

    site = _verb(
        verbs, "site", "site files: write one of this cluster (probe), prove one by a small job (check)"
    )
    if verb == "site":
        from harness.verbs.sites import add_arguments as add_site_verbs

        add_site_verbs(site)

    cluster = _verb(verbs, "cluster", "a real Slurm cluster on this machine, to try things on")
    if verb == "cluster":
        from harness.devcluster.cli import add_arguments

        add_arguments(cluster)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # also while a verb is still being imported
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["schedule"]:
        from harness.verbs.scheduling import spelt_out

        arguments = spelt_out(arguments)
    options = build_parser(arguments[0] if arguments else None).parse_args(arguments)
    if options.verb == "cluster":
        from harness.devcluster.cli import main as cluster

        return cluster(options)
    from harness import verbs

    if options.verb == "schedule":  # a tick is to cost nothing
        from harness.verbs.scheduling import schedule

        return verbs.guarded(schedule, options, ["harness", *arguments])
    from harness.verbs import after, before, check, comparing, faults, rendering, replaying, running, sites

    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "plan": before.plan,
        "check": check.check,
        "render": rendering.render,
        "schema": before.schema,
        "site": sites.site,
        "run": running.run,
        "resume": running.resume,
        "advance": running.advance,
        "watch": running.watch,
        "status": running.status,
        "logs": running.logs,
        "cancel": running.cancel,
        "heal": running.heal,
        "replay": replaying.replay,
        "faults": faults.faults,
        "collect": after.collect,
        "report": after.report,
        "judge": after.judge,
        "compare": comparing.compare,
        "trend": comparing.trend,
    }
    return verbs.guarded(actions[options.verb], options, ["harness", *arguments])


if __name__ == "__main__":
    sys.exit(main())
