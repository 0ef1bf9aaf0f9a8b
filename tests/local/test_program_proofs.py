"""Programs of the three-line import under declared faults, and unchanged ones: what proves that they recovered."""

import json

import pytest

import analysis
from harness.model import event as ev
from harness.model.verdict import Verdict
from tests.local.programs import Ended, run_groups

pytestmark = pytest.mark.timeout(280)

HEAD = """
schema: 1
name: proofs
seed: 5
groups:
"""

# Its state is a sum of random numbers, so a restored run that draws others, or does a step twice, shows.
GROUP = """
  - name: NAME
    workload: command
    nodes: 1
    ranks_per_node: 2
    steps: 30
    detection: {step_s: 2.5, checkpoint_s: 5.0}
    command:
      run: ["{python}", program.py]
      programs:
        program.py: |
          import json, os, random, time
          from harness.program import answer, batch, faults, restore, save, steps
          random.seed(7)
          total = 0.0
          folder = restore()
          if folder:
              kept = json.loads((folder / "state").read_text())
              total = kept["total"]
              random.setstate((3, tuple(kept["random"]), None))  # RESTORE
          for step in steps(30, state=lambda: [total, random.getstate()], digest_every=10):
              ids = [random.randrange(1000) for _ in range(3)]
              batch(ids)
              total += sum(ids)
              faults.at("halo")
              time.sleep(0.02)
              # INJECT
              if step % 5 == 4:
                  with save(step) as folder:
                      (folder / "state").write_text(json.dumps({"total": total, "random": random.getstate()[1]}))
                  end = time.time() + 20  # all go together, as ranks do that exchange something
                  while len(list(folder.parent.glob("rank-*"))) < int(os.environ["WORLD_SIZE"]) and time.time() < end:
                      time.sleep(0.005)
          answer("total", total)
          print("done", total)
      success: {output: '^done'}
      restartable: true
      cooperates: true
    recovery: {policy: new-step}
"""

# An unchanged program: it counts in a file of its own, and its answer is a file.
UNCHANGED = """
  - name: NAME
    workload: command
    nodes: 1
    ranks_per_node: 1
    steps: 30
    command:
      script: |
        at="$HARNESS_CHECKPOINTS/at"; read i sum < "$at" || { i=0; sum=0; }
        echo "step $i/30"
        while [ "$i" -lt 30 ]; do
            sum=$((sum + i * i)); i=$((i + 1))
            [ $((i % 4)) = 0 ] && { echo "$i $sum" >"$at.new"; mv "$at.new" "$at"; }
            echo "step $i/30"; sleep 0.03
        done
        echo "$sum" >result.txt; echo "sum $sum"
      metrics: [{name: sum, unit: '1', regex: '^sum (?P<value>\\d+)'}]
      progress: '^step (?P<step>\\d+)/(?P<steps>\\d+)'
      restartable: true
      answers: {files: [result.txt], metrics: [sum]}
    recovery: {policy: new-step}
    faults: [{kind: rank.kill, target: {rank: 0}, at: {step: 14}, expect: recovered}]
"""

KILL = "{kind: rank.kill, target: {rank: 1}, at: {step: 17}, expect: recovered}"
FAULTS = {
    "kill": KILL,
    "place": "{kind: rank.raise, target: {rank: 0}, at: {event: halo, time: 18}, expect: recovered}",
    "moment": "{kind: rank.abort, target: {rank: 1}, at: {event: checkpoint.written, time: 3}, expect: recovered}",
    "time": "{kind: rank.raise, target: {rank: 0}, at: {after_s: 0.3}, expect: recovered}",
    "frozen": "{kind: rank.freeze, target: {rank: 1}, at: {step: 17}, expect: recovered}",
    "hang": "{kind: rank.hang, target: {rank: 1}, at: {step: 17}, expect: recovered}",
    "livelock": "{kind: rank.livelock, target: {rank: 0}, at: {step: 17}, expect: recovered}",
    "memory": "{kind: rank.out_of_memory, target: {rank: 1}, at: {step: 17}, params: {mb: 64}, expect: recovered}",
    "full": "{kind: storage.full, target: {rank: 0}, at: {event: checkpoint.begin, time: 3}, params: {bytes: 1}, "
    "expect: recovered}",
    "damage": "{kind: checkpoint.flip_bit, at: {event: checkpoint.committed, time: 3}, expect: recovered}, "
    + KILL,
    "stale": "{kind: checkpoint.stale_shard, at: {event: checkpoint.committed, time: 3}, expect: recovered}, "
    "{kind: rank.kill, target: {rank: 0}, at: {step: 18}, expect: recovered}",
}
DECOYS = {
    "pause": "{kind: rank.pause, target: {rank: 1}, at: {step: 17}, for_s: 0.3, expect: unharmed}",
    "slow": "{kind: storage.slow, target: {rank: 1}, at: {event: checkpoint.begin}, for_s: 0.6, expect: unharmed}",
}
CONTROL = "{kind: control.position, target: {rank: 0}, at: {event: restore.begin}, expect: caught}, " + KILL
WRONG = ('random.setstate((3, tuple(kept["random"]), None))  # RESTORE', "pass")
INJECTED = ("# INJECT", "faults.inject('rank.kill', rank=1, name='once').__enter__() if step == 17 else None")


def group(name: str, faults: str, *changes: tuple[str, str], text: str = GROUP) -> str:
    for old, new in (("NAME", name), *changes):
        assert old in text
        text = text.replace(old, new)
    return text + (f"    faults: [{faults}]\n" if faults else "")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("proofs") / "run"
    groups = [group(name, faults) for name, faults in (FAULTS | DECOYS).items()]
    groups += [
        group("control", CONTROL),
        group("wrong", KILL, WRONG),
        group("injected", "", INJECTED, ("policy: new-step}\n", "policy: new-step}\n    twin: true\n")),
        group("unchanged", "", text=UNCHANGED),
        group("forgets", "", ('echo "$i $sum"', 'echo "$i $((sum + 1))"'), text=UNCHANGED),
    ]
    # One rank, whose commit makes a checkpoint complete at once.
    for name in ("damage", "stale"):
        (index,) = (i for i, text in enumerate(groups) if f"name: {name}\n" in text)
        groups[index] = (
            groups[index].replace("ranks_per_node: 2", "ranks_per_node: 1").replace("{rank: 1}", "{rank: 0}")
        )
    return run_groups(folder, "".join((HEAD, *groups)), status=1, timeout_s=270)  # those that restore wrongly


def words(run: Ended, name: str) -> str:
    return " | ".join(run.verdicts[name].evidence)


@pytest.mark.parametrize("name", [*FAULTS, *DECOYS, "control", "injected", "unchanged"])
def test_what_recovers_as_declared_passes(name: str, run: Ended) -> None:
    assert run.verdicts[name].verdict is Verdict.PASS, run.verdicts[name]


@pytest.mark.parametrize("name", [*FAULTS, "injected"])
def test_its_states_batches_and_answers_are_those_of_an_undisturbed_twin(name: str, run: Ended) -> None:
    said = words(run, name)
    assert "equal to those of its twin, bit for bit" in said
    assert "none skipped, none twice" in said
    assert f"{2 if name in ('damage', 'stale') else 4} answers equal to those of its twin" in said


def test_a_program_that_restores_wrongly_fails_and_its_first_wrong_state_is_named(run: Ended) -> None:
    assert run.verdicts["wrong"].verdict is Verdict.FAIL
    (step,) = {a["restored_step"] for a in run.rows("attempts", "wrong") if a["index"] == 1}
    assert f"checkpoint of step {step} on rank 0: restored digest" in words(run, "wrong")
    assert f"the state after {step} steps on rank 0 in attempt 1 has digest" in words(run, "wrong")


@pytest.mark.parametrize("name", ["kill", "frozen", "hang", "livelock", "memory"])
def test_a_fault_at_a_step_strikes_when_the_rank_begins_it(name: str, run: Ended) -> None:
    folder, verdicts = run
    hit = json.loads(run.rows("faults", name)[0]["evidence"])[ev.FAULT_INJECTED]["hit"]["rank"]
    with analysis.load(folder / "results.h5") as loaded:
        done = loaded.case_samples(verdicts[name].case_id, "steps")
        first = loaded.attempt_index(done["attempt"]) == 0
    assert max(done["step"][first & (done["rank"] == hit)]) == 16


def test_what_a_detector_says_of_a_program_is_what_was_done(run: Ended) -> None:
    what = {
        name: {d["what"] for d in run.rows("detections", name)} for name in ("frozen", "livelock", "pause")
    }
    assert what == {"frozen": {"frozen"}, "livelock": {"livelock"}, "pause": set()}


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(run: Ended) -> None:
    for name, why in (
        ("damage", "has another content than was committed"),
        ("stale", "rank 0's part is that of"),
    ):
        (refused,) = (c for c in run.rows("checkpoints", name) if c["event"] == "refused")
        assert refused["why"].startswith("step-00000014.0: ") and why in refused["why"]
        assert max(run.rows("attempts", name), key=lambda a: a["index"])["restored_step"] == 10


def test_an_unchanged_programs_file_and_figure_are_compared_with_its_twins(run: Ended) -> None:
    assert "2 answers equal to those of its twin" in words(run, "unchanged")
    attempts = sorted(run.rows("attempts", "unchanged"), key=lambda a: a["index"])
    assert [a["outcome"] for a in attempts] == ["failed", "completed"]
    said = [json.loads(e["data"]) for e in run.rows("events", "unchanged") if e["kind"] == ev.RESULT]
    told = {one["name"]: one["value"] for one in said}
    assert told["sum"] == "8555.0" and len(told["file result.txt"]) == 64


def test_an_unchanged_program_that_restores_wrongly_fails_by_its_answer(run: Ended) -> None:
    assert run.verdicts["forgets"].verdict is Verdict.FAIL
    assert "file result.txt of rank 0 differs from its twin" in words(run, "forgets")
