"""What a fault may use from outside the job: the site's power command and Slurm's view of a node.

Used by the supervisor inside the job and by whoever heals afterwards. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.faults import FaultError
from harness.slurm.commands import CommandError, run_command

POWER_TIMEOUT_S = 60.0


async def power(means: Mapping[str, Any] | None, action: str, node: str) -> dict[str, Any]:
    """Run a site's power command, ``{action}``, ``{node}`` and ``{python}`` filled in.

    Args:
        means: ``power`` of the site file.
        action: off, on or status.
        node: host name.

    Returns:
        ``{"said": <first word of its output>, "output": ...}``, and what it printed as JSON, if it did.

    Raises:
        FaultError: there is no command, or it failed.
    """
    command = (means or {}).get("command", ())
    if not means or not command:
        raise FaultError(
            "this site has no power command; add power.command to the site file, or use instead:"
        )
    filled = [part.format(action=action, node=node, python=sys.executable) for part in command]
    try:
        output = await asyncio.to_thread(
            run_command, filled, timeout_s=POWER_TIMEOUT_S, environment={**os.environ, **secret(means)}
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


def secret(means: Mapping[str, Any]) -> dict[str, str]:
    """What the power command is to know and nobody else: from a file that its owner alone can read."""
    name = means.get("secret_file", "")
    if not name:
        return {}
    path = Path(name)
    try:
        status = path.stat()
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise FaultError(f"power.secret_file {name}: {error}") from None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise FaultError(
            f"power.secret_file {name}: others can read it; chmod 600, and owned by who runs the job"
        )
    return {"HARNESS_POWER_SECRET": text}


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


async def emulated(site: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Run ``harness cluster`` on the emulated cluster that this process is in.

    Returns:
        What it printed last, as JSON.

    Raises:
        FaultError: this is no emulated cluster, or it failed.
    """
    if site["kind"] != "emulated" or site["launcher"] != "slurm":
        raise FaultError(f"only an emulated cluster can do this, and site {site['name']} is {site['kind']}")
    command = [sys.executable, "-m", "harness.devcluster", *arguments]
    try:
        output = await asyncio.to_thread(
            run_command, command, timeout_s=POWER_TIMEOUT_S, environment=dict(os.environ)
        )
        facts = json.loads(output.strip().splitlines()[-1])
    except CommandError as error:
        raise FaultError(str(error)) from None
    except (ValueError, IndexError):
        raise FaultError(f"{' '.join(command[1:])}: printed no JSON") from None
    return facts if isinstance(facts, dict) else {"answer": facts}


async def slurm(site: Mapping[str, Any], command: Sequence[str]) -> str:
    """Run one of Slurm's commands.

    Raises:
        FaultError: this site has no Slurm, or it failed.
    """
    if site["launcher"] != "slurm":
        raise FaultError(f"site {site['name']} has no Slurm")
    try:
        return await asyncio.to_thread(run_command, list(command), timeout_s=30)
    except CommandError as error:
        raise FaultError(str(error)) from None
