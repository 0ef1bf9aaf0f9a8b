"""Templates of one's own: where they are looked for, what they may change, and what they are refused for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.cli import main
from harness.model.case import Case, Job, Plan, Submission
from harness.model.site import Site
from harness.plan import expand
from harness.prepare import Input, open_or_make
from harness.render import RenderError, render
from harness.resources import configs_dir, templates_dir
from harness.rundir import RunDir
from harness.script import Option, options
from harness.slurm.versions import Version, features
from harness.templates import Templates, refuse_lost_blocks, sources
from tests.unit.test_render import tiny_site as site

RUN = "/shared/run"


def plan(template: str = "torch.sh.j2", *, count: int = 1, requeue: bool = False, world: str = "") -> Plan:
    case = Case("c0", "g", "w", 2, 2, 0, 1, 10, 2, {}, command={"world": world} if world else None)
    keys = ["0000"] if count == 1 else [f"0000_{n}" for n in range(count)]
    jobs = tuple(Job(key, 2, 2, 7, ("c0",), requeue) for key in keys)
    return Plan(cases=(case,), submissions=(Submission("0000", jobs, template),))


def text_of(templates: Templates, given: Plan | None = None, where: Site | None = None, **more: Any) -> str:
    given = given or plan()
    return render(
        given.submissions[0],
        given,
        where or site(),
        **{"run_id": "0123abcd", "run_folder": RUN, "python": "/opt/python", "code_path": f"{RUN}/h.zip"},
        templates=templates,
        **more,
    )


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Templates]:
    """Writes templates: ``own(site={...}, campaign={...})``, name -> text."""

    def write(**folders: dict[str, str]) -> Templates:
        for noun, files in folders.items():
            for name, text in files.items():
                path = tmp_path / noun / f"{name}.sh.j2"
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
        given = {noun: tmp_path / noun for noun in folders}
        return Templates(templates_dir(), given.get("site"), given.get("campaign"))

    return write


def adds(parent: str, line: str, block: str = "environment") -> str:
    return f'{{% extends "{parent}" %}}{{% block {block} %}}\n{line}\n{{{{ super() -}}}}\n{{% endblock %}}'


# ---- where they are looked for ----


def test_a_template_of_ones_own_extends_the_built_in_one_whose_name_it_has(own: Any) -> None:
    builtin = text_of(Templates(templates_dir()))
    text = text_of(own(site={"torch": adds("harness/torch.sh.j2", "export OURS=1")}))
    assert text.replace("export OURS=1\n", "") == builtin
    assert "export OURS=1\n" in text


def test_an_own_base_is_under_the_built_in_templates_too(own: Any) -> None:
    templates = own(site={"base": adds("harness/base.sh.j2", "export BASE=1")})
    for name in ("torch.sh.j2", "mpi.sh.j2"):
        assert "export BASE=1\n" in text_of(templates, plan(name))


def test_a_campaigns_template_is_found_before_the_sites(own: Any) -> None:
    site_only = {"torch": adds("harness/torch.sh.j2", "export WHO=site")}
    text = text_of(
        own(site=site_only, campaign={"torch": adds("harness/torch.sh.j2", "export WHO=campaign")})
    )
    assert [line for line in text.splitlines() if "WHO" in line] == ["export WHO=campaign"]


def test_a_campaigns_template_can_extend_the_sites(own: Any) -> None:
    site_only = {"torch": adds("harness/torch.sh.j2", "export WHO=site")}
    text = text_of(own(site=site_only, campaign={"torch": adds("site/torch.sh.j2", "export WHO=campaign")}))
    assert [line for line in text.splitlines() if "WHO" in line] == [
        "export WHO=campaign",
        "export WHO=site",
    ]


def test_site_means_the_harness_where_the_site_has_none(own: Any) -> None:
    text = text_of(own(campaign={"torch": adds("site/torch.sh.j2", "export WHO=campaign")}))
    assert "export WHO=campaign\n" in text


def test_the_texts_that_a_script_is_made_of_are_told_with_their_digests(own: Any, tmp_path: Path) -> None:
    ours = adds("harness/torch.sh.j2", "export OURS=1")
    found = sources("torch.sh.j2", own(site={"torch": ours}))
    assert [(s.name, s.path) for s in found] == [
        ("torch.sh.j2", str(tmp_path / "site/torch.sh.j2")),
        ("harness/torch.sh.j2", str(templates_dir() / "torch.sh.j2")),
        ("base.sh.j2", str(templates_dir() / "base.sh.j2")),
    ]
    assert (found[0].text, found[0].sha256) == (ours, hashlib.sha256(ours.encode()).hexdigest())


# ---- what is wrong with them is told with file and line ----


def test_a_block_that_overrides_nothing_is_refused(own: Any, tmp_path: Path) -> None:
    templates = own(site={"torch": adds("harness/torch.sh.j2", "export X=1", "environmentt")})
    with pytest.raises(RenderError) as refused:
        refuse_lost_blocks("torch.sh.j2", templates)
    assert str(refused.value) == (
        f"{tmp_path}/site/torch.sh.j2:1: block environmentt is in none of the templates that this one extends, so it "
        "would be left out, allowed: directives, environment, launch, modules, possible, prologue, threads; "
        'did you mean "environment"?'
    )


def test_a_block_is_looked_for_in_own_templates_in_between_too(own: Any) -> None:
    site_only = '{% extends "harness/torch.sh.j2" %}{% block prologue %}{% block fabric %}{% endblock %}{% endblock %}'
    campaign = adds("site/torch.sh.j2", "export X=1", "fabric")
    refuse_lost_blocks("torch.sh.j2", own(site={"torch": site_only}, campaign={"torch": campaign}))
    lost = own(
        site={"torch": site_only}, campaign={"torch": campaign.replace("block fabric", "block fabrik")}
    )
    with pytest.raises(RenderError, match=r'campaign/torch\.sh\.j2:1: block fabrik .*did you mean "fabric"'):
        refuse_lost_blocks("torch.sh.j2", lost)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{% extends "harness/torch.sh.j2" %}\n{% block threads %}\n{{ nodse }}{% endblock %}',
         "SITE/torch.sh.j2:3: 'nodse' is undefined; correct it"),
        ("\n\n{% if %}", "SITE/torch.sh.j2:3: Expected an expression, got 'end of statement block'; correct it"),
        ('{% extends "torch.sh.j2" %}',
         "template torch.sh.j2: extends or includes itself; the harness's own is harness/torch.sh.j2"),
        ('{% extends "harness/torhc.sh.j2" %}',
         "SITE/torch.sh.j2:1: template harness/torhc.sh.j2: not in SITE, HARNESS; correct the name, or add the file"),
        ("\n{{ run_folder }}",
         "SITE/torch.sh.j2:2: '/shared/run': printed by a template as it is; pipe it through shell or directive"),
        ('\n{{ refuse("not on a " ~ site.kind ~ " site") }}', "SITE/torch.sh.j2:2: not on a production site"),
        ('{% if has("overlapp") %}{% endif %}', "SITE/torch.sh.j2:1: has('overlapp'): is not in the table"),
        ("{{ nodes.fly() }}", "SITE/torch.sh.j2:1: 'int object' has no attribute 'fly'; correct it"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_and_line_of_the_own_template(
    own: Any, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(RenderError) as caught:
        text_of(own(site={"torch": text}), slurm=features(Version(22, 5)))
    said = str(caught.value).replace(str(tmp_path / "site"), "SITE").replace(str(templates_dir()), "HARNESS")
    assert said.startswith(message)


def test_a_parent_that_an_expression_names_is_refused_because_no_run_folder_could_tell_it(own: Any) -> None:
    templates = own(site={"torch": "{% extends 'base' ~ '.sh.j2' %}"})
    with pytest.raises(
        RenderError, match=r"torch\.sh\.j2: extends or includes a template that an expression"
    ):
        sources("torch.sh.j2", templates)


# ---- what none may drop ----

KEPT = '{% extends "harness/torch.sh.j2" %}{% block directives %}{{ super() -}}\n#SBATCH MORE\n{% endblock %}'


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--job-name=mine", "line 12 of the script says --job-name=mine, not '#SBATCH --job-name=hh.0123abcd.0000': "
         "the driver finds a job again by its name; remove it, and change the campaign or the site file where that is "
         "meant"),
        ("-J mine", "line 12 of the script says --job-name=mine, not"),
        ("--job=mine", "line 12 of the script has --job, which sbatch takes for --job-name; write it out"),
        ("--nodes=2-4", "line 12 of the script says --nodes=2-4, not '#SBATCH --nodes=2': the plan counts on it"),
        ("-N4", "line 12 of the script says --nodes=4, not"),
        ("-t 1-0", "line 12 of the script says --time=1-0, not '#SBATCH --time=7'"),
        ("--output /tmp/x", "line 12 of the script says --output=/tmp/x, not '#SBATCH --output=/shared/run/logs/"),
        ("--open-mode=truncate", "line 12 of the script says --open-mode=truncate, not"),
        ("--array=0-3", "line 12 of the script asks for --array: it is a single job; remove it"),
        ("--requeue", "line 12 of the script asks for --requeue: the recovery that the plan says; remove it"),
        ("--no-kill=off", "line 12 of the script says --no-kill=off, not '#SBATCH --no-kill': without it the job ends"),
        ("--signal=USR2@60", "line 12 of the script says --signal=USR2@60, not '#SBATCH --signal=B:USR2@60'"),
        ("--export=NONE", "line 12 of the script says --export=NONE, not"),
        ("--parsable", "line 12 of the script asks for --parsable: the job's number is read"),
        ("-W", "line 12 of the script asks for --wait: sbatch would not return"),
        ("--clusters=a,b", "line 12 of the script asks for --clusters: the driver asks this cluster's controller"),
        ("hetjob", "the script has a line `#SBATCH hetjob`, and heterogeneous jobs are not supported"),
    ],
)  # fmt: skip
def test_a_line_that_the_driver_counts_on_cannot_be_changed(own: Any, more: str, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        text_of(own(site={"torch": KEPT.replace("MORE", more)}))
    assert str(caught.value).startswith(f"template torch.sh.j2: {message}")


@pytest.mark.parametrize(
    "more", ["--mail-type=END", "--nice=5", "--exclude=n[1-3] --comment 'a -J b'", "-p other"]
)
def test_what_it_does_not_count_on_can(own: Any, more: str) -> None:
    assert f"#SBATCH {more}\n" in text_of(own(site={"torch": KEPT.replace("MORE", more)}))


def test_an_array_may_be_told_how_many_run_at_a_time_and_nothing_else(own: Any) -> None:
    limited = own(site={"torch": KEPT.replace("MORE", "--array=0-1%1")})
    assert "#SBATCH --array=0-1%1\n" in text_of(limited, plan(count=2))
    shorter = own(campaign={"torch": KEPT.replace("MORE", "--array=0-0")})
    with pytest.raises(RenderError, match=r"--array=0-0, not '#SBATCH --array=0-1'"):
        text_of(shorter, plan(count=2))


@pytest.mark.parametrize("more", ["--no-kill", "--ntasks=4", "-n 4", "--no-requeue"])
def test_a_job_that_starts_again_has_nothing_that_would_keep_it_from_that(own: Any, more: str) -> None:
    with pytest.raises(RenderError, match="line 11 of the script asks for"):
        text_of(own(site={"torch": KEPT.replace("MORE", more)}), plan(requeue=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo hello\n", "the script begins with 'echo hello': sbatch takes no script without #!/bin/bash"),
        ("#!/bin/bash\necho hello\n", "the script lacks '#SBATCH --job-name=hh.0123abcd.0000': the driver finds a job"),
        ('{% extends "harness/torch.sh.j2" %}{% block directives %}{% endblock %}', "the script lacks '#SBATCH --job"),
        ('{% extends "harness/torch.sh.j2" %}{% block launch %}{% endblock %}',
         "the script lacks the line 'export PYTHONPATH=/shared/run/h.zip': jobs run the code of their run folder"),
        ('{% extends "harness/torch.sh.j2" %}{% block launch %}{{ super() }}rm -rf x\n{% endblock %}',
         "the last command of the script is 'rm -rf x', not 'exec /opt/python -m harness.runtime.supervisor "
         "/shared/run 0000': signals and exit code must be the supervisor's"),
        ('{% extends "harness/torch.sh.j2" %}{% block environment %}\n#SBATCH --mem=1\n{% endblock %}',
         "line 15 of the script is '#SBATCH --mem=1', below a command (line 13): sbatch would not read it"),
        ("{% set old = 'harness' %}{% extends 'harness/torch.sh.j2' %}{% block launch %}"
         "export PYTHONPATH=/shared/run/h.zip\ncd -- /shared/run\nexport PYTHONPATH=/mine\n"
         "exec /opt/python -m harness.runtime.supervisor /shared/run 0000\n{% endblock %}",
         "the script sets PYTHONPATH again by 'export PYTHONPATH=/mine'"),
    ],
)  # fmt: skip
def test_a_script_without_what_it_needs_is_refused(own: Any, text: str, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        text_of(own(site={"torch": text}))
    assert str(caught.value).startswith(f"template torch.sh.j2: {message}")


def test_options_are_read_as_sbatch_reads_them() -> None:
    text = (
        '#!/bin/bash\n#SBATCH -N 2 --mem=0 -k\n# words\n#SBATCH --comment "a # b" --exclusive  # why\n\nls\n'
    )
    assert list(options(text)) == [
        Option(2, "nodes", "2"),
        Option(2, "mem", "0"),
        Option(2, "no-kill", None),
        Option(4, "comment", "a # b"),
        Option(4, "exclusive", None),
    ]


# ---- what the harness's own refuse ----


@pytest.mark.parametrize(
    ("template", "change", "message"),
    [
        ("torch.sh.j2", {"limits": {"max_nodes": 1, "max_time_min": 60}},
         "the job asks for 2 nodes, but limits.max_nodes of the site is 1; lower nodes"),
        ("torch.sh.j2", {"limits": {"max_nodes": 4, "max_time_min": 5}},
         "the job asks for 7 min, but limits.max_time_min of the site is 5; lower time_limit_min"),
        ("torch.sh.j2", {"node": {"cpus": 4, "exclusive": False, "gpus": 1, "gpu_request": "none"}},
         "node.gpu_request is none, so that only whole nodes come with their GPUs, but the job shares its nodes; "
         "write node.exclusive: true, or gpu_request: gres"),
        ("mpi.sh.j2", {"mpi": {"plugin": "none"}},
         "mpi.plugin of the site is none, so that each rank would be a world of its own; `srun --mpi=list` lists "
         "others"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_when_it_is_rendered(
    template: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RenderError) as caught:
        text_of(Templates(templates_dir()), plan(template), site(**change))
    assert str(caught.value) == message


def test_an_array_larger_than_the_site_takes_is_refused() -> None:
    small = site(limits={"max_nodes": 8, "max_time_min": 60, "max_array_size": 2})
    with pytest.raises(
        RenderError, match=r"the array has 3 tasks, but limits\.max_array_size of the site is 2"
    ):
        text_of(Templates(templates_dir()), plan(count=3), small)


def test_a_job_that_should_start_again_is_refused_where_none_may() -> None:
    with pytest.raises(RenderError, match=r"requeue of the site is false"):
        text_of(Templates(templates_dir()), plan(requeue=True), site(requeue=False))


@pytest.mark.parametrize("ranks", [plan("mpi.sh.j2"), plan("command.sh.j2", world="mpi")])
def test_mpi_ranks_beside_an_agent_with_gpus_need_a_slurm_that_shares_them(ranks: Plan) -> None:
    gpus = site(node={"cpus": 4, "exclusive": True, "gpus": 2})
    builtin = Templates(templates_dir())
    with pytest.raises(RenderError, match=r"share GPUs from Slurm 22\.05 on alone"):
        text_of(builtin, ranks, gpus, slurm=features(Version(21, 8)))
    assert text_of(builtin, ranks, gpus, slurm=features(Version(22, 5)))


@pytest.mark.parametrize("ranks", [plan(), plan("command.sh.j2", world="plain")])
def test_ranks_that_are_children_of_an_agent_with_gpus_run_on_any_slurm(ranks: Plan) -> None:
    gpus = site(node={"cpus": 4, "exclusive": True, "gpus": 2})
    assert text_of(Templates(templates_dir()), ranks, gpus, slurm=features(Version(20, 2)))


# ---- in a run folder, and compared ----


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A site file of no cluster with a folder of templates, and a run folder of a small campaign on it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "mpi.sh.j2").write_text(adds("harness/mpi.sh.j2", "export OURS=1"))
    local = (configs_dir() / "sites" / "local.yaml").read_text()
    (tmp_path / "site.yaml").write_text(f"{local}\ntemplates: {tmp_path / 'templates'}\n")
    (tmp_path / "small.yaml").write_text(
        "schema: 1\nname: small\nseed: 1\ngroups:\n  - {name: halo, workload: mpi.halo, nodes: 2}\n"
    )

    def make() -> tuple[Path, Path]:
        campaign, campaign_text = config.load_campaign(tmp_path / "small.yaml")
        where, site_text = config.load_site(tmp_path / "site.yaml")
        given = Input(campaign, campaign_text, where, site_text, ["test"])
        run, _ = open_or_make(tmp_path / "run", given, expand(campaign, where))
        return tmp_path, run.path

    return make


def test_a_run_folder_holds_the_templates_that_it_was_made_of(made: Any) -> None:
    folder, run = made()
    ours = (folder / "templates" / "mpi.sh.j2").read_text()
    kept = json.loads((run / "templates.json").read_text())
    assert [(s["name"], s["path"]) for s in kept] == [
        ("base.sh.j2", str(templates_dir() / "base.sh.j2")),
        ("harness/mpi.sh.j2", str(templates_dir() / "mpi.sh.j2")),
        ("mpi.sh.j2", str(folder / "templates" / "mpi.sh.j2")),
        ("mpi_ranks.j2", str(templates_dir() / "mpi_ranks.j2")),
    ]
    assert kept[2]["text"] == ours
    digests = RunDir(run).read_identity()["templates"]
    assert digests == {s["name"]: hashlib.sha256(s["text"].encode()).hexdigest() for s in kept}


def test_a_folder_of_templates_that_is_not_there_is_named(made: Any, tmp_path: Path) -> None:
    (tmp_path / "templates" / "mpi.sh.j2").unlink()
    (tmp_path / "templates").rmdir()
    with pytest.raises(RenderError) as caught:
        made()
    assert str(caught.value) == (
        f"site local: templates = '{tmp_path}/templates': no such folder; make it, or remove the key"
    )


def test_diff_says_what_own_templates_change_in_the_built_in_ones(made: Any, capsys: Any) -> None:
    folder, _ = made()
    command = ["render", str(folder / "small.yaml"), "--site", str(folder / "site.yaml"), "--diff"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:2] == ["--- harness/0000.sh", "+++ own/0000.sh"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["+export OURS=1"]
    assert err == "1 of 1 scripts differ\n"


def test_diff_without_templates_of_ones_own_finds_nothing(made: Any, capsys: Any) -> None:
    folder, _ = made()
    assert main(["render", str(folder / "small.yaml"), "--site", "local", "--diff"]) == 0
    assert capsys.readouterr() == (
        "",
        "neither site nor campaign has templates of its own: nothing differs\n0 of 1 scripts differ\n",
    )


def test_diff_against_a_run_folder_says_what_has_changed_since_and_not_the_runs_id(
    made: Any, capsys: Any
) -> None:
    folder, run = made()
    command = [
        "render", str(folder / "small.yaml"), "--site", str(folder / "site.yaml"), "--diff", str(run)
    ]  # fmt: skip
    assert (main(command), capsys.readouterr()) == (0, ("", "0 of 1 scripts differ\n"))
    template = folder / "templates" / "mpi.sh.j2"
    template.write_text(template.read_text().replace("OURS=1", "OURS=2"))
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"--- {run}/jobs/0000.sh", "+++ now/0000.sh"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-export OURS=1", "+export OURS=2"]


def test_diff_takes_the_runs_own_id_and_paths_so_that_only_changes_are_left(
    made: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made()
    monkeypatch.setattr("harness.prepare.slurm_version", lambda: "slurm 22.05.8")
    campaign, where = folder / "small.yaml", configs_dir() / "sites" / "emulated.yaml"
    read = config.load_campaign(campaign), config.load_site(where)
    (parsed, text), (there, there_text) = read
    given = Input(parsed, text, there, there_text, ["test"])
    run, _ = open_or_make(folder / "slurm-run", given, expand(parsed, there))
    capsys.readouterr()
    command = ["render", str(campaign), "--site", str(where), "--slurm-version", "22.05"]
    assert main([*command, "--diff", str(run.path)]) == 0
    assert main([*command, "-s", "groups.halo.time_limit_min=6", "--diff", str(run.path)]) == 1
    changed = [line for line in capsys.readouterr().out.splitlines()[2:] if line[0] in "+-"]
    assert [line.split("=")[0] for line in changed] == ["-#SBATCH --time", "+#SBATCH --time"]


def test_diff_against_a_run_of_another_site_is_refused(made: Any, capsys: Any) -> None:
    folder, run = made()
    command = ["render", str(folder / "small.yaml"), "--site", "emulated", "--slurm-version", "22.05"]
    assert main([*command, "--diff", str(run)]) == 2
    assert capsys.readouterr().err.endswith(
        f"{run}: is of site local, not emulated; name that site, or another run\n"
    )


def test_scripts_can_be_written_for_another_version_of_slurm(made: Any, capsys: Any) -> None:
    folder, _ = made()
    command = ["render", str(folder / "small.yaml"), "--site", "example-gpu", "--slurm-version"]
    assert main([*command, "22.05"]) == 0
    assert main([*command, "21.08"]) == 2
    assert "share GPUs from Slurm 22.05 on alone" in capsys.readouterr().err
    assert main([*command, "19.05"]) == 3
    assert "is older than 20.02" in capsys.readouterr().err
