"""The verb faults: every kind of fault, what it does, and whether this site allows it here, by which mechanism.

It looks and disturbs nothing: whether programs are there, and whether this shell is on the emulated cluster.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.model.verdict import EXIT_PASS

if TYPE_CHECKING:
    from harness.model.site import Site

_SLURM_PROGRAMS = ("scontrol", "scancel", "squeue")
_HITS = {"rank": "one rank", "node": "one node", "nodes": "nodes", "job": "the job",
         "checkpoint": "a checkpoint", "controller": "slurmctld"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Line:
    """One kind of fault on a site."""

    kind: str
    does: str
    hits: str
    decoy: bool
    lasts: bool  # needs for_s
    params: Mapping[str, Any]  # name -> default, or all that is allowed
    allowed: bool
    mechanism: str  # "" where it is not allowed
    why_not: str
    instead: str  # the kind that comes nearest, where it is not allowed


def faults(options: argparse.Namespace) -> int:
    """The table."""
    from harness.config import load_site
    from harness.resources import configs_dir

    site, _ = load_site(options.site or _site_of_this_shell(), [configs_dir() / "sites"])
    lines = list(table(site))
    if options.json:
        data = {
            "schema": 1,
            "site": site.name,
            "kind": site.kind,
            "faults": [dataclasses.asdict(line) for line in lines],
        }
        print(json.dumps(data, indent=1))
        return EXIT_PASS
    count = sum(line.allowed for line in lines)
    print(f"site {site.name} ({site.kind}) allows {count} of {len(lines)} kinds of fault here")
    for line in lines:
        print("\n".join(_words(line)))
    return EXIT_PASS


def table(site: Site) -> Iterator[Line]:
    """Every kind on a site, in the order of the model."""
    from harness.fault_means import mechanism, nearest, why_not
    from harness.model.fault import KINDS

    missing = _missing(site)
    for name, kind in KINDS.items():
        why = why_not(name, site) or missing.get(kind.needs, "")
        other = nearest(name, site) if why else ""
        if other and missing.get(KINDS[other].needs):
            other = ""
        yield Line(
            name,
            kind.help,
            _HITS[kind.hits],
            kind.harmless,
            kind.lasts,
            dict(kind.params),
            not why,
            "" if why else mechanism(name, site),
            why,
            other,
        )


def _site_of_this_shell() -> str:
    return "emulated" if os.environ.get("HARNESS_CLUSTER") else "local"


def _missing(site: Site) -> dict[str, str]:
    """What faults need and this machine lacks: need -> words."""
    from harness.faults import FaultError
    from harness.faults.tools import secret
    from harness.model import fault as model
    from harness.verbs.running import on_emulated_cluster

    found: dict[str, str] = {}
    if site.launcher == "slurm":
        absent = [name for name in _SLURM_PROGRAMS if shutil.which(name) is None]
        if absent:
            found[model.SLURM] = f"this machine has no {', '.join(absent)}"
    if site.power is not None:
        program = site.power.command[0].replace("{python}", str(site.python or sys.executable))
        if shutil.which(program) is None:
            found[model.POWER] = f"power.command: {program!r} is no program that can be run on this machine"
        try:
            secret(site.power.model_dump())
        except FaultError as error:
            found.setdefault(model.POWER, str(error))
    if site.kind == "emulated" and not on_emulated_cluster():
        words = "this shell is not on an emulated cluster: `harness cluster exec login -- harness faults`"
        found[model.EMULATED] = found[model.POWER] = found[model.SLURM] = words
    return found


def _words(line: Line) -> Iterator[str]:
    """A kind in two lines."""
    more = [words for words, said in (("a decoy", line.decoy), ("for_s: how long", line.lasts)) if said]
    more += [f"params.{name}: {_values(default)}" for name, default in line.params.items()]
    yield f"{'yes' if line.allowed else 'no':<4} {line.kind:<24} {line.hits:<13} {line.does}"
    if line.allowed:
        told = "; ".join([f"by {line.mechanism}", *more])
    else:
        told = line.why_not + (f"; use {line.instead}" if line.instead else "")
    yield f"{'':<43} {told}"


def _values(default: Any) -> str:
    if isinstance(default, tuple):
        return " or ".join(map(str, default))
    return f"{str(default).lower() if isinstance(default, bool) else default} unless told otherwise"
