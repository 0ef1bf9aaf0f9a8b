"""What a fault may use from outside the job: the site's power command and Slurm's view of a node.

Used by the supervisor inside the job and by whoever heals afterwards. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from harness.faults import FaultError
from harness.slurm.commands import CommandError, run_command

POWER_TIMEOUT_S = 60.0


async def power(command: Sequence[str], action: str, node: str) -> dict[str, Any]:
    """Run a site's power command, ``{action}``, ``{node}`` and ``{python}`` filled in.

    Returns:
        ``{"said": <first word of its output>, "output": ...}``, and what it printed as JSON, if it did.

    Raises:
        FaultError: there is no command, or it failed.
    """
    if not command:
        raise FaultError(
            "this site has no power command; add power.command to the site file, or use instead:"
        )
    filled = [part.format(action=action, node=node, python=sys.executable) for part in command]
    try:
        output = await asyncio.to_thread(
            run_command, filled, timeout_s=POWER_TIMEOUT_S, environment=dict(os.environ)
        )
    except CommandError as error:
        raise FaultError(f"power {action} {node}: {error}") from None
    text = output.strip()
    try:
        facts = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        facts = None
    said = str(facts.get("power", "")) if isinstance(facts, dict) else text.split()[0] if text else ""
    return {"said": said, "output": text[:500]}


async def slurm_state(node: str) -> str:
    """A node's state by ``scontrol``; "UNKNOWN" when the controller does not answer, "" where there is no Slurm."""
    if (
        "SLURM_JOB_ID" not in os.environ
        and "SLURM_CONF" not in os.environ
        and not os.path.isdir("/etc/slurm")
    ):
        return ""
    try:
        output = await asyncio.to_thread(run_command, ["scontrol", "-o", "show", "node", node], timeout_s=15)
    except CommandError:
        return "UNKNOWN"
    for word in output.split():
        if word.startswith("State="):
            return word.removeprefix("State=")
    return "UNKNOWN"
