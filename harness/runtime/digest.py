"""Digests: one home for "is this the same state, bit for bit".

A digest is XXH3-128 over a canonical encoding of a tree of dicts, lists and leaves. Tensors and
arrays enter with their type and shape, so that equal bytes of another type or shape differ; a dict's
order does not matter, a list's does. Every part carries its length, so no two trees share an encoding.
It refuses what it cannot encode without guessing (sets, objects): an unstable digest is worse than none.

XXH3 finds accidents, not forgers: whoever may write a checkpoint may write its manifest too. It is as fast as
memory, so every state and every file can be looked at. xxhash is imported when it is first needed: in ranks, never
in a supervisor or an agent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

HEX_DIGITS = 32  # of a digest


class Hash(Protocol):
    """What ``hashlib`` and xxhash have in common."""

    def update(self, data: Any, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Of all bytes so far."""


def hasher(first: bytes = b"") -> Hash:
    """A running digest of bytes that began with ``first``."""
    import xxhash

    state: Hash = xxhash.xxh3_128(first)
    return state


def of(value: Any) -> str:
    """Digest of ``value`` as hex: None, bool, int, float, str, bytes, a tensor, anything with the buffer
    protocol (numpy arrays too), or dicts (keys str or int), lists and tuples of these.

    Raises:
        TypeError: a leaf of another kind.
    """
    state = hasher()
    _feed(state, value)
    return state.hexdigest()


def number(*parts: int | str) -> int:
    """A 63-bit number that depends on every part, so that seeds of (seed, rank, step) do not collide.

    Of SHA-256, and for good: another number is another experiment.
    """
    sha = hashlib.sha256()
    _feed(sha, parts)
    return int(sha.hexdigest()[:16], 16) >> 1


def _feed(state: Hash, value: Any) -> None:
    """Add ``value`` to ``state`` as: kind, length, content."""
    if value is None or isinstance(value, bool | int | str):
        _part(state, type(value).__name__, str(value).encode())
    elif isinstance(value, float):
        _part(state, "float", value.hex().encode())  # exact, unlike a rounded decimal
    elif isinstance(value, Mapping):
        _part(state, f"dict {len(value)}", b"")
        for key in sorted(value, key=lambda k: (type(k).__name__, k)):
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise TypeError(f"a key of type {type(key).__name__} cannot be encoded; use str or int")
            _feed(state, key)
            _feed(state, value[key])
    elif isinstance(value, list | tuple):
        _part(state, f"list {len(value)}", b"")
        for item in value:
            _feed(state, item)
    elif hasattr(value, "data_ptr"):  # a torch tensor: no buffer protocol, and types that numpy lacks
        import torch  # a tensor exists, so this is only a look-up

        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        _part(state, f"tensor {value.dtype} {tuple(value.shape)}", raw.numpy())
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
        _part(state, f"buffer {view.format} {view.shape}", flat)


def _part(state: Hash, kind: str, content: Any) -> None:
    state.update(f"{kind} {memoryview(content).nbytes}:".encode())
    state.update(content)
