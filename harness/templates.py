"""Templates: where they are looked for, and what Jinja may do with them. Reads files, does nothing else.

A campaign's own folder is looked into first, then the site's, then the harness's. ``base.sh.j2`` means the
nearest of that name; ``harness/base.sh.j2`` the harness's own, and ``site/base.sh.j2`` the site's or else the
harness's: so that an own template can extend the one whose name it has. Templates are code of whoever wrote
them. A template that prints a text without a filter, or a name that is not defined, is refused; it can refuse
to be rendered itself (``refuse``).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from markupsafe import Markup

from harness.model.fields import did_you_mean
from harness.script import RenderError, code, directive, shell, short


@dataclass(frozen=True)
class Templates:
    """Folders of templates. ``site`` and ``campaign`` are people's own."""

    builtin: Path
    site: Path | None = None
    campaign: Path | None = None

    @property
    def own(self) -> tuple[Path, ...]:
        """Those that do not come with the harness, nearest first."""
        return tuple(folder for folder in (self.campaign, self.site) if folder is not None)

    @property
    def folders(self) -> tuple[Path, ...]:
        """All, nearest first."""
        return (*self.own, self.builtin)


@dataclass(frozen=True)
class Source:
    """One template that a script was made of."""

    name: str  # as templates call it
    path: str
    text: str

    @property
    def sha256(self) -> str:
        """Of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def fill(name: str, templates: Templates, context: Mapping[str, Any]) -> str:
    """The text of one template.

    Raises:
        RenderError: it is missing or wrong, or refuses; with its file and line.
    """
    try:
        text = _environment(templates).get_template(name).render(context)
    except (jinja2.TemplateError, RenderError, RecursionError, UnicodeDecodeError) as error:
        raise RenderError(_words(error, name, templates)) from None
    except Exception as error:
        if where := _place(error):
            raise RenderError(f"{where}: {type(error).__name__}: {error}; correct it") from None
        raise  # not the template's fault
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RenderError(f"template {name}: holds text that is not UTF-8; correct it") from None
    return text


def sources(name: str, templates: Templates) -> list[Source]:
    """The template and all that it extends, includes or imports, itself first.

    Raises:
        RenderError: one is missing or wrong, or named by an expression, so that it cannot be told.
    """
    environment = _environment(templates)
    found: dict[str, Source] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        if current in found:
            continue
        try:
            assert environment.loader is not None  # _environment gave it one
            text, path, _ = environment.loader.get_source(environment, current)
            named = list(meta.find_referenced_templates(environment.parse(text, current, path)))
        except (jinja2.TemplateError, UnicodeDecodeError) as error:
            raise RenderError(_words(error, current, templates)) from None
        found[current] = Source(current, str(path), text)
        if None in named:
            raise RenderError(
                f"{path}: extends or includes a template that an expression names, so that the run folder could "
                "not say which; write its name"
            )
        waiting += [other for other in named if other is not None]
    return list(found.values())


def refuse_lost_blocks(name: str, templates: Templates) -> None:
    """Refuse own templates with a block that none of the templates has that they extend: it would vanish.

    A new block inside one that is there is fine.

    Raises:
        RenderError: with file and line of the block.
    """
    if not templates.own:
        return
    chain: list[tuple[Source, nodes.Template]] = []
    found = {source.name: source for source in sources(name, templates)}
    current: str | None = name
    while current in found and len(chain) < len(found):
        chain.append((found[current], tree(found[current], templates)))
        parents = [n.template for n in chain[-1][1].find_all(nodes.Extends)]
        current = next((str(p.value) for p in parents if isinstance(p, nodes.Const)), None)
    for index, (source, parsed) in enumerate(chain[:-1]):
        known = {block.name for _, above in chain[index + 1 :] for block in above.find_all(nodes.Block)}
        for block in _lost(parsed, known):
            hint = did_you_mean(block.name, known, "remove it, or put it inside one of them")
            raise RenderError(
                f"{source.path}:{block.lineno}: block {block.name} is in none of the templates that this one extends, "
                f"so it would be left out, allowed: {', '.join(sorted(known))}; {hint}"
            )


def _lost(parent: nodes.Node, known: Collection[str]) -> Iterator[nodes.Block]:
    """Outermost blocks with other names, those within known ones left out."""
    for child in parent.iter_child_nodes():
        if not isinstance(child, nodes.Block):
            yield from _lost(child, known)
        elif child.name not in known:
            yield child


def tree(source: Source, templates: Templates) -> nodes.Template:
    """A template as Jinja understands it."""
    return _environment(templates).parse(source.text, source.name, source.path)


def refuse(reason: Any) -> NoReturn:
    """For templates: what is asked cannot run, for this reason."""
    raise RenderError(str(reason))


def _words(error: Exception, name: str, templates: Templates) -> str:
    where = _place(error) or f"template {name}"
    if isinstance(error, jinja2.TemplateNotFound):
        looked = ", ".join(str(folder) for folder in templates.folders)
        what = f"template {error.name}: not in {looked}"
        if not templates.own:
            return f"{what}; the harness is not complete"
        return f"{what if error.name == name else f'{where}: {what}'}; correct the name, or add the file"
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or name}:{error.lineno}: {error.message}; correct it"
    if isinstance(error, jinja2.TemplateError):
        return f"{where}: {error.message}; correct it"
    if isinstance(error, RecursionError):
        return f"template {name}: extends or includes itself; the harness's own is harness/{name}"
    if isinstance(error, UnicodeDecodeError):
        return f"template {name}: is not UTF-8; save it as UTF-8"
    return f"{where}: {error}" if _is_own(where, templates) else str(error)


def _place(error: BaseException) -> str:
    """``file:line`` of the template in which an error came up; "" when it did in none."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(".j2"):
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _is_own(place: str, templates: Templates) -> bool:
    return any(place.startswith(f"{folder}/") for folder in templates.own)


def _fenced(value: Any) -> Any:
    """What a template may print: whole numbers, and texts that came out of a filter."""
    if isinstance(value, Markup | jinja2.Undefined) or (
        isinstance(value, int) and not isinstance(value, bool)
    ):
        return value
    raise RenderError(
        f"{short(str(value))}: printed by a template as it is; pipe it through shell or directive"
    )


@functools.lru_cache(maxsize=8)
def _environment(templates: Templates) -> jinja2.Environment:
    """Jinja for these folders; kept, because compiling a template costs more than filling it in."""
    builtin = _folder(templates.builtin)
    site = jinja2.ChoiceLoader([*([_folder(templates.site)] if templates.site else []), builtin])
    own = [_folder(folder) for folder in templates.own]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PrefixLoader({"harness": builtin, "site": site}), *own, builtin]),
        undefined=jinja2.StrictUndefined,
        finalize=_fenced,
        autoescape=True,  # not for HTML: it makes Jinja tell filtered text (Markup) from other text
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("safe", "escape", "e", "forceescape", "xmlattr", "tojson", "urlize"):
        del environment.filters[name]
    environment.filters.update(shell=shell, directive=directive, code=code)
    environment.globals["refuse"] = refuse
    return environment


def _folder(path: Path) -> jinja2.BaseLoader:
    return jinja2.FileSystemLoader(path, encoding="utf-8")
