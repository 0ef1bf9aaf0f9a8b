"""How much of a file is in this node's page cache, and how to have it out. Linux; standard library and numpy."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

UNKNOWN = -1


def cached_bytes(path: Path) -> int:
    """Bytes of a file that a read would find in memory (mincore), in whole pages; UNKNOWN where it cannot be told."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if not size:
            return 0
        with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as mapped:
            view = np.frombuffer(mapped, dtype=np.uint8)
            pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
            libc = ctypes.CDLL(None, use_errno=True)
            failed = libc.mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), pages)
            del view  # the map cannot be closed while something looks into it
        return UNKNOWN if failed else min(size, mmap.PAGESIZE * sum(page & 1 for page in pages))
    except (OSError, ValueError):
        return UNKNOWN
    finally:
        os.close(descriptor)


def drop(path: Path) -> None:
    """Write back what is dirty and ask the kernel to forget the file. It need not: look at ``cached_bytes``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
