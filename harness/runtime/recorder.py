"""Fixed records with a checksum, appended one by one: how ranks record, and how their streams are read.

A rank writes each record with one ``write`` to a node-local file, so its death loses nothing that the
call returned for. The node's agent ships whole records to shared storage. The same framing is used in
both places; a stream defines its tables and metrics itself, so a reader needs no other file.
Standard library only. `make bench` says what a record costs, beside other ways to keep it.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.model import event as ev
from harness.model.event import Event
from harness.model.metrics import METRICS, Metric

# magic, kind, table, rank, payload length, CRC-32 of all that precedes it in the header and of the payload
HEADER = struct.Struct("<4sBBxxiII")
MAGIC = b"HRF1"
_CHECKED = HEADER.size - 4
_SUM = struct.Struct("<I")

SCHEMA, SAMPLE, EVENT, CLOSE = 1, 2, 3, 4
MAX_PAYLOAD = 1 << 20
LAST_BYTES = 1 << 17  # of a file, in which a rank's last words are; reading all of it could take seconds
MAX_TABLES = 256  # a frame's table is one byte
TYPES = {"i8": "q", "f8": "d"}


def encode(kind: int, table: int, rank: int, payload: bytes) -> bytes:
    """One frame."""
    head = HEADER.pack(MAGIC, kind, table, rank, len(payload), 0)[:_CHECKED]
    return head + _SUM.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


@dataclass(frozen=True)
class Frame:
    """One whole, verified frame."""

    kind: int
    table: int
    rank: int
    payload: bytes


@dataclass(frozen=True)
class Damage:
    """Bytes that are no frame: torn by a crash, or altered."""

    offset: int
    bytes: int


def split(data: bytes) -> tuple[int, int]:
    """Length in bytes of the whole frames that ``data`` begins with, and their number."""
    offset = count = 0
    while offset + HEADER.size <= len(data):
        magic, _, _, _, length, _ = HEADER.unpack_from(data, offset)
        if magic != MAGIC or length > MAX_PAYLOAD or offset + HEADER.size + length > len(data):
            break
        offset += HEADER.size + length
        count += 1
    return offset, count


def decode(data: bytes) -> Iterator[Frame | Damage]:
    """Frames of a stream in order; damaged stretches are skipped to the next whole frame and reported."""
    offset = 0
    while offset < len(data):
        frame = _frame_at(data, offset)
        if frame is not None:
            yield frame
            offset += HEADER.size + len(frame.payload)
            continue
        following = data.find(MAGIC, offset + 1)
        while following != -1 and _frame_at(data, following) is None:
            following = data.find(MAGIC, following + 1)
        end = len(data) if following == -1 else following
        yield Damage(offset, end - offset)
        offset = end


def _frame_at(data: bytes, offset: int) -> Frame | None:
    if offset + HEADER.size > len(data):
        return None
    magic, kind, table, rank, length, crc = HEADER.unpack_from(data, offset)
    if magic != MAGIC or length > MAX_PAYLOAD or offset + HEADER.size + length > len(data):
        return None
    payload = data[offset + HEADER.size : offset + HEADER.size + length]
    if zlib.crc32(payload, zlib.crc32(data[offset : offset + _CHECKED])) != crc:
        return None
    return Frame(kind, table, rank, payload)


def ends_whole(tail: bytes) -> bool:
    """Whether a stream, of which these are the last bytes, ends with a whole frame."""
    offset = tail.rfind(MAGIC)
    while offset != -1:
        frame = _frame_at(tail, offset)
        if frame is not None:
            return offset + HEADER.size + len(frame.payload) == len(tail)
        offset = tail.rfind(MAGIC, 0, offset)
    return False


class _Table(NamedTuple):
    """What of a sample's frame is the same for every sample of a table."""

    head: bytes
    start: int  # CRC-32 of the head, to go on from
    packing: struct.Struct
    columns: tuple[str, ...]


class Recorder:
    """Appends the records of one rank (or, with rank -1, of a node's agent) to one file."""

    def __init__(self, path: Path, rank: int) -> None:
        self.rank, self.path = rank, path
        self._path = str(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._tables: dict[str, _Table] = {}
        self._metrics: dict[str, tuple[Metric, ...]] = {}
        self._samples: dict[str, int] = {}
        self._events = 0

    def define(self, table: str, columns: Sequence[str | Metric]) -> None:
        """Say which metrics a table holds, by name or by definition; one that is defined again must be the same.

        Raises:
            ValueError: a column is no known metric, the table was defined otherwise, or there are too many.
        """
        unknown = [c for c in columns if isinstance(c, str) and c not in METRICS]
        if unknown:
            raise ValueError(
                f"table {table!r}: {unknown} are no metrics of harness.model.metrics; define them there"
            )
        metrics = tuple(METRICS[c] if isinstance(c, str) else c for c in columns)
        if table in self._tables:
            if self._metrics[table] != metrics:
                raise ValueError(f"table {table!r} was defined with {self._metrics[table]}, now {metrics}")
            return
        number = len(self._tables)
        if number >= MAX_TABLES:
            raise ValueError(f"table {table!r} is one too many, {MAX_TABLES} are allowed")
        packing = struct.Struct("<" + "".join(TYPES[m.type] for m in metrics))
        head = HEADER.pack(MAGIC, SAMPLE, number, self.rank, packing.size, 0)[:_CHECKED]
        self._tables[table] = _Table(head, zlib.crc32(head), packing, tuple(m.name for m in metrics))
        self._metrics[table] = metrics
        self._samples[table] = 0
        description = {"table": table, "columns": [vars(m) for m in metrics]}
        self._append(encode(SCHEMA, number, self.rank, json.dumps(description).encode()))

    def sample(self, table: str, values: Mapping[str, int | float]) -> None:
        """Append one sample.

        Raises:
            KeyError: the table was not defined, or a column has no value.
            struct.error: a value is not of its column's type.
        """
        head, start, packing, columns = self._tables[table]
        if len(values) != len(columns):
            raise KeyError(f"table {table!r} has columns {columns}, got {sorted(values)}")
        payload = packing.pack(*[values[c] for c in columns])
        self._append(head + _SUM.pack(zlib.crc32(payload, start)) + payload)
        self._samples[table] += 1

    def event(self, event: Event) -> None:
        """Append one event."""
        payload = json.dumps(event.to_json(), separators=(",", ":")).encode()
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(
                f"event {event.kind} has {len(payload)} bytes, at most {MAX_PAYLOAD} are allowed"
            )
        self._append(encode(EVENT, 0, self.rank, payload))
        self._events += 1

    def close(self) -> None:
        """Append how much was recorded, so that a reader knows that it has all of it."""
        payload = json.dumps({"samples": self._samples, "events": self._events}).encode()
        self._append(encode(CLOSE, 0, self.rank, payload))
        os.close(self._descriptor)

    def abandon(self) -> None:
        """Close without a closing record: a reader then knows that some may be missing."""
        os.close(self._descriptor)

    def _append(self, frame: bytes) -> None:
        """One write, so that a death of this process costs no record that was taken.

        Raises:
            OSError: the disk takes no more; the file ends with the last whole record.
        """
        try:
            written = os.write(self._descriptor, frame)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from None
        if written != len(frame):
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)


@dataclass
class RankStream:
    """What one rank recorded, decoded."""

    columns: dict[str, tuple[dict[str, Any], ...]]  # table -> facts of its columns
    samples: dict[str, bytes]  # table -> packed rows, one after the other
    events: list[Event]
    closed: bool
    problems: list[str]

    def count(self, table: str) -> int:
        """Number of samples of a table."""
        size = sum(struct.calcsize("<" + TYPES[c["type"]]) for c in self.columns[table])
        return len(self.samples[table]) // size if size else 0


def read_stream(data: bytes) -> tuple[dict[int, RankStream], list[Damage], int]:
    """Decode a node's stream: what each rank recorded, the damaged stretches, the number of whole frames.

    A rank whose closing record disagrees with what was read says so in its ``problems``.
    """
    ranks: dict[int, RankStream] = {}
    names: dict[tuple[int, int], str] = {}
    parts: dict[tuple[int, str], list[bytes]] = {}
    damage: list[Damage] = []
    frames = 0
    for item in decode(data):
        if isinstance(item, Damage):
            damage.append(item)
            continue
        frames += 1
        rank = ranks.setdefault(item.rank, RankStream({}, {}, [], False, []))
        if item.kind == SAMPLE:
            name = names.get((item.rank, item.table))
            if name is None:
                rank.problems.append(f"a sample of table number {item.table}, which is not defined")
            else:
                parts[item.rank, name].append(item.payload)
            continue
        try:
            content = json.loads(item.payload)
            if item.kind == SCHEMA:
                names[item.rank, item.table] = content["table"]
                rank.columns[content["table"]] = tuple(content["columns"])
                parts.setdefault((item.rank, content["table"]), [])
            elif item.kind == EVENT:
                rank.events.append(Event.from_json(content))
            elif item.kind == CLOSE:
                rank.closed = True
                _compare(item.rank, rank, parts, content)
        except (ValueError, KeyError, TypeError) as error:
            rank.problems.append(f"a record of kind {item.kind} that cannot be read: {error}")
    for (number, name), rows in parts.items():
        ranks[number].samples[name] = b"".join(rows)
    return ranks, damage, frames


def _compare(
    number: int, rank: RankStream, parts: Mapping[tuple[int, str], list[bytes]], said: Mapping[str, Any]
) -> None:
    for table, count in said["samples"].items():
        found = len(parts.get((number, table), []))
        if found != count:
            rank.problems.append(f"table {table}: {found} samples, but the rank wrote {count}")
    if len(rank.events) != said["events"]:
        rank.problems.append(f"{len(rank.events)} events, but the rank wrote {said['events']}")


def last_words(path: Path) -> str:
    """What a rank recorded of its own failure at the end of its file; "" when it did not, or there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            data = file.read()
    except OSError:
        return ""
    words = ""
    for stream in read_stream(data)[0].values():
        for event in stream.events:
            if event.kind == ev.RANK_RAISED:
                words = str(event.data.get("error", ""))
            elif event.kind == ev.WORLD_WRONG:
                words = str(event.data.get("message", ""))
    return words
