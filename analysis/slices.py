"""Rows of sample tables: where each case's lie, what a ``where`` keeps, and a bounded memory of what was read.

A file is collected case by case, so a case is a slice of each of its tables, and only that is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from analysis import text
from harness.store import SAMPLE_KEYS, Column, Results, StoreError, Table

BLOCK = 131_072  # rows of a column that are read together, so that one case after the other costs few reads
MEMORY_BYTES = 96 << 20  # of blocks that are kept

Value = Any  # of a column: one, several in a list, or a range
_SEVERAL = (list, tuple, set, frozenset, np.ndarray)  # how several values are given
_SHOWN = 80  # characters of a value in a message
Rows = list[tuple[int, int]]  # slices of a table: first row, and the one after the last


class SampleReader:
    """Columns of sample tables, by slices of rows."""

    def __init__(self, store: Results, cases: int) -> None:
        self._store, self._cases = store, cases
        self._layouts: dict[tuple[str, str], tuple[Column, Column, Column]] = {}
        self._columns: dict[tuple[str, str], tuple[str, ...]] = {}
        self._blocks: OrderedDict[tuple[str, str, str, int], Column] = OrderedDict()
        self._bytes = 0

    def columns(self, workload: str, table: str) -> tuple[str, ...]:
        """Names of a table's columns, the keys first.

        Raises:
            StoreError: there is no such table.
        """
        if (workload, table) not in self._columns:
            found = list(self._store.samples(workload, table, None, slice(0, 0)))
            keys = [f.name for f in SAMPLE_KEYS]
            self._columns[workload, table] = (*keys, *(name for name in found if name not in keys))
        return self._columns[workload, table]

    def rows_of(self, workload: str, table: str, cases: Sequence[int] | None = None) -> Rows:
        """Slices that hold these cases (all: None), in the order of the cases, joined where they touch."""
        begins, ends, owners = self._layout(workload, table)
        if cases is None:
            chosen = np.arange(len(owners))
        else:
            places = [np.arange(*np.searchsorted(owners, [n, n + 1])) for n in sorted(set(cases))]
            chosen = np.concatenate(places) if places else np.arange(0)
        joined: Rows = []
        for begin, end in zip(begins[chosen].tolist(), ends[chosen].tolist(), strict=True):
            if joined and joined[-1][1] == begin:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((begin, end))
        return joined

    def _layout(self, workload: str, table: str) -> tuple[Column, Column, Column]:
        """Runs of rows of one case, sorted by case: first rows, the ones after the last, cases."""
        key = (workload, table)
        if key not in self._layouts:
            begins, owners = self._store.case_runs(workload, table)
            length = self._store.length(workload, table)
            ends = np.concatenate([begins[1:], np.asarray([length], dtype=begins.dtype)])[: len(begins)]
            order = np.argsort(owners, kind="stable")
            order = order[(owners[order] >= 0) & (owners[order] < self._cases)]
            self._layouts[key] = (begins[order], ends[order], owners[order])
        return self._layouts[key]

    def read(self, workload: str, table: str, columns: Sequence[str], rows: Rows) -> Table:
        """These columns of these rows.

        Raises:
            StoreError: no such table or column, or it is damaged.
        """
        known = self.columns(workload, table)
        unknown = [name for name in columns if name not in known]
        if unknown:
            raise StoreError(
                f"{self._store.path}: {workload}/{table} has no column {unknown}; it has {list(known)}"
            )
        return {name: self._column(workload, table, name, rows) for name in dict.fromkeys(columns)}

    def _column(self, workload: str, table: str, column: str, rows: Rows) -> Column:
        parts: list[Column] = []
        for begin, end in rows:
            if end - begin > 4 * BLOCK:
                parts.append(self._store.column(workload, table, column, slice(begin, end)))
                continue
            for number in range(begin // BLOCK, -(-end // BLOCK)):
                block = self._block(workload, table, column, number)
                start = number * BLOCK
                parts.append(block[max(0, begin - start) : end - start])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else self._block(workload, table, column, 0)[:0]

    def _block(self, workload: str, table: str, column: str, number: int) -> Column:
        key = (workload, table, column, number)
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
            return block
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        block = self._store.column(workload, table, column, part)
        block.flags.writeable = False  # it may be given to several who ask
        self._blocks[key] = block
        self._bytes += block.nbytes
        while self._bytes > MEMORY_BYTES and len(self._blocks) > 1:
            self._bytes -= self._blocks.popitem(last=False)[1].nbytes
        return block


def matches(values: Column, wanted: Value, name: str) -> Column:
    """Which values of a column are the wanted one, among the wanted ones, or in the wanted range.

    Raises:
        StoreError: what is wanted is of a type that the column cannot have, so that no row could ever match.
    """
    if isinstance(wanted, np.ndarray) and wanted.ndim == 0:
        wanted = wanted.item()
    of_texts = values.dtype == object
    if isinstance(wanted, range) and not of_texts:
        return (
            np.isin(values, wanted) if wanted.step != 1 else (values >= wanted.start) & (values < wanted.stop)
        )
    one = (str,) if of_texts else (int, float, np.number, np.bool_)
    several = isinstance(wanted, _SEVERAL)
    if not all(isinstance(value, one) for value in (wanted if several else [wanted])):
        allowed = "a text or a list of texts" if of_texts else "a number, a list of numbers, or a range"
        raise _refused(name, wanted, allowed)
    return np.isin(values, list(wanted)) if several else np.asarray(values == wanted)


def case_ids(wanted: Value, known: Container[str], cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a ``where`` says of ``case``, as a list of ids; a label that one case alone has stands for its id.

    Args:
        known: all ids.
        cases: rows of ``/cases``, looked at where one is not known.

    Raises:
        StoreError: it is neither a case_id nor a list of them, or there is no such case.
    """
    found = list(wanted) if isinstance(wanted, _SEVERAL) else [wanted]
    if not all(isinstance(case_id, str) for case_id in found):
        raise _refused("case", wanted, "a case_id or a list of them")
    return [given if given in known else _by_label(str(given), cases) for given in found]


def _by_label(given: str, cases: Sequence[Mapping[str, Any]]) -> str:
    by_label = [str(case["case_id"]) for case in cases if case["label"] == given]
    if len(by_label) == 1:
        return by_label[0]
    name = text.one_line(repr(given), _SHOWN)
    if by_label:
        ids = ", ".join(text.one_line(case_id, _SHOWN) for case_id in by_label)
        raise StoreError(f"{len(by_label)} cases are labelled {name}; give one by its id: {ids}")
    raise StoreError(f"no case {name}; {no_case(given, cases)}")


def no_case(given: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """What a case is named by, and those whose names are like the given one."""
    if not cases:
        return "there are no cases"
    named = {name: case for case in cases for name in (str(case["label"]), str(case["case_id"]))}
    close = get_close_matches(given, list(named), n=3, cutoff=0.5)
    shown = [named[name] for name in close] or list(cases[:3])
    like = "like it are" if close else "there are"
    said = {f"{text.one_line(c['label'], _SHOWN)} ({text.one_line(c['case_id'], _SHOWN)})" for c in shown}
    return f"a case is named by its label or by its id, in brackets here; {like} {', '.join(sorted(said))}"


def _refused(name: str, wanted: Value, allowed: str) -> StoreError:
    return StoreError(f"where {name} = {repr(wanted)[:_SHOWN]}: expected {allowed}")


def kept(table: Table, where: Mapping[str, Value]) -> Column:
    """Which rows have the wanted values in every column.

    Raises:
        StoreError: as ``matches``.
    """
    keep = np.ones(len(next(iter(table.values()))), dtype=bool)
    for name, wanted in where.items():
        keep &= matches(table[name], wanted, name)
    return keep
