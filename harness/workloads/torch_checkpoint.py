"""How torch workloads save and restore a tree of state: by ``torch.save``, or by torch's distributed checkpoints.

A state is in two parts: ``shared``, which all ranks hold alike, and ``own``, a rank's. By ``torch.save`` the rank
that keeps the folder writes ``shared.pt``, and each rank ``rank-N.pt``; restoring unpickles nothing but tensors
and plain values. By DCP (torch.distributed.checkpoint) what all hold alike is spread over the ranks. There
tensors and one JSON text of the rest are saved, so that no object is pickled, but for DCP's own ``.metadata``, which
is a pickle of torch's classes: it is read only after its digest has been found right. In node memory, where no
rank sees the files of another node, each rank's DCP saves all that the rank has, in a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.workloads.api import CheckpointReader, CheckpointWriter

ENGINES = ("own", "torch.save", "dcp")


def save(writer: CheckpointWriter, rank: int, shared: Any, own: Any) -> None:
    """Save this rank's part; collective where the engine is.

    Raises:
        ValueError: there is no such engine.
        OSError: storage takes it not.
    """
    if writer.engine not in ENGINES:
        raise ValueError(f"checkpoint engine {writer.engine!r}: torch has {', '.join(ENGINES)}; choose one")
    with _without_checksums():
        if writer.engine == "dcp":
            from harness.workloads import torch_dcp  # its imports take a while

            tensors = {f"shared/{n}": t for n, t in _packed(shared).items()}
            tensors |= {f"rank-{rank}/{n}": t for n, t in _packed(own).items()}
            torch_dcp.save(writer, tensors, f"rank-{rank}" if writer.level == "memory" else "")
            return
        with writer.open(f"rank-{rank}.pt") as stream:
            torch.save(own, stream)
        if writer.writes_shared:
            with writer.open("shared.pt", everyone=True) as stream:
                torch.save(shared, stream)


def load(reader: CheckpointReader, rank: int) -> tuple[Any, Any]:
    """What was saved, ``shared`` and ``own``, on the processor.

    Its tensors may be views of the files: copy what is to be kept.
    """
    if reader.engine == "dcp":
        from harness.workloads import torch_dcp

        prefixes = ("shared/", f"rank-{rank}/")
        tensors = torch_dcp.load(
            reader.folder / (f"rank-{rank}" if reader.level == "memory" else ""), prefixes
        )
        parts = [{n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)} for p in prefixes]
        return _unpacked(parts[0]), _unpacked(parts[1])
    return _read(reader.folder / "shared.pt"), _read(reader.folder / f"rank-{rank}.pt")


def kept(value: Any) -> Any:
    """A tree with tensors of its own, in memory."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: kept(item) for key, item in value.items()}
    return type(value)(kept(item) for item in value) if isinstance(value, list | tuple) else value


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    """torch's own CRC-32 of each tensor costs as much as writing it, and nothing ever reads it."""
    setting = getattr(torch.serialization, "set_crc32_options", None)  # torch 2.6
    if setting is None:
        yield
        return
    before = torch.serialization.get_crc32_options()
    setting(False)
    try:
        yield
    finally:
        setting(before)


# --- a tree as tensors with names ---------------------------------------------------------------------------


def _packed(tree: Any) -> dict[str, Tensor]:
    """The tensors of a tree by number, and the rest of it as JSON, in a tensor too."""
    tensors: list[Tensor] = []
    text = json.dumps(_skeleton(tree, tensors)).encode()
    rest = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return {"tree": rest} | {str(n): tensor for n, tensor in enumerate(tensors)}


def _skeleton(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        return {"dict": [[key, _skeleton(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_skeleton(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(
        f"a {type(value).__name__} cannot be saved: only tensors, dicts, lists and plain values can"
    )


def _unpacked(tensors: dict[str, Tensor]) -> Any:
    return _tree(json.loads(bytes(tensors["tree"].tolist())), tensors)


def _tree(node: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[str(content)]
    if kind == "dict":
        return {key: _tree(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_tree(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content
