"""Several results files in one, which is read and judged as any other.

    python -m analysis.merge OUT.h5 A.h5 B.h5 ... [--mixed] [--keep-both] [--force]

Where each case came from is kept: ``cases.source`` is a row of ``/sources``, which has the file's name, its digest, its
run and all its attributes. An attribute of the whole file stays where all sources agree on it.

- A case that two files hold alike is taken once. A run that was collected twice is taken as it was collected last.
- One id with two definitions is refused, by name. One definition with two results (the campaign was run twice) is
  refused too, or with ``--keep-both`` the later file's case is called ID@RUN.
- Files whose figures are stamped differently (emulated and real) are refused, since a stamp holds for the whole
  file; with ``--mixed`` all figures of the merged file carry the stamp.
- What would clash between runs is renamed: jobs and job ids to KEY@RUN, hosts of another run to HOST@RUN, since
  their monotonic clocks may be others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.commandline import guarded
from analysis.results import CampaignResults, Row, load, samples_of
from analysis.text import count, one_line
from harness.model.event import JOB_STARTED
from harness.store import SAMPLE_KEYS, TABLES, StoreError, Table, Writer

RESULT = (
    "attempts",
    "outcome",
    "reason",
    "evidence",
    "source",
)  # columns of a case that are no part of its definition
_OF_CASE = ("attempts", "checks", "faults", "checkpoints", "digests")  # what two files must hold alike
_SHOWN = 10  # names in a message
_KEYS = tuple(f.name for f in SAMPLE_KEYS)


@dataclass
class Source:
    """One of the files, and what becomes of it."""

    results: CampaignResults
    number: int  # among the files
    row: int  # of /sources; those of a file that was merged itself follow
    run_id: str
    newer: Source | None = None  # the same run, collected later
    renamed: dict[str, str] = field(default_factory=dict)  # case_id -> what it is called in the merged file
    taken: dict[str, int] = field(default_factory=dict)  # case_id -> row in the merged file
    attempts: dict[int, int] = field(default_factory=dict)  # row here -> row in the merged file
    nodes: list[int] = field(default_factory=list)  # row here -> row in the merged file
    hosts: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    job_ids: dict[str, str] = field(default_factory=dict)

    @cached_property
    def cases(self) -> list[Row]:
        """Its cases, also those that were not needed: rows of samples name a case by its place among all of them."""
        return _plain(self.results, "cases")

    @property
    def name(self) -> str:
        """Its file, for people."""
        return str(self.results.path)


@dataclass
class Merged:
    """Rows of the merged file's tables, and what was decided on the way, in words."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    notes: list[str] = field(default_factory=list)
    files: int = 0  # that cases were taken from


def merge(
    out: Path, paths: Sequence[Path], *, mixed: bool = False, keep_both: bool = False, force: bool = False
) -> Merged:
    """Write the merged file; returns what was decided on the way.

    Args:
        out: must not be there, and none of ``paths``.
        paths: at least one results file, of any version.
        mixed: take files that are stamped differently.
        keep_both: of one case with two results, keep both.
        force: replace ``out``.

    Raises:
        StoreError: a file cannot be read, two contradict each other, or ``out`` is there.
        OSError: the file cannot be written.
    """
    if any(_same(out, path) for path in paths):
        raise StoreError(f"{out}: is one of the files to merge, and would be lost; choose another name")
    if out.exists() and not force:
        raise StoreError(f"{out}: is there already; choose another name, or give --force to replace it")
    with contextlib.ExitStack() as stack:
        once = [p for n, p in enumerate(paths) if not any(_same(p, other) for other in paths[:n])]
        opened = [stack.enter_context(load(path)) for path in once]
        sources = _numbered(opened)
        _same_stamp(sources, mixed)
        merged = Merged()
        if len(once) < len(paths):
            twice = [p for p in once if sum(_same(p, other) for other in paths) > 1]
            merged.notes += [f"{path}: given more than once; taken once" for path in twice]
        _collected_twice(sources, merged)
        _choose(sources, merged, keep_both)
        for source in sources:
            _take_rows(source, merged)
            merged.rows["sources"] += [_source_row(source), *source.results.sources]
        with Writer(out, _attributes(sources)) as writer:
            for name, fields in TABLES.items():
                writer.table(name, {f.name: [row[f.name] for row in merged.rows[name]] for f in fields})
            for source in sources:
                _take_samples(source, sources, writer)
    merged.files = sum(bool(source.taken) for source in sources)
    return merged


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _numbered(opened: Sequence[CampaignResults]) -> list[Source]:
    sources: list[Source] = []
    row = 0
    for number, results in enumerate(opened):
        run_id = str(results.attributes.get("run_id") or f"source-{number}")
        sources.append(Source(results, number, row, run_id))
        row += 1 + len(results.sources)
    return sources


# --- what may be merged ---------------------------------------------------------------------------------------


def _same_stamp(sources: Sequence[Source], mixed: bool) -> None:
    stamps = {source.name: source.results.stamp for source in sources}
    if len(set(stamps.values())) > 1 and not mixed:
        words = "; ".join(f"{name}: {stamp or 'real figures'}" for name, stamp in stamps.items())
        raise StoreError(
            f"these files do not count alike: {words}. A stamp holds for a whole file; merge them apart, or give "
            "--mixed to have no figure of performance judged"
        )


def _collected_twice(sources: Sequence[Source], merged: Merged) -> None:
    """Of one run that was collected several times, the last one counts."""
    of_run: dict[str, list[Source]] = {}
    for source in sources:
        of_run.setdefault(source.run_id, []).append(source)
    for run_id, same in of_run.items():
        newest = max(same, key=lambda s: int(s.results.attributes.get("collected_wall_ns", 0)))
        for source in same:
            if source is newest:
                continue
            gone = sorted(_ids(source) - _ids(newest))
            if gone:
                raise StoreError(
                    f"{source.name} and {newest.name} say that they are of one run, {run_id}, and the one that was "
                    f"collected last lacks cases of the other: {_listed(gone)}"
                )
            source.newer = newest
            copy = _sha256(source.results.path) == _sha256(newest.results.path)
            what = (
                f"a copy of {newest.name}"
                if copy
                else f"run {run_id} as it was collected earlier than in {newest.name}"
            )
            merged.notes.append(f"{source.name}: {what}; left out")


def _choose(sources: Sequence[Source], merged: Merged, keep_both: bool) -> None:
    """Which case is taken from which file, and as what."""
    owner: dict[str, Source] = {}
    redefined: list[str] = []
    again: list[str] = []
    rows = 0
    for source in (s for s in sources if s.newer is None):
        alike = 0
        for case in source.cases:
            case_id = case["case_id"]
            other = owner.get(case_id)
            if other is not None:
                theirs = other.results.case(case_id)
                assert theirs is not None
                if differs := _differing(case, theirs):
                    redefined.append(
                        f"{case_id} ({case['label']}): {', '.join(differs)} in {source.name} and {other.name}"
                    )
                    continue
                if _digest(source.results, case) == _digest(other.results, theirs):
                    alike += 1
                    continue
                if not keep_both:
                    again.append(f"{case_id} ({case['label']}) in {source.name} and {other.name}")
                    continue
                source.renamed[case_id] = f"{case_id}@{source.run_id}"
            owner[source.renamed.get(case_id, str(case_id))] = source
            source.taken[case_id] = rows
            rows += 1
        if alike:
            merged.notes.append(
                f"{source.name}: {alike} cases are in another file too, with the same content; taken once"
            )
        if source.renamed:
            merged.notes.append(f"{source.name}: {len(source.renamed)} cases are called ID@{source.run_id}")
    if redefined:
        raise StoreError(f"one id, and another definition of the case: {_listed(redefined)}")
    if again:
        raise StoreError(
            f"one case, and other results (its campaign was run again): {_listed(again)}; give --keep-both to keep both"
        )


def _differing(case: Row, other: Row) -> list[str]:
    """Columns in which the definitions of a case differ; of what an older version lacks nothing is said."""
    return [
        name
        for name in case
        if name not in RESULT and case[name] and other[name] and case[name] != other[name]
    ]


def _digest(results: CampaignResults, case: Row) -> str:
    """Of all that is recorded of a case, whichever rows of its file it is in."""
    case_id = case["case_id"]
    digest = hashlib.sha256(json.dumps([case[name] for name in RESULT[:-1]]).encode())
    for table in _OF_CASE:
        digest.update(json.dumps(results.of_case(table, case_id), sort_keys=True).encode())
    for workload, table in sorted(results.sample_tables):
        if workload not in (samples_of(case), "telemetry"):
            continue
        for piece in results.pieces(workload, table, None, {"case": case_id}):
            if not len(piece["case"]):
                continue
            hosts = [
                results.nodes[n] if 0 <= n < len(results.nodes) else "" for n in np.unique(piece["node"])
            ]
            digest.update(json.dumps([workload, table, hosts, sorted(piece)]).encode())
            for name in sorted(set(piece) - {"case", "attempt", "node"}):
                digest.update(np.ascontiguousarray(piece[name]).tobytes())
    return digest.hexdigest()


def _ids(source: Source) -> set[str]:
    return {case["case_id"] for case in source.cases}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more


# --- rows -----------------------------------------------------------------------------------------------------


def _take_rows(source: Source, merged: Merged) -> None:
    """Append the rows of a source's tables, with what would clash renamed."""
    if source.newer is not None:
        return
    results, rows = source.results, merged.rows
    attempts = [row for row in results.attempts if row["case_id"] in source.taken]
    every = {row["job_key"] for row in results.attempts}
    wanted = {row["job_key"] for row in attempts}
    jobs = [row for row in results.jobs if row["job_key"] in wanted or row["job_key"] not in every]
    source.jobs = _apart(source, (row["job_key"] for row in jobs), {r["job_key"] for r in rows["jobs"]})
    known = {r["slurm_job_id"] for name in ("jobs", "attempts", "starts") for r in rows[name]}
    ids = (row["slurm_job_id"] for row in (*jobs, *attempts) if row["slurm_job_id"])
    source.job_ids = _apart(source, ids, known)
    source.hosts = _apart(source, results.nodes, {r["name"] for r in rows["nodes"]})
    for name, facts in zip(results.nodes, results.node_facts, strict=True):
        source.nodes.append(len(rows["nodes"]))
        rows["nodes"].append({"name": source.hosts.get(name, name), "facts": facts})
    for case in source.cases:
        if case["case_id"] in source.taken:
            twin = source.renamed.get(case["twin"], case["twin"])
            rows["cases"].append(_of_case({**case, "twin": twin, "source": _origin(case, source)}, source))
    for number, row in enumerate(results.attempts):
        if row["case_id"] in source.taken:
            source.attempts[number] = len(rows["attempts"])
            rows["attempts"].append(_of_job(_of_case(row, source), source))
    rows["jobs"] += [_of_job(row, source) for row in jobs]
    keys = {row["job_key"] for row in jobs}
    rows["starts"] += [_of_job(row, source) for row in _plain(results, "starts") if row["job_key"] in keys]
    rows["telemetry_absent"] += results.telemetry_absent
    for name in ("faults", "detections", "checkpoints", "digests", "checks", "streams"):
        rows[name] += [
            _of_case(row, source) for row in getattr(results, name) if row["case_id"] in source.taken
        ]
    rows["events"] += [
        _event(row, source) for row in results.events if not row["case_id"] or row["case_id"] in source.taken
    ]


def _origin(case: Row, source: Source) -> int:
    """Row of /sources of a case: its file, or the one that it had been merged from before."""
    return source.row + 1 + int(case["source"]) if source.results.sources else source.row


def _apart(source: Source, names: Iterable[str], known: set[str]) -> dict[str, str]:
    """New names for those that another source uses too."""
    return {name: f"{name}@{source.run_id}" for name in names if name in known}


def _plain(results: CampaignResults, name: str) -> list[Row]:
    columns = results.table(name)
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]


def _of_case(row: Row, source: Source) -> Row:
    new = source.renamed.get(row["case_id"])
    if new is None:
        return row
    return {**row, "case_id": new, **({"label": f"{row['label']}@{source.run_id}"} if "label" in row else {})}


def _of_job(row: Row, source: Source) -> Row:
    key, number = row["job_key"], row["slurm_job_id"]
    return {**row, "job_key": source.jobs.get(key, key), "slurm_job_id": source.job_ids.get(number, number)}


def _event(row: Row, source: Source) -> Row:
    row = _of_case({**row, "host": source.hosts.get(row["host"], row["host"])}, source)
    if row["kind"] != JOB_STARTED or not source.job_ids:
        return row
    try:
        said = json.loads(row["data"])
        said["job_id"] = source.job_ids.get(str(said["job_id"]), said["job_id"])
    except (ValueError, KeyError, TypeError):
        return row
    return {**row, "data": json.dumps(said, sort_keys=True)}


def _source_row(source: Source) -> Row:
    attributes = source.results.attributes
    return {
        "file": source.results.path.name,
        "sha256": _sha256(source.results.path),
        "run_id": source.run_id,
        "campaign": str(attributes.get("campaign", "")),
        "site": str(attributes.get("site", "")),
        "schema_version": int(attributes["schema_version"]),
        "collected_wall_ns": int(attributes.get("collected_wall_ns", 0)),
        "cases": len(source.taken),
        "attributes": json.dumps(
            {k: v for k, v in attributes.items() if not isinstance(v, np.ndarray)}, sort_keys=True
        ),
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _attributes(sources: Sequence[Source]) -> dict[str, Any]:
    """What all sources agree on; a stamp of one is a stamp of all; names are joined."""
    all_of = [source.results.attributes for source in sources]
    shared = {
        name: value
        for name, value in all_of[0].items()
        if name not in ("schema", "schema_version") and all(other.get(name) == value for other in all_of)
    }

    def joined(name: str) -> str:
        return " + ".join(dict.fromkeys(str(a[name]) for a in all_of if a.get(name)))

    def put(name: str, choose: Callable[[list[Any]], Any]) -> None:
        if found := [a[name] for a in all_of if name in a]:
            shared[name] = choose(found)

    for name in ("campaign", "run_id", "site", "site_kind"):
        if name not in shared:
            shared[name] = joined(name)
    for name in ("emulated", "oversubscribed"):
        put(name, lambda values: any(bool(v) for v in values))
    put("created_wall_ns", min)
    put("collected_wall_ns", max)
    return {**shared, "merged": len(sources)}


# --- samples --------------------------------------------------------------------------------------------------


def _take_samples(source: Source, sources: Sequence[Source], writer: Writer) -> None:
    """Append the samples of the cases that are taken from a source."""
    if not source.taken:
        return
    results = source.results
    new_case = _rows(
        {n: source.taken[c["case_id"]] for n, c in enumerate(source.cases) if c["case_id"] in source.taken}
    )
    new_attempt = _rows(source.attempts)
    new_node = _rows(dict(enumerate(source.nodes)))
    for workload, table in results.sample_tables:
        facts = _same_facts(source, sources, workload, table)
        for piece in results.pieces(workload, table, None, {"case": list(source.taken)}):
            if len(piece["case"]):
                renumbered: Table = {
                    "case": new_case[piece["case"]],
                    "attempt": new_attempt[piece["attempt"]],
                    "node": new_node[piece["node"]],
                }
                writer.samples(workload, table, {**piece, **renumbered}, facts)


def _rows(new: Mapping[int, int]) -> Any:
    """Row here -> row in the merged file, as an array; -1, which is no row, stays so, as does what is not known."""
    table = np.full(max(new, default=-1) + 2, -1, dtype="i4")
    for old, row in new.items():
        table[old] = row
    return table


def _same_facts(
    source: Source, sources: Sequence[Source], workload: str, table: str
) -> dict[str, dict[str, str]]:
    """Facts of a table's columns, which must be the same in every source."""
    mine = _facts(source, workload, table)
    for other in sources[: source.number]:
        if not other.taken or not other.results.has_samples(workload, table):
            continue
        theirs = _facts(other, workload, table)
        if mine != theirs:
            names = sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n))
            raise StoreError(
                f"samples {workload}/{table}: columns {names} are not the same, or defined differently, in "
                f"{source.name} and {other.name}; these files cannot be merged"
            )
    return mine


def _facts(source: Source, workload: str, table: str) -> dict[str, dict[str, str]]:
    types = source.results.samples(workload, table, None, {"case": []})
    return {
        name: {
            **{k: facts.get(k, "") for k in ("unit", "direction", "definition")},
            "type": types[name].dtype.str[1:],
        }
        for name, facts in source.results.facts(workload, table).items()
        if name not in _KEYS
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Merge as the command line says; the exit code."""
    import argparse

    options = argparse.ArgumentParser(
        prog="python -m analysis.merge", description="put several results files into one"
    )
    options.add_argument("out", type=Path, metavar="OUT.h5")
    options.add_argument("files", type=Path, nargs="+", metavar="FILE.h5")
    options.add_argument("--mixed", action="store_true", help="also files that are stamped differently")
    options.add_argument(
        "--keep-both", action="store_true", help="of a case that was run twice, both results"
    )
    options.add_argument(
        "--force", action="store_true", help="replace OUT.h5, which may be none of the files"
    )
    given = options.parse_args(argv)

    def act() -> int:
        merged = merge(
            given.out, given.files, mixed=given.mixed, keep_both=given.keep_both, force=given.force
        )
        for note in merged.notes:
            print(one_line(note, 2000))
        print(f"{given.out}: {count(len(merged.rows['cases']), 'case')} from {count(merged.files, 'file')}")
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
