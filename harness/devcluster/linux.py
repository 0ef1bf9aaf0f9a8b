"""The Linux calls that Python lacks before 3.12: namespaces, mounts, the parent-death signal.

One thin function for each call; every failure is an OSError that names the call and its subject.
Nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import os
import signal

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000

_PR_SET_PDEATHSIG = 1
_MNT_DETACH = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process (for a process namespace: its later children) into new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def setns(path: str, flags: int) -> None:
    """Enter the namespace that `path`, a file like /proc/PID/ns/net, stands for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns_fd(descriptor, flags, path)
    finally:
        os.close(descriptor)


def setns_fd(descriptor: int, flags: int, name: str) -> None:
    """Enter the namespace of an open descriptor; `name` is for the error message only."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), f"setns({name})")


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        filesystem.encode() if filesystem else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _check(result, f"mount {source} on {target}")


def bind(source: str, target: str) -> None:
    """Show the tree `source` at `target` too, with everything mounted inside it."""
    mount(source, target, flags=MS_BIND | MS_REC)


def unmount_lazily(target: str) -> None:
    """umount2(2) of the uppermost mount there, also while it is in use."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(_MNT_DETACH)), f"umount {target}")


def make_mounts_private() -> None:
    """Cut this mount namespace off, so that nothing mounted here is ever seen by the machine."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends, however it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl(PDEATHSIG)")
