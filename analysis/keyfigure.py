"""The one figure that stands for a case, in words, with its number of samples.

A figure that cannot be had is said so with the reason, never left blank and never guessed.
"""

from __future__ import annotations

import numpy as np

from analysis import collectives, measured, recovery, text, times
from analysis.results import CampaignResults, Row, samples_of
from analysis.series import Steps, slowest_rank, total
from harness.model.fault import RECOVERED
from harness.store import Table


def _outcome(results: CampaignResults, case: Row) -> str:
    """How the last attempt ended, in words."""
    attempts = results.of_case("attempts", case["case_id"])
    return str(attempts[-1]["outcome"]).replace("_", " ") if attempts else "not run"


def _judged_steps(results: CampaignResults, case: Row) -> tuple[Table, Steps] | str:
    """Judged samples of ``steps`` and the slowest rank of each step, or why there are none."""
    if results.completed(case["case_id"]) is None:
        return f"no figure: {_outcome(results, case)}"
    if not results.has_samples(samples_of(case), "steps"):
        return "no figure: no steps recorded"
    samples = results.judged(case["case_id"], "steps")
    steps = slowest_rank(samples, "step_time_ns", case["ranks"])
    if not len(steps):
        return "no figure: no step that every rank reported"
    return samples, steps


def _rate(samples: Table, steps: Steps, column: str) -> float:
    """Median over steps of the sum over ranks of ``column``, divided by the slowest rank's time; per s."""
    times_s = steps.slowest / 1e9
    done = total(samples, column, steps.step)
    return float(np.median(done[times_s > 0] / times_s[times_s > 0])) if np.any(times_s > 0) else float("nan")


def _step_time(steps: Steps) -> str:
    return f"{text.seconds(float(np.median(steps.slowest)) / 1e9)} a step"


def _of_allreduce(results: CampaignResults, case: Row) -> str:
    if results.completed(case["case_id"]) is None:
        return f"no figure: {_outcome(results, case)}"
    sizes = collectives.sizes(results, case)
    measured = collectives.measure(results, case, sizes[-1]) if sizes else None
    if measured is None:
        return "no figure: no iteration that every rank reported"
    size, n = text.size(measured.message_bytes), measured.time_s.n
    bus, algorithm = measured.bus_bandwidth_bytes_per_s, measured.algorithm_bandwidth_bytes_per_s
    if measured.operation == collectives.BARRIER:
        return f"{text.seconds(measured.time_s.median)} a call, n={n}"
    if algorithm is None and case["ranks"] > 1:
        return f"{text.seconds(measured.time_s.median)} a call at {size}, n={n}"
    if algorithm is None:
        return f"one rank: nothing is sent; {text.seconds(measured.time_s.median)} a call at {size}, n={n}"
    value, kind = (bus, "bus") if bus is not None else (algorithm, "algorithm")
    return f"{text.si(value.median, 'B/s')} {kind} bandwidth at {size}, n={n}"


def _of_steps(results: CampaignResults, case: Row) -> str:
    found = _judged_steps(results, case)
    if isinstance(found, str):
        return found
    samples, steps = found
    words = _step_time(steps)
    if "cell_updates" in samples:
        words = f"{words}, {text.rate(_rate(samples, steps, 'cell_updates'), 'cells')}"
    for noun in ("images", "tokens"):  # of images, tokens are their patches
        if noun in samples and np.any(samples[noun] > 0):
            words = f"{text.rate(_rate(samples, steps, noun), noun)}, {words}"
            break
    return f"{words}, n={len(steps)}"


def _of_shards(results: CampaignResults, case: Row) -> str:
    """What all ranks together wrote and read in a second: bytes of a step over the time of its slowest rank."""
    if results.completed(case["case_id"]) is None:
        return f"no figure: {_outcome(results, case)}"
    if not results.has_samples(samples_of(case), "shards"):
        return "no figure: no shards recorded"
    samples = results.judged(case["case_id"], "shards")
    write, read = (slowest_rank(samples, name, case["ranks"]) for name in ("write_ns", "read_ns"))
    if not len(write):
        return "no figure: no step that every rank reported"
    rates = (text.si(_rate(samples, times, "shard_bytes"), "B/s") for times in (write, read))
    words = "write {}, read {}".format(*rates)
    known = samples["cached_bytes"] >= 0
    cached, all_read = (float(np.sum(samples[n][known])) for n in ("cached_bytes", "shard_bytes"))
    words += f" ({text.percent(cached / all_read)} of it from the page cache)" if cached > 0 else ""
    return f"{words}, {text.count(case['ranks'], 'rank')}, n={len(write)}"


def _of_gemm(results: CampaignResults, case: Row) -> str:
    """Operations in a second of one rank, the slowest of each step, with the largest matrices."""
    if results.completed(case["case_id"]) is None:
        return f"no figure: {_outcome(results, case)}"
    if not results.has_samples(samples_of(case), "products"):
        return "no figure: no products recorded"
    samples = results.judged(case["case_id"], "products")
    size = int(np.max(samples["matrix_size"], initial=0))
    here = {name: values[samples["matrix_size"] == size] for name, values in samples.items()}
    times = slowest_rank(here, "product_ns", case["ranks"])
    if not len(times):
        return "no figure: no product that every rank reported"
    time_s = float(np.median(times.slowest)) / 1e9
    rate = text.si(2 * size**3 / time_s, "FLOP/s") if time_s > 0 else "unknown"
    return f"{rate} a rank at {size} x {size}, {text.seconds(time_s)} a product, n={len(times)}"


def _of_faults(results: CampaignResults, case: Row) -> str:
    """Time to recover (t8 - t1, of the fault that took longest), how much of it was waiting, and restarts."""
    faults = results.of_case("faults", case["case_id"])
    found = [recovery.of_fault(results, case, fault) for fault in faults]
    restarts = max(0, len(results.of_case("attempts", case["case_id"])) - 1)
    known = [r for r in found if r.time_to_recover_s is not None or r.time_to_recover_bound_s is not None]
    wanted = [r for r in found if r.expect == RECOVERED]
    known = [r for r in known if r.expect == RECOVERED]
    words, again = text.count(len(wanted), "fault"), text.count(restarts, "restart")
    if not wanted:
        return f"{text.count(len(found), 'fault')}, expected: {', '.join(sorted({r.expect for r in found}))}; {again}"
    if len(known) < len(wanted):
        return f"{len(known)} of {words} known to have been recovered from, {again}"
    slowest = max(known, key=lambda r: r.time_to_recover_s or r.time_to_recover_bound_s or 0.0)
    waited = ""
    if slowest.queue_s is not None and slowest.time_to_recover_s is not None:
        waited = f" ({text.seconds(slowest.queue_s)} of it in the queue)"
    return f"recovered from {words} {slowest.took}{waited}, {again}"


def _of_command(results: CampaignResults, case: Row) -> str:
    """The first metric that was recorded, where its coordinates are largest; else how long it ran."""
    if results.completed(case["case_id"]) is None:
        return f"no figure: {_outcome(results, case)}"
    for name in measured.names(results, case):
        if found := measured.of_metric(results, case, name):
            last = found[-1]
            places = "".join(f", {c} = {text.quantity(v, unit)}" for c, v, unit in last.place)
            return f"{name} {text.quantity(last.values.median, last.unit)}{places}, n={last.values.n}"
    if results.has_samples(samples_of(case), "steps") and not isinstance(_judged_steps(results, case), str):
        return _of_steps(results, case)
    if not results.has_samples(samples_of(case), "program"):
        return "no figure: nothing recorded"
    times_ns = results.judged(case["case_id"], "program")["program_time_ns"]
    return f"ran {text.seconds(float(np.max(times_ns)) / 1e9)}"


_OF_WORKLOAD = {measured.COMMAND: _of_command, "io.shards": _of_shards, "torch.gemm": _of_gemm}


def of_case(results: CampaignResults, case: Row) -> str:
    """The key figure of a case.

    Raises:
        StoreError: the samples are damaged.
    """
    if results.of_case("faults", case["case_id"]):
        return _of_faults(results, case)
    if results.completed(case["case_id"]) is not None and (why := times.not_measured(results, case)):
        return f"no figure: {why}"
    if case["workload"] in collectives.OPERATIONS:
        return _of_allreduce(results, case)
    if of_workload := _OF_WORKLOAD.get(case["workload"]):
        return of_workload(results, case)
    return _of_steps(results, case)
