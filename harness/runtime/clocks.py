"""How far two machines' clocks are apart, from round trips between them. Standard library only.

One side answers each line with its own time. The other takes, of several round trips, the shortest: the
offset is that of the middle of the trip, and wrong by half its duration at most (Cristian's algorithm). The
first line must carry a token; who does not know it is not answered.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
import socketserver
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

ROUND_TRIPS = 16
_LINE = 256


@dataclass(frozen=True)
class Offset:
    """``offset_ns`` is the other clock less one's own; ``uncertainty_ns`` how wrong that can be."""

    offset_ns: int
    uncertainty_ns: int
    round_trips: int


def of_trips(trips: Iterable[tuple[int, int, int]]) -> Offset:
    """From trips of (sent, the other's time, received); at least one."""
    known = list(trips)
    sent, there, back = min(known, key=lambda t: t[2] - t[0])
    return Offset(there - (sent + back) // 2, (back - sent + 1) // 2, len(known))


class _Handler(socketserver.StreamRequestHandler):
    timeout = 10.0
    server: Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            token = self.rfile.readline(_LINE).strip().decode("ascii", "replace")
            if not hmac.compare_digest(token, self.server.token):
                return
            self.wfile.write(b"ready\n")
            while self.rfile.readline(_LINE):
                self.wfile.write(b"%d\n" % time.time_ns())


class Server(socketserver.ThreadingTCPServer):
    """Tells its time to who knows the token, as long as the context lasts."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, token: str) -> None:
        super().__init__(("0.0.0.0", 0), _Handler)
        self.token = token
        self.port: int = self.server_address[1]

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()


def measure(host: str, port: int, token: str, deadline_s: float) -> tuple[Offset, str]:
    """The other clock less this one, and the own address towards it.

    Raises:
        OSError: no connection, or no answer, within the deadline.
    """
    with socket.create_connection((host, port), timeout=deadline_s) as link:
        link.settimeout(deadline_s)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with link.makefile("rwb", buffering=0) as lines:
            lines.write(token.encode() + b"\n")
            if lines.readline(_LINE) != b"ready\n":
                raise OSError(f"{host}:{port} did not answer as it should")
            trips = []
            for _ in range(ROUND_TRIPS):
                sent = time.time_ns()
                lines.write(b"time\n")
                answer = lines.readline(_LINE)
                back = time.time_ns()
                if not answer.strip().isdigit():
                    raise OSError(f"{host}:{port} stopped answering")
                trips.append((sent, int(answer), back))
        return of_trips(trips), str(link.getsockname()[0])
