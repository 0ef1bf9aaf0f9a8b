"""Text in HDF5: what it can hold, and a digest of it, since HDF5 has no checksum for text of variable length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

DIGEST = "sha256"  # attribute of a text column: SHA-256 of its values, each followed by a NUL byte


def storable(value: object) -> str:
    """What HDF5 can hold of a text: lone surrogates and NUL become escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def digest(values: Iterable[str]) -> str:
    """SHA-256 of a column of texts."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.encode("utf-8") + b"\0")
    return found.hexdigest()
