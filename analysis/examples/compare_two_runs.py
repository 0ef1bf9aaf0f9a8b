"""Is the second run slower than the first? A worked example: run it whole, or cell by cell.

    python analysis/examples/compare_two_runs.py before.h5 after.h5

``harness compare A B`` answers the same question with corrections for many comparisons and a verdict; this shows how
to ask it of the raw samples.
"""

# %% Open both. Two files may hold the same case: same group, nodes, parameters and repeat.
import sys

import numpy as np

import analysis
from analysis import text
from analysis.resample import interval
from analysis.results import samples_of
from harness.store import StoreError

try:
    before, after = map(analysis.load, sys.argv[1:3] if len(sys.argv) > 2 else ("a.h5", "b.h5"))
except (OSError, StoreError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)

# %% What differs around them? Figures of other machines or other versions are not a regression.
for name in ("campaign", "site", "slurm_version", "harness_version", "git_commit", "environment"):
    if before.text(name) != after.text(name):
        print(f"{name}: {text.one_line(before.text(name), 100)} -> {text.one_line(after.text(name), 100)}")
kinds = [set(results.node_facts) for results in (before, after)]
print("the nodes said the same of themselves" if kinds[0] == kinds[1] else "the nodes are not the same")


# %% One figure for each case: the median over judged steps of the slowest rank.
def step_times(results: analysis.CampaignResults) -> dict[str, list[float]]:
    """Median step time in s of every completed case, by label without the repeat: repeats stand together."""
    found: dict[str, list[float]] = {}
    for case in results.cases:
        if results.completed(case["case_id"]) is None or results.of_case("faults", case["case_id"]):
            continue
        if not results.has_samples(samples_of(case), "steps"):
            continue
        samples = results.judged(case["case_id"], "steps", ["step", "step_time_ns"])
        if not len(samples["step"]):
            continue
        _, step = np.unique(samples["step"], return_inverse=True)
        slowest = np.zeros(step.max() + 1)
        np.maximum.at(slowest, step, samples["step_time_ns"])
        label = text.one_line(case["label"]).replace(f"/r{case['repeat']}", "")
        found.setdefault(label, []).append(float(np.median(slowest)) / 1e9)
    return found


try:
    first, second = step_times(before), step_times(after)
except StoreError as error:  # samples are read only now, and so is their damage
    print(error, file=sys.stderr)
    sys.exit(2)

# %% The ratio of medians. Six repeats on each side are the fewest that have an interval of 95 %.
for label in sorted(first.keys() & second.keys()):
    a, b = np.array(first[label]), np.array(second[label])
    change = np.median(b) / np.median(a) - 1
    told = f"{label:28} {text.seconds(float(np.median(a))):>9} -> {text.seconds(float(np.median(b))):>9} {change:+7.1%}"
    spans = interval(a), interval(b)
    if spans[0] is None or spans[1] is None:
        print(f"{told}  {len(a)} and {len(b)} repeats: too few to say more than this")
    else:
        apart = spans[0][1] < spans[1][0] or spans[1][1] < spans[0][0]
        print(f"{told}  {'intervals do not overlap' if apart else 'intervals overlap'}")

# %% What only one of them has is said, never dropped.
for label in sorted(first.keys() ^ second.keys()):
    print(f"{label:28} only in {'the first' if label in first else 'the second'}")

before.close()
after.close()
