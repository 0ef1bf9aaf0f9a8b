"""Campaign and site files -> models, or every error at once, each with file, line, place and value.

Files, fragments and overrides become one document (``harness.document``, ``harness.overrides``); what the
rules are is in the models and in ``harness.rules``. It reads the files and nothing else. Groups that are valid
are held against the site although others are not, so that a person sees all there is to correct at once.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness import document as files
from harness import overrides as changes
from harness import reference_paths
from harness.document import ConfigError as ConfigError
from harness.document import Document, Spot
from harness.document import Problem as Problem
from harness.document import find as find
from harness.explain import explain, follows, quoted, shape, without
from harness.figure_rules import expected_findings
from harness.model import order
from harness.model.campaign import Campaign, Group, duplicate_names
from harness.model.fields import NOTHING, Finding, Frozen, Loc, place
from harness.model.site import Site
from harness.rules import (
    group_findings,
    metric_findings,
    need_findings,
    site_findings,
    size_findings,
    workload_findings,
)
from harness.source import dump
from harness.workloads import COLLECTIVES, OPERATIONS, REGISTRY

PASSES = 4  # looks at a file in which something is wrong, each without what the ones before found
M = TypeVar("M", bound=Frozen)


@dataclass(frozen=True)
class Draft:
    """A campaign as it was read, perhaps wrong."""

    document: Document
    campaign: Campaign | None  # None: ``problems`` say why
    groups: tuple[tuple[int, Group], ...]  # those that are valid, each with its number
    problems: tuple[Problem, ...]
    left_out: frozenset[Loc] = frozenset()  # keys that were wrong, and without which ``groups`` are valid

    @functools.cached_property
    def text(self) -> str:
        """The campaign in one file; "" if it is wrong."""
        return "" if self.campaign is None else _one_text(self.document, self.campaign)

    def problem(self, finding: Finding) -> Problem:
        """A finding about it, with file and line."""
        return _problem(self.document.spot(finding.loc), finding)


def read_campaign(path: str | Path, search: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Draft:
    """Read a campaign file with its fragments, or the campaign of that name in one of the folders ``search``.

    Args:
        path: file or name.
        search: folders of campaigns that have names.
        overrides: ``PATH=VALUE`` each, applied in order before anything is checked.

    Raises:
        ConfigError: the file itself cannot be read. What is wrong in it is in ``Draft.problems``.
    """
    return _draft(changes.apply(files.from_file(find(path, search, "campaign")), overrides))


def load_campaign(
    path: str | Path, search: Sequence[Path] = (), overrides: Sequence[str] = ()
) -> tuple[Campaign, str]:
    """As ``read_campaign``, of a campaign that must be right.

    Returns:
        The campaign, and its text in one file: the text it was read from where that is all there is, else
        the same values as YAML, below a comment that names files and overrides.

    Raises:
        ConfigError: the file is missing, unreadable or wrong.
    """
    draft = read_campaign(path, search, overrides)
    return _valid(draft), draft.text


def load_site(name_or_path: str | Path, search: Sequence[Path] = ()) -> tuple[Site, str]:
    """Read a site file, or the site of that name in one of the folders ``search``.

    Returns:
        The site, and the text it was read from.

    Raises:
        ConfigError: the file is missing, unreadable or wrong.
    """
    found = find(name_or_path, search, "site")
    text = files.read_text(found)
    return _site(_with_templates_found(files.from_text(text, str(found)), found.parent)), text


def parse_campaign(text: str, path: str = "campaign") -> Campaign:
    """A campaign from its text, which includes nothing; ``path`` is for the messages. Raises ConfigError."""
    return _valid(_draft(files.from_text(text, path)))


def parse_site(text: str, path: str = "site") -> Site:
    """A site from its text; ``path`` is for the messages. Raises ConfigError."""
    return _site(files.from_text(text, path))


def _site(document: Document) -> Site:
    site, found = _validated(Site, document, "site", _expected_findings)
    if site is None or found:
        _, more, _ = _looked_at_again(Site, document, found, _expected_findings)
        raise ConfigError(_problems(document, [*found, *more]))
    return site


def _expected_findings(_: Mapping[str, Any], site: Site | None) -> Iterable[Finding]:
    return () if site is None else expected_findings(site, REGISTRY)


def build_campaign(data: Mapping[str, Any], path: str = "campaign") -> Campaign:
    """A campaign from values in memory, lists as tuples; ``path`` is for the messages. Raises ConfigError."""
    return _valid(_draft(Document(data, {(): Spot(path)})))


def build_group(data: Mapping[str, Any], path: str = "group") -> Group:
    """A group from values in memory, lists as tuples; ``path`` is for the messages. Raises ConfigError."""
    document = Document(data, {(): Spot(path)})
    group, found = _validated(Group, document, "group", _one_group)
    if group is None or found:
        raise ConfigError(_problems(document, found))
    return group


def to_yaml(campaign: Campaign) -> str:
    """A campaign as the text of a file, which gives an equal campaign when it is read.

    Raises:
        ConfigError: it is larger than a file may be.
    """
    text = dump(campaign.model_dump(mode="json", exclude_unset=True))
    _must_give_back(text, campaign)
    return text


def check(campaign: Campaign, site: Site, *, path: str = "campaign", text: str = "") -> list[Problem]:
    """Everything that keeps a campaign from running on a site; ``warning`` marks what does not.

    ``path`` and ``text`` of the campaign's file give the messages their lines; a campaign that was built in
    Python has neither.
    """
    document = files.from_text(text, path) if text else Document(None, {(): Spot(path)})
    found = [*_campaign_findings({}, campaign), *_site_findings(campaign, enumerate(campaign.groups), site)]
    return _problems(document, ((document.spot(f.loc), f) for f in found))


def fit(draft: Draft, site: Site) -> list[Problem]:
    """Everything wrong with a campaign, and all that keeps its valid groups from running on a site."""
    found = _site_findings(draft.campaign, draft.groups, site)
    new = [draft.problem(f) for f in found if not follows(f, draft.left_out)]
    return _sorted(draft.document, [*draft.problems, *new])


def campaign_json_schema() -> dict[str, Any]:
    """JSON Schema of campaign files, for editors."""
    schema = _schema(Campaign, "harness campaign file")
    schema["$defs"]["Group"]["properties"]["workload"]["enum"] = sorted(REGISTRY)
    return schema


def site_json_schema() -> dict[str, Any]:
    """JSON Schema of site files, for editors."""
    schema = _schema(Site, "harness site file")
    expected = schema["$defs"]["Expected"]["properties"]
    expected["workload"]["enum"] = COLLECTIVES
    expected["operation"]["enum"] = list(OPERATIONS)
    return schema


def _schema(model: type[Frozen], title: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(by_alias=True),
        "title": title,
    }


# ---- campaigns ----


def _draft(document: Document) -> Draft:
    document = reference_paths.found(_with_templates_found(document))
    campaign, found = _validated(Campaign, document, "campaign", _campaign_findings)
    if campaign is None or found:
        rest, more, gone = _looked_at_again(Campaign, document, found, _campaign_findings)
        groups = tuple((i, g) for i, g in _valid_groups(rest) if ("groups", i, "partition") not in gone)
        return Draft(document, None, groups, tuple(_problems(document, [*found, *more])), frozenset(gone))
    draft = Draft(document, campaign, tuple(enumerate(campaign.groups)), ())
    try:
        draft.text  # noqa: B018 - whether there is one
    except ConfigError as error:
        return Draft(document, None, draft.groups, error.problems)
    return draft


def _valid(draft: Draft) -> Campaign:
    if draft.campaign is None:
        raise ConfigError(draft.problems)
    return draft.campaign


def _with_templates_found(document: Document, near: Path | None = None) -> Document:
    """A folder of templates is meant from the file that names it; from an override, from the current folder.

    Args:
        near: the folder of the file, where the document does not know it.
    """
    given = document.data.get("templates") if isinstance(document.data, dict) else None
    spot = document.spot(("templates",))
    if not isinstance(given, str) or not given or (near is None and not document.files):
        return document
    if near is None:
        near = Path(spot.path).parent if spot.line else Path()
    data = {**document.data, "templates": str((near / given).absolute())}
    return Document(data, document.spots, document.findings, document.files, document.overrides)


def _means_the_same(own: str, path: str, campaign: Campaign, document: Document) -> bool:
    """Whether a file names the same folders and files wherever it lies."""
    data = files.from_text(own, path).data
    paths = list(reference_paths.named(data)) == list(reference_paths.named(document.data))
    return paths and (not campaign.templates or data["templates"] == campaign.templates)


def _one_text(document: Document, campaign: Campaign) -> str:
    """The campaign in one file, from which it can be run again."""
    if not document.files:
        return to_yaml(campaign)
    path, own = document.files[0]
    if len(document.files) == 1 and not document.overrides and _means_the_same(own, path, campaign, document):
        return own
    lines = ["The campaign as it was run, in one file: written by the harness from"]
    for path, text in document.files:
        lines.append(f"  {json.dumps(path)}, sha256 {hashlib.sha256(text.encode()).hexdigest()}")
    lines += [f"  -s {json.dumps(override)}" for override in document.overrides]
    header = "".join(f"# {line}\n" for line in lines)
    kept = "".join(
        f"\n# ---- {json.dumps(path)} ----\n" + "".join(f"# {line}\n" for line in text.splitlines())
        for path, text in document.files
    )
    body = header + "\n" + to_yaml(campaign)
    whole = body + kept
    return whole if len(whole.encode()) <= files.MAX_BYTES else body


def _must_give_back(text: str, campaign: Campaign) -> None:
    document = files.from_text(text, "campaign")
    given_back, found = _validated(Campaign, document, "campaign", _campaign_findings)
    if len(text.encode()) > files.MAX_BYTES or found or given_back != campaign:
        why = _problem(*found[0]).text if found else f"of {len(text.encode())} bytes"
        raise ConfigError([Problem("campaign", 0, f"is too large to be written as one file: {why}")])


def _valid_groups(data: Any) -> Iterator[tuple[int, Group]]:
    groups = data.get("groups") if isinstance(data, dict) else ()
    for index, raw in enumerate(groups if isinstance(groups, tuple) else ()):
        try:
            group = Group.model_validate(raw)
        except ValidationError:
            continue
        if group.workload in REGISTRY:
            yield index, group


# ---- validation ----


def _validated(
    model: type[M],
    document: Document,
    noun: str,
    more: Callable[[Mapping[str, Any], M | None], Iterable[Finding]],
) -> tuple[M | None, list[tuple[Spot, Finding]]]:
    """The value, if it is one, and everything wrong with it."""
    found = list(document.findings)
    value: M | None = None
    data = document.data
    if data is NOTHING or data is None:
        if not found:
            text = f"the file is empty; write a {noun}, or copy one of configs/{noun}s"
            found.append((Spot(document.spot(()).path), Finding((), text)))
        return None, found
    if not isinstance(data, dict):
        text = f"the file holds {shape(data)}, allowed: keys and values; begin with schema: 1"
        return None, [*found, (document.spot(()), Finding((), text))]
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        found += [(document.spot(f.loc), f) for e in error.errors() for f in explain(e, model)]
    told = {f.loc for _, f in found}  # of what the model refused, the other rules have nothing to add
    found += [(document.spot(f.loc), f) for f in more(data, value) if f.loc not in told]
    return value, found


def _looked_at_again(
    model: type[M],
    document: Document,
    found: Iterable[tuple[Spot, Finding]],
    more: Callable[[Mapping[str, Any], M | None], Iterable[Finding]],
) -> tuple[Any, list[tuple[Spot, Finding]], set[Loc]]:
    """What a wrong key hid: the values without those that are wrong, what is found then, and what was left out."""
    rest, gone, new = document.data, set[Loc](), list[Finding]()
    told = {f.loc for _, f in found}
    parents = set[Loc]()  # of keys that had to be there
    for _ in range(PASSES if isinstance(rest, dict) else 0):
        rest, now = without(rest, sorted(told | parents, key=len))
        if not now:
            break
        gone |= now
        value, errors = None, list[Finding]()
        try:
            value = model.model_validate(rest)
        except ValidationError as error:
            errors = [f for e in error.errors() for f in explain(e, model)]
        parents |= {f.loc[:-1] for f in errors if f.loc in gone}
        for f in (*errors, *more(rest, value)):
            if f.loc not in told and not follows(f, gone):
                told.add(f.loc)
                new.append(f)
    return rest, [(document.spot(f.loc), f) for f in new], gone


def _campaign_findings(data: Mapping[str, Any], campaign: Campaign | None) -> Iterator[Finding]:
    """What the model alone cannot know, of a valid campaign; of another all that can be said of the rest."""
    if campaign is not None:
        for index, group in enumerate(campaign.groups):
            yield from _within(index, _one_group({}, group))
        yield from size_findings(campaign.groups)
        return
    groups = data.get("groups")
    raws = groups if isinstance(groups, tuple) else ()
    valid = dict(_valid_groups(data))
    for index, raw in enumerate(raws):
        if isinstance(raw, dict):
            yield from _within(index, _one_group(raw, valid.get(index)))
    yield from duplicate_names([raw.get("name") if isinstance(raw, dict) else None for raw in raws])
    yield from order.findings([_wish(raw) for raw in raws])
    yield from size_findings(valid.values())


def _one_group(data: Mapping[str, Any], group: Group | None) -> Iterator[Finding]:
    """A group against the registry of workloads."""
    if group is None:
        compare = data.get("compare")
        yield from workload_findings(
            data.get("workload"), data.get("params"), REGISTRY, data.get("axes"), compare
        )
        yield from metric_findings(data.get("gates"), data.get("command"), data.get("repeats"), compare)
        return
    raw = group.model_dump(include={"gates", "command", "repeats", "compare"})
    yield from workload_findings(group.workload, group.params, REGISTRY, group.axes, raw["compare"])
    yield from metric_findings(raw["gates"], raw["command"], raw["repeats"], raw["compare"])
    if group.workload in REGISTRY:
        yield from group_findings(group, REGISTRY[group.workload])


def _wish(raw: Any) -> order.Wish | None:
    """What a group that may be wrong says of its order."""
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        return None

    def names(key: str) -> tuple[str, ...]:
        given = raw.get(key)
        return given if isinstance(given, tuple) and all(isinstance(g, str) for g in given) else ()

    role = raw.get("role", order.MEASUREMENT)
    known = role if isinstance(role, str) and role in order.RANK else order.MEASUREMENT
    return order.Wish(raw["name"], known, names("after"), names("needs"))


def _site_findings(
    campaign: Campaign | None, groups: Iterable[tuple[int, Group]], site: Site
) -> Iterator[Finding]:
    yield from site_findings(groups, site, REGISTRY)
    if campaign is not None:
        yield from need_findings(campaign)


def _within(index: int, findings: Iterable[Finding]) -> Iterator[Finding]:
    for f in findings:
        yield Finding(("groups", index, *f.loc), f.text, f.value, f.warning)


# ---- messages ----


def _problems(document: Document, found: Iterable[tuple[Spot, Finding]]) -> list[Problem]:
    """Messages in the order of files and lines, overrides last."""
    return _sorted(document, [_problem(spot, f) for spot, f in found])


def _sorted(document: Document, problems: Iterable[Problem]) -> list[Problem]:
    rank = {path: number for number, (path, _) in reversed(list(enumerate(document.files)))}
    return sorted(problems, key=lambda p: (rank.get(p.path, len(rank)), p.line, p.warning))


def _problem(spot: Spot, f: Finding) -> Problem:
    value = (
        f" = {quoted(f.value)}" if f.value is not NOTHING and not isinstance(f.value, dict | tuple) else ""
    )
    return Problem(spot.path, spot.line, f"{place(f.loc)}{value}, {f.text}" if f.loc else f.text, f.warning)
