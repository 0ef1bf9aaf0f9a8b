"""Digests of a program's state: one home for "is this the same state, bit for bit", in the program's interpreter.

XXH3-128 where the interpreter has xxhash, else SHA-256 of hashlib: both find accidents. A digest covers a tree of
dicts, lists and leaves; tensors and arrays enter with their type and shape, a dict's order does not matter. What
cannot be encoded without guessing (sets, objects) is refused: an unstable digest is worse than none. Standard
library only, nothing newer than Python 3.6.
"""

import hashlib
from typing import Any, BinaryIO

try:
    from xxhash import xxh3_128  # not in its versions before 2.0
except ImportError:
    ALGORITHM = "sha256"
else:
    ALGORITHM = "xxh3_128"

_BLOCK_BYTES = 1 << 20


def hasher(algorithm: str = ALGORITHM) -> Any:
    """A running digest.

    Raises:
        ValueError: this interpreter has no such algorithm.
    """
    if algorithm == "sha256":
        return hashlib.sha256()
    if algorithm != ALGORITHM:
        raise ValueError("%s is not in this interpreter, which has %s" % (algorithm, ALGORITHM))
    return xxh3_128()


def of_file(file: BinaryIO, algorithm: str = ALGORITHM) -> str:
    """Digest of the rest of an open file."""
    state = hasher(algorithm)
    while True:
        block = file.read(_BLOCK_BYTES)
        if not block:
            return str(state.hexdigest())
        state.update(block)


def of(value: Any) -> str:
    """Digest as hex of None, bool, int, float, str, bytes, a tensor, anything with the buffer protocol (numpy's
    arrays too), or dicts (keys str or int), lists and tuples of these.

    Raises:
        TypeError: a leaf of another kind.
    """
    state = hasher()
    _feed(state, value)
    return str(state.hexdigest())


def number(value: Any) -> int:
    """A whole number of 60 bits made from a value's digest."""
    return int(of(value)[:15], 16)


def _feed(state: Any, value: Any) -> None:
    """Add a value as: kind, length, content."""
    if value is None or isinstance(value, (bool, int, str)):
        _part(state, type(value).__name__, str(value).encode("utf-8", "surrogatepass"))
    elif type(value) is float:  # numpy's float64 is one too, and has its own type
        _part(state, "float", value.hex().encode())  # exact, unlike a rounded decimal
    elif isinstance(value, dict):
        _part(state, "dict %d" % len(value), b"")
        for key in sorted(value, key=lambda k: (type(k).__name__, k)):
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                raise TypeError("a key of type %s cannot be encoded; use str or int" % type(key).__name__)
            _feed(state, key)
            _feed(state, value[key])
    elif isinstance(value, (list, tuple)):
        _part(state, "list %d" % len(value), b"")
        for item in value:
            _feed(state, item)
    elif hasattr(value, "data_ptr"):  # a torch tensor: no buffer protocol, and types that numpy lacks
        import torch  # a tensor exists, so this is only a look-up

        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        _part(state, "tensor %s %s" % (value.dtype, tuple(value.shape)), raw.numpy())
    else:
        try:
            view = memoryview(value)
        except TypeError:
            raise TypeError(
                "a %s has no canonical encoding: convert it to dicts, lists, numbers, strings, bytes, arrays or "
                "tensors" % type(value).__name__
            ) from None
        castable = view.c_contiguous and view.nbytes and len(view.format) == 1
        flat = view.cast("B") if castable else view.tobytes()
        _part(state, "buffer %s %s" % (view.format, view.shape), flat)


def _part(state: Any, kind: str, content: Any) -> None:
    state.update(("%s %d:" % (kind, memoryview(content).nbytes)).encode())
    state.update(content)
