"""What happened to a case: verdict, attempts, faults, and who was slow. A worked example: whole, or cell by cell.

python analysis/examples/what_happened_to_my_job.py results.h5 [label or case id]
"""

# %% Find the case: the one that is named, else the first that did not pass, else the first that was started again.
import json
import sys

import numpy as np

import analysis
from analysis import recovery, text
from analysis.results import samples_of
from analysis.verdict import judge
from harness.model.verdict import Verdict
from harness.store import StoreError

try:
    results = analysis.load(sys.argv[1] if len(sys.argv) > 1 else "results.h5")
except (OSError, StoreError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)
verdicts = {v.case_id: v for v in judge(results)}
wanted = sys.argv[2] if len(sys.argv) > 2 else ""
named = [c for c in results.cases if wanted and wanted in (c["case_id"], c["label"])]
bad = [c for c in results.cases if verdicts[c["case_id"]].verdict is not Verdict.PASS]
again = [c for c in results.cases if c["attempts"] > 1]
if not named and (wanted or not results.cases):
    labels = ", ".join(text.one_line(c["label"]) for c in results.cases[:20])
    print(f"no case {wanted!r} in this file; there are: {labels or 'none'}", file=sys.stderr)
    sys.exit(2)
case = (named or bad or again or results.cases)[0]
verdict = verdicts[case["case_id"]]
print(f"{text.one_line(case['label'])} ({case['case_id']}): {verdict.verdict.value}, {verdict.why}")
for line in verdict.evidence:
    print(f"  {line}")

# %% Every attempt: which job, on which nodes, how far it came, and why it ended.
for attempt in results.of_case("attempts", case["case_id"]):
    job = next((j for j in results.jobs if j["job_key"] == attempt["job_key"]), None)
    print(
        f"attempt {attempt['index']}: {attempt['outcome']} after {text.seconds(attempt['duration_ns'] / 1e9)}, steps "
        f"{attempt['first_step']} to {attempt['last_step']}, job {attempt['slurm_job_id']} "
        f"({job['state'] if job else 'not on record'}), nodes {text.one_line(', '.join(json.loads(attempt['nodes'])))}"
    )
    if attempt["reason"]:
        print(f"  because: {text.one_line(attempt['reason'])}")

# %% Every fault with its stamps (METRICS.md): what was done, when it was noticed, when the case had recovered.
for fault in results.of_case("faults", case["case_id"]):
    told = recovery.of_fault(results, case, fault)
    print(f"{told.kind} on {text.one_line(told.target)} at {told.trigger}; expected: {told.expect}")
    for stamp in told.stamps:
        when = text.signed(stamp.after_s) if stamp.after_s is not None else stamp.why
        print(f"  {stamp.name:6} {stamp.words:42} {when}")

# %% What its processes and agents said, in order: the last words before the end.
events = sorted(results.of_case("events", case["case_id"]), key=lambda e: e["wall_ns"])
for event in events[-12:]:
    when, where = text.instant(event["wall_ns"]), text.one_line(event["host"])
    said = f"{event['kind']:22} {text.one_line(event['data'], 60)}"
    print(f"{when} {where:10} rank {event['rank']:3} {said}")

# %% Was a node slow? The median over steps, by node, from raw samples of every attempt.
if results.has_samples(samples_of(case), "steps"):
    samples = results.case_samples(case["case_id"], "steps", ["step_time_ns"], all_attempts=True)
    for node in np.unique(samples["node"]):
        mine = samples["step_time_ns"][samples["node"] == node]
        median = text.seconds(float(np.median(mine)) / 1e9)
        print(f"{text.one_line(results.nodes[node]):12} {median:>9} a step, n={len(mine)}")

results.close()
