"""Does it scale, and what eats the time? A worked example: run it whole, or cell by cell in an editor or a notebook.

python analysis/examples/scaling_study.py results.h5
"""

# %% Open the file. Nothing of it is changed, and only what is asked for is read.
import sys

import numpy as np

import analysis
from analysis import collectives, scaling, text
from analysis.results import samples_of
from analysis.scaling_words import prediction_words
from harness.store import StoreError

path = sys.argv[1] if len(sys.argv) > 1 else "results.h5"
try:
    results = analysis.load(path)
except (OSError, StoreError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)
print(
    f"{text.one_line(results.text('campaign'))} on {text.one_line(results.text('site'))}: {len(results.cases)} cases"
)
if results.stamp:
    print(
        f"These figures are stamped {results.stamp!r}: they show how to ask, and say nothing of a real cluster."
    )

# %% Every series: the same work over node counts, each time with its repeats.
for series in scaling.analyse(results):
    base = f", base {text.count(series.base_nodes, 'node')}" if series.points else ""
    print(f"\n{text.one_line(series.group)}: {series.mode} scaling{base}")
    for point in series.points:
        low, high = point.interval_s or point.range_s
        kind = "95 %" if point.interval_s else "range"
        print(
            f"  {point.nodes:4} nodes  {text.seconds(point.median_s):>9} a step ({kind}: {text.seconds(low)} to "
            f"{text.seconds(high)})  efficiency {text.percent(point.efficiency)}"
        )
    # The law with the lowest AICc, or why there is none: never a law without a reason.
    print(f"  law: {series.best or 'none, ' + series.why_no_fit}")
    for prediction in series.predictions:
        print(f"  {prediction_words(prediction)}")
    if series.communication:
        print(f"  {series.communication}")
    for reason in series.left_out:
        print(f"  left out: {text.one_line(reason)}")

# %% The same from raw samples, for a question that nobody thought of: how uneven are the ranks of one step?
for case in results.cases:
    if (
        case["scaling_mode"] == "none"
        or case["ranks"] < 2
        or not results.has_samples(samples_of(case), "steps")
    ):
        continue
    steps = results.judged(case["case_id"], "steps", ["step", "step_time_ns"])  # warm-up left out
    # Only steps that every rank reported: the slowest rank of the others is not known.
    _, place, count = np.unique(steps["step"], return_inverse=True, return_counts=True)
    whole = count[place] == case["ranks"]
    if not whole.any():
        continue
    order = steps["step"][whole].argsort(kind="stable")
    each = steps["step_time_ns"][whole][order].reshape(-1, case["ranks"])  # one row a step
    uneven = float(np.median(each.max(axis=1) / each.min(axis=1)))
    left = f" ({np.sum(count < case['ranks'])} steps left out, a rank's sample is missing)" * (
        not whole.all()
    )
    print(
        f"{text.one_line(case['label']):28} slowest over fastest rank, median over steps: {uneven:.3f}{left}"
    )

# %% Collectives: bandwidth over message size, for a plot of your own.
for m in collectives.analyse(results)[:12]:
    bus = m.bus_bandwidth_bytes_per_s
    shown = text.si(bus.median, "B/s") if bus else "one rank"
    size, time = text.size(m.message_bytes), text.seconds(m.time_s.median)
    print(f"{text.one_line(m.label):28} {m.operation:12} {size:>9} {time:>9} {shown:>11}")

results.close()
