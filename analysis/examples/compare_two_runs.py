"""Is the second run slower than the first? A worked example: run it whole, or cell by cell.

    python analysis/examples/compare_two_runs.py before.h5 after.h5

``harness compare A B`` answers the same question with corrections for many comparisons and a verdict; this shows how
to ask it of the raw samples. What is not the same question, or not the same machine, is named and not compared, by the
functions that ``harness compare`` uses.
"""

# %% Open both. Two files may hold the same case: same group, nodes, parameters and repeat.
import sys

import numpy as np

import analysis
from analysis import matching, repeats, surroundings, text
from analysis.resample import interval
from analysis.results import Row, samples_of
from harness.store import StoreError

try:
    before, after = map(analysis.load, sys.argv[1:3] if len(sys.argv) > 2 else ("a.h5", "b.h5"))
except (OSError, StoreError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)

# %% What differs around them, and stops no comparison.
for difference in surroundings.circumstances(before, after):
    print(difference)

# %% Which settings are the same question: same group, nodes, ranks and parameters, on the same kind of machine.
pairs = matching.pairs(repeats.settings(before), repeats.settings(after))
redefined = matching.one_id_two_cases(before, after)
for pair in pairs:
    matching.named(pair, before, after, redefined)


# %% One figure for each case: the median over judged steps of the slowest rank.
def step_times(results: analysis.CampaignResults, cases: list[Row]) -> np.ndarray:
    """Median step time in s of each of these repeats that completed without a fault."""
    found = []
    for case in cases:
        if results.of_case("faults", case["case_id"]) or not results.has_samples(samples_of(case), "steps"):
            continue
        samples = results.judged(case["case_id"], "steps", ["step", "step_time_ns"])
        if not len(samples["step"]):
            continue
        _, step = np.unique(samples["step"], return_inverse=True)
        slowest = np.zeros(step.max() + 1)
        np.maximum.at(slowest, step, samples["step_time_ns"])
        found.append(float(np.median(slowest)) / 1e9)
    return np.array(found)


# %% The ratio of medians. Six repeats on each side are the fewest that have an interval of 95 %.
def comparison(pair: matching.Pair) -> str:
    """One setting of both files in words; empty where there is nothing to compare."""
    if pair.a is None or pair.b is None:
        return f"only in {'the first' if pair.b is None else 'the second'}"
    if pair.differences:
        return f"not compared: {'; '.join(pair.differences.values())} (A the first, B the second)"
    a, b = step_times(before, pair.a.usable), step_times(after, pair.b.usable)
    if not len(a) or not len(b):
        return ""
    told = f"{text.seconds(float(np.median(a))):>9} -> {text.seconds(float(np.median(b))):>9}"
    told += f" {np.median(b) / np.median(a) - 1:+7.1%}"
    spans = interval(a), interval(b)
    if spans[0] is None or spans[1] is None:
        return f"{told}  {len(a)} and {len(b)} repeats: too few to say more than this"
    apart = spans[0][1] < spans[1][0] or spans[1][1] < spans[0][0]
    return f"{told}  {'intervals do not overlap' if apart else 'intervals overlap'}"


# %% What only one of them has, and what is not comparable, is said, never dropped.
try:
    for pair in pairs:
        if words := comparison(pair):
            print(f"{text.one_line(pair.any.label):28} {words}")
except StoreError as error:  # samples are read only now, and so is their damage
    print(error, file=sys.stderr)
    sys.exit(2)

before.close()
after.close()
