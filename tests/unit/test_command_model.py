"""What a campaign may say of a user's own program, and how each mistake is told."""

from typing import Any

import pytest

from harness.config import ConfigError, campaign_json_schema, parse_campaign
from harness.model import placeholders
from harness.model.command import Answers, Command

HEAD = (
    "schema: 1\nname: c\nseed: 1\ngroups:\n  - name: g\n    workload: command\n    nodes: 1\n    command:\n"
)


def _command(text: str, group: str = "") -> str:
    """A campaign with one command, whose lines are given."""
    return HEAD + "".join(f"      {line}\n" for line in text.splitlines()) + group


def _problems(text: str, group: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_campaign(_command(text, group), "c.yaml")
    return [str(p) for p in caught.value.problems]


def test_the_least_that_a_command_must_say() -> None:
    (group,) = parse_campaign(_command("run: [prog]\nsuccess: {output: done}"), "c.yaml").groups
    assert group.command is not None
    assert group.command.model_dump(mode="json", exclude_defaults=True) == {
        "run": ["prog"],
        "success": {"output": ["done"]},
    }


@pytest.mark.parametrize(
    "evidence",
    [
        "success: {output: done}",
        "success: {files: [result.dat]}",
        "success: {files: {result.dat: 'PASSED'}}",
        "metrics: [{name: x, unit: '1', regex: '(?P<value>.*)'}]",
        "metrics: [{name: x, unit: '1', from: program}]",
    ],
)
def test_whatever_a_program_says_or_leaves_is_evidence(evidence: str) -> None:
    parse_campaign(_command(f"run: [prog]\n{evidence}"), "c.yaml")


@pytest.mark.parametrize(
    "little",
    [
        "time_limit_s: 5",
        "success: {exit_codes: [0, 3]}",
        "success: {no_output: ERROR}",
        "metrics: [{name: x, unit: '1', from: exit_code}]",
        "metrics: [{name: x, unit: '1', regex: '(?P<value>.*)', required: false}]",
    ],
)
def test_success_by_the_exit_code_alone_is_refused(little: str) -> None:
    (problem,) = _problems(f"run: [prog]\n{little}")
    assert problem.split(": ", 1)[1] == (
        "groups[0].command.success, is left to the exit code alone; add output, files, or a metric that is required: "
        "something that the program says or leaves only when it did its work"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "success: {output: done}",
            "command, says what to run neither by run nor by script; add one of them",
        ),
        (
            "run: [a]\nscript: a\nsuccess: {output: x}",
            "command.script, and run both say what to run; remove one",
        ),
        (
            "run: ['']\nsuccess: {output: x}",
            "command.run[0], is the program, and is empty; write its name or path",
        ),
        (
            "run: [a]\nsuccess: {output: '(x'}",
            'command.success.output[0] = "(x", is no regular expression of Python: missing ), unterminated subpattern '
            "at position 1; correct it",
        ),
        (
            "run: [a]\nsuccess: {files: {out: '*'}}",
            'command.success.files.out[0] = "*", is no regular expression of Python: nothing to repeat at position 1',
        ),
        (
            "run: [a]\nmetrics: [{name: x, unit: s, regex: 'x (.*)'}]",
            'command.metrics[0].regex = "x (.*)", has no group (?P<value>...), which says what is read; add it',
        ),
        (
            "run: [a]\nmetrics: [{name: x, unit: s, regex: '(?P<value>.*)', coordinates: {size: B}}]",
            'command.metrics[0].regex = "(?P<value>.*)", has no group (?P<size>...), which says what is read; add it',
        ),
        (
            "run: [a]\nmetrics: [{name: x, unit: s, regex: '(?P<value>.*)', json: x}]",
            'command.metrics[0].json = "x", and regex both say how it is read; remove one of them',
        ),
        (
            "run: [a]\nmetrics: [{name: x, unit: s}]",
            "command.metrics[0], says neither by regex nor by json how it is read; add one of them",
        ),
        (
            "run: [a]\nmetrics: [{name: x, unit: s, from: stdout}]",
            'command.metrics[0].from = "stdout", is no source, allowed: output, exit_code, program, file:NAME; choose',
        ),
        (
            "run: [a]\nmetrics: [{name: x, unit: s, from: 'file:../x'}]",
            'command.metrics[0].from = "../x", is not inside the attempt\'s own folder; give its name there',
        ),
        (
            "run: [a]\nmetrics: [{name: x, unit: s, from: program}, {name: x, unit: s, from: program}]",
            'command.metrics[1].name = "x", is the name of metrics[0] too; give each its own',
        ),
        (
            "run: [a]\nmetrics: [{name: Bandwidth MB/s, unit: MB/s, from: program}]",
            'command.metrics[0].name = "Bandwidth MB/s", is no name of a metric, allowed: a-z 0-9 _',
        ),
        (
            "run: [a]\nmetrics: [{name: rank, unit: '1', from: program}]",
            'command.metrics[0].name = "rank", is a name that the harness uses itself; choose another one',
        ),
        (
            "run: [a]\nmetrics: [{name: message_bytes, unit: kB, from: program}]",
            'command.metrics[0].unit = "kB", but message_bytes is a metric of the harness, in B; rename it',
        ),
        (
            "run: [a]\nmetrics: [{name: loss, unit: '1', direction: higher, from: program}]",
            'command.metrics[0].direction = "higher", but loss is a metric of the harness, whose direction is lower',
        ),
        (
            "run: [a]\nmetrics: [{name: loss, unit: '1', direction: neither, from: program}]",
            'command.metrics[0].direction = "neither", but loss is a metric of the harness, whose direction is lower; '
            "write direction: lower, or rename the metric",
        ),
        (
            "run: [a]\ntime_limit_s: -5\nsuccess: {output: x}",
            "command.time_limit_s = -5, is too small, allowed: above 0; raise it",
        ),
        (
            "run: [a]\nsuccess: {files: [../x]}",
            "command.success.files['../x'] = \"../x\", is not inside the attempt's own folder",
        ),
        (
            "run: [a]\nsuccess: {files: [/etc/passwd]}",
            "is not inside the attempt's own folder; give its name there, without ..",
        ),
        (
            "run: [a]\nmpi: pmix\nsuccess: {output: x}",
            'command.mpi = "pmix", means nothing without world: mpi; remove it, or add that',
        ),
        (
            "run: [a]\nworld: mpi\nmpi: 'pmix --x'\nsuccess: {output: x}",
            'command.mpi = "pmix --x", is no name of an MPI plug-in; `srun --mpi=list` lists them',
        ),
        (
            "run: [a]\nenvironment: {HARNESS_RANK: '1'}\nsuccess: {output: x}",
            'command.environment.HARNESS_RANK = "1", is set by the harness itself; remove it',
        ),
        (
            "run: [a]\nprograms: {../x: a}\nsuccess: {output: x}",
            "is no plain name of a file, allowed: letters, digits and . _ -; rename it",
        ),
        (
            "run: [a]\nprograms: {x: a}\ninputs: {x: b}\nsuccess: {output: x}",
            "command.inputs.x, is a file of `programs` too; give each its own name",
        ),
        (
            'run: ["a\\u0000"]\nsuccess: {output: x}',
            "holds the control character '\\x00' at position 2; remove it",
        ),
        (
            "run: [a, '{sizes}']\nsuccess: {output: x}",
            'command.run[1] = "{sizes}", has {sizes}, which is no parameter of the group; did you mean "size"?',
        ),
        (
            "run: [a, '${HOME}']\nsuccess: {output: x}",
            "which is no parameter of the group; allowed: size, nodes, ranks, ",
        ),
        (
            "run: [a]\ninputs: {x: '{rank}'}\nsuccess: {output: x}",
            "command.inputs.x, has {rank}, but the file is written once for all ranks; read the environment instead",
        ),
        (
            "run: [a]\nsuccess: {output: x}\nanswers: {metrics: [residua]}\n"
            "metrics: [{name: residual_x, unit: '1', regex: '(?P<value>x)'}]",
            'command.answers.metrics[0] = "residua", is none of its metrics; did you mean "residual_x"?',
        ),
        (
            "run: [a]\nsuccess: {output: x}\nanswers: {files: [../x]}",
            'command.answers.files[0] = "../x", is not inside the attempt\'s own folder',
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(given: str, said: str) -> None:
    problems = _problems(given, "    params: {size: 3}\n")
    assert len(problems) == 1
    assert said in problems[0]
    assert problems[0].startswith("c.yaml:")


@pytest.mark.parametrize(
    ("group", "said"),
    [
        (
            "    params: {ranks: 3}\n",
            "params.ranks, is filled in by the harness (ranks of the case, all nodes together)",
        ),
        (
            "    params: {a-b: 3}\n",
            "params.a-b, is a variable of the program's, HARNESS_PARAM_..., allowed: letters",
        ),
        (
            "    checkpoint: {every_steps: 1}\n",
            "checkpoint, but the harness saves nothing of a program; it saves itself",
        ),
        (
            "    recovery: {policy: requeue}\n",
            'recovery.policy = "requeue", but command cannot resume from a saved state; write none or say that it can '
            "(command.restartable)",
        ),
    ],
)
def test_a_group_that_does_not_fit_its_command_is_told(group: str, said: str) -> None:
    (problem,) = _problems("run: [a]\nsuccess: {output: x}", group)
    assert said in problem


def test_a_restartable_program_may_be_started_again_and_recover_from_faults() -> None:
    parse_campaign(
        _command(
            "run: [a]\nsuccess: {output: x}\nrestartable: true\nprogress: 'at (?P<step>.*)'",
            "    steps: 10\n    recovery: {policy: requeue}\n"
            "    faults: [{kind: node.kill_processes, target: {node: 0}, at: {step: 5}, expect: recovered}]\n",
        ),
        "c.yaml",
    )


def test_a_metric_of_the_harness_needs_no_direction_of_its_own() -> None:
    given = _command("run: [a]\nmetrics: [{name: loss, unit: '1', from: program}]")
    (group,) = parse_campaign(given).groups
    assert group.command is not None and group.command.metrics[0].name == "loss"


def test_gates_take_the_metrics_of_the_command() -> None:
    command = "run: [a]\nmetrics: [{name: lat_us, unit: us, regex: '(?P<size>.) (?P<value>.)', coordinates: {size: B}}]"
    parse_campaign(
        _command(command, "    gates: [{metric: lat_us, statistic: max, max: 1, where: {size: 8}}]\n")
    )
    (problem,) = _problems(command, "    gates: [{metric: lat, statistic: max, max: 1}]\n")
    assert 'gates[0].metric = "lat", is no metric of the harness; did you mean "lat_us"?' in problem


def test_editors_are_told_of_every_key() -> None:
    properties = campaign_json_schema()["$defs"]["Command"]["properties"]
    assert set(properties) == set(Command.model_fields)
    assert all(p.get("description") for p in properties.values())
    metric = campaign_json_schema()["$defs"]["CommandMetric"]["properties"]
    assert {"from", "json"} <= set(metric)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("-n {size}", "-n 3"),
        ("{size}{size}", "33"),
        ("{{size}}", "{size}"),
        ("{{{size}}}", "{{size}}"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("awk '{print $1}'", "awk '{print $1}'"),
        (r"\d{3}x{1,2}", r"\d{3}x{1,2}"),
        ("{name}", "{size}"),  # what was filled in is not looked at again
        ("{}", "{}"),
    ],
)
def test_only_whole_names_in_braces_are_filled_in(text: str, filled: str) -> None:
    assert placeholders.fill(text, {"size": "3", "name": "{size}"}) == filled


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (3, "3"), (0.5, "0.5"), ("a b", "a b"), ((1, 2, False), "1,2,false")]
)
def test_a_parameter_as_a_program_gets_it(value: Any, text: str) -> None:
    assert placeholders.as_text(value) == text


def test_what_is_left_out_of_a_command_does_not_change_its_cases() -> None:
    command = Command.model_validate({"run": ("prog",), "success": {"output": ("ok",)}})
    assert {"cooperates", "answers"} & set(command.model_dump(mode="json")) == set()
    more = command.model_copy(update={"cooperates": True, "answers": Answers(files=("x",))})
    assert more.model_dump(mode="json")["answers"] == {"metrics": [], "files": ["x"]}
    assert Command.model_validate(more.model_dump()) == more
