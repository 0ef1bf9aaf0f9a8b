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
BARRIER = "barrier"  # the operation that carries nothing

# Figures of collectives that a site file can expect: those of one size, and those that are fitted.
OF_A_SIZE = ("bus_bandwidth_bytes_per_s", "algorithm_bandwidth_bytes_per_s", "time_s")
EXPECTED = (*OF_A_SIZE, *FITTED)


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


def _duration(name: str, definition: str) -> Metric:
    return Metric(name, "ns", "i8", LOWER, definition)


def _number(name: str, definition: str) -> Metric:
    return Metric(name, "1", "i8", NEITHER, definition)


def _size(name: str, definition: str) -> Metric:
    return Metric(name, "B", "i8", NEITHER, definition)


def _bandwidth(name: str, definition: str) -> Metric:
    return Metric(name, "B/s", "f8", HIGHER, definition)


METRICS: dict[str, Metric] = _table(
    _number("step", "index of the step, from 0, the same on every rank"),
    Metric("start_mono_ns", "ns", "i8", NEITHER, "start of the step by the host's monotonic clock"),
    _duration("step_time_ns", "duration of one step on one rank, checkpoint left out"),
    _duration("checkpoint_time_ns", "time one checkpoint blocks a rank, from barrier to commit"),
    _size("checkpoint_bytes", "bytes one rank writes for one checkpoint"),
    _size("message_bytes", "S as nccl-tests counts it: size of the larger buffer of a rank"),
    _duration("elapsed_ns", "duration of one collective on one rank, after a barrier"),
    _bandwidth("algorithm_bandwidth_bytes_per_s", "S / t, t that of the slowest rank"),
    _bandwidth(
        "bus_bandwidth_bytes_per_s",
        "algorithm bandwidth x 2(n-1)/n for all-reduce (nccl-tests PERFORMANCE.md); 0 for n = 1",
    ),
    Metric(
        "latency_s", "s", "f8", LOWER, "alpha of t = alpha + S / beta over all sizes; of a barrier, its time"
    ),
    _bandwidth("asymptotic_bandwidth_bytes_per_s", "beta of t = alpha + S / beta over all sizes"),
    Metric("loss", "1", "f8", LOWER, "training loss of the step's batch, mean over ranks"),
    _number("tokens", "tokens this rank processed in the step; of images, their patches"),
    _number("images", "images this rank processed in the step; 0 where there are none"),
    _number("batch_id", "63-bit number of the content of the batch this rank consumed in the step"),
    Metric(
        "residual", "1", "f8", LOWER, "2-norm over the grid of the change in one Jacobi sweep, over all ranks"
    ),
    _duration(
        "compute_ns",
        "part of a step outside of communication calls that block, on this rank; so also what communication "
        "the library does behind computing",
    ),
    _duration(
        "communication_ns",
        "part of a step in communication calls that block, as on the rank that spent least in them in that "
        "step: whom others wait for hardly waits itself. An estimate of what the transfers take, waiting left out",
    ),
    _duration(
        "waiting_ns",
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
    _number("solve", "number of the right-hand side that the step worked on, from 0"),
    _number("matrix_size", "rows and columns of each matrix of a product"),
    _duration("product_ns", "duration of one matrix product on one rank, to its end on the device"),
    Metric("flop_per_s", "FLOP/s", "f8", HIGHER, "2 n^3 / product_ns of the product of two n x n matrices"),
    _size("shard_bytes", "size of the shard that this rank wrote, and of the one it read"),
    _duration("write_ns", "from open to close of the shard written, fsync_ns included"),
    _duration("fsync_ns", "part of write_ns spent in fsync; 0 where none was asked for"),
    _duration("read_ns", "from open to close of the shard read, the checking left out"),
    _bandwidth("write_bytes_per_s", "shard_bytes / write_ns, of this rank"),
    _bandwidth("read_bytes_per_s", "shard_bytes / read_ns, of this rank"),
    _size(
        "cached_bytes",
        "of the shard read, what was in this node's page cache right before (mincore): not read from storage; "
        "-1 where it could not be told",
    ),
    _number("cell_updates", "grid cells this rank updated in the step"),
    _number("exit_code", "exit code of a user's program; minus the signal that ended it"),
    _duration("program_time_ns", "from the start of a user's program to its end, on one rank"),
    Metric("said_mono_ns", "ns", "i8", NEITHER, "when a line of progress was read, by the monotonic clock"),
    # Telemetry
    Metric("wall_ns", "ns", "i8", NEITHER, "time since the epoch"),
    Metric("cpu_percent", "%", "f8", NEITHER, "processor use of the host since the last sample, all cores"),
    Metric("load_1min", "1", "f8", NEITHER, "load average over one minute"),
    _size("memory_available_bytes", "memory available without swapping (psutil)"),
    _size("memory_used_bytes", "memory used (psutil)"),
    _size("network_sent_bytes", "bytes sent since boot over all interfaces but lo"),
    _size("network_received_bytes", "bytes received since boot over all interfaces but lo"),
    _number("gpu", "NVML index of the GPU"),
    Metric("gpu_utilisation_percent", "%", "f8", NEITHER, "nvmlDeviceGetUtilizationRates().gpu"),
    _size("gpu_memory_used_bytes", "nvmlDeviceGetMemoryInfo().used"),
    Metric("gpu_power_w", "W", "f8", NEITHER, "nvmlDeviceGetPowerUsage() / 1000"),
    Metric("gpu_temperature_c", "degC", "f8", NEITHER, "nvmlDeviceGetTemperature(GPU)"),
    Metric("gpu_sm_clock_mhz", "MHz", "f8", NEITHER, "nvmlDeviceGetClockInfo(SM)"),
)
