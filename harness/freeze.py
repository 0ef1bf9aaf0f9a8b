"""The harness as it is now, in one file of the run folder: queued jobs run what was planned.

A ``git pull`` between submission and start changes nothing, and a compute node reads one file instead
of a hundred. Byte code is put beside the source; another interpreter version falls back to the source.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import harness
from harness.rundir import private

# What runs inside jobs or on behalf of them; the login node's modules stay out.
PARTS = (
    "__init__.py",
    "__main__.py",
    "rundir.py",
    "failures.py",
    "program/*.py",
    "local.py",
    "model/*.py",
    "runtime/*.py",
    "workloads/*.py",
    "faults/*.py",
    "telemetry/*.py",
    "slurm/__init__.py",
    "slurm/commands.py",
    "slurm/query.py",
    "slurm/states.py",
    "slurm/versions.py",
    "devcluster/*.py",
    "cli.py",
)


def _sources() -> Iterator[tuple[Path, str]]:
    """The files that are frozen, each with its name in the zip file."""
    root = Path(harness.__file__).parent
    for path in sorted({path for pattern in PARTS for path in root.glob(pattern)}):
        yield path, f"harness/{path.relative_to(root)}"


def code_sha256() -> str:
    """What ``freeze`` would return now; writes nothing."""
    digest = hashlib.sha256()
    for path, name in _sources():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _compiled(source: bytes, name: str) -> bytes:
    """What a .pyc file holds (PEP 552, hash-based and unchecked): an import from the zip compiles nothing."""
    code = compile(source, name, "exec", dont_inherit=True)
    unchecked_hash = (1).to_bytes(4, "little")
    return (
        importlib.util.MAGIC_NUMBER
        + unchecked_hash
        + importlib.util.source_hash(source)
        + marshal.dumps(code)
    )


def freeze(target: Path) -> str:
    """Write the zip file, synced; returns the SHA-256 of its sources."""
    digest = hashlib.sha256()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with (
        open(temporary, "wb", opener=private) as target_file,
        zipfile.ZipFile(target_file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for path, name in _sources():
            source = path.read_bytes()
            digest.update(name.encode() + b"\0" + source + b"\0")
            archive.writestr(zipfile.ZipInfo(name), source)
            archive.writestr(zipfile.ZipInfo(f"{name}c"), _compiled(source, name))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    return digest.hexdigest()
