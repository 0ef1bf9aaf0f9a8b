"""The record format: what is written is read back, and every kind of damage is found and named."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.event import Event
from harness.model.metrics import Metric
from harness.runtime import recorder
from harness.runtime.recorder import Damage, Frame, Recorder, decode, encode, read_stream, split

EVENT = Event("check", 5, 6, "p1", "rank", "case", 0, 3, {"name": "sum"})


def _recorded(path: Path, rank: int = 3) -> bytes:
    writer = Recorder(path, rank)
    writer.define("collectives", ("step", "message_bytes", "elapsed_ns"))
    writer.sample("collectives", {"step": 0, "message_bytes": 64, "elapsed_ns": 1000})
    writer.sample("collectives", {"step": 1, "message_bytes": 64, "elapsed_ns": -7})
    writer.event(EVENT)
    writer.close()
    return path.read_bytes()


def test_what_a_rank_recorded_is_read_back_whole(tmp_path: Path) -> None:
    ranks, damage, frames = read_stream(_recorded(tmp_path / "r.rec"))
    stream = ranks[3]
    assert (sorted(ranks), damage, frames) == ([3], [], 5)
    assert list(struct.iter_unpack("<qqq", stream.samples["collectives"])) == [(0, 64, 1000), (1, 64, -7)]
    assert [c["name"] for c in stream.columns["collectives"]] == ["step", "message_bytes", "elapsed_ns"]
    assert (stream.events, stream.closed, stream.problems) == ([EVENT], True, [])
    assert stream.count("collectives") == 2


def test_a_stream_that_lacks_a_sample_contradicts_its_closing_record(tmp_path: Path) -> None:
    frames = [f for f in decode(_recorded(tmp_path / "r.rec")) if isinstance(f, Frame)]
    del frames[1]
    ranks, _, _ = read_stream(b"".join(encode(f.kind, f.table, f.rank, f.payload) for f in frames))
    assert ranks[3].problems == ["table collectives: 1 samples, but the rank wrote 2"]


def test_ranks_share_a_stream(tmp_path: Path) -> None:
    data = _recorded(tmp_path / "a.rec", 0) + _recorded(tmp_path / "b.rec", 1)
    ranks, damage, _ = read_stream(data)
    assert {r: s.count("collectives") for r, s in ranks.items()} == {0: 2, 1: 2}
    assert damage == []


def test_a_sample_of_an_undefined_table_is_a_problem() -> None:
    ranks, _, _ = read_stream(encode(recorder.SAMPLE, 4, 0, b"x"))
    assert ranks[0].problems == ["a sample of table number 4, which is not defined"]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8), st.data())
def test_any_single_changed_byte_is_found(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(encode(recorder.SAMPLE, 0, 0, p) for p in payloads)
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    altered = bytearray(whole)
    altered[place] ^= change
    items = list(decode(bytes(altered)))
    kept = [f.payload for f in items if isinstance(f, Frame)]
    assert any(isinstance(i, Damage) for i in items)
    assert len(kept) < len(payloads)
    assert all(p in payloads for p in kept)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8), st.data())
def test_a_torn_end_costs_only_the_torn_frame(payloads: list[bytes], data: st.DataObject) -> None:
    frames = [encode(recorder.SAMPLE, 0, 0, p) for p in payloads]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    length, count = split(whole[:cut])
    assert whole[:length] == b"".join(frames[:count])
    assert length <= cut < length + len(frames[count]) if count < len(frames) else length == cut
    read = [f.payload for f in decode(whole[:cut]) if isinstance(f, Frame)]
    assert read == payloads[:count]


def test_a_column_that_is_no_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'speed'\] are no metrics of harness.model.metrics"):
        Recorder(tmp_path / "r.rec", 0).define("steps", ("step", "speed"))


def test_a_table_defined_twice_must_be_the_same(tmp_path: Path) -> None:
    writer = Recorder(tmp_path / "r.rec", 0)
    writer.define("steps", ("step",))
    writer.define("steps", ("step",))
    with pytest.raises(ValueError, match="was defined with"):
        writer.define("steps", ("step", "loss"))


def test_a_sample_without_a_column_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    writer = Recorder(tmp_path / "r.rec", 0)
    writer.define("steps", ("step", "loss"))
    before = (tmp_path / "r.rec").read_bytes()
    with pytest.raises(KeyError):
        writer.sample("steps", {"step": 1})
    assert (tmp_path / "r.rec").read_bytes() == before


def test_a_metric_that_states_its_own_facts_is_recorded_with_them(tmp_path: Path) -> None:
    own = Metric("gflops", "GFLOP/s", "f8", "higher", "of this program")
    writer = Recorder(tmp_path / "r.rec", 0)
    writer.define("gflops", ("step", own))
    writer.sample("gflops", {"step": 0, "gflops": 1.5})
    writer.close()
    stream = read_stream((tmp_path / "r.rec").read_bytes())[0][0]
    assert [c["name"] for c in stream.columns["gflops"]] == ["step", "gflops"]
    assert stream.columns["gflops"][1] == vars(own)
    assert (stream.count("gflops"), stream.problems) == (1, [])


def test_two_definitions_of_a_metric_in_one_table_are_refused(tmp_path: Path) -> None:
    writer = Recorder(tmp_path / "r.rec", 0)
    writer.define("x", (Metric("x", "s", "f8", "", ""),))
    with pytest.raises(ValueError, match="was defined with"):
        writer.define("x", (Metric("x", "ms", "f8", "", ""),))


def test_the_last_words_of_a_long_record_are_found_at_its_end(tmp_path: Path) -> None:
    writer = Recorder(tmp_path / "r.rec", 0)
    writer.define("steps", ("step",))
    for step in range(10_000):
        writer.sample("steps", {"step": step})
    assert recorder.last_words(tmp_path / "r.rec") == ""
    writer.event(Event("rank.raised", 5, 6, "p1", "rank", "case", 0, 0, {"error": "had enough"}))
    writer.close()
    assert (tmp_path / "r.rec").stat().st_size > 2 * recorder.LAST_BYTES
    assert recorder.last_words(tmp_path / "r.rec") == "had enough"
    assert recorder.last_words(tmp_path / "nothing.rec") == ""
