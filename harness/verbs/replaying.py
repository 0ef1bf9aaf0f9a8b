"""The verb replay: one case of a run again, with the same faults at the same steps."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model.verdict import EXIT_PASS
from harness.rundir import RunDir, write_json
from harness.verbs import UsageError

if TYPE_CHECKING:
    from harness.replay import Replay


def replay(options: argparse.Namespace) -> int:
    """Plan it, say what will be done, and run it to its end."""
    from harness import local
    from harness.config import load_site
    from harness.driver import Driver
    from harness.prepare import Input, open_or_make
    from harness.replay import ReplayError, campaign_of, find_case, of_case, plan_of, site_of
    from harness.resources import configs_dir
    from harness.verbs.after import judge_cases
    from harness.verbs.running import (
        default_parent,
        refuse_foreign_cluster,
        refuse_unnamed,
        tell_cached,
        to_the_end,
    )

    run = RunDir(options.run)
    planned = run.read_plan()
    try:
        again = of_case(run, planned, find_case(planned, options.case))
        site, site_text = load_site(options.site, [configs_dir() / "sites"]) if options.site else site_of(run)
        campaign, text = campaign_of(run, again)
        plan = plan_of(again, campaign, site)
    except ReplayError as error:
        raise UsageError(f"{run.path}: {error}") from None
    _tell(run, again)
    if options.dry_run:
        return EXIT_PASS
    refuse_foreign_cluster(site.kind, site.name)
    nodes = options.may_power_off or []
    refuse_unnamed(plan, site, nodes)
    if site.launcher == "local":
        local.check_imports(plan, site.python or sys.executable)
    name = f"{campaign.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = (Path(options.folder) if options.folder else default_parent() / name).absolute()
    new, there = open_or_make(folder, Input(campaign, text, site, site_text, options.command), plan)
    if nodes:
        write_json(new.allowed, {"nodes": nodes})
    print(f"{'going on with' if there else 'run folder'} {new.path}", flush=True)
    driver = Driver(new, judge=judge_cases)
    tell_cached(new, driver.plan)
    return to_the_end(driver, plain=options.plain)


def _tell(run: RunDir, again: Replay) -> None:
    case = again.case
    print(
        f"replay of {again.original.case_id}  {case.label}, {case.workload}, seed {case.seed}, of {run.path}"
    )
    for strike in again.strikes:
        print(f"  {strike.words}")
    for fault, why in again.left_out:
        print(f"  left out: {fault.kind} of {fault.target} at {fault.trigger}: {why}")
    if case.case_id == again.original.case_id:
        print(f"  as case {case.case_id}: nothing of it differs")
    else:
        print(f"  as case {case.case_id}: its triggers or its faults differ, so its id does")
    print(f"  compared with its twin {again.twin.case_id}" if again.twin else "  it has no twin")
