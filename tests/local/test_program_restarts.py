"""Programs that do faults to themselves on site ``local``, and go on from what they saved: real processes, no Slurm."""

import pytest

import analysis
from harness.model import event as ev
from harness.model.verdict import Verdict
from tests.local.programs import Ended, run_groups

pytestmark = pytest.mark.timeout(150)

HEAD = """
schema: 1
name: restarts
seed: 5
groups:
"""

GROUP = """
  - name: NAME
    workload: command
    nodes: 1
    ranks_per_node: 2
    steps: 30
    detection: {step_s: 1.0}
    command:
      run: ["{python}", program.py]
      programs:
        program.py: |
          import time
          from harness.program import check, faults, metric, restore, save, steps
          folder = restore()
          seen = (folder / "seen").read_text().split() if folder else []
          for step in steps(30):
              seen.append(str(step))
              time.sleep(0.02)
              if step == 17:
                  with faults.inject(FAULT):
                      pass
              if step % 5 == 4:
                  with save(step) as folder:
                      (folder / "seen").write_text(" ".join(seen))
          check("every step once", seen == [str(n) for n in range(30)], 30, len(seen))
          metric("steps_seen", len(seen))
      metrics: [{name: steps_seen, unit: '1', from: program}]
      restartable: true
    recovery: {policy: new-step}
"""

OWN = """
  - name: unchanged
    workload: command
    nodes: 1
    ranks_per_node: 2
    steps: 30
    command:
      world: torchrun                  # so that the first rank's progress is the program's
      script: |
        at="$HARNESS_CHECKPOINTS/at-$RANK"
        [ "$HARNESS_CHECKPOINTS" = "$HARNESS_CASE_FOLDER/state/mine" ] && echo in its own folder
        i=$(cat "$at" || echo 0); echo "step $i/30"
        while [ "$i" -lt 30 ]; do
            i=$((i + 1)); echo "$i" >"$at.new"; mv "$at.new" "$at"
            echo "step $i/30"; sleep 0.02
            [ "$RANK-$i-$HARNESS_RESTART_COUNT" = 1-12-0 ] && kill -KILL $$
        done
        echo "done after $HARNESS_RESTART_COUNT restarts"
      progress: 'step (?P<step>\\d+)'
      restartable: true
      checkpoint_folder: state/mine
      success: {output: [done after 1 restarts, in its own folder]}
    recovery: {policy: new-step}
"""

FAULTS = {
    "kill": '"rank.kill", rank=1',
    "raise": '"rank.raise", rank=0',
    "hang": '"rank.hang", rank=1',
    "frozen": '"rank.freeze", rank=1',
    "pause": '"rank.freeze", rank=1, for_s=0.3',
    "slow": '"rank.slow_step", rank=0, for_s=0.5',
}
DECOYS = ("pause", "slow")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("programs") / "run"
    groups = [GROUP.replace("NAME", name).replace("FAULT", fault) for name, fault in FAULTS.items()]
    return run_groups(folder, "".join((HEAD, *groups, OWN)), status=0, timeout_s=140)


def test_every_program_ends_with_the_right_answer(run: Ended) -> None:
    _, verdicts = run
    assert {v.verdict for v in verdicts.values()} == {Verdict.PASS}, verdicts


@pytest.mark.parametrize("group", [name for name in FAULTS if name not in DECOYS])
def test_a_program_goes_on_from_what_it_saved_last_and_no_step_is_missing(group: str, run: Ended) -> None:
    broken, again = sorted(run.rows("attempts", group), key=lambda a: a["index"])
    assert (broken["outcome"], again["outcome"]) == ("failed", "completed")
    assert again["restored_step"] in (5, 10, 15)  # these ranks do not wait for each other
    assert (again["first_step"], again["last_step"]) == (again["restored_step"], 29)
    folder, verdicts = run
    with analysis.load(folder / "results.h5") as loaded:
        steps = loaded.judged(verdicts[group].case_id, "steps")
    done = sorted(zip(steps["rank"].tolist(), steps["step"].tolist(), strict=True))
    assert done == [(rank, step) for rank in (0, 1) for step in range(30)]


@pytest.mark.parametrize("group", DECOYS)
def test_what_a_program_rides_out_is_not_taken_for_a_failure(group: str, run: Ended) -> None:
    assert [a["outcome"] for a in run.rows("attempts", group)] == ["completed"]
    assert [e["kind"] for e in run.rows("events", group) if e["kind"] == ev.DETECTED] == []


@pytest.mark.parametrize("group", FAULTS)
def test_each_fault_leaves_its_facts_in_their_order_and_strikes_once(group: str, run: Ended) -> None:
    facts = [
        e
        for e in sorted(run.rows("events", group), key=lambda e: e["wall_ns"])
        if e["kind"].startswith("fault.")
    ]
    kinds = [e["kind"] for e in facts]
    healed = [] if group in ("hang", "frozen") else [ev.FAULT_HEALED]  # these end with their attempt
    assert kinds == [ev.FAULT_REQUESTED, ev.FAULT_INJECTED, ev.FAULT_OBSERVED, *healed]


@pytest.mark.parametrize("group", FAULTS)
def test_a_fault_of_a_program_is_judged_like_a_declared_one(group: str, run: Ended) -> None:
    (fault,) = run.rows("faults", group)
    kind, rank = FAULTS[group].split(",")[0].strip('"'), 0 if "rank=0" in FAULTS[group] else 1
    expect = "unharmed" if group in DECOYS else "recovered"
    assert (fault["kind"], fault["target"], fault["at_step"], fault["expect"]) == (
        kind,
        f"rank {rank}",
        17,
        expect,
    )
    assert fault["requested"] and fault["observed"] and fault["healed"]
    stamps = [
        fault[f"{name}_wall_ns"] for name in ("injected", "detected", "running", "loaded", "first_step")
    ]
    assert stamps == sorted(stamps) if group not in DECOYS else stamps[1:] == [0] * 4


def test_a_program_that_keeps_its_own_files_in_a_declared_folder_is_started_again(run: Ended) -> None:
    attempts = sorted(run.rows("attempts", "unchanged"), key=lambda a: a["index"])
    assert [a["outcome"] for a in attempts] == ["failed", "completed"]
    assert attempts[1]["last_step"] == 29
