"""Streams read by the block: the same frames, samples and words as when they are read one record at a time."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import crc, streams
from harness.model.event import Event
from harness.runtime import recorder
from harness.runtime.recorder import Recorder, encode, read_stream

EVENT = Event("check", 5, 6, "p1", "rank", "case", 0, 3, {"name": "sum"})


@given(st.binary(max_size=20), st.integers(0, 70), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_checksums_of_many_are_those_of_each(head: bytes, length: int, count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 256, (count, length), dtype="u1")
    assert crc.of_rows(head, rows).tolist() == [zlib.crc32(head + row.tobytes()) for row in rows]


def test_a_checksum_of_the_longest_message_is_right() -> None:
    rows = np.random.default_rng(1).integers(0, 256, (3, crc.LONGEST), dtype="u1")
    assert crc.of_rows(b"x", rows).tolist() == [zlib.crc32(b"x" + row.tobytes()) for row in rows]


def _stream(folder: Path, ranks: int = 3, steps: int = 200) -> bytes:
    """Ranks whose records were shipped in turns, with two tables each."""
    paths = [folder / f"rank-{n}.rec" for n in range(ranks)]
    writers = [Recorder(path, n) for n, path in enumerate(paths)]
    shipped = [0] * ranks
    data = b""
    for writer in writers:
        writer.define("steps", ("step", "step_time_ns"))
    rng = random.Random(7)
    for step in range(steps):
        for n, writer in enumerate(writers):
            writer.sample("steps", {"step": step, "step_time_ns": rng.getrandbits(60)})
            if step == 3:
                writer.define("losses", ("step", "loss", "step_time_ns"))
            if step > 3 and step % 3 == 0:
                writer.sample("losses", {"step": step, "loss": rng.random(), "step_time_ns": n})
            if step % 50 == 0:
                writer.event(EVENT)
        if step % 20 == 0 or step == steps - 1:
            for n, path in enumerate(paths):
                new = path.read_bytes()[shipped[n] :]
                shipped[n] += len(new)
                data += new
    for n, (writer, path) in enumerate(zip(writers, paths, strict=True)):
        writer.close()
        data += path.read_bytes()[shipped[n] :]
        path.unlink()
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _stream(tmp_path_factory.mktemp("stream"))


def _alike(data: bytes, block: int) -> None:
    reader = streams._Reader()
    for start in range(0, len(data), block):
        reader.feed(data[start : start + block])
    found = reader.finish()
    ranks, damage, frames = read_stream(data)
    assert (found.damaged, found.frames, found.bytes) == (len(damage), frames, len(data))
    assert {
        n: (r.columns, {t: s.tobytes() for t, s in r.samples.items()}, r.events, r.closed)
        for n, r in found.ranks.items()
    } == {n: (r.columns, r.samples, r.events, r.closed) for n, r in ranks.items()}
    strays = [p for r in ranks.values() for p in r.problems if "is not defined" not in p]
    assert [p for r in found.ranks.values() for p in r.problems if "is not defined" not in p] == strays


@pytest.mark.parametrize("block", [1 << 20, 4096, 333, 61])
def test_a_whole_stream_is_read_alike_in_blocks_of_any_size(data: bytes, block: int) -> None:
    _alike(data, block)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_stream_is_read_alike(data: bytes, seed: int) -> None:
    """Bytes changed, cut out, put in, frames doubled, and an end torn off."""
    rng = random.Random(seed)
    altered = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        place, size = rng.randrange(len(altered)), rng.randrange(1, 90)
        what = rng.randrange(5)
        if what == 0:
            altered[place] ^= rng.randrange(1, 256)
        elif what == 1:
            del altered[place : place + size]
        elif what == 2:
            altered[place:place] = rng.randbytes(size)
        elif what == 3:
            altered[place:place] = recorder.MAGIC + rng.randbytes(size)
        else:
            del altered[len(altered) - size :]
    _alike(bytes(altered), rng.choice([100, 1000, 1 << 20]))


def test_frames_inside_a_payload_are_none_of_the_stream() -> None:
    inner = encode(recorder.SAMPLE, 1, 2, b"12345678")
    outer = encode(recorder.EVENT, 0, 0, inner) + encode(recorder.SAMPLE, 4, 0, inner)
    for block in (7, 1000):
        _alike(outer * 3, block)


def test_a_file_that_is_all_something_else_is_one_stretch_of_damage() -> None:
    reader = streams._Reader()
    for _ in range(50):
        reader.feed(b"\x00H" * 5000)
    found = reader.finish()
    assert (found.damaged, found.frames, found.bytes, found.ranks) == (1, 0, 500_000, {})


def test_samples_of_an_undefined_table_are_counted() -> None:
    reader = streams._Reader()
    reader.feed(encode(recorder.SAMPLE, 4, 0, b"x") * 30)
    assert reader.finish().ranks[0].problems == ["30 samples of table number 4, which is not defined"]


def test_samples_that_are_not_as_long_as_their_columns_are_left_out_and_told(tmp_path: Path) -> None:
    writer = Recorder(tmp_path / "r.rec", 0)
    writer.define("steps", ("step",))
    writer.sample("steps", {"step": 4})
    (tmp_path / "r.rec").open("ab").write(encode(recorder.SAMPLE, 0, 0, b"123"))
    found = streams.read(tmp_path / "r.rec").ranks[0]
    assert found.problems == ["table steps: 1 samples are not as long as its columns"]
    assert found.samples["steps"]["step"].tolist() == [4]


def test_a_file_that_was_opened_again_numbers_its_tables_anew(tmp_path: Path) -> None:
    """As when a second process goes on with the records of a rank: number 0 is another table from then on."""
    first = Recorder(tmp_path / "r.rec", 0)
    first.define("steps", ("step",))
    for step in range(20):
        first.sample("steps", {"step": step})
    first.abandon()
    second = Recorder(tmp_path / "r.rec", 0)
    second.define("losses", ("step",))
    for step in range(30):
        second.sample("losses", {"step": step})
    second.close()
    _alike((tmp_path / "r.rec").read_bytes(), 1 << 20)
    found = streams.read(tmp_path / "r.rec").ranks[0].samples
    assert {table: len(rows) for table, rows in found.items()} == {"steps": 20, "losses": 30}
