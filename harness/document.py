"""Campaign and site files -> plain values, each with the file and line it is from; fragments put together.

A campaign file may say ``include: [checks.yaml, ../limits.yaml]``. Each is a YAML file with any of a
campaign's top-level keys, itself perhaps with an ``include``. Groups follow those of the including file,
mappings are merged, and what the including file says itself wins; two fragments that disagree are an error.
Paths are relative to the file that names them, or absolute; nothing is searched for and nothing in a path is
expanded, and every file that was read is named in the run's own copy. Numbers of groups in messages count
through the whole campaign; lines are those of the file named.

It reads files and nothing else, and does not know what the values mean.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.model.fields import NOTHING, Finding, Loc, did_you_mean
from harness.source import parse

MAX_BYTES = 1 << 20
MAX_FILES = 50
MAX_DEPTH = 8
INCLUDE = "include"


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


@dataclass(frozen=True)
class Spot:
    """Where something is written: a file and a line in it, or an override and no line."""

    path: str
    line: int = 0

    def __str__(self) -> str:
        """As messages show it."""
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True)
class Document:
    """Values, where each of them is written, and what is wrong with the text of the files."""

    data: Any
    spots: Mapping[Loc, Spot]
    findings: tuple[tuple[Spot, Finding], ...] = ()
    files: tuple[tuple[str, str], ...] = ()  # path and text of each file that was read
    overrides: tuple[str, ...] = ()

    def spot(self, loc: Loc) -> Spot:
        """Where a place is written, or the nearest thing around it."""
        while loc and loc not in self.spots:
            loc = loc[:-1]
        return self.spots.get(loc) or Spot(self.files[0][0] if self.files else "", 1)


def from_text(text: str, path: str) -> Document:
    """One text, without its fragments."""
    source = parse(text)
    return Document(
        source.data,
        {loc: Spot(path, line) for loc, line in source.lines.items()},
        tuple((Spot(path, line), finding) for line, finding in source.findings),
        ((path, text),),
    )


def from_file(path: Path) -> Document:
    """One file with all its fragments.

    Raises:
        ConfigError: the file itself cannot be read; of fragments, that is a finding.
    """
    return _Reader().read(path, ())


# ---- files ----


def find(given: str | Path, search: Iterable[Path], noun: str) -> Path:
    """The file of that path, or of that name in one of the folders ``search``. Raises ConfigError."""
    path, folders = Path(given), tuple(search)
    bare = path.name == str(given)
    if _is_there(path) and not (bare and path.is_dir()):
        return path
    if bare:
        for folder in folders:
            for name in (f"{given}.yaml", str(given)):
                if _is_there(folder / name):
                    return folder / name
    names = sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})
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


def read_text(path: Path) -> str:
    """The text of a file, of bounded size.

    Raises:
        ConfigError: it cannot be read, or holds something else than text.
    """

    def refuse(text: str, line: int = 0) -> ConfigError:
        return ConfigError([Problem(str(path), line, text)])

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise refuse("is not a file; give the path of a YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        what = "path" if isinstance(error, FileNotFoundError | ValueError) else "permissions"
        raise refuse(f"cannot be read ({reason}); check its {what}") from None
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


# ---- fragments ----


@dataclass
class _Reader:
    """Reads a file and its fragments, each once."""

    seen: dict[Path, str] = field(default_factory=dict)  # resolved -> where it was named

    def read(self, path: Path, chain: tuple[Path, ...]) -> Document:
        document = from_text(read_text(path), str(path))
        self.seen.setdefault(path.resolve(), str(path))
        if not isinstance(document.data, dict) or INCLUDE not in document.data:
            return document
        own = _without_include(document)
        given = document.data[INCLUDE]
        where = document.spot((INCLUDE,))
        if not isinstance(given, tuple) or not all(isinstance(g, str) and g.strip() for g in given):
            text = "must be a list of paths of YAML files; write it in [ ]"
            return _with_findings(own, [(where, Finding((INCLUDE,), text))])
        parts, found = [], []
        for index, name in enumerate(given):
            loc: Loc = (INCLUDE, index)
            spot = document.spot(loc)
            part, wrong = self._part(path.parent / name, (*chain, path.resolve()), spot)
            if wrong:
                found.append((spot, Finding(loc, wrong, name)))
            if part is not None:
                parts.append(part)
        return _with_findings(_merged(own, parts), found)

    def _part(self, path: Path, chain: tuple[Path, ...], spot: Spot) -> tuple[Document | None, str]:
        """A fragment, or why there is none."""
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):
            real = path
        if real in chain:
            return None, "includes itself, perhaps through others; remove it"
        if real in self.seen:
            return None, f"is included at {self.seen[real]} already; keep one of the two"
        if len(chain) >= MAX_DEPTH:
            return None, f"is included {len(chain)} files deep, allowed: {MAX_DEPTH}; make it flatter"
        if len(self.seen) >= MAX_FILES:
            return None, f"is one file too many, allowed: {MAX_FILES}; join some"
        try:
            document = self.read(path, chain)
        except ConfigError as error:
            problem = error.problems[0]
            return None, f"line {problem.line} of it {problem.text}" if problem.line else problem.text
        self.seen[real] = str(spot)
        if document.data is NOTHING or document.data is None:
            return document, "" if document.findings else "holds nothing; remove it"
        if not isinstance(document.data, dict):
            return None, "holds no keys and values; begin it with keys of a campaign, such as groups:"
        return document, ""


def _with_findings(document: Document, more: Iterable[tuple[Spot, Finding]]) -> Document:
    findings = (*document.findings, *more)
    return Document(document.data, document.spots, findings, document.files, document.overrides)


def _without_include(document: Document) -> Document:
    data = {key: value for key, value in document.data.items() if key != INCLUDE}
    spots = {loc: spot for loc, spot in document.spots.items() if loc[:1] != (INCLUDE,)}
    return Document(data, spots, document.findings, document.files)


def _merged(own: Document, parts: Iterable[Document]) -> Document:
    """A file's own values with those of its fragments."""
    merge = _Merge(dict(own.data), dict(own.spots))
    merge.findings += own.findings
    files = [*own.files]
    for part in parts:
        merge.findings += part.findings
        files += part.files
        if isinstance(part.data, dict):
            merge.keys((), merge.data, own.data, part.data, part)
    return Document(merge.data, merge.spots, tuple(merge.findings), tuple(files))


@dataclass
class _Merge:
    data: dict[str, Any]
    spots: dict[Loc, Spot]
    findings: list[tuple[Spot, Finding]] = field(default_factory=list)

    def keys(
        self, loc: Loc, into: dict[str, Any], own: Mapping[str, Any], data: Mapping[str, Any], part: Document
    ) -> None:
        """Put a fragment's keys into a mapping; ``own`` is what the including file says there itself."""
        for key, value in data.items():
            here = (*loc, key)
            if key not in into:
                into[key] = value
                self._take(here, part)
            elif _kind(into[key]) != _kind(value):
                self._clash(here, part, value)
            elif here == ("groups",) and isinstance(value, tuple):
                self._take(here, part, behind=len(into[key]))
                into[key] = (*into[key], *value)
            elif isinstance(value, dict) and isinstance(into[key], dict):
                into[key] = dict(into[key])
                inner = own.get(key, {})
                self.keys(here, into[key], inner if isinstance(inner, dict) else {}, value, part)
            elif into[key] != value and (key not in own or here == ("schema",)):
                self._clash(here, part, value)

    def _clash(self, loc: Loc, part: Document, value: Any) -> None:
        text = f"but {self.spots.get(loc)} says another; say it once, or in the file that includes both"
        shown = NOTHING if isinstance(value, dict | tuple) else value
        self.findings.append((part.spot(loc), Finding(loc, text, shown)))

    def _take(self, old: Loc, part: Document, behind: int = 0) -> None:
        """The spots of a part's values, of groups behind as many others."""
        for loc, spot in part.spots.items():
            if loc[: len(old)] == old:
                if behind and len(loc) > 1 and isinstance(loc[1], int):
                    loc = (loc[0], loc[1] + behind, *loc[2:])
                self.spots.setdefault(loc, spot)


def _kind(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, tuple) else "value"
