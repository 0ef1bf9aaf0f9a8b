"""Reading a results file by case: small tables as rows, samples as arrays or, with pandas, as frames.

>>> results = analysis.load("results.h5")
>>> results.samples("mpi.halo", "steps", ["step_time_ns"], {"case": case_id, "rank": [0, 1], "step": range(3, 40)})

A step that was done again after a restart appears once for every attempt that did it. ``case_samples`` keeps
all of them; ``effective`` keeps what the answer was made of: of each step, the last attempt that did it.
Nothing here judges, and nothing here writes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.slices import Rows, SampleReader, Value, case_ids, kept, matches, no_case
from harness.model.attempt import COMPLETED
from harness.model.case import CACHED
from harness.model.design import not_needed
from harness.model.event import JOB_STARTED
from harness.store import SAMPLE_KEYS, Column, Results, StoreError, Table, open_results
from harness.store import samples_of as _samples_of

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]
_PIECE = 1 << 19  # rows that are looked at together where only some of them are kept

OF_CASE = ("attempts", "faults", "events", "checks", "streams", "detections", "checkpoints", "digests")

# What h5py and numpy raise on a file that has our name and version but is not built as the schema says.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)


def names(value: str) -> tuple[str, ...]:
    """A column that holds a JSON list of names, for showing; what is not one gives no names."""
    try:
        found = json.loads(value)
    except ValueError:
        return ()
    return tuple(str(n) for n in found) if isinstance(found, list) else ()


def samples_of(case: Row) -> str:
    """The first part of the names of a case's sample tables: its workload, or a user's program by its group."""
    return _samples_of(case["workload"], case["group"])


def _where(table: Table, keep: Column) -> Table:
    """The rows that are kept; the table itself where all are."""
    return table if bool(keep.all()) else {name: values[keep] for name, values in table.items()}


def _joined(pieces: Sequence[Table]) -> Table:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _parts(rows: Rows, most: int | None) -> list[Rows]:
    """Slices in lists of at most so many rows together; all in one where there is no limit."""
    if most is None:
        return [rows]
    parts: list[Rows] = []
    room = 0
    for begin, end in rows:
        while begin < end:
            if not room:
                parts.append([])
                room = most
            stop = min(end, begin + room)
            parts[-1].append((begin, stop))
            room -= stop - begin
            begin = stop
    return parts


class CampaignResults:
    """A results file, open for reading. Text of it is hostile: escape it wherever it is shown.

    ``cases``, ``jobs``, ``attempts``, ``faults``, ``events``, ``checks``, ``streams``, ``detections``,
    ``checkpoints``, ``digests``, ``telemetry_absent``, ``sources`` are lists of dictionaries, as the schema in
    ``harness.store`` names the columns.
    """

    def __init__(self, store: Results) -> None:
        self._store = store
        self.path: Path = store.path
        self.attributes: dict[str, Any] = store.attributes
        # Rows of samples name a case by its number here; ``cases`` are those that are evidence.
        self._all_cases: list[Row] = store.rows("cases")
        self.cases = [row for row in self._all_cases if not not_needed(row["outcome"], row["reason"])]
        self.not_needed = [row for row in self._all_cases if not_needed(row["outcome"], row["reason"])]
        self.jobs: list[Row] = store.rows("jobs")
        self.attempts: list[Row] = store.rows("attempts")
        self.faults: list[Row] = store.rows("faults")
        self.events: list[Row] = store.rows("events")
        self.checks: list[Row] = store.rows("checks")
        self.streams: list[Row] = store.rows("streams")
        self.detections: list[Row] = store.rows("detections")
        self.checkpoints: list[Row] = store.rows("checkpoints")
        self.digests: list[Row] = store.rows("digests")
        self.telemetry_absent: list[Row] = store.rows("telemetry_absent")
        nodes = store.rows("nodes")
        self.nodes: list[str] = [row["name"] for row in nodes]
        self.node_facts: list[str] = [row["facts"] for row in nodes]  # JSON, beside ``nodes``
        self.sources: list[Row] = store.rows("sources")  # of a merged file
        self.sample_tables: list[tuple[str, str]] = store.sample_tables()
        self._samples = SampleReader(store, len(self._all_cases))
        self._facts: dict[tuple[str, str], dict[str, dict[str, str]]] = {}

    def __enter__(self) -> CampaignResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; samples that were not read before cannot be read afterwards."""
        self._store.close()

    # --- facts of the file

    def text(self, name: str) -> str:
        """An attribute as text; a missing or empty one is ``unknown``."""
        value = self.attributes.get(name)
        return "unknown" if value is None or str(value) == "" else str(value)

    def flag(self, name: str) -> bool | None:
        """An attribute as a truth value, None when the file does not say."""
        value = self.attributes.get(name)
        return bool(value) if isinstance(value, (bool, int)) else None

    @property
    def stamp(self) -> str:
        """Why figures of performance judge nothing here (``emulated`` ...), or empty when they do judge."""
        if self.flag("emulated"):
            return "emulated"
        if self.flag("oversubscribed"):
            return "more ranks than cores"
        if self.flag("emulated") is None:
            return "not known whether emulated"
        return ""

    # --- rows by case

    @cached_property
    def _case_rows(self) -> dict[str, int]:
        return {row["case_id"]: number for number, row in enumerate(self._all_cases)}

    @cached_property
    def _by_case(self) -> dict[str, dict[str, list[Row]]]:
        tables: dict[str, dict[str, list[Row]]] = {}
        for name in OF_CASE:
            rows: dict[str, list[Row]] = {}
            for row in getattr(self, name):
                rows.setdefault(row["case_id"], []).append(row)
            tables[name] = rows
        for attempts in tables["attempts"].values():
            attempts.sort(key=lambda row: row["index"])
        return tables

    def case(self, case_id: str) -> Row | None:
        """The case's row, or None when the file has no such case."""
        number = self._case_rows.get(case_id)
        return None if number is None else self._all_cases[number]

    def case_ids(self, wanted: Value) -> list[str]:
        """Ids of the cases that a ``where`` names, by id or by label.

        Raises:
            StoreError: there is no such case, or it is of a wrong type.
        """
        try:
            return case_ids(wanted, self._case_rows, self._all_cases)
        except StoreError as error:
            raise StoreError(f"{self.path}: {error}") from None

    def of_case(self, table: str, case_id: str) -> list[Row]:
        """Rows of one of the tables ``OF_CASE`` of one case; attempts by index, others as they stand in the file."""
        return self._by_case[table].get(case_id, [])

    def completed(self, case_id: str) -> Row | None:
        """The attempt that completed the case, the last one if several did; None if none did."""
        done = [row for row in self.of_case("attempts", case_id) if row["outcome"] == COMPLETED]
        return done[-1] if done else None

    @cached_property
    def own_attempts(self) -> tuple[int, ...]:
        """Row numbers of the attempts that this run made itself: not those of twins from the cache."""
        cached = {job["job_key"] for job in self.jobs if job["state"] == CACHED}
        return tuple(n for n, row in enumerate(self.attempts) if row["job_key"] not in cached)

    @cached_property
    def job_starts(self) -> dict[tuple[str, int], int]:
        """When each run of a job began, by its supervisor, in wall ns: by job id and restart count."""
        found: dict[tuple[str, int], int] = {}
        for event in self.events:
            if event["kind"] != JOB_STARTED:
                continue
            try:
                said = json.loads(event["data"])
                key = (str(said["job_id"]), int(said["restart"]))
            except (ValueError, KeyError, TypeError):
                continue  # what does not say which job it was of starts none
            found[key] = min(event["wall_ns"], found.get(key, event["wall_ns"]))
        return found

    @cached_property
    def clock_offsets(self) -> dict[str, int]:
        """For each host, wall minus monotonic clock in ns: the median over its events."""
        offsets: dict[str, list[int]] = {}
        for event in self.events:
            if event["wall_ns"] > 0 and event["mono_ns"] > 0:
                offsets.setdefault(event["host"], []).append(event["wall_ns"] - event["mono_ns"])
        return {host: int(np.median(np.asarray(values))) for host, values in offsets.items()}

    # --- samples

    def has_samples(self, workload: str, table: str) -> bool:
        """Whether the file has ``/samples/<workload>/<table>``."""
        return (workload, table) in self.sample_tables

    def facts(self, workload: str, table: str) -> dict[str, dict[str, str]]:
        """Unit, direction and definition of each column of a sample table."""
        key = (workload, table)
        if key not in self._facts:
            self._facts[key] = self._store.facts(workload, table)
        return self._facts[key]

    def samples(
        self,
        workload: str,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Value] | None = None,
    ) -> Table:
        """Samples of a table, case by case: columns of equal length n.

        Args:
            columns: those to read beside the keys case, attempt, rank and node; all when None.
            where: which rows. ``case``: a case_id, a label, or a list of them. ``attempt``: its index inside the
                case, or a list. Any other column (``rank``, ``step``, ``message_bytes`` ...): a value, a list of
                values, or a ``range``. Of ``case`` only that slice of the file is read.

        Raises:
            StoreError: there is no such table, column or case, it is damaged, or ``where`` has a value of a wrong type.
        """
        with self._damage_named(f"samples {workload}/{table}"):
            found = list(self._read(workload, table, columns, where or {}, _PIECE if where else None))
            return found[0] if len(found) == 1 else _joined(found)

    def pieces(
        self,
        workload: str,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Value] | None = None,
    ) -> Iterator[Table]:
        """The same as ``samples``, in pieces of bounded size, at least one: for what goes through all of a large file.

        Raises:
            StoreError: as ``samples``.
        """
        with self._damage_named(f"samples {workload}/{table}"):
            yield from self._read(workload, table, columns, where or {}, _PIECE)

    def _read(
        self,
        workload: str,
        table: str,
        columns: Sequence[str] | None,
        where: Mapping[str, Value],
        piece_rows: int | None,
    ) -> Iterator[Table]:
        conditions = dict(where)
        cases = [self._number(c) for c in self.case_ids(conditions.pop("case"))] if "case" in where else None
        attempt = conditions.pop("attempt", None)
        known = self._samples.columns(workload, table)
        keys = [f.name for f in SAMPLE_KEYS]
        given = list(known) if columns is None else list(dict.fromkeys([*keys, *columns]))
        wanted = list(dict.fromkeys([*given, *conditions]))
        rows = self._samples.rows_of(workload, table, cases)
        for part in _parts(rows, piece_rows) or [[]]:
            piece = self._samples.read(workload, table, wanted, part)
            if not conditions and attempt is None:
                yield piece
                continue
            keep = kept(piece, conditions)
            if attempt is not None:
                keep &= matches(self.attempt_index(piece["attempt"]), attempt, "attempt")
            yield {name: piece[name][keep] for name in given}

    def table(self, name: str) -> Table:
        """A table of the schema as columns; the lists of rows above are the same for most.

        Raises:
            StoreError: there is no such table, or it is damaged.
        """
        with self._damage_named(f"table {name}"):
            return self._store.table(name)

    def frame(
        self,
        workload: str,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Value] | None = None,
    ) -> pandas.DataFrame:
        """The same as ``samples``, as a frame of pandas, with ``case_id``, ``label``, ``group``, ``nodes`` (how many),
        ``attempt_index`` (inside the case) and ``host`` beside the columns; ``frame.attrs["units"]`` has their units.

        Raises:
            StoreError: as ``samples``; or pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise StoreError(f"frames need pandas ({error}): pip install 'hpc-harness[frames]'") from None
        found = self.samples(workload, table, columns, where)
        frame = pandas.DataFrame(found, copy=False)
        for place, name in enumerate(("case_id", "label", "group")):
            texts, codes = np.unique(
                np.array([c[name] for c in self._all_cases], dtype=object), return_inverse=True
            )
            frame.insert(place, name, pandas.Categorical.from_codes(codes[found["case"]], categories=texts))
        frame.insert(3, "nodes", np.array([c["nodes"] for c in self._all_cases], dtype="i8")[found["case"]])
        frame.insert(4, "attempt_index", self.attempt_index(found["attempt"]))
        hosts = pandas.Index(self.nodes)
        inside = (found["node"] >= 0) & (found["node"] < len(hosts))
        codes = np.where(inside, found["node"], -1)
        frame.insert(5, "host", pandas.Categorical.from_codes(codes, categories=hosts))
        frame.attrs["units"] = {n: f["unit"] for n, f in self.facts(workload, table).items() if n in frame}
        return frame

    @contextlib.contextmanager
    def _damage_named(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except _DAMAGE as error:
            raise StoreError(f"{self.path}: {what} are damaged ({error}); collect them again") from None

    def _number(self, case_id: str) -> int:
        number = self._case_rows.get(case_id)
        if number is None:
            raise StoreError(f"{self.path}: no case {case_id!r}; {no_case(str(case_id), self._all_cases)}")
        return number

    def case_samples(
        self, case_id: str, table: str, columns: Sequence[str] | None = None, *, all_attempts: bool = False
    ) -> Table:
        """Raw samples of one case: those of the attempts up to the one that completed it. Only its slice is read.

        Args:
            case_id: the case; its workload names the group of tables.
            table: for instance ``steps``.
            columns: those to read beside the keys; all when None.
            all_attempts: also those of a case that never completed.

        Returns:
            Columns of equal length n, as they were collected, not to be written to; n is 0 for a case that did
            not complete.

        Raises:
            StoreError: no such case, table or column.
        """
        home = samples_of(self._all_cases[self._number(case_id)])
        samples = self.samples(home, table, columns, {"case": case_id})
        if all_attempts:
            return samples
        completed = self.completed(case_id)
        last = -1 if completed is None else int(completed["index"])
        index = self.attempt_index(samples["attempt"])
        return _where(samples, (index >= 0) & (index <= last))

    def attempt_index(self, rows: Column) -> Column:
        """Index of the attempt inside its case, from row numbers of ``/attempts``; -1 where there is none."""
        inside = (rows >= 0) & (rows < len(self.attempts))
        return np.asarray(self._indices[np.where(inside, rows, len(self.attempts))])

    @cached_property
    def _indices(self) -> Column:
        return np.array([row["index"] for row in self.attempts] + [-1], dtype=np.int64)

    def effective(self, case_id: str, table: str, columns: Sequence[str] | None = None) -> Table:
        """Of each step, the samples of the last attempt that did it; n is 0 for a case that did not complete.

        A table without steps has what the completed attempt recorded.

        Raises:
            StoreError: no such case, table or column.
        """
        has_steps = self._has_steps(self._all_cases[self._number(case_id)], table)
        more = [] if columns is None else [*columns, *(["step"] if has_steps else [])]
        samples = self.case_samples(case_id, table, None if columns is None else more)
        index = self.attempt_index(samples["attempt"])
        if not has_steps:
            completed = self.completed(case_id)
            return _where(samples, index == (-1 if completed is None else int(completed["index"])))
        if len(index) and int(index.min()) == int(index.max()):
            keep = np.ones(len(index), dtype=bool)  # one attempt did all of it
        else:
            steps, place = np.unique(samples["step"], return_inverse=True)
            last = np.full(len(steps), -1, dtype=np.int64)
            np.maximum.at(last, place, index)
            keep = index == last[place]
        if columns is not None and "step" not in columns:
            del samples["step"]
        return _where(samples, keep)

    def judged(self, case_id: str, table: str, columns: Sequence[str] | None = None) -> Table:
        """The effective samples without the warm-up: those of steps from ``warmup_steps`` on.

        Raises:
            StoreError: as ``effective``.
        """
        case = self._all_cases[self._number(case_id)]
        more = columns
        if columns is not None and self._has_steps(case, table):
            more = [*columns, "step"]
        samples = self.effective(case_id, table, more)
        if "step" not in samples:
            return samples
        keep = samples["step"] >= case["warmup_steps"]
        if columns is not None and "step" not in columns:
            del samples["step"]
        return _where(samples, keep)

    def _has_steps(self, case: Row, table: str) -> bool:
        home = samples_of(case)
        with self._damage_named(f"samples {home}/{table}"):
            return "step" in self._samples.columns(home, table)

    def find_column(self, workload: str, column: str, tables: Sequence[str] = ("steps",)) -> str | None:
        """The table of a workload that holds a column: one of ``tables`` first, then any other."""
        own = [t for w, t in self.sample_tables if w == workload]
        for table in [*(t for t in tables if t in own), *(t for t in own if t not in tables)]:
            if column in self.facts(workload, table):
                return table
        return None


def load(path: Path | str) -> CampaignResults:
    """Open a results file and read its small tables.

    Raises:
        StoreError: it is missing, truncated, foreign, damaged, or newer than this harness; one line that
            says which and what to do.
    """
    try:
        return CampaignResults(open_results(path))
    except StoreError:
        raise
    except _DAMAGE as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(
            f"{path}: damaged, or not built as the schema says ({words}); collect it again"
        ) from None
