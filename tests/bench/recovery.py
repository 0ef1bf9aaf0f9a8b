"""How soon a job goes on after a fault: ours, torchrun, NVIDIA's ft_launcher, Slurm's requeue; and false alarms.

    python -m tests.bench.recovery [--part killed,frozen,node,quiet] [--repeats 20] [--minutes 60] [--steps 100000]

Four ranks on two nodes, in rounds, each row once a round and every round beginning with another (README.md says
what else makes it fair). It passes and fails nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis import spread
from harness.devcluster.config import NODE_LOST_S
from tests.bench import recovery_ours as ours
from tests.bench import recovery_peers as peers
from tests.bench import recovery_quiet as quiet
from tests.bench.bench_cluster import BenchCluster, BenchError, alone
from tests.bench.environments import FOLDER, Installed
from tests.bench.recovery_environment import ft_launcher
from tests.bench.rounds import Found, in_rounds
from tests.bench.table import print_table, write_json

GROUP_TIMEOUT_S = (
    2.0  # of the peers, for a rank that is frozen; a hundred of these steps, or of our checkpoints
)
TUNED_FROZEN_S = 0.25
LEASE_S = 1.0  # of our nodes; beats come ten times a second
SLURM_DEFAULT_S = 300.0  # SlurmdTimeout where a site says nothing
TORCHRUN_DEFAULT_S = (1800.0, 0.0)  # time-out of a process group; what its default adds beside
FT_DEFAULT_S = (2700.0, 5.0)  # ft_launcher's rank_heartbeat_timeout; how often it looks
FAULTS_A_RUN = {"killed": 5, "frozen": 5, "node": 1}
SHARES = {"killed": 0.3, "frozen": 0.35, "node": 0.25, "quiet": 0.1}  # of the time

Times = ours.Times | peers.Times
Measure = Callable[[BenchCluster, str, int], Sequence[Times]]
"""Given a name of its own and a number of faults: what came after each of them."""


@dataclass(frozen=True)
class Options:
    """What is measured, and for how long."""

    parts: tuple[str, ...] = tuple(SHARES)
    rows: frozenset[str] = frozenset()
    """Only these; empty: all."""
    repeats: int = 20
    minutes: float = 60.0
    steps: int = 100_000
    environments: Path = FOLDER
    """Where ft_launcher's environment is, or is made."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    key: str
    title: str
    tuning: str
    measure: Measure
    why_not: str = ""


@dataclass(frozen=True)
class Measured:
    """One run of one row."""

    wanted: int
    faults: list[dict[str, Any]]
    """Of those, the ones that were observed and recovered from: s after each, by name."""
    load_1_min: float
    """Just before."""


def _ours(kind: str, way: ours.Way, target: dict[str, Any]) -> Measure:
    return lambda cluster, name, count: ours.faults(cluster, name, way, kind, target, count)


def _theirs(launcher: peers.Launcher, number: signal.Signals) -> Measure:
    def measure(cluster: BenchCluster, name: str, count: int) -> Sequence[Times]:
        folder = cluster.new_folder(name)
        try:
            return peers.faults(folder, launcher, number, count)
        except BenchError:
            shutil.copytree(folder, FOLDER / f"failed-{name}", dirs_exist_ok=True)
            raise
        finally:
            shutil.rmtree(folder)

    return measure


def _torchrun() -> peers.Launcher:
    argv = (
        sys.executable, "-m", "torch.distributed.run", "--max-restarts=100",
        "--monitor-interval=0.1", "--shutdown-timeout=1",
    )  # fmt: skip
    return peers.Launcher(argv, GROUP_TIMEOUT_S)


def _ft_launcher(installed: Installed) -> peers.Launcher:
    argv = (
        installed.program("ft_launcher"), "--max-restarts=100", "--monitor-interval=0.1",
        "--workers-stop-timeout=1", "--ft-restart-policy=any-failed", "--ft-enable-nic-monitor=False",
        "--ft-initial-rank-heartbeat-timeout=120", f"--ft-rank-heartbeat-timeout={GROUP_TIMEOUT_S}",
        "--ft-workload-check-interval=0.1",
    )  # fmt: skip
    return peers.Launcher(argv, GROUP_TIMEOUT_S, {"FT_HEARTBEATS": "1"})


def _of_peers(installed: Installed, number: signal.Signals) -> list[Row]:
    both = f"c10d, agents look every 0.1 s, process group {GROUP_TIMEOUT_S:g} s"
    return [
        # Its --shutdown-timeout counts at the end alone: between restarts torch 2.13 always waits 30 s after SIGTERM.
        Row("torchrun", "torchrun", both, _theirs(_torchrun(), number)),
        Row(
            "ft_launcher", "NVIDIA ft_launcher",
            f"{both}, heartbeats {GROUP_TIMEOUT_S:g} s, 1 s after SIGTERM instead of 30",
            _theirs(_ft_launcher(installed), number), installed.why_not,
        ),
    ]  # fmt: skip


def _way(workload: str, policy: str, memory: int = 0, spares: int = 0, **detection: float) -> ours.Way:
    recovery: dict[str, Any] = {"policy": policy}
    if spares:
        recovery["spares"] = spares
    return ours.Way(workload, recovery, detection, memory)


def rows(part: str, installed: Installed) -> list[Row]:
    """The lines of a part's table, ours first."""
    rank, node = {"rank": peers.TARGET}, {"node": 1}
    warm = "torch, warm-restart"
    in_memory = "checkpoints in node memory every 2 steps"
    if part == "killed":
        return [
            Row("warm", warm, in_memory, _ours("rank.kill", _way("torch.train", "warm-restart", 2), rank)),
            Row("new-step", "torch, new-step", in_memory, _ours("rank.kill", _way("torch.train", "new-step", 2), rank)),
            Row("mpi", "MPI, new-step", "none", _ours("rank.kill", _way("mpi.halo", "new-step"), rank)),
            Row("requeue", "torch, requeue by Slurm", "cred_expire 6 s instead of 120",
                _ours("rank.kill", _way("torch.train", "requeue"), rank)),
            *_of_peers(installed, signal.SIGKILL),
        ]  # fmt: skip
    if part == "frozen":
        tuned = _way("torch.train", "warm-restart", 2, frozen_s=TUNED_FROZEN_S)
        return [
            Row("warm", warm, f"{in_memory}; frozen_s as it comes, 0.9 s",
                _ours("rank.freeze", _way("torch.train", "warm-restart", 2), rank)),
            Row("warm-tuned", f"{warm}, tuned", f"{in_memory}; frozen_s {TUNED_FROZEN_S:g}",
                _ours("rank.freeze", tuned, rank)),
            Row("mpi", "MPI, new-step", "frozen_s as it comes, 0.9 s",
                _ours("rank.freeze", _way("mpi.halo", "new-step"), rank)),
            *_of_peers(installed, signal.SIGSTOP),
        ]  # fmt: skip
    lease = f"lease_s {LEASE_S:g}"
    return [
        Row("warm-spare", f"{warm}, a spare", lease,
            _ours("node.power_off", _way("torch.train", "warm-restart", spares=1, lease_s=LEASE_S), node)),
        Row("mpi-spare", "MPI, new-step, a spare", lease,
            _ours("node.power_off", _way("mpi.halo", "new-step", spares=1, lease_s=LEASE_S), node)),
        Row("requeue", "MPI, requeue by Slurm", f"SlurmdTimeout {NODE_LOST_S} instead of 300, cred_expire 6 s",
            _ours("node.power_off", _way("mpi.halo", "requeue"), node)),
    ]  # fmt: skip


def measure(cluster: BenchCluster, part: str, row: Row, number: int, repeats: int) -> Measured:
    """One run of one row: several faults in one job, the last run fewer."""
    a_run = FAULTS_A_RUN[part]
    wanted = min(a_run, repeats - a_run * number)
    cluster.settle()
    load = os.getloadavg()[0]
    found = row.measure(cluster, f"{part}-{row.key}-{number}", wanted)
    return Measured(wanted, [asdict(times) for times in found], load)


def _figure(values: Sequence[float | None]) -> str:
    known = spread.of(values)
    return "-" if known is None else f"{known['p50']:.2f} ({known['p95']:.2f})"


def _of(found: Found[Measured], key: str) -> list[dict[str, Any]]:
    return [fault for run in found.values.get(key, ()) for fault in run.faults]


def show(part: str, all_rows: Sequence[Row], found: Found[Measured], repeats: int) -> None:
    """The tables for people: the figures, and where the time goes."""
    stages = ("detected_s", "left_s", "begun_s", "imported_s", "running_s", "restored_s", "first_step_s")
    header = ("", "n", *(name.removesuffix("_s").replace("_", " ") for name in stages), "times ours")
    first = spread.of([f["first_step_s"] for f in _of(found, all_rows[0].key)])
    lines = []
    for row in all_rows:
        faults = _of(found, row.key)
        own = spread.of([f["first_step_s"] for f in faults])
        cells = [_figure([f.get(name) for f in faults]) for name in stages]
        times = f"{own['p50'] / first['p50']:.1f}" if own and first else "-"
        lines.append((row.title, str(len(faults)), *cells, times))
    print_table(f"{part}: seconds after the fault, median (p95)", header, lines)
    for row in all_rows:
        print(f"  {row.title}: tuned: {row.tuning}")
        if missing := sum(run.wanted - len(run.faults) for run in found.values.get(row.key, ())):
            print(
                f"  {row.title}: {missing} more faults without a figure: not observed, or not recovered from"
            )
        if why := found.why_not.get(row.key):
            print(f"  {row.title}: no more figures, since {why}")
    for row in all_rows:
        gaps = [f["unrecorded_s"] for f in _of(found, row.key) if f.get("unrecorded_s") is not None]
        if gaps:
            print(
                f"  {row.title}: {len(gaps)} gaps in records, {_figure(gaps)} s each, at most {max(gaps):.2f} s"
            )
    for line in _by_arithmetic(part, found):
        print(f"  {line}")
    if found.short or found.stopped:
        print(f"  n below {repeats}: {'somebody stopped it' if found.stopped else 'the time was up'}")
    loads = [run.load_1_min for runs in found.values.values() for run in runs]
    print(f"  load of the machine, mean of a minute, just before each: {_figure(loads)}")


def _by_arithmetic(part: str, found: Found[Measured]) -> list[str]:
    """What the others' defaults would have made of it: from the sources and the figures above, not measured."""
    if part == "frozen":
        told = []
        for key, (wait_s, more_s), what in (
            ("torchrun", TORCHRUN_DEFAULT_S, "process group 1800 s"),
            ("ft_launcher", FT_DEFAULT_S, "heartbeats 45 min, looked at every 5 s"),
        ):
            own = spread.of([f["first_step_s"] for f in _of(found, key)])
            if own:
                least = own["p50"] - GROUP_TIMEOUT_S + wait_s
                told.append(
                    f"{key} with its defaults ({what}): {least:.0f} to {least + more_s:.0f} s, by arithmetic"
                )
        return told
    own = spread.of([f["first_step_s"] for f in _of(found, "requeue")]) if part == "node" else None
    if own is None:
        return []
    least = own["p50"] - NODE_LOST_S + SLURM_DEFAULT_S
    return [
        f"requeue with SlurmdTimeout {SLURM_DEFAULT_S:.0f}, Slurm's default: about {least:.0f} s, by arithmetic"
    ]


def faulted(cluster: BenchCluster, part: str, options: Options, budget_s: float) -> dict[str, Any]:
    """Measure and print one of the parts with faults; the same as data."""
    all_rows = rows(part, ft_launcher(options.environments))
    all_rows = [row for row in all_rows if not options.rows or row.key in options.rows]
    by_key = {row.key: row for row in all_rows}
    found = in_rounds(
        list(by_key),
        lambda key, number: measure(cluster, part, by_key[key], number, options.repeats),
        repeats=-(-options.repeats // FAULTS_A_RUN[part]),
        budget_s=budget_s,
        impossible={row.key: row.why_not for row in all_rows if row.why_not},
    )
    show(part, all_rows, found, options.repeats)
    data = {
        row.key: {
            "title": row.title,
            "tuning": row.tuning,
            "why_not": found.why_not.get(row.key, ""),
            "n": len(_of(found, row.key)),
            "spread_s": {
                name: spread.of([f[name] for f in _of(found, row.key)])
                for name in (_of(found, row.key) or [{}])[0]
            },
            "runs": [asdict(run) for run in found.values[row.key]],
        }
        for row in all_rows
    }
    return {"rows": data, "stopped": found.stopped, "by_arithmetic": _by_arithmetic(part, found)}


def false_alarms(cluster: BenchCluster, options: Options) -> dict[str, Any]:
    """Count and print them; the same as data."""
    cluster.settle()
    try:
        found = quiet.count(cluster, options.steps)
    except BenchError as error:
        print(f"  {error}", file=sys.stderr)
        return {"why_not": str(error)}
    row = (
        "ours", str(found.steps), str(found.rank_steps), f"{found.decoys} of {found.decoys_wanted}",
        str(len(found.detections)), str(found.restarts),
    )  # fmt: skip
    header = ("", "quiet steps", "rank-steps", "decoys observed", "false alarms", "restarts")
    print_table("quiet: steps without a fault, and decoys", header, [row])
    for alarm in found.detections:
        print(
            f"  false alarm: {alarm['what']}, rank {alarm['rank']}, step {alarm['step']}: {alarm['evidence']}"
        )
    return asdict(found)


def main(cluster: BenchCluster, options: Options) -> None:
    """All that is asked for, each part printed when it has ended; the figures are kept together."""
    begin, data, stopped = time.monotonic(), {}, False
    for number, part in enumerate(options.parts):
        left_s = 60 * options.minutes - (time.monotonic() - begin)
        share = SHARES[part] / sum(SHARES[p] for p in options.parts[number:])
        much = f"{options.steps} steps" if part == "quiet" else f"{options.repeats} repeats"
        print(f"\n{part}: {much}, {share * left_s / 60:.0f} minutes", flush=True)
        if part == "quiet":
            data[part] = false_alarms(cluster, options)
            continue
        data[part] = faulted(cluster, part, options, share * left_s)
        if stopped := data[part]["stopped"]:
            break
    write_json("recovery", {"repeats_wanted": options.repeats, "world": peers.WORLD, "parts": data})
    if stopped:
        raise KeyboardInterrupt


def _options(argv: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.recovery", description=__doc__.splitlines()[0]
    )
    default = Options()
    parser.add_argument("--part", default=",".join(default.parts), help="some of %(default)s")
    parser.add_argument("--rows", default="", help="only these rows, such as warm,torchrun")
    parser.add_argument(
        "--repeats", type=int, default=default.repeats, help="faults of each row (%(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=default.minutes, help="for all parts (%(default)s)")
    parser.add_argument("--steps", type=int, default=default.steps, help="quiet steps (%(default)s)")
    parser.add_argument(
        "--environments", type=Path, default=default.environments, help="where ft_launcher is installed"
    )
    given = parser.parse_args(argv)
    parts = tuple(filter(None, given.part.split(",")))
    if unknown := [part for part in parts if part not in SHARES]:
        parser.error(f"--part: {', '.join(unknown)}; allowed: {', '.join(SHARES)}")
    if given.repeats < 1 or given.steps < 1:
        parser.error("--repeats and --steps must be at least 1")
    wanted = frozenset(filter(None, given.rows.split(",")))
    return Options(parts, wanted, given.repeats, given.minutes, given.steps, given.environments.absolute())


if __name__ == "__main__":
    asked = _options()
    alone(lambda cluster: main(cluster, asked))
