"""Campaign and site files -> models, or every error at once, each with file, line, place and value.

It reads the files and nothing else. Whether a campaign fits a site is ``check``; what the rules are is in
the models and in ``harness.rules``.
"""

from __future__ import annotations

import json
import stat
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from harness.model.campaign import Campaign, Group, did_you_mean, duplicate_names
from harness.model.fields import NOTHING, Finding, Findings, Frozen, Loc, bad_character, place
from harness.model.site import Site
from harness.rules import group_findings, site_findings, workload_findings
from harness.source import parse
from harness.workloads import REGISTRY

MAX_BYTES = 1 << 20
_SHOWN = 60  # characters of a value that a message quotes

M = TypeVar("M", bound=Frozen)


@dataclass(frozen=True)
class Problem:
    """One finding with its file and line, as a person reads it."""

    path: str
    line: int  # 0: about the file as a whole
    text: str
    warning: bool = False

    def __str__(self) -> str:
        """``path:line: place = value, what is wrong, what is allowed; what to do next``."""
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path}: {self.text}"


class ConfigError(Exception):
    """A file cannot be used. ``problems`` holds all that is wrong with it, in the order of its lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


def load_campaign(path: str | Path, search: Sequence[Path] = ()) -> tuple[Campaign, str]:
    """Read a campaign file, or the campaign of that name in one of the folders ``search``.

    Returns:
        The campaign, and the text it was read from.

    Raises:
        ConfigError: the file is missing, unreadable or wrong.
    """
    found = find(path, search, "campaign")
    text = _read(found)
    return parse_campaign(text, str(found)), text


def load_site(name_or_path: str | Path, search: Sequence[Path] = ()) -> tuple[Site, str]:
    """Read a site file, or the site of that name in one of the folders ``search``.

    Returns:
        The site, and the text it was read from.

    Raises:
        ConfigError: the file is missing, unreadable or wrong.
    """
    found = find(name_or_path, search, "site")
    text = _read(found)
    return parse_site(text, str(found)), text


def parse_campaign(text: str, path: str = "campaign") -> Campaign:
    """A campaign from its text; ``path`` is for the messages. Raises ConfigError."""
    return _validated(Campaign, text, path, "campaign", _campaign_findings)


def parse_site(text: str, path: str = "site") -> Site:
    """A site from its text; ``path`` is for the messages. Raises ConfigError."""
    return _validated(Site, text, path, "site", lambda data, site: ())


def check(campaign: Campaign, site: Site, *, path: str = "campaign", text: str = "") -> list[Problem]:
    """Everything that keeps a campaign from running on a site; ``warning`` marks what does not.

    ``path`` and ``text`` of the campaign's file give the messages their lines.
    """
    source = parse(text)
    findings = [*_registry_findings(campaign), *site_findings(campaign, site, REGISTRY)]
    return _problems(path, ((source.line(f.loc) if text else 0, f) for f in findings))


def campaign_json_schema() -> dict[str, Any]:
    """JSON Schema of campaign files, for editors."""
    return _schema(Campaign, "harness campaign file")


def site_json_schema() -> dict[str, Any]:
    """JSON Schema of site files, for editors."""
    return _schema(Site, "harness site file")


def _schema(model: type[Frozen], title: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(by_alias=True),
        "title": title,
    }


# ---- files ----


def find(given: str | Path, search: Sequence[Path], noun: str) -> Path:
    """The file of that path, or of that name in one of the folders ``search``. Raises ConfigError."""
    path = Path(given)
    bare = path.name == str(given)
    if _is_there(path) and not (bare and path.is_dir()):
        return path
    if bare:
        for folder in search:
            for name in (f"{given}.yaml", str(given)):
                if _is_there(folder / name):
                    return folder / name
    names = sorted({p.stem for folder in search if folder.is_dir() for p in folder.glob("*.yaml")})
    close = did_you_mean(path.stem, names, "choose one, or give the path of a file")
    raise ConfigError(
        [Problem(str(given), 0, f"no such file or {noun}, allowed: {', '.join(names) or 'a path'}; {close}")]
    )


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True  # reading it will say so
    except (OSError, ValueError):
        return False
    return True


def _read(path: Path) -> str:
    def refuse(text: str, line: int = 0) -> ConfigError:
        return ConfigError([Problem(str(path), line, text)])

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise refuse("is not a file; give the path of a YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror}); check its permissions") from None
    if len(data) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES} bytes, which is the limit; split it")
    if (offset := data.find(b"\0")) >= 0:
        raise refuse(
            f"is binary: byte {offset} is NUL; give the path of a YAML file", data.count(b"\n", 0, offset) + 1
        )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise refuse(
            f"is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}; save it as UTF-8",
            data.count(b"\n", 0, error.start) + 1,
        ) from None


# ---- validation ----


def _validated(
    model: type[M],
    text: str,
    path: str,
    noun: str,
    more: Callable[[Mapping[str, Any], M | None], Iterable[Finding]],
) -> M:
    source = parse(text)
    found = list(source.findings)
    value: M | None = None
    if source.data is NOTHING or source.data is None:
        if not found:
            found.append(
                (0, Finding((), f"the file is empty; write a {noun}, or copy one of configs/{noun}s"))
            )
    elif not isinstance(source.data, dict):
        found.append(
            (
                1,
                Finding(
                    (),
                    f"the file holds {_shape(source.data)}, allowed: keys and values; begin with schema: 1",
                ),
            )
        )
    else:
        try:
            value = model.model_validate(source.data)
        except ValidationError as error:
            found += [(source.line(f.loc), f) for e in error.errors() for f in _explain(e, model)]
        told = {f.loc for _, f in found}  # of what the model refused, the other rules have nothing to add
        found += [(source.line(f.loc), f) for f in more(source.data, value) if f.loc not in told]
    if found or value is None:
        raise ConfigError(_problems(path, found))
    return value


def _campaign_findings(data: Mapping[str, Any], campaign: Campaign | None) -> Iterator[Finding]:
    if campaign is not None:
        yield from _registry_findings(campaign)
        return
    # Something is wrong already; say all that can be said of the rest.
    groups = data.get("groups")
    for index, raw in enumerate(groups if isinstance(groups, tuple) else ()):
        if isinstance(raw, dict):
            yield from _within(index, workload_findings(raw.get("workload"), raw.get("params"), REGISTRY))
            try:
                group = Group.model_validate(raw)
            except ValidationError:
                continue
            if group.workload in REGISTRY:
                yield from _within(index, group_findings(group, REGISTRY[group.workload]))
    if isinstance(groups, tuple):
        yield from duplicate_names([raw.get("name") if isinstance(raw, dict) else None for raw in groups])


def _registry_findings(campaign: Campaign) -> Iterator[Finding]:
    for index, group in enumerate(campaign.groups):
        yield from _within(index, workload_findings(group.workload, group.params, REGISTRY))
        if group.workload in REGISTRY:
            yield from _within(index, group_findings(group, REGISTRY[group.workload]))


def _within(index: int, findings: Iterable[Finding]) -> Iterator[Finding]:
    for f in findings:
        yield Finding(("groups", index, *f.loc), f.text, f.value, f.warning)


# ---- messages ----


def _problems(path: str, found: Iterable[tuple[int, Finding]]) -> list[Problem]:
    """Messages in the order of lines."""
    problems = []
    for line, f in found:
        value = (
            f" = {_quoted(f.value)}"
            if f.value is not NOTHING and not isinstance(f.value, dict | tuple)
            else ""
        )
        text = f"{place(f.loc)}{value}, {f.text}" if f.loc else f.text
        problems.append(Problem(path, line, text, f.warning))
    return sorted(problems, key=lambda p: (p.line, p.warning))


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=bool(isinstance(value, str) and bad_character(value)), default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + '..."'


def _shape(value: object) -> str:
    if isinstance(value, tuple):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f"the value {_quoted(value)}"


_TYPES = {
    "int_type": "must be a whole number; write digits only, without quotes",
    "int_from_float": "must be a whole number; write digits only, without quotes",
    "float_type": "must be a number; write it without quotes",
    "finite_number": "must be a finite number; change it",
    "string_type": "must be a text; put it in quotes",
    "bool_type": "must be true or false, without quotes (in YAML 1.2 yes and no are texts); change it",
    "tuple_type": "must be a list; write it in [ ]",
    "dict_type": "must be keys and values; write it in { } or indented below",
    "model_type": "must be keys and values; write it in { } or indented below",
}


def _explain(error: ErrorDetails, model: type[Frozen]) -> Iterator[Finding]:
    """One of pydantic's errors in our words."""
    loc: Loc = tuple(error["loc"])
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    inner = context.get("error")
    if isinstance(inner, Findings):
        for f in inner.findings:
            yield Finding((*loc, *f.loc), f.text, f.value, f.warning)
    elif kind == "missing":
        yield Finding(loc, f"is missing{_meaning(model, loc)}; add it")
    elif kind == "extra_forbidden":
        names = _keys(_at(model, loc[:-1]))
        yield Finding(
            loc,
            f"is an unknown key, allowed: {', '.join(names)}; {did_you_mean(loc[-1], names, 'remove it')}",
            value,
        )
    elif kind == "literal_error":
        allowed = [str(a) for a in _literals(_at(model, loc))] or [str(context["expected"])]
        yield Finding(
            loc, f"allowed: {', '.join(allowed)}; {did_you_mean(value, allowed, 'choose one')}", value
        )
    elif kind in _TYPES:
        yield Finding(loc, f"{_was(value)}{_TYPES[kind]}", value)
    elif "ge" in context:
        yield Finding(loc, f"is too small, allowed: {context['ge']} and above; raise it", value)
    elif "le" in context:
        yield Finding(loc, f"is too large, allowed: {context['le']} and below; lower it", value)
    elif kind == "too_short" and value:
        return  # none of its members was valid, which was said of each
    elif kind in ("too_short", "string_too_short"):
        yield Finding(loc, f"is empty, allowed: {context['min_length']} or more; add something", value)
    elif kind in ("too_long", "string_too_long"):
        yield Finding(loc, f"is too long, allowed: {context['max_length']}; shorten it", value)
    else:
        yield Finding(loc, error["msg"], value)


def _was(value: object) -> str:
    return (
        f"is {_shape(value)} and "
        if isinstance(value, dict | tuple)
        else "is empty and "
        if value is None
        else ""
    )


def _at(model: Any, loc: Loc) -> Any:
    """The type at a place of a model."""
    kind: Any = model
    for part in loc:
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, Frozen):
            fields = {f.alias or name: f for name, f in kind.model_fields.items()}
            if part not in fields:
                return None
            kind = fields[str(part)].annotation
        elif get_origin(kind) in (tuple, dict):
            kind = get_args(kind)[1 if get_origin(kind) is dict else 0]
        else:
            return None
    return _plain(kind)


def _plain(kind: Any) -> Any:
    """A type without ``Annotated`` and ``| None``."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            rest = [a for a in get_args(kind) if a is not type(None)]
            if len(rest) != 1:
                return kind
            kind = rest[0]
        else:
            return kind


def _keys(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, Frozen):
        return [f.alias or name for name, f in kind.model_fields.items()]
    return []


def _literals(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if kind is not None and str(get_origin(kind)) == "typing.Literal" else ()


def _meaning(model: Any, loc: Loc) -> str:
    parent = _at(model, loc[:-1])
    if isinstance(parent, type) and issubclass(parent, Frozen):
        for name, f in parent.model_fields.items():
            if loc[-1] in (name, f.alias) and f.description:
                return f" ({f.description.rstrip('.').splitlines()[0]})"
    return ""
