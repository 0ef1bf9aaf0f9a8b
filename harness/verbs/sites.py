"""Verbs about site files: `site probe` writes one from the cluster, `site check` proves one by a small job."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model.verdict import EXIT_PASS
from harness.verbs import UsageError

if TYPE_CHECKING:
    from harness.model.site import Site

ABOUT_CHECK = (
    "Exit code 0: all is well; 1: something is wrong, and what to change; 3: something could not be found out. "
    "Nothing is left in the queue, and no node is ever powered off."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`harness site`'s own verbs."""
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="site_verb")
    probe = verbs.add_parser(
        "probe",
        help="write a site file from what Slurm says, each value with where it came from",
        description="Write a site file from what Slurm says, each value with where it came from. Submits nothing; "
        "at most nine commands are run, each bounded in time.",
    )
    probe.add_argument(
        "--out", metavar="FILE", help="write it here instead of printing it; a file there is kept"
    )
    probe.add_argument(
        "--partition",
        action="append",
        default=[],
        metavar="NAME",
        help="repeatable: the first is the site's own, the others go under `partitions` "
        "[default: the cluster's default]",
    )
    probe.add_argument("--name", default="", help="name of the site [default: the cluster's]")
    probe.add_argument(
        "--kind",
        choices=("production", "staging", "emulated"),
        default="production",
        help="what kind of place it is [default: %(default)s]",
    )
    check = verbs.add_parser(
        "check",
        help="prove a site file by one small job, and say what to change",
        description=f"Prove a site file by one small job, and say what to change, line by line. {ABOUT_CHECK}",
    )
    check.add_argument("site", help="site file, or the name of one that comes with the harness")
    check.add_argument(
        "--partition", default="", metavar="NAME", help="one of its `partitions`, instead of its own"
    )
    check.add_argument(
        "--folder",
        metavar="F",
        help="where runs will be: a folder that all nodes see; one is made in it, and removed [default: here]",
    )
    check.add_argument(
        "--nodes", type=_positive, metavar="N", help="nodes of the job [default: 2, or what is allowed]"
    )
    check.add_argument(
        "--wait-min",
        type=_positive,
        default=10,
        metavar="MIN",
        help="cancel the job after so many minutes, waiting included [default: %(default)s]",
    )
    check.add_argument(
        "--without",
        action="append",
        default=[],
        choices=("torch", "mpi4py"),
        help="a package that jobs here do not need; repeatable",
    )
    check.add_argument("--keep", action="store_true", help="keep the folder with what the job wrote")
    check.add_argument("--json", action="store_true", help="print data instead of words")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text}")
    return number


def site(options: argparse.Namespace) -> int:
    """`harness site VERB`."""
    return probe(options) if options.site_verb == "probe" else check(options)


def probe(options: argparse.Namespace) -> int:
    """Write a site file from the cluster."""
    from harness.sites.facts import NoPartition
    from harness.sites.probe import gather
    from harness.sites.probe import probe as to_text

    out = Path(options.out) if options.out else None
    if out is not None and out.exists():
        raise UsageError(f"{out}: is there already; choose another --out, or remove it")
    facts, calls = gather()
    try:
        text, found = to_text(
            facts,
            wanted=options.partition,
            name=options.name,
            kind=options.kind,
            command=shlex.join(options.command),
        )
    except NoPartition as error:
        raise UsageError(str(error)) from None
    for command, why in facts.trouble.items():
        print(f"{command} did not answer: {why}", file=sys.stderr)
    doubts = text.count("check this line") - 1  # the header explains it
    said = f"{calls} commands asked; site {found.name}, {doubts} line{'s' * (doubts != 1)} to check by eye"
    if out is None:
        print(text, end="")
        print(said, file=sys.stderr)
        return EXIT_PASS
    out.write_text(text, encoding="utf-8")
    print(f"{out}: {said}\n  next: harness site check {out}")
    return EXIT_PASS


def check(options: argparse.Namespace) -> int:
    """Prove a site file by one small job."""
    from harness.config import load_site
    from harness.resources import configs_dir
    from harness.sites.check import check as to_evidence
    from harness.sites.judge import exit_code, judge

    whole, _ = load_site(options.site, [configs_dir() / "sites"])
    if whole.launcher != "slurm":
        raise UsageError(
            f'site "{whole.name}" has no Slurm (launcher: {whole.launcher}), so there is no job to prove it by'
        )
    if options.partition and options.partition not in whole.partitions:
        names = ", ".join(sorted(whole.partitions)) or "none"
        raise UsageError(f'site "{whole.name}" has no partition {options.partition!r}; it has: {names}')
    chosen = whole.on(options.partition)
    folder = _folder(chosen, options.folder)
    if options.nodes is not None and options.nodes > chosen.limits.max_nodes:
        raise UsageError(f"--nodes {options.nodes}: the site allows {chosen.limits.max_nodes}")
    seen = to_evidence(
        chosen,
        folder=folder,
        nodes=options.nodes,
        wait_s=options.wait_min * 60.0,
        keep=options.keep,
        without=options.without,
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )
    lines = judge(chosen, seen)
    code = exit_code(lines)
    if options.json:
        print(
            json.dumps(
                {
                    "schema": 1,
                    "site": whole.name,
                    "partition": options.partition,
                    "exit_code": code,
                    "lines": [dataclasses.asdict(line) for line in lines],
                    "seen": dataclasses.asdict(seen),
                },
                indent=1,
            )
        )
        return code
    width = max(len(line.place) for line in lines)
    for line in lines:
        print(f"{line.status:<8} {line.place:<{width}}  {line.said}")
        if line.change:
            print(f"{'':<8} {'':<{width}}  -> {line.change}")
    counts = {
        status: sum(line.status == status for line in lines) for status in ("ok", "wrong", "unknown", "note")
    }
    print(", ".join(f"{number} {status}" for status, number in counts.items() if number))
    if options.keep:
        print(f"kept: {seen.folder}")
    return code


def _folder(chosen: Site, given: str | None) -> Path:
    """Where runs will be, as `harness run` takes it."""
    if given:
        return Path(given)
    if cluster := os.environ.get("HARNESS_CLUSTER", ""):
        return Path(cluster) / "shared"
    here, shared = Path.cwd(), [Path(s) for s in chosen.paths.shared if Path(s).is_dir()]
    if not shared or any(here.resolve().is_relative_to(s.resolve()) for s in shared):
        return here
    names = ", ".join(str(s) for s in shared)
    raise UsageError(
        f"this folder is not one that all nodes see (paths.shared: {names}); give one by --folder"
    )
