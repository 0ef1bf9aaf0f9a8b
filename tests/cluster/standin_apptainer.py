"""Plays `apptainer exec` where Apptainer cannot be had: really another root, and only what is mounted in it.

A user namespace and a mount namespace, as Apptainer makes them without setuid; process, network and IPC
namespaces stay shared, as with it. An image is a folder with an `image.json`: host trees that play its
content, and the variables that it sets. Of the machine only /dev, /proc, /sys and names of hosts and users
are mounted unasked: Apptainer mounts /tmp and $HOME as well, and is kinder here. Each start is one line in
`entered.jsonl` beside the image.

It knows the options that we write and refuses any other, and is no proof of how Apptainer itself reads them.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 4096, 16384, 1 << 18
ROOT = Path("/mnt")  # of this process alone
UNASKED = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/passwd", "/etc/group", "/etc/resolv.conf")


def main(words: list[str]) -> None:
    binds, folder, image, command = parse(words)
    content = json.loads((image / "image.json").read_text())
    with (image / "entered.jsonl").open("a") as log:
        log.write(json.dumps({"node": socket.gethostname(), "command": command[:4], "binds": binds}) + "\n")
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWUSER), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("none", str(ROOT), "tmpfs", 0)
    for name in ("bin", "lib", "lib64", "sbin"):
        (ROOT / name).symlink_to(f"usr/{name}")
    for target, source in content["trees"].items():
        put(source, target)
    for path in UNASKED:
        put(path, path)
    for source, target in binds:
        put(source, target)
    os.chroot(ROOT)
    os.chdir(folder)
    environment = {**os.environ, **content["environment"]}
    environment |= {
        name.removeprefix("APPTAINERENV_"): value
        for name, value in os.environ.items()
        if name.startswith("APPTAINERENV_")
    }
    os.execve(command[0], command, environment)


def parse(words: list[str]) -> tuple[list[tuple[str, str]], str, Path, list[str]]:
    """Mounts, working folder, image and command."""
    if words[0] != "exec":
        sys.exit(f"apptainer: {words[0]}: only exec is played here")
    binds: list[tuple[str, str]] = []
    folder = "/"
    rest = words[1:]
    while rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--bind":
            for one in rest.pop(0).split(","):
                source, _, target = one.partition(":")
                binds.append((source, target or source))
        elif option == "--pwd":
            folder = rest.pop(0)
        elif option != "--nv":
            sys.exit(f"apptainer: {option}: is not played here")
    return binds, folder, Path(rest[0]), rest[1:]


def put(source: str, target: str) -> None:
    """Mount a tree of the machine into the new root."""
    if not Path(source).exists():
        sys.exit(f"apptainer: mount source {source} doesn't exist")
    place = Path(f"{ROOT}{target}")
    if Path(source).is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    mount(source, str(place), "", MS_BIND | MS_REC)


def mount(source: str, target: str, kind: str, flags: int) -> None:
    check(libc.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount {source}")


def check(result: int, what: str) -> None:
    if result:
        sys.exit(f"apptainer: {what}: {os.strerror(ctypes.get_errno())}")


libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main(sys.argv[1:])
