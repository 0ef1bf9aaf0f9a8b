"""What templates ask for and nobody gives, and what a site or campaign gives and no script of a plan uses. Pure.

A key of a site counts as used when a template of the plan mentions it, be it in a branch that is not taken. A site
is for many campaigns: nothing is said of keys that do not concern this one, only of those that own templates
dropped, and of those that somebody set for a partition in which nothing of the plan mentions them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jinja2 import meta, nodes

from harness.model import axes as sweep
from harness.model.campaign import Campaign, Group
from harness.model.fields import Frozen, did_you_mean
from harness.model.site import Partition, Site
from harness.templates import Source, Templates, sources, tree


def unknown_names(
    used: Sequence[Source], templates: Templates, known: Iterable[str]
) -> Iterator[tuple[Source, int, str]]:
    """Names in templates that are no variables of scripts, each with the template and the line."""
    allowed = frozenset(known)
    for source in used:
        parsed = tree(source, templates)
        for name in sorted(meta.find_undeclared_variables(parsed) - allowed):
            lines = [node.lineno for node in parsed.find_all(nodes.Name) if node.name == name]
            yield source, min(lines, default=1), name


def unused_keys(
    of: Site | Partition, used: Sequence[Source], others: Sequence[Source], templates: Templates
) -> list[str]:
    """Keys that a site or one of its partitions sets, that ``others`` mention, and that none of those used mentions."""
    mentioned, known = _mentions(used, templates), _mentions(others, templates)
    return [
        key
        for key in _keys_set(of)
        if any(_touch(key, mention) for mention in known) and not any(_touch(key, m) for m in mentioned)
    ]


def unused_files(templates: Templates) -> Iterator[tuple[Path, str]]:
    """Files of own folders that no script of any campaign is made of, each with what to do."""
    builtin = sorted(path.name for path in templates.builtin.glob("*.j2"))
    used = {source.path for name in builtin for source in sources(name, templates)}
    for folder in templates.own:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.suffix in (".j2", ".sh") and name not in builtin and str(path) not in used:
                yield path, did_you_mean(name, builtin, "extend or include it, or remove it")


def unused_params(campaign: Campaign) -> list[tuple[int, str]]:
    """Parameters of commands, axes included, that nothing in the command mentions: number of the group, and name."""
    return [
        (index, name)
        for index, group in enumerate(campaign.groups)
        if group.command is not None
        for name in _given(group)
        if not re.search(
            rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9_])", group.command.model_dump_json()
        )
    ]


def _given(group: Group) -> Iterator[str]:
    yield from group.params
    yield from (name for axis in group.axes for name in axis if name not in sweep.AXIS_FIELDS)


def _keys_set(model: Frozen, before: str = "") -> Iterator[str]:
    """Dotted paths of the keys that were written, those of blocks in the place of the blocks."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name not in model.model_fields_set or value is None or value in ((), {}):
            continue
        if field.is_required() and not isinstance(value, Frozen):
            continue  # whoever wrote it had no choice
        if isinstance(value, Frozen):
            yield from _keys_set(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _touch(key: str, mention: str) -> bool:
    return key == mention or key.startswith(f"{mention}.") or mention.startswith(f"{key}.")


def _mentions(sources: Iterable[Source], templates: Templates) -> set[str]:
    """Dotted paths below ``site`` that templates read."""
    found = set()
    for source in sources:
        parsed = tree(source, templates)
        attributes = list(parsed.find_all(nodes.Getattr))
        inner = {
            id(attribute.node) for attribute in attributes
        }  # site.mpi of site.mpi.plugin is no mention of its own
        found |= {path for a in attributes if id(a) not in inner and (path := _path(a))}
        if any(
            _is_site(item.node) for item in parsed.find_all(nodes.Getitem)
        ):  # site[key]: any text of the template
            found |= {str(c.value) for c in parsed.find_all(nodes.Const) if c.value in Site.model_fields}
    return found


def _is_site(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "site"


def _path(node: nodes.Getattr) -> str:
    """``mpi.environment`` of ``site.mpi.environment.items``; "" of what is not below ``site``."""
    parts: list[str] = []
    current: nodes.Node = node
    while isinstance(current, nodes.Getattr):
        parts.insert(0, current.attr)
        current = current.node
    return ".".join(parts) if _is_site(current) else ""
