"""Digests: one home for "is this the same state, bit for bit". Standard library only.

A digest is SHA-256 over a canonical encoding of a tree of dicts, lists and leaves. Tensors and
arrays enter with their type and shape, so that equal bytes of another type or shape differ; a dict's
order does not matter, a list's does. Every part carries its length, so no two trees share an encoding.
It refuses what it cannot encode without guessing (sets, objects): an unstable digest is worse than none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def of(value: Any) -> str:
    """Digest of ``value`` as hex: None, bool, int, float, str, bytes, a tensor, anything with the buffer
    protocol (numpy arrays too), or dicts (keys str or int), lists and tuples of these.

    Raises:
        TypeError: a leaf of another kind.
    """
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes as hex, the same as ``sha256sum`` prints."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):  # hashlib.file_digest needs Python 3.11
            sha.update(block)
    return sha.hexdigest()


def number(*parts: int | str) -> int:
    """A 63-bit number that depends on every part, so that seeds of (seed, rank, step) do not collide."""
    return int(of(parts)[:16], 16) >> 1


def _feed(sha: Any, value: Any) -> None:
    """Add ``value`` to ``sha`` as: kind, length, content."""
    if value is None or isinstance(value, bool | int | str):
        _part(sha, type(value).__name__, str(value).encode())
    elif isinstance(value, float):
        _part(sha, "float", value.hex().encode())  # exact, unlike a rounded decimal
    elif isinstance(value, Mapping):
        _part(sha, f"dict {len(value)}", b"")
        for key in sorted(value, key=lambda k: (type(k).__name__, k)):
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise TypeError(f"a key of type {type(key).__name__} cannot be encoded; use str or int")
            _feed(sha, key)
            _feed(sha, value[key])
    elif isinstance(value, list | tuple):
        _part(sha, f"list {len(value)}", b"")
        for item in value:
            _feed(sha, item)
    elif hasattr(value, "data_ptr"):  # a torch tensor: no buffer protocol, and types that numpy lacks
        import torch  # a tensor exists, so this is only a look-up

        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        _part(sha, f"tensor {value.dtype} {tuple(value.shape)}", raw.numpy())
    else:
        try:
            view = memoryview(value)
        except TypeError:
            raise TypeError(
                f"a {type(value).__name__} has no canonical encoding: "
                "convert it to dicts, lists, numbers, strings, bytes, arrays or tensors"
            ) from None
        castable = view.c_contiguous and view.nbytes and len(view.format) == 1
        flat = view.cast("B") if castable else view.tobytes()
        _part(sha, f"buffer {view.format} {view.shape}", flat)


def _part(sha: Any, kind: str, content: Any) -> None:
    sha.update(f"{kind} {memoryview(content).nbytes}:".encode())
    sha.update(content)
