"""The HDF5 schema of ``results.h5``: its one home, with version, history, writer and reader.

The file holds columns of equal length in groups ("tables"). Fixed tables describe what ran; tables
under ``/samples/<workload>/<table>`` hold every raw sample (of a user's programs, whose columns differ,
``/samples/command.<group>/<table>``). Nothing here aggregates or judges, and
nothing is ever unpickled. A file is written under a temporary name, checked, then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

SCHEMA_NAME = "hpc-harness results"
SCHEMA_VERSION = 3
HISTORY = {
    1: "first version: cases, jobs, attempts, faults, events, checks, streams, telemetry, samples",
    2: "cases.axes, cases.partition, cases.command, attempts.failure, and the table starts; empty when read from "
    "version 1",
    3: "faults: nodes, trigger, duration_s, series, because, policy, who was blamed by what, and t3 to t6; "
    "attempts.policy, attempts.world; the tables detections, checkpoints, digests; empty when read from an older "
    "version",
}

# What a version added: (table, column), column "" for a whole table. Read from an older file, it is empty.
ADDED = {
    2: (
        ("cases", "axes"),
        ("cases", "partition"),
        ("attempts", "failure"),
        ("starts", ""),
        ("cases", "command"),
    ),
    3: (
        *(
            ("faults", name)
            for name in (
                "nodes",
                "trigger",
                "duration_s",
                "series",
                "because",
                "policy",
                "blamed",
                "detector",
                "blamed_wall_ns",
                "left_wall_ns",
                "running_wall_ns",
                "loaded_wall_ns",
            )
        ),
        ("cases", "shrink"),
        ("attempts", "policy"),
        ("attempts", "world"),
        ("detections", ""),
        ("checkpoints", ""),
        ("digests", ""),
    ),
}

Column = NDArray[Any]
Table = dict[str, Column]

TEXT = "text"  # stored as variable-length UTF-8
TEXT_DIGEST = "sha256"  # attribute of a text column: SHA-256 of its values, each followed by a NUL byte


@dataclass(frozen=True)
class Field:
    """One column of a fixed table."""

    name: str
    type: str  # a numpy code ("i8", "f8", "i4", "?") or TEXT
    definition: str
    unit: str = ""


def _fields(*rows: tuple[str, str, str] | tuple[str, str, str, str]) -> tuple[Field, ...]:
    return tuple(Field(*row) for row in rows)


TABLES: dict[str, tuple[Field, ...]] = {
    "cases": _fields(
        ("case_id", TEXT, "hash of campaign content and repeat"),
        ("label", TEXT, "group, nodes and repeat, for people"),
        ("group", TEXT, "name of the campaign's group"),
        ("workload", TEXT, "name of the workload"),
        ("scaling_mode", TEXT, "none, strong or weak"),
        ("scaling_base", "i4", "node count for which the parameters were written; 0 without scaling"),
        ("nodes", "i4", "nodes of the case"),
        ("ranks", "i4", "world size"),
        ("ranks_per_node", "i4", "ranks on each node"),
        ("repeat", "i4", "index of the repeat, from 0"),
        ("seed", "i8", "seed of the case"),
        ("steps", "i4", "steps to do"),
        ("warmup_steps", "i4", "first steps that are recorded but not judged"),
        ("params", TEXT, "JSON: parameters of the workload"),
        ("axes", TEXT, "JSON: what the case's cell of the campaign's axes says"),
        ("partition", TEXT, "which of the site's partitions; empty for the site's own"),
        (
            "command",
            TEXT,
            "JSON: the program of workload command, its criteria and metrics; empty for others",
        ),
        ("faults", TEXT, "JSON: declared faults"),
        ("gates", TEXT, "JSON: gates"),
        ("recovery", TEXT, "recovery policy"),
        ("shrink", "?", "whether it goes on with fewer ranks when no spare node is left"),
        ("twin", TEXT, "case_id of the undisturbed twin, or empty"),
        ("is_twin", "?", "whether it runs only to be compared with"),
        ("deterministic", "?", "whether its answer must equal the twin's bit for bit"),
        ("attempts", "i4", "attempts that were started"),
        ("outcome", TEXT, "outcome of the last attempt, or: not_run, or unsettled (not known yet)"),
        ("reason", TEXT, "why it ended so"),
        ("evidence", TEXT, "complete, or unknown: <what is missing>"),
    ),
    "jobs": _fields(
        ("job_key", TEXT, "key of the job in its run"),
        ("slurm_job_id", TEXT, "job id, 12 or 12_3; empty without Slurm"),
        ("name", TEXT, "job name in Slurm"),
        (
            "state",
            TEXT,
            "last state that Slurm reported; CACHED: the records are an earlier run's; empty when it was never asked",
        ),
        ("exit_code", TEXT, "as sacct gives it, code:signal"),
        ("nodes", TEXT, "node list"),
        ("start", TEXT, "start of the last run, as sacct gives it"),
        ("end", TEXT, "end, as sacct gives it"),
        (
            "restarts",
            "i4",
            "times that it was started again, by the supervisor's records or Slurm's, whichever knows more",
        ),
        ("script_sha256", TEXT, "digest of the submitted script"),
        ("script", TEXT, "the submitted script"),
    ),
    "attempts": _fields(
        ("case_id", TEXT, "case"),
        ("index", "i4", "attempt of the case, from 0"),
        ("job_key", TEXT, "job that held it"),
        ("slurm_job_id", TEXT, "its job id in Slurm"),
        (
            "restart",
            "i4",
            "starts of its job before this one: SLURM_RESTART_COUNT, counted on over submissions",
        ),
        ("epoch", "i4", "starts of the case inside this restart"),
        ("nodes", TEXT, "JSON list: nodes of the allocation, batch host first"),
        ("step_ids", TEXT, "JSON list: Slurm step ids that held its ranks"),
        ("rank_nodes", TEXT, "JSON list: host name of each rank"),
        ("start_wall_ns", "i8", "start, since the epoch", "ns"),
        ("end_wall_ns", "i8", "end, since the epoch; 0 when nobody lived to write it", "ns"),
        ("duration_ns", "i8", "by the batch host's monotonic clock; -1 when unknown", "ns"),
        ("outcome", TEXT, "completed, failed, node_lost, interrupted or lost"),
        ("reason", TEXT, "why"),
        (
            "failure",
            TEXT,
            "class of the failure: program, machine, memory, time_limit; empty where not known",
        ),
        ("first_step", "i4", "step it began with"),
        ("last_step", "i4", "highest step every rank is known to have finished; -1 for none"),
        ("restored_step", "i4", "checkpoint it began from; -1 for none"),
        ("policy", TEXT, "how it was begun: first, requeue, new-step or warm-restart; empty when not known"),
        ("world", "i4", "ranks it was started with; 0 when not known"),
    ),
    "faults": _fields(
        ("fault_id", TEXT, "fault of the case"),
        ("case_id", TEXT, "case"),
        ("attempt", "i4", "attempt in which it was requested; -1 if it never was"),
        ("kind", TEXT, "what was done"),
        ("requested_kind", TEXT, "what the campaign asked for; differs only where it allowed a substitute"),
        ("target", TEXT, "what was hit, in words: rank 2, node p3, nodes p3, p4"),
        ("nodes", TEXT, "JSON list: host names of the nodes that were hit, those of a hit rank included"),
        ("trigger", TEXT, "when it was to strike, in words"),
        ("at_step", "i4", "trigger: the rank, or every rank, had begun this step; -1 for other triggers"),
        ("duration_s", "f8", "it ends by itself after so long; 0 if it does not", "s"),
        ("series", TEXT, "faults of one declaration with a count have the same; empty for a single one"),
        ("expect", TEXT, "declared outcome: recovered, failed, unharmed or caught"),
        ("because", TEXT, "failed: what the reason must hold"),
        ("policy", TEXT, "recovery policy of its case"),
        ("requested", "?", "fact 1: it was commanded"),
        ("observed", "?", "fact 2: its effect was verified"),
        ("healed", "?", "fact 3: it was undone, verified"),
        ("requested_wall_ns", "i8", "t0; 0 if not", "ns"),
        ("injected_wall_ns", "i8", "t1; 0 if not", "ns"),
        ("observed_wall_ns", "i8", "t1v; 0 if not", "ns"),
        ("detected_wall_ns", "i8", "t2: first sign from any detector; 0 if none", "ns"),
        ("blamed_wall_ns", "i8", "t3: a detector blamed what was hit; 0 if none did", "ns"),
        ("blamed", TEXT, "whom the first detector blamed, in words; empty if none did"),
        ("detector", TEXT, "what the first detector said: dead, frozen, hung, deadlock, livelock, silent"),
        ("left_wall_ns", "i8", "t4: the last survivor had left the broken step; 0 if not recorded", "ns"),
        ("running_wall_ns", "i8", "t5: new processes ran on every rank; 0 if not recorded", "ns"),
        ("loaded_wall_ns", "i8", "t6: state was loaded on every rank; 0 if not recorded", "ns"),
        ("first_step_wall_ns", "i8", "t7: first new step finished by every rank; 0 if none", "ns"),
        (
            "recovered_wall_ns",
            "i8",
            "t8: progress passed the highest step before the fault; 0 if never",
            "ns",
        ),
        ("healed_wall_ns", "i8", "0 if not", "ns"),
        ("evidence", TEXT, "JSON: how each fact was established"),
    ),
    "detections": _fields(
        ("case_id", TEXT, "case"),
        ("attempt", "i4", "attempt"),
        ("wall_ns", "i8", "since the epoch, by the clock of whoever detected it", "ns"),
        ("mono_ns", "i8", "by its monotonic clock", "ns"),
        ("what", TEXT, "dead, frozen, hung, deadlock, livelock or silent"),
        ("rank", "i4", "rank that is blamed; -1 for none"),
        ("node", TEXT, "node that is blamed, or that of the rank; empty for none"),
        ("step", "i4", "step at which it was; -1 when not known"),
        ("evidence", TEXT, "JSON: what the detector saw"),
        ("fault_id", TEXT, "fault that was going on; empty when none was: a false alarm"),
    ),
    "checkpoints": _fields(
        ("case_id", TEXT, "case"),
        ("attempt", "i4", "attempt"),
        ("rank", "i4", "rank"),
        ("step", "i4", "steps that were finished; -1 when not known"),
        ("level", TEXT, "memory or shared; empty when not said"),
        ("engine", TEXT, "what wrote it; empty when not said"),
        ("event", TEXT, "committed, restored, refused, or failed: it could not be committed"),
        (
            "digest",
            TEXT,
            "of the rank's live state, or of all ranks' where others had saved it; empty when refused",
        ),
        ("committed_digest", TEXT, "restored: what the manifest says the digest must be"),
        ("bytes", "i8", "bytes of this rank; -1 when not known", "B"),
        ("time_ns", "i8", "how long it took this rank; -1 when not known", "ns"),
        ("wall_ns", "i8", "when it was, since the epoch", "ns"),
        ("why", TEXT, "why it was refused or failed; empty for others"),
    ),
    "digests": _fields(
        ("case_id", TEXT, "case"),
        ("attempt", "i4", "attempt"),
        ("rank", "i4", "rank"),
        ("step", "i4", "steps that were finished"),
        ("digest", TEXT, "of the rank's live state"),
    ),
    "events": _fields(
        ("wall_ns", "i8", "since the epoch, by the host's clock", "ns"),
        ("mono_ns", "i8", "by the host's monotonic clock", "ns"),
        ("host", TEXT, "where it was seen"),
        ("source", TEXT, "supervisor, agent, rank or driver"),
        ("kind", TEXT, "what happened: see harness.model.event"),
        ("case_id", TEXT, "case, or empty"),
        ("attempt", "i4", "attempt, or -1"),
        ("rank", "i4", "rank, or -1"),
        ("data", TEXT, "JSON"),
    ),
    "checks": _fields(
        ("case_id", TEXT, "case"),
        ("attempt", "i4", "attempt"),
        ("rank", "i4", "rank"),
        ("name", TEXT, "what was checked"),
        ("passed", "?", "whether it held"),
        ("expected", TEXT, "expected value"),
        ("observed", TEXT, "observed value"),
        ("detail", TEXT, "words"),
    ),
    "streams": _fields(
        ("case_id", TEXT, "case"),
        ("attempt", "i4", "attempt"),
        ("node", TEXT, "node"),
        ("path", TEXT, "file, relative to the run folder"),
        ("status", TEXT, "complete, gap (the node was lost), short, torn or missing"),
        ("bytes", "i8", "bytes read", "B"),
        ("expected_bytes", "i8", "bytes the node said it shipped; -1 when it could not say", "B"),
        ("records", "i8", "records read"),
        ("expected_records", "i8", "records the node said it shipped; -1 when it could not say"),
        ("detail", TEXT, "words"),
    ),
    "starts": _fields(
        ("job_key", TEXT, "key of the job in its run"),
        ("round", "i4", "0: as planned; above: submitted once more"),
        ("slurm_job_id", TEXT, "job id"),
        ("state", TEXT, "how this start ended, by sacct --duplicates"),
        ("exit_code", TEXT, "as sacct gives it"),
        ("nodes", TEXT, "node list"),
        ("start", TEXT, "as sacct gives it"),
        ("end", TEXT, "as sacct gives it"),
    ),
    "telemetry_absent": _fields(
        ("node", TEXT, "node"),
        ("what", TEXT, "kind of telemetry"),
        ("reason", TEXT, "why there is none"),
    ),
}

# Columns that every table under /samples begins with.
SAMPLE_KEYS = _fields(
    ("case", "i4", "row of /cases"),
    ("attempt", "i4", "row of /attempts"),
    ("rank", "i4", "rank, or -1 for a sample of a host"),
    ("node", "i4", "row of /nodes"),
)
TABLES["nodes"] = _fields(
    ("name", TEXT, "host name, as the rows of samples refer to it"),
    (
        "facts",
        TEXT,
        "JSON: kernel, cpus, memory_bytes, GPUs and driver, and versions of what its ranks ran on",
    ),
)


def samples_of(workload: str, group: str) -> str:
    """Where a case's samples lie under ``/samples``: with its workload, or a user's program by its group."""
    return f"{workload}.{group}" if workload == "command" else workload


class StoreError(Exception):
    """A results file cannot be read or written; the message says which, why and what to do."""


# --- writing ------------------------------------------------------------------------------------------


def _empty(field: Field, length: int) -> Column:
    return np.full(length, "", dtype=object) if field.type == TEXT else np.zeros(length, dtype=field.type)


def _text(value: object) -> str:
    """What HDF5 can hold of a text: lone surrogates and NUL become escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _text_digest(values: Column) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.encode("utf-8") + b"\0")
    return digest.hexdigest()


def _create(group: h5py.Group, name: str, values: Column, type_code: str) -> h5py.Dataset:
    if type_code == TEXT:
        data = np.array([_text(v) for v in values], dtype=object)
        dataset = group.create_dataset(name, data=data, dtype=h5py.string_dtype("utf-8"))
        dataset.attrs[TEXT_DIGEST] = _text_digest(data)  # HDF5 has no checksum for text of variable length
        return dataset
    data = np.asarray(values, dtype=np.dtype(type_code))
    if not len(data):
        return group.create_dataset(name, data=data, maxshape=(None,), chunks=(1024,))
    return group.create_dataset(
        name,
        data=data,
        chunks=(min(len(data), 65536),),
        shuffle=True,
        compression="gzip",
        compression_opts=1,
        fletcher32=True,
    )


class Writer:
    """Writes one results file; leave the ``with`` block without an exception to put it in place.

    HDF5 builds it in memory: on a disk that becomes full it would leave its library, and the process, in disorder.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = h5py.File(str(path), "w", driver="core", backing_store=False)
        self._written: dict[str, int] = {}
        self._file.attrs["schema"] = SCHEMA_NAME
        self._file.attrs["schema_version"] = SCHEMA_VERSION
        for name, value in attributes.items():
            self._file.attrs[name] = _text(value) if isinstance(value, str) else value

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._file.close()
            return
        for name, fields in TABLES.items():
            if name not in self._written:
                self.table(name, {f.name: [] for f in fields})
        self._file.flush()
        image = self._file.id.get_file_image()
        self._file.close()
        self._put(image)

    def _put(self, image: bytes) -> None:
        """Write it whole, verify it, put it in place.

        Raises:
            OSError: storage does not take it; what was there before stays.
            StoreError: what was written is not what is read.
        """
        try:
            with self._temporary.open("wb") as file:
                file.write(image)
                file.flush()
                os.fsync(file.fileno())
            with Results(self._temporary) as check:
                check.verify()
            self._temporary.replace(self.path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self.path)) from None
            raise

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write one fixed table; ``columns`` maps every field of ``TABLES[name]`` to values of equal length.

        Raises:
            StoreError: a column is missing, unknown, or of another length.
        """
        fields = TABLES[name]
        names = [f.name for f in fields]
        if sorted(columns) != sorted(names):
            wrong = sorted(set(columns) ^ set(names))
            raise StoreError(
                f"{self.path}: table {name}: columns {wrong} are missing or unknown; expected {names}"
            )
        lengths = {n: len(v) for n, v in columns.items()}
        if len(set(lengths.values())) > 1:
            raise StoreError(f"{self.path}: table {name}: columns differ in length: {lengths}")
        group = self._file.create_group(name)
        for f in fields:
            dataset = _create(
                group,
                f.name,
                np.asarray(columns[f.name], dtype=object if f.type == TEXT else None)
                if len(columns[f.name])
                else np.array([], dtype=object),
                f.type,
            )
            dataset.attrs["definition"] = f.definition
            dataset.attrs["unit"] = f.unit
        self._written[name] = lengths[names[0]]

    def samples(
        self, workload: str, table: str, columns: Mapping[str, Column], facts: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Write ``/samples/<workload>/<table>``.

        Args:
            columns: the ``SAMPLE_KEYS`` and the recorded columns, 1-D arrays of equal length.
            facts: for each recorded column its ``unit``, ``type``, ``direction`` and ``definition``.

        Raises:
            StoreError: the columns differ in length, or a column has no facts.
        """
        lengths = {n: len(v) for n, v in columns.items()}
        if len(set(lengths.values())) > 1:
            raise StoreError(
                f"{self.path}: samples of {workload}/{table}: columns differ in length: {lengths}"
            )
        group = self._file.require_group("samples").require_group(workload).create_group(table)
        keys = {f.name: f for f in SAMPLE_KEYS}
        for name, values in columns.items():
            if name in keys:
                dataset = _create(group, name, values, keys[name].type)
                dataset.attrs["definition"] = keys[name].definition
                dataset.attrs["unit"] = keys[name].unit
                continue
            if name not in facts:
                raise StoreError(
                    f"{self.path}: samples of {workload}/{table}: column {name} has no definition"
                )
            dataset = _create(group, name, values, facts[name]["type"])
            for fact in ("unit", "direction", "definition"):
                dataset.attrs[fact] = facts[name][fact]


# --- reading ------------------------------------------------------------------------------------------


class Results:
    """A results file, open for reading; use it as a context manager."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise StoreError(f"{path}: no such file; run `harness collect RUN` to make one")
        try:
            self._file = h5py.File(self.path, "r")
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

    def _read(self, dataset: h5py.Dataset) -> Column:
        try:
            if h5py.check_string_dtype(dataset.dtype) is not None:
                text = np.asarray(dataset.asstr()[:], dtype=object)
                if dataset.attrs.get(TEXT_DIGEST) != _text_digest(text):
                    raise StoreError(
                        f"{self.path}: {dataset.name} is not as it was written (its digest differs); collect it again"
                    )
                return text
            return np.asarray(dataset[:])
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

    def samples(self, workload: str, table: str, columns: Sequence[str] | None = None) -> Table:
        """Columns of ``/samples/<workload>/<table>``; all of them, or those named, and always the keys.

        Raises:
            StoreError: no such table or column.
        """
        path = f"samples/{workload}/{table}"
        if path not in self._file:
            raise StoreError(f"{self.path}: no samples {workload}/{table}; there are {self.sample_tables()}")
        group = self._file[path]
        wanted = list(group) if columns is None else [f.name for f in SAMPLE_KEYS] + list(columns)
        unknown = [n for n in wanted if n not in group]
        if unknown:
            raise StoreError(f"{self.path}: {workload}/{table} has no column {unknown}; it has {list(group)}")
        return {n: self._read(group[n]) for n in dict.fromkeys(wanted)}

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
            lengths = {n: len(self._read(d)) for n, d in group.items()}
            if len(set(lengths.values())) > 1:
                raise StoreError(f"{self.path}: {group.name}: columns differ in length: {lengths}")


def open_results(path: Path | str) -> Results:
    """Open a results file for reading.

    Raises:
        StoreError: it is missing, truncated, foreign, or of a version this harness does not know.
    """
    return Results(path)
