"""The verb schedule: campaigns at set times. its sub-verbs and their arguments, and the tick itself.

A tick with nothing to do must cost next to nothing: what the others need, they import themselves.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from harness.model.verdict import EXIT_PASS, EXIT_UNFINISHED
from harness.rundir import RunDir, RunFolderError
from harness.schedule.folder import HOWS, MAIL_ON, REMOVED, Busy, ScheduleDir, ScheduleError, Spec
from harness.schedule.when import EVERY, WEEKDAYS, WhenError
from harness.slurm.commands import CommandError
from harness.verbs import UsageError

SUB_VERBS = ("add", "install", "list", "history", "tick", "remove")
KEEP = 30
JOB_MINUTES = 30


def spelt_out(arguments: Sequence[str]) -> list[str]:
    """``schedule CAMPAIGN ...`` is short for ``schedule add CAMPAIGN ...``; a file called ``list`` is ``./list``."""
    rest = list(arguments[1:])
    if rest and rest[0] not in (*SUB_VERBS, "-h", "--help"):
        rest.insert(0, "add")
    return [*arguments[:1], *rest]


def add_arguments(
    parser: argparse.ArgumentParser,
    formatter: type[argparse.HelpFormatter],
    campaign_arguments: Callable[[argparse.ArgumentParser], None],
) -> None:
    """The sub-verbs, for the command line; ``campaign_arguments`` adds what all verbs of a campaign have."""
    verbs = parser.add_subparsers(metavar="SUB-VERB", required=True)

    def sub(name: str, help_text: str, more: str = "") -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            help=help_text,
            description=f"{help_text[0].upper()}{help_text[1:]}. {more}".strip(),
            formatter_class=formatter,
        )
        made.set_defaults(sub_verb=name)
        return made

    add = sub(
        "add",
        "run a campaign at set times; prints what would be installed, and installs it only with --install",
        "`harness schedule CAMPAIGN ...` is short for this.",
    )
    campaign_arguments(add)
    add.add_argument("--every", required=True, help=EVERY)
    add.add_argument(
        "--at",
        metavar="HH:MM",
        help="local time of day [default: 02:00; with intervals 00:00, from where they count]",
    )
    add.add_argument(
        "--on", metavar="DAY", help=f"with --every week: {', '.join(WEEKDAYS)} [default: sunday]"
    )
    add.add_argument(
        "--how",
        choices=HOWS,
        help="what starts it: cron (a line that looks every five minutes), scrontab (Slurm's own crontab), self (a "
        "small job that submits itself again) [default: scrontab where Slurm has it, else self; cron for site local]",
    )
    add.add_argument(
        "--folder", metavar="ROOT", help="folder of the schedule, on storage that all nodes see "
        "[default: schedules/<campaign> under the current folder]",
    )  # fmt: skip
    add.add_argument(
        "--keep", type=int, default=KEEP, metavar="N",
        help="runs that are kept whole; of older ones results and reports are [default: %(default)s]",
    )  # fmt: skip
    add.add_argument("--mail", metavar="ADDRESS", default="", help="whom to tell how it ended")
    add.add_argument(
        "--mail-on", choices=MAIL_ON, default="fail",
        help="fail: whatever is not a pass, and times that were skipped [default: %(default)s]",
    )  # fmt: skip
    add.add_argument(
        "--job-minutes", type=int, default=JOB_MINUTES, metavar="MIN",
        help="scrontab and self: time limit of their own small job; a longer campaign is driven by several, one after "
        "the other [default: %(default)s]",
    )  # fmt: skip
    add.add_argument(
        "--job-option", action="append", default=[], metavar="--NAME=VALUE",
        help="scrontab and self: an option of sbatch for that job, as in --job-option=--partition=service; repeatable",
    )  # fmt: skip
    add.add_argument("--install", action="store_true", help="install it")
    add.add_argument(
        "--prepare", action="store_true", help="only make the folder; you put the entry where you want it"
    )
    add.add_argument(
        "--replace", action="store_true", help="change a schedule that is there; its history stays"
    )

    install = sub("install", "install the entry of a schedule whose folder is there, or put it back")
    listing = sub("list", "list schedules: those under ./schedules and those in your crontab")
    listing.add_argument("folder", nargs="*", metavar="ROOT", help="folders of schedules")
    listing.add_argument(
        "--ask", action="store_true", help="look into scrontab and the queue as well (two calls)"
    )
    history = sub("history", "show what a schedule did")
    history.add_argument(
        "--lines", type=int, default=30, metavar="N", help="the last N [default: %(default)s]"
    )
    tick = sub(
        "tick",
        "look whether something is due or unfinished and make one step of it; what cron calls",
        "Exit code: 0 nothing to do, 4 unfinished, 2 the campaign cannot be run, 3 the scheduler does not answer; when "
        "a run ended in this tick, the run's own: 0 all pass, 1 a case failed, 3 unknown.",
    )
    tick.add_argument(
        "--until-complete", action="store_true", help="step after step until nothing is left; what jobs call"
    )
    tick.add_argument(
        "--now", action="store_true", help="start a run now, due or not: after a maintenance, say"
    )
    remove = sub("remove", "remove the entry of a schedule; its folder, and all that it ran, stay")
    for one in (install, history, tick, remove):
        one.add_argument("folder", metavar="ROOT", help="folder of the schedule")
    for one in (listing, history):
        one.add_argument("--json", action="store_true", help="print data instead of words")


def schedule(options: argparse.Namespace) -> int:
    """One of the sub-verbs."""
    if options.sub_verb == "tick":
        return _told(_tick, options)
    from harness.verbs import schedule_changes as changes
    from harness.verbs import schedule_views as views

    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "add": changes.add,
        "install": changes.install,
        "remove": changes.remove,
        "list": views.show,
        "history": views.history,
    }
    return _told(actions[options.sub_verb], options)


def _told(action: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        return action(options)
    except (ScheduleError, WhenError) as error:
        raise UsageError(str(error)) from None


def _tick(options: argparse.Namespace) -> int:
    from harness.schedule.tick import Tick

    folder = ScheduleDir(options.folder)
    spec = folder.read()
    if spec.state == REMOVED:
        print(
            f"{folder.path}: was removed; `harness schedule install {folder.path}` puts it back",
            file=sys.stderr,
        )
        return EXIT_PASS
    os.environ.update(spec.environment)
    time.tzset()
    tick = Tick(folder, spec, _Runs(folder))
    try:
        if not options.until_complete:
            return tick.step(start_now=options.now)
        from harness.schedule.entries import job_name
        from harness.schedule.whole import SlurmChain, Whole

        in_a_job = spec.how != "cron" and bool(os.environ.get("SLURM_JOB_ID"))
        chain = SlurmChain(folder, job_name(folder, spec)) if in_a_job else None
        return Whole(tick, chain).drive(start_now=options.now)
    except Busy as error:
        print(error, file=sys.stderr)
        return EXIT_UNFINISHED


class _Runs:
    """See ``harness.schedule.tick.Runs``: by what the verbs run and advance do."""

    def __init__(self, folder: ScheduleDir) -> None:
        self._folder = folder

    def make(self, spec: Spec, run: RunDir) -> None:
        from harness.config import ConfigError
        from harness.plan import PlanError
        from harness.schedule.tick import Broken
        from harness.script import RenderError
        from harness.verbs.running import made
        from harness.verbs.schedule_changes import command

        try:
            made(command(spec, self._folder), run.path)
        except (
            ConfigError,
            PlanError,
            RenderError,
            RunFolderError,
            UsageError,
            ModuleNotFoundError,
        ) as error:
            raise Broken(str(error)) from None

    def advance(self, run: RunDir) -> int:
        from harness.driver import Driver
        from harness.schedule.tick import Broken
        from harness.verbs.running import advance_run

        try:
            Driver(run)
        except (RunFolderError, ModuleNotFoundError) as error:
            raise Broken(str(error)) from None
        try:
            return advance_run(run)
        except (
            RunFolderError,
            UsageError,
        ) as error:  # a person drives it by hand, or this is not its cluster
            raise CommandError(str(error)) from None
