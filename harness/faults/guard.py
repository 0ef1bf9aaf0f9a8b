"""Before a real node is switched off: what must hold, looked at again just before. Standard library only.

On an emulated cluster nothing is at stake. Elsewhere the site must call itself staging (that is checked when the
campaign is read), and then three things are required here: the node was named on the command line
(`harness run --may-power-off`), no job but ours is on it, and fewer nodes of this run are off than the
site allows. Anything that cannot be found out is a no.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.faults import FaultError
from harness.rundir import write_json


class Slurm(Protocol):
    """Runs one of Slurm's commands."""

    async def slurm(self, command: Sequence[str]) -> str:
        """Its standard output; raises FaultError."""


async def may_switch_off(
    slurm: Slurm, site: Mapping[str, Any], allowed: Sequence[str], slots: Path, node: str, job_id: str
) -> None:
    """Return where a node may be switched off now; a slot of the run is taken then.

    Args:
        slurm: to ask who is on the node.
        site: the site file's values.
        allowed: nodes named on the command line.
        slots: folder of the run in which nodes that are off are noted.
        node: host name.
        job_id: our job, ``12`` or ``12_3``.

    Raises:
        FaultError: it may not; the message says why.
    """
    if site["kind"] == "emulated":
        return
    if site["kind"] != "staging":
        raise FaultError(f"site {site['name']} is {site['kind']}: its nodes are never switched off")
    if node not in allowed:
        named = ", ".join(allowed) or "none was"
        raise FaultError(
            f"node {node} was not named on the command line (`harness run --may-power-off {node}`); named: {named}"
        )
    if not job_id:
        raise FaultError("there is no Slurm job, so nobody can say that the node is ours alone")
    jobs = set(
        (await slurm.slurm(["squeue", "--noheader", "--array", "--format=%i", f"--nodelist={node}"])).split()
    )
    others = sorted(jobs - {job_id})
    if job_id not in jobs or others:
        who = (
            f"jobs {', '.join(others)} are on it" if others else f"our job {job_id} is not on it, says Slurm"
        )
        raise FaultError(f"node {node} is not ours alone: {who}")
    text = await slurm.slurm(["scontrol", "--oneliner", "show", "job", job_id])
    share = re.search(r"\bOverSubscribe=(\S+)", text)
    if share is None or share[1] not in ("NO", "EXCLUSIVE"):
        said = share[1] if share else "nothing"
        raise FaultError(
            f"job {job_id} is not exclusive (OverSubscribe: {said}): another may join it on {node}"
        )
    _take_slot(slots, node, int(site["power"]["max_nodes"]))


def _take_slot(slots: Path, node: str, limit: int) -> None:
    """Note that a node goes off; by a file that only one can make, for several jobs of a run may ask at once."""
    slots.mkdir(mode=0o700, exist_ok=True)
    holders = []
    for number in range(limit):
        slot, mine = slots / f"{number}.json", slots / f".{os.getpid()}.{node}"
        write_json(mine, {"node": node})
        try:
            os.link(mine, slot)
        except FileExistsError:
            holders.append(_holder(slot))
            if holders[-1] == node:
                return
        else:
            return
        finally:
            mine.unlink()
    raise FaultError(
        f"{', '.join(holders)}: already off, and site allows {limit} node{'s' * (limit > 1)} of a run at a time "
        "(power.max_nodes)"
    )


def give_back(slots: Path, node: str) -> None:
    """A node is on again."""
    for slot in slots.glob("*.json") if slots.is_dir() else ():
        if _holder(slot) == node:
            with contextlib.suppress(FileNotFoundError):
                slot.unlink()


def _holder(slot: Path) -> str:
    try:
        return str(json.loads(slot.read_text(encoding="utf-8"))["node"])
    except (OSError, ValueError, KeyError):
        return "a node that cannot be read"
