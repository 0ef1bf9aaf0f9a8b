"""Projection: what a measured checkpoint, a measured restart and a failure rate make of a job on many nodes.

Both costs are those of one workload under one policy, taken as they were measured, on whatever number of nodes: that
they stay so at scale is the reader's assumption, and is printed. A figure that was not measured must be given;
nothing is made up. Formulas and simulation are in ``analysis.ettr``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis import costs, ettr, recovery, text
from analysis.commandline import dump, guarded, parser
from analysis.ettr import Simulated
from analysis.recovery import Recovery
from analysis.results import CampaignResults, load
from harness.model.verdict import EXIT_USAGE

NODES = (64, 256, 1024, 4096, 16_384)
MOST_NODES = 1_000_000


@dataclass(frozen=True)
class Input:
    """One figure that goes in: its value, and where it comes from in words."""

    value: float
    source: str


@dataclass(frozen=True)
class Projection:
    """A job on ``nodes`` nodes. Intervals in s; ``ettr_*`` the renewal model at each; ``simulated`` at the best one."""

    nodes: int
    mttf_s: float
    young_s: float
    daly_s: float
    best_s: float
    ettr_young: float
    ettr_daly: float
    ettr_best: float
    simulated: Simulated


def project(nodes: int, rate_per_node_hour: float, cost_s: float, restart_s: float) -> Projection:
    """What becomes of a job on ``nodes`` nodes; the rate is a node's failures in an hour, the costs are in s."""
    mttf = ettr.mttf_s(nodes, rate_per_node_hour)
    young, daly, best = (f(cost_s, mttf) for f in (ettr.young_s, ettr.daly_s, ettr.best_s))
    shares = [ettr.ettr(interval, cost_s, restart_s, mttf) for interval in (young, daly, best)]
    simulated = ettr.simulate(best, cost_s, restart_s, mttf)
    return Projection(nodes, mttf, young, daly, best, shares[0], shares[1], shares[2], simulated)


class Missing(Exception):
    """A figure was neither measured nor given; the message says why, and which option gives it."""


def _cost(measured: costs.Cost, given: float | None, option: str, words: str) -> Input:
    if given is not None:
        return Input(given, "given")
    if measured.value is None:
        raise Missing(f"{words} is unknown: {measured.why}; give it with {option}")
    return Input(measured.value, f"measured, median of {measured.n}")


def _rate(results: CampaignResults, given: float | None) -> Input:
    if given is not None:
        return Input(given, "given")
    found = costs.failures(results)
    if found.rate is None:
        most = f", so at most {found.most:.3g} with 95 % confidence" if math.isfinite(found.most) else ""
        raise Missing(
            f"the failure rate is unknown: {found.why}{most}; give it with --failure-rate-per-node-hour"
        )
    hours = text.digits(found.node_hours)
    return Input(found.rate, f"measured, {text.count(found.count, 'failure')} in {hours} node-hours")


def _origins(
    results: CampaignResults, found: Sequence[Recovery], arguments: argparse.Namespace
) -> list[costs.Origin]:
    """Whose costs are projected, each with its own: their mixture is nobody's. What is given is of all."""
    origins = costs.origins(results, found)
    if arguments.restart_s is not None:
        origins = tuple(costs.Origin("", origin.workload) for origin in origins)
        if arguments.checkpoint_s is not None:
            origins = ()
    return list(dict.fromkeys(origins)) or [costs.Origin()]


def _projections(results: CampaignResults, arguments: argparse.Namespace) -> tuple[Any, str]:
    found = recovery.analyse(results)
    rate = _rate(results, arguments.failure_rate_per_node_hour)
    parts, data, missing = [], [], []
    for origin in _origins(results, found, arguments):
        try:
            checkpoint, restart = costs.checkpoint_s(results, origin), costs.restart_s(results, found, origin)
            cost = _cost(checkpoint, arguments.checkpoint_s, "--checkpoint-s", "the cost of a checkpoint")
            again = _cost(restart, arguments.restart_s, "--restart-s", "the time to restart")
        except Missing as error:
            missing.append(Missing(f"{origin.words}: {error}" if origin.words else str(error)))
            continue
        rows = [project(n, rate.value, cost.value, again.value) for n in arguments.nodes]
        inputs = {"failures_per_node_hour": rate, "checkpoint_s": cost, "restart_s": again}
        data.append(
            {
                "policy": origin.policy or None,
                "workload": origin.workload or None,
                "inputs": {name: asdict(value) for name, value in inputs.items()},
                "projections": [asdict(row) for row in rows],
            }
        )
        parts.append(_words(origin, rate, cost, again, rows))
    if not parts:
        raise missing[0]
    stamp = results.stamp
    if stamp:
        parts.insert(0, f"{stamp}: what was measured here is information, no figure of a real machine")
    assumed = (
        "assumed: checkpoint and restart cost the same on every number of nodes, failures are independent"
    )
    return {"stamp": stamp, "projected": data}, "\n\n".join([*parts, assumed])


def _words(origin: costs.Origin, rate: Input, cost: Input, restart: Input, rows: Sequence[Projection]) -> str:
    lines = [
        *([origin.words] if origin.words else []),
        f"failures of one node  {rate.value:.4g} an hour ({rate.source})",
        f"one checkpoint        {text.seconds(cost.value)} ({cost.source})",
        f"one restart           {text.seconds(restart.value)} ({restart.source})",
        "",
    ]
    header = ("nodes", "MTTF", "Young", "Daly", "best", "ETTR Young", "ETTR Daly", "ETTR best", "simulated")
    cells = [
        (
            f"{r.nodes:,}",
            *(
                text.seconds(t) if math.isfinite(t) else "never"
                for t in (r.mttf_s, r.young_s, r.daly_s, r.best_s)
            ),
            *(f"{share * 100:.2f} %" for share in (r.ettr_young, r.ettr_daly, r.ettr_best)),
            _simulated(r.simulated),
        )
        for r in rows
    ]
    return "\n".join(text.one_line(line, 200) for line in lines) + "\n" + text.columns(header, cells, left=())


def _simulated(found: Simulated) -> str:
    if found.ettr is None or found.error is None:
        return f"not simulated: {found.why}"
    return f"{found.ettr * 100:.2f} ± {1.96 * found.error * 100:.2f} %"


# --- command line -------------------------------------------------------------------------------------------


def _positive(words: str) -> float:
    value = float(words)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{words} must be a number above 0")
    return value


def _not_negative(words: str) -> float:
    value = float(words)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{words} must be 0 or above")
    return value


def _counts(words: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in words.split(","))
    except ValueError:
        found = ()
    if not found or not all(1 <= n <= MOST_NODES for n in found):
        raise argparse.ArgumentTypeError(
            f"{words} must be counts of nodes from 1 to {MOST_NODES:,}, such as 64,1024,16384"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.project results.h5``; exit 2 when a figure is neither measured nor given."""
    options = parser("project", "Useful time on many nodes, by formulas and by simulation.")
    options.add_argument(
        "--failure-rate-per-node-hour", type=_positive, metavar="X", help="failures of one node in an hour"
    )
    options.add_argument("--nodes", type=_counts, default=NODES, metavar="N,N", help="by default up to 16384")
    options.add_argument(
        "--checkpoint-s", type=_positive, metavar="D", help="one checkpoint, instead of the measured one"
    )
    options.add_argument("--restart-s", type=_not_negative, metavar="R", help="one restart, likewise")
    options.add_argument("--json", action="store_true", help="print data instead of words")
    arguments = options.parse_args(argv)

    def act() -> int:
        with load(arguments.results) as results:
            try:
                data, words = _projections(results, arguments)
            except Missing as error:
                print(text.one_line(f"{arguments.results}: {error}", 2000), file=sys.stderr)
                return EXIT_USAGE
        print(dump(data) if arguments.json else words)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
