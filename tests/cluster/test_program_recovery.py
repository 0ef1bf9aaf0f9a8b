"""Programs by the three-line import on a real Slurm: a node lost at a place that the program names; MPI; a requeue."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.driving import run
from tests.cluster.test_recovery import Ended

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CAMPAIGN = """\
schema: 1
name: programs
seed: 5
packing: {mode: jobs}
groups:
  - name: node-off
    workload: command
    nodes: 2
    steps: 40
    detection: {lease_s: 2, step_s: 4}
    command:
      run: ["{python}", program.py]
      programs:
        program.py: |
          import json, os, time
          from harness.program import answer, batch, faults, restore, save, steps
          rank, value = int(os.environ["RANK"]), 0.1
          folder = restore()
          if folder:
              value = json.loads((folder / "value").read_text())
          for step in steps(40, state=lambda: value, digest_every=10):
              batch([rank, step])
              faults.at("work")
              value = (value * 3.7 * (1 - value)) % 1.0
              time.sleep(0.03)
              if step % 5 == 4:
                  with save(step) as folder:
                      (folder / "value").write_text(json.dumps(value))
          answer("value", value)
          print("done", value)
      success: {output: '^done'}
      restartable: true
      cooperates: true
    recovery: {policy: new-step, spares: 1}
    faults:
      - {kind: node.power_off, target: {node: 1}, at: {event: work, time: 18}, expect: recovered}
  - name: mpi
    workload: command
    nodes: 2
    ranks_per_node: 1
    steps: 40
    detection: {lease_s: 2, step_s: 4}
    command:
      world: mpi
      run: ["{python}", program.py]
      programs:
        program.py: |
          import json, time
          from mpi4py import MPI
          from harness.program import answer, restore, save, steps
          world, total = MPI.COMM_WORLD, 1
          folder = restore()
          if folder:
              total = json.loads((folder / "total").read_text())
          for step in steps(40, state=lambda: total):
              total = world.allreduce(total + world.rank + step) % 1000003
              time.sleep(0.01)
              if step % 10 == 9:
                  with save(step) as folder:
                      (folder / "total").write_text(json.dumps(total))
          answer("total", total)
          print("rank", world.rank, "of", world.size, "total", total)
      success: {output: '^rank {rank} of {ranks} total', ranks: all}
      restartable: true
      cooperates: true
    recovery: {policy: new-step}
    faults:
      - {kind: checkpoint.truncate, at: {step: 23}, expect: recovered}
      - {kind: rank.hang, target: {rank: 1}, at: {step: 27}, expect: recovered}
  - name: unchanged
    workload: command
    nodes: 2
    steps: 200
    command:
      script: |
        at="$HARNESS_CHECKPOINTS/at-$RANK"; read i sum < "$at" || { i=0; sum=0; }
        echo "step $i/200"
        while [ "$i" -lt 200 ]; do
            sum=$((sum + i * i)); i=$((i + 1))
            [ $((i % 4)) = 0 ] && { echo "$i $sum" >"$at.new"; mv "$at.new" "$at"; }
            echo "step $i/200"; sleep 0.03
        done
        echo "$sum" >"result-$RANK.txt"; echo "after $HARNESS_RESTART_COUNT restarts"
      success: {output: '^after \\d restarts'}
      progress: '^step (?P<step>\\d+)/(?P<steps>\\d+)'
      restartable: true
      answers: {files: ['result-{rank}.txt']}
    recovery: {policy: requeue}
    faults:
      - {kind: job.requeue, at: {step: 20}, expect: recovered}
"""


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest) -> Iterator[Ended]:
    cluster: Any = request.getfixturevalue("cluster")
    folder, result = run(cluster, "program-recovery", CAMPAIGN, timeout=250)
    yield Ended(folder, result.stdout + result.stderr)


@pytest.mark.parametrize("group", ["node-off", "mpi", "unchanged"])
def test_it_recovers_with_the_states_and_answers_of_its_twin(ended: Ended, group: str) -> None:
    cases = json.loads((ended.folder / "summary.json").read_text())["cases"]
    label = ended.case(group)["label"]
    (case,) = [c for c in cases if c["label"] == label]
    assert case["verdict"] == "pass", f"{case}\n{ended.output}"
    assert "2 answers equal to those of its twin" in str(case) or "4 answers equal to" in str(case)


def test_the_node_is_switched_off_while_its_rank_is_at_the_named_place(ended: Ended) -> None:
    (fault,) = ended.of("faults", "node-off")
    assert (fault["kind"], fault["trigger"]) == ("node.power_off", "work, time 18")
    assert fault["requested"] and fault["observed"] and fault["healed"]
    first, second = sorted(ended.of("attempts", "node-off"), key=lambda a: a["index"])
    assert set(json.loads(first["rank_nodes"])) != set(json.loads(second["rank_nodes"]))
    assert second["restored_step"] == 15


def test_an_mpi_program_that_hangs_goes_on_from_the_checkpoint_before_the_damaged_one(ended: Ended) -> None:
    attempts = sorted(ended.of("attempts", "mpi"), key=lambda a: a["index"])
    assert [a["restored_step"] for a in attempts][1:] == [10]
    assert {d["what"] for d in ended.of("detections", "mpi")} <= {"hung", "deadlock"}
    refused = [c for c in ended.of("checkpoints", "mpi") if c["event"] == "refused"]
    assert refused and all(c["why"].startswith("step-00000019.0") for c in refused)


def test_an_unchanged_program_goes_on_from_its_own_files_when_its_job_is_requeued(ended: Ended) -> None:
    attempts = sorted(ended.of("attempts", "unchanged"), key=lambda a: a["index"])
    assert [a["outcome"] for a in attempts] == ["interrupted", "completed"]
    assert attempts[1]["policy"] == "requeue" and attempts[1]["last_step"] == 199
