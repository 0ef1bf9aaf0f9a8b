"""The control socket: one JSON line asks, one answers, and the kernel says who asked.

It waits for many clients at once in one thread, so that one who says nothing holds up nobody. What
the requests mean is the daemon's business.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from harness.devcluster.errors import ClusterError

Answer = Callable[[dict[str, object], int], dict[str, object]]

_REQUEST_BYTES = 65536
_MOST_CLIENTS = 256


def listen(path: Path) -> socket.socket:
    """The socket; anyone on the machine may connect, and is then judged by his user id."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(64)
    return listener


def serve(
    listener: socket.socket,
    answer: Answer,
    wakeup: socket.socket,
    on_wakeup: Callable[[], None],
    ending: Callable[[], bool],
    turn: Callable[[], float | None],
) -> None:
    """Answer requests until `ending`; each signal arrives as bytes on `wakeup`.

    `turn` does what is due by the clock, and says after how many seconds it is to be called again at the latest.
    """
    received: dict[socket.socket, bytes] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while not ending():
            for key, _ in selector.select(turn()):
                channel = key.fileobj
                assert isinstance(channel, socket.socket)
                if channel is wakeup:
                    wakeup.recv(4096)
                    on_wakeup()
                elif channel is listener:
                    client, _ = listener.accept()
                    if len(received) >= _MOST_CLIENTS:
                        client.close()
                        continue
                    client.setblocking(False)
                    received[client] = b""
                    selector.register(client, selectors.EVENT_READ)
                elif _is_complete(channel, received):
                    selector.unregister(channel)
                    _reply(channel, received.pop(channel), answer)


def _is_complete(client: socket.socket, received: dict[socket.socket, bytes]) -> bool:
    """Whether a line has come, or no more will."""
    try:
        chunk = client.recv(4096)
    except OSError:
        chunk = b""
    received[client] += chunk
    return not chunk or b"\n" in received[client] or len(received[client]) > _REQUEST_BYTES


def _reply(client: socket.socket, line: bytes, answer: Answer) -> None:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ClusterError(f"{line[:80]!r}: a request is a JSON object")
        reply = {"ok": True, **answer(request, peer_uid(client))}
    except (ClusterError, OSError, ValueError) as error:
        reply = {"ok": False, "error": str(error)}
    try:
        client.settimeout(1.0)
        client.sendall(json.dumps(reply).encode() + b"\n")
    except OSError:
        pass  # a client on a node that it has just powered off does not hear the answer
    finally:
        client.close()


def peer_uid(client: socket.socket) -> int:
    """The user id of whoever connected, from the kernel."""
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return int(uid)
