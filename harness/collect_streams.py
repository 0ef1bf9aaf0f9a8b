"""The streams of an attempt, for ``collect``: which there should be, what each is, and what is in it.

Nothing here stops for a stream that is bad; it is named, with what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import streams
from harness.model.attempt import Attempt, StreamEnd
from harness.model.case import Case
from harness.streams import NodeStream, RankRecords

COMPLETE, GAP, OPEN, SHORT, TORN, MISSING, FOREIGN = (
    "complete",
    "gap",
    "open",
    "short",
    "torn",
    "missing",
    "foreign",
)
WHOLE = (COMPLETE, GAP, OPEN)  # of these nothing is lacking that could be here
TOLD = 40  # streams that are not as they should be, a line each


@dataclass(frozen=True)
class Found:
    """A stream as it is found."""

    node: str
    path: Path
    status: str
    detail: str
    expected: StreamEnd | None  # what its node said; None where it could not, or was never asked
    content: NodeStream  # empty where it is not this attempt's
    size: int

    def row(self, case: Case, attempt: Attempt, run: Path) -> dict[str, Any]:
        """A row of /streams."""
        said = self.expected
        return {
            "case_id": case.case_id,
            "attempt": attempt.index,
            "node": self.node,
            "path": str(self.path.relative_to(run)),
            "status": self.status,
            "bytes": self.size,
            "expected_bytes": -1 if said is None or said.bytes is None else said.bytes,
            "records": self.content.frames,
            "expected_records": -1 if said is None or said.records is None else said.records,
            "detail": self.detail,
        }


def words(streams_of_run: Sequence[Mapping[str, Any]], labels: Mapping[str, str], file: Path) -> list[str]:
    """For people: a line for each stream that is not as it should be, and where they all stand; none where all are.

    Args:
        streams_of_run: rows of /streams.
        labels: of the cases, by their ids.
        file: the results file.
    """
    bad = [row for row in streams_of_run if row["status"] not in WHOLE]
    if not bad:
        return []
    told = [
        f"{labels.get(row['case_id'], row['case_id'])}, attempt {row['attempt']}: the stream of {row['node']} "
        f"is {row['status']}: {row['detail']} ({row['path']})"
        for row in bad[:TOLD]
    ]
    more = [f"and {len(bad) - TOLD} more"] if len(bad) > TOLD else []
    are = "is not as it" if len(bad) == 1 else "are not as they"
    count = f"{len(bad)} of {len(streams_of_run)} streams {are} should be"
    return [*told, *more, f"{count}; /streams of {file} has a row for each"]


def of_attempt(folder: Path, case: Case, attempt: Attempt, *, running: bool) -> Iterator[Found]:
    """Streams that an attempt should have left, and others in its folder, one after the other: each may be large.

    Args:
        running: it has not ended, as far as is known.
    """
    said = {s.node: s for s in attempt.streams}
    nodes: Sequence[str] = list(said) or (list(attempt.nodes[: case.nodes]) if folder.is_dir() else [])
    for node in nodes:
        yield _found(folder / f"{node}.stream", node, said.get(node), case, attempt, running)
    wanted = {f"{node}.stream" for node in (*nodes, *attempt.nodes)}
    for path in sorted(folder.glob("*.stream")) if folder.is_dir() else ():
        if path.name not in wanted:
            size = path.stat().st_size if path.is_file() else 0
            words = f"no node of this attempt is called {path.name.removesuffix('.stream')}; it was left out"
            yield Found(path.name.removesuffix(".stream"), path, FOREIGN, words, None, NodeStream(), size)


def _found(
    path: Path, node: str, said: StreamEnd | None, case: Case, attempt: Attempt, running: bool
) -> Found:
    try:
        content = streams.read(path)
    except FileNotFoundError:
        status, words = _absent(said, running)
        return Found(node, path, status, words, said, NodeStream(), 0)
    except OSError as error:
        words = f"it cannot be read: {error.strerror}"
        return Found(node, path, MISSING, words, said, NodeStream(), 0)
    size = content.bytes
    if other := _foreign(content, case, attempt):
        return Found(node, path, FOREIGN, f"{other}; it was left out", said, NodeStream(), size)
    status, words = _status(content, said, running)
    return Found(node, path, status, words, said, content, size)


def _absent(said: StreamEnd | None, running: bool) -> tuple[str, str]:
    if said is not None and said.bytes is not None:
        return MISSING, f"{said.bytes} bytes were shipped, and the file is not there"
    return (OPEN, "nothing was shipped yet") if running else _status(NodeStream(), said, running)


def _status(content: NodeStream, said: StreamEnd | None, running: bool) -> tuple[str, str]:
    if said is None or said.bytes is None:
        torn = ", the last one torn" if content.damaged else ""
        if running:
            return OPEN, f"its attempt had not ended; {content.frames} records so far"
        # Its node could not say: it was lost, and what came before may lack two seconds.
        return GAP, f"its node was lost; {content.frames} records had been shipped{torn}"
    if content.bytes != said.bytes:
        return SHORT, f"{content.bytes} bytes of {said.bytes}"
    if content.damaged:
        return TORN, f"{content.damaged} damaged stretches"
    return COMPLETE, ""


def _foreign(content: NodeStream, case: Case, attempt: Attempt) -> str:
    """Why a file is no stream of this attempt; "" when it is, or may be."""
    if content.bytes and not content.frames and content.begins_otherwise:
        return f"no record of ours in {content.bytes} bytes"
    events = [e for records in content.ranks.values() for e in records.events]
    cases = sorted({e.case_id for e in events if e.case_id})
    if cases and case.case_id not in cases:
        return f"its records are of case {', '.join(cases)}"
    numbers = sorted({e.attempt for e in events if e.attempt >= 0})
    if numbers and attempt.index not in numbers:
        return f"its records are of attempt {', '.join(map(str, numbers))}"
    return ""


class Progress(Sequence[tuple[int, int]]):
    """``(step, wall ns at which it was finished)`` of one rank, in little memory."""

    def __init__(self, steps: NDArray[Any], ends: NDArray[Any]) -> None:
        self._steps, self._ends = np.array(steps, dtype="i8"), np.array(ends, dtype="i8")

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Progress(self._steps[place], self._ends[place])
        return int(self._steps[place]), int(self._ends[place])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._steps.tolist(), self._ends.tolist(), strict=True)


def progress(records: RankRecords) -> Progress | None:
    """How far a rank was when, by its steps or what its output said; None where neither is recorded."""
    offset = next((e.wall_ns - e.mono_ns for e in records.events), 0)
    if "steps" in records.columns:
        rows = records.samples["steps"]
        return Progress(rows["step"], rows["start_mono_ns"] + rows["step_time_ns"] + offset)
    if "progress" in records.columns:  # a program whose output says how far it is
        rows = records.samples["progress"]
        return Progress(rows["step"], rows["said_mono_ns"] + offset)
    return None
