"""Words and numbers for people: units, safe text, plain columns. Everything read from a file is hostile."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone

from markupsafe import Markup, escape

# C0 and C1 controls, lone surrogates, non-characters, and the marks that turn the direction of what follows.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
WHOLE = 4000  # characters of a reason: longer ones say nothing more
_PREFIXED = frozenset({"B/s", "FLOP/s", "Hz", "W", "J"})  # units that take a decimal prefix
_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def clean(value: object) -> str:
    """Text that is legal XML: each control character becomes U+FFFD; lines and tabs are kept."""
    return _UNSAFE.sub("\ufffd", str(value).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(value: object, limit: int = 400) -> str:
    """As ``clean``, on one line, cut with an ellipsis after ``limit`` characters."""
    words = " ".join(clean(value).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def breakable(words: object, limit: int = 400) -> Markup:
    """Words on one line, escaped for a page, that may be broken behind / = , : and _, rather than inside a word."""
    return Markup(re.sub(r"([/=,:_]+)(?=[^/=,:_])", r"\1<wbr>", str(escape(one_line(words, limit)))))


def digits(value: float, wanted: int = 3) -> str:
    """Significant digits, three when not told otherwise, without an exponent, for numbers from 0.001 to 9999."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "unknown"
    places = max(0, wanted - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"


def together(values: Sequence[float], *, sign: bool = False) -> list[str]:
    """Numbers that are read together, such as an interval: two digits of what lies between the two farthest apart.

    Where all are equal, three significant digits of them; what is below 1e-9 is a rounding error, and 0.
    """
    finite = [v for v in values if math.isfinite(v)]
    spread = max(finite) - min(finite) if finite else 0.0
    scale, wanted = (spread, 2) if spread > 1e-9 else (max(map(abs, finite), default=0.0), 3)
    places = min(9, max(0, wanted - 1 - math.floor(math.log10(scale)))) if scale > 1e-9 else 0
    found = []
    for value in values:
        rounded = round(value, places) if math.isfinite(value) else value
        shown = "0" if rounded == 0 else f"{rounded:{'+' if sign else ''}.{places}f}"
        found.append(shown if math.isfinite(value) else "unknown")
    return found


def si(value: float, unit: str) -> str:
    """A value with a decimal prefix: ``si(1.234e9, "B/s")`` is ``1.23 GB/s``."""
    if not math.isfinite(value):
        return "unknown"
    for factor, prefix in _SI:
        if abs(value) >= factor * 0.9995:
            return f"{digits(value / factor)} {prefix}{unit}"
    return f"{digits(value)} {unit}"


def rate(value: float, noun: str) -> str:
    """A count in each second, with its noun: ``rate(4170, "tokens")`` is ``4.17 k tokens/s``."""
    return si(value, "").strip() + f" {noun}/s" if math.isfinite(value) else "unknown"


def seconds(value: float) -> str:
    """A duration in s, as ns, µs, ms, s or minutes."""
    if not math.isfinite(value):
        return "unknown"
    size = abs(value)
    if size == 0:
        return "0 s"
    if size >= 120:
        minutes, rest = divmod(round(size), 60)
        hours, minutes = divmod(minutes, 60)
        words = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
        return f"-{words}" if value < 0 else words
    for factor, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if size >= factor * 0.9995:
            return f"{digits(value / factor)} {unit}"
    return f"{digits(value / 1e-9)} ns"


def signed(value: float) -> str:
    """A difference of times in s with its sign: ``+12.0 s``."""
    return ("\u2212" if value < 0 else "+") + seconds(abs(value))


def size(value: float) -> str:
    """A size in bytes with a binary prefix: 8388608 is ``8 MiB``."""
    if not math.isfinite(value):
        return "unknown"
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if abs(value) >= 1 << power:
            scaled = value / (1 << power)
            return f"{scaled:.0f} {unit}" if scaled == int(scaled) else f"{digits(scaled)} {unit}"
    return f"{value:.0f} B"


def quantity(value: float, unit: str) -> str:
    """A value of a metric's unit (``ns``, ``B``, ``B/s``, ``1`` ...) for people."""
    if unit == "ns":
        return seconds(value / 1e9)
    if unit == "s":
        return seconds(value)
    if unit == "B":
        return size(value)
    if unit in ("1", ""):
        return f"{value:.4g}" if math.isfinite(value) else "unknown"
    if unit == "%":
        return f"{digits(value)} %"
    if unit == "1/s":
        return f"{si(value, '').strip()}/s" if math.isfinite(value) else "unknown"
    if unit in _PREFIXED:
        return si(value, unit)
    if not math.isfinite(value):
        return "unknown"
    return f"{digits(value) if 1e-3 <= abs(value) < 1e6 else f'{value:.4g}'} {unit}"


def percent(value: float) -> str:
    """A fraction as per cent: 0.953 is ``95.3 %``."""
    return f"{value * 100:.1f} %" if math.isfinite(value) else "unknown"


def fine_percent(value: float) -> str:
    """As ``percent``, but of less than 1 % three digits: 0.00123 is ``0.123 %``."""
    return f"{digits(value * 100)} %" if 1e-6 < abs(value) < 0.01 else percent(value)


def chance(p: float) -> str:
    """A probability: ``p = 0.012``, or ``p < 0.001``; a test never says 0."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def instant(wall_ns: int) -> str:
    """A time since the epoch in UTC, to the second; ``unknown`` for 0 and for what no calendar holds."""
    if wall_ns <= 0:
        return "unknown"
    try:
        return datetime.fromtimestamp(wall_ns / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "unknown"


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers in spans: 0, 1, 3 is ``0-1, 3``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 rank``, ``2 ranks``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def reasons(header: Sequence[str], rows: Sequence[Sequence[object]], width: int | None) -> str:
    """A plain table whose last column is prose, which is never cut: it is wrapped at ``width``, where there is one.

    Where the other columns leave it less than a third of the width, it stands below them.
    """
    beside = columns(header[:-1], [row[:-1] for row in rows], left=range(len(header))).splitlines()
    prose = [one_line(header[-1]), "", *(one_line(row[-1], WHOLE) for row in rows)]
    indent = max(map(len, beside)) + 2
    if width is None or indent + max(map(len, prose)) <= width:
        prose[1] = "-" * min(80, max(map(len, prose)))
        return "\n".join(f"{a.ljust(indent)}{b}".rstrip() for a, b in zip(beside, prose, strict=True))
    below = indent > width * 2 / 3
    pad = " " * (4 if below else indent)
    prose[1] = "" if below else "-" * (width - len(pad))
    lines = []
    for start, words in zip(beside, prose, strict=True):
        wrapped = textwrap.wrap(words, width - len(pad), break_on_hyphens=False) or [""]
        if below:  # their own lines, as long as the width allows
            lines += textwrap.wrap(start, width, subsequent_indent="  ") + [pad + w for w in wrapped if words]
        else:
            lines += [f"{start.ljust(indent)}{wrapped[0]}".rstrip(), *(pad + w for w in wrapped[1:])]
    return "\n".join(lines)


def columns(
    header: Sequence[str], rows: Sequence[Sequence[object]], left: Sequence[int] = (0,), limit: int = 120
) -> str:
    """A plain table, cells cut at ``limit``; columns whose index is in ``left`` are aligned left, the others right."""
    cells = [[one_line(c, limit) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)
