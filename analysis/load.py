"""Reading a results file by case: small tables as rows, samples as arrays.

A step that was done again after a restart appears once for every attempt that did it. ``case_samples`` keeps
all of them; ``effective`` keeps what the answer was made of: of each step, the last attempt that did it.
Nothing here judges, and nothing here writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from harness.model.attempt import COMPLETED
from harness.model.case import CACHED
from harness.model.event import JOB_STARTED
from harness.store import Column, Results, StoreError, Table, open_results
from harness.store import samples_of as _samples_of

Row = dict[str, Any]

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


class CampaignResults:
    """A results file, open for reading. Text of it is hostile: escape it wherever it is shown.

    ``cases``, ``jobs``, ``attempts``, ``faults``, ``events``, ``checks``, ``streams``, ``detections``,
    ``checkpoints``, ``digests``, ``telemetry_absent`` are lists of dictionaries, as the schema in ``harness.store``
    names the columns.
    """

    def __init__(self, store: Results) -> None:
        self._store = store
        self._tables: dict[tuple[str, str], tuple[Table, Column]] = {}
        self.path: Path = store.path
        self.attributes: dict[str, Any] = store.attributes
        self.cases: list[Row] = store.rows("cases")
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
        self.sample_tables: list[tuple[str, str]] = store.sample_tables()

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
        return {row["case_id"]: number for number, row in enumerate(self.cases)}

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
        return None if number is None else self.cases[number]

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
        return self._store.facts(workload, table)

    def samples(self, workload: str, table: str) -> Table:
        """All samples of a table, sorted by case (stable): columns of equal length n.

        Raises:
            StoreError: there is no such table, or it is damaged.
        """
        return self._sorted(workload, table)[0]

    def _sorted(self, workload: str, table: str) -> tuple[Table, Column]:
        """The table sorted by case, and where each case begins in it: n_cases + 1 offsets."""
        key = (workload, table)
        if key not in self._tables:
            try:
                columns = self._store.samples(workload, table)
                cases = columns["case"]
                if len(cases) and bool(np.any(cases[1:] < cases[:-1])):
                    order = np.argsort(cases, kind="stable")
                    columns = {name: values[order] for name, values in columns.items()}
                offsets = np.searchsorted(columns["case"], np.arange(len(self.cases) + 1))
            except StoreError:
                raise
            except _DAMAGE as error:
                raise StoreError(
                    f"{self.path}: samples {workload}/{table} are damaged ({error}); collect them again"
                ) from None
            self._tables[key] = (columns, offsets)
        return self._tables[key]

    def case_samples(self, case_id: str, table: str, *, all_attempts: bool = False) -> Table:
        """Raw samples of one case: those of the attempts up to the one that completed it.

        Args:
            case_id: the case; its workload names the group of tables.
            table: for instance ``steps``.
            all_attempts: also those of a case that never completed.

        Returns:
            Columns of equal length n, as they were collected; n is 0 for a case that did not complete.

        Raises:
            StoreError: no such case or table.
        """
        number = self._case_rows.get(case_id)
        if number is None:
            raise StoreError(f"{self.path}: no case {case_id!r}")
        columns, offsets = self._sorted(samples_of(self.cases[number]), table)
        part = slice(int(offsets[number]), int(offsets[number + 1]))
        samples = {name: values[part] for name, values in columns.items()}
        if all_attempts:
            return samples
        completed = self.completed(case_id)
        last = -1 if completed is None else int(completed["index"])
        index = self.attempt_index(samples["attempt"])
        keep = (index >= 0) & (index <= last)
        return {name: values[keep] for name, values in samples.items()}

    def attempt_index(self, rows: Column) -> Column:
        """Index of the attempt inside its case, from row numbers of ``/attempts``; -1 where there is none."""
        known = np.array([row["index"] for row in self.attempts] + [-1], dtype=np.int64)
        inside = (rows >= 0) & (rows < len(self.attempts))
        return np.asarray(known[np.where(inside, rows, len(self.attempts))])

    def effective(self, case_id: str, table: str) -> Table:
        """Of each step, the samples of the last attempt that did it; n is 0 for a case that did not complete.

        A table without steps has what the completed attempt recorded.

        Raises:
            StoreError: no such case or table.
        """
        samples = self.case_samples(case_id, table)
        if "step" not in samples:
            completed = self.completed(case_id)
            of_completed = -1 if completed is None else int(completed["index"])
            keep = self.attempt_index(samples["attempt"]) == of_completed
            return {name: values[keep] for name, values in samples.items()}
        index = self.attempt_index(samples["attempt"])
        steps, place = np.unique(samples["step"], return_inverse=True)
        last = np.full(len(steps), -1, dtype=np.int64)
        np.maximum.at(last, place, index)
        keep = index == last[place]
        return {name: values[keep] for name, values in samples.items()}

    def judged(self, case_id: str, table: str) -> Table:
        """The effective samples without the warm-up: those of steps from ``warmup_steps`` on.

        Raises:
            StoreError: as ``effective``.
        """
        case = self.case(case_id)
        samples = self.effective(case_id, table)
        if "step" not in samples:
            return samples
        keep = samples["step"] >= (case["warmup_steps"] if case else 0)
        return {name: values[keep] for name, values in samples.items()}

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
