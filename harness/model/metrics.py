"""Metrics: one home for each name's unit, type, direction and definition. Standard library only.

Names end in their unit. A metric that is not here may still be recorded by a workload, which then
states these facts itself; two definitions of one name in one file are refused by the collector.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGHER = "higher"  # is better
LOWER = "lower"
NEITHER = ""  # a coordinate or a fact, not a figure of merit

# Columns and tables that every program has; no figure of a program may be called so.
RESERVED = frozenset(
    {"case", "attempt", "rank", "node", "step", "start_mono_ns", "steps", "program", "checkpoints"}
)

# Columns of the harness's own workloads that say at what a sample was taken: no figure pools several values of one.
# Each is a parameter too, which lists the values.
COORDINATES = frozenset({"message_bytes", "matrix_size"})

# Figures that analysis forms from the raw times of a collective; a case does not record them.
BANDWIDTHS = ("algorithm_bandwidth_bytes_per_s", "bus_bandwidth_bytes_per_s")  # of one size
FITTED = ("latency_s", "asymptotic_bandwidth_bytes_per_s")  # to all sizes of a case


@dataclass(frozen=True)
class Metric:
    """One column: ``type`` is a numpy-style code, ``i8`` or ``f8``."""

    name: str
    unit: str
    type: str
    direction: str
    definition: str


def _table(*rows: Metric) -> dict[str, Metric]:
    return {m.name: m for m in rows}


METRICS: dict[str, Metric] = _table(
    Metric("step", "1", "i8", NEITHER, "index of the step, from 0, the same on every rank"),
    Metric("start_mono_ns", "ns", "i8", NEITHER, "start of the step by the host's monotonic clock"),
    Metric("step_time_ns", "ns", "i8", LOWER, "duration of one step on one rank, checkpoint left out"),
    Metric(
        "checkpoint_time_ns", "ns", "i8", LOWER, "time one checkpoint blocks a rank, from barrier to commit"
    ),
    Metric("checkpoint_bytes", "B", "i8", NEITHER, "bytes one rank writes for one checkpoint"),
    Metric(
        "message_bytes", "B", "i8", NEITHER, "S as nccl-tests counts it: size of the larger buffer of a rank"
    ),
    Metric("elapsed_ns", "ns", "i8", LOWER, "duration of one collective on one rank, after a barrier"),
    Metric("algorithm_bandwidth_bytes_per_s", "B/s", "f8", HIGHER, "S / t, t that of the slowest rank"),
    Metric(
        "bus_bandwidth_bytes_per_s",
        "B/s",
        "f8",
        HIGHER,
        "algorithm bandwidth x 2(n-1)/n for all-reduce (nccl-tests PERFORMANCE.md); 0 for n = 1",
    ),
    Metric(
        "latency_s", "s", "f8", LOWER, "alpha of t = alpha + S / beta over all sizes; of a barrier, its time"
    ),
    Metric(
        "asymptotic_bandwidth_bytes_per_s", "B/s", "f8", HIGHER, "beta of t = alpha + S / beta over all sizes"
    ),
    Metric("loss", "1", "f8", LOWER, "training loss of the step's batch, mean over ranks"),
    Metric("tokens", "1", "i8", NEITHER, "tokens this rank processed in the step; of images, their patches"),
    Metric("images", "1", "i8", NEITHER, "images this rank processed in the step; 0 where there are none"),
    Metric(
        "batch_id",
        "1",
        "i8",
        NEITHER,
        "63-bit number of the content of the batch this rank consumed in the step",
    ),
    Metric(
        "residual", "1", "f8", LOWER, "2-norm over the grid of the change in one Jacobi sweep, over all ranks"
    ),
    Metric(
        "compute_ns",
        "ns",
        "i8",
        LOWER,
        "part of a step outside of communication calls that block, on this rank; so also what communication "
        "the library does behind computing",
    ),
    Metric(
        "communication_ns",
        "ns",
        "i8",
        LOWER,
        "part of a step in communication calls that block, as on the rank that spent least in them in that "
        "step: whom others wait for hardly waits itself. An estimate of what the transfers take, waiting left out",
    ),
    Metric(
        "waiting_ns",
        "ns",
        "i8",
        LOWER,
        "this rank's time in communication calls that block beyond communication_ns: waiting until the slowest "
        "rank arrives, and what its transfers take longer than that rank's",
    ),
    Metric(
        "relative_residual",
        "1",
        "f8",
        LOWER,
        "2-norm of b - A x by recurrence over that of b, over all ranks",
    ),
    Metric("solve", "1", "i8", NEITHER, "number of the right-hand side that the step worked on, from 0"),
    Metric("matrix_size", "1", "i8", NEITHER, "rows and columns of each matrix of a product"),
    Metric(
        "product_ns",
        "ns",
        "i8",
        LOWER,
        "duration of one matrix product on one rank, to its end on the device",
    ),
    Metric("flop_per_s", "FLOP/s", "f8", HIGHER, "2 n^3 / product_ns of the product of two n x n matrices"),
    Metric(
        "shard_bytes", "B", "i8", NEITHER, "size of the shard that this rank wrote, and of the one it read"
    ),
    Metric("write_ns", "ns", "i8", LOWER, "from open to close of the shard written, fsync_ns included"),
    Metric("fsync_ns", "ns", "i8", LOWER, "part of write_ns spent in fsync; 0 where none was asked for"),
    Metric("read_ns", "ns", "i8", LOWER, "from open to close of the shard read, the checking left out"),
    Metric("write_bytes_per_s", "B/s", "f8", HIGHER, "shard_bytes / write_ns, of this rank"),
    Metric("read_bytes_per_s", "B/s", "f8", HIGHER, "shard_bytes / read_ns, of this rank"),
    Metric(
        "cached_bytes",
        "B",
        "i8",
        NEITHER,
        "of the shard read, what was in this node's page cache right before (mincore): not read from storage; "
        "-1 where it could not be told",
    ),
    Metric("cell_updates", "1", "i8", NEITHER, "grid cells this rank updated in the step"),
    Metric("exit_code", "1", "i8", NEITHER, "exit code of a user's program; minus the signal that ended it"),
    Metric(
        "program_time_ns", "ns", "i8", LOWER, "from the start of a user's program to its end, on one rank"
    ),
    Metric("said_mono_ns", "ns", "i8", NEITHER, "when a line of progress was read, by the monotonic clock"),
    # Telemetry
    Metric("wall_ns", "ns", "i8", NEITHER, "time since the epoch"),
    Metric("cpu_percent", "%", "f8", NEITHER, "processor use of the host since the last sample, all cores"),
    Metric("load_1min", "1", "f8", NEITHER, "load average over one minute"),
    Metric("memory_available_bytes", "B", "i8", NEITHER, "memory available without swapping (psutil)"),
    Metric("memory_used_bytes", "B", "i8", NEITHER, "memory used (psutil)"),
    Metric("network_sent_bytes", "B", "i8", NEITHER, "bytes sent since boot over all interfaces but lo"),
    Metric(
        "network_received_bytes", "B", "i8", NEITHER, "bytes received since boot over all interfaces but lo"
    ),
    Metric("gpu", "1", "i8", NEITHER, "NVML index of the GPU"),
    Metric("gpu_utilisation_percent", "%", "f8", NEITHER, "nvmlDeviceGetUtilizationRates().gpu"),
    Metric("gpu_memory_used_bytes", "B", "i8", NEITHER, "nvmlDeviceGetMemoryInfo().used"),
    Metric("gpu_power_w", "W", "f8", NEITHER, "nvmlDeviceGetPowerUsage() / 1000"),
    Metric("gpu_temperature_c", "degC", "f8", NEITHER, "nvmlDeviceGetTemperature(GPU)"),
    Metric("gpu_sm_clock_mhz", "MHz", "f8", NEITHER, "nvmlDeviceGetClockInfo(SM)"),
)
