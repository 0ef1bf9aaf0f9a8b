"""No text of a site or campaign file gets out of its quotes: none reaches a shell, none adds a directive.

Which texts there are is read from the models, so that one that is added tomorrow is tried as well. Each
script is read by sbatch's rules and run by bash, once with a plain text and once with a nasty one: what
was seen must differ in that text alone. What is code by its nature is listed here, with who says so.
"""

from __future__ import annotations

import copy
import functools
import subprocess
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel, TypeAdapter, ValidationError

from harness.model.campaign import Campaign
from harness.model.case import Submission
from harness.model.fields import Findings
from harness.model.site import Site
from harness.plan import PlanError, expand
from harness.render import RenderError
from harness.resources import templates_dir
from tests.unit.test_render import text_of, tiny_plan, tiny_site
from tests.unit.test_render_quoting import CANARY, VALUE, slurm_words

# ---- which texts there are ----

KEY, ENTRY = "<key>", "<entry>"  # the key of a mapping, and what stands under one
Place = tuple[str | int, ...]

# Code, by the docstrings of Site and Command: run as it is, or never given to a shell, by whoever wrote the file.
CODE = {
    ("prologue", 0): "the site's own shell lines",
    ("power", "command", 0): "a program and its arguments, started without a shell",
    ("templates",): "a folder of templates, which are code",
    ("groups", 0, "command", "script"): "a program's text",
    ("groups", 0, "command", "run", 0): "a program and its arguments, started without a shell",
}


def texts_of(annotation: Any) -> Iterator[Place]:
    """Every place in a value of this type where a text may stand."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from texts_of(arguments[0])
    elif origin in (Union, types.UnionType):
        yield from dict.fromkeys(place for one in arguments for place in texts_of(one))
    elif origin is tuple:
        yield from ((0, *place) for place in texts_of(arguments[0]))
    elif origin is dict:
        if arguments[0] is not Any and list(texts_of(arguments[0])):
            yield (KEY,)
        yield from ((ENTRY, *place) for place in texts_of(arguments[1]))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from ((name, *place) for place in texts_of(field.annotation))
    elif annotation is str or annotation is Any:
        yield ()
    elif origin is Literal or annotation in (int, float, bool, type(None)):
        return
    else:
        raise AssertionError(f"{annotation!r}: say here where texts stand in it")


PLAIN = (
    "plainvalue7x", "/plainvalue7x", "PLAINVALUE7X", "file:plainvalue7x", r"plainvalue7x(?P<value>\d)",
    r"plainvalue7x(?P<step>\d)",
)  # fmt: skip
OTHERS: tuple[Any, ...] = ("plain", "/plain", 1, 2, 3, 1.0, True, "mpi.halo", "1", "rank.kill", "2%")


def minimal(annotation: Any, metadata: tuple[Any, ...] = ()) -> Any:
    """A small value of this type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return minimal(arguments[0], (*arguments[1:], *metadata))
    if origin is Literal:
        return arguments[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {
            name: minimal(field.annotation, tuple(field.metadata))
            for name, field in annotation.model_fields.items()
            if field.is_required()
        }
    candidates = OTHERS
    if origin is tuple:
        candidates = ((minimal(arguments[0]),),)
    elif origin is dict:
        candidates = ({minimal(arguments[0]): minimal(arguments[1])},)
    elif origin in (Union, types.UnionType):
        candidates = tuple(minimal(one) for one in arguments if one is not type(None))
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[(annotation, *metadata)] if metadata else annotation)
    for candidate in candidates:
        try:
            adapter.validate_python(candidate, strict=True)
        except (ValidationError, Findings):
            continue
        return candidate
    raise AssertionError(f"{annotation!r}: none of {candidates} fits; add one that does")


def put(annotation: Any, place: Place, value: str, given: Any = None) -> Any:
    """A value of this type with a text at one place; around it what is given, or as little as can be."""
    if not place:
        return value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return put(arguments[0], place, value, given)
    if origin in (Union, types.UnionType):
        fits = next(one for one in arguments if place in list(texts_of(one)))
        return put(fits, place, value, given)
    if origin is tuple:
        return (put(arguments[0], place[1:], value, given[0] if given else None), *(given or ())[1:])
    if origin is dict:
        if place[0] == KEY:
            return {value: minimal(arguments[1])}
        key = next(iter(given)) if given else minimal(arguments[0])
        return {key: put(arguments[1], place[1:], value, (given or {}).get(key))}
    around = copy.copy(given) if isinstance(given, dict) else minimal(annotation)
    name = str(place[0])
    field = annotation.model_fields[name]
    return {**around, name: put(field.annotation, place[1:], value, around.get(name))}


def dotted(place: Place) -> str:
    return ".".join(map(str, place))


# ---- what is seen of a script ----

# Tells its arguments, folder and environment; the shell is ten times as quick to start as Python.
TELLER = """#!/bin/bash
printf '%s\\0' "$#" "$@" "$PWD"
exec /usr/bin/env -0
"""
MODULE = "() { printf '%s\\0' \"$@\" >>MODULES; printf '\\n' >>MODULES; }"


def directives(text: str) -> list[list[str]]:
    """What sbatch reads: its own lines, wherever they stand before the first command."""
    lines = text.split("\n")
    before = lines[
        : next((i for i, line in enumerate(lines) if line and not line.startswith("#")), len(lines))
    ]
    assert not [line for line in lines[len(before) :] if line.lstrip().startswith("#SBATCH")]
    return [slurm_words(line) for line in before if line.startswith("#SBATCH")]


@dataclass(frozen=True)
class Room:
    """Where scripts are run: with no program to be found but the stub that tells what it was given."""

    folder: Path

    @functools.cache  # noqa: B019
    def seen_once(self, text: str) -> dict[str, Any]:
        """`seen` of a plain script, which is asked for again and again."""
        return self.seen(text)

    def seen(self, text: str) -> dict[str, Any]:
        """What sbatch and a shell make of a script."""
        modules = self.folder / "modules"
        modules.write_bytes(b"")
        done = subprocess.run(
            ["/bin/bash"],
            input=text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            env={"PATH": "/nowhere", "BASH_FUNC_module%%": MODULE.replace("MODULES", str(modules))},
        )
        assert not CANARY.exists(), "a value was run by a shell"
        assert (done.returncode, done.stderr) == (0, ""), text
        count, *told = done.stdout.split("\0")[:-1]
        arguments, (folder, *environment) = told[: int(count)], told[int(count) :]
        return {
            "directives": directives(text),
            "arguments": arguments,
            "folder": folder,
            "environment": dict(one.split("=", 1) for one in environment),
            "modules": modules.read_text(encoding="utf-8"),
        }


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("room")
    (folder / "python").write_text(TELLER)
    (folder / "python").chmod(0o700)
    (folder / "run").mkdir()
    CANARY.unlink(missing_ok=True)
    yield Room(folder)
    assert not CANARY.exists(), "a value was run by a shell"


def exchanged(value: Any, old: str, new: str) -> Any:
    """A value with one text in place of another, wherever it stands."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {exchanged(k, old, new): exchanged(v, old, new) for k, v in value.items()}
    return [exchanged(one, old, new) for one in value] if isinstance(value, list) else value


def in_room(text: str, room: Room) -> str:
    """The script with the room's own folder and stub; those below stand for them while it is written."""
    return text.replace("/FOLDER", str(room.folder / "run")).replace("/PYTHON", str(room.folder / "python"))


ROOM_NAMES = {"run_folder": "/FOLDER", "python": "/PYTHON", "code_path": "/CODE"}


def compare(room: Room, plain: str, plain_texts: dict[str, str], value: str, texts: dict[str, str]) -> None:
    """Each script must be seen as the plain one is, but for the value itself."""
    assert plain_texts.keys() == texts.keys()
    for name, text in texts.items():
        if text != plain_texts[name]:
            seen = room.seen(in_room(text, room))
            assert seen == exchanged(room.seen_once(in_room(plain_texts[name], room)), plain, value), name


# ---- sites ----

_COMMON: dict[str, Any] = {
    "schema": 1, "name": "tiny", "kind": "production", "launcher": "slurm", "requeue": True, "accounting": True,
    "limits": {"max_nodes": 8, "max_time_min": 60}, "node": {"cpus": 4, "gpus": 2, "exclusive": True},
    "mpi": {"plugin": "pmix"},
}  # fmt: skip
_EXPECTED = (
    {"workload": "w", "operation": "o", "message_bytes": 8, "dtype": "d", "time_s": {"at_most": 1.0}},
)
_CONTAINER = {"image": "/image", "python": "/python"}
# One of these must take a plain text at every place; a place that needs more beside it gets it here.
SITES: dict[str, dict[str, Any]] = {
    "slurm": _COMMON,
    "apptainer": {**_COMMON, "container": {"runtime": "apptainer", **_CONTAINER}},
    "pyxis": {**_COMMON, "container": {"runtime": "pyxis", **_CONTAINER}},
    "staging": {**_COMMON, "kind": "staging", "power": {"command": ("prog", "{action}", "{node}")}},
    "several": {**_COMMON, "partitions": {"part": {"node": {"cpus": 4, "gpus": 2, "exclusive": True}}}},
    "expecting": {**_COMMON, "expected": _EXPECTED},
    "several expecting": {**_COMMON, "partitions": {"part": {"expected": _EXPECTED}}},
}
TEMPLATES = sorted(
    p.name for p in templates_dir().glob("*.sh.j2") if p.name != "site_check.sh.j2"  # of no submission
)  # fmt: skip
SITE_KNOWN = {("expected", 0, "within"): "is a percentage"}
SITE_PLACES = [
    place
    for place in texts_of(Site)
    if not {place, place[2:]} & {*CODE, *SITE_KNOWN}  # place[2:]: the same key of a partition
]  # fmt: skip


def scripts_of_site(site: Site) -> dict[str, str]:
    """The script of each template that this site can have, on itself and on each of its partitions."""
    found = {}
    for template in TEMPLATES:
        planned = tiny_plan(template, count=2)
        for partition in ("", *site.partitions):
            (submission,) = planned.submissions
            there = Submission(submission.name, submission.jobs, template, partition)
            try:
                found[f"{template} {bool(partition)}"] = text_of(there, planned, site, **ROOM_NAMES)
            except RenderError:
                continue  # refused, in words
    return found


@functools.cache
def plain_site(place: Place) -> tuple[str, str, dict[str, str]]:
    """A site that takes a plain text at a place: which, the text, and its scripts."""
    for name, base in SITES.items():
        for plain in PLAIN:
            try:
                site = Site.model_validate(put(Site, place, plain, base))
            except (ValidationError, Findings):
                continue
            if scripts := scripts_of_site(site):
                return name, plain, scripts
    raise AssertionError(
        f"{dotted(place)}: no site of SITES takes one of {PLAIN} there; if it is code say so in CODE, else give SITES "
        "what it needs beside it"
    )


@pytest.mark.parametrize("place", SITE_PLACES, ids=dotted)
@given(value=VALUE)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_text_of_a_site_gets_out_of_its_quotes(place: Place, room: Room, value: str) -> None:
    name, plain, plain_scripts = plain_site(place)
    value = f"/{value}" if plain.startswith("/") and not value.startswith("/") else value
    try:
        site = Site.model_validate(put(Site, place, value, SITES[name]))
    except (ValidationError, Findings):
        return  # refused at the border, which is as good
    scripts = scripts_of_site(site)
    if scripts.keys() == plain_scripts.keys():  # else a template refuses it, in words
        compare(room, plain, plain_scripts, value, scripts)


# ---- campaigns ----

_HALO: dict[str, Any] = {"name": "g", "workload": "mpi.halo", "nodes": 2}
_COMMAND: dict[str, Any] = {
    "name": "g", "workload": "command", "nodes": 2, "command": {"run": ("prog",), "success": {"output": ("ok",)}},
}  # fmt: skip
_FAULT = {"kind": "rank.kill", "target": {"rank": 0}, "at": {"step": 1}, "expect": "failed", "because": "x"}
_BY_REGEX = {"name": "rate_per_s", "unit": "1/s", "regex": r"(?P<value>\d)"}
_BY_KEY = {"name": "rate_per_s", "unit": "1/s", "key": "k", "coordinates": {"size": "1"}}


def _campaign(group: dict[str, Any], **command: Any) -> dict[str, Any]:
    if command:
        group = {**group, "command": {**group["command"], **command}}
    return {"schema": 1, "name": "c", "seed": 1, "groups": (group,)}


# One of these must take a plain text at every place, as with SITES.
CAMPAIGNS: dict[str, dict[str, Any]] = {
    "halo": _campaign(_HALO),
    "command": _campaign(_COMMAND),
    "mpi": _campaign(_COMMAND, world="mpi"),
    "by regex": _campaign(_COMMAND, metrics=(_BY_REGEX,)),
    "by key": _campaign(_COMMAND, metrics=(_BY_KEY,)),
    "fault": _campaign({**_HALO, "faults": (_FAULT,)}),
    "hook": _campaign({**_COMMAND, "faults": ({**_FAULT, "at": {"event": "x"}},)}, cooperates=True),
}
# Compared with what there is, so that no other text gets as far as a script.
KNOWN_NAMES = {
    ("include", 0): "names a file, which is read in its place",
    ("groups", 0, "workload"): "names a workload",
    ("groups", 0, "partition"): "names one of the site's partitions",
    ("groups", 0, "after", 0): "names a group",
    ("groups", 0, "needs", 0): "names a group",
    ("groups", 0, "scaling", "grow"): "names a parameter of the workload",
    ("groups", 0, "faults", 0, "kind"): "names a kind of fault",
    ("groups", 0, "faults", 0, "instead"): "names a kind of fault",
    ("groups", 0, "gates", 0, "metric"): "names a metric",
    ("groups", 0, "gates", 0, "where", KEY): "names a column",
    ("groups", 0, "gates", 0, "smallest"): "is a percentage",
    ("groups", 0, "repeats", "until", "metric"): "names a metric",
    ("groups", 0, "repeats", "until", "where", KEY): "names a column",
    ("groups", 0, "repeats", "until", "within"): "is a percentage",
    ("groups", 0, "repeats", "until", "level"): "is a percentage",
    ("groups", 0, "compare", "smallest"): "is a percentage",
    ("groups", 0, "command", "answers", "metrics", 0): "names a metric of the program",
}
CAMPAIGN_PLACES = [p for p in texts_of(Campaign) if p not in CODE and p not in KNOWN_NAMES]


def scripts_of_campaign(raw: dict[str, Any]) -> dict[str, str]:
    campaign = Campaign.model_validate(raw)
    site = tiny_site()
    planned = expand(campaign, site)
    return {s.name: text_of(s, planned, site, **ROOM_NAMES) for s in planned.submissions}


@functools.cache
def plain_campaign(place: Place) -> tuple[str, str, dict[str, str]]:
    for name, base in CAMPAIGNS.items():
        for plain in PLAIN:
            try:
                return name, plain, scripts_of_campaign(put(Campaign, place, plain, base))
            except (ValidationError, Findings, PlanError, RenderError, KeyError, ValueError):
                continue
    raise AssertionError(
        f"{dotted(place)}: no campaign of CAMPAIGNS takes one of {PLAIN} there; if it is code say so in CODE, if it is "
        "compared with what there is in KNOWN_NAMES, else give CAMPAIGNS what it needs beside it"
    )


@pytest.mark.parametrize("place", CAMPAIGN_PLACES, ids=dotted)
@given(value=VALUE)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_text_of_a_campaign_gets_out_of_its_quotes(place: Place, room: Room, value: str) -> None:
    name, plain, plain_scripts = plain_campaign(place)
    try:
        scripts = scripts_of_campaign(put(Campaign, place, value, CAMPAIGNS[name]))
    except (ValidationError, Findings, PlanError, RenderError):
        return
    compare(room, plain, plain_scripts, value, scripts)
