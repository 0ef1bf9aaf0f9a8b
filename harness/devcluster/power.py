"""The client of the cluster's power controller: what a job calls, as the ordinary user.

It needs the folder's control socket and nothing else: no root, no Slurm, no state file. Standard
library only, importable from a zip.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

from harness.devcluster.errors import ClusterError
from harness.devcluster.folder import ClusterFolder

ANSWER_S = 120.0


def request(folder: ClusterFolder, message: dict[str, object], timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """Send one request to the cluster's daemon; its refusal is a ClusterError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(timeout_s)
        try:
            channel.connect(str(folder.control_socket))
            channel.sendall(json.dumps(message).encode() + b"\n")
            with channel.makefile("rb") as stream:
                line = stream.readline()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ClusterError(
                f"{folder.control_socket}: nobody answers ({error.strerror}); no cluster is up there."
                " Is HARNESS_CLUSTER, or --folder, the right folder?"
            ) from error
        except TimeoutError as error:
            raise ClusterError(f"{folder.control_socket}: no answer within {timeout_s:g} s") from error
        except OSError as error:
            raise ClusterError(f"{folder.control_socket}: {error}") from error
    if not line:
        raise ClusterError(f"{folder.control_socket}: the daemon ended before it answered")
    answer = json.loads(line)
    assert isinstance(answer, dict)
    if not answer.get("ok"):
        raise ClusterError(str(answer.get("error")))
    return answer


def power(folder: ClusterFolder, action: str, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Switch nodes on or off, or ask; one entry a node, with the stamps of request and effect."""
    answer = request(folder, {"verb": "power", "action": action, "nodes": list(nodes)})
    entries = answer["nodes"]
    assert isinstance(entries, list)
    return entries
