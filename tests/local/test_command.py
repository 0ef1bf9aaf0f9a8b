"""Programs of all kinds on site ``local``, one run for all of them: real processes, no Slurm and no root."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import analysis
from analysis.verdict import judge
from harness.model.verdict import Verdict
from harness.store import Results

pytestmark = pytest.mark.timeout(240)

HARNESS = [sys.executable, "-m", "harness"]
MARK = "4217.17"  # seconds that a process of ours sleeps, by which it is found if it is left behind

CAMPAIGN = r"""
schema: 1
name: programs
seed: 5
groups:
  # Programs that do well
  - name: told
    workload: command
    nodes: 2
    ranks_per_node: 2
    params: {size: 7, "name": "it's; $(touch /tmp/harness-was-here)"}
    command:
      script: |
        echo "rank $RANK of $WORLD_SIZE, $LOCAL_RANK of $LOCAL_WORLD_SIZE on node $NODE_RANK, size $HARNESS_PARAM_size"
        echo "name $HARNESS_PARAM_name"
        env | grep -E '^(HARNESS_TOKEN|HARNESS_SUPERVISOR|SLURM_PROCID|MASTER_)' && echo LEAK
        [ "$PWD" = "$HARNESS_FOLDER" ] && echo "in its folder"
        echo "path $PYTHONPATH"
      success: {output: ['size {size}$', 'in its folder'], no_output: LEAK}
  - name: arguments
    workload: command
    nodes: 1
    params: {"name": "it's; $(touch /tmp/harness-was-here)", size: 3}
    command:
      run: [printf, '%s|', "{name}", "{size}", "{{size}}", '{"a": {"b": 1}}', "{rank}/{ranks}", "\\n"]
      success: {output: '^it''s; \$\(touch /tmp/harness-was-here\)\|3\|\{{size}}\|\{"a": \{"b": 1}}\|0/1\|'}
  - name: figures
    workload: command
    nodes: 1
    command:
      script: |
        echo "# size  latency"
        echo "8   1.5"
        echo "16  2.5 "
        echo '{"step": 1, "result": {"time": 0.25}, "noise": "x"}'
        echo '{"result": {"time": 0.75}}'
        echo '{not json'
        echo "took 4.5 s" >result.txt
        echo 42 >answer
        exit 3
      success: {exit_codes: [0, 3], files: [answer, result.txt]}
      metrics:
        - {name: latency_us, unit: us, direction: lower, regex: '^(?P<message_bytes>\d+) +(?P<value>[\d.]+)',
           coordinates: {message_bytes: B}, definition: half a round trip}
        - {name: time_s, unit: s, direction: lower, json: result.time}
        - {name: took_s, unit: s, from: 'file:result.txt', regex: 'took (?P<value>.*) s'}
        - {name: answer, unit: '1', from: 'file:answer'}
        - {name: failures, unit: '1', from: exit_code}
        - {name: never_said, unit: '1', regex: 'nothing (?P<value>.*)', required: false}
    gates:
      - {metric: answer, statistic: max, min: 42, max: 42}
      - {metric: latency_us, statistic: median, where: {message_bytes: 16}, max: 1}
  - name: junk
    workload: command
    nodes: 1
    command:
      script: |
        head -c 300000 /dev/zero | tr '\0' x
        printf '\377\376\000\001\r10%%\r20%%\rdone'
      success: {output: '^done$'}
  - name: leaves
    workload: command
    nodes: 1
    command:
      script: |
        setsid sleep MARK &
        (setsid sh -c 'sleep MARK & sleep MARK' >/dev/null 2>&1 </dev/null &)
        echo done
      success: {output: done}
  - name: progress
    workload: command
    nodes: 1
    steps: 3
    warmup_steps: 1
    command:
      script: |
        for i in 1 2 3; do echo "value $i"; echo "step $i/3"; done
      progress: '^step (?P<step>\d+)/(?P<steps>\d+)'
      success: {output: step 3}
      metrics: [{name: value, unit: '1', regex: 'value (?P<value>.*)'}]
  - name: imports
    workload: command
    nodes: 1
    steps: 4
    command:
      run: ["{python}", program.py]
      programs:
        program.py: |
          from harness.program import steps, metric, check
          for step in steps(4):
              metric("loss", 1 / (step + 1))
              metric("residual_norm", step, unit="1", direction="lower", definition="of this test")
          check("it adds up", 1 + 1 == 2, 2, 1 + 1)
      metrics: [{name: loss, unit: '1', direction: lower, from: program}]
  - name: mpi
    workload: command
    nodes: 2
    command:
      world: mpi
      run: ["{python}", -c, "from mpi4py import MPI; print('rank', MPI.COMM_WORLD.rank, 'of', MPI.COMM_WORLD.size)"]
      success: {output: 'rank {rank} of {ranks}', ranks: all}
  - name: torchrun
    workload: command
    nodes: 2
    command:
      world: torchrun
      run:
        - "{python}"
        - -c
        - |-
          PROGRAM
      success: {output: 'sum 3.0'}

  # Programs that do not
  - name: says-error
    workload: command
    nodes: 1
    command: {script: 'echo ERROR in line 3; echo done', success: {output: done, no_output: '^ERROR'}}
  - name: silent
    workload: command
    nodes: 1
    command: {run: ["true"], success: {output: done}}
  - name: exits
    workload: command
    nodes: 1
    command: {script: 'echo done; echo too bad >&2; exit 7', success: {output: done}}
  - name: crashes
    workload: command
    nodes: 1
    command: {script: 'echo done; kill -SEGV $$', success: {output: done}}
  - name: hangs
    workload: command
    nodes: 1
    command:
      script: "trap '' TERM; setsid sleep MARK & echo done; sleep MARK"
      success: {output: done}
      time_limit_s: 0.5
  - name: one-hangs
    workload: command
    nodes: 2
    command:
      script: |
        [ "$RANK" = 0 ] && exit 1
        (setsid sh -c 'sleep MARK & sleep MARK' >/dev/null 2>&1 </dev/null &)
        sleep MARK
      success: {output: done}
  - name: missing
    workload: command
    nodes: 1
    command: {run: [/opt/no/such/program], success: {output: done}}
  - name: missing-on-path
    workload: command
    nodes: 1
    command: {run: [no-such-program], success: {output: done}}
  - name: not-executable
    workload: command
    nodes: 1
    command: {run: [PLAIN-FILE], success: {output: done}}
  - name: no-number
    workload: command
    nodes: 1
    command:
      script: 'echo "x = 1,234"; echo "x = 5"; echo "y = nan"'
      metrics:
        - {name: x, unit: '1', regex: 'x = (?P<value>.*)'}
        - {name: y, unit: '1', regex: 'y = (?P<value>.*)', required: false}
  - name: no-figure
    workload: command
    nodes: 1
    command:
      script: 'echo done'
      success: {output: done, files: [result.dat]}
      metrics: [{name: x, unit: '1', regex: 'x = (?P<value>.*)'}]
  - name: two-units
    workload: command
    nodes: 1
    command:
      run: ["{python}", -c, "from harness.program import *; metric('loss', 1, unit='s'); check('sum', False, 3, 4)"]
      metrics: [{name: loss, unit: '1', direction: lower, from: program}]
"""

PROGRAM = """
          import torch, torch.distributed as dist
          dist.init_process_group("gloo")
          x = torch.tensor([dist.get_rank() + 1.0])
          dist.all_reduce(x)
          print("sum", float(x))
          dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run's folder, and the verdict of each group."""
    folder = tmp_path_factory.mktemp("programs") / 'a "run" folder'
    plain_file = folder.parent / "plain-file"
    plain_file.write_text("echo done\n")
    campaign = folder.parent / "programs.yaml"
    text = CAMPAIGN.replace("MARK", MARK).replace("PLAIN-FILE", str(plain_file))
    campaign.write_text(text.replace("          PROGRAM\n", PROGRAM.lstrip("\n")))
    result = subprocess.run(
        [*HARNESS, "run", str(campaign), "--site", "local", "--folder", str(folder)],
        text=True,
        capture_output=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": "/somewhere/of/the/users"},
    )
    assert result.returncode == 1, result.stdout + result.stderr
    with analysis.load(folder / "results.h5") as results:
        verdicts = {case["group"]: v for case, v in zip(results.cases, judge(results), strict=True)}
    return folder, verdicts


def _samples(folder: Path, group: str, table: str) -> dict[str, list[Any]]:
    with Results(folder / "results.h5") as results:
        columns = results.samples(f"command.{group}", table)
    return {k: v.tolist() for k, v in columns.items() if k not in ("case", "attempt", "node", "rank")}


def _log(folder: Path, group: str, rank: int = 0) -> bytes:
    with Results(folder / "results.h5") as results:
        case = next(c["case_id"] for c in results.rows("cases") if c["group"] == group)
    (log,) = folder.glob(f"work/*/{case}/attempt-0.0/rank-{rank}.log")
    return log.read_bytes()


def test_programs_that_say_what_they_must_pass(run: Any) -> None:
    _, verdicts = run
    passed = {group for group, v in verdicts.items() if v.verdict is Verdict.PASS}
    assert passed == {
        *("told", "arguments", "figures", "junk", "leaves", "progress", "imports", "mpi", "torchrun")
    }


def test_a_rank_is_told_of_its_world_plainly_and_of_nothing_else(run: Any) -> None:
    folder, _ = run
    assert [_log(folder, "told", rank).splitlines()[0] for rank in range(4)] == [
        b"rank 0 of 4, 0 of 2 on node 0, size 7",
        b"rank 1 of 4, 1 of 2 on node 0, size 7",
        b"rank 2 of 4, 0 of 2 on node 1, size 7",
        b"rank 3 of 4, 1 of 2 on node 1, size 7",
    ]


def test_parameters_reach_a_program_as_they_are_and_no_shell(run: Any) -> None:
    folder, _ = run
    name = b"it's; $(touch /tmp/harness-was-here)"
    assert _log(folder, "told").splitlines()[1] == b"name " + name
    assert _log(folder, "arguments").startswith(name + b'|3|{size}|{"a": {"b": 1}}|0/1|')
    assert not Path("/tmp/harness-was-here").exists()


def test_a_python_program_gets_its_own_search_path_back(run: Any) -> None:
    folder, _ = run
    path = _log(folder, "told").splitlines()[-1].decode()
    ours, theirs = path.removeprefix("path ").split(":")
    assert (ours.endswith("rank-0.python"), theirs) == (True, "/somewhere/of/the/users")


def test_figures_of_every_source_are_raw_samples_with_unit_direction_and_definition(run: Any) -> None:
    folder, _ = run
    assert {
        table: _samples(folder, "figures", table)
        for table in ("latency_us", "time_s", "took_s", "answer", "failures")
    } == {
        "latency_us": {"latency_us": [1.5, 2.5], "message_bytes": [8, 16]},
        "time_s": {"time_s": [0.25, 0.75]},
        "took_s": {"took_s": [4.5]},
        "answer": {"answer": [42.0]},
        "failures": {"failures": [3.0]},
    }
    with Results(folder / "results.h5") as results:
        facts = results.facts("command.figures", "latency_us")
    assert {n: facts["latency_us"][n] for n in ("unit", "direction", "definition")} == {
        "unit": "us",
        "direction": "lower",
        "definition": "half a round trip",
    }
    assert facts["message_bytes"]["unit"] == "B"


def test_the_first_metric_is_the_key_figure_where_its_coordinate_is_largest(run: Any) -> None:
    _, verdicts = run
    assert verdicts["figures"].key_figure == "latency_us 2.50 us, message_bytes = 16 B, n=1"
    assert verdicts["imports"].key_figure == "loss 0.4167, n=4"


def test_gates_judge_answers_everywhere_and_times_only_where_they_mean_something(run: Any) -> None:
    _, verdicts = run
    gates = [e for e in verdicts["figures"].evidence if "gate" in e]
    assert gates[0] == "pass: gate max answer: 42 over 1 sample, limit at least 42 and at most 42: holds"
    assert "would not hold (more ranks than cores: for information)" in gates[1]


def test_output_that_is_no_text_and_has_no_end_is_read_and_kept_as_it_was(run: Any) -> None:
    folder, _ = run
    assert _log(folder, "junk") == b"x" * 300000 + b"\377\376\0\001\r10%\r20%\rdone"


def test_a_line_of_progress_is_a_step_and_figures_belong_to_theirs(run: Any) -> None:
    folder, verdicts = run
    assert _samples(folder, "progress", "progress")["step"] == [0, 1, 2]
    assert _samples(folder, "progress", "value") == {"step": [0, 1, 2], "value": [1.0, 2.0, 3.0]}
    assert verdicts["progress"].key_figure == "value 2.5, n=2"  # without the warm-up
    with Results(folder / "results.h5") as results:
        attempt = next(a for a in results.rows("attempts") if a["case_id"] == verdicts["progress"].case_id)
    assert attempt["last_step"] == 2


def test_three_lines_of_import_record_steps_figures_and_checks(run: Any) -> None:
    folder, _ = run
    assert _samples(folder, "imports", "steps")["step"] == [0, 1, 2, 3]
    assert _samples(folder, "imports", "loss") == {"step": [0, 1, 2, 3], "loss": [1, 1 / 2, 1 / 3, 1 / 4]}
    assert _samples(folder, "imports", "residual_norm")["residual_norm"] == [0.0, 1.0, 2.0, 3.0]
    with Results(folder / "results.h5") as results:
        facts = results.facts("command.imports", "residual_norm")["residual_norm"]
        checks = [(c["name"], c["passed"]) for c in results.rows("checks") if c["name"] == "it adds up"]
    assert (facts["direction"], facts["definition"]) == ("lower", "of this test")
    assert checks == [("it adds up", True)]


def test_nothing_that_a_program_started_is_left_running(run: Any) -> None:
    folder, _ = run
    left = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes()
            if MARK.encode() in words or str(folder).encode() in words:
                left.append(words)
    assert left == []
    note = rb"\[harness\] the program left [34] processes running; they were ended\n"
    assert re.search(note, _log(folder, "leaves"))


WORDS = {
    "says-error": "check \"no output '^ERROR'\" failed on rank 0: expected no line like '^ERROR', "
    "observed the line 'ERROR in line 3'",
    "silent": "check \"output 'done'\" failed on rank 0: expected a line like 'done', observed none of 0 lines",
    "exits": "failed: rank 0 on local0: its program ended with exit code 7 after ",
    "crashes": "failed: rank 0 on local0: its program crashed, killed by SIGSEGV after ",
    "hangs": "failed: rank 0 on local0: its program was not finished within 0.5 s; it ended with: done",
    "one-hangs": "failed: rank 0 on local0: its program ended with exit code 1 after ",
    "missing": "failed: rank 0 on local0: /opt/no/such/program: not on node local0 (No such file or directory)",
    "missing-on-path": "failed: rank 0 on local0: no-such-program: no such program on node local0; it is in no folder "
    "of PATH there (",
    "no-number": 'check "metric x" failed on rank 0: expected at least one number, and nothing but numbers, '
    "observed 1 of 2 are none: x = '1,234' (and 1 more)",
    "no-figure": 'check "file result.dat" failed on rank 0: expected more than 0 bytes, observed no such file '
    "(and 1 more)",
    "two-units": 'check "sum" failed on rank 0: expected 3, observed 4 (and 1 more)',
}


@pytest.mark.parametrize("group", WORDS)
def test_a_program_that_does_not_do_well_fails_in_words(run: Any, group: str) -> None:
    _, verdicts = run
    assert verdicts[group].verdict is Verdict.FAIL
    assert verdicts[group].why.startswith(WORDS[group])


def test_what_else_was_wrong_is_in_the_evidence(run: Any) -> None:
    _, verdicts = run
    assert "observed 1 of 1 are none: y = 'nan'" in "; ".join(verdicts["no-number"].evidence)
    assert "observed it was never said" in "; ".join(verdicts["no-figure"].evidence)
    assert "unit 's', but it is declared with '1'" in "; ".join(verdicts["two-units"].evidence)
    assert "it ended with: done | too bad" in verdicts["exits"].why


def test_a_file_that_is_no_program_is_said_with_its_mode(run: Any) -> None:
    _, verdicts = run
    assert "plain-file: on node local0 it is no program that may be run (mode -rw-r--r--); chmod +x it" in (
        verdicts["not-executable"].why
    )


def test_the_report_shows_the_figures_of_programs(run: Any) -> None:
    folder, _ = run
    page = (folder / "report.html").read_text()
    assert "half a round trip" in page
    assert page.count("Figures of the program") >= 4


RESTARTS = """
schema: 1
name: restarts
seed: 5
groups:
  - name: counts
    workload: command
    nodes: 1
    ranks_per_node: 2
    steps: 30
    command:
      world: torchrun                  # so that the first rank's progress is the program's
      script: |
        at="$HARNESS_CASE_FOLDER/at-$RANK"
        i=$(cat "$at" || echo 0); echo "step $i/30"
        while [ "$i" -lt 30 ]; do
            i=$((i + 1)); echo "$i" >"$at.new"; mv "$at.new" "$at"
            echo "value $i"; echo "step $i/30"; sleep 0.1
        done
        echo "done after $HARNESS_RESTART_COUNT restarts"
      progress: 'step (?P<step>\\d+)'
      restartable: true
      success: {output: done after 1 restarts}
      metrics: [{name: count, unit: '1', regex: 'value (?P<value>.*)'}]
    recovery: {policy: requeue}
    faults:
      - {kind: node.kill_processes, target: {node: 0}, at: {step: 10}, expect: recovered}
"""


def test_a_program_that_resumes_from_its_own_files_recovers_from_a_fault(tmp_path: Path) -> None:
    campaign, folder = tmp_path / "restarts.yaml", tmp_path / "run"
    campaign.write_text(RESTARTS)
    result = subprocess.run(
        [*HARNESS, "run", str(campaign), "--site", "local", "--folder", str(folder)],
        text=True,
        capture_output=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    with Results(folder / "results.h5") as results:
        (fault,) = results.rows("faults")
        attempts = [(a["outcome"], a["last_step"]) for a in results.rows("attempts")]
    assert (fault["requested"], fault["observed"], fault["healed"]) == (True, True, True)
    assert attempts[0][0] == "node_lost"
    assert 9 <= attempts[0][1] < 29
    assert attempts[1] == ("completed", 29)
    with analysis.load(folder / "results.h5") as loaded:
        (verdict,) = judge(loaded)
        counts = loaded.judged(verdict.case_id, "count")["count"].tolist()
    assert verdict.verdict is Verdict.PASS
    assert (len(counts), counts[-1]) == (
        len(set(counts)),
        30,
    )  # of each step what was done last, and that once
    assert set(range(1, 9)) <= set(
        counts
    )  # what the first start recorded; its last moments went with its node
