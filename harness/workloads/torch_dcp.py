"""torch.distributed.checkpoint through our writer: its files are hashed while it writes them.

Tensors only. Its ``.metadata`` is written under its final name: the folder is fresh, and committed by others.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from harness.workloads.api import CheckpointWriter

_TMP = ".tmp"  # what it calls `.metadata` while it writes it


class _Files(FileSystem):
    """Its file system, for one fresh folder."""

    def __init__(self, writer: CheckpointWriter) -> None:
        self._writer = writer

    @contextlib.contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:
        name = Path(path).relative_to(self._writer.folder).as_posix().removesuffix(_TMP)
        with self._writer.open(name) as stream:
            yield cast(io.IOBase, stream)

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Nothing: it has its final name."""

    def exists(self, path: str | os.PathLike[str]) -> bool:
        return False


def save(writer: CheckpointWriter, tensors: dict[str, Tensor], alone: str) -> None:
    """Save tensors by name: together, each once, or all of this rank's ``alone`` in the folder of that name.

    Raises:
        OSError: a rank could not write.
    """
    storage = FileSystemWriter(writer.folder / alone, sync_files=False)  # synced when each file is closed
    storage.fs = _Files(writer)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is alone, where it is meant to be
            dcp_save(cast(dict[str, Any], tensors), storage_writer=storage, no_dist=bool(alone))
    except CheckpointException as error:
        raise OSError(f"DCP could not save: {error}") from error


def load(folder: Path, prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors whose names begin with one of ``prefixes``; no collective, each rank reads what it needs.

    Raises:
        OSError: it could not be read.
    """
    storage = FileSystemReader(folder)
    tensors = {
        name: torch.empty(facts.size, dtype=facts.properties.dtype)
        for name, facts in storage.read_metadata().state_dict_metadata.items()
        if isinstance(facts, TensorStorageMetadata) and name.startswith(tuple(prefixes))
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp_load(cast(dict[str, Any], tensors), storage_reader=storage, no_dist=True)
    except CheckpointException as error:  # a BaseException
        raise OSError(f"DCP could not load {folder}: {error}") from error
    return tensors
