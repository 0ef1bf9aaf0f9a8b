"""Messages between supervisor and agents: JSON lines over TCP, typed, versioned, authenticated once.

The first line of a connection must carry the job's token (from a 0600 file in the run folder) and the
protocol version; anything else is closed unread. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from typing import Any

VERSION = 1
MAX_LINE = 1 << 20

Message = dict[str, Any]


class ChannelClosed(Exception):
    """The other side is gone, or spoke nonsense."""


class Channel:
    """One connection, either side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def local_address(self) -> str:
        """Own address on this connection: the one by which the other side reaches this node."""
        return str(self._writer.get_extra_info("sockname")[0])

    @property
    def peer_address(self) -> str:
        """Address of the other side."""
        return str(self._writer.get_extra_info("peername")[0])

    def send(self, kind: str, **content: Any) -> None:
        """Queue one message; never blocks. A connection that is gone is noticed by ``receive``."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"type": kind, **content}, separators=(",", ":")).encode() + b"\n")

    async def flush(self, deadline_s: float) -> None:
        """Wait until what was sent has left this process, or the deadline."""
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.drain(), deadline_s)

    async def receive(self) -> Message:
        """The next message.

        Raises:
            ChannelClosed: no more will come.
        """
        try:
            line = await self._reader.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except (ConnectionError, ValueError, OSError) as error:
            raise ChannelClosed(str(error)) from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ChannelClosed("end of the connection" if message is None else "not a message")
        return message

    def close(self) -> None:
        """Close without waiting."""
        with contextlib.suppress(Exception):  # closing a socket that is already broken cannot matter
            self._writer.close()


async def connect(host: str, port: int, token: str, node: str, deadline_s: float) -> Channel:
    """Connect to the supervisor and say who we are.

    Raises:
        ChannelClosed: no connection within the deadline.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(host, port, limit=MAX_LINE), max(0.1, end - loop.time())
            )
            break
        except (OSError, asyncio.TimeoutError) as error:
            if loop.time() >= end:
                raise ChannelClosed(
                    f"supervisor at {host}:{port} not reached in {deadline_s} s: {error}"
                ) from None
            await asyncio.sleep(0.1)
    channel = Channel(reader, writer)
    channel.send("hello", version=VERSION, token=token, node=node)
    return channel


async def authenticate(channel: Channel, token: str, deadline_s: float) -> Message | None:
    """Read the first message of a new connection; None, and closed, when it is not one of ours."""
    try:
        hello = await asyncio.wait_for(channel.receive(), deadline_s)
    except (ChannelClosed, asyncio.TimeoutError):
        channel.close()
        return None
    given = str(hello.get("token", ""))
    if hello["type"] != "hello" or hello.get("version") != VERSION or not hmac.compare_digest(given, token):
        channel.close()
        return None
    return hello
