"""The verb render: the scripts, as they would be submitted, and what is different about them. Submits nothing."""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model.verdict import EXIT_FAIL, EXIT_PASS
from harness.rundir import RunDir
from harness.verbs import UsageError
from harness.verbs.before import read

if TYPE_CHECKING:
    from harness.model.case import Plan
    from harness.prepare import Input

NO_RUN_ID = "00000000"


def render(options: argparse.Namespace) -> int:
    """Print the scripts, write them to a folder, or say how they differ: exit code 0 the same, 1 not."""
    from harness.prepare import scripts

    given, planned = read(options)
    slurm = _features(options, given)
    if options.diff is not None:
        pairs = (
            _against_run(given, planned, RunDir(options.diff), slurm)
            if options.diff
            else _against_builtin(given, planned, slurm)
        )
        return _tell(list(pairs))
    folder = Path(options.out).absolute() if options.out else Path("runs/RUN").absolute()
    texts = scripts(given, planned, RunDir(folder), run_id=NO_RUN_ID, templates=given.templates, slurm=slurm)
    if options.out:
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if options.out:
            (folder / f"{name}.sh").write_text(text, encoding="utf-8")
            print(folder / f"{name}.sh")
        else:
            print(f"# ---- {name}.sh ----\n{text}")
    return EXIT_PASS


def _features(options: argparse.Namespace, given: Input) -> Mapping[str, bool] | None:
    """What the Slurm has that the scripts are for: the one named, the one here, or the newest."""
    from harness.prepare import slurm_here
    from harness.slurm.commands import CommandError
    from harness.slurm.versions import NEWEST, RUN_HERE, features, usable_version

    if options.slurm_version is not None:
        version, warning = usable_version(options.slurm_version)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        return features(version)
    if given.site.launcher != "slurm":
        return None
    if shutil.which("sbatch") is not None:
        try:
            return slurm_here()[1]
        except CommandError:
            pass  # installed, but of no cluster: as without it
    print(
        f"no Slurm here: scripts as for {NEWEST.release}; --slurm-version {RUN_HERE.release} names another",
        file=sys.stderr,
    )
    return features(NEWEST)


Pair = tuple[str, str, str, str]  # a script by two names, and its two texts; "" where there is none


def _against_builtin(given: Input, planned: Plan, slurm: Mapping[str, bool] | None) -> Iterator[Pair]:
    """With the harness's own templates alone, and with those of site and campaign."""
    from harness.prepare import scripts
    from harness.templates import Templates

    own = given.templates
    if not own.own:
        print("neither site nor campaign has templates of its own: nothing differs", file=sys.stderr)
    run = RunDir(Path("runs/RUN"))
    before, after = (
        scripts(given, planned, run, run_id=NO_RUN_ID, templates=t, slurm=slurm)
        for t in (Templates(own.builtin), own)
    )
    for name in before:
        yield f"harness/{name}.sh", f"own/{name}.sh", before[name], after[name]


def _against_run(
    given: Input, planned: Plan, run: RunDir, slurm: Mapping[str, bool] | None
) -> Iterator[Pair]:
    """As a run folder has them, and as they would lie there now: its own id and paths, so that neither differs."""
    from harness import twins
    from harness.prepare import scripts

    identity = run.read_identity()
    planned = twins.less(planned, set(twins.cached(run)), given.campaign, given.site)
    if identity["site"] != given.site.name:
        raise UsageError(
            f"{run.path}: is of site {identity['site']}, not {given.site.name}; name that site, or another run"
        )
    now = scripts(given, planned, run, run_id=identity["run_id"], templates=given.templates, slurm=slurm)
    for name in sorted({*identity["scripts"], *now}):
        path = run.script(name)
        before = path.read_text(encoding="utf-8") if name in identity["scripts"] else ""
        yield str(path), f"now/{name}.sh", before, now.get(name, "")


def _tell(pairs: list[Pair]) -> int:
    different = 0
    for before_name, after_name, before, after in pairs:
        lines = list(
            difflib.unified_diff(
                before.splitlines(),
                after.splitlines(),
                before_name if before else "/dev/null",
                after_name if after else "/dev/null",
                lineterm="",
            )
        )
        different += bool(lines)
        for line in lines:
            print(line)
    print(f"{different} of {len(pairs)} scripts differ", file=sys.stderr)
    return EXIT_FAIL if different else EXIT_PASS
