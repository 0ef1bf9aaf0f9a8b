"""The client of the cluster's faults: what a person or a job calls. The daemon does them, and ends them.

It needs the folder's control socket and nothing else. Standard library only, importable from a zip.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ClusterFolder
from harness.devcluster.power import request

_HEALED_S = 45.0
_EVERY_S = 0.1
_ENDED = ("healed", "failed")


def inject(folder: ClusterFolder, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Have a fault done; its record, with the evidence. A refusal is a ClusterError."""
    fault: dict[str, Any] = request(folder, {"verb": "fault", **wanted})["fault"]
    return fault


def heal(folder: ClusterFolder, identity: str | None) -> list[dict[str, Any]]:
    """End one fault, or all (None), and wait until that is seen; may be called again.

    Raises:
        ClusterError: some are not healed within 45 s; the daemon goes on trying.
    """
    found: list[dict[str, Any]] = request(folder, {"verb": "heal", "id": identity})["faults"]
    serials = {fault["serial"] for fault in found}
    end = time.monotonic() + _HEALED_S
    while any(fault["state"] not in _ENDED for fault in found):
        if time.monotonic() > end:
            left = {fault["id"]: fault["error"] for fault in found if fault["state"] not in _ENDED}
            raise ClusterError(f"not healed within {_HEALED_S:g} s: {left}; the daemon goes on trying")
        time.sleep(_EVERY_S)
        found = [fault for fault in listed(folder) if fault["serial"] in serials]
    return found


def listed(folder: ClusterFolder) -> list[dict[str, Any]]:
    """Every fault of the cluster's life, the oldest first, and what became of it."""
    found: list[dict[str, Any]] = request(folder, {"verb": "faults"})["faults"]
    return found
