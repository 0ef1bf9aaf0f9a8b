"""What is read from a program's output, and what is kept of it."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.command_parts import CommandMetric
from harness.runtime import output, readings
from harness.runtime.output import Lines, Log
from harness.runtime.readings import Pattern, Reading


def _lines(*parts: bytes) -> list[str]:
    heard: list[str] = []
    lines = Lines(heard.append)
    for part in parts:
        lines.feed(part)
    lines.close()
    return heard


def test_lines_end_at_line_feeds_and_carriage_returns_and_the_last_need_not_end() -> None:
    assert _lines(b"one\ntwo\r\n\r10%\r20%", b"\rthr", b"ee") == ["one", "two", "10%", "20%", "three"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert _lines(b"a\xff\xfeb\n\x00\n") == ["a\ufffd\ufffdb", "\x00"]


def test_of_a_line_without_end_the_beginning_is_heard_once() -> None:
    long = b"x" * (output.LINE_BYTES + 5)
    assert _lines(long, b"y" * 99, long, b"\nnext\n") == ["x" * output.LINE_BYTES, "next"]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_how_the_bytes_arrive_changes_nothing(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert _lines(*parts) == _lines(data)


def test_a_log_keeps_the_beginning_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LOG_BYTES", 10)
    monkeypatch.setattr(output, "TAIL_BYTES", 4)
    log = Log(tmp_path / "log")
    for digit in b"0123456789abcdefghij":
        log.write(bytes([digit]))
    log.close()
    assert (tmp_path / "log").read_bytes() == (
        b"0123456789\n[harness] 6 bytes are not kept here; the last ones follow\nghij"
    )


def test_a_log_that_is_short_is_kept_as_it_was(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.write(b"\xff\x00no end of line")
    log.note("a word")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"\xff\x00no end of line\n[harness] a word\n"


def _reading(**declared: Any) -> tuple[Reading, list[dict[str, Any]], Callable[[str], None]]:
    """A declared metric, the samples it records, and how it is fed."""
    metric = CommandMetric.model_validate({"name": "x", "unit": "s", **declared})
    (reading,) = readings.readings([metric.model_dump(mode="json")], {"ranks": "4"}, False)
    rows: list[dict[str, Any]] = []
    return reading, rows, lambda line: reading.take(line, lambda table, row: rows.append(dict(row)), {})


def test_every_match_of_a_line_is_a_sample() -> None:
    reading, rows, feed = _reading(regex=r"x=(?P<value>\S+)")
    for line in ("x=1 x=2.5e-3", "y=3", "x=-0"):
        feed(line)
    assert rows == [{"x": 1.0}, {"x": 0.0025}, {"x": 0.0}]
    assert reading.verdict() == (True, "at least one number, and nothing but numbers", "3 numbers")


def test_placeholders_of_a_regex_are_quoted() -> None:
    _, rows, feed = _reading(regex=r"{ranks}: (?P<value>\d{1,3})")
    feed("4: 123")
    assert rows == [{"x": 123.0}]


@pytest.mark.parametrize("value", ["nan", "inf", "1,234", "", "1e999", "0x10", "one"])
def test_what_is_no_finite_number_is_no_sample_and_told(value: str) -> None:
    reading, rows, feed = _reading(regex="x=(?P<value>.*)")
    feed("x=1")
    feed(f"x={value}")
    assert rows == [{"x": 1.0}]
    assert reading.verdict()[0] is False
    assert reading.verdict()[2] == f"1 of 2 are none: x = {value!r}"


def test_coordinates_are_columns_before_the_metric_and_whole_where_they_must_be() -> None:
    reading, rows, feed = _reading(
        regex=r"(?P<message_bytes>\S+) (?P<depth>\S+) (?P<value>\S+)",
        coordinates={"message_bytes": "B", "depth": "1"},
    )
    feed("8 0.5 2")
    feed("8.5 0.5 2")
    feed("1e30 0.5 2")
    assert [c.name for c in reading.columns] == ["message_bytes", "depth", "x"]
    assert rows == [{"message_bytes": 8, "depth": 0.5, "x": 2.0}]
    assert reading.bad == "message_bytes = '8.5'"


def test_keys_are_found_in_lines_that_are_objects() -> None:
    _, rows, feed = _reading(json="result.time", coordinates={"size": "B"})
    for line in (
        '{"result": {"time": 1, "size": 8}}',
        ' {"result": {"time": "2.5", "size": "16"}, "other": [1]} ',
        '{"result": 3}',
        '{"result": {"time": true, "size": 1}}',
        "{broken",
        "[1]",
        "result.time",
    ):
        feed(line)
    assert rows == [{"size": 8.0, "x": 1.0}, {"size": 16.0, "x": 2.5}]


def test_coordinates_that_are_not_beside_a_key_are_looked_for_at_the_top() -> None:
    _, rows, feed = _reading(json="a.b", coordinates={"size": "B"})
    feed('{"a": {"b": 3.5}, "size": 8}')
    feed('{"a": {"b": 4.5, "size": 16}, "size": 8}')
    assert rows == [{"size": 8.0, "x": 3.5}, {"size": 16.0, "x": 4.5}]


@pytest.mark.parametrize("kind", ["criterion", "figure"])
def test_a_pattern_that_takes_too_long_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "SEARCH_S", 0.1)
    figure = _reading(regex="(?P<value>(a+)+)$")[2]
    take = Pattern("(a+)+$", True).take if kind == "criterion" else figure
    with pytest.raises(readings.TooSlow) as slow, readings.bounded():
        take("a" * 40 + "b")
    pattern = "(a+)+$" if kind == "criterion" else "(?P<value>(a+)+)$"
    assert str(slow.value).startswith(
        f"reading what it said with the pattern {pattern!r} took longer than 0.1 s for one line; "
    )


def test_what_takes_long_without_a_pattern_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "SEARCH_S", 0.1)
    with readings.bounded():
        Pattern("a", True).take("a")
        time.sleep(0.5)


def test_samples_beyond_the_limit_are_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "MAX_SAMPLES", 2)
    reading, rows, feed = _reading(regex="(?P<value>.)")
    feed("123")
    assert (len(rows), reading.verdict()) == (2, (False, "at most 2 on a rank", "3"))


def test_a_metric_that_was_never_said_fails_only_if_it_is_required() -> None:
    assert _reading(regex="(?P<value>x)")[0].verdict()[0] is False
    assert _reading(regex="(?P<value>x)", required=False)[0].verdict()[0] is True


def test_a_metric_of_the_harness_keeps_its_definition() -> None:
    reading, _, _ = _reading(
        name="loss", unit="1", direction="lower", regex="(?P<value>x)", definition="mine"
    )
    assert reading.columns[-1].definition == "training loss of the step's batch, mean over ranks"


def test_patterns_that_must_and_must_not_be_matched() -> None:
    wanted, unwanted = Pattern("^ok", True), Pattern("error", False)
    for line in ("starting", "ok then", "ok again"):
        wanted.take(line)
        unwanted.take(line)
    assert wanted.verdict() == (True, "a line like '^ok'", "the line 'ok then'")
    assert unwanted.verdict() == (True, "no line like 'error'", "none of 3 lines")
    unwanted.take("an error")
    assert unwanted.verdict() == (False, "no line like 'error'", "the line 'an error'")
