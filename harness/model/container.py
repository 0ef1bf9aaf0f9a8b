"""A container as runtimes read it: what they cannot be told, and the folders that are mounted. Standard library only.

Apptainer's ``--bind`` and Pyxis' ``--container-mounts`` separate mounts by commas and the parts of one by
colons, and neither can be quoted. Processes inside must see those outside, and the network, as if there were
no container: an agent watches ranks that it did not start.
"""

from __future__ import annotations

import re

Mount = tuple[str, str]  # folder outside, folder inside

_APART = {
    "cleanenv": "ranks would not hear of Slurm and MPI",
    "compat": "ranks would not hear of Slurm and MPI",
    "contain": "ranks on a node could not share memory",
    "containall": "an agent could not see its ranks",
    "ipc": "ranks on a node could not share memory",
    "net": "agents could not reach their supervisor",
    "pid": "an agent could not see its ranks",
}
_LETTERS = {"e": "cleanenv", "c": "contain", "C": "containall", "i": "ipc", "n": "net", "p": "pid"}
_OURS = {
    "apptainer": ("pwd", "cwd"),
    "pyxis": ("container-image", "container-workdir", "container-mounts", "container-env"),
}


def path_problem(path: str) -> str:
    """What keeps a folder from being mounted, in words; "" when nothing does."""
    found = re.search(r"[,:]", path)
    if found is None:
        return ""
    return (
        f"holds a {found.group()!r}, by which containers take mounts apart, and which cannot be quoted; "
        "use another path"
    )


def mount_problem(text: str) -> str:
    """What is wrong with ``SOURCE`` or ``SOURCE:TARGET``, in words; "" when nothing is."""
    parts = text.split(":")
    if "," in text or len(parts) > 2:
        return "is one mount, SOURCE or SOURCE:TARGET, without another colon or comma; write each as its own entry"
    if not all(part.startswith("/") for part in parts):
        return "has a path that is not absolute; begin each with /"
    return ""


def option_problem(runtime: str, option: str) -> str:
    """What keeps an option of ``apptainer exec`` or of ``srun`` from being passed, in words; "" when nothing does."""
    name = option.lstrip("-").split("=")[0]
    if name in _OURS[runtime] and option.startswith("--"):
        return "is written by the harness; use image and mounts"
    if runtime == "apptainer":
        short = re.fullmatch(r"-([A-Za-z]+)", option)
        names = [_LETTERS.get(c, "") for c in short.group(1)] if short else [name]
        for found in (n for n in names if n in _APART and option.startswith("-")):
            return f"asks for --{found}: {_APART[found]}; remove it"
    elif name == "container-unshare":
        return "sets the container apart: ranks could not share memory, or not be reached; remove it"
    return ""


def image_problem(image: str) -> str:
    """What keeps a text from being an image, in words; "" when nothing does."""
    return "begins with -, so it would be taken for an option; rename it" if image.startswith("-") else ""


def parse_mount(text: str) -> Mount:
    """``SOURCE`` or ``SOURCE:TARGET`` as (outside, inside)."""
    source, _, target = text.partition(":")
    return source, target or source
