"""A program's own checkpoints: committed whole or not at all, and verified before they are used.

A checkpoint is a folder of HARNESS_CHECKPOINTS with a part for each rank, in which the rank's program wrote
whatever it likes. A part is committed by a manifest with the digest of each file, then a rename; a checkpoint
counts when the parts of all ranks are committed. Its name holds the step and the attempt, so that parts which two
attempts wrote are never taken together. Ranks say nothing to each other here: each verifies every part, so that
all of them choose the same checkpoint. The next one is complete only when the last rank has begun, so none can
overtake a rank that is still choosing.

It refuses to begin anew where there are checkpoints and none can be used. Without HARNESS_CHECKPOINTS (outside the
harness) nothing is kept and nothing restored. Standard library only, nothing newer than Python 3.6.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from harness.program import armed, digests, lines

MANIFEST = "manifest.json"
COMPLETE = "complete.json"
_NAME = re.compile(r"^step-(\d{8,})\.(\d+)\Z")
_PART = re.compile(r"^rank-(\d+)\Z")


class CheckpointError(Exception):
    """There are checkpoints, and none can be used; the message says why. Nothing was changed."""


class _Here:
    """What ``restore`` gave, and how to have the live state."""

    first = 0
    state: Optional[Callable[[], Any]] = None


def first_step() -> int:
    """The step to go on with."""
    return _Here.first


def watch(state: Optional[Callable[[], Any]]) -> None:
    """From now on, the digest of this live state goes into each checkpoint."""
    _Here.state = state


# --- saving -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def save(step: Optional[int] = None, keep: int = 2, alone: bool = False) -> Iterator[Path]:
    """A fresh folder to write this rank's part of the state behind a step into; committed when the block ends.

    It belongs at the end of a step's work: the step's time ends where saving begins. Where the block raises,
    nothing is committed.

    Args:
        step: the step that was done, from 0; the one that is being done unless told otherwise.
        keep: complete checkpoints to keep; older ones are removed.
        alone: this rank saves for all; otherwise each rank saves its own part.

    Raises:
        ValueError: no such step, nothing was written, or this rank has saved the step before.
        OSError: it cannot be written.
    """
    step = lines.step() if step is None else step
    if step < 0:
        raise ValueError("step %d cannot be saved: give the number of the step that was done, from 0" % step)
    if step == lines.step():
        lines.end()
    root = os.environ.get("HARNESS_CHECKPOINTS")
    if not root:
        with tempfile.TemporaryDirectory() as thrown_away:
            yield Path(thrown_away)
        return
    rank, attempt = lines.rank(), lines.number("HARNESS_RESTART_COUNT") or 0
    folder = Path(root, "step-%08d.%d" % (step, attempt))
    part, temporary = folder / ("rank-%d" % rank), folder / (".rank-%d.%d.tmp" % (rank, os.getpid()))
    if part.exists():
        raise ValueError("step %d was saved before by rank %d, in %s" % (step, rank, part))
    lines.say(lines.stamped({"saving": step}))
    start = lines.monotonic_ns()
    armed.at("checkpoint.begin")
    shutil.rmtree(str(temporary), ignore_errors=True)
    temporary.mkdir(mode=0o700, parents=True)
    try:
        yield temporary
        armed.at("checkpoint.written")
        of: Dict[str, Any] = {"step": step, "attempt": attempt, "rank": rank}
        if _Here.state is not None:
            of["state"] = digests.of(_Here.state())
        said = _commit(temporary, part, of, alone)
    except BaseException:
        armed.relieve(failed=True)
        shutil.rmtree(str(temporary), ignore_errors=True)
        lines.say(lines.stamped({"unsaved": step}))
        raise
    armed.relieve(failed=False)
    took = lines.monotonic_ns() - start
    lines.say(lines.stamped({"saved": step, "path": folder.name, "time_ns": took, **said}))
    if _complete(folder, 1 if alone else _ranks()):
        _remove_old(Path(root), max(keep, 1))
    armed.at("checkpoint.committed")


def _ranks() -> int:
    return lines.number("HARNESS_RANKS") or lines.number("WORLD_SIZE") or 1


def _commit(temporary: Path, part: Path, of: Dict[str, Any], alone: bool) -> Dict[str, Any]:
    files = {}
    for name in _files(temporary):
        with open(str(temporary / name), "rb") as file:
            files[name] = {"bytes": os.fstat(file.fileno()).st_size, "digest": digests.of_file(file)}
            os.fsync(file.fileno())
    if not files:
        raise ValueError("nothing was written into %s: write the state there, within the block" % temporary)
    parts = [of["rank"]] if alone else list(range(_ranks()))
    body = {**of, "algorithm": digests.ALGORITHM, "parts": parts, "files": files}
    _write(temporary / MANIFEST, {**body, "sha256": _digest(body)})
    for folder in {str((temporary / name).parent) for name in files} | {str(temporary)}:
        _sync(folder)
    os.rename(str(temporary), str(part))
    _sync(str(part.parent))
    _sync(str(part.parent.parent))
    return {
        "bytes": sum(facts["bytes"] for facts in files.values()),
        "digest": of.get("state") or _digest(files),
    }


def _complete(folder: Path, parts: int) -> bool:
    """Mark a checkpoint of which every part is there; whoever finds it so, perhaps several ranks."""
    there = [entry.name for entry in folder.iterdir() if _PART.match(entry.name)]
    if len(there) < parts:
        return False
    _write(folder / COMPLETE, {"parts": sorted(there)})
    return True


def _remove_old(root: Path, keep: int) -> None:
    found = _found(root)
    complete = [key for key, folder in found if (folder / COMPLETE).exists()]
    if len(complete) <= keep:
        return
    for key, folder in found:
        if key < complete[keep - 1]:
            away = folder.with_name(".%s.old" % folder.name)
            with contextlib.suppress(OSError):  # another rank is at it
                os.rename(str(folder), str(away))
                shutil.rmtree(str(away), ignore_errors=True)


# --- restoring ----------------------------------------------------------------------------------------------


def restore() -> Optional[Path]:
    """This rank's part of the newest checkpoint that is complete and undamaged; None where there is none.

    ``steps`` goes on behind its step. Of a checkpoint that one rank saved for all, every rank gets that part.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    root = os.environ.get("HARNESS_CHECKPOINTS")
    if not root or not os.path.isdir(root):
        return None
    rank = lines.rank()
    refused: List[str] = []
    if lines.number("HARNESS_RESTART_COUNT"):  # a case's very first start restores nothing
        armed.at("restore.begin")
    for (step, attempt), folder in _found(Path(root)):
        try:
            manifests = _verified(folder, step, attempt)
        except CheckpointError as error:
            refused.append("%s: %s" % (folder.name, error))
            lines.say(lines.stamped({"refused": folder.name, "why": refused[-1]}))
            continue
        if not manifests:
            continue
        mine = rank if rank in manifests else min(manifests)
        said = {"restored": step, "path": folder.name, "digest": _digest(manifests[mine]["files"])}
        if mine == rank and manifests[mine].get("state"):
            said["state"] = manifests[mine]["state"]  # `steps` says the digest of what was made of it
        lines.say(lines.stamped(said))
        _Here.first = step + 1 + armed.controls().count("position")
        return folder / ("rank-%d" % mine)
    if refused:
        raise CheckpointError("no checkpoint can be used, and none is overwritten: " + "; ".join(refused))
    return None


def _found(root: Path) -> List[Tuple[Tuple[int, int], Path]]:
    """Folders of checkpoints with (step, attempt), newest first; they may lack parts."""
    found = []
    for folder in root.iterdir():
        match = _NAME.match(folder.name)
        if match:
            found.append(((int(match.group(1)), int(match.group(2))), folder))
    return sorted(found, reverse=True)


def _verified(folder: Path, step: int, attempt: int) -> Dict[int, Dict[str, Any]]:
    """The manifest of each part, every file of which is as it was committed; {} for what was never committed.

    Raises:
        CheckpointError: what is wrong.
    """
    there = sorted(int(m.group(1)) for m in (_PART.match(e.name) for e in folder.iterdir()) if m)
    marked = (folder / COMPLETE).exists()
    if not there and not marked:
        return {}
    manifests = {rank: _manifest(folder / ("rank-%d" % rank)) for rank in there}
    for rank, manifest in manifests.items():
        if (manifest["step"], manifest["attempt"], manifest["rank"]) != (step, attempt, rank):
            said = "step {step}, attempt {attempt}, rank {rank}".format(**manifest)
            raise CheckpointError("rank %d's part is that of %s" % (rank, said))
    wanted = manifests[there[0]]["parts"] if there else []
    missing = sorted(set(wanted) - set(there))
    if (missing or not there) and marked:
        raise CheckpointError("the part of rank %d is missing" % (missing[0] if missing else 0))
    if missing:
        return {}  # the ranks that should have written the others did not come so far
    if len(wanted) > 1 and len(wanted) != _ranks():
        raise CheckpointError("saved by %d ranks, these are %d" % (len(wanted), _ranks()))
    for rank, manifest in manifests.items():
        part = folder / ("rank-%d" % rank)
        for name, facts in sorted(manifest["files"].items()):
            _compare(part / name, facts, manifest["algorithm"], "%s of rank %d" % (name, rank))
    return manifests


def _manifest(part: Path) -> Dict[str, Any]:
    try:
        with open(str(part / MANIFEST), encoding="ascii") as file:
            manifest: Dict[str, Any] = json.load(file)
        said = manifest.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError("the manifest of %s cannot be read: %s" % (part.name, error)) from None
    if _digest(manifest) != said:
        raise CheckpointError("the manifest of %s is damaged" % part.name)
    return manifest


def _compare(path: Path, facts: Dict[str, Any], algorithm: str, name: str) -> None:
    try:
        with open(str(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != facts["bytes"]:
                raise CheckpointError("%s has %d bytes, %d were committed" % (name, size, facts["bytes"]))
            if digests.of_file(file, algorithm) != facts["digest"]:
                raise CheckpointError("%s has another content than was committed" % name)
    except FileNotFoundError:
        raise CheckpointError("%s is missing" % name) from None
    except (OSError, ValueError) as error:
        raise CheckpointError("%s cannot be read: %s" % (name, error)) from None


# --- files --------------------------------------------------------------------------------------------------


def _files(folder: Path) -> List[str]:
    """Names of all files below, relative, with "/"."""
    found = []
    for inner, _, names in os.walk(str(folder)):
        found += [os.path.relpath(os.path.join(inner, name), str(folder)) for name in names]
    return sorted(found)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()


def _write(path: Path, data: Dict[str, Any]) -> None:
    temporary = path.with_name(".%s.%d.tmp" % (path.name, os.getpid()))
    with open(str(temporary), "w", encoding="ascii") as file:
        json.dump(data, file, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(str(temporary), str(path))


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
