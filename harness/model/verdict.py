"""Verdicts: the words for a judgement and how they combine. Deciding is done in ``analysis`` only."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Verdict(str, Enum):
    """What is concluded of one case. No evidence is ``UNKNOWN``, never ``PASS``."""

    PASS = "pass"
    FAIL = "fail"
    WITHIN_NOISE = "within noise"
    INVALID = "invalid"  # nothing to judge: a fault without its effect, a time that no clock gives
    UNKNOWN = "unknown"


# Exit codes of the command line.
EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3
EXIT_UNFINISHED = 4  # more to do: cases still queued or running
EXIT_INTERRUPTED = 130  # Ctrl-C; what was submitted goes on


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0 when all pass (within noise counts), 1 when any fails, else 3; no verdict at all is 3."""
    seen = set(verdicts)
    if Verdict.FAIL in seen:
        return EXIT_FAIL
    if not seen or seen & {Verdict.UNKNOWN, Verdict.INVALID}:
        return EXIT_UNKNOWN
    return EXIT_PASS
