"""Reads ``results.h5`` of every version: fixed tables whole, samples whole or a slice of them. Never unpickles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from harness.store import text
from harness.store.schema import (
    ADDED,
    HISTORY,
    SAMPLE_KEYS,
    SCHEMA_NAME,
    TABLES,
    TEXT,
    Column,
    Field,
    StoreError,
    Table,
)

_PIECE = 1 << 19  # rows that are read at once where all of a column is looked at and none is kept


def _empty(field: Field, length: int) -> Column:
    return np.full(length, "", dtype=object) if field.type == TEXT else np.zeros(length, dtype=field.type)


def _open(path: Path) -> h5py.File:
    """The file as h5py opens it by itself: HDF5 refuses to open a file twice in a process with other locking.

    It is never changed in place, so needs no lock: where it cannot have one (a file system without locks, or open
    in this process without one) it is read all the same.
    """
    # Chunks are kept by who asks for slices of many columns (analysis.slices), in bounded memory; HDF5 would keep
    # megabytes of each column.
    try:
        return h5py.File(path, "r", rdcc_nbytes=0)
    except OSError:
        return h5py.File(path, "r", locking=False, rdcc_nbytes=0)


class Results:
    """A results file, open for reading; use it as a context manager."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise StoreError(f"{path}: no such file; run `harness collect RUN` to make one")
        try:
            self._file = _open(self.path)
        except OSError as error:
            raise StoreError(
                f"{path}: not a readable HDF5 file ({str(error).splitlines()[0]}); "
                "it may be truncated or something else: run `harness collect RUN` again"
            ) from None
        found = self._file.attrs.get("schema")
        version = self._file.attrs.get("schema_version")
        if found != SCHEMA_NAME:
            self._file.close()
            raise StoreError(
                f"{path}: an HDF5 file, but not one of the harness (attribute schema = {found!r})"
            )
        self._datasets: dict[
            str, h5py.Dataset
        ] = {}  # kept open: to open one takes longer than to read a chunk
        self._absent = {item for since, items in ADDED.items() if since > int(version or 0) for item in items}
        if version not in HISTORY:
            self._file.close()
            raise StoreError(
                f"{path}: schema version {version}, this harness reads {sorted(HISTORY)}; install a newer harness"
            )

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading afterwards fails."""
        self._file.close()

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the whole file: campaign, site, provenance, ``emulated`` and so on."""
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in self._file.attrs.items()}

    def _read(self, dataset: h5py.Dataset, part: slice = slice(None)) -> Column:
        try:
            if h5py.check_string_dtype(dataset.dtype) is not None:
                found = np.asarray(dataset.asstr()[:], dtype=object)
                if dataset.attrs.get(text.DIGEST) != text.digest(found):
                    raise StoreError(
                        f"{self.path}: {dataset.name} is not as it was written (its digest differs); collect it again"
                    )
                return found[part]
            return np.asarray(dataset[part])
        except (OSError, KeyError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.path}: {dataset.name} is damaged ({error}); collect it again") from None

    def table(self, name: str) -> Table:
        """One fixed table as arrays of equal length, text as ``str`` objects.

        Raises:
            StoreError: there is no such table, or it is damaged.
        """
        if name not in TABLES:
            raise StoreError(f"no table {name!r} in the schema; there are {sorted(TABLES)}")
        if (name, "") in self._absent:
            return {f.name: _empty(f, 0) for f in TABLES[name]}
        if name not in self._file:
            raise StoreError(f"{self.path}: table {name} is missing; the file is damaged, collect it again")
        group = self._file[name]
        columns = {
            f.name: self._read(group[f.name]) for f in TABLES[name] if (name, f.name) not in self._absent
        }
        length = len(next(iter(columns.values())))
        return {f.name: columns[f.name] if f.name in columns else _empty(f, length) for f in TABLES[name]}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One fixed table as a list of dictionaries of plain Python values: handy for small tables."""
        table = self.table(name)
        names = list(table)
        columns = [table[n].tolist() for n in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def sample_tables(self) -> list[tuple[str, str]]:
        """All ``(workload, table)`` that hold samples."""
        if "samples" not in self._file:
            return []
        return [(w, t) for w, group in self._file["samples"].items() for t in group]

    def samples(
        self, workload: str, table: str, columns: Sequence[str] | None = None, part: slice = slice(None)
    ) -> Table:
        """Columns of ``/samples/<workload>/<table>``; all of them, or those named, and always the keys.

        Args:
            part: which rows; only the chunks that hold them are read.

        Raises:
            StoreError: no such table or column, or it is damaged.
        """
        group = self._samples(workload, table)
        wanted = list(group) if columns is None else [f.name for f in SAMPLE_KEYS] + list(columns)
        unknown = [n for n in wanted if n not in group]
        if unknown:
            raise StoreError(f"{self.path}: {workload}/{table} has no column {unknown}; it has {list(group)}")
        return {n: self._read(self._open(workload, table, n), part) for n in dict.fromkeys(wanted)}

    def column(self, workload: str, table: str, name: str, part: slice = slice(None)) -> Column:
        """One column of ``/samples/<workload>/<table>``, or a slice of it.

        Raises:
            StoreError: no such table, or it is damaged.
        """
        return self._read(self._open(workload, table, name), part)

    def length(self, workload: str, table: str) -> int:
        """Rows of ``/samples/<workload>/<table>``."""
        return len(self._open(workload, table, "case"))

    def case_runs(self, workload: str, table: str) -> tuple[Column, Column]:
        """Where rows of another case begin in ``/samples/<workload>/<table>``: rows, and the cases that begin there.

        A case has one run of rows in a file that was collected case by case.
        """
        column = self._open(workload, table, "case")
        begins: list[Column] = []
        cases: list[Column] = []
        before = np.empty(0, dtype="i4")
        for start in range(0, len(column), _PIECE):
            piece = self._read(column, slice(start, start + _PIECE))
            joined = np.concatenate((before, piece))
            changed = np.flatnonzero(joined[1:] != joined[:-1]) + 1
            if not start:
                changed = np.concatenate(([0], changed))
            begins.append(changed + start - len(before))
            cases.append(joined[changed])
            before = piece[-1:]
        nothing = np.empty(0, dtype="i8")
        return np.concatenate([nothing, *begins]), np.concatenate([nothing, *cases])

    def _samples(self, workload: str, table: str) -> h5py.Group:
        path = f"samples/{workload}/{table}"
        if path not in self._file:
            raise StoreError(f"{self.path}: no samples {workload}/{table}; there are {self.sample_tables()}")
        return self._file[path]

    def _open(self, workload: str, table: str, column: str) -> h5py.Dataset:
        path = f"samples/{workload}/{table}/{column}"
        if path not in self._datasets:
            self._datasets[path] = self._samples(workload, table)[column]
        return self._datasets[path]

    def facts(self, workload: str, table: str) -> dict[str, dict[str, str]]:
        """Unit, direction and definition of each column of a sample table."""
        group = self._file[f"samples/{workload}/{table}"]
        return {n: {k: str(v) for k, v in d.attrs.items()} for n, d in group.items()}

    def _groups(self) -> Iterator[h5py.Group]:
        for name in TABLES:
            if (name, "") not in self._absent:
                yield self._file[name]
        for workload, table in self.sample_tables():
            yield self._file[f"samples/{workload}/{table}"]

    def verify(self) -> None:
        """Read every table once (which checks its checksums) and compare the lengths of its columns.

        Raises:
            StoreError: a table is missing, damaged, or has columns of different lengths.
        """
        for name in TABLES:
            self.table(name)
        for group in self._groups():
            lengths = {name: len(dataset) for name, dataset in group.items()}
            if len(set(lengths.values())) > 1:
                raise StoreError(f"{self.path}: {group.name}: columns differ in length: {lengths}")
        for workload, table in self.sample_tables():
            for dataset in self._samples(workload, table).values():
                for start in range(0, len(dataset), _PIECE):
                    self._read(dataset, slice(start, start + _PIECE))


def open_results(path: Path | str) -> Results:
    """Open a results file for reading.

    Raises:
        StoreError: it is missing, truncated, foreign, or of a version this harness does not know.
    """
    return Results(path)
