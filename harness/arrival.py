"""What the records of a job promise, and what of it cannot be seen here yet.

A file that one node wrote may show late on another: NFS keeps what it knew for up to a minute, and files
written first may show last. So each record says how much was written before it: a supervisor's last word
how long its two files were, the end of a case how many events came before, the end of an attempt how long
each node's stream is. Nothing is concluded from a record while what it promises is not here: the driver
waits for it (``paths.visible_after_s``), ``collect`` names it, and a case without it is *unsettled*, which
no rule judges. Looks at files alone, waits for nothing, writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.ledger import Ledger
from harness.model.attempt import Attempt
from harness.model.case import Submission
from harness.rundir import RunDir, RunFolderError, content_of, lines_of
from harness.runtime import recorder

_END_BYTES = 4096  # nearly always enough to hold a stream's last record


def last_word(run: RunDir, key: str, round_: int) -> dict[str, Any] | None:
    """What a job's supervisor wrote last, once all that it promises is here; None before."""
    path = run.end(key, round_)
    if not path.exists():
        return None
    try:
        said = run.read_json(path, "wall_ns", "job_id")
    except RunFolderError:
        return None
    return None if lacking(run, key, said) else said


def lacking(run: RunDir, key: str, said: Mapping[str, Any]) -> list[str]:
    """What a job's last word promises and is not here, in words; empty when all is.

    Args:
        run: the run folder.
        key: the job.
        said: its last word; one of an older harness promises nothing itself.
    """
    attempts, found = _held(run, run.attempts(key), said.get("attempts_bytes", 0))
    _, events = _held(run, run.events(key), said.get("events_bytes", 0))
    newest: dict[tuple[str, int], Attempt] = {}
    for line in lines_of(attempts):
        if line["what"] == "attempt":
            attempt = Attempt.from_json(line["attempt"])
            newest[attempt.case_id, attempt.index] = attempt
    return [*found, *events, *(words for a in newest.values() for words in _streams(run, a))]


def unsettled(
    run: RunDir,
    known: Ledger,
    current: Mapping[str, tuple[Submission, int]],
    case_id: str,
    ending: Mapping[str, Any] | None,
    *,
    begun: bool,
) -> str:
    """Why it is not known (yet) how a case ended; "" where it is, or where it was not begun.

    Args:
        run: the run folder.
        known: its ledger.
        current: the ledger's newest submission of each job.
        case_id: the case.
        ending: the line that says how the case ended, if it is here.
        begun: whether an attempt of it is here.
    """
    key, submission = next((key, s) for key, (s, i) in current.items() if case_id in s.jobs[i].case_ids)
    if key not in known.ended:
        return "its job has not ended" if begun and ending is None else ""
    redone = max((line["round"] for line in known.rounds if case_id in line["why"]), default=0)
    if ending is not None and ending.get("round", 0) >= redone:
        return "; ".join(_held(run, run.events(key), ending.get("events_bytes", 0))[1])
    # Without such a line: did its job come to the end of its cases, so that there must be one?
    state = known.ended[key].get("state", "")
    if run.end(key, submission.round).exists() or state == "COMPLETED" or (state == "FAILED" and begun):
        return f"its job came to its end, and {_name(run, run.attempts(key))} does not say (yet) how the case did"
    return ""


def _held(run: RunDir, path: Path, promised: int) -> tuple[bytes, list[str]]:
    """A file's content; and what of its promised length is not here: cut short, or a hole of zeros."""
    data = content_of(path)
    hole = data.find(b"\0")
    seen = len(data) if hole == -1 else hole
    return data, (
        [f"{_name(run, path)}: {seen} of {promised} bytes are to be seen"] if seen < promised else []
    )


def _streams(run: RunDir, attempt: Attempt) -> list[str]:
    found = []
    for stream in attempt.streams:
        if stream.bytes is None or stream.problem:
            continue  # its node could not say, or could not write it
        size, whole = _size_and_end(run.path / stream.path)
        if size < stream.bytes:
            found.append(f"{stream.path}: {size} of {stream.bytes} bytes are to be seen")
        elif not whole:
            found.append(f"{stream.path}: its length is to be seen, its end is not")
    return found


def _size_and_end(path: Path) -> tuple[int, bool]:
    """Length of a stream, and whether its last record is here. `collect` checks every record; here that were much."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for enough in (_END_BYTES, recorder.HEADER.size + recorder.MAX_PAYLOAD):
                file.seek(max(0, size - enough))
                if size == 0 or recorder.ends_whole(file.read(enough)):
                    return size, True
            return size, False
    except OSError:
        return 0, False


def _name(run: RunDir, path: Path) -> str:
    return str(path.relative_to(run.path))
