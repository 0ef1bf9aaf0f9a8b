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
    Metric("loss", "1", "f8", LOWER, "training loss of the step's batch, mean over ranks"),
    Metric("batch_id", "1", "i8", NEITHER, "digest of the ids of the samples this rank used in the step"),
    Metric("tokens", "1", "i8", NEITHER, "tokens this rank processed in the step"),
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
    Metric("compute_ns", "ns", "i8", LOWER, "part of a step spent computing"),
    Metric(
        "communication_ns", "ns", "i8", LOWER, "part of a step spent in communication calls, waiting included"
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
