"""What measuring adds: collectives through the harness against a bare loop of the same calls, in the same ranks.

A campaign runs on site ``local`` for real: supervisor, agents, records, checks. In the code that its jobs run, the
workloads get one thing more: after each step two blocks of bare calls, a barrier and two looks at the clock around
each and nothing else, on buffers of the same sizes. The first block sends the same data again and again, as benchmarks
do; the second writes the data anew before each call, as the harness does and as programs do, so that what is sent lies
in the sender's cache. So all are measured by the same ranks, in one allocation, turn by turn. Figures are medians
over iterations of the slowest rank; the interval of a ratio is a bootstrap over steps.

A second opinion on the bare loop, in processes of its own without any harness: mpi4py's own benchmark module, a
ping-pong, whose half is one message. It is no all-reduce, and says whether the order of magnitude is right.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.store import Results
from tests.bench.bench_cluster import ROOT, BenchError
from tests.bench.table import print_table, write_json

AIM = 1.02
RUN_S = 900
# Goes at the end of a workload's file, in the frozen code of this run alone.
PLANTED = """


class Interleaved(WORKLOAD):
    tables = {
        **WORKLOAD.tables,
        "bare": ("step", "message_bytes", "elapsed_ns"),
        "anew": ("step", "message_bytes", "elapsed_ns"),
    }

    def step(self, step):
        answer = super().step(step)
        from harness.workloads.exchange import TYPES
        import time

        for size in self.sizes or (0,):
            elements = size // TYPES[self.shape.dtype].item_bytes
            if size:
                self._begin(step, size)
                call = self.prepare(self.sent, self.received)
            else:
                call = self.barrier
            clock, barrier = time.monotonic_ns, self.barrier
            for table in ("bare", "anew"):
                took, arms = [], size and table == "anew"
                for _ in range(BARE):
                    if arms:
                        self.arm(self.sent, self.received)
                        barrier()
                    barrier()
                    start = clock()
                    call()
                    took.append(clock() - start)
                barrier()
                for elapsed in took[-KEPT:]:
                    self.context.record(table, {"step": step, "message_bytes": size, "elapsed_ns": elapsed})
        return answer


WORKLOAD = Interleaved
"""
BARE, KEPT = 12, 8  # bare calls after each step, and how many of them count: the others warm up


@dataclass(frozen=True)
class Row:
    """One operation at one size."""

    workload: str
    operation: str
    message_bytes: int
    bare_s: float
    anew_s: float
    harness_s: float
    to_bare: tuple[float, float, float]  # harness / bare: its value and the ends of its interval
    to_anew: tuple[float, float, float]
    n: int


def campaign(steps: int, sizes: list[int], operations: list[str]) -> str:
    """Both workloads, each operation in a case of its own."""
    groups = "".join(
        f"  - {{name: {kind}, workload: {kind}.collectives, nodes: 1, ranks_per_node: 2, steps: {steps}, "
        f"warmup_steps: {steps // 10}, time_limit_min: 8, detection: {{step_s: 120}}, "
        f"axes: [{{operation: [{', '.join(operations)}]}}], "
        f"params: {{message_bytes: {sizes}}}}}\n"
        for kind in ("torch", "mpi")
    )
    return f"schema: 1\nname: overhead\nseed: 1\ngroups:\n{groups}"


def run(folder: Path, text: str) -> Path:
    """Make a run folder, plant the bare loop in its code, run it; its results."""
    made = folder / f"run-{folder.name}"  # node-local folders are called after it
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    _python(
        "from harness import cli; from harness.verbs.before import read\n"
        "from harness.prepare import open_or_make\nfrom pathlib import Path\n"
        f"o = cli.build_parser('run').parse_args(['run', {str(folder / 'c.yaml')!r}, '--site', 'local'])\n"
        f"o.command = []\nopen_or_make(Path({str(made)!r}), *read(o))"
    )
    _plant(made / "harness.zip")
    _python(
        "from harness.driver import Driver; from harness.rundir import RunDir\n"
        f"from harness.collect import collect\nd = Driver(RunDir({str(made)!r}))\n"
        "with d.lease():\n    d.drive(lambda views, trouble: None)\ncollect(d.run)"
    )
    return made / "results.h5"


def _python(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    if done.returncode:
        raise BenchError(f"the run failed: {done.stderr.strip().splitlines()[-1:]}")


def _plant(code: Path) -> None:
    with zipfile.ZipFile(code) as archive:
        content = {i.filename: archive.read(i) for i in archive.infolist()}
    for name in ("torch_collectives", "mpi_collectives"):
        content.pop(f"harness/workloads/{name}.pyc", None)
        planted = PLANTED.replace("BARE", str(BARE)).replace("KEPT", str(KEPT))
        content[f"harness/workloads/{name}.py"] += planted.encode()
    with zipfile.ZipFile(code, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def slowest_ns(results: Results, workload: str, case: int, table: str, size: int, calls: int) -> np.ndarray:
    """Times of the slowest rank, in the order of the calls: (steps, calls in a step); no step that warms up."""
    samples = results.samples(workload, table, ["message_bytes", "elapsed_ns"])
    here = (samples["case"] == case) & (samples["message_bytes"] == size)
    ranks = [samples["elapsed_ns"][here & (samples["rank"] == rank)] for rank in (0, 1)]
    slowest = np.max(ranks, axis=0).reshape(-1, calls)
    return np.asarray(slowest[len(slowest) // 10 :])


def compare(results: Results) -> list[Row]:
    """A row for each case and size."""
    rows = []
    for number, case in enumerate(results.rows("cases")):
        if case["outcome"] != "completed":
            raise BenchError(f"{case['label']}: {case['outcome']}: {case['reason']}")
        workload = str(case["workload"])
        samples = results.samples(workload, "collectives", ["message_bytes"])
        for size in np.unique(samples["message_bytes"][samples["case"] == number]).tolist():
            through, bare, anew = (
                slowest_ns(results, workload, number, table, size, calls) / 1e9
                for table, calls in (("collectives", 1), ("bare", KEPT), ("anew", KEPT))
            )
            rows.append(_row(workload, str(case["label"]), size, through[:, 0], bare, anew))
    return rows


def _row(
    workload: str, label: str, size: int, through: np.ndarray, bare: np.ndarray, anew: np.ndarray
) -> Row:
    operation = label.partition("operation=")[2].partition("/")[0]
    medians = (float(np.median(times)) for times in (bare, anew, through))
    return Row(
        workload, operation, size, *medians, _ratio(through, bare), _ratio(through, anew), len(through)
    )


def _ratio(through: np.ndarray, bare: np.ndarray) -> tuple[float, float, float]:
    """Of medians, with its interval: steps are resampled, each with its own calls of both kinds."""
    drawn = np.random.default_rng(1).integers(0, len(through), (500, len(through)))
    ratios = [np.median(through[pick]) / np.median(bare[pick]) for pick in drawn]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(np.median(through) / np.median(bare)), float(low), float(high)


def _words(ratio: tuple[float, float, float]) -> tuple[str, str]:
    return f"{ratio[0]:.3f}", f"{ratio[1]:.3f} to {ratio[2]:.3f}"


def second_opinion(sizes: list[int]) -> list[tuple[str, ...]]:
    """mpi4py's ping-pong between two ranks: size, half of a round trip, bandwidth, samples."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
    rows = []
    for size in sizes:
        bench = ["-m", "mpi4py.bench", "pingpong", "-a", "numpy", "-m", str(size), "-n", str(size + 1)]
        done = subprocess.run(
            [mpiexec, "-n", "2", sys.executable, "-X", "utf8", *bench, "--no-header"],
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        said = re.search(r"^\s*(\d+)\s+(\S+) \| (\S+) . (\S+)\s+(\d+)", done.stdout, re.MULTILINE)
        if done.returncode or said is None:
            raise BenchError(f"mpi4py.bench: {(done.stderr.strip() or done.stdout)[-300:]}")
        mean_us, spread_us = (f"{float(said[n]) * 1e6:.2f}" for n in (3, 4))
        rows.append((f"{size}", mean_us, spread_us, f"{said[2]} MB/s", said[5]))
    return rows


def main(options: argparse.Namespace) -> int:
    """Print the table; keep it as JSON."""
    folder = Path(tempfile.mkdtemp(prefix="bench-overhead-"))
    try:
        results = run(folder, campaign(options.steps, options.sizes, options.operations))
        with Results(results) as opened:
            rows = compare(opened)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_table(
        f"collectives of two ranks through the harness and in a bare loop (aim: within {AIM - 1:.0%})",
        ("", "size", "bare us", "data anew us", "harness us", "to bare", "95 %", "to anew", "95 %", "n"),
        [
            (f"{r.workload} {r.operation}", f"{r.message_bytes}", *(f"{s * 1e6:.2f}" for s in (r.bare_s, r.anew_s,
             r.harness_s)), *_words(r.to_bare), *_words(r.to_anew), f"{r.n}")
            for r in rows
        ],
    )  # fmt: skip
    opinion = second_opinion(options.sizes)
    print_table(
        "mpi4py.bench pingpong, two ranks, no harness: one message (its own mean and deviation)",
        ("size", "mean us", "deviation us", "bandwidth", "n"),
        opinion,
    )
    print(
        "  mpi4py's means hold every interruption by the kernel; on a busy machine they are far above a median."
    )
    write_json("overhead", {"rows": [vars(r) for r in rows], "aim": AIM, "mpi4py_pingpong": opinion})
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What measuring adds to the latency of collectives.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--sizes", type=lambda t: [int(n) for n in t.split(",")], default=[1024, 65536, 1048576]
    )
    parser.add_argument(
        "--operations",
        type=lambda t: t.split(","),
        default=["all-reduce", "all-to-all", "broadcast", "barrier"],
    )
    sys.exit(main(parser.parse_args()))
