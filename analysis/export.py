"""results.h5 -> CSV or Parquet files, one a table, with units and definitions kept.

    python -m analysis.export results.h5 --to FOLDER [--format csv|parquet] [--table NAME ...] [--where KEY=VALUE ...]

CSV: ``columns.csv`` beside the tables says unit, type, direction and definition of every column. Parquet: the same as
metadata of every field, and the attributes of the file as metadata of the schema. Samples get ``case_id``, ``label``,
``host`` beside row numbers. Tables are written piece by piece, so memory does not grow with them.

A text in a CSV file that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return would be a formula to a
spreadsheet, and text of a results file is not to be trusted. Such a cell gets an apostrophe in front, which
spreadsheets take for "this is text"; `--raw-text` leaves it as it is, for programs. Numbers and Parquet are untouched.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from analysis.commandline import guarded, parser
from analysis.results import CampaignResults, load
from analysis.slices import matches
from analysis.text import one_line
from harness.store import SAMPLE_KEYS, TABLES, TEXT, Column, StoreError, Table

FORMATS = ("csv", "parquet")
DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_ADDED = {
    "case_id": "case of the sample",
    "label": "group, nodes and repeat of that case, for people",
    "attempt_index": "attempt inside the case, from 0",
    "host": "node of the sample",
}
Facts = dict[str, dict[str, str]]


class Sink(Protocol):
    """Takes a table piece by piece."""

    def write(self, columns: Table) -> None:
        """Take some rows."""

    def close(self) -> None:
        """No more rows follow."""


def tables(results: CampaignResults) -> list[str]:
    """Names of all tables: those of the schema, and samples as ``samples/WORKLOAD/TABLE``."""
    return [*TABLES, *(f"samples/{workload}/{table}" for workload, table in results.sample_tables)]


def facts_of(results: CampaignResults, name: str) -> Facts:
    """Unit, type, direction and definition of each column of a table, in the order of the columns."""
    if name in TABLES:
        return {
            f.name: {"unit": f.unit, "type": f.type, "direction": "", "definition": f.definition}
            for f in TABLES[name]
        }
    _, workload, table = name.split("/", 2)
    kinds = {f.name: f.type for f in SAMPLE_KEYS}
    found = results.facts(workload, table)
    sampled = results.samples(workload, table, None, {"case": []})
    facts = {
        column: {
            "unit": found[column].get("unit", ""),
            "type": kinds.get(column, values.dtype.str[1:]),
            "direction": found[column].get("direction", ""),
            "definition": found[column].get("definition", ""),
        }
        for column, values in sampled.items()
    }
    for column, definition in _ADDED.items():
        facts.setdefault(column, {"unit": "", "type": TEXT, "direction": "", "definition": definition})
    facts["attempt_index"]["type"] = "i8"
    return facts


def pieces(results: CampaignResults, name: str, where: Mapping[str, Any]) -> Iterator[Table]:
    """A table in pieces of bounded size.

    Args:
        where: as of ``CampaignResults.samples``; fixed tables take ``case`` and ``attempt`` where they have them.

    Raises:
        StoreError: a column or case that is asked for is not there, or the table is damaged.
    """
    if name in TABLES:
        yield _fixed(results, name, where)
        return
    _, workload, table = name.split("/", 2)
    cases = results.table(
        "cases"
    )  # samples name a case by its row here, also beside cases that were not needed
    for samples in results.pieces(workload, table, None, where):
        yield _with_names(results, cases, samples)


def _with_names(results: CampaignResults, cases: Table, samples: Table) -> Table:
    of_case = {name: cases[name][samples["case"]] for name in ("case_id", "label")}
    hosts = np.array([*results.nodes, ""], dtype=object)
    inside = (samples["node"] >= 0) & (samples["node"] < len(results.nodes))
    return {
        **samples,
        **of_case,
        "attempt_index": results.attempt_index(samples["attempt"]),
        "host": hosts[np.where(inside, samples["node"], len(results.nodes))],
    }


def _fixed(results: CampaignResults, name: str, where: Mapping[str, Any]) -> Table:
    columns = results.table(name)
    keep = np.ones(len(next(iter(columns.values()))), dtype=bool)
    if "case" in where and "case_id" in columns:
        keep &= matches(columns["case_id"], where["case"], "case")
    attempt = columns.get("index" if name == "attempts" else "attempt")
    if "attempt" in where and attempt is not None and name != "cases":
        keep &= matches(attempt, where["attempt"], "attempt")
    return {column: values[keep] for column, values in columns.items()}


# --- the formats ----------------------------------------------------------------------------------------------


def safe(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula; a number is none."""
    if not text.startswith(DANGEROUS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


class _Csv:
    def __init__(self, path: Path, facts: Facts, raw: bool) -> None:
        self._file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
        self._writer = csv.writer(self._file)
        self._names = list(facts)
        self._safe: Callable[[str], str] = str if raw else safe
        self._writer.writerow([self._safe(name) for name in self._names])

    def write(self, columns: Table) -> None:
        """Take some rows."""
        cells = [self._cells(columns[name]) for name in self._names]
        self._writer.writerows(zip(*cells, strict=True))

    def _cells(self, values: Column) -> list[Any]:
        if values.dtype != object:
            return list(values.tolist())
        known: dict[str, str] = {}  # texts repeat
        return [known.setdefault(v, self._safe(v)) if v not in known else known[v] for v in values.tolist()]

    def close(self) -> None:
        """No more rows follow."""
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, facts: Facts, attributes: Mapping[str, Any]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise StoreError(f"Parquet needs pyarrow ({error}): pip install 'hpc-harness[frames]'") from None
        self._arrow = pyarrow
        self._schema = pyarrow.schema(
            [
                pyarrow.field(n, self._type(f["type"]), metadata={**f, "type": f["type"]})
                for n, f in facts.items()
            ],
            metadata={str(k): v if isinstance(v, str) else json.dumps(v) for k, v in attributes.items()},
        )
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")

    def _type(self, code: str) -> Any:
        arrow = self._arrow
        if code == TEXT:
            return arrow.string()
        return arrow.bool_() if code == "?" else arrow.from_numpy_dtype(np.dtype(code))

    def write(self, columns: Table) -> None:
        """Take some rows."""
        arrays = [self._arrow.array(columns[f.name], type=f.type) for f in self._schema]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """No more rows follow."""
        self._writer.close()


def export(
    results: CampaignResults,
    folder: Path,
    form: str = "csv",
    chosen: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    *,
    raw_text: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write tables as files of a folder; returns their paths. Each is written aside and put in place when it is whole.

    Args:
        results: an open results file.
        folder: made if it is not there.
        form: ``csv`` or ``parquet``.
        chosen: tables, as ``tables`` names them; all when empty.
        where: which rows, as of ``CampaignResults.samples``.
        say: takes, in words, which tables have no row.
        raw_text: leave cells as they are that a spreadsheet would take for formulas.

    Raises:
        StoreError: there is no such table, column or case, ``where`` has a value of a wrong type, or what is
            needed is not installed.
        OSError: the folder cannot be written.
    """
    where = dict(where or {})
    names = list(dict.fromkeys(chosen)) or _with_columns(results, where)
    if unknown := sorted(set(names) - set(tables(results))):
        raise StoreError(f"{results.path}: no table {unknown}; there are {tables(results)}")
    if "case" in where:
        where["case"] = results.case_ids(where["case"])
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    rows = dict.fromkeys(names, 0)
    for name in names:
        facts = facts_of(results, name)
        path = folder / f"{name.replace('/', '.')}.{form}"
        with _sink(path, form, facts, results.attributes, raw_text) as sink:
            for piece in pieces(results, name, where):
                rows[name] += len(next(iter(piece.values())))
                sink.write(piece)
        written.append(path)
    if form == "csv":
        written.append(_columns_file(results, folder, names, raw_text))
    if empty := _empty(rows, bool(chosen)):
        asked = ", ".join(f"{name}={_condition(wanted)}" for name, wanted in where.items())
        say(f"no rows{f' with {asked}' if asked else ''}: {', '.join(empty)}")
    return written


def _empty(rows: Mapping[str, int], chosen: bool) -> list[str]:
    """Tables without a row that somebody may have expected to have some: those named, or else all of the samples."""
    wanted = {name: number for name, number in rows.items() if chosen or name not in TABLES}
    empty = [name for name, number in wanted.items() if not number]
    return empty if chosen or len(empty) == len(wanted) else []


def _condition(wanted: Any) -> str:
    if isinstance(wanted, range):
        return f"{wanted.start}:{wanted.stop}"
    return ",".join(map(str, wanted)) if isinstance(wanted, list) else one_line(wanted, 80)


def _with_columns(results: CampaignResults, where: Mapping[str, Any]) -> list[str]:
    """Tables to export when none was named: all but those samples that have not the columns that are asked for."""
    asked = set(where) - {"case", "attempt"}
    names = [n for n in tables(results) if n in TABLES or asked <= set(facts_of(results, n))]
    if asked and all(name in TABLES for name in names):
        raise StoreError(f"{results.path}: no table of samples has columns {sorted(asked)}")
    return names


@contextlib.contextmanager
def _sink(path: Path, form: str, facts: Facts, attributes: Mapping[str, Any], raw: bool) -> Iterator[Sink]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        sink: Sink = _Csv(temporary, facts, raw) if form == "csv" else _Parquet(temporary, facts, attributes)
        try:
            yield sink
        finally:
            sink.close()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _columns_file(results: CampaignResults, folder: Path, names: Sequence[str], raw: bool) -> Path:
    """What every column of every table is."""
    path = folder / "columns.csv"
    header = ("table", "column", "unit", "type", "direction", "definition")
    rows = [
        (name, column, *(facts[k] for k in header[2:]))
        for name in names
        for column, facts in facts_of(results, name).items()
    ]
    columns = {h: np.array([row[n] for row in rows], dtype=object) for n, h in enumerate(header)}
    facts: Facts = {h: {} for h in header}
    with _sink(path, "csv", facts, {}, raw) as sink:
        sink.write(columns)
    return path


# --- the command line -----------------------------------------------------------------------------------------


def condition(text: str) -> tuple[str, Any]:
    """``KEY=VALUE[,VALUE...]`` or ``KEY=LOW:HIGH`` (HIGH left out of it) as a key and what it may be.

    Raises:
        StoreError: it is neither.
    """
    key, equals, said = text.partition("=")
    if not (key and equals and said):
        raise StoreError(f"--where {text}: expected KEY=VALUE, KEY=VALUE,VALUE or KEY=LOW:HIGH")
    if key == "case":
        return key, said.split(",")
    try:
        low, colon, high = said.partition(":")
        if colon:
            return key, range(int(low), int(high))
        return key, [float(v) if not _is_whole(v) else int(v) for v in said.split(",")]
    except ValueError:
        raise StoreError(
            f"--where {text}: {said!r} is no number, list of numbers, or range LOW:HIGH"
        ) from None


def conditions(given: Sequence[str]) -> dict[str, Any]:
    """All of them together, which every row must meet.

    Raises:
        StoreError: one of them is none, or two are of one key.
    """
    found: dict[str, Any] = {}
    for one in given:
        key, wanted = condition(one)
        if key in found:
            raise StoreError(f"--where {one}: {key} is given twice; several values are {key}=VALUE,VALUE")
        found[key] = wanted
    return found


def _warn(words: str) -> None:
    print(one_line(words, 2000), file=sys.stderr)


def _is_whole(text: str) -> bool:
    return text.strip().lstrip("+-").isdigit()


def main(argv: Sequence[str] | None = None) -> int:
    """Export as the command line says; the exit code."""
    options = parser("export", "write the tables of a results file as CSV or Parquet")
    options.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="made if it is not there")
    options.add_argument("--format", choices=FORMATS, default="csv")
    options.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="such as cases, or samples/mpi.halo/steps; else all",
    )
    options.add_argument(
        "--where",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="rows that meet every one of these: case=ID-OR-LABEL,... or attempt=0 or rank=0,1 or step=10:20 or any "
        "other column of samples; several follow one another",
    )
    options.add_argument(
        "--raw-text",
        action="store_true",
        help="no apostrophe before texts that a spreadsheet takes for formulas",
    )
    given = options.parse_args(argv)

    def act() -> int:
        where = conditions(given.where)
        with load(given.results) as results:
            paths = export(
                results, given.to, given.format, given.table, where, raw_text=given.raw_text, say=_warn
            )
        for path in paths:
            print(path)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
