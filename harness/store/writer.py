"""Writes ``results.h5`` piece by piece, in bounded memory; whole, verified and renamed, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from harness.store import text
from harness.store.reader import Results
from harness.store.schema import (
    SAMPLE_KEYS,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    TABLES,
    TEXT,
    Column,
    StoreError,
)
from harness.store.steady import SteadyFile

CHUNK = 32768  # rows of a column that are compressed, and read, together


def _column(group: h5py.Group, name: str, values: Column, type_code: str) -> h5py.Dataset:
    """A column that begins with these values; if they are no whole chunk, no others follow."""
    if type_code == TEXT:
        data = np.array([text.storable(v) for v in values], dtype=object)
        dataset = group.create_dataset(name, data=data, dtype=h5py.string_dtype("utf-8"))
        dataset.attrs[text.DIGEST] = text.digest(data)
        return dataset
    data = np.asarray(values, dtype=np.dtype(type_code))
    if not len(data):
        return group.create_dataset(name, data=data, maxshape=(None,), chunks=(1024,))
    return group.create_dataset(
        name,
        data=data,
        maxshape=(None,),
        chunks=(min(len(data), CHUNK),),
        shuffle=True,
        compression="gzip",
        compression_opts=1,
        fletcher32=True,
    )


class _Samples:
    """One table under ``/samples``, which grows by whole chunks."""

    def __init__(
        self, group: h5py.Group, types: Mapping[str, str], facts: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.group, self.types, self.facts = group, types, facts
        self._pending: dict[str, list[Column]] = {name: [] for name in types}
        self._rows = 0
        self._datasets: dict[str, h5py.Dataset] = {}

    def append(self, columns: Mapping[str, Column]) -> None:
        """Take rows; whole chunks are written at once. Values are copied: they may be part of something large."""
        for name, values in columns.items():
            self._pending[name].append(np.array(values, dtype=self.types[name]))
        self._rows += len(next(iter(columns.values())))
        if self._rows >= CHUNK:
            self._write(self._rows // CHUNK * CHUNK)

    def finish(self) -> None:
        """Write what is left."""
        if self._rows or not self._datasets:
            self._write(self._rows)

    def _write(self, rows: int) -> None:
        for name, parts in self._pending.items():
            values = np.concatenate(parts) if parts else np.empty(0, dtype=self.types[name])
            self._put(name, values[:rows])
            self._pending[name] = [values[rows:].copy()] if len(values) > rows else []
        self._rows -= rows

    def _put(self, name: str, values: Column) -> None:
        dataset = self._datasets.get(name)
        if dataset is not None:
            begin = len(dataset)
            dataset.resize((begin + len(values),))
            dataset[begin:] = values
            return
        dataset = self._datasets[name] = _column(self.group, name, values, self.types[name])
        for fact, words in self.facts[name].items():
            dataset.attrs[fact] = text.storable(words)


class Writer:
    """Writes one results file; leave the ``with`` block without an exception to put it in place.

    Until then it has another name, and what was there before stays, also if this process is killed.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        """Begin the file.

        Raises:
            OSError: storage does not take it.
        """
        self.path = path
        self._written: set[str] = set()
        self._samples: dict[tuple[str, str], _Samples] = {}
        try:
            self._raw = SteadyFile(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        self._file = h5py.File(self._raw, "w", rdcc_nbytes=0)  # whole chunks are written: no cache of them
        self._file.attrs["schema"] = SCHEMA_NAME
        self._file.attrs["schema_version"] = SCHEMA_VERSION
        for name, value in attributes.items():
            self._file.attrs[name] = text.storable(value) if isinstance(value, str) else value

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                try:
                    self._finish()
                except Exception as found:
                    self._fail(found)
        finally:
            self._abandon()

    def _finish(self) -> None:
        """Write the rest, verify the file, put it in place.

        Raises:
            OSError: storage does not take it; what was there before stays.
            StoreError: what was written is not what is read.
        """
        for samples in self._samples.values():
            samples.finish()
            self._raw.raise_error()
        for name, fields in TABLES.items():
            if name not in self._written:
                self.table(name, {f.name: [] for f in fields})
        self._file.close()
        self._raw.sync()
        with Results(self._raw.path) as check:
            check.verify()
        self._raw.path.replace(self.path)

    def _abandon(self) -> None:
        """Leave nothing behind: HDF5 closes its file in memory where storage failed."""
        with contextlib.suppress(Exception):
            self._file.close()
        self._raw.close()
        with contextlib.suppress(OSError):
            self._raw.path.unlink(missing_ok=True)

    def _fail(self, error: BaseException | None) -> None:
        """Raise what storage said, with the file that was asked for; else what HDF5, or who writes, made of it."""
        first = self._raw.error or error
        if isinstance(first, OSError) and first.errno is not None:
            raise OSError(first.errno, first.strerror, str(self.path)) from None
        if first is not None:
            raise first

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write one fixed table; ``columns`` maps every field of ``TABLES[name]`` to values of equal length.

        Raises:
            StoreError: a column is missing, unknown, or of another length.
            OSError: storage does not take it.
        """
        fields = TABLES[name]
        names = [f.name for f in fields]
        if sorted(columns) != sorted(names):
            wrong = sorted(set(columns) ^ set(names))
            raise StoreError(
                f"{self.path}: table {name}: columns {wrong} are missing or unknown; expected {names}"
            )
        self._equal(f"table {name}", columns)
        group = self._file.create_group(name)
        for f in fields:
            kind = object if f.type == TEXT or not len(columns[f.name]) else None
            dataset = _column(group, f.name, np.asarray(columns[f.name], dtype=kind), f.type)
            dataset.attrs["definition"] = f.definition
            dataset.attrs["unit"] = f.unit
        self._written.add(name)
        self._fail(None)

    def samples(
        self, workload: str, table: str, columns: Mapping[str, Column], facts: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Append to ``/samples/<workload>/<table>``; readers are quick when rows come case by case.

        Args:
            columns: the ``SAMPLE_KEYS`` and the recorded columns, 1-D arrays of equal length.
            facts: for each recorded column its ``unit``, ``type``, ``direction`` and ``definition``.

        Raises:
            StoreError: the columns differ in length or from those before, or a column has no facts.
            OSError: storage does not take it.
        """
        self._equal(f"samples of {workload}/{table}", columns)
        if (workload, table) not in self._samples:
            self._samples[workload, table] = self._begin(workload, table, columns, facts)
        held = self._samples[workload, table]
        if held.types.keys() != columns.keys():
            raise StoreError(
                f"{self.path}: samples of {workload}/{table}: columns {sorted(columns)}, before {sorted(held.types)}"
            )
        held.append(columns)
        self._fail(None)

    def _begin(
        self, workload: str, table: str, columns: Mapping[str, Column], facts: Mapping[str, Mapping[str, str]]
    ) -> _Samples:
        keys = {f.name: f for f in SAMPLE_KEYS}
        types: dict[str, str] = {}
        kept: dict[str, dict[str, str]] = {}
        for name in columns:
            if name in keys:
                types[name] = keys[name].type
                kept[name] = {"definition": keys[name].definition, "unit": keys[name].unit}
            elif name in facts:
                types[name] = facts[name]["type"]
                kept[name] = {fact: facts[name][fact] for fact in ("unit", "direction", "definition")}
            else:
                raise StoreError(
                    f"{self.path}: samples of {workload}/{table}: column {name} has no definition"
                )
        group = self._file.require_group("samples").require_group(workload).create_group(table)
        return _Samples(group, types, kept)

    def _equal(self, what: str, columns: Mapping[str, Sequence[Any] | Column]) -> None:
        lengths = {n: len(v) for n, v in columns.items()}
        if len(set(lengths.values())) > 1:
            raise StoreError(f"{self.path}: {what}: columns differ in length: {lengths}")
