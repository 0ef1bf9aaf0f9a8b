"""Which faults a site allows, by which mechanism, why not the others, and what else to use. Pure."""

from __future__ import annotations

from harness.model import fault as model
from harness.model.site import Site

# What comes nearest among kinds that need less, for kinds that need more than a job's own processes.
_NEAREST = {
    "node.power_off": "node.kill_processes",
    "node.stop_slurmd": "node.kill_processes",
    "node.link_down": "node.kill_processes",
    "node.partition": "node.kill_processes",
    "node.drain": "node.kill_processes",
    "node.fail": "node.kill_processes",
    "storage.away": "storage.slow",
    "job.preempt": "job.requeue",
}

_EMULATED = {
    "node.stop_slurmd": "stopping slurmd of the emulated node",
    "node.link_down": "taking the emulated node's link down",
    "node.partition": "packet filters of the emulated cluster",
    "node.drain": "scontrol update, with a reason that is ours, on the emulated cluster",
    "node.fail": "scontrol update, with a reason that is ours, on the emulated cluster",
    "controller.away": "freezing or killing slurmctld of the emulated cluster",
    "storage.away": "taking the shared folder from the emulated node",
    "job.preempt": "a job of higher priority on the emulated cluster",
}
_SLURM = {
    "job.requeue": "scontrol requeue of the own job",
    "job.time_limit": "scontrol update TimeLimit of the own job",
    "job.cancel": "scancel of the own job",
}


def why_not(kind: str, site: Site) -> str:
    """Why a site does not allow this kind of fault, beginning with the site; "" where it does."""
    needs, where = model.KINDS[kind].needs, f'site "{site.name}"'
    if needs == model.SLURM and site.launcher != "slurm":
        return f"{where} has no Slurm, by whose commands it is done"
    if needs == model.POWER and site.power is None:
        return f"{where} has no power command (power.command)"
    if needs == model.POWER and site.kind not in ("emulated", "staging"):
        return f"{where} is {site.kind}, and nodes are switched off on emulated and staging sites only"
    if needs == model.EMULATED and not (site.kind == "emulated" and site.launcher == "slurm"):
        return f"{where} is {site.kind}, and this reaches outside the job: emulated clusters only"
    return ""


def mechanism(kind: str, site: Site) -> str:
    """By what a site that allows this kind of fault does it."""
    one = model.KINDS[kind]
    if one.needs == model.POWER:
        if site.power is None:
            return ""
        words = f"the site's power command: {' '.join(site.power.command)}"
        if site.kind == "emulated":
            return words
        limit = f"{site.power.max_nodes} node{'s' * (site.power.max_nodes > 1)}"
        return f"{words}; at most {limit} of a run at a time, named by --may-power-off, with no other's job on it"
    if one.needs == model.EMULATED:
        return _EMULATED[kind]
    if one.needs == model.SLURM:
        return _SLURM[kind]
    if one.hits == "checkpoint":
        return "the case's own files"
    if kind == "node.kill_processes":
        return "SIGKILL of the node's agent to the job's own processes"
    return f"{one.signal} to the job's own process" if one.signal else "the rank itself, in its own loop"


def nearest(kind: str, site: Site) -> str:
    """The kind that comes nearest among those that a site allows, where it does not allow this one; "" for none."""
    other = _NEAREST.get(kind, "")
    return other if other and not why_not(other, site) else ""
