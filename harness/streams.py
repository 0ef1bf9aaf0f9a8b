"""Reads the streams of nodes for ``collect``: as ``recorder.read_stream``, frame for frame, but millions a second.

In a stretch without damage every frame ends where the next one begins; such stretches are read and checked with
numpy. Where that is not so, ``recorder``'s rules are followed one frame at a time until it is again. In memory are
the samples of one stream, and a block.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import crc
from harness.model.event import Event
from harness.runtime.recorder import CLOSE, EVENT, HEADER, MAGIC, MAX_PAYLOAD, SAMPLE, SCHEMA

BLOCK_BYTES = 8 << 20
_SIZE = HEADER.size
_SUMMED = _SIZE - 4  # bytes of the header that the checksum is of
_FEW = 8  # frames that are quicker looked at one by one

Numbers = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Rows = NDArray[np.void]


@dataclass
class RankRecords:
    """What one rank recorded."""

    columns: dict[str, tuple[dict[str, Any], ...]] = field(
        default_factory=dict
    )  # table -> facts of its columns
    samples: dict[str, Rows] = field(default_factory=dict)  # table -> rows, with fields named as the columns
    events: list[Event] = field(default_factory=list)
    closed: bool = False
    problems: list[str] = field(default_factory=list)


@dataclass
class NodeStream:
    """A stream, decoded."""

    ranks: dict[int, RankRecords] = field(default_factory=dict)
    damaged: int = 0  # stretches that are no frames
    frames: int = 0
    bytes: int = 0
    begins_otherwise: bool = (
        False  # with neither a frame nor zeros, as a file has that is not all to be seen yet
    )


def read(path: Path, block_bytes: int = BLOCK_BYTES) -> NodeStream:
    """Read a node's stream.

    Raises:
        OSError: it cannot be read, or is not there.
    """
    reader = _Reader()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while block := file.read(block_bytes):
            reader.feed(block)
    return reader.finish()


class _Frames:
    """Where frames may begin in a piece of a stream, and their headers; nothing is checked but that they fit."""

    def __init__(self, data: bytes) -> None:
        self.raw: Bytes = np.frombuffer(data, dtype="u1")
        offsets = np.flatnonzero(self.raw[: max(0, len(data) - _SIZE + 1)] == MAGIC[0])
        for n in range(1, len(MAGIC)):
            offsets = offsets[self.raw[offsets + n] == MAGIC[n]]
        heads = gather(self.raw, offsets, _SIZE)
        lengths = heads[:, 12:16].copy().view("<u4").ravel().astype("i8")
        fits = (lengths <= MAX_PAYLOAD) & (offsets + _SIZE + lengths <= len(data))
        self.offsets: Numbers = offsets[fits]
        self.heads: Bytes = heads[fits]
        self.lengths: Numbers = lengths[fits]
        self.ends: Numbers = self.offsets + _SIZE + self.lengths
        # After these the next frame does not begin where it should: damage, or a payload that looks like a frame.
        self.breaks: Numbers = np.flatnonzero(self.ends[:-1] != self.offsets[1:])

    def chain(self, place: int) -> tuple[int, int]:
        """Frames that follow each other from a place on: the first, and the one after the last."""
        first = int(np.searchsorted(self.offsets, place))
        if first == len(self.offsets) or self.offsets[first] != place:
            return 0, 0
        which = int(np.searchsorted(self.breaks, first))
        return first, int(self.breaks[which]) + 1 if which < len(self.breaks) else len(self.offsets)


def gather(raw: Bytes, offsets: Numbers, length: int) -> Bytes:
    """So many bytes from each offset: shape (n, length)."""
    if not length or not len(offsets):
        return np.empty((len(offsets), length), dtype="u1")
    windows = np.ndarray((len(raw) - length + 1,), dtype=f"V{length}", buffer=raw, strides=(1,))
    return windows[offsets].view("u1").reshape(-1, length)


class _Reader:
    """Takes a stream block by block."""

    def __init__(self) -> None:
        self.stream = NodeStream()
        self._rest = b""
        self._in_damage = False
        self._names: dict[tuple[int, int], str] = {}  # rank, number of a table -> its name
        self._parts: dict[
            tuple[int, str], list[Bytes]
        ] = {}  # rank, table -> payloads, each of shape (n, length)
        self._strays: dict[
            tuple[int, int], int
        ] = {}  # rank, number of a table that is not defined -> samples

    def feed(self, block: bytes) -> None:
        """Take the next block."""
        if not self.stream.bytes:
            self.stream.begins_otherwise = not block.startswith(MAGIC) and any(block[: len(MAGIC)])
        self.stream.bytes += len(block)
        data = self._rest + block
        self._rest = data[self._take(data, more=True) :]

    def finish(self) -> NodeStream:
        """The stream has ended."""
        self._take(self._rest, more=False)
        for (rank, number), count in self._strays.items():
            self.stream.ranks[rank].problems.append(
                f"{count} samples of table number {number}, which is not defined"
            )
        for (rank, name), parts in self._parts.items():
            self._join(self.stream.ranks[rank], name, parts)
        return self.stream

    def _take(self, data: bytes, *, more: bool) -> int:
        """Read the frames of ``data``; returns how much of it need not be seen again."""
        frames = _Frames(data)
        place = 0
        while place < len(data):
            if frame := self._whole(frames, place):
                self._in_damage = False
                place = frame
            elif more and _may_become_frame(data, place):
                return place
            else:
                self.stream.damaged += not self._in_damage
                self._in_damage = True
                following = data.find(MAGIC, place + 1)
                if following == -1:
                    return max(place + 1, len(data) - len(MAGIC) + 1) if more else len(data)
                place = following
        return len(data)

    def _whole(self, frames: _Frames, place: int) -> int:
        """Take the right frames that follow each other from here on; returns where they end, 0 if there is none."""
        first, last = frames.chain(place)
        if first == last:
            return 0
        last = _edge(frames.heads[first:last]) + first
        groups = _groups(frames, first, last)
        good, checked = last, []
        for members in groups:
            payloads, wrong = _checked(frames, members)
            good = min(good, wrong)
            checked.append((members, payloads))
        if good == first:
            return 0
        self._deliver(frames, checked, good)
        return int(frames.ends[good - 1])

    def _deliver(self, frames: _Frames, checked: list[tuple[Numbers, Bytes]], good: int) -> None:
        """Take the frames before the first wrong one: definitions, then samples, then the others in their order."""
        others: list[int] = []
        samples: list[tuple[Numbers, Bytes]] = []
        for members, payloads in checked:
            right = int(np.searchsorted(members, good))
            if not right:
                continue
            self.stream.frames += right
            if frames.heads[members[0], 4] == SAMPLE:
                samples.append((members[:right], payloads[:right]))
            else:
                others += members[:right].tolist()
        others.sort()
        for n in others:
            if frames.heads[n, 4] == SCHEMA:
                self._other(frames, n)
        for members, payloads in samples:
            self._samples(frames.heads[members[0]], payloads)
        for n in others:
            if frames.heads[n, 4] != SCHEMA:
                self._other(frames, n)

    def _samples(self, head: Bytes, payloads: Bytes) -> None:
        _, _, number, rank, _, _ = HEADER.unpack(head.tobytes())
        self.stream.ranks.setdefault(rank, RankRecords())
        name = self._names.get((rank, number))
        if name is None:
            self._strays[rank, number] = self._strays.get((rank, number), 0) + len(payloads)
        else:
            self._parts[rank, name].append(payloads)

    def _other(self, frames: _Frames, n: int) -> None:
        """Take a frame that is no sample."""
        _, kind, number, rank, length, _ = HEADER.unpack(frames.heads[n].tobytes())
        begin = int(frames.offsets[n]) + _SIZE
        records = self.stream.ranks.setdefault(rank, RankRecords())
        try:
            content = json.loads(frames.raw[begin : begin + length].tobytes())
            if kind == SCHEMA:
                self._names[rank, number] = content["table"]
                records.columns[content["table"]] = tuple(content["columns"])
                self._parts.setdefault((rank, content["table"]), [])
            elif kind == EVENT:
                records.events.append(Event.from_json(content))
            elif kind == CLOSE:
                records.closed = True
                self._compare(rank, records, content)
        except (ValueError, KeyError, TypeError) as error:
            records.problems.append(f"a record of kind {kind} that cannot be read: {error}")

    def _compare(self, rank: int, records: RankRecords, said: Mapping[str, Any]) -> None:
        """A rank's closing record against what was read."""
        for table, count in said["samples"].items():
            found = sum(len(part) for part in self._parts.get((rank, table), []))
            if found != count:
                records.problems.append(f"table {table}: {found} samples, but the rank wrote {count}")
        if len(records.events) != said["events"]:
            records.problems.append(f"{len(records.events)} events, but the rank wrote {said['events']}")

    def _join(self, records: RankRecords, name: str, parts: list[Bytes]) -> None:
        """Make rows of the payloads of a table."""
        row = np.dtype([(c["name"], f"<{c['type']}") for c in records.columns[name]])
        fitting = [part for part in parts if part.shape[1] == row.itemsize]
        if len(fitting) < len(parts):
            wrong = sum(len(part) for part in parts) - sum(len(part) for part in fitting)
            records.problems.append(f"table {name}: {wrong} samples are not as long as its columns")
        joined = (
            fitting[0]
            if len(fitting) == 1
            else np.concatenate(fitting)
            if fitting
            else np.empty((0, 1), "u1")
        )
        parts.clear()
        records.samples[name] = joined.view(row).ravel() if len(joined) else np.empty(0, dtype=row)


def _may_become_frame(data: bytes, place: int) -> bool:
    """Whether what begins here could be a whole frame if more bytes followed."""
    head = data[place : place + _SIZE]
    if len(head) < _SIZE:
        return head.startswith(MAGIC) or MAGIC.startswith(head[: len(MAGIC)])
    length = HEADER.unpack(head)[4]
    return head.startswith(MAGIC) and length <= MAX_PAYLOAD and place + _SIZE + length > len(data)


def _edge(heads: Bytes) -> int:
    """How many of these frames can be taken together: up to a closing record, and to a definition that comes after
    samples of its table."""
    kinds = heads[:, 4]
    closing = np.flatnonzero(kinds == CLOSE)
    end = int(closing[0]) + 1 if len(closing) else len(kinds)
    for n in np.flatnonzero(kinds[:end] == SCHEMA).tolist():
        before = heads[:n]
        same = (before[:, 4] == SAMPLE) & (before[:, 5:12] == heads[n, 5:12]).all(axis=1)
        if bool(same.any()):
            return n
    return end


def _groups(frames: _Frames, first: int, last: int) -> list[Numbers]:
    """Frames of these, by what their headers say: kind, table, rank and length."""
    heads = frames.heads[first:last]
    keys = np.ascontiguousarray(heads[:, 4:12]).view("<u8").ravel()
    lengths = frames.lengths[first:last]
    changes = np.flatnonzero((keys[1:] != keys[:-1]) | (lengths[1:] != lengths[:-1])) + 1
    begins = np.concatenate(([0], changes))
    # Two numbers that are alike for alike headers; sorted, alike ones lie together.
    order = np.lexsort((lengths[begins], keys[begins]))
    one = np.stack((keys[begins][order], lengths[begins][order].astype("u8")))
    numbers = np.empty(len(order), dtype="i8")
    numbers[order] = np.concatenate(([0], np.cumsum((one[:, 1:] != one[:, :-1]).any(axis=0))))
    of_frame = np.repeat(numbers, np.diff(np.concatenate((begins, [len(keys)]))))
    if numbers.max() == 0:
        return [np.arange(first, last)]
    places = np.argsort(of_frame.astype("u2") if numbers.max() < 1 << 16 else of_frame, kind="stable")
    cuts = np.flatnonzero(np.diff(of_frame[places])) + 1
    return [part + first for part in np.split(places, cuts)]


def _checked(frames: _Frames, members: Numbers) -> tuple[Bytes, int]:
    """Payloads of frames with alike headers, and which is the first whose checksum is wrong: one after all if none."""
    length = int(frames.lengths[members[0]])
    payloads = gather(frames.raw, frames.offsets[members] + _SIZE, length)
    head = frames.heads[members[0], :_SUMMED].tobytes()
    said = frames.heads[members, _SUMMED:].copy().view("<u4").ravel()
    if len(members) < _FEW or length > crc.LONGEST:
        start = zlib.crc32(head)
        found = np.array([zlib.crc32(row.tobytes(), start) for row in payloads], dtype="u4")
    else:
        found = crc.of_rows(head, payloads)
    wrong = np.flatnonzero(found != said)
    return payloads, int(members[wrong[0]]) if len(wrong) else len(frames.offsets)
