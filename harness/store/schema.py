"""The HDF5 schema of ``results.h5``: every table and column, with its definition; version and history.

The file holds columns of equal length in groups ("tables"). Fixed tables describe what ran; tables
under ``/samples/<workload>/<table>`` hold every raw sample (of a user's programs, whose columns differ,
``/samples/command.<group>/<table>``). Nothing here aggregates or judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

SCHEMA_NAME = "hpc-harness results"
SCHEMA_VERSION = 4
HISTORY = {
    1: "first version: cases, jobs, attempts, faults, events, checks, streams, telemetry, samples",
    2: "cases.axes, cases.partition, cases.command, attempts.failure, and the table starts; empty when read from "
    "version 1",
    3: "faults: nodes, trigger, duration_s, series, because, policy, who was blamed by what, and t3 to t6; "
    "attempts.policy, attempts.world; the tables detections, checkpoints, digests; empty when read from an older "
    "version",
    4: "merged files: cases.source and the table sources, 0 and empty in a file of one campaign; streams.status may be "
    "open or foreign; samples lie case by case; cases.environment, empty when read from an older version",
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
    4: (("cases", "source"), ("cases", "environment"), ("sources", "")),
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
        ("environment", TEXT, "JSON: variables of every rank, beside the site's; a program's are in command"),
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
        ("source", "i4", "row of /sources in a merged file; 0 in others"),
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
        (
            "detector",
            TEXT,
            "what the first detector said: dead, frozen, hung, deadlock, livelock, strayed, silent",
        ),
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
        ("what", TEXT, "dead, frozen, hung, deadlock, livelock, strayed or silent"),
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
        (
            "status",
            TEXT,
            "complete, gap (the node was lost), open (its attempt had not ended), short, torn, missing, or foreign "
            "(no stream of this attempt)",
        ),
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

TABLES["sources"] = _fields(
    ("file", TEXT, "name of the file that was merged"),
    ("sha256", TEXT, "SHA-256 of that file"),
    ("run_id", TEXT, "its run"),
    ("campaign", TEXT, "its campaign"),
    ("site", TEXT, "its site"),
    ("schema_version", "i4", "its schema"),
    ("collected_wall_ns", "i8", "when it was collected, since the epoch", "ns"),
    ("cases", "i4", "cases that were taken from it; those that an earlier source held too are not counted"),
    ("attributes", TEXT, "JSON: all attributes of that file"),
)

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
