"""What somebody may have meant by a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from analysis.text import one_line

SHOWN = 5


def meant(given: str, names: Iterable[str]) -> str:
    """``did you mean "x"?``; empty where nothing is like it."""
    close = get_close_matches(given, list(dict.fromkeys(names)), n=3, cutoff=0.5)
    quoted = [f'"{one_line(name, 80)}"' for name in close]
    return f"did you mean {' or '.join(quoted)}?" if quoted else ""


def near(given: str, names: Iterable[str]) -> str:
    """As ``meant``, or else which names there are."""
    there = list(dict.fromkeys(names))
    if words := meant(given, there):
        return words
    shown = ", ".join(one_line(name, 80) for name in there[:SHOWN])
    more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    return f"there are {shown}{more}" if there else "there are none"
