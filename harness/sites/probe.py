"""Asks a cluster what it is, in at most nine commands, and writes a site file of the answers.

The scheduler is asked five things at most, the accounts four; each command has a deadline, and one that
does not answer is named in the file instead. Nothing is submitted, and no node is looked at: ``harness site
check`` does that.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.model.site import Site
from harness.sites import texts
from harness.sites.facts import Facts
from harness.sites.propose import site_file
from harness.slurm.commands import CommandError, run_command
from harness.telemetry.gpu import Gpu, NoGpu

CALL_S = 20.0
LIBRARY_S = 30.0

Ask = Callable[[Sequence[str]], str]


@dataclass
class _Asker:
    """Runs commands, each with a deadline, and keeps why one did not answer."""

    ask: Ask
    trouble: dict[str, str] = field(default_factory=dict)
    calls: int = 0

    def __call__(self, *command: str) -> str:
        self.calls += 1
        try:
            return self.ask(command)
        except CommandError as error:
            self.trouble.setdefault("srun" if command == texts.MPI_LIST else command[0], str(error))
            return ""


def _bounded(command: Sequence[str]) -> str:
    return run_command(command, timeout_s=CALL_S)


def _silent(why: str) -> str:
    """What to do where the controller told nothing."""
    if "command not found" in why:
        return "scontrol: command not found; probe on a login node of the cluster, with Slurm's module loaded"
    return (
        f"{why}; `scontrol ping` says whether the controller is up: probe again when it is, on a login node"
    )


@dataclass(frozen=True)
class Told:
    """What the accounts say of this user."""

    associations: tuple[texts.Limit, ...] = ()
    accounts: Mapping[str, texts.Limit] = field(default_factory=dict)
    qualities: Mapping[str, texts.Limit] = field(default_factory=dict)


def told_limits(ask: Callable[..., str], config: Mapping[str, str]) -> Told:
    """This user's associations, the accounts that they belong to, and the qualities of service."""
    cluster, fields = config.get("ClusterName", ""), ",".join(texts.ASSOCIATION_FIELDS)
    show = ("sacctmgr", "-nP", "show")
    of = (f"cluster={cluster}", f"format={fields}")
    own = texts.associations(ask(*show, "assoc", "where", f"user={_user()}", *of), cluster)
    above = texts.associations(ask(*show, "assoc", "where", "user=", *of), cluster) if own else []
    qualities = texts.qualities(ask(*show, "qos", f"format={','.join(texts.QOS_FIELDS)}"))
    return Told(tuple(own), {one.name: one for one in above}, qualities)


def gather(ask: Ask = _bounded) -> tuple[Facts, int]:
    """What can be found out from here, and how many commands that took.

    Raises:
        CommandError: the controller told nothing of itself.
    """
    asker = _Asker(ask)
    config = texts.config(asker("scontrol", "show", "config"))
    partitions = texts.partitions(asker("scontrol", "-o", "show", "partition"))
    if not config or not partitions:
        raise CommandError(_silent(asker.trouble.get("scontrol", "scontrol: told of no partition")))
    nodes = texts.nodes(asker("scontrol", "-o", "show", "node"))
    seen = asker("sinfo", "--noheader", "-o", texts.SINFO_FORMAT)
    told = Told()
    answers = False
    if texts.first(config, "AccountingStorageType") not in ("", "accounting_storage/none"):
        told = told_limits(asker, config)
        asker("sacct", "-n", "-X", "-P", "-S", "now", "-o", "JobID")
        answers = "sacct" not in asker.trouble
    mpi = texts.mpi_plugins(asker(*texts.MPI_LIST))
    facts = Facts(
        config=config,
        partitions=tuple(partitions),
        nodes=tuple(nodes or texts.nodes_of_sinfo(seen)),
        visible=texts.visible_partitions(seen),
        associations=told.associations,
        qualities=told.qualities,
        accounts=told.accounts,
        mpi=mpi,
        mpi_library=_mpi_library(),
        mounts=tuple(texts.mounts(Path("/proc/mounts").read_text(encoding="utf-8", errors="replace"))),
        accounts_answer=answers,
        environment=dict(os.environ),
        python=sys.executable,
        machine=platform.machine(),
        gpus_here=_gpus_here(),
        trouble=asker.trouble,
    )
    return facts, asker.calls


def probe(facts: Facts, *, wanted: Sequence[str], name: str, kind: str, command: str) -> tuple[str, Site]:
    """The text of a site file, and the site that it says.

    Raises:
        NoPartition: there is no such partition.
        ConfigError: the text is no site file, which would be our mistake.
    """
    from harness.config import parse_site

    header = (
        f"Written by `{command}` on {time.strftime('%Y-%m-%d %H:%M %z')}.\n"
        'Each value says where it came from; where nothing told, it is a default and says "check this line".\n'
        "`harness site check` proves the file by one small job, and says what to change. "
        "configs/sites/example-gpu.yaml explains every key."
    )
    text = site_file(facts, wanted=wanted, name=name, kind=kind, header=header)
    return text, parse_site(text, "the site file that was probed")


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER", str(os.getuid()))


def _mpi_library() -> str:
    """What mpi4py of this interpreter is linked with; "" where it cannot be told. A login node may forbid MPI."""
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIBRARY_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = done.stdout.strip().splitlines()
    return " ".join(words[0].replace(",", " ").split())[:60] if done.returncode == 0 and words else ""


def _gpus_here() -> str:
    """What NVML says of this machine's own GPUs, for a comment."""
    try:
        gpus = Gpu()
    except NoGpu:
        return ""
    names = sorted({str(g["name"]) for g in gpus.facts()["gpus"]})
    return f"; NVML shows {gpus.count} on this machine: {', '.join(names)}"
