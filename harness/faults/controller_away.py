"""controller.away: slurmctld does not answer. Jobs run on; whoever asks Slurm anything waits or fails.

params: ``mode``, "freeze" (it takes connections and answers nothing) or "kill" (it is gone until healed).
"""

from __future__ import annotations

import asyncio
from typing import Any

from harness.faults import FaultError, Hit, Tools
from harness.faults.leased import Leased

_SOON_S = 1.0  # a healthy controller answers in some hundredths of a second
_ANSWER_S = 5.0
_MODES = ("freeze", "kill")


class ControllerAway(Leased):
    """Frozen or killed; thawed or started again to heal."""

    def arguments(self, hit: Hit) -> list[str]:
        """By its mode.

        Raises:
            FaultError: there is no such mode.
        """
        mode = hit.params.get("mode", "freeze")
        if mode not in _MODES:
            raise FaultError(f"controller.away: params.mode = {mode!r}; there are {', '.join(_MODES)}")
        return [f"controller-{mode}"]

    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """`scontrol ping` is not answered well in time."""
        said = await _ping(tools, _SOON_S)
        return None if " UP" in said else {"scontrol ping": said}

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """As all, and it answers."""
        healed = await super().verify_healed(tools, hit)
        said = await _ping(tools, _ANSWER_S) if healed is not None else ""
        return {**healed, "scontrol ping": said} if healed is not None and " UP" in said else None


async def _ping(tools: Tools, within_s: float) -> str:
    try:
        return (await asyncio.wait_for(tools.slurm(["scontrol", "ping"]), within_s)).strip()[:200]
    except asyncio.TimeoutError:
        return f"no answer within {within_s:g} s"
    except FaultError as error:
        return str(error)[:200]


FAULT = ControllerAway
